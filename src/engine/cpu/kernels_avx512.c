/* kernels_avx512.c
 * Its own kernels follow; until then its base has them all. */
#include "engine/cpu/kernels.h"

static bool supported(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           kernels_avx2.supported();
}

const kernels kernels_avx512 = {.name = "avx512", .supported = supported, .base = &kernels_avx2};
