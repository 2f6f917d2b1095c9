/* pull.c - `mlxbench pull NAME`: download a model, or bring it up to date.
 * Other commands download what they lack by themselves; this one also asks the Hub for what is
 * newer. */
#include "cmd/cmd.h"
#include "cmd/fetch.h"

#include <errno.h>
#include <stdio.h>

static int pull(const char *name, bool offline) {
    str path = {0};
    int status = offline ? fetch_model(name, HUB_MODEL, true, &path) : fetch_pull(name, HUB_MODEL, &path);
    if (!status && (printf("%s\n", path.data) < 0 || fflush(stdout)))
        status = fail("cannot write standard output: %s", strerror(errno));
    str_free(&path);
    return status;
}

int cmd_pull(int argc, char **argv) {
    const char *name = NULL;
    bool offline = false;
    const option options[] = {
        {.name = "offline", .kind = OPTION_FLAG, .value = &offline, .help = "only say whether it is here"},
    };
    const option_usage usage = {
        .synopsis = "mlxbench pull NAME [--offline]",
        .about = "Downloads a model from the Hugging Face Hub into its cache: what a run needs, continued "
                 "where it\n"
                 "stopped, and checked. Prints where it is. NAME is owner/name, owner/name@revision,\n"
                 "owner/name/file.gguf, or the address of a page of the Hub.",
        .example = "mlxbench pull mlx-community/Llama-3.2-3B-Instruct-4bit",
    };
    for (int i = 1; i < argc && !name; i++) {
        if (*argv[i] == '-') continue;
        name = argv[i];
        memmove(argv + i, argv + i + 1, (size_t)(argc-- - i) * sizeof *argv); /* with the NULL at the end */
    }
    int status = options_parse(options, sizeof options / sizeof *options, &usage, argc, argv);
    if (status) return status < 0 ? -1 : 0;
    if (!name)
        return fail_usage("pull: which model? as in: mlxbench pull mlx-community/Llama-3.2-3B-Instruct-4bit");
    return pull(name, offline);
}
