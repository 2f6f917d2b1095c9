/* row.c - the row of a run: parameters, metrics computed from the raw sample, and facts.
 * Metrics are rounded here, once, as they are shown.
 */
#include "results/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- what metrics.def's formulas are made of ---- */

static int64_t first_ns(const sample *s) {
    return s->token_ns[0];
}

static int64_t last_ns(const sample *s) {
    return s->token_ns[s->n_tokens - 1];
}

static double ms(int64_t ns) {
    return (double)ns / 1e6;
}

static double gb(int64_t bytes) {
    return (double)bytes / 1e9;
}

/* n per second; unset when nothing was counted or no time passed. */
static double rate(int64_t n, int64_t ns) {
    return n > 0 && ns > 0 ? (double)n / ((double)ns / 1e9) : NAN;
}

static int compare_ns(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The percentile (nearest rank) of the times between two tokens, in ms. */
static double interval_ms(const sample *s, int percent) {
    int64_t n = s->n_tokens - 1;
    int64_t *intervals = n > 0 ? malloc((size_t)n * sizeof *intervals) : NULL;
    if (!intervals) return NAN;
    for (int64_t i = 0; i < n; i++) intervals[i] = s->token_ns[i + 1] - s->token_ns[i];
    qsort(intervals, (size_t)n, sizeof *intervals, compare_ns);
    int64_t rank = (n * percent + 99) / 100;
    double picked = ms(intervals[rank - 1]);
    free(intervals);
    return picked;
}

/* Intervals of more than twice the median. */
static double count_stalls(const sample *s) {
    double limit = 2 * interval_ms(s, 50);
    int64_t n = 0;
    if (!isfinite(limit)) return NAN;
    for (int64_t i = 0; i + 1 < s->n_tokens; i++) n += ms(s->token_ns[i + 1] - s->token_ns[i]) > limit;
    return (double)n;
}

/* Time of a token = at_0 + per_1000 * entries / 1000, by least squares; entries: those in the cache
 * that the token meets, its own included. r2: the share of the variance that this explains. */
typedef struct fit {
    double at_0, per_1000, r2;
} fit;

static fit fit_of(const sample *s) {
    int64_t n = s->n_tokens - 1;
    fit f = {NAN, NAN, NAN};
    if (n < 3) return f;
    double mean_x = (double)(s->depth + s->n_prompt) + (double)(n + 1) / 2,
           mean_y = ms(last_ns(s) - first_ns(s)) / (double)n, xx = 0, xy = 0, yy = 0;
    for (int64_t i = 1; i <= n; i++) {
        double x = (double)(s->depth + s->n_prompt + i) - mean_x,
               y = ms(s->token_ns[i] - s->token_ns[i - 1]) - mean_y;
        xx += x * x;
        xy += x * y;
        yy += y * y;
    }
    f.per_1000 = 1000 * xy / xx;
    f.at_0 = mean_y - xy / xx * mean_x;
    if (yy > 0) f.r2 = xy * xy / (xx * yy);
    return f;
}

#define METRIC(name, decimals, summing, formula)                                                             \
    static double metric_##name(const sample *s) {                                                           \
        return formula;                                                                                      \
    }
#include "results/metrics.def"

/* ---- values ---- */

static value value_of_TEXT(const char *text) {
    return text && *text ? (value){.kind = VALUE_TEXT, .text = text} : (value){.kind = VALUE_NONE};
}

static value value_of_SETTING(const char *text) {
    return value_of_TEXT(text);
}

static value value_of_NUMBER(int64_t number) {
    return (value){.kind = VALUE_NUMBER, .number = number};
}

static value value_of_OPTIONAL(int64_t number) {
    return number ? value_of_NUMBER(number) : (value){.kind = VALUE_NONE};
}

static value value_of_BOOL(int8_t yes) {
    return yes >= 0 ? (value){.kind = VALUE_BOOL, .number = yes} : (value){.kind = VALUE_NONE};
}

value value_of_real(double real, int decimals) {
    char text[400]; /* the largest double has 309 digits */
    if (!isfinite(real)) return (value){.kind = VALUE_NONE};
    snprintf(text, sizeof text, "%.*f", decimals, real);
    return (value){.kind = VALUE_REAL, .real = strtod(text, NULL), .decimals = decimals};
}

void row_of_run(row *out, run_number number, const params *p, const sample *s, const facts *f) {
    *out = (row){.kind = ROW_RUN, .raw = s};
    out->cells[COLUMN_run] = value_of_NUMBER(number.run);
    out->cells[COLUMN_configuration] = value_of_NUMBER(number.configuration);
    out->cells[COLUMN_repeat] = value_of_NUMBER(number.repeat);
#define PARAM(field, kind, ...) out->cells[COLUMN_##field] = value_of_##kind(p->field);
#include "results/params.def"
#define METRIC(name, decimals, summing, formula)                                                             \
    if (s) out->cells[COLUMN_##name] = value_of_real(metric_##name(s), decimals);
#include "results/metrics.def"
#define FACT(field, kind) out->cells[COLUMN_##field] = value_of_##kind(f->field);
#include "results/facts.def"
}
