/* measured.h - a run with known times, for tests of rows and of what is written.
 * Tests change a part of it and make its row.
 */
#ifndef TESTS_MEASURED_H
#define TESTS_MEASURED_H

#include "bench/bench.h"

typedef struct measured {
    run_number number;
    params params;
    sample sample;
    facts facts; /* with an error there is no sample */
} measured;

static plan one_plan;

/* 10 prompt tokens, the first token after 0.5 s, then one each 0.1 s but for a last one after 0.3
 * s. */
static int64_t token_ns[] = {1500000000, 1600000000, 1700000000, 2000000000};
static int32_t ids[] = {3, 10, 17, 24};

static inline measured measured_run(void) {
    measured m = {
        .number = {1, 1, 1},
        .params = plan_params(&one_plan, 0),
        .sample = {.n_sequences = 1,
                   .n_prompt = 10,
                   .n_tokens = 4,
                   .load_ns = 250000000,
                   .start_ns = 1000000000,
                   .token_ns = token_ns,
                   .ids = ids,
                   .memory = {.weights = 1000000000, .kv = 2000000, .scratch = 500000, .peak = 1234567890},
                   .peak_rss = 1500000000,
                   .experts_touched = 7.25},
        .facts = {.model_type = "llama",
                  .quantization = "4-bit g64",
                  .parameters = 13000000,
                  .synthetic = true,
                  .engine_version = "0.1.0",
                  .mlx_env = "MLX_ENABLE_TF32=0",
                  .device = "none",
                  .hw_model = "m2ultra_192gb_76gpu",
                  .chip = "Apple M2 Ultra",
                  .os = "macOS 15.1",
                  .mlxbench_version = "0.1.0",
                  .seed = 3,
                  .warmup = 1,
                  .prompt_hash = "0123456789abcdef",
                  .ids_hash = "fedcba9876543210",
                  .quality = "C",
                  .quality_reasons = "too warm: wait",
                  .measured_at = "2026-01-02T03:04:05Z"},
    };
    m.params.engine = "fake";
    m.params.threads = 2;
    m.params.graph = "fused";
    m.params.activations = NULL; /* means nothing to this engine */
    return m;
}

static inline row row_of(const measured *m) {
    row r;
    row_of_run(&r, m->number, &m->params, m->facts.error ? NULL : &m->sample, &m->facts);
    return r;
}

static inline int make_one_plan(void) {
    const char *lists[N_PARAMS];
    for (int i = 0; i < N_PARAMS; i++) lists[i] = param_table[i].default_list;
    lists[PARAM_model] = "a-model";
    lists[PARAM_n_prompt] = "10";
    lists[PARAM_n_generate] = "4";
    lists[PARAM_kv_bits] = "4";
    return plan_parse(&one_plan, lists);
}

#endif
