/* isolation.c - starts this program again with the same options: a model's process reads its plan
 * from them. The prompt's text goes through standard input, which may be read once only.
 */
#include "cmd/isolation.h"
#include "cmd/cmd.h"
#include "cmd/units.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { FIXED = 5 }; /* the program's name, the command, --prompt -, and the end */

static int get_timeout(const char *text, int64_t *out) {
    if (parse_duration(text, "--timeout", out)) return -1;
    return text && !*out ? fail_usage("--timeout: there is no time in %s", text) : 0;
}

int isolation_get(isolation *i, isolation_choice how, const bench_child **out) {
    bool none = how.isolate && !strcmp(how.isolate, "none"), models = how.isolate && !none;
    int n = 0;
    *out = NULL;
    if (models && strcmp(how.isolate, "models"))
        return fail_usage("--isolate: \"%s\" is not one of models,none", how.isolate);
    if (get_timeout(how.timeout, &i->child.timeout_ns)) return -1;
    if (none && how.timeout) return fail_usage("--timeout needs --isolate models");
    if (none && how.modules) return fail_usage("--engine mlx@PATH needs --isolate models");
    if (none || !(models || how.several || how.modules || how.timeout)) return 0;
    i->arguments = mem_new((size_t)(i->n + FIXED), sizeof *i->arguments, "the arguments");
    if (!i->arguments || program_path(&i->program)) return -1;
    i->arguments[n++] = "mlxbench";
    i->arguments[n++] = BENCH_CHILD;
    for (int k = 0; k < i->n; k++) i->arguments[n++] = i->given[k];
    if (how.prompt_given) i->arguments[n++] = "--prompt";
    if (how.prompt_given) i->arguments[n++] = "-";
    i->child.program = i->program.data;
    i->child.arguments = i->arguments;
    *out = &i->child;
    return 0;
}

int programs_get(isolation *i, const char *other, const char *timeout, bench_programs *out) {
    if (access(other, X_OK)) return fail_usage("--ab-program: cannot run %s: %s", other, strerror(errno));
    if (get_timeout(timeout, &out->timeout_ns) || program_path(&i->program)) return -1;
    out->own = i->program.data;
    out->other = out->other_name = other;
    return 0;
}

void isolation_free(isolation *i) {
    free(i->arguments);
    str_free(&i->program);
    *i = (isolation){0};
}
