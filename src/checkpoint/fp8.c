/* fp8.c - weights of E4M3 numbers with a scale for each block of 128 x 128, or one for all, for
 * each expert or for each row, as BF16. mlx-lm has them so, too: the sanitize functions of
 * deepseek_v3.py, mistral4.py and others multiply and round to BF16. */
#include "checkpoint/internal.h"

#include <stdio.h>
#include <string.h>

enum { BLOCK = 128, NAME_SIZE = 256, DIMS = 3 };

/* Which scale a number has: that at place i / block[d] * step[d], summed over the dimensions. */
typedef struct cover {
    int64_t block[DIMS], step[DIMS];
} cover;

static int64_t blocks_of(int64_t n) {
    return (n + BLOCK - 1) / BLOCK;
}

static bool is_float(dtype type) {
    return type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16;
}

/* The last DIMS dimensions, with ones before them; false: there are more. */
static bool three_dims(const array *a, int64_t out[DIMS]) {
    if (a->rank > DIMS) return false;
    for (int d = 0; d < DIMS; d++) out[d] = d < DIMS - a->rank ? 1 : a->shape[d - (DIMS - a->rank)];
    return true;
}

/* False: these scales do not fit the weight, neither as NumPy broadcasts them nor as blocks. */
static bool find_cover(const array *weight, const array *scale, cover *out) {
    int64_t w[DIMS], s[DIMS], step = 1;
    bool each = true, blocks = scale->rank == weight->rank;
    if (!three_dims(weight, w) || !three_dims(scale, s) || !is_float(scale->dtype)) return false;
    for (int d = 0; d < DIMS; d++) {
        each = each && (s[d] == 1 || s[d] == w[d]);
        blocks = blocks && s[d] == (d ? blocks_of(w[d]) : w[d]);
    }
    for (int d = DIMS - 1; d >= 0; step *= s[d--]) {
        out->block[d] = !each && d ? BLOCK : 1;
        out->step[d] = s[d] == 1 ? 0 : step;
    }
    return each || blocks;
}

/* One matrix. numbers: of all codes; at: its first scale. */
static void convert_rows(uint16_t *out, const uint8_t *in, const int64_t shape[2], const float *numbers,
                         const cover *c, const char *at, dtype type) {
    size_t size = dtype_size(type);
    int64_t run = c->step[2] ? c->block[2] : shape[1];
    for (int64_t r = 0; r < shape[0]; r++) {
        const char *row = at + (size_t)(r / c->block[1] * c->step[1]) * size;
        for (int64_t i = 0; i < shape[1]; i += run) {
            int64_t n = shape[1] - i < run ? shape[1] - i : run;
            float scale;
            floats_from(&scale, row + (size_t)(i / run * c->step[2]) * size, type, 1);
            for (int64_t k = 0; k < n; k++) *out++ = f32_to_bf16(numbers[*in++] * scale);
        }
    }
}

int fp8_convert(checkpoint *c, stored *t) {
    char name[NAME_SIZE], shape[96];
    if (strcmp(t->type, "F8_E4M3") || !t->bytes) return 0;
    int n = snprintf(name, sizeof name, "%s_scale_inv", t->name);
    stored *scale = n < NAME_SIZE ? find_stored(c, name) : NULL;
    if (!scale) return 0;
    const array *s = &scale->data;
    cover how;
    int64_t dims[DIMS];
    float numbers[256];
    if (t->data.rank < 2 || !find_cover(&t->data, s, &how) || !three_dims(&t->data, dims))
        return fail("%s: tensor \"%s\" %s %s does not scale \"%s\"", scale->file, name, scale->type,
                    shape_text(shape, sizeof shape, s->rank, s->shape), t->name);
    uint16_t *out = own_memory(c, 2 * t->bytes, t->name);
    if (!out) return -1;
    const uint8_t *in = t->data.data;
    int64_t each = dims[1] * dims[2];
    for (int i = 0; i < 256; i++) numbers[i] = e4m3_to_f32((uint8_t)i);
    for (int64_t e = 0; e < dims[0] && !c->sizes_only; e++)
        convert_rows(out + e * each, in + e * each, dims + 1, numbers, &how,
                     (const char *)s->data + (size_t)(e * how.step[0]) * dtype_size(s->dtype), s->dtype);
    file_map_release(in, t->bytes);
    scale->used = true;
    t->data.dtype = DTYPE_BF16;
    t->data.data = out;
    t->bytes *= 2;
    t->type = "BF16";
    return 0;
}
