/* kernels/scalar.c - the kernels in plain C: what every processor can run, and what the tests
 * compare with. Weights are read byte by byte or through memcpy, since a checkpoint file need not
 * align them. */
#include "engine/cpu/kernels/kernels.h"

#include <float.h>
#include <math.h>

enum { MAX_GROUP = 128, LANES = 8 };

static float load(const void *values, dtype type, int64_t i) {
    if (type == DTYPE_F32) {
        float f;
        memcpy(&f, (const char *)values + i * 4, sizeof f);
        return f;
    }
    uint16_t half;
    memcpy(&half, (const char *)values + i * 2, sizeof half);
    return type == DTYPE_BF16 ? bf16_to_f32(half) : f16_to_f32(half);
}

/* 8 quantized values, which are `bits` whole bytes at any width, the first in the lowest bits. */
static inline uint64_t load_eight(const uint8_t *packed, int bits) {
    uint64_t eight = 0;
    for (int b = 0; b < bits; b++) eight |= (uint64_t)packed[b] << (8 * b);
    return eight;
}

/* n quantized values (a multiple of 8) as floats. */
static inline void quants(float *out, const uint8_t *packed, int64_t n, int bits) {
    for (int64_t i = 0; i < n; i += 8, packed += bits) {
        uint64_t eight = load_eight(packed, bits);
        for (int k = 0; k < 8; k++) out[i + k] = (float)((eight >> (k * bits)) & ((1u << bits) - 1));
    }
}

/* The same with a constant width, which the compiler turns into much better code. */
static void quants_of(float *out, const uint8_t *packed, int64_t n, int bits) {
    switch (bits) {
    case 1:
        quants(out, packed, n, 1);
        break;
    case 2:
        quants(out, packed, n, 2);
        break;
    case 3:
        quants(out, packed, n, 3);
        break;
    case 4:
        quants(out, packed, n, 4);
        break;
    case 5:
        quants(out, packed, n, 5);
        break;
    case 6:
        quants(out, packed, n, 6);
        break;
    case 8:
        quants(out, packed, n, 8);
        break;
    }
}

/* Several partial sums: faster, since compilers may not reorder one, and more accurate. */
static float dot(const float *a, const float *b, int64_t n) {
    float lanes[LANES] = {0}, total = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++) lanes[k] += a[i + k] * b[i + k];
    for (; i < n; i++) total += a[i] * b[i];
    for (int k = 0; k < LANES; k++) total += lanes[k];
    return total;
}

static bool supported(void) {
    return true;
}

static float dot_affine(const rows *w, int64_t r, const float *x, const float *sums) {
    const uint8_t *packed = (const uint8_t *)w->values + r * (w->n * w->bits / 8);
    int64_t groups = w->n / w->group_size;
    float q[MAX_GROUP], total = 0;
    for (int64_t g = 0; g < groups; g++) {
        quants_of(q, packed + g * w->group_size * w->bits / 8, w->group_size, w->bits);
        float product = dot(q, x + g * w->group_size, w->group_size);
        total += load(w->scales, w->dtype, r * groups + g) * product;
        total += load(w->biases, w->dtype, r * groups + g) * sums[g];
    }
    return total;
}

static float dot_plain(const rows *w, int64_t r, const float *x) {
    float lanes[LANES] = {0}, total = 0;
    int64_t i = 0;
    for (; i + LANES <= w->n; i += LANES)
        for (int k = 0; k < LANES; k++) lanes[k] += load(w->values, w->dtype, r * w->n + i + k) * x[i + k];
    for (; i < w->n; i++) total += load(w->values, w->dtype, r * w->n + i) * x[i];
    for (int k = 0; k < LANES; k++) total += lanes[k];
    return total;
}

static void matvec_plain(float *y, const rows *w, int64_t first, int64_t end, const float *x,
                         const float *sums) {
    (void)sums;
    for (int64_t r = first; r < end; r++) y[r] = dot_plain(w, r, x);
}

static void matvec_affine(float *y, const rows *w, int64_t first, int64_t end, const float *x,
                          const float *sums) {
    for (int64_t r = first; r < end; r++) y[r] = dot_affine(w, r, x, sums);
}

static void group_sums(float *sums, const float *x, int64_t n, int group_size) {
    for (int64_t g = 0; g < n / group_size; g++) {
        sums[g] = 0;
        for (int i = 0; i < group_size; i++) sums[g] += x[g * group_size + i];
    }
}

static void to_f32(float *out, const void *in, dtype type, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = load(in, type, i);
}

static void from_f32(void *out, dtype type, const float *in, int64_t n) {
    floats_to(out, type, in, n);
}

static void unpack_plain(float *out, const rows *w, int64_t r) {
    to_f32(out, (const char *)w->values + (size_t)(r * w->n) * dtype_size(w->dtype), w->dtype, w->n);
}

static void unpack_affine(float *out, const rows *w, int64_t r) {
    int64_t groups = w->n / w->group_size;
    quants_of(out, (const uint8_t *)w->values + r * (w->n * w->bits / 8), w->n, w->bits);
    for (int64_t g = 0; g < groups; g++) {
        float scale = load(w->scales, w->dtype, r * groups + g);
        float bias = load(w->biases, w->dtype, r * groups + g);
        float *group = out + g * w->group_size;
        for (int i = 0; i < w->group_size; i++) group[i] = scale * group[i] + bias;
    }
}

static void matmul(float *out, int64_t out_stride, const float *x, int64_t x_stride, int64_t n_tokens,
                   const float *w, int64_t n_rows, int64_t n) {
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t r = 0; r < n_rows; r++) out[t * out_stride + r] = dot(x + t * x_stride, w + r * n, n);
}

static void mix(float *out, int64_t out_stride, const float *p, int64_t p_stride, int64_t n_tokens,
                const float *v, int64_t n_rows, int64_t n) {
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t r = 0; r < n_rows; r++)
            for (int64_t c = 0; c < n; c++) out[t * out_stride + c] += p[t * p_stride + r] * v[r * n + c];
}

static void rms_norm_row(float *out, const float *x, const float *w, int64_t n, float eps) {
    float factor = 1 / sqrtf(dot(x, x, n) / (float)n + eps);
    for (int64_t i = 0; i < n; i++) out[i] = w ? x[i] * factor * w[i] : x[i] * factor;
}

/* Sums in double precision: a row's mean may be much larger than its spread. */
static void layer_norm_row(float *out, const float *x, const float *w, const float *bias, int64_t n,
                           float eps) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < n; i++) mean += x[i];
    mean /= (double)n;
    for (int64_t i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean);
    float middle = (float)mean, factor = (float)(1 / sqrt(variance / (double)n + (double)eps));
    for (int64_t i = 0; i < n; i++) out[i] = (x[i] - middle) * factor * (w ? w[i] : 1) + (bias ? bias[i] : 0);
}

/* Both activations are x * sigmoid(u): (1 + tanh(a)) / 2 is sigmoid(2 a). */
static void gated_row(float *out, activation act, const float *gate, const float *up, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float x = gate[i], u = x;
        if (act == ACT_GELU_TANH) u = 1.5957691216f * (x + 0.044715f * x * x * x); /* 2 sqrt(2 / pi) */
        out[i] = x / (1 + expf(-u)) * up[i];
    }
}

static float max(const float *x, int64_t n) {
    float largest = -INFINITY;
    for (int64_t i = 0; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

static float exp_sum(float *x, int64_t n, float shift) {
    float sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] = expf(x[i] - shift);
    return sum;
}

static void scan(float *y, float *S, int64_t n_rows, int64_t n, const float *decay, const float *x,
                 const float *b, const float *c) {
    for (int64_t r = 0; r < n_rows; r++, S += n) {
        for (int64_t i = 0; i < n; i++) S[i] = decay[i] * S[i] + x[r] * b[i];
        y[r] = dot(S, c, n);
    }
}

static void convolve(float *out, const float *const in[], const float *w, int64_t w_stride, int taps,
                     const float *bias, bool silu, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float sum = bias ? bias[i] : 0;
        for (int j = 0; j < taps; j++) sum += w[j * w_stride + i] * in[j][i];
        out[i] = silu ? sum / (1 + expf(-sum)) : sum;
    }
}

/* ---- int8 products: one panel is one row or one token ---- */

/* A token: scales and sums of its groups, then its values. A row: scales and biases, then its
 * values. */
static size_t fixed_bytes(const rows *w) {
    size_t n = 2 * sizeof(float) * (size_t)(w->n / w->group_size) + (size_t)w->n;
    return (n + 63) / 64 * 64;
}

/* Compared as integers, NaN is the largest of all. */
static float largest_of(const float *x, int n) {
    uint32_t most = 0, bits;
    for (int i = 0; i < n; i++) {
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    float largest;
    memcpy(&largest, &most, sizeof largest);
    return largest;
}

static void prepare_int8(void *prepared, const rows *w, const float *x) {
    int64_t groups = w->n / w->group_size;
    float *scales = prepared, *sums = scales + groups;
    int8_t *values = (int8_t *)(sums + groups);
    for (int64_t g = 0; g < groups; g++, x += w->group_size, values += w->group_size) {
        float largest = largest_of(x, w->group_size);
        bool usable = largest >= 1e-30f && largest <= FLT_MAX;
        int sum = 0;
        for (int i = 0; i < w->group_size; i++) {
            values[i] = usable ? (int8_t)rintf(x[i] * (127 / largest)) : 0;
            sum += values[i];
        }
        scales[g] = largest < 1e-30f ? 0 : largest / 127;
        sums[g] = scales[g] * (float)sum;
    }
}

/* Numbers of w as bytes q, of which scale * q + bias are the numbers: n from the given place on. */
static void bytes_of(uint8_t *out, const rows *w, int64_t from, int64_t n) {
    static const uint8_t e2m1[16] = {E2M1_BYTES};
    int bits = w->bits;
    const uint8_t *packed = (const uint8_t *)w->values + from * bits / 8;
    for (int64_t i = 0; i < n; i += 8, packed += bits) {
        uint64_t eight = load_eight(packed, bits);
        for (int k = 0; k < 8; k++) {
            uint8_t q = (uint8_t)((eight >> (k * bits)) & ((1u << bits) - 1));
            out[i + k] = w->kind == MATRIX_MXFP4 ? e2m1[q] : q;
        }
    }
}

static float scale_of(const rows *w, int64_t group) {
    if (w->kind == MATRIX_MXFP4) return e8m0_to_f32(((const uint8_t *)w->scales)[group]) / 2;
    return load(w->scales, w->dtype, group);
}

static float bias_of(const rows *w, int64_t group) {
    return w->kind == MATRIX_MXFP4 ? -12 * scale_of(w, group) : load(w->biases, w->dtype, group);
}

static int32_t dot_bytes(const uint8_t *q, const int8_t *x, int n) {
    int32_t sum = 0;
    for (int i = 0; i < n; i++) sum += q[i] * x[i];
    return sum;
}

static void dot_rows_int8(float *y, const rows *w, int64_t first, int64_t end, const void *prepared) {
    int64_t groups = w->n / w->group_size;
    const float *x_scales = prepared, *sums = x_scales + groups;
    for (int64_t r = first; r < end; r++) {
        const int8_t *x = (const int8_t *)(sums + groups);
        y[r] = 0;
        for (int64_t g = 0; g < groups; g++, x += w->group_size) {
            uint8_t q[MAX_GROUP];
            bytes_of(q, w, r * w->n + g * w->group_size, w->group_size);
            float product = x_scales[g] * (float)dot_bytes(q, x, w->group_size);
            y[r] += scale_of(w, r * groups + g) * product;
            y[r] += bias_of(w, r * groups + g) * sums[g];
        }
    }
}

static void matvec_int8(float *y, const rows *w, runs rs, const void *prepared) {
    for (int k = 0; k < count_runs(rs); k++)
        dot_rows_int8(y, w, one_run(rs, k).first, one_run(rs, k).end, prepared);
}

static void pack_rows_int8(void *panel, const rows *w, int64_t r, int64_t n_rows) {
    int64_t groups = w->n / w->group_size;
    float *scales = panel, *biases = scales + groups;
    (void)n_rows; /* one */
    for (int64_t g = 0; g < groups; g++) {
        scales[g] = scale_of(w, r * groups + g);
        biases[g] = bias_of(w, r * groups + g);
    }
    bytes_of((uint8_t *)(biases + groups), w, r * w->n, w->n);
}

static void pack_tokens_int8(void *panel, const rows *w, const float *x, int64_t x_stride, int64_t n_tokens) {
    (void)x_stride, (void)n_tokens; /* one */
    prepare_int8(panel, w, x);
}

static float dot_int8(const void *row, const void *token, const rows *w) {
    int64_t groups = w->n / w->group_size;
    const float *scales = row, *biases = scales + groups, *x_scales = token, *sums = x_scales + groups;
    const uint8_t *q = (const uint8_t *)(biases + groups);
    const int8_t *x = (const int8_t *)(sums + groups);
    float total = 0;
    for (int64_t g = 0; g < groups; g++, q += w->group_size, x += w->group_size) {
        total += scales[g] * (x_scales[g] * (float)dot_bytes(q, x, w->group_size));
        total += biases[g] * sums[g];
    }
    return total;
}

static void multiply_int8(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens,
                          const void *panels, int64_t n_rows, const rows *w) {
    int64_t bytes = (int64_t)fixed_bytes(w);
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t r = 0; r < n_rows; r++)
            out[t * out_stride + r] =
                dot_int8((const char *)panels + r * bytes, (const char *)tokens + t * bytes, w);
}

static const products int8_products = {
    .prepared_bytes = fixed_bytes,
    .prepare = prepare_int8,
    .matvec = matvec_int8,
    .panel_rows = 1,
    .panel_tokens = 1,
    .row_panel_bytes = fixed_bytes,
    .token_panel_bytes = fixed_bytes,
    .pack_rows = pack_rows_int8,
    .pack_tokens = pack_tokens_int8,
    .multiply = multiply_int8,
};

const kernels kernels_scalar = {
    .name = "scalar",
    .supported = supported,
    .of = {[MATRIX_PLAIN] = {.matvec = matvec_plain, .unpack = unpack_plain},
           [MATRIX_AFFINE] = {.matvec = matvec_affine, .unpack = unpack_affine, .int8 = &int8_products},
           [MATRIX_MXFP4] = {.matvec = scalar_matvec_fp, .unpack = scalar_unpack_fp, .int8 = &int8_products},
           [MATRIX_MXFP8] = {.matvec = scalar_matvec_fp, .unpack = scalar_unpack_fp},
           [MATRIX_NVFP4] = {.matvec = scalar_matvec_fp, .unpack = scalar_unpack_fp}},
    .group_sums = group_sums,
    .matmul = matmul,
    .mix = mix,
    .to_f32 = to_f32,
    .from_f32 = from_f32,
    .rms_norm = rms_norm_row,
    .layer_norm = layer_norm_row,
    .gated = gated_row,
    .max = max,
    .exp_sum = exp_sum,
    .scan = scan,
    .convolve = convolve,
};
