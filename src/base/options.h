/* options.h - command-line options as data: one table gives parsing, checks and --help.
 * A command lists its options; nothing else knows their names. */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum option_kind {
    OPTION_FLAG,   /* bool *, set to true */
    OPTION_TEXT,   /* const char **, borrowed from argv; the last one given wins */
    OPTION_TEXTS,  /* option_texts *, every one given */
    OPTION_LIST,   /* str *, all that were given, joined by commas */
    OPTION_NUMBER, /* int64_t *, within [min, max] */
} option_kind;

enum { OPTION_MAX_TEXTS = 64 };

typedef struct option_texts {
    int n;
    const char *items[OPTION_MAX_TEXTS];
} option_texts;

typedef struct option {
    const char *name;       /* "prefill-step-size": given as --prefill-step-size V or --prefill-step-size=V.
                               NULL: takes the words that belong to no option (OPTION_TEXTS) */
    const char *short_name; /* "pss": given as -pss V; NULL when it has none */
    const char *metavar;    /* "N", "FILE"; NULL for a flag */
    const char *help;       /* one line, with the default where there is one */
    option_kind kind;
    void *value;
    int64_t min, max;     /* OPTION_NUMBER */
    const char *standard; /* the value when it is not given, for the help; NULL: nothing to say */
    bool rare;            /* shown by --help all only */
} option;

/* What --help prints around the table. */
typedef struct option_usage {
    const char *synopsis; /* "mlxbench generate --model M (--prompt TEXT | --prompt-ids 1,2,3) [options]" */
    const char *about;    /* one or two lines */
    const char *example;  /* one command with what it shows */
    const char *command;  /* "generate", for the hint at --help all; may be NULL where no option is rare */
} option_usage;

/* Parses argv[1..argc-1] into the options' values. Returns 0; 1 when --help or -h was given (the
 * help, with "all" behind it that of rare options, too, was printed to stdout, the command should
 * end with success); -1 with a usage error that names the option: unknown (with the nearest known
 * name), without its value, not a number, out of range, a word where none is taken. */
int options_parse(const option *options, size_t n, const option_usage *usage, int argc, char **argv);

/* The help page: at most 100 columns wide, made from the table. all: rare options are shown,
 * too. */
void options_help(FILE *out, const option *options, size_t n, const option_usage *usage, bool all);

/* A whole string as an integer within [min, max], for values in lists. -1 with a usage error that
 * names what.
 */
int parse_number(const char *text, const char *what, int64_t min, int64_t max, int64_t *out);

#endif
