/* latent.c - kv_b_proj, as latent attention is published, taken apart into what mlx-lm computes
 * with. Its rows are, head by head, what makes keys and then what makes values from a latent.
 * embed_q is the first part, transposed; unembed_out the second. A quantized one is dequantized,
 * split, and quantized again, as in mlx-lm deepseek_v3.py: sanitize. */
#include "checkpoint/internal.h"

#include <stdlib.h>
#include <string.h>

/* Row r of a plain or affine matrix, in its own dtype's numbers. */
static void read_row(float *out, const matrix *m, int64_t r) {
    int64_t n = m->shape[1];
    if (m->kind == MATRIX_AFFINE)
        dequantize_row(out, m, r);
    else
        floats_from(out, (const char *)m->values.data + (size_t)(r * n) * dtype_size(m->values.dtype),
                    m->values.dtype, n);
}

static array new_array(checkpoint *c, dtype type, const int64_t shape[3], int64_t cols, const char *path) {
    array a = {.dtype = type, .rank = 3, .shape = {shape[0], shape[1], cols}};
    a.data = own_memory(c, array_bytes(&a), path);
    return a;
}

/* An empty matrix of that shape, stored as `like` is. */
static int make_like(checkpoint *c, const matrix *like, const int64_t shape[3], const char *path,
                     matrix *out) {
    *out = (matrix){.kind = like->kind, .rank = 3, .bits = like->bits, .group_size = like->group_size};
    memcpy(out->shape, shape, 3 * sizeof *shape);
    bool plain = like->kind == MATRIX_PLAIN;
    int64_t groups = plain ? 0 : shape[2] / like->group_size;
    out->values =
        new_array(c, like->values.dtype, shape, plain ? shape[2] : shape[2] * like->bits / 32, path);
    if (plain) return out->values.data ? 0 : -1;
    out->scales = new_array(c, like->scales.dtype, shape, groups, path);
    out->biases = new_array(c, like->scales.dtype, shape, groups, path);
    return out->values.data && out->scales.data && out->biases.data ? 0 : -1;
}

/* own_memory is ours to write. */
static char *row_at(const array *a, int64_t row) {
    return (char *)(uintptr_t)a->data + (size_t)(row * a->shape[2]) * dtype_size(a->dtype);
}

static void write_row(const matrix *m, int64_t row, const float *x) {
    int64_t n = m->shape[2];
    if (m->kind == MATRIX_PLAIN)
        floats_to(row_at(&m->values, row), m->values.dtype, x, n);
    else
        quantize_row((uint32_t *)(void *)row_at(&m->values, row), row_at(&m->scales, row),
                     row_at(&m->biases, row), m->scales.dtype, x, n, m->bits, m->group_size);
}

/* One head: keys is room for [nope][rank] numbers and a row. */
static void split_head(const matrix *all, const kv_b_shape *s, int64_t h, float *keys, const kv_b *out) {
    int64_t first = h * (s->nope + s->v_dim);
    float *row = keys + s->nope * s->rank;
    for (int64_t i = 0; i < s->nope; i++) read_row(keys + i * s->rank, all, first + i);
    for (int64_t c = 0; c < s->rank; c++) {
        for (int64_t i = 0; i < s->nope; i++) row[i] = keys[i * s->rank + c];
        write_row(&out->embed_q, h * s->rank + c, row);
    }
    for (int64_t i = 0; i < s->v_dim; i++) {
        read_row(keys, all, first + s->nope + i);
        write_row(&out->unembed_out, h * s->v_dim + i, keys);
    }
}

int checkpoint_kv_b(checkpoint *c, const char *path, const kv_b_shape *s, kv_b *out) {
    matrix all;
    int64_t rows = s->n_heads * (s->nope + s->v_dim);
    if (checkpoint_matrix(c, path, 2, (int64_t[]){rows, s->rank}, &all)) return -1;
    if (all.kind > MATRIX_AFFINE)
        return fail(
            "%s: %s is quantized in mode %s, which mlx-lm cannot take apart, either; convert the model "
            "from its unquantized form",
            c->config_name, path, matrix_kind_name(all.kind));
    if (all.kind == MATRIX_AFFINE && s->nope % all.group_size)
        return fail("%s: %s is quantized in groups of %d, which do not divide qk_nope_head_dim %lld",
                    c->config_name, path, all.group_size, (long long)s->nope);
    float *keys = mem_new((size_t)(s->nope * s->rank + s->nope), sizeof *keys, path);
    int status = keys ? 0 : -1;
    if (!status) status = make_like(c, &all, (int64_t[]){s->n_heads, s->rank, s->nope}, path, &out->embed_q);
    if (!status)
        status = make_like(c, &all, (int64_t[]){s->n_heads, s->v_dim, s->rank}, path, &out->unembed_out);
    for (int64_t h = 0; h < s->n_heads && !status && !c->sizes_only; h++) split_head(&all, s, h, keys, out);
    if (!status && !c->sizes_only) file_map_release(all.values.data, array_bytes(&all.values));
    free(keys);
    return status;
}
