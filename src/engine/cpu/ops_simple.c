/* ops_simple.c - row-wise operations: norms, softmax, log-probabilities, arg-max.
 * Small next to the matrix products; split by rows, or by pieces of a row where there is only
 * one. */
#include "engine/cpu/cpu.h"

#include <math.h>

enum { PIECE = 4096 }; /* floats of one piece of elementwise work */

void cpu_rms_norm(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread), *w = x->w[0] ? cpu_weight_of(x, 0)->floats : NULL;
    float *out = floats_of(e, x, thread);
    int64_t n = tensor_last(x);
    piece p = {0};
    while (cpu_take(e, x, tensor_rows(x), PIECE / n + 1, &p))
        for (int64_t i = p.first; i < p.end; i++) e->kernels->rms_norm(out + i * n, in + i * n, w, n, x->eps);
}

void cpu_softmax(cpu *e, const node *x, int thread) {
    int64_t n = tensor_last(x);
    piece p = {0};
    while (cpu_take(e, x, tensor_rows(x), PIECE / n + 1, &p))
        for (int64_t r = p.first; r < p.end; r++) {
            float *out = floats_of(e, x, thread) + r * n;
            memcpy(out, floats_of(e, x->in[0], thread) + r * n, (size_t)n * sizeof *out);
            float sum = e->kernels->exp_sum(out, n, e->kernels->max(out, n));
            for (int64_t i = 0; i < n; i++) out[i] /= sum;
        }
}

/* Work on [rows, n] in pieces of at most PIECE numbers of one row. */
static int64_t pieces_per_row(const node *x) {
    return (tensor_last(x) + PIECE - 1) / PIECE;
}

typedef struct row_piece {
    int64_t row, first, n;
} row_piece;

static row_piece get_piece(const node *x, int64_t i) {
    int64_t each = pieces_per_row(x), first = i % each * PIECE, rest = tensor_last(x) - first;
    return (row_piece){i / each, first, rest < PIECE ? rest : PIECE};
}

typedef struct partial_sum {
    float max, sum; /* sum of exp(x - max) */
} partial_sum;

size_t cpu_logprobs_workspace(const cpu *e, const node *x) {
    (void)e;
    return (size_t)(tensor_rows(x) * pieces_per_row(x)) * sizeof(partial_sum);
}

size_t cpu_logprobs_scratch(const cpu *e, const node *x) {
    (void)e, (void)x;
    return PIECE * sizeof(float);
}

static float logsumexp(const partial_sum *parts, int64_t n) {
    float max = parts[0].max, sum = 0;
    for (int64_t i = 1; i < n; i++) max = parts[i].max > max ? parts[i].max : max;
    for (int64_t i = 0; i < n; i++) sum += parts[i].sum * expf(parts[i].max - max);
    return max + logf(sum);
}

void cpu_logprobs(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread);
    float *out = floats_of(e, x, thread), *copy = (float *)e->thread_scratch[thread];
    partial_sum *parts = state_of(e, x)->workspace;
    int64_t each = pieces_per_row(x), n = tensor_rows(x) * each, width = tensor_last(x), i, end;
    while (pool_take(&state_of(e, x)->taken[0], n, 1, &i, &end)) {
        row_piece p = get_piece(x, i);
        memcpy(copy, in + p.row * width + p.first, (size_t)p.n * sizeof *copy);
        parts[i].max = e->kernels->max(copy, p.n);
        parts[i].sum = e->kernels->exp_sum(copy, p.n, parts[i].max);
    }
    pool_barrier(e->pool, thread);
    while (pool_take(&state_of(e, x)->taken[1], n, 1, &i, &end)) {
        row_piece p = get_piece(x, i);
        float shift = logsumexp(parts + p.row * each, each);
        int64_t at = p.row * width + p.first;
        for (int64_t k = at; k < at + p.n; k++) out[k] = in[k] - shift;
    }
}

size_t cpu_argmax_workspace(const cpu *e, const node *x) {
    (void)e;
    return (size_t)(tensor_rows(x->in[0]) * pieces_per_row(x->in[0])) * sizeof(float);
}

/* The place is looked for only in the piece that has the maximum. */
void cpu_argmax(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread);
    float *max = state_of(e, x)->workspace;
    int32_t *out = state_of(e, x)->data;
    int64_t each = pieces_per_row(x->in[0]), width = tensor_last(x->in[0]), i, end;
    while (pool_take(&state_of(e, x)->taken[0], x->shape[0] * each, 1, &i, &end)) {
        row_piece p = get_piece(x->in[0], i);
        max[i] = e->kernels->max(in + p.row * width + p.first, p.n);
    }
    pool_barrier(e->pool, thread);
    if (thread) return;
    for (int64_t r = 0; r < x->shape[0]; r++) {
        int64_t best = r * each;
        for (int64_t k = best + 1; k < (r + 1) * each; k++)
            if (max[k] > max[best]) best = k;
        row_piece p = get_piece(x->in[0], best);
        const float *row = in + r * width;
        int64_t at = p.first;
        while (at < p.first + p.n && row[at] != max[best]) at++;
        out[r] = (int32_t)(at < p.first + p.n ? at : p.first); /* NaN equals nothing */
    }
}

void cpu_layer_norm(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread);
    const cpu_weight *by = x->w[0] ? cpu_weight_of(x, 0) : NULL;
    const float *w = by ? by->floats : NULL, *bias = by ? by->bias : NULL;
    float *out = floats_of(e, x, thread);
    int64_t n = tensor_last(x);
    piece p = {0};
    while (cpu_take(e, x, tensor_rows(x), PIECE / n + 1, &p))
        for (int64_t i = p.first; i < p.end; i++)
            e->kernels->layer_norm(out + i * n, in + i * n, w, bias, n, x->eps);
}
