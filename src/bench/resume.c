/* resume.c - runs from an earlier result file: what was measured as it would be now is not measured
 * again. The earlier rows stay as they are, and those of configurations that this plan lacks stay,
 * too.
 */
#include "bench/internal.h"

#include <math.h>
#include <stdlib.h>

int resume_runs(bench *b) {
    const results *r = b->options->earlier;
    if (!r) return 0;
    b->adopted = mem_new((size_t)r->n + 1, sizeof *b->adopted, "the earlier rows");
    int failed = b->adopted ? 0 : -1;
    for (int64_t i = 0; i < r->n && !failed; i++) failed = rows_hand_on(b, &r->runs[i]);
    return failed;
}

/* Besides the parameters, what must be the same so that runs belong together; and the versions of
 * programs that are compared. */
static const int same_facts[] = {COLUMN_engine_version, COLUMN_device,    COLUMN_quantization,
                                 COLUMN_parameters,     COLUMN_synthetic, COLUMN_hw_model,
                                 COLUMN_mlx_env,        COLUMN_seed,      COLUMN_program};

static bool is_same(const bench *b, const row *now, const row *earlier) {
    if (earlier->cells[COLUMN_error].kind == VALUE_TEXT) return false;
    for (int c = COLUMN_FIRST_PARAM; c < COLUMN_FIRST_METRIC; c++)
        if (!value_equal(now->cells[c], earlier->cells[c])) return false;
    for (size_t i = 0; i < sizeof same_facts / sizeof *same_facts; i++)
        if (!value_equal(now->cells[same_facts[i]], earlier->cells[same_facts[i]])) return false;
    value program = now->cells[COLUMN_mlxbench_version];
    return !b->options->programs || value_equal(program, earlier->cells[COLUMN_mlxbench_version]);
}

static double real_of(const row *r, int c) {
    return r->cells[c].kind == VALUE_REAL ? r->cells[c].real : NAN;
}

static int adopt(bench *b, series *s, const row *run) {
    const double speeds[N_SPEEDS] = {real_of(run, COLUMN_prompt_tps), real_of(run, COLUMN_generation_tps)};
    double seconds = real_of(run, COLUMN_total_s);
    if (!s->summary) s->summary = summary_new();
    s->n_rows++;
    if (!s->summary || summary_add(s->summary, run)) return -1;
    return series_add_earlier(s, b->options, speeds, isfinite(seconds) ? (int64_t)(1e9 * seconds) : 0);
}

int resume_series(bench *b, series *s, const row *now) {
    const results *r = b->options->earlier;
    if (!r) return 0;
    for (int64_t i = r->n - 1; i >= 0 && !s->configuration; i--) /* of several, the last one */
        if (!b->adopted[i] && is_same(b, now, &r->runs[i]))
            s->configuration = r->runs[i].cells[COLUMN_configuration].number;
    for (int64_t i = 0; i < r->n && s->configuration; i++) {
        const row *run = &r->runs[i];
        if (run->cells[COLUMN_configuration].number != s->configuration) continue;
        b->adopted[i] = true;
        if (is_same(b, now, run) && adopt(b, s, run)) return -1;
    }
    return 0;
}

/* A configuration whose runs no series took. */
static int hand_on_rest(void *context, const row *r) {
    bench *b = context;
    const results *all = b->options->earlier;
    if (r->kind != ROW_SUMMARY) return 0;
    for (int64_t i = 0; i < all->n; i++)
        if (b->adopted[i] &&
            all->runs[i].cells[COLUMN_configuration].number == r->cells[COLUMN_configuration].number)
            return 0;
    return rows_hand_on(b, r);
}

int resume_rest(bench *b) {
    int failed = 0;
    if (b->adopted && !b->stopped) failed = results_each(b->options->earlier, hand_on_rest, b);
    free(b->adopted);
    b->adopted = NULL;
    return failed;
}
