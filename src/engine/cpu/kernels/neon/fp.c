/* kernels/neon/fp.c - mxfp4, mxfp8 and nvfp4 in F32 for every 64-bit ARM processor: one token, and
 * unpacking. The kind is a compile-time constant of inlined functions: no branch in an inner
 * loop. */
#include "engine/cpu/kernels/neon/vector.h"

INLINE int bits_of(matrix_kind kind) {
    return kind == MATRIX_MXFP8 ? 8 : 4;
}

INLINE int group_of(matrix_kind kind) {
    return kind == MATRIX_NVFP4 ? 16 : 32;
}

/* 8 halves as floats. */
INLINE void to_floats(float32x4_t out[2], uint16x8_t halves) {
    out[0] = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(halves)));
    out[1] = vcvt_high_f32_f16(vreinterpretq_f16_u16(halves));
}

/* 8 E4M3 numbers as the halves with the same digits, which are a 256th of them. */
INLINE uint16x8_t e4m3_halves(uint8x8_t bytes) {
    int16x8_t wide = vshlq_n_s16(vmovl_s8(vreinterpret_s8_u8(bytes)), 7);
    uint16x8_t halves = vandq_u16(vreinterpretq_u16_s16(wide), vdupq_n_u16(0xbf80));
    uint16x8_t above = vaddq_u16(halves, vdupq_n_u16(0x80)); /* carries into bit 14: NaN */
    return vorrq_u16(halves, vandq_u16(above, vdupq_n_u16(0x4000)));
}

/* 16 numbers, those of mxfp8 divided by 256. An E2M1 number is a half whose low byte is 0: the high
 * one is looked up. */
INLINE void numbers16(float32x4_t out[4], const uint8_t *packed, matrix_kind kind) {
    if (kind == MATRIX_MXFP8) {
        uint8x16_t bytes = vld1q_u8(packed);
        to_floats(out, e4m3_halves(vget_low_u8(bytes)));
        to_floats(out + 2, e4m3_halves(vget_high_u8(bytes)));
        return;
    }
    static const uint8_t high[16] = {0x00, 0x38, 0x3c, 0x3e, 0x40, 0x42, 0x44, 0x46,
                                     0x80, 0xb8, 0xbc, 0xbe, 0xc0, 0xc2, 0xc4, 0xc6};
    uint8x8_t two = vld1_u8(packed);
    uint8x8x2_t codes = vzip_u8(vand_u8(two, vdup_n_u8(15)), vshr_n_u8(two, 4));
    uint8x16_t bytes = vqtbl1q_u8(vld1q_u8(high), vcombine_u8(codes.val[0], codes.val[1]));
    to_floats(out, vshll_n_u8(vget_low_u8(bytes), 8));
    to_floats(out + 2, vshll_n_u8(vget_high_u8(bytes), 8));
}

INLINE float scale_of(const rows *w, int64_t i, matrix_kind kind) {
    uint8_t scale = ((const uint8_t *)w->scales)[i];
    if (kind == MATRIX_NVFP4) {
        float32x4_t floats[2];
        to_floats(floats, e4m3_halves(vdup_n_u8(scale)));
        return vgetq_lane_f32(floats[0], 0) * 256;
    }
    uint32_t bits = scale ? (uint32_t)scale << 23 : 1u << 22; /* 2^-127 is subnormal */
    return vget_lane_f32(vreinterpret_f32_u32(vdup_n_u32(bits)), 0);
}

INLINE float dot_fp(const rows *w, int64_t r, const float *x, matrix_kind kind) {
    int size = group_of(kind), bits = bits_of(kind);
    int64_t groups = w->n / size;
    const uint8_t *packed = (const uint8_t *)w->values + r * w->n * bits / 8;
    vec total = v_zero();
    for (int64_t g = 0; g < groups; g++) {
        vec sum[4] = {v_zero(), v_zero(), v_zero(), v_zero()}, numbers[4];
        for (int i = 0; i < size; i += 16, packed += 2 * bits, x += 16) {
            numbers16(numbers, packed, kind);
            for (int k = 0; k < 4; k++) sum[k] = v_fma(numbers[k], v_load(x + 4 * k), sum[k]);
        }
        vec all = v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3]));
        if (kind == MATRIX_MXFP8) all = v_mul(all, v_all(256));
        total = v_fma(all, v_all(scale_of(w, r * groups + g, kind)), total);
    }
    return v_sum(total);
}

INLINE void matvec_fp(float *y, const rows *w, int64_t first, int64_t end, const float *x, matrix_kind kind) {
    for (int64_t r = first; r < end; r++) y[r] = dot_fp(w, r, x, kind);
}

void neon_matvec_fp(float *y, const rows *w, int64_t first, int64_t end, const float *x, const float *sums) {
    (void)sums;
    if (w->kind == MATRIX_MXFP4) matvec_fp(y, w, first, end, x, MATRIX_MXFP4);
    if (w->kind == MATRIX_MXFP8) matvec_fp(y, w, first, end, x, MATRIX_MXFP8);
    if (w->kind == MATRIX_NVFP4) matvec_fp(y, w, first, end, x, MATRIX_NVFP4);
}

INLINE void unpack_fp(float *out, const rows *w, int64_t r, matrix_kind kind) {
    int size = group_of(kind), bits = bits_of(kind);
    int64_t groups = w->n / size;
    const uint8_t *packed = (const uint8_t *)w->values + r * w->n * bits / 8;
    for (int64_t g = 0; g < groups; g++) {
        vec scale = v_all(scale_of(w, r * groups + g, kind)), numbers[4];
        for (int i = 0; i < size; i += 16, packed += 2 * bits, out += 16) {
            numbers16(numbers, packed, kind);
            for (int k = 0; k < 4; k++) {
                if (kind == MATRIX_MXFP8) numbers[k] = v_mul(numbers[k], v_all(256));
                v_store(out + 4 * k, v_mul(numbers[k], scale));
            }
        }
    }
}

void neon_unpack_fp(float *out, const rows *w, int64_t r) {
    if (w->kind == MATRIX_MXFP4) unpack_fp(out, w, r, MATRIX_MXFP4);
    if (w->kind == MATRIX_MXFP8) unpack_fp(out, w, r, MATRIX_MXFP8);
    if (w->kind == MATRIX_NVFP4) unpack_fp(out, w, r, MATRIX_NVFP4);
}
