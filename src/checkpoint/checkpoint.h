/* checkpoint.h - a model's files as configuration plus named weights: a Hugging Face / MLX folder,
 * a GGUF file, or random weights of a real model's shapes ("synthetic:PRESET"). All give the same
 * names and layouts. Files are mapped; a weight's data is borrowed from the checkpoint and lives
 * until checkpoint_close. */
#ifndef CHECKPOINT_CHECKPOINT_H
#define CHECKPOINT_CHECKPOINT_H

#include "base/base.h"

typedef struct checkpoint checkpoint;

/* Opens path: a folder (config.json + model*.safetensors), a file (GGUF), or "synthetic:PRESET".
 * seed is for synthetic weights only. NULL with one clear message on anything malformed.
 * checkpoint_close(NULL) is harmless. */
checkpoint *checkpoint_open(const char *path, uint64_t seed);
void checkpoint_close(checkpoint *c);

/* config.json (for GGUF: made from the metadata with config.json's field names; for synthetic: the
 * preset's, with "quantization" as the suffix says). Lives as long as the checkpoint. */
const json *checkpoint_config(const checkpoint *c);

/* For messages: the path of config.json, the GGUF file or the preset. */
const char *checkpoint_config_name(const checkpoint *c);
bool checkpoint_is_synthetic(const checkpoint *c);
bool checkpoint_is_gguf(const checkpoint *c);

/* The folder that holds tokenizer.json; NULL for GGUF and synthetic. */
const char *checkpoint_folder(const checkpoint *c);

/* End-of-sequence ids: generation_config.json's eos_token_id over config.json's (one or a list), as
 * mlx-lm. Returns how many were written, at most max. */
int checkpoint_eos_ids(const checkpoint *c, int32_t *ids, int max);

/* The vocabulary a GGUF file carries; NULL for the others. Lives as long as the checkpoint. */
const gguf_vocabulary *checkpoint_vocab(const checkpoint *c);

/* What a user should know of how the files were read, i = 0, 1, ... until NULL. */
const char *checkpoint_note(const checkpoint *c, int i);

/* Adds one. -1 when there is no memory. */
int checkpoint_add_note(checkpoint *c, const char *format, ...) PRINTF_LIKE(2, 3);

/* ---- names ---- */

/* How published names become mlx-lm's. A list ends with {NAME_END}; all rules apply to a name, in
 * their order. */
typedef enum name_rule_kind {
    NAME_END,
    NAME_DROP,      /* a tensor whose name begins with `from` is left out */
    NAME_DROP_PART, /* ... whose name contains `from` */
    NAME_DROP_END,  /* ... whose name ends with `from` */
    NAME_START,     /* `from` at the beginning becomes `to` */
    NAME_PART,      /* `from` anywhere (the first time) becomes `to`; one "*" stands for a number, the same in
                       both */
} name_rule_kind;
typedef struct name_rule {
    name_rule_kind kind;
    const char *from, *to;
} name_rule;

/* Applies the rules, before any weight is taken, to tensors and to the modules that config.json's
 * quantization names. Tensors that were left out are counted in a note. */
int checkpoint_rename(checkpoint *c, const name_rule *rules);

/* Which rows of each expert's matrix. */
typedef enum slice_rows { ROWS_ALL, ROWS_FIRST_HALF, ROWS_SECOND_HALF, ROWS_EVEN, ROWS_ODD } slice_rows;

/* A tensor [experts, rows, ...] whose name ends with `from` has these rows of mlx-lm's tensor,
 * whose name ends with `to` instead; several may take from one. A list ends with {NULL}. */
typedef struct slice_rule {
    const char *from, *to;
    slice_rows rows;
    bool transposed; /* it is [experts, columns, rows], or [columns, rows] */
    bool packed;     /* its rows are groups of 16 bytes, which MLX has as words */
} slice_rule;

/* Applies them after checkpoint_rename and before any weight is taken. The data is copied when it
 * is. */
int checkpoint_slice(checkpoint *c, const slice_rule *rules);

/* Tensors [n * rows, ...] whose name contains `part` become [n, rows, ...]. Before
 * checkpoint_slice. */
int checkpoint_divide(checkpoint *c, const char *part, int64_t n);

/* Divides each column of the plain matrix `name` by its length + 1e-7, computed in F32. Before it
 * is taken.
 */
int checkpoint_unit_columns(checkpoint *c, const char *name);

/* Multiplies rows of the plain matrix `name`, run after run, with a * b; factors and products are
 * rounded to its type. Before it is taken. */
typedef struct row_factor {
    int64_t rows;
    double a, b;
} row_factor;
int checkpoint_multiply_rows(checkpoint *c, const char *name, const row_factor *factors, int n);

/* ---- weights, by mlx-lm's parameter names ---- */

/* Is there a tensor of that exact name? For synthetic checkpoints always false: optional tensors
 * are absent.
 */
bool checkpoint_has(const checkpoint *c, const char *name);

/* ... of that shape? */
bool checkpoint_has_shape(const checkpoint *c, const char *name, int rank, const int64_t *shape);

/* The parameter `name` exactly (norm weights, linear biases): plain, of that shape. */
int checkpoint_plain(checkpoint *c, const char *name, int rank, const int64_t *shape, matrix *out);

/* The weight of module `path` (path.weight, and path.scales / path.biases when quantized): rank 2
 * [out, in] or rank 3 [experts, out, in] logical shape. Bits and group size are inferred from the
 * shapes, config.json's per-module overrides win (mlx-lm utils.py: infer_quant_config). Errors name
 * the tensor, the wanted and the found shape. */
int checkpoint_matrix(checkpoint *c, const char *path, int rank, const int64_t *shape, matrix *out);

/* As checkpoint_plain of n, and as checkpoint_matrix of [n_experts, in]. They say what a synthetic
 * checkpoint is to make: weights of a norm lie around `center`, and a router of a quantized model
 * has 8 bits, as mlx-lm's quant_predicate of such models wants. */
int checkpoint_norm(checkpoint *c, const char *name, int64_t n, float center, matrix *out);
int checkpoint_router(checkpoint *c, const char *path, int64_t n_experts, int64_t in, matrix *out);

/* The biases [n_experts, n] of module `path`: one tensor, or one for each expert. */
int checkpoint_expert_biases(checkpoint *c, const char *path, int64_t n_experts, int64_t n, matrix *out);

/* Latent attention's kv_b_proj [n_heads * (nope + v_dim), rank], taken apart as mlx-lm does
 * (deepseek_v3.py: sanitize): embed_q [n_heads, rank, nope], unembed_out [n_heads, v_dim, rank], in
 * memory of the checkpoint's. */
typedef struct kv_b_shape {
    int64_t n_heads, nope, v_dim, rank;
} kv_b_shape;
typedef struct kv_b {
    matrix embed_q, unembed_out;
} kv_b;
int checkpoint_kv_b(checkpoint *c, const char *path, const kv_b_shape *shape, kv_b *out);

/* Tensors whose names contain `part` may stay unused (mlx-lm's sanitize drops them). */
int checkpoint_ignore(checkpoint *c, const char *part);

/* To be called when all weights were taken: -1 naming a surplus tensor that nothing used. */
int checkpoint_check_all_used(const checkpoint *c);

/* Bytes of all tensors in the files, before any is taken; 0 for synthetic ones, which are made one
 * by one. */
int64_t checkpoint_stored_bytes(const checkpoint *c);

/* For a synthetic checkpoint: the same once more, of weights without values, whose memory is never
 * touched. A model that is loaded from it tells by checkpoint_bytes what its weights will take.
 * NULL on error. */
checkpoint *checkpoint_sizes(const checkpoint *of);

/* Weights that are taken from now on and would be converted get memory of the right size, without
 * values. For who wants to know whether a model loads, and what it will take, at no cost. */
void checkpoint_skip_values(checkpoint *c);

/* Facts for results: parameters and bytes of the weights taken so far, and a short text such as
 * "4-bit g64", "8-bit g32 + 4-bit g32", "bf16". The text lives as long as the checkpoint. */
int64_t checkpoint_parameters(const checkpoint *c);
int64_t checkpoint_bytes(const checkpoint *c);
const char *checkpoint_quantization(checkpoint *c);

/* Names of the presets, for `mlxbench models`: calls each(context, name, config) until it returns
 * nonzero; config is NULL, and the error recorded, where a preset's file cannot be read. -1 when
 * the folder of presets is not found. */
int checkpoint_presets(int (*each)(void *context, const char *name, const json *config), void *context);

#endif
