/* kernels/neon/vector.h - registers of 4 floats, under the names that templates use.
 * v_max and v_min are NaN where either operand is. */
#ifndef ENGINE_CPU_KERNELS_NEON_VECTOR_H
#define ENGINE_CPU_KERNELS_NEON_VECTOR_H

#include "engine/cpu/kernels/neon/neon.h"

typedef float32x4_t vec;
enum { LANES = 4 };

INLINE vec v_zero(void) {
    return vdupq_n_f32(0);
}

INLINE vec v_all(float x) {
    return vdupq_n_f32(x);
}

/* The float at p in all lanes. */
INLINE vec v_spread(const float *p) {
    return vdupq_n_f32(*p);
}

INLINE vec v_load(const float *p) {
    return vld1q_f32(p);
}

INLINE void v_store(float *p, vec x) {
    vst1q_f32(p, x);
}

/* LANES numbers of `type`; the first n < LANES of them, then zeros. */
INLINE vec v_load_as(const void *p, dtype type) {
    return load4(p, type);
}

INLINE vec v_load_some(const void *p, dtype type, int64_t n) {
    return load_some(p, type, n);
}

INLINE void v_store_some(float *p, vec x, int64_t n) {
    store_some(p, x, n);
}

INLINE vec v_add(vec a, vec b) {
    return vaddq_f32(a, b);
}

INLINE vec v_sub(vec a, vec b) {
    return vsubq_f32(a, b);
}

INLINE vec v_mul(vec a, vec b) {
    return vmulq_f32(a, b);
}

INLINE vec v_div(vec a, vec b) {
    return vdivq_f32(a, b);
}

INLINE vec v_max(vec a, vec b) {
    return vmaxq_f32(a, b);
}

INLINE vec v_min(vec a, vec b) {
    return vminq_f32(a, b);
}

/* a * b + c and c - a * b, rounded once. */
INLINE vec v_fma(vec a, vec b, vec c) {
    return vfmaq_f32(c, a, b);
}

INLINE vec v_fnma(vec a, vec b, vec c) {
    return vfmsq_f32(c, a, b);
}

INLINE float v_sum(vec x) {
    return vaddvq_f32(x);
}

/* out[i] = the sum of x[i]'s lanes. */
INLINE void v_sum4(float out[4], const vec x[4]) {
    vst1q_f32(out, vpaddq_f32(vpaddq_f32(x[0], x[1]), vpaddq_f32(x[2], x[3])));
}

#endif
