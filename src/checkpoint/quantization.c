/* quantization.c - which modules are quantized, and with how many bits in groups of what size.
 * The shapes tell it; config.json's entry for a module wins (mlx-lm utils.py: load_model,
 * infer_quant_config). */
#include "checkpoint/internal.h"

#include <string.h>

int quantization_read(checkpoint *c) {
    const json *text_config = json_get(c->config, "text_config");
    const json *q = json_get(c->config, "quantization");
    if (!q) {
        q = json_get(c->config, "quantization_config");
        if (!q) q = json_get(text_config, "quantization_config");
        const json *method = json_get(q, "quant_method");
        if (method)
            return fail("%s: quant_method \"%s\" is not supported; convert the model with mlx_lm.convert",
                        c->config_name, json_string(method) ? json_string(method) : "?");
    }
    if (q && !json_is_object(q)) return fail("%s: \"quantization\" is not an object", c->config_name);
    c->quantization = q;
    return 0;
}

bool quantization_denied(const checkpoint *c, const char *path) {
    const json *module = module_quantization(c, path);
    return json_is_bool(module) && !json_true(module);
}

int quantization_check_mode(const checkpoint *c, const char *path, int64_t in, const array *packed,
                            const array *scales) {
    const json *module = module_quantization(c, path);
    const char *mode = "affine";
    if (module &&
        json_get_string(json_true(module) ? c->quantization : module, c->config_name, "mode", false, &mode))
        return -1;
    if (!strcmp(mode, "affine") && scales->dtype == DTYPE_U8) { /* one (bits, group size) pair per mode */
        int64_t cols = scales->rank ? scales->shape[scales->rank - 1] : 0,
                words = packed->rank ? packed->shape[packed->rank - 1] : 0;
        bool eight = words == in / 4, sixteen = cols == in / 16;
        mode = eight ? "mxfp8" : sixteen ? "nvfp4" : "mxfp4";
    }
    if (strcmp(mode, "affine"))
        return fail("%s: module %s is quantized in mode %s: only affine is supported", c->config_name, path,
                    mode);
    return 0;
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
    char wanted[96], weight[96], scales[96], biases[96];
    return fail(
        "%s: %s.weight: wanted shape %s, found %s %s with scales %s %s and biases %s %s, which is no "
        "affine quantization of it",
        c->folder ? c->folder : c->config_name, path, shape_text(wanted, sizeof wanted, m->rank, m->shape),
        dtype_name(m->values.dtype), shape_text(weight, sizeof weight, m->values.rank, m->values.shape),
        dtype_name(m->scales.dtype), shape_text(scales, sizeof scales, m->scales.rank, m->scales.shape),
        dtype_name(m->biases.dtype), shape_text(biases, sizeof biases, m->biases.rank, m->biases.shape));
}

/* config.json's own entry for the module must say what the shapes say. */
static int check_override(const checkpoint *c, const char *path, const matrix *m) {
    const json *module = module_quantization(c, path);
    if (!module) return 0;
    if (!json_is_object(module) && !json_true(module))
        return fail("%s: the quantization of \"%s\" is neither an object nor true or false", c->config_name,
                    path);
    int64_t bits = 4, group_size = 64; /* MLX's own defaults, where the entry leaves one out */
    const json *given = json_true(module) ? c->quantization : module;
    if (json_get_int(given, c->config_name, "bits", false, 1, 32, &bits)) return -1;
    if (json_get_int(given, c->config_name, "group_size", false, 1, 1 << 20, &group_size)) return -1;
    if (bits != m->bits || group_size != m->group_size)
        return fail("%s: module %s should have %lld bits in groups of %lld, but its tensors have %d bits in "
                    "groups of %d",
                    c->config_name, path, (long long)bits, (long long)group_size, m->bits, m->group_size);
    return 0;
}

int quantization_infer(const checkpoint *c, const char *path, matrix *m) {
    int64_t in = m->shape[m->rank - 1];
    if (in <= 0 || m->values.dtype != DTYPE_U32 || !is_float(m->scales.dtype) ||
        m->biases.dtype != m->scales.dtype || !rows_fit(m, &m->values) || !rows_fit(m, &m->scales) ||
        !rows_fit(m, &m->biases))
        return misfit(c, path, m);
    int64_t words = m->values.shape[m->rank - 1], groups = m->scales.shape[m->rank - 1];
    if (m->biases.shape[m->rank - 1] != groups || in % groups || words > in || words * 32 % in)
        return misfit(c, path, m);
    int64_t bits = words * 32 / in, group_size = in / groups;
    bool known_bits = bits == 2 || bits == 3 || bits == 4 || bits == 5 || bits == 6 || bits == 8;
    bool known_group = group_size == 32 || group_size == 64 || group_size == 128;
    if (!known_bits || !known_group) return misfit(c, path, m);
    m->bits = (int)bits;
    m->group_size = (int)group_size;
    return check_override(c, path, m);
}
