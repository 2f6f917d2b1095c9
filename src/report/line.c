/* line.c - a configuration in one line that can be pasted into a message: model, machine, speeds,
 * memory. Numbers have four digits, which is more than most machines repeat.
 */
#include "report/report.h"

#include <math.h>

/* The last part of a path; a name on the Hub stays whole. */
static const char *short_name(const char *model) {
    const char *slash = strrchr(model, '/'), *dot = strrchr(model, '.');
    bool is_path = *model == '/' || *model == '.' || (dot && !strcmp(dot, ".gguf"));
    return is_path && slash && slash[1] ? slash + 1 : model;
}

/* The value between two texts, where there is one. */
static void put(str *out, const row *r, int c, const char *before, const char *after) {
    if (r->cells[c].kind == VALUE_NONE) return;
    str_puts(out, before);
    value_put(out, r->cells[c], 3, "");
    str_puts(out, after);
}

static int decimals_of(double x) {
    return x >= 1000 ? 0 : x >= 100 ? 1 : x >= 10 ? 2 : 3;
}

static void put_range(str *out, const char *before, double low, double high) {
    str_printf(out, " (%s%.*f to %.*f)", before, decimals_of(low), low, decimals_of(high), high);
}

static void put_speed(str *out, const row *r, const char *what, int tokens, int c) {
    const spread *s = &r->spreads[c - COLUMN_FIRST_METRIC];
    if (r->cells[c].kind == VALUE_NONE) return;
    str_printf(out, "%s ", what);
    value_put(out, r->cells[tokens], 0, "");
    str_printf(out, " tokens at %.*f tokens/s", decimals_of(r->cells[c].real), r->cells[c].real);
    if (isfinite(s->low)) put_range(out, "95 % ", s->low, s->high);
    if (!isfinite(s->low) && s->n > 1) put_range(out, "", s->min, s->max);
}

void report_line(str *out, const row *r) {
    value model = r->cells[COLUMN_model], peak = r->cells[COLUMN_peak_memory_gb];
    str_puts(out, model.kind == VALUE_TEXT ? short_name(model.text) : "a model");
    put(out, r, COLUMN_quantization, " ", "");
    put(out, r, COLUMN_chip, " on ", "");
    put(out, r, COLUMN_engine, ", ", "");
    put(out, r, COLUMN_device, " (", ")");
    put(out, r, COLUMN_threads, ", ", " threads");
    str_puts(out, ":");
    put_speed(out, r, " prompt of", COLUMN_prompt_tokens, COLUMN_prompt_tps);
    put_speed(out, r, ", generation of", COLUMN_generation_tokens, COLUMN_generation_tps);
    if (peak.kind == VALUE_REAL) str_printf(out, ", %.3g GB", peak.real);
    int64_t n = r->spreads[METRIC_prompt_tps].n;
    str_printf(out, ", %lld run%s", (long long)n, n == 1 ? "" : "s");
    put(out, r, COLUMN_mlxbench_version, ", mlxbench ", "");
}
