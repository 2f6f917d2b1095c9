/* record.c - a record's columns, generated from the lists, and the arithmetic the metrics' formulas use.
 * Nothing is stored: each value is computed from the raw sample when it is asked for. */
#include "bench/bench.h"

#include <math.h>
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

#define METRIC(name, decimals, formula)                                                                      \
    static double metric_##name(const sample *s) {                                                           \
        return formula;                                                                                      \
    }
#include "bench/metrics.def"

/* ---- columns ---- */

static value value_TEXT(const char *text) {
    return text && *text ? (value){.kind = VALUE_TEXT, .text = text} : (value){.kind = VALUE_NONE};
}

static value value_NUMBER(int64_t number) {
    return (value){.kind = VALUE_NUMBER, .number = number};
}

static value value_OPTIONAL(int64_t number) {
    return number ? value_NUMBER(number) : (value){.kind = VALUE_NONE};
}

static value value_BOOL(int8_t yes) {
    return yes >= 0 ? (value){.kind = VALUE_BOOL, .number = yes} : (value){.kind = VALUE_NONE};
}

static value value_real(double real, int decimals) {
    return isfinite(real) ? (value){.kind = VALUE_REAL, .real = real, .decimals = decimals}
                          : (value){.kind = VALUE_NONE};
}

const char *column_name(int column) {
    static const char *const names[N_COLUMNS] = {
        [COLUMN_run] = "run",
#define PARAM(field, ...) [COLUMN_##field] = #field,
#include "bench/params.def"
#define METRIC(name, ...) [COLUMN_##name] = #name,
#include "bench/metrics.def"
#define FACT(field, ...) [COLUMN_##field] = #field,
#include "bench/facts.def"
    };
    return names[column];
}

value record_value(const record *r, int column) {
    switch (column) {
    case COLUMN_run:
        return value_NUMBER(r->run);
#define PARAM(field, kind, ...)                                                                              \
    case COLUMN_##field:                                                                                     \
        return value_##kind(r->params.field);
#include "bench/params.def"
#define METRIC(name, decimals, formula)                                                                      \
    case COLUMN_##name:                                                                                      \
        return value_real(r->facts.error ? NAN : metric_##name(&r->sample), decimals);
#include "bench/metrics.def"
#define FACT(field, kind)                                                                                    \
    case COLUMN_##field:                                                                                     \
        return value_##kind(r->facts.field);
#include "bench/facts.def"
    }
    return (value){.kind = VALUE_NONE};
}
