/* kernels/avx512/vector.h - registers of 16 floats, under the names that templates use.
 * v_max(a, b) and v_min(a, b) are b where either is a NaN. */
#ifndef ENGINE_CPU_KERNELS_AVX512_VECTOR_H
#define ENGINE_CPU_KERNELS_AVX512_VECTOR_H

#include "engine/cpu/kernels/avx512/avx512.h"

#include <math.h>

typedef __m512 vec;
enum { LANES = 16 };

INLINE vec v_zero(void) {
    return _mm512_setzero_ps();
}

INLINE vec v_all(float x) {
    return _mm512_set1_ps(x);
}

/* The float at p in all lanes. */
INLINE vec v_spread(const float *p) {
    return _mm512_set1_ps(*p);
}

INLINE vec v_load(const float *p) {
    return _mm512_loadu_ps(p);
}

INLINE void v_store(float *p, vec x) {
    _mm512_storeu_ps(p, x);
}

/* LANES numbers of `type`; the first n < LANES of them, then zeros. */
INLINE vec v_load_as(const void *p, dtype type) {
    return load16(p, type);
}

INLINE vec v_load_some(const void *p, dtype type, int64_t n) {
    return load_some(p, type, n);
}

INLINE void v_store_some(float *p, vec x, int64_t n) {
    _mm512_mask_storeu_ps(p, first_lanes(n), x);
}

INLINE vec v_add(vec a, vec b) {
    return _mm512_add_ps(a, b);
}

INLINE vec v_sub(vec a, vec b) {
    return _mm512_sub_ps(a, b);
}

INLINE vec v_mul(vec a, vec b) {
    return _mm512_mul_ps(a, b);
}

INLINE vec v_div(vec a, vec b) {
    return _mm512_div_ps(a, b);
}

INLINE vec v_max(vec a, vec b) {
    return _mm512_max_ps(a, b);
}

INLINE vec v_min(vec a, vec b) {
    return _mm512_min_ps(a, b);
}

/* a * b + c and c - a * b, rounded once. */
INLINE vec v_fma(vec a, vec b, vec c) {
    return _mm512_fmadd_ps(a, b, c);
}

INLINE vec v_fnma(vec a, vec b, vec c) {
    return _mm512_fnmadd_ps(a, b, c);
}

INLINE float v_sum(vec x) {
    return _mm512_reduce_add_ps(x);
}

/* out[i] = the sum of x[i]'s lanes. */
INLINE void v_sum4(float out[4], const vec x[4]) {
    _mm_storeu_ps(out, sum16x4(x));
}

/* ---- of attention ---- */

/* The largest lane. */
INLINE float v_largest(vec x) {
    return _mm512_reduce_max_ps(x);
}

/* Whether a and b differ in some lane. */
INLINE bool v_differ(vec a, vec b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ);
}

/* x, and 0 where it is -inf. */
INLINE vec v_no_infinity(vec x) {
    __mmask16 infinite = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-INFINITY), _CMP_EQ_OQ);
    return _mm512_mask_mov_ps(x, infinite, _mm512_setzero_ps());
}

typedef __m512i ints;

INLINE ints v_load_ints(const int32_t *p) {
    return _mm512_loadu_si512(p);
}

/* x, and -inf in the lanes that have not low <= key < end. */
INLINE vec v_mask(vec x, int32_t key, ints low, ints end) {
    __m512i keys = _mm512_set1_epi32(key);
    __mmask16 unseen = _mm512_cmplt_epi32_mask(keys, low) | _mm512_cmpge_epi32_mask(keys, end);
    return _mm512_mask_mov_ps(x, unseen, _mm512_set1_ps(-INFINITY));
}

#endif
