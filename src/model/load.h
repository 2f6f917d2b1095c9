/* load.h - reading config.json's fields and taking weights, with errors that stick (private to
 * model/). So that a description reads as the list of what an architecture has.
 */
#ifndef MODEL_LOAD_H
#define MODEL_LOAD_H

#include "model/model.h"

/* The first error sticks: later calls do nothing and return zero values, or the least that was
 * allowed, which may be divided by; so a description is a plain list and `failed` is checked
 * once. */
typedef struct loader {
    checkpoint *checkpoint;
    engine *engine;
    arena *arena;       /* what is loaded lives in it */
    const json *config; /* of the text model, when config.json wraps it */
    const char *name;   /* of the config file, for messages */
    char prefix[64];    /* goes before the names of weights: "model.layers.3." */
    dtype activations;  /* of what enters the layer that is loaded */
    struct made_rope *ropes;
    bool noted_rope; /* the note on rope_parameters was made */
    bool failed;
} loader;

/* Zeroed memory that lives as long as the model; NULL once loading has failed. */
void *load_alloc(loader *l, size_t n, size_t size);

/* ---- config.json fields ---- */

enum { MAX_LAYERS = 4096, MAX_HEADS = 4096, MAX_DIM = 1 << 20, MAX_VOCAB = 1 << 24 };

/* config_X reads a field that must be there, config_X_or one that has a default. */
int64_t config_int(loader *l, const char *key, int64_t min, int64_t max);
int64_t config_int_or(loader *l, const char *key, int64_t min, int64_t max, int64_t otherwise);
double config_float(loader *l, const char *key);
double config_float_or(loader *l, const char *key, double otherwise);
bool config_bool(loader *l, const char *key);
bool config_bool_or(loader *l, const char *key, bool otherwise);

/* A field of the object `key`. */
double config_float_in(loader *l, const char *object, const char *key);

int64_t config_int_in(loader *l, const char *object, const char *key, int64_t min, int64_t max);

/* Is the number n in the list `key`? Not when there is no list. */
bool config_list_has(loader *l, const char *key, int64_t n);

/* Entry i of a list with one entry per layer; NULL when config.json has no such list. */
const json *config_per_layer(loader *l, const char *key, int64_t i, int64_t n_layers);

/* Records that a field has a value that is not supported. */
void config_refuse(loader *l, const char *key, const char *why);

/* ---- weights; NAME is what follows the loader's prefix ---- */

typedef struct linear_shape {
    int64_t out, in;
    bool bias;
} linear_shape;
const weight *load_linear(loader *l, linear_shape shape, const char *name);

/* ... that chooses experts (checkpoint_router). */
const weight *load_router(loader *l, linear_shape shape, const char *name);

/* One matrix per expert: [n, shape.out, shape.in]; biases [n, shape.out]. */
const weight *load_experts(loader *l, int64_t n, linear_shape shape, const char *name);

/* What makes keys ([n_heads, rank, nope]) and values ([n_heads, v_dim, rank]) of latents: as mlx-lm
 * has them, MODULE.embed_q and MODULE.unembed_out, or as published, MODULE.kv_b_proj. */
void load_kv_b(loader *l, const char *module, const kv_b_shape *shape, const weight **embed_q,
               const weight **unembed_out);

/* A convolution of each of n features by itself, over `kernel` rows: [n, kernel], stored as [n,
 * kernel, 1] or, as published, [n, 1, kernel]. */
const weight *load_conv(loader *l, int64_t n, int64_t kernel, bool bias, const char *name);

/* A vector of n that a norm multiplies with; offset is added to it (1: Gemma's 1 + w). */
const weight *load_norm(loader *l, int64_t n, double offset, const char *name);

/* A LayerNorm's vector of n, to which offset is added, and perhaps its bias. */
const weight *load_layer_norm(loader *l, int64_t n, double offset, bool bias, const char *name);

/* A vector of n by its whole name, which has no ".weight". */
const weight *load_vector(loader *l, int64_t n, const char *name);

/* A vector of n by its whole name, stored as one or in that shape. */
const weight *load_shaped(loader *l, int64_t n, int rank, const int64_t *shape, const char *name);

/* One number by its whole name, stored as [] or [1]; as a vector of 1. */
const weight *load_number(loader *l, const char *name);

/* [rows, cols], as a vector of rows * cols. */
const weight *load_flat(loader *l, int64_t rows, int64_t cols, const char *name);

/* n vectors, NAME.0.weight and so on, as one of n * each. */
const weight *load_list(loader *l, int64_t n, int64_t each, const char *name);

/* A vector of n for each head and a number that is added, NAME.weight [heads, n] and NAME.bias, by
 * its whole name (no prefix): what linear_heads multiplies with to get one number per head. */
const weight *load_head_dots(loader *l, int64_t heads, int64_t n, const char *name);

/* As load_vector, times factor. */
const weight *load_scaled_vector(loader *l, int64_t n, float factor, const char *name);

/* A vector of n factors by its whole name, each of them `each` times; rounded to the activations'
 * dtype, as mlx-lm's astype does where they are used. */
const weight *load_gain(loader *l, int64_t n, int64_t each, const char *name);

/* In F32, each number within -most .. most; most 0: as it is. */
const weight *load_clipped(loader *l, linear_shape shape, double most, const char *name);

/* ---- rope ---- */

/* What an architecture wants of rope; where config.json says more, that is read, too. */
typedef struct rope_wish {
    int64_t dims;           /* features that are rotated */
    double theta;           /* the base when config.json has none; 0: it must have one */
    const char *theta_key;  /* NULL: rope_theta */
    const char *layer_type; /* which entry of rope_parameters; NULL: they are the same for all layers */
    bool traditional;
    double
        proportional; /* without rope_parameters: so much of dims is rotated, in dims' frequencies; 0: all */
    bool nested;      /* mlx-lm's class reads rope_parameters, too */
    bool phi3; /* longrope's context is config.json's original_max_position_embeddings (mlx-lm phi3.py) */
    bool own_mscale;  /* longrope's factor may be rope_scaling's long_mscale (mlx-lm phimoe.py) */
    bool only_linear; /* any other scaling is ignored (mlx-lm deepseek.py) */
    bool negative;    /* plain, turned the other way (mlx-lm nanochat.py) */
    bool powers;      /* those are powers of the base as they are of variants (mlx-lm talkie.py) */
    bool alpha; /* the base grows by rope_scaling's "alpha" alone (mlx-lm hunyuan.py: DynamicNTKAlphaRoPE) */
    const char *type; /* of its scaling, whatever config.json says (mlx-lm deepseek_v2.py, minicpm3.py) */
    bool plain;       /* whatever rope_scaling says is ignored, as mlx-lm's class ignores it */
} rope_wish;

/* mlx-lm rope_utils.py: initialize_rope. Equal wishes give the same spec. rope_parameters, where
 * transformers 5 writes rope_theta and rope_scaling, is read where those two are missing. */
const rope_spec *read_rope(loader *l, const rope_wish *wish);

#endif
