/* trends.c - kept results as a history: which measurements are of the same thing, in the order of
 * time, and where the speed of that thing changed.
 */
#include "results/internal.h"

#include <math.h>
#include <stdlib.h>

/* Besides the parameters, what must be the same so that speeds belong to one trend. Versions may
 * differ: what they change is asked for. */
static const int same_facts[] = {COLUMN_model_type, COLUMN_quantization, COLUMN_parameters, COLUMN_synthetic,
                                 COLUMN_mlx_env,    COLUMN_device,       COLUMN_hw_model,   COLUMN_program};

static bool is_same(const row *a, const row *b) {
    for (int c = COLUMN_FIRST_PARAM; c < COLUMN_FIRST_METRIC; c++)
        if (!value_equal(a->cells[c], b->cells[c])) return false;
    for (size_t i = 0; i < sizeof same_facts / sizeof *same_facts; i++)
        if (!value_equal(a->cells[same_facts[i]], b->cells[same_facts[i]])) return false;
    return true;
}

/* ---- measurements ---- */

static int64_t configuration(const row *r) {
    return r->cells[COLUMN_configuration].number;
}

static int compare_runs(const void *a, const void *b) {
    const row *x = *(const row *const *)a, *y = *(const row *const *)b;
    int64_t c = configuration(x), d = configuration(y);
    return c != d ? (c < d ? -1 : 1) : (x > y) - (x < y);
}

/* The runs that succeeded, those of one configuration side by side; *n of them. */
static const row **runs_of(const results *r, int64_t *n) {
    const row **runs = mem_new((size_t)r->n + 1, sizeof *runs, "a history");
    *n = 0;
    for (int64_t i = 0; runs && i < r->n; i++)
        if (r->runs[i].cells[COLUMN_error].kind != VALUE_TEXT) runs[(*n)++] = &r->runs[i];
    if (runs) qsort(runs, (size_t)*n, sizeof *runs, compare_runs);
    return runs;
}

static void measure(measurement *m, const row **runs, int64_t n, double *room) {
    grades g = {{0}};
    *m = (measurement){.first = runs[0], .last = runs[n - 1], .n = n};
    for (int64_t i = 0; i < n; i++) grades_add(&g, runs[i]->cells[COLUMN_quality]);
    m->grade = grades_of(&g);
    for (int k = 0; k < N_COMPARED; k++) {
        int64_t n_numbers = 0;
        for (int64_t i = 0; i < n; i++) {
            value v = runs[i]->cells[compared_column(k)];
            if (v.kind == VALUE_REAL) room[n_numbers++] = v.real;
        }
        m->speeds[k] = spread_of(room, n_numbers);
    }
}

/* Sets t->measurements; returns how many there are, -1 when out of memory. */
static int64_t find_measurements(trends *t, const results *r) {
    int64_t n, n_found = 0;
    const row **runs = runs_of(r, &n);
    double *room = mem_new((size_t)r->n + 1, sizeof *room, "a history");
    t->measurements = mem_new((size_t)r->n + 1, sizeof *t->measurements, "a history");
    bool failed = !runs || !room || !t->measurements;
    for (int64_t i = 0, end; i < n && !failed; i = end) {
        for (end = i; end < n && configuration(runs[end]) == configuration(runs[i]); end++) continue;
        measure(&t->measurements[n_found++], runs + i, end - i, room);
    }
    free(runs);
    free(room);
    return failed ? -1 : n_found;
}

static const char *time_of(const measurement *m) {
    value v = m->first->cells[COLUMN_measured_at];
    return v.kind == VALUE_TEXT ? v.text : "";
}

static int compare_measurements(const void *a, const void *b) {
    const measurement *x = a, *y = b;
    int order = strcmp(time_of(x), time_of(y));
    return order ? order : (x->first > y->first) - (x->first < y->first);
}

/* Brings those of one thing side by side: things in the order in which they were measured first. */
static int find_trends(trends *t, int64_t n) {
    measurement *m = t->measurements;
    qsort(m, (size_t)n, sizeof *m, compare_measurements);
    t->items = mem_new((size_t)n + 1, sizeof *t->items, "a history");
    measurement *sorted = mem_new((size_t)n + 1, sizeof *sorted, "a history");
    bool *taken = mem_new((size_t)n + 1, sizeof *taken, "a history"), failed = !t->items || !sorted || !taken;
    for (int64_t i = 0, end = 0; i < n && !failed; i++) {
        if (taken[i]) continue;
        trend *one = &t->items[t->n++];
        one->items = sorted + end;
        for (int64_t k = i; k < n; k++) {
            if (taken[k] || !is_same(m[i].first, m[k].first)) continue;
            taken[k] = true;
            one->items[one->n++] = m[k];
        }
        end += one->n;
    }
    free(taken);
    free(m);
    t->measurements = sorted;
    return failed ? -1 : 0;
}

/* ---- changes ---- */

/* Numbers of one trend and metric that may have changed their level among them. */
typedef struct segment {
    trend *of;
    int k;           /* the metric */
    int64_t from, n; /* of the trend's measurements */
    int64_t at;
    double p;
} segment;

bool measurement_is_disturbed(const measurement *m) {
    return m->grade > 'C';
}

/* The speeds of a segment that are to be asked: *n of them, and which measurements they are of. */
static double *numbers_of(const segment *s, int64_t **which, int64_t *n) {
    double *x = mem_new((size_t)s->n + 1, sizeof *x, "a history");
    *which = mem_new((size_t)s->n + 1, sizeof **which, "a history");
    *n = 0;
    for (int64_t i = s->from; x && *which && i < s->from + s->n; i++) {
        const measurement *m = &s->of->items[i];
        if (measurement_is_disturbed(m) || !m->speeds[s->k].n) continue;
        (*which)[*n] = i;
        x[(*n)++] = m->speeds[s->k].median;
    }
    return x;
}

static int ask(segment *s) {
    int64_t *which, n, at = 0;
    double *x = numbers_of(s, &which, &n);
    int failed = x && which ? 0 : -1;
    s->p = NAN;
    if (!failed) s->p = change_test(x, n, &at);
    if (!failed && isfinite(s->p)) s->at = which[at];
    free(x);
    free(which);
    return failed;
}

static int add_change(const segment *s, double p) {
    trend *t = s->of;
    if (mem_resize((void **)&t->changes, (size_t)t->n_changes + 1, sizeof *t->changes, "a history"))
        return -1;
    t->changes[t->n_changes++] = (level_change){.column = compared_column(s->k), .at = s->at, .p = p};
    return 0;
}

/* Asks all segments of a depth at once, so that chance is paid for once; those that changed give
 * two of the next depth. *n of them. */
static int ask_all(segment **all, int64_t *n) {
    segment *next = mem_new(2 * (size_t)*n + 1, sizeof *next, "a history");
    double *p = mem_new((size_t)*n + 1, sizeof *p, "a history");
    int64_t n_next = 0;
    int failed = next && p ? 0 : -1;
    for (int64_t i = 0; i < *n && !failed; i++) {
        failed = interrupted() ? fail_interrupted() : ask(&(*all)[i]);
        p[i] = (*all)[i].p;
    }
    if (!failed) failed = holm(p, *n);
    for (int64_t i = 0; i < *n && !failed; i++) {
        segment *s = &(*all)[i];
        if (!(p[i] < 0.05)) continue;
        failed = add_change(s, p[i]);
        next[n_next++] = (segment){.of = s->of, .k = s->k, .from = s->from, .n = s->at - s->from};
        next[n_next++] = (segment){.of = s->of, .k = s->k, .from = s->at, .n = s->from + s->n - s->at};
    }
    free(p);
    free(*all);
    *all = next;
    *n = n_next;
    return failed;
}

static int compare_changes(const void *a, const void *b) {
    const level_change *x = a, *y = b;
    if (x->column != y->column) return x->column < y->column ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

/* The median of a metric over measurements [from, end). */
static double level(trend *t, int k, int64_t from, int64_t end) {
    segment part = {.of = t, .k = k, .from = from, .n = end - from};
    int64_t *which, n;
    double *x = numbers_of(&part, &which, &n), median = NAN;
    if (x && which && n) median = spread_of(x, n).median;
    free(x);
    free(which);
    return median;
}

/* A level reaches from a change to the next one: known only when all are found. */
static void set_ratios(trend *t) {
    if (t->n_changes) qsort(t->changes, (size_t)t->n_changes, sizeof *t->changes, compare_changes);
    for (int64_t i = 0; i < t->n_changes; i++) {
        level_change *c = &t->changes[i];
        bool first = !i || c[-1].column != c->column,
             last = i + 1 == t->n_changes || c[1].column != c->column;
        int k = 0;
        while (compared_column(k) != c->column) k++;
        c->ratio = level(t, k, c->at, last ? t->n : c[1].at) / level(t, k, first ? 0 : c[-1].at, c->at);
    }
}

static int find_changes(trends *t) {
    int64_t n = 0;
    segment *all = mem_new((size_t)t->n * N_COMPARED + 1, sizeof *all, "a history");
    int failed = all ? 0 : -1;
    for (int64_t i = 0; i < t->n && !failed; i++)
        for (int k = 0; k < N_COMPARED; k++)
            all[n++] = (segment){.of = &t->items[i], .k = k, .n = t->items[i].n};
    while (!failed && n) failed = ask_all(&all, &n);
    free(all);
    for (int64_t i = 0; i < t->n; i++) set_ratios(&t->items[i]);
    return failed;
}

int results_trends(trends *t, const results *r) {
    *t = (trends){0};
    int64_t n = find_measurements(t, r);
    return n < 0 || find_trends(t, n) || find_changes(t) ? -1 : 0;
}

void trends_free(trends *t) {
    for (int64_t i = 0; i < t->n; i++) free(t->items[i].changes);
    free(t->items);
    free(t->measurements);
    *t = (trends){0};
}
