/* kernels/avx2/vector.h - registers of 8 floats, under the names that templates use.
 * v_max(a, b) and v_min(a, b) are b where either is a NaN. */
#ifndef ENGINE_CPU_KERNELS_AVX2_VECTOR_H
#define ENGINE_CPU_KERNELS_AVX2_VECTOR_H

#include "engine/cpu/kernels/avx2/avx2.h"

#include <math.h>

typedef __m256 vec;
enum { LANES = 8 };

INLINE vec v_zero(void) {
    return _mm256_setzero_ps();
}

INLINE vec v_all(float x) {
    return _mm256_set1_ps(x);
}

/* The float at p in all lanes. */
INLINE vec v_spread(const float *p) {
    return _mm256_broadcast_ss(p);
}

INLINE vec v_load(const float *p) {
    return _mm256_loadu_ps(p);
}

INLINE void v_store(float *p, vec x) {
    _mm256_storeu_ps(p, x);
}

/* LANES numbers of `type`; the first n < LANES of them, then zeros. */
INLINE vec v_load_as(const void *p, dtype type) {
    return load8(p, type);
}

INLINE vec v_load_some(const void *p, dtype type, int64_t n) {
    return load_some(p, type, n);
}

INLINE void v_store_some(float *p, vec x, int64_t n) {
    store_some(p, x, n);
}

INLINE vec v_add(vec a, vec b) {
    return _mm256_add_ps(a, b);
}

INLINE vec v_sub(vec a, vec b) {
    return _mm256_sub_ps(a, b);
}

INLINE vec v_mul(vec a, vec b) {
    return _mm256_mul_ps(a, b);
}

INLINE vec v_div(vec a, vec b) {
    return _mm256_div_ps(a, b);
}

INLINE vec v_max(vec a, vec b) {
    return _mm256_max_ps(a, b);
}

INLINE vec v_min(vec a, vec b) {
    return _mm256_min_ps(a, b);
}

/* a * b + c and c - a * b, rounded once. */
INLINE vec v_fma(vec a, vec b, vec c) {
    return _mm256_fmadd_ps(a, b, c);
}

INLINE vec v_fnma(vec a, vec b, vec c) {
    return _mm256_fnmadd_ps(a, b, c);
}

INLINE float v_sum(vec x) {
    return sum8(x);
}

/* out[i] = the sum of x[i]'s lanes. */
INLINE void v_sum4(float out[4], const vec x[4]) {
    _mm_storeu_ps(out, sum8x4(x));
}

/* ---- of attention ---- */

/* The largest lane. */
INLINE float v_largest(vec x) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/* Whether a and b differ in some lane. */
INLINE bool v_differ(vec a, vec b) {
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NEQ_UQ));
}

/* x, and 0 where it is -inf. */
INLINE vec v_no_infinity(vec x) {
    return _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(-INFINITY), _CMP_EQ_OQ), x);
}

typedef __m256i ints;

INLINE ints v_load_ints(const int32_t *p) {
    return _mm256_loadu_si256((const void *)p);
}

/* x, and -inf in the lanes that have not low <= key < end. */
INLINE vec v_mask(vec x, int32_t key, ints low, ints end) {
    __m256i keys = _mm256_set1_epi32(key);
    __m256i seen = _mm256_andnot_si256(_mm256_cmpgt_epi32(low, keys), _mm256_cmpgt_epi32(end, keys));
    return _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), x, _mm256_castsi256_ps(seen));
}

#endif
