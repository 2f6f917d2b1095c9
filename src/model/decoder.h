/* decoder.h - what a decoder is made of: an architecture fills in a description, one loader takes the weights
 * that it names, one function runs it (private to model/).
 */
#ifndef MODEL_DECODER_H
#define MODEL_DECODER_H

#include "model/load.h"

/* ---- the description ---- */

/* Which norms the query and key have: none, one per head before rope, one over all heads before rope, one per
 * head after rope. */
typedef enum qk_norm { QK_NONE, QK_HEADS, QK_WIDTH, QK_AFTER_ROPE } qk_norm;

typedef struct attention_desc {
    int64_t n_heads, n_kv_heads, head_dim;
    double scale;          /* 0: head_dim ** -0.5 */
    const rope_spec *rope; /* NULL: no positions */
    qk_norm qk_norm;
    bool qk_weightless; /* these norms only divide */
    bool qkv_bias, o_bias;
    int64_t window; /* tokens a layer sees; 0: all */
} attention_desc;

/* Routing and experts: n 0 is none. */
typedef struct moe_desc {
    int64_t n, k, width;
    bool renormalize;
} moe_desc;

typedef enum ffn_kind { FFN_GATED, FFN_EXPERTS } ffn_kind;

typedef struct ffn_desc {
    ffn_kind kind;
    int64_t width; /* intermediate_size */
    activation act;
    bool bias;
    moe_desc moe;
} ffn_desc;

/* Where norms stand: before attention and feed-forward, after them (before the sum), or both. */
typedef enum places { PLACES_PRE, PLACES_POST, PLACES_SANDWICH } places;

typedef struct layer_desc {
    attention_desc attention;
    ffn_desc ffn;
    places places;
    double residual; /* what attention and feed-forward are multiplied with before the sum; 0: nothing */
    bool clip;       /* sums saturate in F16 */
} layer_desc;

/* Names of weights in mlx-lm's modules. The second part is a layer's, after "LAYERS.N.". */
typedef struct names {
    const char *embed, *norm, *head, *layers;

    const char *q, *k, *v, *o, *q_norm, *k_norm;
    const char *pre, *post, *ffn_pre, *ffn_post; /* norms; pre only where `places` says so, and so on */
    const char *gate, *up, *down;
    const char *router, *experts; /* experts: its gate_proj, up_proj and down_proj */
} names;

typedef struct desc {
    int64_t hidden, n_layers, vocab;
    float eps;          /* of all norms */
    double norm_offset; /* 1: norms weigh with 1 + w */
    names names;
    double embed_scale; /* 0: none */
    bool tied;          /* the head is the embedding */
    bool own_caches;    /* mlx-lm's class has make_cache: max_kv_size has no effect */
    layer_desc layer;   /* what all layers are made from */
} desc;

/* ---- what is loaded ---- */

typedef struct attention {
    attention_desc d;
    const weight *q, *k, *v, *o, *q_norm, *k_norm;
} attention;

typedef struct ffn {
    ffn_desc d;
    const weight *gate, *up, *down; /* of the experts, if there are some */
    const weight *router;
} ffn;

typedef struct layer {
    attention attention;
    ffn ffn;
    const weight *pre, *post, *ffn_pre, *ffn_post; /* NULL: there is no such norm */
    float eps, residual;
    bool clip;
    dtype kv_dtype; /* of keys and values */
} layer;

typedef struct decoder {
    desc d;
    const weight *embed, *norm, *head;
    layer *layers;
} decoder;

/* ---- architectures ---- */

/* One line in registry.c. */
typedef struct architecture {
    const char *model_type; /* config.json's */
    const char *known;      /* well-known checkpoints, for people */
    void (*describe)(loader *l, desc *d);
    /* Changes *out, a copy of d->layer, into layer i. NULL: all layers are alike. */
    void (*layer)(loader *l, const desc *d, int64_t i, layer_desc *out);

} architecture;

/* The descriptions, by file. */
void describe_llama(loader *l, desc *d);
void layer_llama(loader *l, const desc *d, int64_t i, layer_desc *out);
void describe_qwen2(loader *l, desc *d);
void describe_qwen3(loader *l, desc *d);
void describe_gemma3(loader *l, desc *d);
void layer_gemma3(loader *l, const desc *d, int64_t i, layer_desc *out);
void describe_qwen3_moe(loader *l, desc *d);
void layer_qwen3_moe(loader *l, const desc *d, int64_t i, layer_desc *out);

/* ---- helpers of descriptions ---- */

/* Fields that config.json may leave out, and what they are then; 0: it must have it (head_dim 0:
 * hidden_size / heads, kv_heads 0: heads). */
typedef struct decoder_defaults {
    int64_t hidden, n_layers, vocab, n_heads, n_kv_heads, head_dim, width;
    double eps;
} decoder_defaults;

/* What every decoder has: sizes, heads, rms_norm_eps, intermediate_size, default names, norms before. */
void read_decoder(loader *l, desc *d);
void read_decoder_or(loader *l, desc *d, const decoder_defaults *defaults);

/* layer_types[i] is "sliding_attention". Without layer_types: `otherwise`. */
bool is_sliding(loader *l, const desc *d, int64_t i, bool otherwise);

extern const names default_names;

/* ---- the parts ---- */

void load_attention(loader *l, const desc *d, const attention_desc *in, attention *out);
tensor run_attention(graph *g, const attention *a, tensor x, float eps, cache *c);

void load_ffn(loader *l, const desc *d, const ffn_desc *in, ffn *out);
tensor run_ffn(graph *g, const ffn *f, tensor x);

/* ---- the whole ---- */

void decoder_load(loader *l, const architecture *a, decoder *out);
tensor decoder_forward(const decoder *m, graph *g, tensor ids, cache *const caches[]);

#endif
