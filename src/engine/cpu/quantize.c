/* quantize.c - affine quantization of a row, for quantized KV caches and synthetic weights.
 * Every rounding is MLX's own, so that a cache holds the very bits that mlx-lm's would. */
#include "engine/cpu/kernels/kernels.h"

#include <math.h>

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
        /* The end of the range that is farther from zero becomes exact, and so does zero: scale is stretched
         * until it divides that end. */
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
