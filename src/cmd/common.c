/* common.c - options of the benchmark parameters, and --prompt, for the commands that run a model.
 * One line of results/params.def is an option of both. */
#include "cmd/common.h"

#include <errno.h>
#include <stdio.h>

enum { MAX_PROMPT_BYTES = 64 << 20 };

option param_option(int i) {
    static const int everyday[] = {PARAM_model, PARAM_engine, PARAM_threads, PARAM_n_prompt,
                                   PARAM_n_generate};
    const param *p = &param_table[i];
    option o = {.name = p->option,
                .short_name = p->short_option,
                .metavar = p->metavar,
                .help = p->help,
                .rare = true};
    for (size_t k = 0; k < sizeof everyday / sizeof *everyday; k++)
        if (everyday[k] == i) o.rare = false;
    return o;
}

option mlx_env_option(option_texts *given) {
    return (option){.name = "mlx-env",
                    .metavar = "NAME=VALUE",
                    .kind = OPTION_TEXTS,
                    .value = given,
                    .help =
                        "a variable that MLX reads, such as MLX_ENABLE_TF32=0; may be given several times",
                    .rare = true};
}

static int read_all(FILE *file, const char *name, str *out) {
    char buffer[1 << 16];
    size_t n;
    while ((n = fread(buffer, 1, sizeof buffer, file)) > 0) {
        str_append(out, buffer, n);
        if (out->length > MAX_PROMPT_BYTES)
            return fail_usage("--prompt: %s is longer than %d bytes", name, MAX_PROMPT_BYTES);
        if (interrupted()) return fail_interrupted();
    }
    if (interrupted()) return fail_interrupted();
    return ferror(file) ? fail("cannot read %s: %s", name, strerror(errno)) : 0;
}

static int read_file(const char *path, str *out) {
    FILE *file = fopen(path, "rb");
    if (!file) return fail_usage("--prompt: cannot read %s: %s", path, strerror(errno));
    int failed = read_all(file, path, out);
    fclose(file);
    return failed;
}

static void unescape(str *out, const char *text) {
    for (; *text; text++) {
        bool line = !strncmp(text, "\\n", 2), tab = !strncmp(text, "\\t", 2);
        str_append(out, line ? "\n" : tab ? "\t" : text, 1);
        text += line || tab;
    }
}

int read_prompt_text(const char *given, str *out) {
    if (!strcmp(given, "-")) {
        if (read_all(stdin, "standard input", out)) return -1;
    } else if (*given == '@') {
        if (read_file(given + 1, out)) return -1;
    } else {
        unescape(out, given);
    }
    if (out->failed) return -1;
    return out->length ? 0 : fail_usage("--prompt: an empty text gives no token");
}

void put_command(str *out, int argc, char **argv) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
    str_puts(out, "mlxbench");
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        str_puts(out, " ");
        if (*word && !word[strspn(word, plain)]) {
            str_puts(out, word);
            continue;
        }
        str_puts(out, "'");
        for (; *word; word++) str_printf(out, *word == '\'' ? "'\\%c'" : "%c", *word);
        str_puts(out, "'");
    }
}
