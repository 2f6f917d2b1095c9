/* isolation.h - --isolate and --timeout: whether models run in processes of their own, and how
 * those are started (private to cmd/). */
#ifndef CMD_ISOLATION_H
#define CMD_ISOLATION_H

#include "bench/bench.h"

typedef struct isolation {
    int n;
    char **given; /* this program's arguments, which each process gets, too */
    str program;
    const char **arguments;
    bench_child child;
} isolation;

/* What was given; NULL: nothing. */
typedef struct isolation_choice {
    const char *isolate, *timeout;
    bool several; /* models */
    bool modules; /* mlx@PATH: a process can have one module only */
    bool prompt_given;
} isolation_choice;

/* *out gets how processes are started; NULL: models run in this process. -1 with a usage error, or
 * when the program's own path cannot be known. */
int isolation_get(isolation *i, isolation_choice how, const bench_child **out);

/* --ab-program: this program and another one take turns. The caller has filled in what they are
 * given besides their paths. -1 with an error when there is no such program. */
int programs_get(isolation *i, const char *other, const char *timeout, bench_programs *out);
void isolation_free(isolation *i);

#endif
