/* kernels/avx2/attention.h - what attention of many and of few query rows shares (AVX2).
 * Blocks of keys differ in length: many rows want the tiles to come out even, few want less in the
 * first-level cache while the next block is fetched. */
#ifndef ENGINE_CPU_KERNELS_AVX2_ATTENTION_H
#define ENGINE_CPU_KERNELS_AVX2_ATTENTION_H

#include "engine/cpu/kernels/avx2/avx2.h"

#include <math.h>

enum { LANES = 8 /* of a register */ };

INLINE int64_t at_most(int64_t n, int64_t most) {
    return n < most ? n : most;
}

/* exp(x) for x <= 0: x = k ln 2 + r, then 2^k times Taylor's polynomial of r. k + 127, the bits of 2^k, are
 * the lowest of a number so large that its last digit is 1. Below the normal numbers k + 127 is 0, and so is
 * the result. */
INLINE __m256 exp8(__m256 x) {
    __m256 large = _mm256_set1_ps(0x1.8p23f + 127);
    x = _mm256_max_ps(_mm256_set1_ps(-88), x); /* in this order: NaN stays */
    __m256 shifted = _mm256_fmadd_ps(x, _mm256_set1_ps(1.44269504f), large),
           k = _mm256_sub_ps(shifted, large);
    __m256 r = _mm256_fnmadd_ps(k, _mm256_set1_ps(0x1.62e4p-1f), x); /* ln 2 in two parts, the first short */
    r = _mm256_fnmadd_ps(k, _mm256_set1_ps(0x1.7f7d1cp-20f), r);
    static const float over_factorial[] = {1 / 120.f, 1 / 24.f, 1 / 6.f, 1 / 2.f, 1, 1};
    __m256 sum = _mm256_set1_ps(1 / 720.f);
    for (int i = 0; i < 6; i++) sum = _mm256_fmadd_ps(sum, r, _mm256_set1_ps(over_factorial[i]));
    return _mm256_mul_ps(sum, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(shifted), 23)));
}

/* What to subtract before exp: rows that have seen nothing have the maximum -inf, and all their scores are.
 */
INLINE __m256 shift_of(__m256 max) {
    __m256 nothing = _mm256_cmp_ps(max, _mm256_set1_ps(-INFINITY), _CMP_EQ_OQ);
    return _mm256_andnot_ps(nothing, max);
}

/* n entries from key `first` on, as floats: in place, or in buffer. Those n entries further are fetched. */
const float *avx2_convert(float *buffer, const rows *w, int64_t first, int64_t n);

/* kernels/avx2/attention_few.c: up to so many rows. */
enum { FEW_ROWS = 8 };
size_t avx2_few_floats(int64_t dim, int64_t v_dim); /* of scratch */
void avx2_attend_few(const attention *a, float *scratch);

#endif
