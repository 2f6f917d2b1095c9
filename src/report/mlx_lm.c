/* mlx_lm.c - the lines that mlx_lm.benchmark prints, for scripts that read them: a block for each
 * configuration, when it is done. Source: mlx-lm, mlx_lm/benchmark.py.
 */
#include "report/format.h"

#include <math.h>

/* The metric of run i; NAN where it has none. */
static double metric_of(const row *r, int metric, int64_t i) {
    const spread *s = &r->spreads[metric];
    return i < s->n ? s->in_order[i] : NAN;
}

/* mlx-lm counts n tokens in the time of n - 1. */
static double generation_tps(const row *r, int64_t i) {
    double n = metric_of(r, METRIC_generation_tokens, i);
    return metric_of(r, METRIC_generation_tps, i) * n / (n - 1);
}

/* What tells blocks apart besides the numbers of the next line. */
static void put_what_varies(output *o, const row *r) {
    const char *before = "Measuring ";
    for (int c = COLUMN_FIRST_PARAM; c < COLUMN_FIRST_METRIC; c++) {
        if (!o->sweep->varies[c] || c == COLUMN_n_prompt || c == COLUMN_n_generate || c == COLUMN_batch)
            continue;
        str_printf(&o->text, "%s%s=", before, column_table[c].name);
        value_put(&o->text, r->cells[c], 0, "None");
        before = ", ";
    }
    if (*before == ',') str_puts(&o->text, ".\n");
}

static void put_number(str *out, const char *name, int which, const row *r) {
    str_puts(out, name);
    value_put(out, r->cells[which], 0, "1");
}

/* C prints nan and -nan; Python nan. */
static void put_real(str *out, const char *name, double x) {
    str_puts(out, name);
    str_printf(out, isnan(x) ? "nan" : "%.3f", x);
}

static void put_row(output *o, const row *r) {
    int64_t n = r->kind == ROW_SUMMARY ? r->spreads[METRIC_prompt_tps].n : 0;
    double prompt = 0, generation = 0, peak = 0;
    if (!n) return;
    put_what_varies(o, r);
    if (r->cells[COLUMN_warmup].kind != VALUE_NUMBER || r->cells[COLUMN_warmup].number)
        str_puts(&o->text, "Running warmup..\n");
    put_number(&o->text, "Timing with prompt_tokens=", COLUMN_n_prompt, r);
    put_number(&o->text, ", generation_tokens=", COLUMN_n_generate, r);
    put_number(&o->text, ", batch_size=", COLUMN_batch, r);
    str_puts(&o->text, ".\n");
    for (int64_t i = 0; i < n; i++) {
        str_printf(&o->text, "Trial %lld:  ", (long long)i + 1);
        put_real(&o->text, "prompt_tps=", metric_of(r, METRIC_prompt_tps, i));
        put_real(&o->text, ", generation_tps=", generation_tps(r, i));
        put_real(&o->text, ", peak_memory=", metric_of(r, METRIC_peak_memory_gb, i));
        put_real(&o->text, ", total_time=", metric_of(r, METRIC_total_s, i));
        str_puts(&o->text, "\n");
        prompt += metric_of(r, METRIC_prompt_tps, i) / (double)n;
        generation += generation_tps(r, i) / (double)n;
        peak += metric_of(r, METRIC_peak_memory_gb, i) / (double)n;
    }
    put_real(&o->text, "Averages: prompt_tps=", prompt);
    put_real(&o->text, ", generation_tps=", generation);
    put_real(&o->text, ", peak_memory=", peak);
    str_puts(&o->text, "\n");
}

const format format_mlx_lm = {.row = put_row};
