/* mlxbench.c - exactly the table of the original mlxbench (Python), for tools that read it.
 * Fifteen columns, three decimals, None where unset: src/mlxbench/benchmark.py of
 * okuvshynov/mlxbench. */
#include "report/format.h"

static const int columns[] = {COLUMN_run,
                              COLUMN_model,
                              COLUMN_hw_model,
                              COLUMN_n_prompt,
                              COLUMN_n_generate,
                              COLUMN_max_kv_size,
                              COLUMN_kv_bits,
                              COLUMN_kv_group_size,
                              COLUMN_quantized_kv_start,
                              COLUMN_prefill_step_size,
                              COLUMN_prompt_tokens,
                              COLUMN_prompt_tps,
                              COLUMN_generation_tokens,
                              COLUMN_generation_tps,
                              COLUMN_peak_memory_gb};
enum { N = sizeof columns / sizeof *columns };

static void begin(output *o) {
    put_csv(&o->text, NULL, columns, N, 3, "None");
}

static void put_row(output *o, const row *r) {
    if (r->kind == ROW_RUN) put_csv(&o->text, r, columns, N, 3, "None");
}

const format format_mlxbench = {.begin = begin, .row = put_row};
