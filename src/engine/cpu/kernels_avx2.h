/* kernels_avx2.h - what the files of AVX2 kernels share. */
#ifndef ENGINE_CPU_KERNELS_AVX2_H
#define ENGINE_CPU_KERNELS_AVX2_H

#include "engine/cpu/kernels.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

INLINE float sum8(__m256 x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* n < 8 bytes, the first in the lowest bits. Each piece is loaded into a register of its own: joining them in
 * memory would make the load wait for the stores, many times the cost of all the rest. */
INLINE uint64_t load_bytes(const uint8_t *p, int n) {
    uint32_t four = 0;
    uint16_t two = 0;
    if (n & 4) memcpy(&four, p, 4);
    if (n & 2) memcpy(&two, p + (n & 4), 2);
    uint64_t bytes = four | (uint64_t)two << (8 * (n & 4));
    return n & 1 ? bytes | (uint64_t)p[n - 1] << (8 * (n - 1)) : bytes;
}

#endif
