/* foreign.c - weights that another tool than MLX packed: which of them are read, by what
 * config.json says of the tool. Where mlx-lm only learns the kind from it, types and shapes tell
 * us. Source: mlx-lm utils.py: load_model, _compressed_tensors_quantization. */
#include "checkpoint/internal.h"

#include <string.h>

static bool ends_with(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end);
}

/* ---- config.json ---- */

static int read_fp8(checkpoint *c, const json *q) {
    const json *blocks = json_get(q, "weight_block_size"), *rows = json_first(blocks);
    double n_rows = json_length(blocks) == 2 ? json_number(rows) : 0;
    bool square = n_rows > 0 && json_number(json_next(rows)) == n_rows;
    const char *scales = "";
    if (json_get_string(q, c->config_name, "scale_fmt", false, &scales)) return -1;
    /* blocks of 32 with scales of one byte stay packed; fp8.c makes BF16 of the others */
    if (!blocks || (square && (n_rows == 128 || (n_rows == 32 && !strcmp(scales, "ue8m0")))))
        return checkpoint_ignore(c, "activation_scale"); /* of static activations: mlx-lm mistral4.py */
    return fail("%s: fp8 weights with this \"weight_block_size\" are not supported (blocks of 128 x 128, and "
                "those of 32 x 32 with \"scale_fmt\": \"ue8m0\", are)",
                c->config_name);
}

static int read_compressed_tensors(checkpoint *c, const json *q) {
    static const struct {
        const char *format;
        packing packing;
    } formats[] = {{"pack-quantized", PACKED_INT4},
                   {"mxfp4-pack-quantized", PACKED_MXFP4},
                   {"nvfp4-pack-quantized", PACKED_NVFP4}};
    const char *format = "";
    if (json_get_string(q, c->config_name, "format", false, &format)) return -1;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(format, formats[i].format)) continue;
        c->packing = formats[i].packing;
        return 0;
    }
    return fail("%s: the compressed-tensors format \"%s\" is not supported, as in mlx-lm; convert the model "
                "with mlx_lm.convert from its unquantized form",
                c->config_name, format);
}

/* hf_quant_config.json has the settings one level deeper than config.json. */
static int read_modelopt(checkpoint *c, const json *q) {
    const json *settings = json_get(q, "quantization");
    const char *algorithm = json_string(json_get(settings ? settings : q, "quant_algo"));
    if (!algorithm || strcmp(algorithm, "NVFP4"))
        return fail("%s: modelopt's quant_algo %s is not supported (NVFP4 is, as in mlx-lm)", c->config_name,
                    algorithm ? algorithm : "is missing, so what it packed");
    c->packing = PACKED_NVFP4;
    return 0;
}

static int read_awq(checkpoint *c, const json *q, const char *method) {
    int64_t bits = 4;
    if (json_get_int(q, c->config_name, "bits", false, 1, 32, &bits)) return -1;
    if (bits != 4)
        return fail("%s: %s weights of %lld bits are not supported (4 are, as in mlx-lm)", c->config_name,
                    method, (long long)bits);
    c->packing = PACKED_BY_AWQ;
    return 0;
}

static int read_bitnet(checkpoint *c, const json *q) {
    const char *class = "", *type = "";
    if (json_get_string(q, c->config_name, "linear_class", false, &class) ||
        json_get_string(c->config, c->config_name, "model_type", false, &type))
        return -1;
    c->packing = PACKED_BITNET;
    c->divides_by_scale = strcmp(class, "autobitlinear") && strcmp(type, "bitnet");
    return 0;
}

int foreign_read(checkpoint *c, const json *q, const char *method) {
    if (!strcmp(method, "mxfp4") || !strcmp(method, "mxfp8")) return 0;
    if (!strcmp(method, "fp8")) return read_fp8(c, q);
    if (!strcmp(method, "compressed-tensors")) return read_compressed_tensors(c, q);
    if (!strcmp(method, "modelopt")) return read_modelopt(c, q);
    if (!strcmp(method, "bitnet")) return read_bitnet(c, q);
    if (!strcmp(method, "awq") || !strcmp(method, "gptq")) return read_awq(c, q, method);
    return fail("%s: quant_method \"%s\" is not supported; convert the model with mlx_lm.convert",
                c->config_name, method);
}

/* ---- names ---- */

/* Tensors that say that the weights are packed in a way which mlx-lm does not load, either. */
static const struct {
    packing packing;
    const char *end, *why;
} refused[] = {
    {PACKED_INT4, ".weight_zero_point", "zero points of its own"},
    {PACKED_INT4, ".weight_g_idx", "an order of columns"},
    {PACKED_NVFP4, ".weight_packed", "nvfp4 under names that are not MLX's"},
    {PACKED_NVFP4, ".weight_scale_2", "nvfp4 under names that are not MLX's"},
    {PACKED_NVFP4, ".weight_scale", "nvfp4 under names that are not MLX's"},
};

static int check_loadable(const checkpoint *c, const stored *t) {
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (c->packing == refused[i].packing && ends_with(t->name, refused[i].end))
            return fail("%s: tensor \"%s\": %s, which is not supported, as in mlx-lm; convert the model with "
                        "mlx_lm.convert from its unquantized form",
                        t->file, t->name, refused[i].why);
    return 0;
}

/* The name with another end; NULL when there is no memory. */
static const char *renamed(checkpoint *c, const char *name, const char *end, const char *by) {
    return arena_printf(c->arena, "%.*s%s", (int)(strlen(name) - strlen(end)), name, by);
}

/* Bytes [..., 4 n], seen as words [..., n]. */
static void bytes_as_words(array *a) {
    if (a->dtype != DTYPE_U8 || !a->rank || a->shape[a->rank - 1] % 4) return;
    a->dtype = DTYPE_U32;
    a->shape[a->rank - 1] /= 4;
}

/* compressed-tensors' names and types to MLX's (mlx-lm deepseek_v3.py, kimi_k3.py: sanitize). */
static int unpack_name(checkpoint *c, stored *t) {
    if (ends_with(t->name, ".weight_packed")) {
        t->name = renamed(c, t->name, ".weight_packed", ".weight");
        if (t->data.dtype == DTYPE_I32) t->data.dtype = DTYPE_U32;
        bytes_as_words(&t->data);
    } else if (ends_with(t->name, ".weight_scale")) {
        t->name = renamed(c, t->name, ".weight_scale", ".scales");
    }
    return t->name ? 0 : -1;
}

int foreign_rename(checkpoint *c) {
    size_t kept = 0;
    if (c->packing != PACKED_INT4 && c->packing != PACKED_MXFP4 && c->packing != PACKED_NVFP4) return 0;
    for (size_t i = 0; i < c->n_tensors; i++) {
        stored t = c->tensors[i];
        if (check_loadable(c, &t)) return -1;
        if (ends_with(t.name, ".weight_shape")) continue;
        if (c->packing != PACKED_NVFP4 && unpack_name(c, &t)) return -1;
        c->tensors[kept++] = t;
    }
    c->n_tensors = kept;
    return 0;
}
