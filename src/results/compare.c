/* compare.c - two files' results side by side: the same configurations, their speeds, and whether
 * they differ. Speeds are compared as ratios, so on logarithms: a change is the same from wherever
 * it starts.
 */
#include "results/internal.h"

#include <math.h>
#include <stdlib.h>

static const int compared[N_COMPARED] = {COLUMN_prompt_tps, COLUMN_generation_tps};

int compared_column(int k) {
    return compared[k];
}

/* A test of llama-bench is of a prompt or of generation, so it has one of the two lengths. */
static bool is_half(const row *r) {
    return r->cells[COLUMN_n_prompt].kind == VALUE_NONE || r->cells[COLUMN_n_generate].kind == VALUE_NONE;
}

/* What is in the cache when generation begins. */
static int64_t context_of(const row *r) {
    value prompt = r->cells[COLUMN_n_prompt], depth = r->cells[COLUMN_depth];
    return (prompt.kind == VALUE_NUMBER ? prompt.number : 0) +
           (depth.kind == VALUE_NUMBER ? depth.number : 0);
}

/* Beside a test of llama-bench only the lengths count that the metric depends on. */
static bool same_lengths(const comparison *c, const row *a, const row *b, int column_of) {
    bool prompt = column_of == COLUMN_prompt_tps;
    int length = prompt ? COLUMN_n_prompt : COLUMN_n_generate;
    if (c->varies[length] && !value_equal(a->cells[length], b->cells[length])) return false;
    if (prompt)
        return !c->varies[COLUMN_depth] || value_equal(a->cells[COLUMN_depth], b->cells[COLUMN_depth]);
    return !(c->varies[COLUMN_depth] || c->varies[COLUMN_n_prompt]) || context_of(a) == context_of(b);
}

/* What varies in neither file may differ between them: it is what is compared. */
static bool same_configuration(const comparison *c, const row *a, const row *b, int column_of) {
    bool half = is_half(a) || is_half(b);
    for (int i = COLUMN_FIRST_PARAM; i < COLUMN_FIRST_METRIC; i++) {
        if (half && (i == COLUMN_n_prompt || i == COLUMN_n_generate || i == COLUMN_depth)) continue;
        if (c->varies[i] && !value_equal(a->cells[i], b->cells[i])) return false;
    }
    if (c->varies[COLUMN_program] && !value_equal(a->cells[COLUMN_program], b->cells[COLUMN_program]))
        return false;
    return !half || same_lengths(c, a, b, column_of);
}

/* The logarithms of the numbers of all runs that are configured as `like`; *n of them. NULL when
 * out of memory. */
static double *numbers_of(const comparison *c, const results *r, const row *like, int column_of, int64_t *n) {
    double *x = mem_new((size_t)r->n + 1, sizeof *x, "a comparison");
    *n = 0;
    for (int64_t i = 0; x && i < r->n; i++) {
        value v = r->runs[i].cells[column_of];
        if (v.kind == VALUE_REAL && v.real > 0 && same_configuration(c, &r->runs[i], like, column_of))
            x[(*n)++] = log(v.real);
    }
    return x;
}

static char grade_of_runs(const comparison *c, const results *r, const row *like, int column_of) {
    grades g = {{0}};
    for (int64_t i = 0; i < r->n; i++)
        if (same_configuration(c, &r->runs[i], like, column_of))
            grades_add(&g, r->runs[i].cells[COLUMN_quality]);
    return grades_of(&g);
}

static int add(comparison *c, const results *a, const results *b, const row *like, int column_of) {
    int64_t n_a, n_b;
    double *x = numbers_of(c, a, like, column_of, &n_a), *y = numbers_of(c, b, like, column_of, &n_b);
    difference *d = &c->items[c->n];
    if (x && y && n_a && n_b) {
        shift s = shift_of(x, n_a, y, n_b);
        *d = (difference){.of = like, .column = column_of, .p = mann_whitney(x, n_a, y, n_b)};
        d->grade_a = grade_of_runs(c, a, like, column_of);
        d->grade_b = grade_of_runs(c, b, like, column_of);
        d->low = exp(s.low);
        d->high = exp(s.high);
        for (int64_t i = 0; i < n_a; i++) x[i] = exp(x[i]);
        for (int64_t i = 0; i < n_b; i++) y[i] = exp(y[i]);
        d->a = spread_of(x, n_a);
        d->b = spread_of(y, n_b);
        d->ratio = d->b.median / d->a.median;
        c->n++;
    }
    int failed = !x || !y;
    free(x);
    free(y);
    return failed ? -1 : 0;
}

static bool is_first(const comparison *c, const results *r, int64_t i, int column_of) {
    for (int64_t k = 0; k < i; k++)
        if (same_configuration(c, &r->runs[k], &r->runs[i], column_of)) return false;
    return true;
}

static int finish(comparison *c) {
    double *numbers = mem_new((size_t)c->n + 1, sizeof *numbers, "a comparison");
    if (!numbers) return -1;
    for (int64_t i = 0; i < c->n; i++) numbers[i] = c->items[i].p;
    int failed = holm(numbers, c->n);
    for (int64_t i = 0; i < c->n; i++) c->items[i].p_holm = numbers[i];
    for (int k = 0; k < N_COMPARED; k++) {
        int64_t n = 0;
        for (int64_t i = 0; i < c->n; i++)
            if (c->items[i].column == compared[k]) numbers[n++] = c->items[i].ratio;
        c->means[k] = (mean_change){compared[k], n, geometric_mean(numbers, n)};
    }
    free(numbers);
    return failed;
}

int results_compare(comparison *c, const results *a, const results *b) {
    *c = (comparison){0};
    for (int i = 0; i < N_COLUMNS; i++) c->varies[i] = a->sweep.varies[i] || b->sweep.varies[i];
    c->items = mem_new((size_t)a->n * N_COMPARED + 1, sizeof *c->items, "a comparison");
    int failed = c->items ? 0 : -1;
    for (int64_t i = 0; i < a->n && !failed; i++)
        for (int k = 0; k < N_COMPARED && !failed; k++)
            if (is_first(c, a, i, compared[k])) failed = add(c, a, b, &a->runs[i], compared[k]);
    if (!failed && !c->n)
        failed = fail("the files have no configuration in common that was measured in both");
    return failed ? -1 : finish(c);
}

void comparison_free(comparison *c) {
    free(c->items);
    *c = (comparison){0};
}

bool difference_is_sure(const difference *d) {
    return d->p_holm < 0.05;
}

bool difference_is_loss(const comparison *c, const difference *d) {
    return c->limit > 0 && difference_is_sure(d) && !difference_is_disturbed(d) && d->ratio < c->limit;
}

bool difference_is_disturbed(const difference *d) {
    return d->grade_a > 'B' || d->grade_b > 'B';
}
