/* columns.c - a head whose columns have the length 1 once it is loaded, as Bailing's "norm_head"
 * wants it (mlx-lm bailing_moe.py: sanitize). */
#include "checkpoint/internal.h"

#include <math.h>
#include <string.h>

static void read_row(const array *a, int64_t r, float *values) {
    size_t bytes = (size_t)a->shape[1] * dtype_size(a->dtype);
    floats_from(values, (const char *)a->data + (size_t)r * bytes, a->dtype, a->shape[1]);
}

int checkpoint_unit_columns(checkpoint *c, const char *name) {
    char shape[96];
    stored *t = find_stored(c, name);
    if (c->synthetic.enabled || !t) return 0; /* random; or missing, which is said when it is taken */
    array *a = &t->data;
    if (a->rank != 2 || (a->dtype != DTYPE_F32 && a->dtype != DTYPE_F16 && a->dtype != DTYPE_BF16))
        return fail(
            "%s: tensor \"%s\" %s of type %s cannot be normalized, which \"norm_head\" in config.json "
            "asks for",
            t->file, name, shape_text(shape, sizeof shape, a->rank, a->shape), t->type);
    size_t n = (size_t)a->shape[1], bytes = n * dtype_size(a->dtype);
    float *lengths = arena_alloc(c->arena, 2 * n * sizeof *lengths), *values = lengths + n;
    char *out = own_memory(c, t->bytes, name);
    if (!lengths || !out) return -1;
    for (int64_t r = 0; r < a->shape[0]; r++) {
        read_row(a, r, values);
        for (size_t i = 0; i < n; i++) lengths[i] += values[i] * values[i];
    }
    for (size_t i = 0; i < n; i++) lengths[i] = sqrtf(lengths[i]) + 1e-7f;
    for (int64_t r = 0; r < a->shape[0]; r++) {
        read_row(a, r, values);
        for (size_t i = 0; i < n; i++) values[i] /= lengths[i];
        floats_to(out + (size_t)r * bytes, a->dtype, values, (int64_t)n);
    }
    file_map_release(a->data, t->bytes);
    a->data = out;
    return 0;
}
