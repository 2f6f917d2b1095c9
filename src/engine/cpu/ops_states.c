/* ops_states.c - operations whose caches are states: what they keep of earlier tokens has one size.
 * Features, or rows of a head's state, are shared out among threads, so that each thread changes
 * states of its own. */
#include "engine/cpu/cpu.h"

#include <math.h>

/* ---- short convolutions ---- */

enum { CONV_FEATURES = 256 }; /* of one piece of work */

/* A convolution's rows: those of the state, then the step's. */
typedef struct conv_rows {
    float *state; /* [n_before][width] */
    const float *x;
    int64_t n_before, n, width;
} conv_rows;

static const float *row_at(const conv_rows *r, int64_t row) {
    return row < r->n_before ? r->state + row * r->width : r->x + (row - r->n_before) * r->width;
}

/* Features first .. of all rows. */
static void convolve(const cpu *e, const conv_rows *r, const cpu_weight *w, bool silu, piece p, float *out) {
    const float *in[CPU_MAX_TAPS];
    int taps = (int)r->n_before + 1;
    for (int64_t t = 0; t < r->n; t++) {
        for (int j = 0; j < taps; j++) in[j] = row_at(r, t + j) + p.first;
        e->kernels->convolve(out + t * r->width + p.first, in, w->floats + p.first, r->width, taps,
                             w->bias ? w->bias + p.first : NULL, silu, p.end - p.first);
    }
    for (int64_t i = 0; i < r->n_before; i++)
        memcpy(r->state + i * r->width + p.first, row_at(r, r->n + i) + p.first,
               (size_t)(p.end - p.first) * sizeof *out);
}

void cpu_short_conv(cpu *e, const node *x, int thread) {
    float *state = ((cpu_cache *)x->cache)->states[x->conv.slot];
    conv_rows r = {
        .n_before = x->w[0]->shape[1] - 1, .n = rows_per_sequence(e->running, x), .width = x->shape[1]};
    piece p = {0};
    while (cpu_take(e, x, r.width, CONV_FEATURES, &p))
        for (int64_t s = 0; s < e->running->n_sequences; s++) {
            r.state = state + s * r.n_before * r.width;
            r.x = floats_of(e, x->in[0], thread) + s * r.n * r.width;
            convolve(e, &r, cpu_weight_of(x, 0), x->conv.silu, p,
                     floats_of(e, x, thread) + s * r.n * r.width);
        }
}

/* ---- what the gated delta rule and state spaces share ---- */

enum { STATE_ROWS = 32 }; /* of one piece of work: rows do not read each other */

/* Some rows of the state of one head of one sequence. */
typedef struct state_piece {
    int64_t sequence, head, first, end;
} state_piece;

/* Takes pieces of x [L, H, rows] until there are none. */
static void take_pieces(cpu *e, const node *x, int thread,
                        void (*follow)(const cpu *e, const node *x, state_piece p, int thread)) {
    int64_t heads = x->shape[1], n_rows = x->shape[2], each = (n_rows + STATE_ROWS - 1) / STATE_ROWS;
    int64_t step = n_rows < STATE_ROWS ? STATE_ROWS / n_rows : 1;
    piece p = {0};
    while (cpu_take(e, x, e->running->n_sequences * heads * each, step, &p))
        for (int64_t i = p.first; i < p.end; i++) {
            state_piece one = {i / each / heads, i / each % heads, i % each * STATE_ROWS, n_rows};
            if (one.end > one.first + STATE_ROWS) one.end = one.first + STATE_ROWS;
            follow(e, x, one, thread);
        }
}

static float sigmoid(float x) {
    return 1 / (1 + expf(-x));
}

static float softplus(float x) {
    return fmaxf(x, 0) + log1pf(expf(-fabsf(x)));
}

/* ---- the gated delta rule ---- */

static float decay_of(const delta_spec *s, float rate, float x) {
    return s->lower_bound != 0 ? expf(s->lower_bound * sigmoid(rate * x)) : expf(-rate * softplus(x));
}

/* decay, and decay times the key */
size_t cpu_delta_rule_scratch(const cpu *e, const node *x) {
    (void)e;
    return 2 * (size_t)x->in[0]->shape[2] * sizeof(float);
}

static void follow_text(const cpu *e, const node *x, state_piece p, int thread) {
    int64_t n = rows_per_sequence(e->running, x), heads = x->shape[1], dv = x->shape[2];
    int64_t key_heads = x->in[0]->shape[1], dk = x->in[0]->shape[2], gates = x->in[3]->rank == 3 ? dk : 1;
    const float *in[5], *A_log = cpu_weight_of(x, 0)->floats, *dt_bias = cpu_weight_of(x, 1)->floats;
    float *decay = (float *)(void *)e->thread_scratch[thread], *key = decay + dk, rate = expf(A_log[p.head]);
    float by[STATE_ROWS], *state = ((cpu_cache *)x->cache)->states[x->delta->slot];
    for (int i = 0; i < 5; i++) in[i] = floats_of(e, x->in[i], thread);
    state += ((p.sequence * heads + p.head) * dv + p.first) * dk;
    for (int64_t t = p.sequence * n; t < (p.sequence + 1) * n; t++) {
        int64_t at = t * heads + p.head, row = at * dv + p.first, n_rows = p.end - p.first;
        const float *q = in[0] + (t * key_heads + p.head / (heads / key_heads)) * dk,
                    *k = in[1] + (q - in[0]);
        float beta = sigmoid(in[4][at]) * (x->delta->negative_eigenvalues ? 2 : 1);
        for (int64_t i = 0; i < gates; i++)
            decay[i] = decay_of(x->delta, rate, in[3][at * gates + i] + dt_bias[p.head * gates + i]);
        for (int64_t i = gates; i < dk; i++) decay[i] = decay[0];
        for (int64_t i = 0; i < dk; i++) key[i] = decay[i] * k[i];
        e->kernels->matmul(by, 0, key, 0, 1, state, n_rows, dk); /* what is known of this key */
        for (int64_t r = 0; r < n_rows; r++) by[r] = (in[2][row + r] - by[r]) * beta;
        e->kernels->scan(floats_of(e, x, thread) + row, state, n_rows, dk, decay, by, k, q);
    }
}

void cpu_delta_rule(cpu *e, const node *x, int thread) {
    take_pieces(e, x, thread, follow_text);
}

/* ---- state spaces ---- */

/* rates and decays of each feature */
size_t cpu_ssm_scratch(const cpu *e, const node *x) {
    (void)e;
    return 2 * (size_t)x->in[1]->shape[2] * sizeof(float);
}

static void scan_text(const cpu *e, const node *x, state_piece p, int thread) {
    int64_t n_tokens = rows_per_sequence(e->running, x), heads = x->shape[1], hd = x->shape[2];
    int64_t groups = x->in[1]->shape[1], n = x->in[1]->shape[2], n_rows = p.end - p.first;
    int64_t rates = x->w[0]->shape[0] / heads; /* 1: Mamba-2 */
    const float *in[4], *A_log = cpu_weight_of(x, 0)->floats + p.head * rates;
    float *rate = (float *)(void *)e->thread_scratch[thread], *decay = rate + n, by[STATE_ROWS];
    float D = cpu_weight_of(x, 1)->floats[p.head], bias = x->w[2] ? cpu_weight_of(x, 2)->floats[p.head] : 0;
    float *state = ((cpu_cache *)x->cache)->states[x->ssm->slot];
    for (int i = 0; i < 4; i++) in[i] = floats_of(e, x->in[i], thread);
    state += ((p.sequence * heads + p.head) * hd + p.first) * n;
    for (int64_t i = 0; i < rates; i++) rate[i] = A_log[i];
    e->kernels->exp_sum(rate, rates, 0);
    for (int64_t t = p.sequence * n_tokens; t < (p.sequence + 1) * n_tokens; t++) {
        int64_t at = t * heads + p.head, row = at * hd + p.first;
        int64_t group = (t * groups + p.head / (heads / groups)) * n;
        float delta = fminf(fmaxf(softplus(in[3][at] + bias), x->ssm->dt_min), x->ssm->dt_max);
        float *out = floats_of(e, x, thread) + row;
        for (int64_t i = 0; i < rates; i++) decay[i] = -rate[i] * delta;
        e->kernels->exp_sum(decay, rates, 0);
        for (int64_t i = rates; i < n; i++) decay[i] = decay[0];
        for (int64_t r = 0; r < n_rows; r++) by[r] = delta * in[0][row + r];
        e->kernels->scan(out, state, n_rows, n, decay, by, in[1] + group, in[2] + group);
        for (int64_t r = 0; r < n_rows; r++) out[r] += D * in[0][row + r];
    }
}

void cpu_ssm(cpu *e, const node *x, int thread) {
    take_pieces(e, x, thread, scan_text);
}

/* ---- linear attention ---- */

size_t cpu_linear_attention_scratch(const cpu *e, const node *x) {
    (void)e;
    return (size_t)x->in[0]->shape[2] * sizeof(float);
}

static void attend_linearly(const cpu *e, const node *x, state_piece p, int thread) {
    int64_t n = rows_per_sequence(e->running, x), heads = x->shape[1], dv = x->shape[2];
    int64_t dk = x->in[0]->shape[2], n_rows = p.end - p.first;
    const float *in[3];
    float *decays = (float *)(void *)e->thread_scratch[thread];
    float *state = ((cpu_cache *)x->cache)->states[x->lightning->slot];
    for (int i = 0; i < 3; i++) in[i] = floats_of(e, x->in[i], thread);
    state += ((p.sequence * heads + p.head) * dv + p.first) * dk;
    for (int64_t i = 0; i < dk; i++) decays[i] = expf(x->lightning->log_decays[p.head]);
    for (int64_t t = p.sequence * n; t < (p.sequence + 1) * n; t++) {
        int64_t at = t * heads + p.head, row = at * dv + p.first;
        float *out = floats_of(e, x, thread) + row;
        e->kernels->scan(out, state, n_rows, dk, decays, in[2] + row, in[1] + at * dk, in[0] + at * dk);
        for (int64_t r = 0; r < n_rows; r++) out[r] *= x->lightning->scale;
    }
}

void cpu_linear_attention(cpu *e, const node *x, int thread) {
    take_pieces(e, x, thread, attend_linearly);
}
