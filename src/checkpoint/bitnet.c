/* bitnet.c - ternary weights as BitNet's are published, turned into 2-bit affine ones when they are
 * taken. Weight is [out / 4, in] bytes: bits 2 j and 2 j + 1 of row r have the codes 0, 1, 2 of row
 * r + j out / 4, which stand for -1, 0, 1 times one scale, or divided by it. So scale s and bias -s
 * are exact. Source: mlx-lm bitlinear_layers.py. */
#include "checkpoint/internal.h"

#include <stdio.h>
#include <string.h>

enum { NAME_SIZE = 256, ROWS = 4, COLUMNS = 16 }; /* in a byte; in a word */

static stored *part_of(const checkpoint *c, const char *path, const char *part) {
    char name[NAME_SIZE];
    int n = snprintf(name, sizeof name, "%s.%s", path, part);
    return n < 0 || n >= NAME_SIZE ? NULL : find_stored(c, name);
}

static int misfit(const stored *t, const int64_t *shape) {
    char wanted[96], found[96];
    return fail(
        "%s: tensor \"%s\" %s %s is no part of a ternary matrix %s (groups of 32 columns, rows by four)",
        t->file, t->name, t->type, shape_text(found, sizeof found, t->data.rank, t->data.shape),
        shape_text(wanted, sizeof wanted, 2, shape));
}

/* The rows whose codes are at bits 2 j. */
static void unpack_rows(uint32_t *out, const uint8_t *packed, int64_t n_rows, int64_t n, int j) {
    for (int64_t i = 0; i < n_rows * n / COLUMNS; i++, packed += COLUMNS) {
        uint32_t word = 0;
        for (int k = 0; k < COLUMNS; k++) word |= (uint32_t)(packed[k] >> 2 * j & 3) << 2 * k;
        out[i] = word;
    }
}

/* The scale, rounded to its type as the quotient is there, for all groups, and what is added. */
static void fill_scales(matrix *m, const stored *s, bool divides) {
    size_t size = dtype_size(s->data.dtype);
    char *scales = (char *)(uintptr_t)m->scales.data, *biases = (char *)(uintptr_t)m->biases.data;
    float scale;
    floats_from(&scale, s->data.data, s->data.dtype, 1);
    if (divides) scale = 1 / scale;
    float bias = -scale;
    for (int64_t i = 0; i < array_count(&m->scales); i++) {
        floats_to(scales + (size_t)i * size, s->data.dtype, &scale, 1);
        floats_to(biases + (size_t)i * size, s->data.dtype, &bias, 1);
    }
}

static int new_part(checkpoint *c, array *a, dtype type, int64_t rows, int64_t cols, const char *name) {
    *a = (array){.dtype = type, .rank = 2, .shape = {rows, cols}};
    a->data = own_memory(c, array_bytes(a), name);
    return a->data ? 0 : -1;
}

int bitnet_take(checkpoint *c, const char *path, int rank, const int64_t *shape, matrix *out, bool *again) {
    stored *q = part_of(c, path, "weight"), *s = part_of(c, path, "weight_scale");
    if (!q || strcmp(q->type, "U8")) return 0;
    if (!s) return fail("%s: tensor \"%s.weight_scale\" is missing", q->file, path);
    int64_t n_out = shape[0], n = shape[1], group = n % 128 ? n % 64 ? 32 : 64 : 128;
    if (rank != 2 || n_out % ROWS || n % 32 || q->data.rank != 2 || q->data.shape[0] != n_out / ROWS ||
        q->data.shape[1] != n)
        return misfit(q, shape);
    bool is_float = s->data.dtype == DTYPE_F32 || s->data.dtype == DTYPE_F16 || s->data.dtype == DTYPE_BF16;
    if (!is_float || array_count(&s->data) != 1) return misfit(s, shape);
    *again = q->used;
    q->used = s->used = true;
    *out =
        (matrix){.kind = MATRIX_AFFINE, .rank = 2, .shape = {n_out, n}, .bits = 2, .group_size = (int)group};
    if (new_part(c, &out->values, DTYPE_U32, n_out, n / COLUMNS, path) ||
        new_part(c, &out->scales, s->data.dtype, n_out, n / group, path) ||
        new_part(c, &out->biases, s->data.dtype, n_out, n / group, path))
        return -1;
    if (c->sizes_only) return 1;
    uint32_t *words = (uint32_t *)(uintptr_t)out->values.data;
    for (int j = 0; j < ROWS; j++)
        unpack_rows(words + j * (n_out / ROWS) * (n / COLUMNS), q->data.data, n_out / ROWS, n, j);
    fill_scales(out, s, c->divides_by_scale);
    file_map_release(q->data.data, q->bytes);
    return 1;
}
