/* family.h - what an architecture family is made of, and the helpers its file uses (private to model/).
 * A family's file reads its config fields, names its weights and writes its block as a formula; nothing else.
 */
#ifndef MODEL_FAMILY_H
#define MODEL_FAMILY_H

#include "model/model.h"

typedef struct model_family model_family;

struct model {
    const model_family *family;
    engine *engine;
    arena *arena; /* everything below lives in it */
    model_info info;
    dtype kv_dtype; /* of keys and values */
    void *parts;    /* the family's own structure */
};

/* Loading reads config fields and weights through this. The first error sticks: later calls do nothing and
 * return zero values, so a family's load function is a plain list and checks `failed` once. */
typedef struct loader {
    model *model;
    checkpoint *checkpoint;
    const json *config;
    const char *name; /* of the config file, for messages */
    bool failed;
} loader;

struct model_family {
    const char *model_type; /* config.json's */
    void (*load)(loader *l);
    tensor (*forward)(const model *m, graph *g, tensor ids, cache *const caches[]);
    int64_t (*window)(const model *m,
                      int64_t layer); /* sliding window of that layer's cache, 0: none; NULL: the model
                                         leaves its caches to the user (mlx-lm: no make_cache) */
};

/* One line per family in registry.c. */
extern const model_family llama_family, qwen2_family, qwen3_family, gemma3_text_family, qwen3_moe_family;

/* ---- config.json fields ---- */

enum { MAX_LAYERS = 4096, MAX_DIM = 1 << 20, MAX_VOCAB = 1 << 24 };

int64_t config_int(loader *l, const char *key, int64_t min, int64_t max);
int64_t config_int_or(loader *l, const char *key, int64_t min, int64_t max, int64_t otherwise);
double config_float_or(loader *l, const char *key, double otherwise);
bool config_bool_or(loader *l, const char *key, bool otherwise);
double config_float(loader *l, const char *key);

/* Records that a config field has a value that is not supported. */
void config_refuse(loader *l, const char *key, const char *why);

/* The fields every decoder has: hidden_size, num_hidden_layers, vocab_size, heads, rms_norm_eps ->
 * model->info. head_dim defaults to hidden_size / num_attention_heads, num_key_value_heads to
 * num_attention_heads. */
void config_decoder(loader *l);

/* Zeroed memory that lives as long as the model; NULL once loading has failed. */
void *model_alloc(loader *l, size_t n, size_t size);

/* ---- weights, by parameter names with %lld for the layer ---- */

const weight *load_linear(loader *l, int64_t out, int64_t in, bool bias, const char *path, ...)
    PRINTF_LIKE(5, 6);
const weight *load_experts(loader *l, int64_t n, int64_t out, int64_t in, const char *path, ...)
    PRINTF_LIKE(5, 6);
const weight *load_norm(loader *l, int64_t n, bool plus_one, const char *path, ...) PRINTF_LIKE(4, 5);

/* ---- rope ---- */

/* Rotates all of head_dim. mlx-lm rope_utils.py: initialize_rope. scaling: config.json's rope_scaling, or
 * NULL. */
const rope_spec *load_rope(loader *l, double base, bool traditional, const json *scaling);

/* ---- parts that several families share ---- */

/* Self-attention with grouped heads; q_norm and k_norm (per head, before rope) may be NULL. */
typedef struct attention {
    const weight *q, *k, *v, *o, *q_norm, *k_norm;
    const rope_spec *rope;
    int n_heads, n_kv_heads;
    float scale, eps;
} attention;

/* Loads model.layers.LAYER.self_attn.*, dimensions from model->info. */
typedef struct attention_options {
    bool qkv_bias, o_bias, qk_norm, norm_plus_one;
    double scale; /* 0: head_dim ** -0.5 */
} attention_options;
attention load_attention(loader *l, int64_t layer, const rope_spec *rope, float eps,
                         attention_options options);
tensor attend_self(graph *g, const attention *a, tensor x, cache *c);

/* down(act(gate(x)) * up(x)). */
typedef struct mlp {
    const weight *gate, *up, *down;
    activation act;
} mlp;
mlp load_mlp(loader *l, int64_t layer, int64_t intermediate_size, bool bias, activation act);
tensor feed_forward(graph *g, const mlp *m, tensor x);

/* Llama's block, which many families keep: h = x + attention(norm(x)); out = h + mlp(norm(h)). */
typedef struct block {
    attention attention;
    mlp mlp;
    const weight *input_layernorm, *post_attention_layernorm;
    float eps;
} block;
block load_block(loader *l, int64_t layer, const rope_spec *rope, float eps, attention_options options,
                 int64_t intermediate_size, bool mlp_bias);
tensor run_block(graph *g, const block *b, tensor x, cache *c);

/* model.embed_tokens, model.norm and lm_head (the embedding when tied). */
typedef struct ends {
    const weight *embed_tokens, *norm, *lm_head;
    float eps;
} ends;
ends load_ends(loader *l, bool tied, float eps, bool norm_plus_one);
tensor logits_of(graph *g, const ends *e, tensor x);

#endif
