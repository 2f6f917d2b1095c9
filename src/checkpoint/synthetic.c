/* synthetic.c - random weights in the shapes and quantization of a real model, for benchmarks
 * without files. A preset is that model's config.json. A weight's values depend only on the seed
 * and its name, so that runs can be repeated whatever the order of loading. */
#include "checkpoint/internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { GROUP = 64 };

/* Dequantized weights are uniform in [-RANGE, RANGE]: the spread of a trained model's, so that
 * activations neither vanish nor overflow. */
static const float RANGE = 0.04f;

/* ---- presets ---- */

static const struct {
    const char *suffix;
    int bits;
    dtype dtype;
} formats[] = {
    {"-4bit", 4, DTYPE_BF16}, {"-8bit", 8, DTYPE_BF16}, {"-bf16", 0, DTYPE_BF16},
    {"-2bit", 2, DTYPE_BF16}, {"-3bit", 3, DTYPE_BF16}, {"-5bit", 5, DTYPE_BF16},
    {"-6bit", 6, DTYPE_BF16}, {"-f16", 0, DTYPE_F16},   {"-f32", 0, DTYPE_F32},
};

static int is_preset(const struct dirent *entry) {
    const char *dot = strrchr(entry->d_name, '.');
    return dot && dot != entry->d_name && !strcmp(dot, ".json");
}

static int by_file_name(const void *a, const void *b) {
    return strcmp((*(struct dirent *const *)a)->d_name, (*(struct dirent *const *)b)->d_name);
}

static int visit_preset(const char *folder, const char *file_name,
                        int (*each)(void *context, const char *name, const json *config), void *context) {
    str path = {0}, name = {0};
    str_printf(&path, "%s/%s", folder, file_name);
    str_append(&name, file_name, strlen(file_name) - strlen(".json"));
    json *config = path.failed || name.failed ? NULL : json_parse_file(path.data);
    int status = path.failed || name.failed ? -1 : each(context, name.data, config);
    json_free(config);
    str_free(&path);
    str_free(&name);
    return status;
}

int checkpoint_presets(int (*each)(void *context, const char *name, const json *config), void *context) {
    str folder = {0};
    struct dirent **files = NULL;
    int n = 0, status = share_find("presets", &folder);
    if (!status && (n = scandir(folder.data, &files, is_preset, NULL)) < 0)
        status = fail("cannot read folder %s: %s", folder.data, strerror(errno));
    if (n > 0) qsort(files, (size_t)n, sizeof *files, by_file_name);
    for (int i = 0; i < n; i++) {
        if (!status) status = visit_preset(folder.data, files[i]->d_name, each, context);
        free(files[i]);
    }
    free(files);
    str_free(&folder);
    return status < 0 ? -1 : 0;
}

static int append_name(void *context, const char *name, const json *config) {
    (void)config;
    str_printf(context, "%s%s", ((str *)context)->length ? ", " : "", name);
    return 0;
}

static int unknown_preset(const char *preset) {
    str names = {0};
    if (!checkpoint_presets(append_name, &names) && !names.failed)
        fail_usage("unknown preset \"synthetic:%s\"; known: %s - each as it is, with 4 bits, or with "
                   "-2bit, -3bit, -5bit, -6bit, -8bit, -bf16, -f16, -f32 at the end",
                   preset, names.data ? names.data : "none");
    str_free(&names);
    return -1;
}

/* The preset file's JSON with the member that a quantized model's config.json has. */
static json *read_config(const char *path, int bits) {
    file_map map;
    str text = {0};
    json *config = NULL;
    if (file_map_open(&map, path)) return NULL;
    size_t end = map.size;
    while (end && map.data[end - 1] != '}') end--;
    if (bits && end) {
        str_append(&text, map.data, end - 1);
        str_printf(&text, ", \"quantization\": {\"group_size\": %d, \"bits\": %d}}", GROUP, bits);
    } else {
        str_append(&text, map.data, map.size);
    }
    if (!text.failed) config = json_parse(text.data, text.length, path);
    str_free(&text);
    file_map_close(&map);
    return config;
}

int synthetic_open(checkpoint *c, const char *preset, uint64_t seed) {
    str path = {0};
    size_t length = strlen(preset), n_formats = sizeof formats / sizeof *formats, i = 0;
    for (; i < n_formats; i++) {
        size_t n = strlen(formats[i].suffix);
        if (length > n && !strcmp(preset + length - n, formats[i].suffix)) break;
    }
    if (strchr(preset, '/')) return unknown_preset(preset);
    if (i < n_formats)
        length -= strlen(formats[i].suffix);
    else
        i = 0; /* a preset by itself, as `mlxbench models` lists it: with 4 bits */
    str_printf(&path, "presets/%.*s.json", (int)length, preset);
    str found = {0};
    if (path.failed || share_find(path.data, &found)) {
        str_free(&path);
        str_free(&found);
        return unknown_preset(preset);
    }
    c->config_name = arena_string(c->arena, found.data);
    c->config = c->config_name ? read_config(c->config_name, formats[i].bits) : NULL;
    str_free(&path);
    str_free(&found);
    if (!c->config) return -1;
    const char *asked = arena_string(c->arena, preset);
    if (!asked) return -1;
    c->synthetic = (synthetic_request){.enabled = true,
                                       .preset = asked,
                                       .seed = seed,
                                       .bits = formats[i].bits,
                                       .group_size = formats[i].bits ? GROUP : 0,
                                       .dtype = formats[i].dtype};
    return 0;
}

/* ---- random numbers ---- */

/* Uniform in [-1, 1). */
static float next_float(uint64_t *state) {
    return (float)(random_next(state) >> 40) * 0x1p-23f - 1;
}

/* The generator's start for one array: FNV-1a of its name, mixed with the seed. */
static uint64_t start_state(uint64_t seed, const char *name, const char *part) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *s = name; *s; s++) hash = (hash ^ (unsigned char)*s) * 0x100000001b3u;
    for (const char *s = part; *s; s++) hash = (hash ^ (unsigned char)*s) * 0x100000001b3u;
    return hash ^ random_next(&seed);
}

/* Random bits; size is a multiple of 4 and the memory one of 8 (whole pages). */
static void fill_bits(void *memory, size_t size, uint64_t state) {
    char *to = memory;
    for (size_t i = 0; i < size; i += 8) {
        uint64_t bits = random_next(&state);
        memcpy(to + i, &bits, size - i < 8 ? size - i : 8);
    }
}

/* n values center + spread * u, u uniform in [-1, 1]: each byte of a random word picks one of 256,
 * which is far faster than converting every number. */
static void fill_values(void *memory, dtype type, int64_t n, float center, float spread, uint64_t state) {
    float values[256];
    uint16_t narrow[256];
    for (int i = 0; i < 256; i++) values[i] = center + spread * ((float)i - 127.5f) / 127.5f;
    bool wide = type == DTYPE_F32;
    if (!wide) floats_to(narrow, type, values, 256);
    float *floats = memory;
    uint16_t *halves = memory;
    for (int64_t i = 0; i < n;) {
        uint64_t bits = random_next(&state);
        for (int j = 0; j < 8 && i < n; j++, i++, bits >>= 8) {
            if (wide)
                floats[i] = values[bits & 255];
            else
                halves[i] = narrow[bits & 255];
        }
    }
}

/* Scales around what maps 0 .. 2^bits - 1 to [-RANGE, RANGE], and the biases that center them at
 * zero. */
static void fill_scales(void *scales, void *biases, dtype type, int64_t n, int bits, uint64_t state) {
    enum { CHUNK = 1024 };
    float s[CHUNK], b[CHUNK], top = (float)((1 << bits) - 1);
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t count = n - at < CHUNK ? n - at : CHUNK;
        size_t offset = (size_t)at * dtype_size(type);
        for (int64_t i = 0; i < count; i++) s[i] = 2 * RANGE / top * (1 + 0.25f * next_float(&state));
        floats_to((char *)scales + offset, type, s, count);
        floats_from(s, (char *)scales + offset, type, count); /* the stored one, for an exact center */
        for (int64_t i = 0; i < count; i++) b[i] = -s[i] * top / 2;
        floats_to((char *)biases + offset, type, b, count);
    }
}

/* ---- weights ---- */

/* An uninitialised array of that shape, but cols in the last dimension. Its memory or NULL. */
static void *new_array(checkpoint *c, const char *name, array *a, dtype type, int rank, const int64_t *shape,
                       int64_t cols) {
    size_t bytes = dtype_size(type);
    *a = (array){.dtype = type, .rank = rank};
    for (int i = 0; i < rank; i++) {
        a->shape[i] = i == rank - 1 ? cols : shape[i];
        if (a->shape[i] < 0 || __builtin_mul_overflow(bytes, (size_t)a->shape[i], &bytes))
            return fail_null("%s: absurd size of %s", c->config_name, name);
    }
    void *memory = own_memory(c, bytes, name);
    a->data = memory;
    return memory;
}

static int plain(checkpoint *c, const char *name, int rank, const int64_t *shape, float center, float spread,
                 matrix *out) {
    const synthetic_request *s = &c->synthetic;
    *out = (matrix){.rank = rank};
    memcpy(out->shape, shape, (size_t)rank * sizeof *shape);
    void *memory = new_array(c, name, &out->values, s->dtype, rank, shape, shape[rank - 1]);
    if (!memory) return -1;
    if (c->sizes_only) return 0;
    fill_values(memory, s->dtype, array_count(&out->values), center, spread, start_state(s->seed, name, ""));
    return 0;
}

int synthetic_plain(checkpoint *c, const char *name, int rank, const int64_t *shape, matrix *out) {
    return plain(c, name, rank, shape, 0, RANGE, out);
}

int synthetic_norm(checkpoint *c, const char *name, int64_t n, float center, matrix *out) {
    return plain(c, name, 1, &n, center, 0.1f, out);
}

int synthetic_matrix(checkpoint *c, const char *path, int rank, const int64_t *shape, int least_bits,
                     matrix *out) {
    const synthetic_request *s = &c->synthetic;
    int64_t in = shape[rank - 1];
    int bits = s->bits && s->bits < least_bits ? least_bits : s->bits;
    if (!bits || in % s->group_size) /* mlx-lm's quantize_model leaves these as they are, too */
        return plain(c, path, rank, shape, 0, RANGE, out);
    *out = (matrix){.kind = MATRIX_AFFINE, .rank = rank, .bits = bits, .group_size = s->group_size};
    memcpy(out->shape, shape, (size_t)rank * sizeof *shape);
    int64_t groups = in / s->group_size, words = groups * (s->group_size * bits / 32);
    void *q = new_array(c, path, &out->values, DTYPE_U32, rank, shape, words);
    void *scales = q ? new_array(c, path, &out->scales, s->dtype, rank, shape, groups) : NULL;
    void *biases = scales ? new_array(c, path, &out->biases, s->dtype, rank, shape, groups) : NULL;
    if (!biases) return -1;
    if (c->sizes_only) return 0;
    fill_bits(q, array_bytes(&out->values), start_state(s->seed, path, ".weight"));
    fill_scales(scales, biases, s->dtype, array_count(&out->scales), bits,
                start_state(s->seed, path, ".scales"));
    return 0;
}
