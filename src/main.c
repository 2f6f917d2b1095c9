/* main.c - finds the command, runs it, and prints the one error there may be.
 * Commands are listed in cmd/cmd.h. */
#include "base/base.h"
#include "cmd/cmd.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>

static const struct {
    const char *name, *about;
    int (*run)(int argc, char **argv);
} commands[] = {
#define COMMAND(name, about) {#name, about, cmd_##name},
    COMMANDS(COMMAND)
#undef COMMAND
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static int print_help(void) {
    printf("mlxbench measures how fast language models run on this machine.\n\n"
           "usage: mlxbench [COMMAND] [options]\n\ncommands:\n");
    for (int i = 0; i < N_COMMANDS; i++) printf("  %-10s  %s\n", commands[i].name, commands[i].about);
    printf("\nmlxbench COMMAND --help shows a command's options, --help all the rare ones, too;\nmlxbench "
           "--version the version.\n\n"
           "example:\n  mlxbench --model synthetic:llama-3.2-1b-4bit --n-prompt 128,1024 --repeats 3\n"
           "  two prompt lengths, three runs each, on random weights of a real model's shapes\n");
    return 0;
}

static int fail_unknown(const char *word) {
    str known = {0};
    for (int i = 0; i < N_COMMANDS; i++) str_printf(&known, "%s%s", i ? ", " : "", commands[i].name);
    fail_usage("unknown command \"%s\"; commands: %s", word, known.data ? known.data : "");
    str_free(&known);
    return -1;
}

/* `mlxbench help [COMMAND [all]]`. */
static int show_help(int n, char **words) {
    static char help[] = "--help";
    if (!n) return print_help();
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(words[0], commands[i].name))
            return commands[i].run(n + 1, (char *[]){words[0], help, n > 1 ? words[1] : NULL, NULL});
    return fail_unknown(words[0]);
}

static int run(int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : "";
    if (!strcmp(word, "--help") || !strcmp(word, "-h")) return print_help();
    if (!strcmp(word, "--version")) return printf("mlxbench " MLXBENCH_VERSION "\n") < 0 ? -1 : 0;
    if (!*word || *word == '-') { /* options only: the default command */
        static char bench[] = "bench";
        argv[0] = bench;
        return commands[0].run(argc, argv);
    }
    if (!strcmp(word, BENCH_CHILD)) return cmd_bench(argc - 1, argv + 1);
    if (!strcmp(word, "help")) return show_help(argc - 2, argv + 2);
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(word, commands[i].name)) return commands[i].run(argc - 1, argv + 1);
    return fail_unknown(word);
}

int main(int argc, char **argv) {
    interrupt_install();
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is a write error with a message */
    int failed = run(argc, argv);
    if (fflush(stdout) && !failed) failed = fail("cannot write standard output: %s", strerror(errno));
    if (!failed) return EXIT_OK;
    int code = error_exit_code() ? error_exit_code() : EXIT_FAILED;
    say_error(code);
    return code;
}
