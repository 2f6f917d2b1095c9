/* spread.c - how numbers lie: median with its interval, mean, deviation, outliers.
 * The interval comes from the order of the numbers alone, since times are not distributed normally.
 */
#include "results/results.h"

#include <math.h>
#include <stdlib.h>

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_of_sorted(const double *x, int64_t n) {
    return n % 2 ? x[n / 2] : x[n / 2 - 1] / 2 + x[n / 2] / 2;
}

/* The k-th smallest and k-th largest of n numbers enclose the median of what they come from with a
 * probability of 1 - 2 P(B < k), B binomial of n and 1/2 (Hahn and Meeker 1991, section 5.2). The
 * largest k with at least 95 %; 0: none. */
static int64_t interval_rank(int64_t n) {
    double outside = 0, choose = lgamma((double)n + 1) - (double)n * log(2);
    for (int64_t k = 0; k < n; k++) {
        outside += exp(choose - lgamma((double)k + 1) - lgamma((double)(n - k) + 1));
        if (2 * outside > 0.05) return k;
    }
    return 0;
}

/* Numbers whose distance from the median is large against the median of those distances (MAD). */
static int64_t count_outliers(const double *x, int64_t n, double median) {
    double *distances = malloc((size_t)n * sizeof *distances);
    int64_t found = 0;
    if (!distances) return 0;
    for (int64_t i = 0; i < n; i++) distances[i] = fabs(x[i] - median);
    qsort(distances, (size_t)n, sizeof *distances, compare);
    double mad = median_of_sorted(distances, n);
    for (int64_t i = 0; i < n && mad > 0; i++) found += 0.6745 * distances[i] / mad > 3.5;
    free(distances);
    return found;
}

spread spread_of(double *x, int64_t n) {
    spread s = {
        .n = n, .median = NAN, .low = NAN, .high = NAN, .mean = NAN, .sd = NAN, .min = NAN, .max = NAN};
    if (!n) return s;
    qsort(x, (size_t)n, sizeof *x, compare);
    s.median = median_of_sorted(x, n);
    s.min = x[0];
    s.max = x[n - 1];
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] / (double)n;
    s.mean = sum;
    for (int64_t i = 0; i < n; i++) squares += (x[i] - s.mean) * (x[i] - s.mean);
    if (n > 1) s.sd = sqrt(squares / (double)(n - 1));
    int64_t k = interval_rank(n);
    if (k > 0) {
        s.low = x[k - 1];
        s.high = x[n - k];
    }
    s.outliers = count_outliers(x, n, s.median);
    return s;
}
