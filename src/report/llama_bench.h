/* llama_bench.h - a configuration as tests of llama-bench, which has one speed per test (private to
 * report/). llama_bench.c writes them for programs, llama_bench_md.c for people.
 */
#ifndef REPORT_LLAMA_BENCH_H
#define REPORT_LLAMA_BENCH_H

#include "report/format.h"

typedef struct llama_output {
    const row *of;            /* a summary */
    int64_t n_prompt, n_gen;  /* one of them is 0 */
    int64_t n_depth;          /* tokens that are in the cache before */
    const spread *ts;         /* tokens per second */
    double avg_ns, stddev_ns; /* of n_prompt + n_gen tokens at that speed; 0: there is none */
} llama_output;

/* The tests of a summary: none where it failed, or of a run. Returns how many. */
int llama_outputs(const row *r, llama_output out[2]);

/* What n_prompt + n_gen tokens take at the speed of run i. */
double llama_sample_ns(const llama_output *t, int64_t i);

/* The value of a column of llama_table, as text. */
void llama_put(str *out, const llama_output *t, int which);

/* Has it run on a CPU? Then the table shows threads, else layers on the GPU. */
bool llama_on_cpu(const row *r);

#endif
