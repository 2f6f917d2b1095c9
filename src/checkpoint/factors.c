/* factors.c - rows of a published matrix that are multiplied with factors from config.json once,
 * when they are loaded, as Falcon-H1's are (mlx-lm falcon_h1.py: sanitize). */
#include "checkpoint/internal.h"

#include <string.h>

static float rounded(double x, dtype type) {
    char stored_as[sizeof(float)];
    float value = (float)x;
    floats_to(stored_as, type, &value, 1);
    floats_from(&value, stored_as, type, 1);
    return value;
}

int checkpoint_multiply_rows(checkpoint *c, const char *name, const row_factor *factors, int n) {
    char shape[96];
    stored *t = find_stored(c, name);
    if (c->synthetic.enabled || !t) return 0; /* random; or missing, which is said when it is taken */
    array *a = &t->data;
    int64_t n_rows = 0;
    for (int i = 0; i < n; i++) n_rows += factors[i].rows;
    bool floats = a->dtype == DTYPE_F32 || a->dtype == DTYPE_F16 || a->dtype == DTYPE_BF16;
    if (a->rank != 2 || !floats || a->shape[0] != n_rows)
        return fail(
            "%s: tensor \"%s\" %s of type %s cannot be multiplied with config.json's factors of %lld rows",
            t->file, name, shape_text(shape, sizeof shape, a->rank, a->shape), t->type, (long long)n_rows);
    size_t width = (size_t)a->shape[1], bytes = width * dtype_size(a->dtype);
    float *values = arena_alloc(c->arena, width * sizeof *values);
    char *out = own_memory(c, t->bytes, name);
    if (!values || !out) return -1;
    const char *from = a->data;
    char *to = out;
    for (int i = 0; i < n; i++) {
        float by = rounded((double)rounded(factors[i].a, a->dtype) * (double)rounded(factors[i].b, a->dtype),
                           a->dtype);
        for (int64_t r = 0; r < factors[i].rows; r++, from += bytes, to += bytes) {
            floats_from(values, from, a->dtype, (int64_t)width);
            for (size_t k = 0; k < width; k++) values[k] *= by;
            floats_to(to, a->dtype, values, (int64_t)width);
        }
    }
    file_map_release(a->data, t->bytes);
    a->data = out;
    return 0;
}
