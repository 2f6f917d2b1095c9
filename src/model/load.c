/* load.c - config fields and weights for the families, with errors that stick.
 * So that a family's load function reads as the list of what the architecture has. */
#include "model/family.h"

#include <stdio.h>

int64_t config_int_or(loader *l, const char *key, int64_t min, int64_t max, int64_t otherwise) {
    if (!l->failed) l->failed = json_get_int(l->config, l->name, key, false, min, max, &otherwise) < 0;
    return l->failed ? 0 : otherwise;
}

int64_t config_int(loader *l, const char *key, int64_t min, int64_t max) {
    int64_t value = 0;
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

void config_refuse(loader *l, const char *key, const char *why) {
    if (!l->failed) fail("%s: \"%s\": %s", l->name, key, why);
    l->failed = true;
}

void config_decoder(loader *l) {
    model_info *i = &l->model->info;
    i->hidden_size = config_int(l, "hidden_size", 1, MAX_DIM);
    i->n_layers = config_int(l, "num_hidden_layers", 1, MAX_LAYERS);
    i->vocab_size = config_int(l, "vocab_size", 1, MAX_VOCAB);
    i->n_heads = config_int(l, "num_attention_heads", 1, 4096);
    i->n_kv_heads = config_int_or(l, "num_key_value_heads", 1, 4096, i->n_heads);
    if (l->failed) return;
    i->head_dim = config_int_or(l, "head_dim", 1, 65536, i->hidden_size / i->n_heads);
    if (i->n_heads % i->n_kv_heads)
        config_refuse(l, "num_key_value_heads", "does not divide num_attention_heads");
    if (i->head_dim < 2 || i->head_dim % 2) config_refuse(l, "head_dim", "is not an even number");
}

void *model_alloc(loader *l, size_t n, size_t size) {
    void *memory = l->failed ? NULL : arena_alloc(l->model->arena, n * size);
    if (!memory) l->failed = true;
    return memory;
}

/* The path that a variadic function was given as a format, into its array `text`. */
#define FORMAT_PATH(text, path)                                                                              \
    do {                                                                                                     \
        va_list args;                                                                                        \
        va_start(args, path);                                                                                \
        vsnprintf(text, sizeof text, path, args);                                                            \
        va_end(args);                                                                                        \
    } while (0)

static const weight *take(loader *l, const weight_source *source) {
    const weight *w = engine_weight(l->model->engine, source);
    if (!w) l->failed = true;
    return w;
}

static const weight *take_matrix(loader *l, const char *path, int rank, const int64_t *shape, bool bias) {
    weight_source source = {.name = path};
    matrix bias_vector;
    char bias_name[300];
    if (l->failed || checkpoint_matrix(l->checkpoint, path, rank, shape, &source.m)) {
        l->failed = true;
        return NULL;
    }
    snprintf(bias_name, sizeof bias_name, "%s.bias", path);
    if (bias) {
        if (checkpoint_plain(l->checkpoint, bias_name, 1, &shape[0], &bias_vector)) {
            l->failed = true;
            return NULL;
        }
        source.bias = &bias_vector;
    }
    return take(l, &source);
}

const weight *load_linear(loader *l, int64_t out, int64_t in, bool bias, const char *path, ...) {
    char text[256];
    FORMAT_PATH(text, path);
    return take_matrix(l, text, 2, (int64_t[]){out, in}, bias);
}

const weight *load_experts(loader *l, int64_t n, int64_t out, int64_t in, const char *path, ...) {
    char text[256];
    FORMAT_PATH(text, path);
    return take_matrix(l, text, 3, (int64_t[]){n, out, in}, false);
}

const weight *load_norm(loader *l, int64_t n, bool plus_one, const char *path, ...) {
    char text[256], name[300];
    FORMAT_PATH(text, path);
    snprintf(name, sizeof name, "%s.weight", text);
    weight_source source = {.name = name, .plus_one = plus_one};
    if (l->failed || checkpoint_plain(l->checkpoint, name, 1, &n, &source.m)) {
        l->failed = true;
        return NULL;
    }
    return take(l, &source);
}
