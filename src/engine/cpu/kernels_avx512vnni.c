/* kernels_avx512vnni.c
 * Its own kernels follow; until then its base has them all. */
#include "engine/cpu/kernels.h"

static bool supported(void) {
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
           kernels_avx512.supported();
}

const kernels kernels_avx512vnni = {.name = "avx512vnni", .supported = supported, .base = &kernels_avx512};
