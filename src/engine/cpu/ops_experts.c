/* ops_experts.c - choosing experts and running them.
 * Tokens are grouped by expert, so that each chosen expert's weights are read once per block of tokens. */
#include "engine/cpu/cpu.h"

enum { BLOCK_TOKENS = 256 }; /* bounds the workspace of a long prefill chunk */

/* Softmax of one row and its k largest entries; E is small, so selection is a scan per choice. */
static void route_row(const cpu *e, const node *x, const float *logits, routed *out) {
    int64_t n = tensor_last(x->in[0]);
    float max = e->kernels->max(logits, n), sum = 0, chosen = 0, p[1];
    for (int64_t i = 0; i < n; i++) {
        *p = logits[i];
        sum += e->kernels->exp_sum(p, 1, max);
    }
    for (int j = 0; j < x->top.k; j++) {
        int32_t best = -1;
        for (int32_t i = 0; i < n; i++) {
            bool taken = false;
            for (int t = 0; t < j; t++) taken = taken || out[t].expert == i;
            if (!taken && (best < 0 || logits[i] > logits[best])) best = i;
        }
        *p = logits[best];
        out[j] = (routed){best, e->kernels->exp_sum(p, 1, max) / sum};
        chosen += out[j].weight;
    }
    for (int j = 0; j < x->top.k && x->top.renormalize; j++) out[j].weight /= chosen;
}

void cpu_route(cpu *e, node *x, int thread) {
    (void)thread;
    int64_t n = tensor_last(x->in[0]), i, end;
    while (pool_take(&x->taken[0], x->shape[0], 1, &i, &end))
        route_row(e, x, floats_of(x->in[0]) + i * n, (routed *)x->data + i * x->top.k);
}

/* A block's (token, choice) pairs, ordered by expert: pair order[j] belongs to token order[j] / k. */
typedef struct block {
    int64_t n_tokens, n_pairs;
    int32_t *start;     /* of each expert's pairs in order, n_experts + 1 of them */
    int32_t *order;     /* [n_pairs] */
    float *in;          /* [n_pairs, D] inputs, gathered; then the down products */
    float *gate;        /* [n_pairs, I] */
    float *up;          /* [n_pairs, I] */
    atomic_long *taken; /* work sharing: two counters for every block of tokens */
} block;

static int64_t count_blocks(const node *x) {
    return (x->shape[0] + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
}

static size_t lay_out(const node *x, char *base, block *b) {
    int64_t tokens = x->shape[0] < BLOCK_TOKENS ? x->shape[0] : BLOCK_TOKENS, k = x->in[1]->shape[1];
    int64_t pairs = tokens * k, n_experts = x->w[0]->shape[0], width = x->w[0]->shape[1], d = x->shape[1];
    char *at = base;
    b->taken = (atomic_long *)at, at += 3 * (size_t)count_blocks(x) * sizeof *b->taken;
    b->in = (float *)at, at += (size_t)(pairs * d) * sizeof(float);
    b->gate = (float *)at, at += (size_t)(pairs * width) * sizeof(float);
    b->up = (float *)at, at += (size_t)(pairs * width) * sizeof(float);
    b->start = (int32_t *)at, at += (size_t)(n_experts + 1) * sizeof(int32_t);
    b->order = (int32_t *)at, at += (size_t)pairs * sizeof(int32_t);
    return (size_t)(at - base);
}

size_t cpu_experts_workspace(const cpu *e, const node *x) {
    (void)e;
    block b;
    return lay_out(x, NULL, &b);
}

size_t cpu_experts_scratch(const cpu *e, const node *x) {
    (void)e;
    int64_t most = 0;
    for (int i = 0; i < 3; i++) {
        int64_t n = cpu_tile_floats(&cpu_weight_of(x, i)->rows);
        most = n > most ? n : most;
    }
    return (size_t)most * sizeof(float);
}

/* Counting sort of the block's pairs by expert, and its inputs in that order. By one thread. */
static void gather(const node *x, block *b, int64_t first_token) {
    int64_t k = x->in[1]->shape[1], n_experts = x->w[0]->shape[0], d = x->shape[1];
    const routed *routing = (const routed *)x->in[1]->data + first_token * k;
    memset(b->start, 0, (size_t)(n_experts + 1) * sizeof *b->start);
    for (int64_t i = 0; i < b->n_pairs; i++) b->start[routing[i].expert + 1]++;
    for (int64_t i = 0; i < n_experts; i++) b->start[i + 1] += b->start[i];
    for (int64_t i = 0; i < b->n_pairs; i++) b->order[b->start[routing[i].expert]++] = (int32_t)i;
    memmove(b->start + 1, b->start, (size_t)n_experts * sizeof *b->start);
    b->start[0] = 0;
    const float *in = floats_of(x->in[0]) + first_token * d;
    for (int64_t j = 0; j < b->n_pairs; j++)
        memcpy(b->in + j * d, in + b->order[j] / k * d, (size_t)d * sizeof *in);
}

static rows expert_rows(const cpu_weight *w, int64_t expert) {
    rows r = w->rows;
    int64_t n_rows = w->base.shape[1], words = r.n * r.bits / 32, groups = r.bits ? r.n / r.group_size : 0;
    size_t row_bytes = r.bits ? (size_t)words * 4 : (size_t)r.n * dtype_size(r.dtype);
    r.values = (const char *)r.values + (size_t)(expert * n_rows) * row_bytes;
    if (r.bits) {
        size_t offset = (size_t)(expert * n_rows * groups) * dtype_size(r.dtype);
        r.scales = (const char *)r.scales + offset;
        r.biases = (const char *)r.biases + offset;
    }
    return r;
}

/* out[pair] = in[pair] times its expert's weight, for all experts that have pairs; work is (expert, rows). */
static void multiply_pairs(cpu *e, const cpu_weight *w, const block *b, const float *in, float *out,
                           atomic_long *taken, float *tile) {
    int64_t n_rows = w->base.shape[1], n = w->base.shape[2], n_experts = w->base.shape[0];
    int64_t step = cpu_rows_per_piece(e, n_rows, b->n_pairs), pieces = (n_rows + step - 1) / step, i, end;
    while (pool_take(taken, n_experts * pieces, 1, &i, &end)) {
        int64_t expert = i / pieces, first = i % pieces * step, start = b->start[expert];
        int64_t n_pairs = b->start[expert + 1] - start, last = first + step < n_rows ? first + step : n_rows;
        if (!n_pairs) continue;
        rows r = expert_rows(w, expert);
        cpu_multiply(e, out + start * n_rows, n_rows, &r, first, last, in + start * n, n, n_pairs, tile);
    }
}

/* out[token] = sum of its experts' products, in the order of the routing. */
static void combine(const node *x, const block *b, int64_t first_token) {
    int64_t k = x->in[1]->shape[1], d = x->shape[1];
    const routed *routing = (const routed *)x->in[1]->data + first_token * k;
    float *out = floats_of(x) + first_token * d;
    memset(out, 0, (size_t)(b->n_tokens * d) * sizeof *out);
    for (int64_t j = 0; j < b->n_pairs; j++) {
        float *row = out + b->order[j] / k * d, share = routing[b->order[j]].weight;
        for (int64_t c = 0; c < d; c++) row[c] += share * b->in[j * d + c];
    }
}

void cpu_experts(cpu *e, node *x, int thread) {
    block b;
    lay_out(x, x->workspace, &b);
    float *tile = (float *)e->thread_scratch[thread];
    int64_t n_blocks = count_blocks(x), width = x->w[0]->shape[1];
    for (int64_t i = 0; i < n_blocks; i++) {
        int64_t first = i * BLOCK_TOKENS;
        b.n_tokens = x->shape[0] - first < BLOCK_TOKENS ? x->shape[0] - first : BLOCK_TOKENS;
        b.n_pairs = b.n_tokens * x->in[1]->shape[1];
        atomic_long *taken = b.taken + 3 * i;
        if (thread == 0) {
            for (int j = 0; j < 3; j++) atomic_store(&taken[j], 0);
            gather(x, &b, first);
        }
        pool_barrier(e->pool, thread);
        multiply_pairs(e, cpu_weight_of(x, 0), &b, b.in, b.gate, &taken[0], tile);
        multiply_pairs(e, cpu_weight_of(x, 1), &b, b.in, b.up, &taken[1], tile);
        pool_barrier(e->pool, thread);
        int64_t share = (b.n_pairs * width + e->threads - 1) / e->threads, at = thread * share;
        int64_t n = at + share < b.n_pairs * width ? share : b.n_pairs * width - at;
        if (n > 0) e->kernels->gated(b.gate + at, x->act, b.gate + at, b.up + at, n);
        pool_barrier(e->pool, thread);
        multiply_pairs(e, cpu_weight_of(x, 2), &b, b.gate, b.in, &taken[2], tile);
        pool_barrier(e->pool, thread);
        if (thread == 0) combine(x, &b, first);
    }
}
