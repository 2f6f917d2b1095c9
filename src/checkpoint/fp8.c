/* fp8.c - weights of E4M3 numbers with a scale for each block of 128 x 128, or one for all, as
 * BF16. mlx-lm has them so, too: the sanitize functions of deepseek_v3.py and others multiply and
 * round to BF16. */
#include "checkpoint/internal.h"

#include <stdio.h>
#include <string.h>

enum { BLOCK = 128, NAME_SIZE = 256 };

static int64_t blocks_of(int64_t n) {
    return (n + BLOCK - 1) / BLOCK;
}

static bool is_float(dtype type) {
    return type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16;
}

/* The scales of row r's blocks as floats; one for all fills them. */
static void row_scales(float *out, const stored *scale, int64_t r, int64_t n) {
    size_t size = dtype_size(scale->data.dtype);
    bool one = array_count(&scale->data) == 1;
    if (!one)
        floats_from(out, (const char *)scale->data.data + (size_t)(r / BLOCK * n) * size, scale->data.dtype,
                    n);
    for (int64_t i = 0; i < n && one; i++) floats_from(out + i, scale->data.data, scale->data.dtype, 1);
}

int fp8_convert(checkpoint *c, stored *t) {
    char name[NAME_SIZE], shape[96];
    if (strcmp(t->type, "F8_E4M3") || !t->bytes) return 0;
    int n = snprintf(name, sizeof name, "%s_scale_inv", t->name);
    stored *scale = n < NAME_SIZE ? find_stored(c, name) : NULL;
    if (!scale) return 0;
    const array *s = &scale->data;
    int64_t rows = t->data.shape[0], cols = t->data.shape[1], across = blocks_of(cols);
    bool blocks = s->rank == 2 && s->shape[0] == blocks_of(rows) && s->shape[1] == across;
    if (t->data.rank != 2 || !is_float(s->dtype) || (!blocks && array_count(s) != 1))
        return fail("%s: tensor \"%s\" %s %s does not scale \"%s\"", scale->file, name, scale->type,
                    shape_text(shape, sizeof shape, s->rank, s->shape), t->name);
    uint16_t *out = own_memory(c, 2 * t->bytes, t->name);
    float *scales = arena_alloc(c->arena, (size_t)across * sizeof *scales);
    if (!out || !scales) return -1;
    const uint8_t *in = t->data.data;
    for (int64_t r = 0; r < rows && !c->sizes_only; r++) {
        row_scales(scales, scale, r, across);
        for (int64_t i = 0; i < cols; i++)
            out[r * cols + i] = f32_to_bf16(e4m3_to_f32(in[r * cols + i]) * scales[i / BLOCK]);
    }
    file_map_release(in, t->bytes);
    scale->used = true;
    t->data.dtype = DTYPE_BF16;
    t->data.data = out;
    t->bytes *= 2;
    t->type = "BF16";
    return 0;
}
