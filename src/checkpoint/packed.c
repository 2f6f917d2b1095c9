/* packed.c - 4-bit weights as AutoAWQ packs them, turned into MLX's affine layout when they are
 * taken. qweight is [in, out / 8] words of 8 columns in an order of its own, scales [groups, out],
 * and zeros, if there are any, are packed like the weights. MLX has rows, and a bias of -zero *
 * scale, rounded to the scales' type. Source: mlx-lm utils.py, _transform_awq_weights, which reads
 * GPTQ's the same way. */
#include "checkpoint/internal.h"

#include <stdio.h>
#include <string.h>

enum { NAME_SIZE = 256, COLUMNS = 8 };

/* Where column k of a word's eight begins, in bits. */
static const unsigned shifts[COLUMNS] = {0, 16, 4, 20, 8, 24, 12, 28};

static stored *part_of(const checkpoint *c, const char *path, const char *part) {
    char name[NAME_SIZE];
    int n = snprintf(name, sizeof name, "%s.%s", path, part);
    return n < 0 || n >= NAME_SIZE ? NULL : find_stored(c, name);
}

static uint32_t word_at(const stored *t, int64_t i) {
    uint32_t word;
    memcpy(&word, (const char *)t->data.data + 4 * i, sizeof word);
    return word;
}

static bool is_float(dtype type) {
    return type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16;
}

static bool is_words(const stored *t, int64_t rows, int64_t cols) {
    bool words = t->data.dtype == DTYPE_I32 || t->data.dtype == DTYPE_U32;
    return words && t->data.rank == 2 && t->data.shape[0] == rows && t->data.shape[1] == cols;
}

static int misfit(const stored *t, const int64_t *shape) {
    char wanted[96], found[96];
    return fail("%s: tensor \"%s\" %s %s is no packing of a matrix %s", t->file, t->name, t->type,
                shape_text(found, sizeof found, t->data.rank, t->data.shape),
                shape_text(wanted, sizeof wanted, 2, shape));
}

/* Rows of values, 8 columns of the file at a time. */
static void transpose_values(uint32_t *out, const stored *q, int64_t n_out, int64_t in) {
    for (int64_t j = 0; j < n_out / COLUMNS; j++)
        for (int64_t i = 0; i < in; i += 8) {
            uint32_t words[COLUMNS] = {0};
            for (unsigned at = 0; at < 8; at++) {
                uint32_t word = word_at(q, (i + at) * (n_out / COLUMNS) + j);
                for (int k = 0; k < COLUMNS; k++) words[k] |= (word >> shifts[k] & 15) << 4 * at;
            }
            for (int k = 0; k < COLUMNS; k++) out[((j * COLUMNS + k) * in + i) / 8] = words[k];
        }
}

static void transpose_scales(matrix *m, const stored *s, const stored *zeros) {
    int64_t n_out = m->shape[0], groups = m->scales.shape[1];
    char *scales = (char *)(uintptr_t)m->scales.data, *biases = (char *)(uintptr_t)m->biases.data;
    size_t size = dtype_size(s->data.dtype);
    for (int64_t o = 0; o < n_out; o++)
        for (int64_t g = 0; g < groups; g++, scales += size, biases += size) {
            float scale, zero = 8;
            memcpy(scales, (const char *)s->data.data + (size_t)(g * n_out + o) * size, size);
            floats_from(&scale, scales, s->data.dtype, 1);
            if (zeros)
                zero =
                    (float)(word_at(zeros, g * (n_out / COLUMNS) + o / COLUMNS) >> shifts[o % COLUMNS] & 15);
            float bias = -zero * scale;
            floats_to(biases, s->data.dtype, &bias, 1);
        }
}

static int new_part(checkpoint *c, array *a, dtype type, int64_t rows, int64_t cols, const char *name) {
    *a = (array){.dtype = type, .rank = 2, .shape = {rows, cols}};
    a->data = own_memory(c, array_bytes(a), name);
    return a->data ? 0 : -1;
}

int packed_take(checkpoint *c, const char *path, int rank, const int64_t *shape, matrix *out, bool *again) {
    stored *q = part_of(c, path, "qweight"), *s = part_of(c, path, "scales"), *z = part_of(c, path, "qzeros");
    if (!q) return 0;
    if (part_of(c, path, "g_idx"))
        return fail(
            "%s: module %s has a g_idx, an order of rows, which is not supported, as in mlx-lm; convert the "
            "model with mlx_lm.convert",
            q->file, path);
    if (rank == 2 && shape[1] % 8 == 0 && is_words(q, shape[1] / 8, shape[0]))
        return fail(
            "%s: module %s has rows in its words, as GPTQ packs them, which is not supported, as in mlx-lm "
            "(columns, as AutoAWQ packs them, are)",
            q->file, path);
    if (rank != 2 || shape[0] % COLUMNS || !is_words(q, shape[1], shape[0] / COLUMNS))
        return misfit(q, shape);
    if (!s) return fail("%s: tensor \"%s.scales\" is missing", q->file, path);
    int64_t groups = s->data.rank == 2 ? s->data.shape[0] : 0, group_size = groups ? shape[1] / groups : 0;
    if (!is_float(s->data.dtype) || !groups || s->data.shape[1] != shape[0] ||
        groups * group_size != shape[1] || (group_size != 32 && group_size != 64 && group_size != 128))
        return misfit(s, shape);
    if (z && !is_words(z, groups, shape[0] / COLUMNS)) return misfit(z, shape);
    *again = q->used;
    q->used = s->used = true;
    if (z) z->used = true;
    *out = (matrix){.kind = MATRIX_AFFINE, .rank = 2, .shape = {shape[0], shape[1]}, .bits = 4};
    out->group_size = (int)group_size;
    if (new_part(c, &out->values, DTYPE_U32, shape[0], shape[1] / 8, path) ||
        new_part(c, &out->scales, s->data.dtype, shape[0], groups, path) ||
        new_part(c, &out->biases, s->data.dtype, shape[0], groups, path))
        return -1;
    if (c->sizes_only) return 1;
    transpose_values((uint32_t *)(uintptr_t)out->values.data, q, shape[0], shape[1]);
    transpose_scales(out, s, z);
    file_map_release(q->data.data, q->bytes);
    return 1;
}

/* The type of the first packed tensor's scales; DTYPE_OTHER when there are none. */
static dtype scales_type(const checkpoint *c) {
    const char end[] = ".qweight";
    for (size_t i = 0; i < c->n_tensors; i++) {
        const char *name = c->tensors[i].name, *at = strstr(name, end);
        char path[NAME_SIZE];
        if (!at || at[sizeof end - 1]) continue;
        snprintf(path, sizeof path, "%.*s", (int)(at - name), name);
        const stored *s = part_of(c, path, "scales");
        if (s && is_float(s->data.dtype)) return s->data.dtype;
    }
    return DTYPE_OTHER;
}

int packed_convert(checkpoint *c, const char *name, matrix *m) {
    array from = m->values;
    dtype type = scales_type(c);
    if (type == DTYPE_OTHER || type == from.dtype) return 0;
    m->values.dtype = type;
    char *to = own_memory(c, array_bytes(&m->values), name);
    if (!to) return -1;
    m->values.data = to;
    for (int64_t i = 0; i < array_count(&from) && !c->sizes_only; i++) {
        float x;
        floats_from(&x, (const char *)from.data + (size_t)i * dtype_size(from.dtype), from.dtype, 1);
        floats_to(to + (size_t)i * dtype_size(type), type, &x, 1);
    }
    return 0;
}
