/* child.h - models in processes of their own: what both sides share (private to bench/).
 * The parent has the plan, the order, the rows and the terminal; a child has a model and runs it.
 * The parent writes commands, a line each; the child answers with lines of JSON: rows, notes, how
 * far a run is, and at last "done" or "failed".
 *
 *   prepare INDEX FIRST            prepare_here for configuration INDEX of the plan: a row of what
 *   runs begin INDEX                    turn_begin run N_WARM N WARM SETTLED      turn_run: a row;
 *   the numbers are what the series has end                            turn_end
 */
#ifndef BENCH_CHILD_H
#define BENCH_CHILD_H

#include "bench/internal.h"

/* ---- place.c: the parent's side ---- */

/* A model on an engine, and the process in which it is. */
struct place {
    const char *model, *engine; /* as in params */
    pid_t pid;                  /* 0: there is none now */
    int fd;
    str input; /* what has come; the first `taken` bytes are done with */
    size_t taken;
    results about;        /* a row without a run: the facts of the model and the engine */
    results last;         /* the row that came last */
    int64_t memory_kills; /* of the system, before it was started */
    bool loaded;
    int64_t load_failures;
    str error; /* why it does not load */
};

/* Makes b's places, without a process each. places_close ends the processes. */
int places_open(bench *b);
void places_close(bench *b);

/* As prepare_here, turn_begin, turn_run and turn_end, there. An error that ended the process, and
 * one that took too long, is an error of the configuration: the next one has a new process. */
int place_prepare(bench *b, const series *s, bool first, prepared *out);
int place_begin(bench *b, const series *s);
int place_run(bench *b, const series *s, turn *out);
int place_end(bench *b, const series *s);

/* Says how a process ended, by waitpid's status: -1. memory_kills: sys_memory_kills() before it
 * began. */
int fail_process(int status, int64_t memory_kills);

/* Puts what is known of the model and the engine of s into r. */
void place_put_facts(const bench *b, const series *s, row *r);

/* ---- serve.c: the child's ---- */

void serve_note(const progress *p, const char *text);
void serve_progress(const progress *p);

#endif
