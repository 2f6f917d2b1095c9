/* kernels/avx2/attention.h - what attention of many and of few query rows shares (AVX2).
 * Blocks of keys differ in length: many rows want the tiles to come out even, few want less in the
 * first-level cache while the next block is fetched. */
#ifndef ENGINE_CPU_KERNELS_AVX2_ATTENTION_H
#define ENGINE_CPU_KERNELS_AVX2_ATTENTION_H

#include "engine/cpu/kernels/avx2/vector.h"
#include "engine/cpu/kernels/templates/exp.h"

/* k + 127, the bits of 2^k, are the lowest of a number so large that its last digit is 1. Below the
 * normal numbers k + 127 is 0, and so is the result. */
INLINE vec exp_negative(vec x) {
    vec large = v_all(0x1.8p23f + 127);
    x = v_max(v_all(-88), x); /* in this order: NaN stays */
    vec shifted = v_fma(x, v_all(1.44269504f), large);
    __m256i power = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    return v_mul(exp_rest(x, v_sub(shifted, large), 6), _mm256_castsi256_ps(power));
}

/* n entries from key `first` on, as floats: in place, or in buffer. Those n entries further are
 * fetched. */
const float *avx2_convert(float *buffer, const rows *w, int64_t first, int64_t n);

/* kernels/avx2/attention_few.c: up to so many rows. */
enum { FEW_ROWS = 8 };
size_t avx2_few_floats(int64_t dim, int64_t v_dim); /* of scratch */
void avx2_attend_few(const attention *a, float *scratch);

#endif
