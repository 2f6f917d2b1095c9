/* quantize.c - affine quantization of a row, and back.
 * Every rounding is MLX's own, so that a cache holds the very bits that mlx-lm's would. */
#include "base/quantize.h"

#include <math.h>
#include <stdbool.h>

static void store(void *values, dtype type, int64_t i, float value) {
    floats_to((char *)values + (size_t)i * dtype_size(type), type, &value, 1);
}

/* 8 values are `bits` bytes, the first in the lowest bits: groups are packed 8 by 8. */
static void pack(uint8_t *packed, const float *x, int n, int bits, float scale, float bias) {
    float largest = (float)((1 << bits) - 1);
    for (int i = 0; i < n; i += 8) {
        uint64_t eight = 0;
        for (int k = 0; k < 8; k++) {
            float q = rintf((x[i + k] - bias) / scale);
            q = q > 0 ? q : 0; /* NaN becomes 0, too */
            q = q < largest ? q : largest;
            eight |= (uint64_t)q << (k * bits);
        }
        for (int b = 0; b < bits; b++) *packed++ = (uint8_t)(eight >> (8 * b));
    }
}

void quantize_row(uint32_t *words, void *scales, void *biases, dtype type, const float *x, int64_t n,
                  int bits, int group_size) {
    uint8_t *packed = (uint8_t *)words;
    for (int64_t g = 0; g < n / group_size; g++, x += group_size, packed += group_size * bits / 8) {
        float low = INFINITY, high = -INFINITY;
        for (int i = 0; i < group_size; i++) {
            low = x[i] < low ? x[i] : low;
            high = x[i] > high ? x[i] : high;
        }
        /* The end of the range that is farther from zero becomes exact, and so does zero: scale is
         * stretched until it divides that end. */
        bool low_end = fabsf(low) > fabsf(high);
        float scale = fmaxf((high - low) / (float)((1 << bits) - 1), 1e-7f), bias = 0;
        if (!low_end) scale = -scale;
        float edge = low_end ? low : high, steps = rintf(edge / scale);
        if (steps != 0) {
            scale = edge / steps;
            bias = edge;
        }
        pack(packed, x, group_size, bits, scale, bias);
        store(scales, type, g, scale);
        store(biases, type, g, bias);
    }
}

static float rounded(float x, dtype type) {
    if (type == DTYPE_BF16) return bf16_to_f32(f32_to_bf16(x));
    return type == DTYPE_F16 ? f16_to_f32(f32_to_f16(x)) : x;
}

void dequantize_row(float *out, const matrix *m, int64_t r) {
    int64_t n = m->shape[m->rank - 1], groups = n / m->group_size;
    size_t size = dtype_size(m->scales.dtype);
    const uint8_t *packed = (const uint8_t *)m->values.data + (size_t)(r * n) * (size_t)m->bits / 8;
    const char *scales = (const char *)m->scales.data + (size_t)(r * groups) * size;
    const char *biases = (const char *)m->biases.data + (size_t)(r * groups) * size;
    for (int64_t i = 0; i < n; i += 8, packed += m->bits) { /* 8 values are `bits` bytes */
        uint64_t eight = 0;
        float scale, bias;
        size_t group = (size_t)(i / m->group_size) * size;
        floats_from(&scale, scales + group, m->scales.dtype, 1);
        floats_from(&bias, biases + group, m->scales.dtype, 1);
        memcpy(&eight, packed, (size_t)m->bits);
        for (int k = 0; k < 8; k++) {
            float q = (float)(eight >> (k * m->bits) & ((1u << m->bits) - 1));
            out[i + k] = rounded(rounded(scale * q, m->scales.dtype) + bias, m->scales.dtype);
        }
    }
}
