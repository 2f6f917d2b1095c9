/* rank.c - are numbers of two groups different? Tests by ranks, which assume no distribution.
 * Exact up to EXACT numbers, ties included; above that by the normal distribution, which is as good
 * there.
 */
#include "results/internal.h"

#include <math.h>
#include <stdlib.h>

enum { EXACT = 100, MAX_PAIRS = 50000000 };

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* ---- ranks ---- */

typedef struct numbered {
    double x;
    int64_t i;
} numbered;

int rank_all(ranks *r, const double *a, int64_t n_a, const double *b, int64_t n_b) {
    int64_t n = n_a + n_b;
    numbered *all = mem_new((size_t)n, sizeof *all, "ranks");
    *r = (ranks){n_a, n_b, mem_new((size_t)n, sizeof *r->of, "ranks"), 0};
    if (!all || !r->of) {
        free(all);
        return -1;
    }
    for (int64_t i = 0; i < n; i++) all[i] = (numbered){i < n_a ? a[i] : b[i - n_a], i};
    qsort(all, (size_t)n, sizeof *all, compare); /* by their first member */
    for (int64_t i = 0, end; i < n; i = end) {
        for (end = i; end < n && all[end].x == all[i].x; end++) continue;
        double t = (double)(end - i);
        r->ties += t * t * t - t;
        for (int64_t k = i; k < end; k++) r->of[all[k].i] = i + 1 + end;
    }
    free(all);
    return 0;
}

/* How often `taken` of the n ranks add up to s, divided by how often they add up to anything:
 * [*n_sums], s below that. Streitberg and Roehmel 1986. NULL when out of memory. */
static double *sum_distribution(const int64_t *of, int64_t n, int64_t taken, int64_t *n_sums) {
    int64_t width = 1;
    for (int64_t i = 0; i < n; i++) width += of[i];
    double *ways = mem_new((size_t)((taken + 1) * width), sizeof *ways, "a rank test"), all = 0;
    if (!ways) return NULL;
    ways[0] = 1;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = (i + 1 < taken ? i + 1 : taken); k > 0; k--)
            for (int64_t s = width - 1; s >= of[i]; s--)
                ways[k * width + s] += ways[(k - 1) * width + s - of[i]];
    double *of_taken = ways + taken * width;
    for (int64_t s = 0; s < width; s++) all += of_taken[s];
    for (int64_t s = 0; s < width; s++)
        ways[s] = of_taken[s] / all; /* the front's counts are no longer needed */
    *n_sums = width;
    return ways;
}

/* Two-sided: twice the smaller of the probabilities of a sum at most, and at least, as large as
 * a's. */
static double exact_p(const ranks *r) {
    int64_t width, sum = 0;
    double *p = sum_distribution(r->of, r->n_a + r->n_b, r->n_a, &width), below = 0, above = 0;
    if (!p) return NAN;
    for (int64_t i = 0; i < r->n_a; i++) sum += r->of[i];
    for (int64_t s = 0; s < width; s++) {
        below += s <= sum ? p[s] : 0;
        above += s >= sum ? p[s] : 0;
    }
    free(p);
    return fmin(1, 2 * fmin(below, above));
}

/* With the correction for ties, and for sums being whole numbers. */
static double normal_p(const ranks *r) {
    double a = (double)r->n_a, b = (double)r->n_b, n = a + b, sum = 0;
    for (int64_t i = 0; i < r->n_a; i++) sum += (double)r->of[i] / 2;
    double variance = a * b / 12 * (n + 1 - r->ties / (n * (n - 1)));
    double distance = fabs(sum - a * (n + 1) / 2) - 0.5;
    return variance > 0 ? fmin(1, erfc(fmax(distance, 0) / sqrt(2 * variance))) : 1;
}

double mann_whitney(const double *a, int64_t n_a, const double *b, int64_t n_b) {
    ranks r;
    if (n_a < 1 || n_b < 1) return NAN;
    double p = rank_all(&r, a, n_a, b, n_b) ? NAN : n_a + n_b <= EXACT ? exact_p(&r) : normal_p(&r);
    free(r.of);
    return p;
}

/* ---- how far apart ---- */

/* The k-th smallest and largest of all differences enclose the shift with at least 95 %: the
 * largest k; 0: none. */
static int64_t shift_rank(int64_t n_a, int64_t n_b) {
    int64_t n = n_a + n_b, width, k = 0;
    double a = (double)n_a, b = (double)n_b, outside = 0;
    if (n > EXACT) return (int64_t)floor(a * b / 2 - 1.959963984540054 * sqrt(a * b * ((double)n + 1) / 12));
    int64_t of[EXACT];
    for (int64_t i = 0; i < n; i++) of[i] = 2 * (i + 1);
    double *p = sum_distribution(of, n, n_a, &width);
    if (!p) return 0;
    for (int64_t s = n_a * (n_a + 1); s < width;
         s += 2, k++) { /* of the smallest rank sum on: U is 0, 1, ... */
        outside += p[s];
        if (2 * outside > 0.05) break;
    }
    free(p);
    return k;
}

shift shift_of(const double *a, int64_t n_a, const double *b, int64_t n_b) {
    shift s = {NAN, NAN, NAN};
    if (n_a < 1 || n_b < 1 || n_a > MAX_PAIRS / n_b) return s;
    int64_t n = n_a * n_b, k = shift_rank(n_a, n_b);
    double *differences = mem_new((size_t)n, sizeof *differences, "differences");
    if (!differences) return s;
    for (int64_t i = 0; i < n; i++) differences[i] = b[i % n_b] - a[i / n_b];
    qsort(differences, (size_t)n, sizeof *differences, compare);
    s.estimate = n % 2 ? differences[n / 2] : differences[n / 2 - 1] / 2 + differences[n / 2] / 2;
    if (k > 0) {
        s.low = differences[k - 1];
        s.high = differences[n - k];
    }
    free(differences);
    return s;
}

/* ---- several at once ---- */

/* Holm 1979: the smallest of m times m, the next times m - 1, ...; none below one before it. */
int holm(double *p, int64_t n) {
    numbered *sorted = mem_new((size_t)n, sizeof *sorted, "probabilities");
    int64_t m = 0;
    double before = 0;
    if (!sorted) return -1;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(p[i])) sorted[m++] = (numbered){p[i], i};
    qsort(sorted, (size_t)m, sizeof *sorted, compare);
    for (int64_t i = 0; i < m; i++) {
        before = fmin(1, fmax(before, sorted[i].x * (double)(m - i)));
        p[sorted[i].i] = before;
    }
    free(sorted);
    return 0;
}

double geometric_mean(const double *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += log(x[i]) / (double)n;
    return n ? exp(sum) : NAN;
}
