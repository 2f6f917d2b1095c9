/* ops_select.c - choosing the entries that latent attention is to see, by keys of their own.
 * First threads share out the scores of rows and blocks of entries, then the rows, of which each
 * keeps its best. */
#include "engine/cpu/cpu.h"

#include <math.h>

enum { SCORED_ENTRIES = 256, UNPACKED_ENTRIES = 64 }; /* of one piece of work; of these at a time, as F32 */

size_t cpu_select_entries_workspace(const cpu *e, const node *x) {
    (void)e;
    return (size_t)(x->shape[0] * ((const cpu_cache *)x->cache)->n_visible) * sizeof(float);
}

size_t cpu_select_entries_scratch(const cpu *e, const node *x) {
    (void)e;
    int64_t heads = x->in[0]->shape[1], dim = x->in[0]->shape[2];
    int64_t scoring = UNPACKED_ENTRIES * (dim + heads), n = ((const cpu_cache *)x->cache)->n_visible;
    return (size_t)(scoring > n ? scoring : n) * sizeof(float);
}

/* Scores of row r, which belongs to that sequence, for entries [first, end). */
static void score(const cpu *e, const node *x, int64_t r, int64_t first, int64_t end, int thread) {
    const cpu_cache *c = (const cpu_cache *)x->cache;
    int64_t heads = x->in[0]->shape[1], dim = x->in[0]->shape[2], n;
    const float *q = floats_of(e, x->in[0], thread) + r * heads * dim;
    const float *weights = floats_of(e, x->in[2], thread) + r * heads;
    float *keys = (float *)(void *)e->thread_scratch[thread], *of_heads = keys + UNPACKED_ENTRIES * dim;
    float *out = (float *)state_of(e, x)->workspace + r * c->n_visible;
    rows from = cpu_cache_rows(c, 0, r / rows_per_sequence(e->running, x));
    for (; first < end; first += n) {
        n = end - first < UNPACKED_ENTRIES ? end - first : UNPACKED_ENTRIES;
        for (int64_t i = 0; i < n; i++) e->kernels->of[from.kind].unpack(keys + i * dim, &from, first + i);
        e->kernels->matmul(of_heads, UNPACKED_ENTRIES, q, dim, heads, keys, n, dim);
        memset(out + first, 0, (size_t)n * sizeof *out);
        for (int64_t h = 0; h < heads; h++)
            for (int64_t i = 0; i < n; i++)
                out[first + i] += weights[h] * fmaxf(of_heads[h * UNPACKED_ENTRIES + i], 0);
    }
}

/* The k-th largest of n numbers, none of which is NaN; reorders them (Hoare 1961, FIND). */
static float kth_largest(float *x, int64_t n, int64_t k) {
    for (int64_t low = 0, high = n - 1; low < high;) {
        float pivot = x[(low + high) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (x[i] > pivot) i++;
            while (x[j] < pivot) j--;
            if (i > j) break;
            float other = x[i];
            x[i++] = x[j];
            x[j--] = other;
        }
        if (k - 1 <= j)
            high = j;
        else if (k - 1 >= i)
            low = i;
        else
            break;
    }
    return x[k - 1];
}

/* The best k of n entries in their order, of equal ones the last, as MLX's argpartition has them;
 * -1 for those that are not there. */
static void choose(const float *scores, int64_t n, float *copy, int32_t *out, int64_t k) {
    int64_t better = 0, equal = 0, used = 0;
    float least = -INFINITY;
    if (n > k) {
        for (int64_t i = 0; i < n; i++) copy[i] = scores[i] == scores[i] ? scores[i] : INFINITY;
        least = kth_largest(copy, n, k);
        for (int64_t i = 0; i < n; i++) better += scores[i] > least, equal += scores[i] == least;
    }
    int64_t skipped = better + equal - k; /* of the equal ones */
    for (int64_t i = 0; i < n && used < k; i++) {
        if (n > k && scores[i] < least) continue;
        if (n > k && scores[i] == least && skipped-- > 0) continue;
        out[used++] = (int32_t)i;
    }
    while (used < k) out[used++] = -1;
}

void cpu_select_entries(cpu *e, const node *x, int thread) {
    const cpu_cache *c = (const cpu_cache *)x->cache;
    int64_t n = c->n_visible, pieces = (n + SCORED_ENTRIES - 1) / SCORED_ENTRIES, k = x->shape[1], i, end;
    int64_t n_tokens = rows_per_sequence(e->running, x);
    const float *scores = state_of(e, x)->workspace;
    int32_t *out = state_of(e, x)->data;
    while (pool_take(&state_of(e, x)->taken[0], x->shape[0] * pieces, 1, &i, &end)) {
        int64_t r = i / pieces, first = i % pieces * SCORED_ENTRIES;
        int64_t most = cpu_visible(c, n_tokens, r % n_tokens).end;
        score(e, x, r, first, first + SCORED_ENTRIES < most ? first + SCORED_ENTRIES : most, thread);
    }
    pool_barrier(e->pool, thread);
    while (pool_take(&state_of(e, x)->taken[1], x->shape[0], 1, &i, &end))
        choose(scores + i * n, cpu_visible(c, n_tokens, i % n_tokens).end,
               (float *)(void *)e->thread_scratch[thread], out + i * k, k);
}
