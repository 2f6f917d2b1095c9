/* changes.c - did a sequence of numbers change its level, and where? By ranks, so that it holds for
 * every distribution, and a single number that is far off is no change.
 */
#include "results/internal.h"

#include <math.h>
#include <stdlib.h>

enum { N_ORDERS = 9999 };

/* The largest distance, over all places, between the sum of the ranks before it and what is
 * expected of them, in units of its standard deviation (but for a factor that all places and orders
 * share). */
static double largest_distance(const ranks *r, int64_t *at) {
    double n = (double)r->n_a, largest = -1, sum = 0;
    for (int64_t i = 1; i < r->n_a; i++) {
        double before = (double)i;
        sum += (double)r->of[i - 1];
        double distance = fabs(sum - before * (n + 1)) / sqrt(before * (n - before));
        if (distance <= largest + 1e-9) continue;
        largest = distance;
        *at = i;
    }
    return largest;
}

static void shuffle(int64_t *items, int64_t n, uint64_t *state) {
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t k = (int64_t)(random_next(state) % (uint64_t)(i + 1)), other = items[k];
        items[k] = items[i];
        items[i] = other;
    }
}

double change_test(const double *x, int64_t n, int64_t *at) {
    ranks r;
    uint64_t state = 0;
    int64_t somewhere, n_as_far = 1; /* the order that is there is one of them */
    if (n < 4) return NAN;
    if (rank_all(&r, x, n, NULL, 0)) {
        free(r.of);
        return NAN;
    }
    double found = largest_distance(&r, at);
    for (int i = 0; i < N_ORDERS; i++) {
        shuffle(r.of, n, &state);
        n_as_far += largest_distance(&r, &somewhere) >= found - 1e-9;
    }
    free(r.of);
    return (double)n_as_far / (N_ORDERS + 1);
}
