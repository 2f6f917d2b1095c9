/* load.c - config fields and weights for descriptions, with errors that stick.
 * So that a description reads as the list of what an architecture has. */
#include "model/load.h"

#include <math.h>
#include <stdio.h>

void *load_alloc(loader *l, size_t n, size_t size) {
    void *memory = l->failed ? NULL : arena_alloc(l->arena, n * size);
    if (!memory) l->failed = true;
    return memory;
}

/* ---- config.json ---- */

int64_t config_int_or(loader *l, const char *key, int64_t min, int64_t max, int64_t otherwise) {
    if (!l->failed) l->failed = json_get_int(l->config, l->name, key, false, min, max, &otherwise) < 0;
    return l->failed ? min : otherwise;
}

int64_t config_int(loader *l, const char *key, int64_t min, int64_t max) {
    int64_t value = min;
    if (!l->failed) l->failed = json_get_int(l->config, l->name, key, true, min, max, &value) < 0;
    return value;
}

double config_float_or(loader *l, const char *key, double otherwise) {
    if (!l->failed) l->failed = json_get_float(l->config, l->name, key, false, &otherwise) < 0;
    return l->failed ? 0 : otherwise;
}

double config_float(loader *l, const char *key) {
    double value = 0;
    if (!l->failed) l->failed = json_get_float(l->config, l->name, key, true, &value) < 0;
    return value;
}

bool config_bool_or(loader *l, const char *key, bool otherwise) {
    if (!l->failed) l->failed = json_get_bool(l->config, l->name, key, false, &otherwise) < 0;
    return !l->failed && otherwise;
}

bool config_bool(loader *l, const char *key) {
    bool value = false;
    if (!l->failed) l->failed = json_get_bool(l->config, l->name, key, true, &value) < 0;
    return !l->failed && value;
}

double config_float_in(loader *l, const char *object, const char *key) {
    double value = 0;
    if (!l->failed) l->failed = json_get_float(json_get(l->config, object), l->name, key, true, &value) < 0;
    return value;
}

int64_t config_int_in(loader *l, const char *object, const char *key, int64_t min, int64_t max) {
    int64_t value = min;
    if (!l->failed)
        l->failed = json_get_int(json_get(l->config, object), l->name, key, true, min, max, &value) < 0;
    return l->failed ? min : value;
}

bool config_list_has(loader *l, const char *key, int64_t n) {
    const json *list = json_get(l->config, key);
    for (const json *item = json_first(list); item; item = json_next(item))
        if (json_is_number(item) && (int64_t)json_number(item) == n) return true;
    return false;
}

const json *config_per_layer(loader *l, const char *key, int64_t i, int64_t n_layers) {
    const json *list = json_get(l->config, key);
    if (!list || l->failed) return NULL;
    if (json_length(list) != n_layers) {
        config_refuse(l, key, "has not one entry per layer");
        return NULL;
    }
    const json *item = json_first(list);
    while (i-- > 0 && item) item = json_next(item);
    return item;
}

void config_refuse(loader *l, const char *key, const char *why) {
    if (!l->failed) fail("%s: \"%s\": %s", l->name, key, why);
    l->failed = true;
}

/* ---- weights ---- */

enum { NAME_SIZE = 256 };

/* The prefix, the name and what follows, into path[NAME_SIZE]. */
static const char *full_name(const loader *l, char *path, const char *name, const char *end) {
    snprintf(path, NAME_SIZE, "%s%s%s", l->prefix, name, end);
    return path;
}

static const weight *take(loader *l, const weight_source *source) {
    const weight *w = engine_weight(l->engine, source);
    if (!w) l->failed = true;
    return w;
}

/* n matrices of that shape (0: one), and their biases. */
static const weight *take_matrix(loader *l, const char *name, int64_t n, linear_shape shape, bool router) {
    char path[NAME_SIZE], bias_name[NAME_SIZE];
    weight_source source = {.name = full_name(l, path, name, "")};
    matrix bias;
    const int64_t sizes[] = {n, shape.out, shape.in}, *first = n ? sizes : sizes + 1;
    int rank = n ? 3 : 2, status = -1;
    if (!l->failed)
        status = router ? checkpoint_router(l->checkpoint, path, shape.out, shape.in, &source.m)
                        : checkpoint_matrix(l->checkpoint, path, rank, first, &source.m);
    full_name(l, bias_name, name, ".bias");
    if (!status && shape.bias)
        status = n ? checkpoint_expert_biases(l->checkpoint, path, n, shape.out, &bias)
                   : checkpoint_plain(l->checkpoint, bias_name, 1, first, &bias);
    if (status) {
        l->failed = true;
        return NULL;
    }
    if (shape.bias) source.bias = &bias;
    return take(l, &source);
}

const weight *load_linear(loader *l, linear_shape shape, const char *name) {
    return take_matrix(l, name, 0, shape, false);
}

const weight *load_router(loader *l, linear_shape shape, const char *name) {
    return take_matrix(l, name, 0, shape, true);
}

const weight *load_experts(loader *l, int64_t n, linear_shape shape, const char *name) {
    return take_matrix(l, name, n, shape, false);
}

void load_kv_b(loader *l, const char *module, const kv_b_shape *s, const weight **embed_q,
               const weight **unembed_out) {
    char path[NAME_SIZE], keys[128], values[128], both[128];
    kv_b split;
    if (l->failed) return;
    snprintf(keys, sizeof keys, "%s.embed_q", module);
    snprintf(values, sizeof values, "%s.unembed_out", module);
    snprintf(both, sizeof both, "%s.kv_b_proj", module);
    if (!checkpoint_has(l->checkpoint, full_name(l, path, both, ".weight"))) {
        *embed_q = load_experts(l, s->n_heads, (linear_shape){s->rank, s->nope, false}, keys);
        *unembed_out = load_experts(l, s->n_heads, (linear_shape){s->v_dim, s->rank, false}, values);
        return;
    }
    if (checkpoint_kv_b(l->checkpoint, full_name(l, path, both, ""), s, &split)) {
        l->failed = true;
        return;
    }
    *embed_q = take(l, &(weight_source){.name = keys, .m = split.embed_q});
    *unembed_out = take(l, &(weight_source){.name = values, .m = split.unembed_out});
}

const weight *load_conv(loader *l, int64_t n, int64_t kernel, bool bias, const char *name) {
    char path[NAME_SIZE], bias_name[NAME_SIZE];
    weight_source source = {.name = full_name(l, path, name, ".weight")};
    matrix vector;
    if (l->failed) return NULL;
    const int64_t made[] = {n, kernel, 1}, published[] = {n, 1, kernel}; /* the same bytes */
    bool other = checkpoint_has_shape(l->checkpoint, path, 3, published);
    int status = checkpoint_plain(l->checkpoint, path, 3, other ? published : made, &source.m);
    if (!status && bias)
        status = checkpoint_plain(l->checkpoint, full_name(l, bias_name, name, ".bias"), 1, &n, &vector);
    if (status) {
        l->failed = true;
        return NULL;
    }
    source.m.rank = source.m.values.rank = 2;
    source.m.shape[1] = source.m.values.shape[1] = kernel;
    if (bias) source.bias = &vector;
    return take(l, &source);
}

static const weight *take_vector(loader *l, int64_t n, weight_source source, const char *name) {
    char path[NAME_SIZE];
    source.name = full_name(l, path, name, "");
    if (l->failed || checkpoint_plain(l->checkpoint, path, 1, &n, &source.m)) {
        l->failed = true;
        return NULL;
    }
    return take(l, &source);
}

const weight *load_norm(loader *l, int64_t n, double offset, const char *name) {
    char path[NAME_SIZE];
    weight_source source = {.name = full_name(l, path, name, ".weight"), .offset = offset};
    if (l->failed || checkpoint_norm(l->checkpoint, path, n, 1 - (float)offset, &source.m)) {
        l->failed = true;
        return NULL;
    }
    return take(l, &source);
}

const weight *load_layer_norm(loader *l, int64_t n, double offset, bool bias, const char *name) {
    char path[NAME_SIZE], bias_name[NAME_SIZE];
    matrix vector;
    weight_source source = {
        .name = full_name(l, path, name, ".weight"), .bias = bias ? &vector : NULL, .offset = offset};
    full_name(l, bias_name, name, ".bias");
    if (l->failed || checkpoint_norm(l->checkpoint, path, n, 1 - (float)offset, &source.m) ||
        (bias && checkpoint_plain(l->checkpoint, bias_name, 1, &n, &vector))) {
        l->failed = true;
        return NULL;
    }
    return take(l, &source);
}

const weight *load_vector(loader *l, int64_t n, const char *name) {
    return take_vector(l, n, (weight_source){0}, name);
}

const weight *load_shaped(loader *l, int64_t n, int rank, const int64_t *shape, const char *name) {
    char path[NAME_SIZE];
    weight_source source = {.name = full_name(l, path, name, "")};
    if (l->failed) return NULL;
    bool shaped = checkpoint_has_shape(l->checkpoint, path, rank, shape);
    if (checkpoint_plain(l->checkpoint, path, shaped ? rank : 1, shaped ? shape : &n, &source.m)) {
        l->failed = true;
        return NULL;
    }
    source.m.rank = source.m.values.rank = 1;
    source.m.shape[0] = source.m.values.shape[0] = n;
    return take(l, &source);
}

const weight *load_number(loader *l, const char *name) {
    return load_shaped(l, 1, 0, &(int64_t){1}, name);
}

const weight *load_flat(loader *l, int64_t rows, int64_t cols, const char *name) {
    return load_shaped(l, rows * cols, 2, (int64_t[]){rows, cols}, name);
}

const weight *load_scaled_vector(loader *l, int64_t n, float factor, const char *name) {
    return take_vector(l, n, (weight_source){.factor = factor}, name);
}

/* Gives a the n values in that dtype, in memory that lives as long as the model. */
static void set_values(loader *l, array *a, dtype type, const float *values, int64_t n) {
    void *data = load_alloc(l, (size_t)n, sizeof *values);
    if (!data) return;
    floats_to(data, type, values, n);
    a->dtype = type;
    a->data = data;
}

const weight *load_gain(loader *l, int64_t n, int64_t each, const char *name) {
    char path[NAME_SIZE];
    weight_source source = {.name = full_name(l, path, name, "")};
    if (l->failed || checkpoint_plain(l->checkpoint, path, 1, &n, &source.m)) l->failed = true;
    float *stored = load_alloc(l, (size_t)n, sizeof *stored);
    float *all = load_alloc(l, (size_t)(n * each), sizeof *all);
    if (!all) return NULL;
    floats_from(stored, source.m.values.data, source.m.values.dtype, n);
    for (int64_t i = 0; i < n * each; i++) all[i] = stored[i / each];
    set_values(l, &source.m.values, l->activations, all, n * each);
    source.m.shape[0] = source.m.values.shape[0] = n * each;
    return l->failed ? NULL : take(l, &source);
}

const weight *load_list(loader *l, int64_t n, int64_t each, const char *name) {
    char path[NAME_SIZE], item[128];
    weight_source source = {.name = name};
    float *all = load_alloc(l, (size_t)(n * each), sizeof *all);
    for (int64_t i = 0; i < n && !l->failed; i++) {
        snprintf(item, sizeof item, "%s.%lld", name, (long long)i);
        if (checkpoint_plain(l->checkpoint, full_name(l, path, item, ".weight"), 1, &each, &source.m))
            l->failed = true;
        else
            floats_from(all + i * each, source.m.values.data, source.m.values.dtype, each);
    }
    if (l->failed) return NULL;
    set_values(l, &source.m.values, source.m.values.dtype, all, n * each);
    source.m.shape[0] = source.m.values.shape[0] = n * each;
    return l->failed ? NULL : take(l, &source);
}

const weight *load_head_dots(loader *l, int64_t heads, int64_t n, const char *name) {
    char path[NAME_SIZE], bias_name[NAME_SIZE];
    matrix bias;
    weight_source source = {.name = path, .bias = &bias};
    snprintf(path, sizeof path, "%s.weight", name);
    snprintf(bias_name, sizeof bias_name, "%s.bias", name);
    if (l->failed || checkpoint_plain(l->checkpoint, path, 2, (int64_t[]){heads, n}, &source.m) ||
        checkpoint_plain(l->checkpoint, bias_name, 1, &heads, &bias)) {
        l->failed = true;
        return NULL;
    }
    const int64_t shape[] = {heads, 1, n};
    source.m.rank = source.m.values.rank = 3;
    bias.rank = bias.values.rank = 2;
    for (int i = 0; i < 3; i++) source.m.shape[i] = source.m.values.shape[i] = shape[i];
    bias.shape[1] = bias.values.shape[1] = 1;
    return take(l, &source);
}

const weight *load_clipped(loader *l, linear_shape shape, double most, const char *name) {
    char path[NAME_SIZE];
    weight_source source = {.name = full_name(l, path, name, ".weight")};
    int64_t sizes[] = {shape.out, shape.in}, n = shape.out * shape.in;
    if (l->failed || checkpoint_plain(l->checkpoint, path, 2, sizes, &source.m)) l->failed = true;
    float *values = load_alloc(l, (size_t)n, sizeof *values);
    if (!values) return NULL;
    floats_from(values, source.m.values.data, source.m.values.dtype, n);
    for (int64_t i = 0; i < n && most > 0; i++)
        values[i] = fminf(fmaxf(values[i], (float)-most), (float)most);
    set_values(l, &source.m.values, DTYPE_F32, values, n);
    return l->failed ? NULL : take(l, &source);
}
