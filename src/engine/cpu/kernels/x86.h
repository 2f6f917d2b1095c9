/* kernels/x86.h - what the kernels of AVX2 and of AVX-512 share: places of numbers of any type,
 * fetching them ahead, and a sum. Both are compiled for AVX2 at least. */
#ifndef ENGINE_CPU_KERNELS_X86_H
#define ENGINE_CPU_KERNELS_X86_H

#include "engine/cpu/kernels/kernels.h"
#include "engine/cpu/kernels/x86_features.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* Sums stay in registers only if no loop over them is left. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

INLINE int64_t at_most(int64_t n, int64_t most) {
    return n < most ? n : most;
}

INLINE size_t size_of(dtype type) {
    return type == DTYPE_F32 ? 4 : 2;
}

INLINE const char *at(const void *values, dtype type, int64_t i) {
    return (const char *)values + (size_t)i * size_of(type);
}

/* The bits of an E8M0 scale as F32: 2^-127 is subnormal. */
INLINE int e8m0_bits(uint8_t scale) {
    return scale ? scale << 23 : 1 << 22;
}

/* Scale i of w. kind is w's: a constant of inlined functions. */
INLINE float fp_scale(const rows *w, int64_t i, matrix_kind kind) {
    uint8_t scale = ((const uint8_t *)w->scales)[i];
    if (kind != MATRIX_NVFP4) return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(e8m0_bits(scale))));
    uint16_t half = (uint16_t)((scale & 0x7f) << 7 | (scale & 0x80) << 8);
    if ((half & 0x3f80) == 0x3f80) half |= 0x7c00; /* NaN */
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half))) * 256;
}

/* Brings `bytes` from p on into the cache. */
INLINE void fetch(const char *p, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(p + i, _MM_HINT_T0);
}

/* Bytes from a place in a block of entries of w, the one at `first`, to the same place in what
 * comes after it, to be fetched: the next block, or, after the last, `next`. 0: nothing does. */
INLINE int64_t jump_ahead(const attention *a, const rows *w, int64_t first, int64_t block, const void *next) {
    int64_t bytes = row_bytes_of(w);
    if (first + block < a->end) return block * bytes;
    return next ? (const char *)next - ((const char *)w->values + first * bytes) : 0;
}

/* The beginnings of runs, which nothing else fetches ahead: all at once, so that memory is waited
 * for once.
 */
INLINE void fetch_runs(const rows *w, runs rs, int64_t bytes) {
    int64_t groups = w->bits ? w->n / w->group_size : 0, first = rs.first;
    for (int k = 0; k < count_runs(rs); k++, first += rs.apart) {
        fetch((const char *)w->values + first * row_bytes_of(w), bytes);
        if (w->kind == MATRIX_PLAIN) continue;
        fetch((const char *)w->scales + (size_t)(first * groups) * scale_size(w), bytes / 4);
        if (w->kind != MATRIX_AFFINE) continue;
        fetch(at(w->biases, w->dtype, first * groups), bytes / 4);
    }
}

/* kernels/avx2/fp.c: one token and mxfp8, which AVX-512 without VBMI does not do faster. */
size_t avx2_float_bytes(const rows *w);
void avx2_prepare_floats(void *prepared, const rows *w, const float *x);
void avx2_matvec_mxfp8(float *y, const rows *w, runs rs, const void *prepared);

/* The sums of the lanes of four vectors. */
INLINE __m128 sum8x4(const __m256 v[4]) {
    __m256 a = _mm256_add_ps(_mm256_unpacklo_ps(v[0], v[1]), _mm256_unpackhi_ps(v[0], v[1]));
    __m256 b = _mm256_add_ps(_mm256_unpacklo_ps(v[2], v[3]), _mm256_unpackhi_ps(v[2], v[3]));
    __m256 s = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

#endif
