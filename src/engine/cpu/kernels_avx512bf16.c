/* kernels_avx512bf16.c - for processors with AVX-512 BF16 (2020 and later): attention to BF16 caches.
 * Weights gain nothing: vdpbf16ps has been seen to take four times as long as an F32 product, which does half
 * as much. */
#include "engine/cpu/kernels.h"

static bool supported(void) {
    return __builtin_cpu_supports("avx512bf16") && kernels_avx512vnni.supported();
}

const kernels kernels_avx512bf16 = {
    .name = "avx512bf16",
    .supported = supported,
    .base = &kernels_avx512vnni,
    .attention = &attention_bf16,
};
