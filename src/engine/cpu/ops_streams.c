/* ops_streams.c - several streams of one text, side by side, and what else Gemma 3n does with rows.
 * Each streams' rows are read once or a few times, in loops that compilers turn into vectors. */
#include "engine/cpu/cpu.h"

#include <math.h>

enum { PIECE = 4096, LANES = 16 }; /* floats of one piece of work; sums side by side */

static int64_t some_rows(const node *x) {
    return PIECE / tensor_last(x) + 1;
}

/* out[i] += by * x[i] */
static void add_scaled(float *restrict out, const float *restrict x, float by, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] += by * x[i];
}

void cpu_predict_streams(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread), *by = floats_of(e, x->in[1], thread);
    float *out = floats_of(e, x, thread);
    int64_t n = x->streams.n, width = tensor_last(x), d = width / n;
    piece p = {0};
    while (cpu_take(e, x, x->shape[0], some_rows(x), &p))
        for (int64_t r = p.first; r < p.end; r++) {
            memcpy(out + r * width, in + r * width, (size_t)width * sizeof *out);
            for (int64_t i = 0; i < n * n; i++)
                add_scaled(out + r * width + i / n * d, in + r * width + i % n * d, by[r * n * n + i], d);
        }
}

void cpu_correct_streams(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread), *y = floats_of(e, x->in[1], thread);
    const float *by = floats_of(e, x->in[2], thread);
    float *out = floats_of(e, x, thread);
    int64_t n = x->streams.n, width = tensor_last(x), d = width / n;
    piece p = {0};
    while (cpu_take(e, x, x->shape[0], some_rows(x), &p))
        for (int64_t r = p.first; r < p.end; r++) {
            const float *row = in + r * width, *active = row + x->streams.active * d;
            memcpy(out + r * width, row, (size_t)width * sizeof *out);
            for (int64_t i = 0; i < n; i++) {
                float factor = by[r * n + i] + 1, *to = out + r * width + i * d;
                for (int64_t k = 0; k < d; k++) to[k] += factor * (y[r * d + k] - active[k]);
            }
        }
}

void cpu_add_to_streams(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread), *y = floats_of(e, x->in[1], thread);
    float *out = floats_of(e, x, thread);
    int64_t n = x->streams.n, width = tensor_last(x), d = width / n;
    piece p = {0};
    while (cpu_take(e, x, x->shape[0], some_rows(x), &p))
        for (int64_t r = p.first; r < p.end; r++) {
            memcpy(out + r * width, in + r * width, (size_t)width * sizeof *out);
            for (int64_t i = 1; i < n; i++) add_scaled(out + r * width + i * d, y + r * d, 1, d);
        }
}

void cpu_mean_of_streams(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread);
    float *out = floats_of(e, x, thread);
    int64_t n = x->streams.n, d = tensor_last(x);
    piece p = {0};
    while (cpu_take(e, x, x->shape[0], some_rows(x), &p))
        for (int64_t r = p.first; r < p.end; r++) {
            memset(out + r * d, 0, (size_t)d * sizeof *out);
            for (int64_t i = 0; i < n; i++) add_scaled(out + r * d, in + (r * n + i) * d, 1 / (float)n, d);
        }
}

/* The sum of (x - middle)^2; power 1: of x - middle. */
static float sum_of(const float *x, int64_t n, float middle, int power) {
    float sums[LANES] = {0}, all = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++) {
            float distance = x[i + k] - middle;
            sums[k] += power == 1 ? distance : distance * distance;
        }
    for (; i < n; i++) all += power == 1 ? x[i] - middle : (x[i] - middle) * (x[i] - middle);
    for (int k = 0; k < LANES; k++) all += sums[k];
    return all;
}

void cpu_rescale(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread), *like = floats_of(e, x->in[1], thread);
    float *out = floats_of(e, x, thread);
    int64_t n = tensor_last(x);
    piece p = {0};
    while (cpu_take(e, x, tensor_rows(x), some_rows(x), &p))
        for (int64_t r = p.first; r < p.end; r++) {
            float wanted = sqrtf(sum_of(like + r * n, n, 0, 2) / (float)n);
            float by = wanted / sqrtf(sum_of(in + r * n, n, 0, 2) / (float)n);
            for (int64_t i = r * n; i < (r + 1) * n; i++) out[i] = in[i] * by;
        }
}

void cpu_gelu_above(cpu *e, const node *x, int thread) {
    const float *in = floats_of(e, x->in[0], thread);
    float *out = floats_of(e, x, thread);
    int64_t n = tensor_last(x);
    piece p = {0};
    while (cpu_take(e, x, tensor_rows(x), some_rows(x), &p))
        for (int64_t r = p.first; r < p.end; r++) {
            const float *row = in + r * n;
            float mean = sum_of(row, n, 0, 1) / (float)n;
            float cutoff = mean + x->scale * sqrtf(sum_of(row, n, mean, 2) / (float)n);
            for (int64_t i = 0; i < n; i++) { /* few are above; a NaN stays one */
                float above = row[i] <= cutoff ? 0 : row[i] - cutoff;
                out[r * n + i] = above;
                if (above != 0) cpu_gate(e, ACT_GELU_TANH, out + r * n + i, &above, NULL, 1);
            }
        }
}
