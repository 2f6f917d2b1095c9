/* verdict.h - what a benchmark compares at its end: with earlier results, or sides that took turns
 * (private to cmd/). */
#ifndef CMD_VERDICT_H
#define CMD_VERDICT_H

#include "bench/bench.h"
#include "cmd/gate.h"

typedef struct verdict {
    gate gate;
    const char *against; /* a result file; NULL: none */
    results before;      /* what is in it */
    const plan *plan;
    const char *program; /* another program that takes turns; NULL: none */
    bool engines;        /* mlx@PATH is among them: the plan's versions of MLX are compared */
    results runs;        /* of this benchmark */
} verdict;

/* After options were given. -1 with an error: the file can't be read, or there is nothing that
 * --fail-slower could judge. */
int verdict_open(verdict *v, const plan *p, const char *program);

/* Keeps the row of a run, if it is to be compared. */
int verdict_row(verdict *v, const row *r);

/* Writes the comparisons; -1, for exit code 3, when a speed fell as --fail-slower says. */
int verdict_end(verdict *v, FILE *to);
void verdict_free(verdict *v);

#endif
