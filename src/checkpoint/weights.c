/* weights.c - taking weights from the table: by mlx-lm's names, in the shape the model wants.
 * Data stays where the file mapping has it, except for experts that are stored one by one. */
#include "checkpoint/internal.h"

#include <stdio.h>
#include <string.h>

enum { NAME_SIZE = 256 };

static const char *place(const checkpoint *c) {
    return c->folder ? c->folder : c->config_name;
}

/* The name of a module's part into name[NAME_SIZE]. */
static int join_name(char *name, const char *path, const char *part) {
    int n = snprintf(name, NAME_SIZE, "%s.%s", path, part);
    return n < 0 || n >= NAME_SIZE ? fail("the tensor name \"%s.%s\" is too long", path, part) : 0;
}

static bool same_shape(const array *a, int rank, const int64_t *shape) {
    return a->rank == rank && !memcmp(a->shape, shape, (size_t)rank * sizeof *shape);
}

/* What is stored in another form, turned into what the model takes. */
static int make_ready(checkpoint *c, stored *t) {
    return slice_take(c, t) || fp8_convert(c, t) ? -1 : 0;
}

/* ---- facts about what was taken ---- */

static void count_kind(checkpoint *c, const matrix *m) {
    weight_kind kind = {.kind = m->kind,
                        .bits = m->bits,
                        .group_size = m->group_size,
                        .dtype = m->kind == MATRIX_PLAIN ? m->values.dtype : 0};
    int i = 0;
    while (i < c->n_kinds && (c->kinds[i].kind != kind.kind || c->kinds[i].bits != kind.bits ||
                              c->kinds[i].group_size != kind.group_size || c->kinds[i].dtype != kind.dtype))
        i++;
    if (i == MAX_WEIGHT_KINDS) return;
    if (i == c->n_kinds) c->kinds[c->n_kinds++] = kind;
    c->kinds[i].bytes += (int64_t)matrix_bytes(m);
}

static void count_weight(checkpoint *c, const matrix *m) {
    int64_t n = 1;
    for (int i = 0; i < m->rank; i++) n *= m->shape[i];
    c->parameters += n;
    c->bytes += (int64_t)matrix_bytes(m);
    if (m->rank > 1) count_kind(c, m); /* vectors are never quantized: they say nothing */
}

int64_t checkpoint_parameters(const checkpoint *c) {
    return c->parameters;
}

int64_t checkpoint_bytes(const checkpoint *c) {
    return c->bytes;
}

static const char *plain_name(dtype type) {
    return type == DTYPE_F32 ? "f32" : type == DTYPE_F16 ? "f16" : "bf16";
}

const char *checkpoint_quantization(checkpoint *c) {
    const char *text = "";
    int64_t below = INT64_MAX; /* each turn: the biggest kind smaller than the last; equal ones by index */
    int last = -1;
    for (int turn = 0; turn < c->n_kinds; turn++) {
        int best = -1;
        for (int i = 0; i < c->n_kinds; i++) {
            bool left = c->kinds[i].bytes < below || (c->kinds[i].bytes == below && i > last);
            if (left && (best < 0 || c->kinds[i].bytes > c->kinds[best].bytes)) best = i;
        }
        const weight_kind *k = &c->kinds[best];
        const char *plus = turn ? " + " : "";
        if (k->kind == MATRIX_AFFINE)
            text = arena_printf(c->arena, "%s%s%d-bit g%d", text, plus, k->bits, k->group_size);
        else
            text = arena_printf(c->arena, "%s%s%s", text, plus,
                                k->kind == MATRIX_PLAIN ? plain_name(k->dtype) : matrix_kind_name(k->kind));
        if (!text) return "";
        below = k->bytes;
        last = best;
    }
    return text;
}

/* ---- plain tensors ---- */

static int missing(const checkpoint *c, const char *name, int rank, const int64_t *shape) {
    char wanted[96];
    return fail("%s: tensor \"%s\" is missing (wanted shape %s)", place(c), name,
                shape_text(wanted, sizeof wanted, rank, shape));
}

/* out: the tensor as a plain matrix of that shape. type: what the file calls its type. */
static int plain_matrix(const char *file, const char *name, const char *type, const array *a, int rank,
                        const int64_t *shape, matrix *out) {
    char wanted[96], found[96];
    if (!same_shape(a, rank, shape))
        return fail("%s: tensor \"%s\": wanted shape %s, found %s", file, name,
                    shape_text(wanted, sizeof wanted, rank, shape),
                    shape_text(found, sizeof found, a->rank, a->shape));
    if (a->dtype != DTYPE_F32 && a->dtype != DTYPE_F16 && a->dtype != DTYPE_BF16)
        return fail("%s: tensor \"%s\" %s: wanted type F32, F16 or BF16, found %s", file, name,
                    shape_text(found, sizeof found, a->rank, a->shape), type);
    *out = (matrix){.rank = rank, .values = *a};
    memcpy(out->shape, shape, (size_t)rank * sizeof *shape);
    return 0;
}

bool checkpoint_has_shape(const checkpoint *c, const char *name, int rank, const int64_t *shape) {
    const stored *t = find_stored(c, name);
    return t && same_shape(&t->data, rank, shape);
}

int checkpoint_plain(checkpoint *c, const char *name, int rank, const int64_t *shape, matrix *out) {
    if (c->synthetic.enabled) {
        if (synthetic_plain(c, name, rank, shape, out)) return -1;
        count_weight(c, out);
        return 0;
    }
    stored *t = find_stored(c, name);
    if (!t) return missing(c, name, rank, shape);
    if (make_ready(c, t)) return -1;
    if (plain_matrix(t->file, name, t->type, &t->data, rank, shape, out)) return -1;
    if (t->heads && gguf_take(c, t, out)) return -1;
    if (c->packing == PACKED_BY_AWQ && packed_convert(c, name, out)) return -1;
    if (!t->used) count_weight(c, out);
    t->used = true;
    return 0;
}

int checkpoint_norm(checkpoint *c, const char *name, int64_t n, float center, matrix *out) {
    if (!c->synthetic.enabled) return checkpoint_plain(c, name, 1, &n, out);
    if (synthetic_norm(c, name, n, center, out)) return -1;
    count_weight(c, out);
    return 0;
}

/* ---- parts of a module: one tensor, or one per expert ---- */

/* path.part, as it is or stacked. */
typedef struct module_part {
    stored *tensor; /* NULL: stacked or absent */
    array data;
    char name[NAME_SIZE]; /* of the (first) tensor */
    const char *file, *type;
    bool used; /* it had been taken before */
} module_part;

/* The name of expert e's own tensor for P.switch_mlp.NAME, or P.experts.NAME:
 * P.experts.E.NAME.part. -1 when path is none. */
static int expert_name(char *name, const char *path, const char *part, int64_t e) {
    const char *key = ".switch_mlp.", *at = strstr(path, key);
    if (!at) at = strstr(path, key = ".experts.");
    if (!at) return -1;
    int n = snprintf(name, NAME_SIZE, "%.*s.experts.%lld.%s.%s", (int)(at - path), path, (long long)e,
                     at + strlen(key), part);
    return n < 0 || n >= NAME_SIZE ? -1 : 0;
}

/* Copies the experts' tensors one after another (qwen3_moe.py: sanitize), and gives the originals'
 * pages back, so that the weights are never there twice. */
static int stack_experts(checkpoint *c, const char *path, const char *part, int64_t n_experts,
                         module_part *out) {
    char name[NAME_SIZE];
    stored *first = find_stored(c, out->name);
    size_t bytes;
    if (make_ready(c, first)) return -1;
    if (n_experts <= 0 || __builtin_mul_overflow(first->bytes, (size_t)n_experts, &bytes))
        return fail("%s: %lld experts of %zu bytes", path, (long long)n_experts, first->bytes);
    int rank = first->data.rank;
    if (rank < 1 || rank > 2 || !dtype_size(first->data.dtype))
        return fail("%s: tensor \"%s\" of type %s cannot be stacked", first->file, first->name, first->type);
    char *memory = NULL;
    for (int64_t e = 0; e < n_experts; e++) {
        if (expert_name(name, path, part, e)) return fail("the tensor name \"%s\" is too long", path);
        stored *t = find_stored(c, name);
        if (!t) return missing(c, name, rank, first->data.shape);
        if (make_ready(c, t)) return -1;
        if (t->data.dtype != first->data.dtype || !same_shape(&t->data, rank, first->data.shape))
            return fail("%s: tensor \"%s\" has another type or shape than that of expert 0", t->file, name);
        if (!memory && !(memory = own_memory(c, bytes, path))) return -1;
        if (!c->sizes_only) {
            memcpy(memory + (size_t)e * t->bytes, t->data.data, t->bytes);
            file_map_release(t->data.data, t->bytes);
        }
        out->used |= t->used;
        t->used = true;
    }
    out->data = (array){.dtype = first->data.dtype,
                        .rank = rank + 1,
                        .shape = {n_experts, first->data.shape[0], first->data.shape[1]},
                        .data = memory};
    return 0;
}

/* 1 found, 0 absent, -1 error. n_experts: 0 unless the module has experts. */
static int find_part(checkpoint *c, const char *path, const char *part, int64_t n_experts, module_part *out) {
    *out = (module_part){0};
    if (join_name(out->name, path, part)) return -1;
    stored *t = find_stored(c, out->name);
    bool whole = t != NULL;
    if (!t && n_experts && !expert_name(out->name, path, part, 0)) t = find_stored(c, out->name);
    if (!t) return join_name(out->name, path, part);
    if (make_ready(c, t)) return -1;
    out->file = t->file;
    out->type = t->type;
    if (!whole) return stack_experts(c, path, part, n_experts, out) ? -1 : 1;
    out->tensor = t;
    out->data = t->data;
    out->used = t->used;
    t->used = true;
    return 1;
}

/* ---- matrices ---- */

/* nvfp4 with one more scale for each expert, as mlx-lm's QuantizedSwitchLinear may have it. */
static int check_no_global_scale(const checkpoint *c, const char *path) {
    char name[NAME_SIZE];
    if (join_name(name, path, "global_scale")) return -1;
    if (!find_stored(c, name)) return 0;
    return fail(
        "%s: tensor \"%s\": nvfp4 with a scale of the whole is not supported (MLX multiplies with it on "
        "a GPU alone); quantize the model without it",
        place(c), name);
}

static int quantized_matrix(checkpoint *c, const char *path, const module_part *weight,
                            const module_part *scales, matrix *out) {
    int64_t experts = out->rank == 3 ? out->shape[0] : 0;
    out->values = weight->data;
    out->scales = scales->data;
    if (c->packing == PACKED_INT4) {
        if (int4_biases(c, path, &out->scales, &out->biases) || quantization_infer(c, path, out)) return -1;
        if (out->bits == 4) return 0;
        return fail("%s: module %s has %d bits; of pack-quantized weights only those with 4 are supported",
                    c->config_name, path, out->bits);
    }
    if (scales->data.dtype != DTYPE_U8) { /* affine */
        module_part biases;
        int found = find_part(c, path, "biases", experts, &biases);
        if (found < 0) return -1;
        if (!found) return missing(c, biases.name, scales->data.rank, scales->data.shape);
        out->biases = biases.data;
    } else if (check_no_global_scale(c, path)) {
        return -1;
    }
    return quantization_infer(c, path, out);
}

static int take_matrix(checkpoint *c, const char *path, int rank, const int64_t *shape, matrix *out,
                       bool *again) {
    module_part weight, scales;
    int64_t experts = rank == 3 ? shape[0] : 0;
    int found = 0;
    if (c->packing == PACKED_BY_AWQ) found = packed_take(c, path, rank, shape, out, again);
    if (c->packing == PACKED_BITNET) found = bitnet_take(c, path, rank, shape, out, again);
    if (found) return found < 0 ? -1 : 0;
    found = find_part(c, path, "weight", experts, &weight);
    if (found < 0) return -1;
    if (!found) return missing(c, weight.name, rank, shape);
    *again = weight.used;
    *out = (matrix){.rank = rank};
    memcpy(out->shape, shape, (size_t)rank * sizeof *shape);

    const stored *t = weight.tensor;
    if (t && (t->blocks || t->heads)) {
        char wanted[96], have[96];
        if (!same_shape(&t->data, rank, shape))
            return fail("%s: tensor \"%s\": wanted shape %s, found %s", t->file, t->name,
                        shape_text(wanted, sizeof wanted, rank, shape),
                        shape_text(have, sizeof have, t->data.rank, t->data.shape));
        return gguf_take(c, t, out);
    }
    found = quantization_denied(c, path) ? 0 : find_part(c, path, "scales", experts, &scales);
    if (found < 0) return -1;
    if (found) return quantized_matrix(c, path, &weight, &scales, out);
    const json *module = module_quantization(c, path);
    if (module && !quantization_denied(c, path))
        return fail("%s: module %s is quantized, but tensor \"%s\" is missing", c->config_name, path,
                    scales.name);
    if (plain_matrix(weight.file, weight.name, weight.type, &weight.data, rank, shape, out)) return -1;
    return c->packing == PACKED_BY_AWQ ? packed_convert(c, weight.name, out) : 0;
}

static int take_any(checkpoint *c, const char *path, int rank, const int64_t *shape, int least_bits,
                    matrix *out) {
    bool again = false;
    if (c->synthetic.enabled ? synthetic_matrix(c, path, rank, shape, least_bits, out)
                             : take_matrix(c, path, rank, shape, out, &again))
        return -1;
    if (!again) count_weight(c, out);
    return 0;
}

int checkpoint_matrix(checkpoint *c, const char *path, int rank, const int64_t *shape, matrix *out) {
    return take_any(c, path, rank, shape, 0, out);
}

int checkpoint_router(checkpoint *c, const char *path, int64_t n_experts, int64_t in, matrix *out) {
    return take_any(c, path, 2, (int64_t[]){n_experts, in}, 8, out);
}

int checkpoint_expert_biases(checkpoint *c, const char *path, int64_t n_experts, int64_t n, matrix *out) {
    const int64_t shape[] = {n_experts, n};
    char name[NAME_SIZE];
    module_part all;
    if (join_name(name, path, "bias")) return -1;
    if (c->synthetic.enabled || find_stored(c, name)) return checkpoint_plain(c, name, 2, shape, out);
    int found = find_part(c, path, "bias", n_experts, &all);
    if (found < 0) return -1;
    if (!found) return missing(c, name, 2, shape);
    if (plain_matrix(all.file, all.name, all.type, &all.data, 2, shape, out)) return -1;
    if (!all.used) count_weight(c, out);
    return 0;
}
