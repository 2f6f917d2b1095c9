/* safetensors.c - the shards of a folder: an 8-byte header length, a JSON header, then the tensors'
 * bytes. Only headers are read, and nothing in them is believed before it is checked against the
 * file's size. Numbers in the file are little-endian, as on every machine this program supports. */
#include "checkpoint/internal.h"

#include <stdlib.h>
#include <string.h>

/* The format's own limit; no real header comes near it. */
enum { MAX_HEADER = 100000000 };

static const struct {
    const char *name;
    dtype type;
    int bytes;
} types[] = {
    {"F32", DTYPE_F32, 4},   {"F16", DTYPE_F16, 2},    {"BF16", DTYPE_BF16, 2},     {"U32", DTYPE_U32, 4},
    {"I32", DTYPE_I32, 4},   {"U8", DTYPE_U8, 1},      {"BOOL", DTYPE_OTHER, 1},    {"I8", DTYPE_OTHER, 1},
    {"I16", DTYPE_OTHER, 2}, {"U16", DTYPE_OTHER, 2},  {"I64", DTYPE_OTHER, 8},     {"U64", DTYPE_OTHER, 8},
    {"F64", DTYPE_OTHER, 8}, {"F8_E4M3", DTYPE_U8, 1}, {"F8_E5M2", DTYPE_OTHER, 1}, {"F8_E8M0", DTYPE_U8, 1},
    {"C64", DTYPE_OTHER, 8},
};

/* A JSON number as an integer within [0, max]. */
static bool whole_number(const json *v, int64_t max, int64_t *out) {
    double d = json_number(v);
    if (!json_is_number(v) || !(d >= 0 && d <= (double)max) || d != (double)(int64_t)d) return false;
    *out = (int64_t)d;
    return true;
}

/* Where a shard's tensors are. */
typedef struct shard {
    const char *path, *data;
    size_t size;
} shard;

static int read_type(checkpoint *c, const json *entry, stored *t, size_t *element) {
    const char *type = json_string(json_get(entry, "dtype"));
    if (!type) return fail("%s: tensor \"%s\" has no dtype", t->file, t->name);
    if (!(t->type = arena_string(c->arena, type))) return -1;
    t->data.dtype = DTYPE_OTHER;
    *element = 0; /* unknown types are no error until someone wants the tensor */
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(type, types[i].name)) continue;
        t->data.dtype = types[i].type;
        *element = (size_t)types[i].bytes;
    }
    return 0;
}

static int read_shape(const json *entry, stored *t, size_t *count) {
    const json *shape = json_get(entry, "shape");
    if (!json_is_array(shape)) return fail("%s: tensor \"%s\" has no shape", t->file, t->name);
    if (json_length(shape) > ARRAY_MAX_RANK) t->data.dtype = DTYPE_OTHER; /* an error when someone wants it */
    /* The other sizes are kept in bounds also where one is zero: later sums are made of each. */
    size_t others = *count = 1;
    json_each (v, shape) {
        int64_t more, *n = t->data.rank < ARRAY_MAX_RANK ? &t->data.shape[t->data.rank++] : &more;
        if (!whole_number(v, (int64_t)1 << 53, n) ||
            __builtin_mul_overflow(others, *n ? (size_t)*n : 1, &others) || others > INT64_MAX / 64)
            return fail("%s: tensor \"%s\" has an absurd shape", t->file, t->name);
        *count *= (size_t)*n;
    }
    return 0;
}

static int read_tensor(checkpoint *c, const shard *s, const json *entry, stored *t) {
    size_t element = 0, count = 0, bytes;
    t->file = s->path;
    if (!(t->name = arena_string(c->arena, json_key(entry)))) return -1;
    if (read_type(c, entry, t, &element) || read_shape(entry, t, &count)) return -1;
    const json *offsets = json_get(entry, "data_offsets"), *first = json_first(offsets);
    int64_t start, end;
    if (!json_is_array(offsets) || json_length(offsets) != 2 || !whole_number(first, INT64_MAX / 2, &start) ||
        !whole_number(json_next(first), INT64_MAX / 2, &end) || start > end)
        return fail("%s: tensor \"%s\" has no valid data_offsets", t->file, t->name);
    if ((size_t)end > s->size)
        return fail("%s: tensor \"%s\" ends at byte %lld, outside the %zu bytes of data; is the file "
                    "complete?",
                    t->file, t->name, (long long)end, s->size);
    t->bytes = (size_t)(end - start);
    t->data.data = s->data + start;
    if (!element) return 0;
    char text[96];
    if (__builtin_mul_overflow(count, element, &bytes) || bytes != t->bytes)
        return fail("%s: tensor \"%s\" %s of type %s has %zu bytes of data, which does not fit its shape",
                    t->file, t->name, shape_text(text, sizeof text, t->data.rank, t->data.shape), t->type,
                    t->bytes);
    return 0;
}

static int read_header(checkpoint *c, const shard *s, const json *header) {
    if (!json_is_object(header)) return fail("%s: the header is not a JSON object", s->path);
    stored *tensors = add_stored(c, (size_t)json_length(header));
    if (!tensors) return -1;
    size_t first = c->n_tensors;
    json_each (entry, header) {
        if (!strcmp(json_key(entry), "__metadata__")) continue;
        if (read_tensor(c, s, entry, tensors++)) return -1;
        c->n_tensors++;
    }
    return check_overlaps(c, first);
}

static int open_shard(checkpoint *c, const char *file_name) {
    shard s = {.path = arena_printf(c->arena, "%s/%s", c->folder, file_name)};
    file_map *map = &c->files[c->n_files];
    if (!s.path || file_map_open(map, s.path)) return -1;
    c->n_files++;
    if (check_is_model(s.path, map->data, map->size)) return -1;
    uint64_t length;
    if (map->size < sizeof length)
        return fail("%s: truncated: %zu bytes are no safetensors file", s.path, map->size);
    memcpy(&length, map->data, sizeof length);
    if (length > map->size - sizeof length)
        return fail("%s: the header should have %llu bytes, the file has only %zu; is it complete?", s.path,
                    (unsigned long long)length, map->size);
    if (length > MAX_HEADER)
        return fail("%s: the header of %llu bytes is too long", s.path, (unsigned long long)length);
    const char *text = map->data + sizeof length;
    json *header = json_parse(text, (size_t)length, s.path);
    if (!header) return -1;
    s.data = text + length;
    s.size = map->size - sizeof length - (size_t)length;
    int status = read_header(c, &s, header);
    json_free(header);
    return status;
}

/* ---- the folder ---- */

int safetensors_open(checkpoint *c) {
    file_list list = {0};
    int status = choose_files(c, &list);
    if (!status && !(c->files = arena_alloc(c->arena, (size_t)list.n * sizeof *c->files))) status = -1;
    for (int i = 0; i < list.n && !status; i++) status = open_shard(c, list.names[i]);
    free(list.names);
    return status;
}
