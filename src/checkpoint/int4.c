/* int4.c - compressed-tensors' "pack-quantized" weights, 4 bits with a scale for each group, as
 * affine ones. Stored numbers are 8 more than what they stand for, so every bias is -8 times its
 * scale. Source: mlx-lm deepseek_v3.py: sanitize. */
#include "checkpoint/internal.h"

int int4_biases(checkpoint *c, const char *path, const array *scales, array *biases) {
    enum { CHUNK = 1024 };
    float x[CHUNK];
    int64_t n = array_count(scales);
    size_t size = dtype_size(scales->dtype);
    char *memory = own_memory(c, array_bytes(scales), path);
    if (!memory) return -1;
    *biases = *scales;
    biases->data = memory;
    for (int64_t i = 0, count; i < n && !c->sizes_only; i += count) {
        count = n - i < CHUNK ? n - i : CHUNK;
        floats_from(x, (const char *)scales->data + (size_t)i * size, scales->dtype, count);
        for (int64_t j = 0; j < count; j++) x[j] *= -8;
        floats_to(memory + (size_t)i * size, scales->dtype, x, count);
    }
    return 0;
}
