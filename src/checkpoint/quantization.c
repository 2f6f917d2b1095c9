/* quantization.c - which modules are quantized, and with how many bits in groups of what size.
 * The shapes tell it; config.json's entry for a module wins (mlx-lm utils.py: load_model,
 * infer_quant_config). */
#include "checkpoint/internal.h"

#include <string.h>

/* hf_quant_config.json, where modelopt says what it did when config.json does not. */
static int read_modelopt_file(checkpoint *c) {
    const char *path = arena_printf(c->arena, "%s/hf_quant_config.json", c->folder);
    if (!path) return -1;
    if (!file_exists(path)) return 0;
    json *q = json_parse_file(path);
    if (!q) return -1;
    const char *method = json_string(json_get(q, "quant_method"));
    int status = foreign_read(c, q, method ? method : "modelopt");
    json_free(q);
    return status;
}

int quantization_read(checkpoint *c) {
    const json *text_config = json_get(c->config, "text_config");
    const json *q = json_get(c->config, "quantization");
    const char *type = json_string(json_get(c->config, "model_type"));
    if (type && !strcmp(type, "bitnet")) c->packing = PACKED_BITNET; /* its layers are, whatever is said */
    if (!q) {
        q = json_get(c->config, "quantization_config");
        if (!q) q = json_get(text_config, "quantization_config");
        if (!q) return read_modelopt_file(c);
        const json *method = json_get(q, "quant_method");
        if (method) return foreign_read(c, q, json_string(method) ? json_string(method) : "?");
    }
    if (q && !json_is_object(q)) return fail("%s: \"quantization\" is not an object", c->config_name);
    c->quantization = q;
    return 0;
}

bool quantization_denied(const checkpoint *c, const char *path) {
    const json *module = module_quantization(c, path);
    return json_is_bool(module) && !json_true(module);
}

static bool is_float(dtype type) {
    return type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16;
}

/* Are all dimensions of a but the last one those of the logical shape? */
static bool rows_fit(const matrix *m, const array *a) {
    if (a->rank != m->rank) return false;
    for (int i = 0; i < m->rank - 1; i++)
        if (a->shape[i] != m->shape[i]) return false;
    return a->shape[m->rank - 1] > 0;
}

static int misfit(const checkpoint *c, const char *path, const matrix *m) {
    char wanted[96], weight[96], scales[96], shape[96];
    shape_text(shape, sizeof shape, m->biases.rank, m->biases.shape);
    return fail(
        "%s: %s.weight: wanted shape %s, found %s %s with scales %s %s and %s%s%s%s, which is no "
        "quantization of it",
        c->folder ? c->folder : c->config_name, path, shape_text(wanted, sizeof wanted, m->rank, m->shape),
        dtype_name(m->values.dtype), shape_text(weight, sizeof weight, m->values.rank, m->values.shape),
        dtype_name(m->scales.dtype), shape_text(scales, sizeof scales, m->scales.rank, m->scales.shape),
        m->biases.rank ? "biases " : "no biases", m->biases.rank ? dtype_name(m->biases.dtype) : "",
        m->biases.rank ? " " : "", m->biases.rank ? shape : "");
}

/* config.json's own entry for the module must say what types and shapes say. */
static int check_override(const checkpoint *c, const char *path, const matrix *m) {
    const json *module = module_quantization(c, path);
    if (!module) return 0;
    if (!json_is_object(module) && !json_true(module))
        return fail("%s: the quantization of \"%s\" is neither an object nor true or false", c->config_name,
                    path);
    const json *given = json_true(module) ? c->quantization : module;
    const char *mode = "affine";
    if (json_get_string(given, c->config_name, "mode", false, &mode)) return -1;
    if (strcmp(mode, matrix_kind_name(m->kind)))
        return fail("%s: module %s should be quantized in mode %s, but its tensors are %s", c->config_name,
                    path, mode, matrix_kind_name(m->kind));
    /* MLX's own defaults, where the entry leaves one out */
    int64_t bits = m->kind == MATRIX_AFFINE ? 4 : m->bits,
            group_size = m->kind == MATRIX_AFFINE ? 64 : m->group_size;
    if (json_get_int(given, c->config_name, "bits", false, 1, 32, &bits)) return -1;
    if (json_get_int(given, c->config_name, "group_size", false, 1, 1 << 20, &group_size)) return -1;
    if (bits != m->bits || group_size != m->group_size)
        return fail("%s: module %s should have %lld bits in groups of %lld, but its tensors have %d bits in "
                    "groups of %d",
                    c->config_name, path, (long long)bits, (long long)group_size, m->bits, m->group_size);
    return 0;
}

/* The kind with that width and group size, which alone tell it where scales are bytes. */
static matrix_kind kind_of(int64_t bits, int64_t group_size) {
    matrix_kind kind = MATRIX_AFFINE;
    while (++kind < N_MATRIX_KINDS)
        if (bits == matrix_kind_bits(kind) && group_size == matrix_kind_group_size(kind)) break;
    return kind;
}

static bool affine_fits(const matrix *m, int64_t bits, int64_t group_size) {
    bool known_bits = bits == 1 || bits == 2 || bits == 3 || bits == 4 || bits == 5 || bits == 6 || bits == 8;
    bool known_group = group_size == 32 || group_size == 64 || group_size == 128;
    return is_float(m->scales.dtype) && m->biases.dtype == m->scales.dtype && rows_fit(m, &m->biases) &&
           m->biases.shape[m->rank - 1] == m->scales.shape[m->rank - 1] && known_bits && known_group;
}

int quantization_infer(const checkpoint *c, const char *path, matrix *m) {
    int64_t in = m->shape[m->rank - 1];
    if (in <= 0 || m->values.dtype != DTYPE_U32 || !rows_fit(m, &m->values) || !rows_fit(m, &m->scales))
        return misfit(c, path, m);
    int64_t words = m->values.shape[m->rank - 1], groups = m->scales.shape[m->rank - 1];
    if (in % groups || words > in || words * 32 % in) return misfit(c, path, m);
    int64_t bits = words * 32 / in, group_size = in / groups;
    m->kind = m->scales.dtype == DTYPE_U8 ? kind_of(bits, group_size) : MATRIX_AFFINE;
    if (m->kind == N_MATRIX_KINDS || (m->kind == MATRIX_AFFINE && !affine_fits(m, bits, group_size)))
        return misfit(c, path, m);
    m->bits = (int)bits;
    m->group_size = (int)group_size;
    return check_override(c, path, m);
}
