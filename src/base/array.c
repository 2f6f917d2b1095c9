/* array.c - sizes, names and conversions of number types.
 * Portable scalar conversions; the engines have vector versions of those that are hot. */
#include "base/base.h"

#include <stdio.h>

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [DTYPE_F32] = {"F32", 4},     [DTYPE_F16] = {"F16", 2}, [DTYPE_BF16] = {"BF16", 2},
    [DTYPE_U32] = {"U32", 4},     [DTYPE_I32] = {"I32", 4}, [DTYPE_U8] = {"U8", 1},
    [DTYPE_OTHER] = {"other", 0},
};

size_t dtype_size(dtype type) {
    return types[type].size;
}

const char *dtype_name(dtype type) {
    return types[type].name;
}

int64_t array_count(const array *a) {
    int64_t n = 1;
    for (int i = 0; i < a->rank; i++) n *= a->shape[i];
    return n;
}

size_t array_bytes(const array *a) {
    return (size_t)array_count(a) * dtype_size(a->dtype);
}

char *shape_text(char *text, size_t size, int rank, const int64_t *shape) {
    size_t used = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (used < size) snprintf(text + used, size - used, "]");
    return text;
}

size_t matrix_bytes(const matrix *m) {
    size_t bytes = array_bytes(&m->values);
    if (m->kind != MATRIX_PLAIN) bytes += array_bytes(&m->scales);
    if (m->kind == MATRIX_AFFINE) bytes += array_bytes(&m->biases);
    return bytes;
}

dtype matrix_dtype(const matrix *m) {
    if (m->kind == MATRIX_PLAIN) return m->values.dtype;
    return m->kind == MATRIX_AFFINE ? m->scales.dtype : DTYPE_BF16;
}

static const struct {
    const char *name;
    int bits, group_size;
} kinds[N_MATRIX_KINDS] = {
    [MATRIX_PLAIN] = {"plain", 0, 0},  [MATRIX_AFFINE] = {"affine", 0, 0}, [MATRIX_MXFP4] = {"mxfp4", 4, 32},
    [MATRIX_MXFP8] = {"mxfp8", 8, 32}, [MATRIX_NVFP4] = {"nvfp4", 4, 16},
};

const char *matrix_kind_name(matrix_kind kind) {
    return kinds[kind].name;
}

int matrix_kind_bits(matrix_kind kind) {
    return kinds[kind].bits;
}

int matrix_kind_group_size(matrix_kind kind) {
    return kinds[kind].group_size;
}

float e8m0_to_f32(uint8_t e) {
    uint32_t bits = e ? (uint32_t)e << 23 : 1u << 22; /* 2^-127 is subnormal */
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

float e4m3_to_f32(uint8_t x) {
    uint16_t half =
        (uint16_t)((x & 0x7f) == 0x7f ? 0x7e00 : (x & 0x7f) << 7); /* F16 with 8 less in the exponent */
    float magnitude = f16_to_f32(half) * 256;
    return x & 0x80 ? -magnitude : magnitude;
}

float e2m1_to_f32(uint8_t x) {
    static const float magnitudes[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    return x & 8 ? -magnitudes[x & 7] : magnitudes[x & 7];
}

float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 0x1fu, fraction = h & 0x3ffu, bits;
    if (exponent == 31) {
        bits = sign | 0x7f800000u | (fraction << 13);
    } else if (exponent) {
        bits = sign | ((exponent + 112) << 23) | (fraction << 13);
    } else { /* zero or subnormal: fraction * 2^-24, exact in float */
        float f = (float)fraction * 0x1p-24f;
        memcpy(&bits, &f, sizeof bits);
        bits |= sign;
    }
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

uint16_t f32_to_f16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds beyond 65504 */
    if (magnitude < 0x38800000u) {                                   /* subnormal: let float addition round */
        float shifted;
        memcpy(&shifted, &magnitude, sizeof shifted);
        shifted += 0.5f; /* 0.5 has ulp 2^-24, the unit of f16 subnormals */
        memcpy(&magnitude, &shifted, sizeof magnitude);
        return (uint16_t)(sign | (magnitude - 0x3f000000u));
    }
    magnitude += 0xfffu + ((magnitude >> 13) & 1u);
    return (uint16_t)(sign | ((magnitude - 0x38000000u) >> 13));
}

void floats_from(float *out, const void *in, dtype type, int64_t n) {
    if (type == DTYPE_F32) memcpy(out, in, (size_t)n * sizeof *out);
    if (type != DTYPE_BF16 && type != DTYPE_F16) return;
    for (int64_t i = 0; i < n; i++) {
        uint16_t half; /* data of a file may be at an odd address */
        memcpy(&half, (const char *)in + 2 * i, sizeof half);
        out[i] = type == DTYPE_BF16 ? bf16_to_f32(half) : f16_to_f32(half);
    }
}

void floats_to(void *out, dtype type, const float *in, int64_t n) {
    uint16_t *half = out;
    if (type == DTYPE_F32) memcpy(out, in, (size_t)n * sizeof *in);
    if (type == DTYPE_BF16)
        for (int64_t i = 0; i < n; i++) half[i] = f32_to_bf16(in[i]);
    if (type == DTYPE_F16)
        for (int64_t i = 0; i < n; i++) half[i] = f32_to_f16(in[i]);
}
