/* kernels/neon/neon.h - what the files of ARM kernels share: loads, and quantized values as bytes.
 * Every ARMv8.0 processor can run it; addresses need no alignment. */
#ifndef ENGINE_CPU_KERNELS_NEON_NEON_H
#define ENGINE_CPU_KERNELS_NEON_NEON_H

#include "engine/cpu/kernels/kernels.h"

#include <arm_neon.h>

#define INLINE static inline __attribute__((always_inline))

/* What the processor has. Here, because files for its extensions are compiled with them. */
bool neon_has_dotprod(void);
bool neon_has_matrix_products(void); /* of int8 and of BF16 */

/* kernels/neon/fp.c: matvec and unpack of kernels.h for mxfp4, mxfp8 and nvfp4, in F32. */
void neon_matvec_fp(float *y, const rows *w, int64_t first, int64_t end, const float *x, const float *sums);
void neon_unpack_fp(float *out, const rows *w, int64_t r);

INLINE size_t size_of(dtype type) {
    return type == DTYPE_F32 ? 4 : 2;
}

INLINE const char *at(const void *values, dtype type, int64_t i) {
    return (const char *)values + (size_t)i * size_of(type);
}

/* 4 floats stored as `type`. */
INLINE float32x4_t load4(const void *p, dtype type) {
    if (type == DTYPE_F32) return vreinterpretq_f32_u8(vld1q_u8(p));
    uint16x4_t half = vreinterpret_u16_u8(vld1_u8(p));
    if (type == DTYPE_F16) return vcvt_f32_f16(vreinterpret_f16_u16(half));
    return vreinterpretq_f32_u32(vshll_n_u16(half, 16));
}

/* The first n < 4 of them, then zeros. */
INLINE float32x4_t load_some(const void *p, dtype type, int64_t n) {
    char bytes[16] = {0};
    memcpy(bytes, p, (size_t)n * size_of(type));
    return load4(bytes, type);
}

INLINE void store_some(float *out, float32x4_t x, int64_t n) {
    float lanes[4];
    vst1q_f32(lanes, x);
    memcpy(out, lanes, (size_t)n * sizeof *lanes);
}

/* Bytes 2 i and 2 i + 1 of the result: where value i < 8 begins, and the byte behind. */
#define PLACE(i, bits) (i) * (bits) / 8, (i) * (bits) / 8 + 1
#define DOWN(i, bits)  (int16_t)(-((i) * (bits) % 8))

/* 16 quantized values of 1 to 6 bits that begin at byte `from` of v, as bytes. A value lies in two
 * bytes at most: they are looked up, shifted down and masked. Places beyond v give zeros, and are
 * masked out. */
INLINE uint8x16_t quants16(uint8x16_t v, int from, int bits) {
    const uint8_t places[16] = {PLACE(0, bits), PLACE(1, bits), PLACE(2, bits), PLACE(3, bits),
                                PLACE(4, bits), PLACE(5, bits), PLACE(6, bits), PLACE(7, bits)};
    const int16_t shifts[8] = {DOWN(0, bits), DOWN(1, bits), DOWN(2, bits), DOWN(3, bits),
                               DOWN(4, bits), DOWN(5, bits), DOWN(6, bits), DOWN(7, bits)};
    uint8x16_t place = vaddq_u8(vld1q_u8(places), vdupq_n_u8((uint8_t)from));
    int16x8_t shift = vld1q_s16(shifts);
    uint16x8_t low = vreinterpretq_u16_u8(vqtbl1q_u8(v, place));
    uint16x8_t high = vreinterpretq_u16_u8(vqtbl1q_u8(v, vaddq_u8(place, vdupq_n_u8((uint8_t)bits))));
    uint8x16_t bytes =
        vuzp1q_u8(vreinterpretq_u8_u16(vshlq_u16(low, shift)), vreinterpretq_u8_u16(vshlq_u16(high, shift)));
    return vandq_u8(bytes, vdupq_n_u8((uint8_t)((1 << bits) - 1)));
}

/* 32 values of 4 bits as bytes: the even ones, the odd ones. */
INLINE uint8x16x2_t nibbles32(const uint8_t *packed) {
    uint8x16_t v = vld1q_u8(packed);
    return (uint8x16x2_t){{vandq_u8(v, vdupq_n_u8(15)), vshrq_n_u8(v, 4)}};
}

/* 32 quantized values of 1 to 8 bits as bytes: 4 * bits bytes, the first value in the lowest bits.
 * Where they are no whole number of vectors, the second load ends where they end, and overlaps the
 * first. */
INLINE uint8x16x2_t quants32(const uint8_t *packed, int bits) {
    if (bits == 8) return (uint8x16x2_t){{vld1q_u8(packed), vld1q_u8(packed + 16)}};
    if (bits == 4) {
        uint8x16x2_t q = nibbles32(packed);
        return vzipq_u8(q.val[0], q.val[1]);
    }
    if (bits == 1) { /* 4 bytes are less than a load */
        uint32_t all;
        memcpy(&all, packed, sizeof all);
        uint8x16_t v = vreinterpretq_u8_u32(vdupq_n_u32(all));
        return (uint8x16x2_t){{quants16(v, 0, bits), quants16(v, 2, bits)}};
    }
    int size = bits < 4 ? 8 : 16, second = 4 * bits - size;
    uint8x16_t first, last;
    if (bits < 4) {
        first = vcombine_u8(vld1_u8(packed), vdup_n_u8(0));
        last = vcombine_u8(vld1_u8(packed + second), vdup_n_u8(0));
    } else {
        first = vld1q_u8(packed);
        last = vld1q_u8(packed + second);
    }
    return (uint8x16x2_t){{quants16(first, 0, bits), quants16(last, 2 * bits - second, bits)}};
}

#endif
