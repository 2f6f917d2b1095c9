/* slices.c - published tensors that hold several of mlx-lm's, or lie another way: the experts' gate
 * and up in one tensor, columns before rows. What a model wants of them is copied when it is taken
 * (mlx-lm: the sanitize function of a model). */
#include "checkpoint/internal.h"

#include <stdio.h>
#include <string.h>

/* What ends the name of a tensor's scales. */
static const char scale_end[] = "_scale_inv";

static bool ends_with(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end);
}

static bool is_half(slice_rows rows) {
    return rows != ROWS_ALL;
}

/* The shape of rule's slice of `whole`; false when it has none. */
static bool slice_shape(const slice_rule *rule, const array *whole, array *out) {
    *out = *whole;
    int last = whole->rank - 1;
    if (last < 1 || (rule->transposed && last > 2) || !dtype_size(whole->dtype)) return false;
    if (rule->transposed) {
        out->shape[last - 1] = whole->shape[last];
        out->shape[last] = whole->shape[last - 1];
    }
    if (rule->packed) { /* [experts, rows, groups, 16 bytes] */
        if (whole->rank != 4 || whole->dtype != DTYPE_U8 || whole->shape[3] != 16) return false;
        out->dtype = DTYPE_U32;
        out->rank = 3;
        out->shape[2] *= 4;
    }
    if (is_half(rule->rows) && (out->shape[1] % 2 || (rule->transposed && last < 2))) return false;
    if (is_half(rule->rows)) out->shape[1] /= 2;
    return true;
}

/* Adds what rule makes of tensor `from`. */
static int add_slice(checkpoint *c, const stored *from, const slice_rule *rule) {
    char shape[96];
    stored t = *from, *place = add_stored(c, 1);
    if (!place) return -1;
    if (!slice_shape(rule, &from->data, &t.data))
        return fail("%s: tensor \"%s\" %s of type %s cannot be divided into \"%s\"", from->file, from->name,
                    shape_text(shape, sizeof shape, from->data.rank, from->data.shape), from->type,
                    rule->to + 1);
    array *whole = arena_alloc(c->arena, sizeof *whole);
    t.name = arena_printf(c->arena, "%.*s%s", (int)(strlen(from->name) - strlen(rule->from)), from->name,
                          rule->to);
    if (!whole || !t.name) return -1;
    *whole = from->data;
    t.whole = is_half(rule->rows) || rule->transposed ? whole : NULL; /* else: the same bytes */
    t.rule = rule;
    t.bytes = array_bytes(&t.data);
    *place = t;
    c->n_tensors++;
    return 0;
}

/* Adds the scales `from` of a tensor of E4M3 numbers (fp8.c) under the name of rule's slice. They
 * must be the same for all rows and columns, unless the slice is the tensor. */
static int add_scales(checkpoint *c, const stored *from, const char *end, const slice_rule *rule) {
    bool whole = rule->rows == ROWS_ALL && !rule->transposed;
    stored t = *from, *place = add_stored(c, 1);
    if (!place) return -1;
    for (int i = 1; i < t.data.rank && !whole; i++)
        if (t.data.shape[i] != 1)
            return fail(
                "%s: tensor \"%s\" has scales of rows or columns, which cannot be divided into \"%s\"",
                from->file, from->name, rule->to + 1);
    t.name = arena_printf(c->arena, "%.*s%s%s", (int)(strlen(from->name) - strlen(end)), from->name, rule->to,
                          scale_end);
    if (!t.name) return -1;
    *place = t;
    c->n_tensors++;
    return 0;
}

int checkpoint_slice(checkpoint *c, const slice_rule *rules) {
    size_t n = c->n_tensors, kept = 0;
    for (size_t i = 0; i < n; i++)
        for (const slice_rule *r = rules; r->from; r++) {
            char scales[128];
            stored from = c->tensors[i]; /* the table may move */
            snprintf(scales, sizeof scales, "%s%s", r->from, scale_end);
            bool is_scale = ends_with(from.name, scales);
            if (!is_scale && !ends_with(from.name, r->from)) continue;
            if (is_scale ? add_scales(c, &from, scales, r) : add_slice(c, &from, r)) return -1;
            c->tensors[i].used = true; /* by its slices */
        }
    if (n == c->n_tensors) return 0;
    for (size_t i = 0; i < c->n_tensors; i++)
        if (i >= n || !c->tensors[i].used) c->tensors[kept++] = c->tensors[i];
    c->n_tensors = kept;
    return sort_tensors(c);
}

int checkpoint_divide(checkpoint *c, const char *part, int64_t n) {
    for (size_t i = 0; i < c->n_tensors; i++) {
        array *a = &c->tensors[i].data;
        if (!strstr(c->tensors[i].name, part)) continue;
        if (a->rank != 2 || a->shape[0] % n)
            return fail("%s: the rows of tensor \"%s\" are not those of %lld experts", c->tensors[i].file,
                        c->tensors[i].name, (long long)n);
        *a = (array){
            .dtype = a->dtype, .rank = 3, .shape = {n, a->shape[0] / n, a->shape[1]}, .data = a->data};
    }
    return 0;
}

/* ---- copying ---- */

static int64_t first_row(const slice_rule *rule, int64_t rows) {
    return rule->rows == ROWS_SECOND_HALF ? rows : rule->rows == ROWS_ODD;
}

static bool takes_turns(const slice_rule *rule) {
    return rule->rows == ROWS_EVEN || rule->rows == ROWS_ODD;
}

/* One expert's rows, each of `bytes`. */
static void copy_rows(char *to, const char *from, const slice_rule *rule, int64_t rows, size_t bytes) {
    from += (size_t)first_row(rule, rows) * bytes;
    if (!takes_turns(rule)) {
        memcpy(to, from, (size_t)rows * bytes);
        return;
    }
    for (int64_t r = 0; r < rows; r++) memcpy(to + (size_t)r * bytes, from + 2 * (size_t)r * bytes, bytes);
}

/* One expert's matrix [columns, all rows] into [rows, columns], in squares that fit into a
 * cache. */
static void copy_columns(char *to, const char *from, const slice_rule *rule, const int64_t *shape,
                         size_t size) {
    enum { SQUARE = 32 };
    int64_t rows = shape[1], cols = shape[2], step = takes_turns(rule) ? 2 : 1;
    int64_t all = is_half(rule->rows) ? 2 * rows : rows, first = first_row(rule, rows);
    for (int64_t r0 = 0; r0 < rows; r0 += SQUARE)
        for (int64_t c0 = 0; c0 < cols; c0 += SQUARE)
            for (int64_t r = r0; r < rows && r < r0 + SQUARE; r++)
                for (int64_t c = c0; c < cols && c < c0 + SQUARE; c++)
                    memcpy(to + (size_t)(r * cols + c) * size,
                           from + (size_t)(c * all + first + r * step) * size, size);
}

int slice_take(checkpoint *c, stored *t) {
    if (!t->whole) return 0;
    const array *whole = t->whole;
    bool one = t->rule->transposed && t->data.rank == 2; /* a matrix alone */
    int64_t shape[ARRAY_MAX_RANK + 1] = {1}, n = one ? 1 : t->data.shape[0];
    memcpy(shape + one, t->data.shape, sizeof t->data.shape);
    size_t row = dtype_size(t->data.dtype), some = (size_t)(n ? n : 1);
    size_t each = t->bytes / some, step = array_bytes(whole) / some;
    char *out = own_memory(c, t->bytes, t->name);
    if (!out) return -1;
    for (int i = 2; i < t->data.rank; i++) row *= (size_t)t->data.shape[i];
    for (int64_t e = 0; e < n; e++) {
        const char *from = (const char *)whole->data + (size_t)e * step;
        if (t->rule->transposed)
            copy_columns(out + (size_t)e * each, from, t->rule, shape, dtype_size(t->data.dtype));
        else
            copy_rows(out + (size_t)e * each, from, t->rule, t->data.shape[1], row);
        file_map_release(from, step);
    }
    t->data.data = out;
    t->whole = NULL;
    return 0;
}
