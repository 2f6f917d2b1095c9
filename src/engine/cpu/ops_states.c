/* ops_states.c - operations whose caches are states: what they keep of earlier tokens has one size.
 * Features are shared out among threads, so that each thread changes states of its own. */
#include "engine/cpu/cpu.h"

#include <math.h>

enum { CONV_FEATURES = 256 }; /* of one piece of work */

/* A convolution's rows: those of the state, then the step's. */
typedef struct conv_rows {
    float *state; /* [n_before][width] */
    const float *x;
    int64_t n_before, n, width;
} conv_rows;

static float at(const conv_rows *r, int64_t row, int64_t d) {
    return row < r->n_before ? r->state[row * r->width + d] : r->x[(row - r->n_before) * r->width + d];
}

/* Feature d of all rows. */
static void convolve(const conv_rows *r, const float *w, float bias, bool silu, int64_t d, float *out) {
    for (int64_t t = 0; t < r->n; t++) {
        float sum = 0;
        for (int64_t j = 0; j <= r->n_before; j++) sum += w[j] * at(r, t + j, d);
        sum += bias;
        out[t * r->width + d] = silu ? sum / (1 + expf(-sum)) : sum;
    }
    for (int64_t i = 0; i < r->n_before; i++) r->state[i * r->width + d] = at(r, r->n + i, d);
}

void cpu_short_conv(cpu *e, const node *x, int thread) {
    const cpu_weight *w = cpu_weight_of(x, 0);
    float *state = ((cpu_cache *)x->cache)->states[x->conv.slot];
    int64_t taps = x->w[0]->shape[1];
    conv_rows r = {.n_before = taps - 1, .n = rows_per_sequence(e->running, x), .width = x->shape[1]};
    piece p = {0};
    while (cpu_take(e, x, r.width, CONV_FEATURES, &p))
        for (int64_t s = 0; s < e->running->n_sequences; s++) {
            r.state = state + s * r.n_before * r.width;
            r.x = floats_of(e, x->in[0], thread) + s * r.n * r.width;
            for (int64_t d = p.first; d < p.end; d++)
                convolve(&r, w->floats + d * taps, w->bias ? w->bias[d] : 0, x->conv.silu, d,
                         floats_of(e, x, thread) + s * r.n * r.width);
        }
}

/* ---- the gated delta rule ---- */

enum { DELTA_ROWS = 32 }; /* of a head's state, one piece of work: rows do not read each other */

static float sigmoid(float x) {
    return 1 / (1 + expf(-x));
}

static float decay_of(const delta_spec *s, float rate, float x) {
    if (s->lower_bound != 0) return expf(s->lower_bound * sigmoid(rate * x));
    return expf(-rate * (fmaxf(x, 0) + log1pf(expf(-fabsf(x)))));
}

/* Several sums at once, which a processor adds up side by side. */
static float dot(const float *restrict a, const float *restrict b, int64_t n) {
    float sums[8] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) sums[k] += a[i + k] * b[i + k];
    for (; i < n; i++) sum += a[i] * b[i];
    for (int k = 0; k < 8; k++) sum += sums[k];
    return sum;
}

/* One row of S: forgets, learns v, and answers q. */
static float follow(float *restrict row, const float *restrict decay, const float *restrict k, const float *q,
                    float v, float beta, int64_t n) {
    for (int64_t i = 0; i < n; i++) row[i] *= decay[i];
    float by = (v - dot(row, k, n)) * beta;
    for (int64_t i = 0; i < n; i++) row[i] += by * k[i];
    return dot(row, q, n);
}

size_t cpu_delta_rule_scratch(const cpu *e, const node *x) {
    (void)e;
    return (size_t)x->in[0]->shape[2] * sizeof(float);
}

/* Some rows of the state of one head of one sequence, over all tokens. */
typedef struct delta_piece {
    int64_t sequence, head, first, end;
} delta_piece;

static void follow_text(const cpu *e, const node *x, delta_piece p, int thread) {
    int64_t n = rows_per_sequence(e->running, x), heads = x->shape[1], dv = x->shape[2];
    int64_t key_heads = x->in[0]->shape[1], dk = x->in[0]->shape[2], gates = x->in[3]->rank == 3 ? dk : 1;
    const float *in[5], *A_log = cpu_weight_of(x, 0)->floats, *dt_bias = cpu_weight_of(x, 1)->floats;
    float *decay = (float *)(void *)e->thread_scratch[thread], rate = expf(A_log[p.head]);
    float *state = ((cpu_cache *)x->cache)->states[x->delta->slot];
    for (int i = 0; i < 5; i++) in[i] = floats_of(e, x->in[i], thread);
    state += (p.sequence * heads + p.head) * dv * dk;
    for (int64_t t = p.sequence * n; t < (p.sequence + 1) * n; t++) {
        int64_t at = t * heads + p.head, key = (t * key_heads + p.head / (heads / key_heads)) * dk;
        float beta = sigmoid(in[4][at]) * (x->delta->negative_eigenvalues ? 2 : 1);
        for (int64_t i = 0; i < gates; i++)
            decay[i] = decay_of(x->delta, rate, in[3][at * gates + i] + dt_bias[p.head * gates + i]);
        for (int64_t i = gates; i < dk; i++) decay[i] = decay[0];
        for (int64_t r = p.first; r < p.end; r++)
            floats_of(e, x, thread)[at * dv + r] =
                follow(state + r * dk, decay, in[1] + key, in[0] + key, in[2][at * dv + r], beta, dk);
    }
}

void cpu_delta_rule(cpu *e, const node *x, int thread) {
    int64_t dv = x->shape[2], each = (dv + DELTA_ROWS - 1) / DELTA_ROWS;
    piece p = {0};
    while (cpu_take(e, x, e->running->n_sequences * x->shape[1] * each, 1, &p)) {
        int64_t head = p.first / each, first = p.first % each * DELTA_ROWS;
        delta_piece one = {head / x->shape[1], head % x->shape[1], first, first + DELTA_ROWS};
        if (one.end > dv) one.end = dv;
        follow_text(e, x, one, thread);
    }
}
