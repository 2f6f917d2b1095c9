/* ops_elementwise.c - activations, products, parts and other operations on single numbers.
 * Few numbers next to the matrix products; what every model's gate needs is in the kernels. */
#include "engine/cpu/cpu.h"

#include <math.h>

enum { PIECE = 4096 }; /* floats of one piece of work */

/* ---- activations ---- */

static float sigmoid(float x) {
    return 1 / (1 + expf(-x));
}

static float softplus(float x) {
    return (x > 0 ? x : 0) + log1pf(expf(-fabsf(x)));
}

/* One loop per function, so that the choice is made once. */
#define EACH(value)                                                                                          \
    for (int64_t i = 0; i < n; i++) {                                                                        \
        float x = in[i];                                                                                     \
        out[i] = value;                                                                                      \
    }                                                                                                        \
    break

static void activate_row(activation act, float *out, const float *in, int64_t n) {
    switch (act) {
    case ACT_SILU:
        EACH(x * sigmoid(x));
    case ACT_GELU_TANH: /* 2 sqrt(2 / pi) */
        EACH(x * sigmoid(1.5957691216f * (x + 0.044715f * x * x * x)));
    case ACT_GELU:
        EACH(x * (1 + erff(x * 0.70710678f)) / 2);
    case ACT_RELU:
        EACH(x > 0 ? x : 0);
    case ACT_RELU2:
        EACH(x > 0 ? x * x : 0);
    case ACT_SIGMOID:
    case ACT_SIGMOID_F32:
        EACH(sigmoid(x));
    case ACT_TANH:
        EACH(tanhf(x));
    case ACT_SOFTPLUS:
        EACH(softplus(x));
    case ACT_OAI:
    case ACT_SILU_F32:
    case ACT_CLAMPED_7:
    case ACT_CLAMPED_16:
        break;
    }
}

static void gate_oai(float *out, const float *gate, const float *up, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float g = fminf(gate[i], 7), u = fminf(fmaxf(up[i], -7), 7);
        out[i] = g * sigmoid(1.702f * g) * (u + 1);
    }
}

static void gate_clamped(float *out, const float *gate, const float *up, float limit, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        out[i] = fminf(gate[i] * sigmoid(gate[i]), limit) * fminf(fmaxf(up[i], -limit), limit);
}

void cpu_gate(const cpu *e, activation act, float *out, const float *gate, const float *up, int64_t n) {
    enum { SOME = 256 };
    float some[SOME];
    if (act == ACT_SILU_F32) act = ACT_SILU;
    if (!up)
        activate_row(act, out, gate, n);
    else if (act == ACT_SILU || act == ACT_GELU_TANH)
        e->kernels->gated(out, act, gate, up, n);
    else if (act == ACT_OAI)
        gate_oai(out, gate, up, n);
    else if (act == ACT_CLAMPED_7 || act == ACT_CLAMPED_16)
        gate_clamped(out, gate, up, act == ACT_CLAMPED_7 ? 7 : 16, n);
    else
        for (int64_t at = 0; at < n; at += SOME) {
            int64_t count = n - at < SOME ? n - at : SOME;
            activate_row(act, some, gate + at, count);
            for (int64_t i = 0; i < count; i++) out[at + i] = some[i] * up[at + i];
        }
}

void cpu_gated(cpu *e, const node *x, int thread) {
    const float *gate = floats_of(e, x->in[0], thread), *up = floats_of(e, x->in[1], thread);
    piece p = {0};
    while (cpu_take(e, x, tensor_count(x), PIECE / 4, &p))
        cpu_gate(e, x->act, floats_of(e, x, thread) + p.first, gate + p.first, up + p.first, p.end - p.first);
}

void cpu_activate(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread);
    float *out = floats_of(e, x, thread);
    piece p = {0};
    while (cpu_take(e, x, tensor_count(x), PIECE / 4, &p))
        activate_row(x->act, out + p.first, in + p.first, p.end - p.first);
}

/* e^m - 1 of a small m by Taylor's polynomial, where the difference would lose digits. */
static inline float expm1_of(float m, float exp_m) {
    float series = m * (1 + m * (1 / 2.f + m * (1 / 6.f + m * (1 / 24.f + m * (1 / 120.f)))));
    return m > -0.125f && m < 0.125f ? series : exp_m - 1;
}

void cpu_xielu(cpu *e, const node *x, int thread) {
    enum { SOME = 256 };
    float powers[SOME], numbers[4];
    for (int i = 0; i < 4; i++) numbers[i] = cpu_weight_of(x, i)->floats[0];
    const float beta = numbers[2], eps = numbers[3];
    const float alpha_p = softplus(numbers[0]), alpha_n = beta + softplus(numbers[1]);
    piece p = {0};
    while (cpu_take(e, x, tensor_count(x), PIECE / 4, &p))
        for (int64_t at = p.first; at < p.end; at += SOME) {
            const float *in = floats_of(e, x->in[0], thread) + at;
            float *out = floats_of(e, x, thread) + at;
            int64_t n = p.end - at < SOME ? p.end - at : SOME;
            for (int64_t i = 0; i < n; i++) powers[i] = in[i] < eps ? in[i] : eps;
            e->kernels->exp_sum(powers, n, 0);
            for (int64_t i = 0; i < n; i++) {
                float v = in[i], m = v < eps ? v : eps;
                float below = (expm1_of(m, powers[i]) - v) * alpha_n, above = alpha_p * v * v;
                out[i] = (v > 0 ? above : below) + beta * v;
            }
        }
}

/* ---- with a constant ---- */

/* clip has no effect here: F32 values do not overflow where F16 ones would. */
void cpu_add(cpu *e, const node *x, int thread) {
    const float *a = floats_of(e, x->in[0], thread), *b = floats_of(e, x->in[1], thread);
    float *out = floats_of(e, x, thread);
    piece p = {0};
    while (cpu_take(e, x, tensor_count(x), PIECE, &p))
        for (int64_t i = p.first; i < p.end; i++) out[i] = a[i] + b[i];
}

void cpu_scale(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread);
    float *out = floats_of(e, x, thread);
    piece p = {0};
    while (cpu_take(e, x, tensor_count(x), PIECE, &p))
        for (int64_t i = p.first; i < p.end; i++) out[i] = in[i] * x->scale;
}

void cpu_divide(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread);
    float *out = floats_of(e, x, thread);
    piece p = {0};
    while (cpu_take(e, x, tensor_count(x), PIECE, &p))
        for (int64_t i = p.first; i < p.end; i++) out[i] = in[i] / x->scale;
}

void cpu_clip(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread), most = x->scale;
    float *out = floats_of(e, x, thread);
    piece p = {0};
    while (cpu_take(e, x, tensor_count(x), PIECE, &p))
        for (int64_t i = p.first; i < p.end; i++) out[i] = fminf(fmaxf(in[i], -most), most);
}

void cpu_soft_cap(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread);
    float *out = floats_of(e, x, thread);
    piece p = {0};
    while (cpu_take(e, x, tensor_count(x), PIECE / 4, &p))
        for (int64_t i = p.first; i < p.end; i++) out[i] = x->scale * tanhf(in[i] / x->scale);
}

/* ---- with other values, by rows ---- */

/* Rows of one piece of work. */
static int64_t some_rows(const node *x) {
    return PIECE / tensor_last(x) + 1;
}

void cpu_product(cpu *e, const node *x, int thread) {
    const float *a = floats_of(e, x->in[0], thread), *b = floats_of(e, x->in[1], thread);
    float *out = floats_of(e, x, thread);
    int64_t n = tensor_last(x);
    bool per_row = tensor_last(x->in[1]) == 1 && n > 1;
    piece p = {0};
    while (cpu_take(e, x, tensor_rows(x), some_rows(x), &p))
        for (int64_t r = p.first; r < p.end; r++)
            for (int64_t i = r * n; i < (r + 1) * n; i++) out[i] = a[i] * b[per_row ? r : i];
}

void cpu_product_weight(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread), *w = cpu_weight_of(x, 0)->floats;
    float *out = floats_of(e, x, thread);
    int64_t n = tensor_last(x), step = x->w[0]->shape[0] > 1;
    piece p = {0};
    while (cpu_take(e, x, tensor_rows(x), some_rows(x), &p))
        for (int64_t r = p.first; r < p.end; r++)
            for (int64_t i = 0; i < n; i++) out[r * n + i] = in[r * n + i] * w[i * step];
}

void cpu_part(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread) + x->first;
    float *out = floats_of(e, x, thread);
    int64_t n = tensor_last(x), from = tensor_last(x->in[0]);
    piece p = {0};
    while (cpu_take(e, x, tensor_rows(x), some_rows(x), &p))
        for (int64_t r = p.first; r < p.end; r++) memcpy(out + r * n, in + r * from, (size_t)n * sizeof *out);
}

void cpu_blend(cpu *e, const node *x, int thread) {
    const float *gate = floats_of(e, x->in[0], thread), *a = floats_of(e, x->in[1], thread);
    const float *b = floats_of(e, x->in[2], thread);
    float *out = floats_of(e, x, thread);
    int64_t n = tensor_last(x);
    piece p = {0};
    while (cpu_take(e, x, tensor_rows(x), some_rows(x), &p))
        for (int64_t r = p.first; r < p.end; r++)
            for (int64_t i = r * n; i < (r + 1) * n; i++) out[i] = gate[r] * a[i] + (1 - gate[r]) * b[i];
}

void cpu_swap_heads(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread);
    float *out = floats_of(e, x, thread);
    int64_t heads = x->shape[1], n = x->swapped, hd = x->shape[2];
    piece p = {0};
    while (cpu_take(e, x, tensor_rows(x), some_rows(x), &p))
        for (int64_t r = p.first; r < p.end; r++) {
            int64_t token = r / heads, head = r % heads / n + r % n * (heads / n);
            memcpy(out + (token * heads + head) * hd, in + r * hd, (size_t)hd * sizeof *out);
        }
}

void cpu_fake_quant(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread), s = cpu_weight_of(x, 0)->floats[0];
    float *out = floats_of(e, x, thread);
    piece p = {0};
    while (cpu_take(e, x, tensor_count(x), PIECE / 4, &p))
        for (int64_t i = p.first; i < p.end; i++) out[i] = fminf(fmaxf(rintf(in[i] / s), -128), 127) * s;
}

void cpu_concat(cpu *e, const node *x, int thread) {
    const float *a = floats_of(e, x->in[0], thread), *b = floats_of(e, x->in[1], thread);
    float *out = floats_of(e, x, thread);
    int64_t n = tensor_last(x->in[0]), m = tensor_last(x->in[1]);
    int64_t shared = tensor_rows(x) / tensor_rows(x->in[1]); /* so many rows have one of b */
    piece p = {0};
    while (cpu_take(e, x, tensor_rows(x), some_rows(x), &p))
        for (int64_t r = p.first; r < p.end; r++) {
            memcpy(out + r * (n + m), a + r * n, (size_t)n * sizeof *out);
            memcpy(out + r * (n + m) + n, b + r / shared * m, (size_t)m * sizeof *out);
        }
}

void cpu_scale_positions(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread);
    float *out = floats_of(e, x, thread);
    int64_t n = x->shape[1] * x->shape[2], length = x->shape[0] / e->running->n_sequences;
    position_scale s = x->by_position;
    piece p = {0};
    while (cpu_take(e, x, x->shape[0], PIECE / n + 1, &p))
        for (int64_t r = p.first; r < p.end; r++) {
            float position = (float)(x->position + r % length);
            float factor = 1 + s.beta * logf(1 + floorf((position + s.shift) / s.n));
            for (int64_t i = r * n; i < (r + 1) * n; i++) out[i] = in[i] * factor;
        }
}
