/* kernels/avx2/avx2.h - what the files of AVX2 kernels share: loads of any number type, sums.
 * Addresses need no alignment. */
#ifndef ENGINE_CPU_KERNELS_AVX2_AVX2_H
#define ENGINE_CPU_KERNELS_AVX2_AVX2_H

#include "engine/cpu/kernels/x86.h"

/* Selects the first n lanes. */
INLINE __m256i first_lanes(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE __m256 from_half(__m128i half, dtype type) {
    if (type == DTYPE_F16) return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* 8 floats stored as `type`. */
INLINE __m256 load8(const void *p, dtype type) {
    return type == DTYPE_F32 ? _mm256_loadu_ps(p) : from_half(_mm_loadu_si128(p), type);
}

/* One float stored as `type`, in all lanes. */
INLINE __m256 spread(const void *p, dtype type) {
    if (type == DTYPE_F32) return _mm256_broadcast_ss(p);
    uint16_t half;
    memcpy(&half, p, sizeof half);
    if (type == DTYPE_F16) return _mm256_cvtph_ps(_mm_set1_epi16((int16_t)half));
    return _mm256_set1_ps(bf16_to_f32(half));
}

/* n < 8 bytes, the first in the lowest bits. Each piece is loaded into a register of its own:
 * joining them in memory would make the load wait for the stores, many times the cost of all the
 * rest. */
INLINE uint64_t load_bytes(const uint8_t *p, int n) {
    uint32_t four = 0;
    uint16_t two = 0;
    if (n & 4) memcpy(&four, p, 4);
    if (n & 2) memcpy(&two, p + (n & 4), 2);
    uint64_t bytes = four | (uint64_t)two << (8 * (n & 4));
    return n & 1 ? bytes | (uint64_t)p[n - 1] << (8 * (n - 1)) : bytes;
}

/* The first n < 8 floats, then zeros. */
INLINE __m256 load_some(const void *p, dtype type, int64_t n) {
    if (type == DTYPE_F32) return _mm256_maskload_ps(p, first_lanes(n));
    int64_t low, high = 0;
    if (n >= 4) {
        memcpy(&low, p, sizeof low);
        high = (int64_t)load_bytes((const uint8_t *)p + 8, 2 * (int)(n - 4));
    } else {
        low = (int64_t)load_bytes(p, 2 * (int)n);
    }
    return from_half(_mm_set_epi64x(high, low), type);
}

INLINE void store_some(float *out, __m256 x, int64_t n) {
    _mm256_maskstore_ps(out, first_lanes(n), x);
}

INLINE float sum8(__m256 x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* 16 E4M3 numbers divided by 256, which are F16's with the same digits: 16 bytes. */
INLINE __m256i e4m3_finite(__m128i bytes) {
    __m256i halves = _mm256_slli_epi16(_mm256_cvtepi8_epi16(bytes), 7);
    return _mm256_and_si256(halves, _mm256_set1_epi16((int16_t)0xbf80));
}

/* The same where codes may be NaN's. */
INLINE __m256i e4m3_halves(__m128i bytes) {
    __m256i halves = e4m3_finite(bytes);
    __m256i above = _mm256_add_epi16(halves, _mm256_set1_epi16(0x80)); /* carries into bit 14: NaN */
    return _mm256_or_si256(halves, _mm256_and_si256(above, _mm256_set1_epi16(0x4000)));
}

/* kernels/avx2/affine.c: matvec and unpack of kernels.h for affine weights, in F32. */
void avx2_matvec_affine(float *y, const rows *w, int64_t first, int64_t end, const float *x,
                        const float *sums);
void avx2_unpack_affine(float *out, const rows *w, int64_t r);

/* kernels/avx2/fp.c: the same for mxfp4, mxfp8 and nvfp4. */
void avx2_matvec_fp(float *y, const rows *w, int64_t first, int64_t end, const float *x, const float *sums);
void avx2_unpack_fp(float *out, const rows *w, int64_t r);

extern const products avx2_int16, avx2_int8; /* kernels/avx2/int.c */
extern const products avx2_mxfp8;            /* kernels/avx2/fp.c */

#endif
