/* gguf.c - parsing the GGUF container, versions 2 and 3, little-endian.
 * Source: the GGUF specification in the ggml repository (docs/gguf.md). */
#include "checkpoint/gguf.h"

#include <math.h>
#include <string.h>

/* Bytes per number; 0 for strings and arrays. */
static const size_t value_size[GGUF_N_TYPES] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2,  [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_U64] = 8, [GGUF_BOOL] = 1, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

/* Tensor types by their number in the file. per_block 0: known by name only. */
static const struct {
    const char *name;
    dtype dtype;
    block_format blocks;
    int per_block, block_bytes;
} tensor_types[] = {
    [0] = {"F32", DTYPE_F32, BLOCK_NONE, 1, 4},
    [1] = {"F16", DTYPE_F16, BLOCK_NONE, 1, 2},
    [2] = {"Q4_0", DTYPE_OTHER, BLOCK_Q4_0, 32, 18},
    [3] = {"Q4_1", DTYPE_OTHER, BLOCK_Q4_1, 32, 20},
    [6] = {"Q5_0", DTYPE_OTHER, BLOCK_Q5_0, 32, 22},
    [7] = {"Q5_1", DTYPE_OTHER, BLOCK_Q5_1, 32, 24},
    [8] = {"Q8_0", DTYPE_OTHER, BLOCK_Q8_0, 32, 34},
    [9] = {.name = "Q8_1"},
    [10] = {.name = "Q2_K"},
    [11] = {.name = "Q3_K"},
    [12] = {"Q4_K", DTYPE_OTHER, BLOCK_Q4_K, 256, 144},
    [13] = {"Q5_K", DTYPE_OTHER, BLOCK_Q5_K, 256, 176},
    [14] = {"Q6_K", DTYPE_OTHER, BLOCK_Q6_K, 256, 210},
    [15] = {.name = "Q8_K"},
    [16] = {.name = "IQ2_XXS"},
    [17] = {.name = "IQ2_XS"},
    [18] = {.name = "IQ3_XXS"},
    [19] = {.name = "IQ1_S"},
    [20] = {.name = "IQ4_NL"},
    [21] = {.name = "IQ3_S"},
    [22] = {.name = "IQ2_S"},
    [23] = {.name = "IQ4_XS"},
    [24] = {.name = "I8"},
    [25] = {.name = "I16"},
    [26] = {.name = "I32"},
    [27] = {.name = "I64"},
    [28] = {.name = "F64"},
    [29] = {.name = "IQ1_M"},
    [30] = {"BF16", DTYPE_BF16, BLOCK_NONE, 1, 2},
    [34] = {.name = "TQ1_0"},
    [35] = {.name = "TQ2_0"},
    [39] = {"MXFP4", DTYPE_OTHER, BLOCK_MXFP4, 32, 17},
    [40] = {.name = "NVFP4"},
};
enum { N_TENSOR_TYPES = sizeof tensor_types / sizeof *tensor_types };

/* ---- a cursor that never leaves the file ---- */

typedef struct cursor {
    const gguf *g;
    size_t at;
} cursor;

static size_t left(const cursor *r) {
    return r->g->size - r->at;
}

static int take(cursor *r, void *out, size_t n) {
    if (n > left(r)) return fail("%s: truncated GGUF header (at byte %zu)", r->g->path, r->at);
    memcpy(out, r->g->data + r->at, n);
    r->at += n;
    return 0;
}

static int take_text(cursor *r, gguf_text *text) {
    uint64_t n = 0;
    if (take(r, &n, sizeof n)) return -1;
    if (n > left(r))
        return fail("%s: a string of %llu bytes at byte %zu runs past the end of the file", r->g->path,
                    (unsigned long long)n, r->at);
    *text = (gguf_text){.data = r->g->data + r->at, .n = (size_t)n};
    r->at += (size_t)n;
    return 0;
}

/* A count of things of at least min_bytes each. */
static int take_count(cursor *r, const char *what, size_t min_bytes, size_t *out) {
    uint64_t n = 0;
    if (take(r, &n, sizeof n)) return -1;
    if (n > left(r) / min_bytes)
        return fail("%s: %llu %s cannot be in a file of %zu bytes", r->g->path, (unsigned long long)n, what,
                    r->g->size);
    *out = (size_t)n;
    return 0;
}

/* ---- key-value pairs ---- */

static int take_type(cursor *r, gguf_type *out) {
    uint32_t type = 0;
    if (take(r, &type, sizeof type)) return -1;
    if (type >= GGUF_N_TYPES) return fail("%s: unknown GGUF value type %u", r->g->path, type);
    *out = (gguf_type)type;
    return 0;
}

static int take_array(cursor *r, gguf_value *v) {
    size_t n = 0;
    if (take_type(r, &v->element)) return -1;
    if (v->element == GGUF_ARRAY)
        return fail("%s: key \"%.*s\": nested arrays are not supported", r->g->path, (int)v->key.n,
                    v->key.data);
    size_t element = v->element == GGUF_STRING ? sizeof(uint64_t) : value_size[v->element];
    if (take_count(r, "array elements", element, &n)) return -1;
    size_t start = r->at;
    v->n = n;
    v->data = r->g->data + start;
    if (v->element != GGUF_STRING) r->at += n * element;
    for (size_t i = 0; v->element == GGUF_STRING && i < n; i++) {
        gguf_text text = {0};
        if (take_text(r, &text)) return -1;
    }
    v->size = r->at - start;
    return 0;
}

static int take_value(cursor *r, gguf_value *v) {
    if (take_text(r, &v->key)) return -1;
    if (v->key.n > 65535) return fail("%s: a key of %zu bytes is too long", r->g->path, v->key.n);
    if (take_type(r, &v->type)) return -1;
    if (v->type == GGUF_ARRAY) return take_array(r, v);
    if (v->type == GGUF_STRING) {
        gguf_text text = {0};
        if (take_text(r, &text)) return -1;
        v->data = text.data;
        v->size = text.n;
        return 0;
    }
    v->data = r->g->data + r->at;
    v->size = value_size[v->type];
    if (v->size > left(r)) return fail("%s: truncated GGUF header (at byte %zu)", r->g->path, r->at);
    r->at += v->size;
    return 0;
}

bool gguf_text_is(gguf_text text, const char *word) {
    return text.n == strlen(word) && !memcmp(text.data, word, text.n);
}

const gguf_value *gguf_find(const gguf *g, const char *key) {
    for (size_t i = 0; i < g->n_values; i++)
        if (gguf_text_is(g->values[i].key, key)) return &g->values[i];
    return NULL;
}

/* The value of a key, or NULL with *status -1 (an error is recorded) or 0 (absent, and that is
 * fine). */
static const gguf_value *member(const gguf *g, const char *key, bool required, int *status) {
    const gguf_value *v = gguf_find(g, key);
    *status = !v && required ? fail("%s: metadata key \"%s\" is missing", g->path, key) : 0;
    return v;
}

/* The integer at v (unsigned ones beyond INT64_MAX become -1). False when v is none. */
static bool integer(const gguf_value *v, int64_t *out) {
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
    } x = {0};
    if (v->type == GGUF_STRING || v->type == GGUF_ARRAY) return false;
    memcpy(&x, v->data, v->size);
    switch (v->type) {
    case GGUF_U8:
        *out = x.u8;
        return true;
    case GGUF_I8:
        *out = x.i8;
        return true;
    case GGUF_U16:
        *out = x.u16;
        return true;
    case GGUF_I16:
        *out = x.i16;
        return true;
    case GGUF_U32:
        *out = x.u32;
        return true;
    case GGUF_I32:
        *out = x.i32;
        return true;
    case GGUF_U64:
        *out = x.u64 > INT64_MAX ? -1 : (int64_t)x.u64;
        return true;
    case GGUF_I64:
        *out = x.i64;
        return true;
    default:
        return false;
    }
}

int gguf_int(const gguf *g, const char *key, bool required, int64_t min, int64_t max, int64_t *out) {
    int status;
    int64_t n;
    const gguf_value *v = member(g, key, required, &status);
    if (!v) return status;
    if (!integer(v, &n)) return fail("%s: metadata key \"%s\" is not one integer", g->path, key);
    if (n < min || n > max)
        return fail("%s: metadata key \"%s\" is %lld, outside %lld to %lld", g->path, key, (long long)n,
                    (long long)min, (long long)max);
    *out = n;
    return 0;
}

int gguf_float(const gguf *g, const char *key, bool required, double *out) {
    int status;
    const gguf_value *v = member(g, key, required, &status);
    if (!v) return status;
    float f = NAN;
    double d = NAN;
    if (v->type == GGUF_F32) {
        memcpy(&f, v->data, sizeof f);
        d = (double)f;
    }
    if (v->type == GGUF_F64) memcpy(&d, v->data, sizeof d);
    if (!isfinite(d)) return fail("%s: metadata key \"%s\" is not a finite number", g->path, key);
    *out = d;
    return 0;
}

int gguf_bool(const gguf *g, const char *key, bool *out) {
    const gguf_value *v = gguf_find(g, key);
    if (!v) return 0;
    if (v->type != GGUF_BOOL) return fail("%s: metadata key \"%s\" is not true or false", g->path, key);
    *out = *v->data != 0;
    return 0;
}

int gguf_string(const gguf *g, const char *key, bool required, gguf_text *out) {
    int status;
    const gguf_value *v = member(g, key, required, &status);
    if (!v) return status;
    if (v->type != GGUF_STRING) return fail("%s: metadata key \"%s\" is not a string", g->path, key);
    *out = (gguf_text){.data = v->data, .n = v->size};
    return 0;
}

int gguf_strings(checkpoint *c, const gguf *g, const char *key, const char *const **out, int64_t *n) {
    const gguf_value *v = gguf_find(g, key);
    *out = NULL;
    *n = 0;
    if (!v) return 0;
    if (v->type != GGUF_ARRAY || v->element != GGUF_STRING)
        return fail("%s: metadata key \"%s\" is not a list of strings", g->path, key);
    const char **texts = arena_alloc(c->arena, ((size_t)v->n + 1) * sizeof *texts);
    if (!texts) return -1;
    cursor r = {.g = g, .at = (size_t)(v->data - g->data)};
    for (uint64_t i = 0; i < v->n; i++) {
        gguf_text text = {0};
        if (take_text(&r, &text) || !(texts[i] = arena_string_n(c->arena, text.data, text.n))) return -1;
    }
    *out = texts;
    *n = (int64_t)v->n;
    return 0;
}

/* ---- tensors ---- */

static int unsupported(const gguf *g, const stored *t, uint32_t type) {
    const char *known = type < N_TENSOR_TYPES ? tensor_types[type].name : NULL;
    char number[32];
    snprintf(number, sizeof number, "number %u", type);
    return fail("%s: tensor \"%s\" has type %s, which is not supported (F32, F16, BF16, Q8_0, Q4_0, Q4_1, "
                "Q5_0, Q5_1, Q4_K, Q5_K, Q6_K and MXFP4 are)",
                g->path, t->name, known ? known : number);
}

/* Fills t; *offset is relative to the data, which starts after the last of these. */
static int take_tensor(checkpoint *c, cursor *r, stored *t, uint64_t *offset) {
    const gguf *g = r->g;
    gguf_text name = {0};
    uint32_t rank = 0, type = 0;
    uint64_t sizes[ARRAY_MAX_RANK];
    if (take_text(r, &name)) return -1;
    if (name.n > 65535) return fail("%s: a tensor name of %zu bytes is too long", g->path, name.n);
    t->file = g->path;
    if (!(t->name = arena_string_n(c->arena, name.data, name.n)) || take(r, &rank, sizeof rank)) return -1;
    if (rank < 1 || rank > ARRAY_MAX_RANK)
        return fail("%s: tensor \"%s\" has %u dimensions, not 1 to %d", g->path, t->name, rank,
                    ARRAY_MAX_RANK);
    if (take(r, sizes, rank * sizeof *sizes) || take(r, &type, sizeof type) ||
        take(r, offset, sizeof *offset))
        return -1;
    if (type >= N_TENSOR_TYPES || !tensor_types[type].per_block) return unsupported(g, t, type);
    t->type = tensor_types[type].name;
    t->blocks = tensor_types[type].blocks;
    t->data = (array){.dtype = tensor_types[type].dtype, .rank = (int)rank};
    /* The other sizes are kept in bounds also where one is zero: later sums are made of each. */
    size_t n = 1, others = 1;
    for (uint32_t i = 0; i < rank; i++) { /* GGUF names the fastest dimension first */
        n *= (size_t)sizes[i];
        if (__builtin_mul_overflow(others, sizes[i] ? (size_t)sizes[i] : 1, &others) ||
            others > INT64_MAX / 64)
            return fail("%s: tensor \"%s\" has an absurd shape", g->path, t->name);
        t->data.shape[rank - 1 - i] = (int64_t)sizes[i];
    }
    size_t per_block = (size_t)tensor_types[type].per_block;
    if (sizes[0] % per_block)
        return fail("%s: tensor \"%s\": rows of %llu values are no whole blocks of %s", g->path, t->name,
                    (unsigned long long)sizes[0], t->type);
    if (__builtin_mul_overflow(n / per_block, (size_t)tensor_types[type].block_bytes, &t->bytes))
        return fail("%s: tensor \"%s\" has an absurd shape", g->path, t->name);
    return 0;
}

static int place_tensor(const gguf *g, stored *t, size_t data_start, size_t alignment, uint64_t offset) {
    size_t room = g->size - data_start;
    if (offset > room || t->bytes > room - (size_t)offset)
        return fail("%s: the data of tensor \"%s\" (%zu bytes at %llu) lies outside the file; is the file "
                    "complete?",
                    g->path, t->name, t->bytes, (unsigned long long)offset);
    if (offset % alignment)
        return fail("%s: the data of tensor \"%s\" is not aligned to %zu bytes", g->path, t->name, alignment);
    t->data.data = g->data + data_start + (size_t)offset;
    return 0;
}

static int take_tensors(checkpoint *c, cursor *r, gguf *g) {
    int64_t alignment = 32;
    if (gguf_int(g, "general.alignment", false, 8, 1 << 20, &alignment)) return -1;
    if (alignment % 8) return fail("%s: general.alignment is no multiple of 8", g->path);
    uint64_t *offsets = arena_alloc(c->arena, g->n_tensors * sizeof *offsets);
    g->tensors = add_stored(c, g->n_tensors);
    if (!offsets || !g->tensors) return -1;
    for (size_t i = 0; i < g->n_tensors; i++)
        if (take_tensor(c, r, &g->tensors[i], &offsets[i])) return -1;
    size_t unit = (size_t)alignment, start = (r->at + unit - 1) / unit * unit;
    if (start > g->size) start = g->size;
    for (size_t i = 0; i < g->n_tensors; i++)
        if (place_tensor(g, &g->tensors[i], start, unit, offsets[i])) return -1;
    c->n_tensors += g->n_tensors;
    return 0;
}

int gguf_parse(checkpoint *c, gguf *g) {
    cursor r = {.g = g};
    uint32_t version = 0;
    if (g->size < 4 || memcmp(g->data, "GGUF", 4))
        return fail("%s: not a GGUF file (it does not start with GGUF); a safetensors model is given by its "
                    "folder",
                    g->path);
    r.at = 4;
    if (take(&r, &version, sizeof version)) return -1;
    if (version != 2 && version != 3)
        return fail("%s: GGUF version %u is not supported (2 and 3 are)", g->path, version);
    size_t n_tensors = 0, n_values = 0;
    /* the smallest: a name's length, rank, type, offset; a key's length, type, u8 */
    if (take_count(&r, "tensors", 24, &n_tensors) || take_count(&r, "metadata keys", 13, &n_values))
        return -1;
    g->n_tensors = n_tensors;
    if (!(g->values = arena_alloc(c->arena, n_values * sizeof *g->values))) return -1;
    for (; g->n_values < n_values; g->n_values++)
        if (take_value(&r, &g->values[g->n_values])) return -1;
    return take_tensors(c, &r, g);
}
