/* series.c - how many runs a configuration needs: when it is warm, when its speeds are known well
 * enough, and how many runs that will take. Knows numbers only, so that all of it can be tested.
 */
#include "bench/internal.h"

#include <math.h>
#include <stdlib.h>

/* Two runs whose speeds differ by less are both warm: more than most machines differ from run to
 * run, and less than the first runs do. */
static const double AGREEMENT = 0.02;

/* In tokens of all sequences per second, as the columns. */
static void speeds_of(const sample *run, double out[N_SPEEDS]) {
    double n = 1e9 * (double)run->n_sequences;
    int64_t first = run->token_ns[0], last = run->token_ns[run->n_tokens - 1];
    out[0] = first > run->start_ns ? n * (double)run->n_prompt / (double)(first - run->start_ns) : NAN;
    out[1] = last > first ? n * (double)(run->n_tokens - 1) / (double)(last - first) : NAN;
}

/* Has warming up ended in this speed? It moves in one direction: a change against the one before is
 * noise. A speed that is not there, as that of a single token, does not change. */
static bool levels_off(double now, double before, double change_before) {
    double change = now - before;
    return !(fabs(change) > AGREEMENT * fmin(now, before)) || change * change_before < 0;
}

void series_begin(series *s, const bench_options *o) {
    s->warm = !o->warmup;
    s->settled = false;
    s->expected = series_runs_left(s, o);
}

void series_free(series *s) {
    for (int i = 0; i < N_SPEEDS; i++) free(s->speeds[i]);
    summary_free(s->summary);
    *s = (series){0};
}

static void add_warm(series *s, const bench_options *o, const double speeds[N_SPEEDS]) {
    bool level = s->n_warm > 0;
    for (int i = 0; i < N_SPEEDS && s->n_warm; i++) {
        level &= levels_off(speeds[i], s->last[i], s->change[i]);
        s->change[i] = speeds[i] - s->last[i];
    }
    s->n_warm++;
    s->settled = level || o->warmup > 0;
    s->warm = o->warmup >= 0 ? s->n_warm >= o->warmup : level || s->n_warm >= WARMUP_MOST;
    memcpy(s->last, speeds, sizeof s->last);
}

double series_width(const series *s, int i) {
    double *x = malloc((size_t)(s->n + 1) * sizeof *x), width = NAN;
    int64_t n = 0;
    for (int64_t k = 0; x && k < s->n; k++)
        if (isfinite(s->speeds[i][k])) x[n++] = s->speeds[i][k];
    if (x) {
        spread of = spread_of(x, n);
        width = (of.high - of.low) / of.median;
    }
    free(x);
    return width;
}

/* Runs that the interval will take to be narrow enough: its width falls with the root of their
 * number. */
static int64_t runs_needed(const series *s, double precision) {
    double most = REPEATS_LEAST;
    for (int i = 0; i < N_SPEEDS; i++) {
        double width = series_width(s, i), n = (double)s->n * width * width / (precision * precision);
        if (isfinite(n)) most = fmax(most, n);
    }
    return most < REPEATS_MOST ? (int64_t)ceil(most) : REPEATS_MOST;
}

static bool is_precise(const series *s, double precision) {
    for (int i = 0; i < N_SPEEDS; i++)
        if (series_width(s, i) > precision) return false; /* false, too, where there is no such speed */
    return true;
}

/* Looks after every run at first, then after each tenth part more: a look costs time, and each one
 * is a chance to stop at an interval that is narrow by luck. */
static bool is_done(const series *s, const bench_options *o) {
    if (o->duration_ns) return s->spent_ns >= o->duration_ns;
    if (o->repeats) return s->n >= o->repeats;
    if (s->n < REPEATS_LEAST) return false;
    if (s->n >= REPEATS_MOST || s->spent_ns >= o->time_limit_ns) return true;
    int64_t step = s->n / 10;
    return (step < 2 || s->n % step == 0) && is_precise(s, o->precision);
}

int series_add_earlier(series *s, const bench_options *o, const double speeds[N_SPEEDS], int64_t ns) {
    if (s->n == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 16;
        for (int i = 0; i < N_SPEEDS; i++)
            if (mem_resize((void **)&s->speeds[i], (size_t)s->capacity, sizeof *s->speeds[i], "the speeds"))
                return -1;
    }
    for (int i = 0; i < N_SPEEDS; i++) s->speeds[i][s->n] = speeds[i];
    s->n++;
    s->spent_ns += ns;
    s->done = is_done(s, o);
    return 0;
}

int series_add(series *s, const bench_options *o, const sample *run, int64_t ns) {
    double speeds[N_SPEEDS];
    speeds_of(run, speeds);
    if (!s->warm) {
        add_warm(s, o, speeds);
        return 0;
    }
    s->settled |= !o->warmup; /* the first run was the warm-up */
    if (o->duration_ns) s->window = 1 + s->spent_ns / (o->duration_ns / WINDOWS + 1);
    return series_add_earlier(s, o, speeds, ns);
}

int64_t series_runs_left(const series *s, const bench_options *o) {
    int64_t warm = s->warm ? 0 : o->warmup >= 0 ? o->warmup - s->n_warm : s->n_warm ? 1 : 2;
    if (s->done) return 0;
    if (o->duration_ns) {
        double each = s->n ? fmax(1, (double)s->spent_ns / (double)s->n) : (double)o->duration_ns;
        return warm + (int64_t)ceil((double)(o->duration_ns - s->spent_ns) / each);
    }
    if (o->repeats) return warm + o->repeats - s->n;
    if (s->n < REPEATS_LEAST) return warm + REPEATS_LEAST - s->n;
    double each = (double)s->spent_ns / (double)s->n,
           in_time = ceil((double)(o->time_limit_ns - s->spent_ns) / each);
    double needed = (double)(runs_needed(s, o->precision) - s->n);
    return (int64_t)fmax(1, fmin(needed, in_time));
}
