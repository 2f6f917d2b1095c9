/* kernels/avx512/exp.h - exponentials of 16 floats: of gates and of attention. */
#ifndef ENGINE_CPU_KERNELS_AVX512_EXP_H
#define ENGINE_CPU_KERNELS_AVX512_EXP_H

#include "engine/cpu/kernels/avx512/vector.h"
#include "engine/cpu/kernels/templates/exp.h"

/* e^x for x <= 89; scalef rounds to subnormal numbers, to zero, to infinity. */
INLINE vec exp_most(vec x) {
    x = v_max(v_all(-104), x); /* in this order: NaN stays */
    vec k = _mm512_roundscale_ps(v_mul(x, v_all(1.44269504f)), 0);
    return _mm512_scalef_ps(exp_rest(x, k, 6), k);
}

#endif
