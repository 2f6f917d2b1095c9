/* decoder.h - what a decoder is made of: an architecture fills in a description, one loader takes
 * the weights that it names, one function runs it (private to model/).
 */
#ifndef MODEL_DECODER_H
#define MODEL_DECODER_H

#include "model/load.h"

/* ---- the description ---- */

/* Which norms the query and key have: none, one per head before rope, one over all heads before
 * rope, one per head after rope; a norm without weight per head, then weights for all of them. */
typedef enum qk_norm { QK_NONE, QK_HEADS, QK_WIDTH, QK_AFTER_ROPE, QK_ALL_HEADS } qk_norm;

/* How query, key and value are stored: three matrices; one, with the rows of each after those of
 * the other; one, with the rows of a KV head's queries, its key and its value together. */
typedef enum packing { PACKING_SEPARATE, PACKING_ROWS, PACKING_GROUPS } packing;

/* What the result is multiplied with: a gate for each number, or one for each head; both from the
 * layer's input. IN_Q: the gate's rows stand beside each head's query. */
typedef enum out_gate { GATE_NONE, GATE_SIGMOID, GATE_SIGMOID_HEAD, GATE_SOFTPLUS_HEAD, GATE_IN_Q } out_gate;

typedef struct attention_desc {
    int64_t n_heads, n_kv_heads, head_dim;
    packing packing;
    out_gate gate;
    position_scale temperature; /* of queries after rope; n 0: none */
    double scale;               /* 0: head_dim ** -0.5 */
    double q_scale, v_scale;    /* of queries after their norm, of values; 0: none */
    double clip;                /* queries, keys and values are at most so large; 0: as large as they are */
    int64_t v_head_dim;         /* 0: head_dim */
    const rope_spec *rope;      /* NULL: no positions */
    qk_norm qk_norm;
    bool qk_weightless; /* these norms only divide */
    bool qk_layer_norm; /* these of all heads are LayerNorms */
    bool qk_each;       /* ... with the weights of each head by themselves */
    float qk_eps;       /* their eps; 0: the layer's */
    bool qkv_bias, o_bias, gate_bias;
    bool gate_f32; /* the sigmoid is computed in F32 */
    bool sinks;    /* one per head */
    bool out_norm; /* a norm before the output's matrix */
    bool f32;      /* attend_spec's; f32_of_f16: where the cache is F16 */
    bool f32_of_f16;
    bool tiled;     /* query head h uses KV head h mod n_kv_heads */
    bool fake_8bit; /* keys and values are rounded as 8 bits would keep them */
    bool v_norm;    /* a norm without weight on each value head */
    bool q_gain;    /* queries are multiplied with a factor per head after their norm */
    bool k_is_v;    /* values are keys before their norm and rope */
    float softcap;  /* of scores; 0: none */
    int64_t reads;  /* 1 + the layer whose keys and values it reads; 0: its own */
    bool borrows;   /* keys and values, before norms and rope, are those an earlier layer projected */
    int64_t window; /* tokens a layer sees; 0: all */
    bool one_more;  /* a token that comes with others sees one more than that */
    int64_t chunk;  /* a token sees those of its own chunk of the text; 0: there are none */
} attention_desc;

/* A short convolution in place of attention; kernel 0: there is none. */
typedef struct conv_desc {
    int64_t kernel;
    bool bias;
} conv_desc;

/* Where the parts of the gated delta rule are; decay_low and gate_low: what low_rank comes from. */
typedef struct delta_names {
    const char *q, *k, *v, *gate, *gate_low, *decay, *decay_low, *beta;
    const char *q_conv, *k_conv, *v_conv, *A_log, *dt_bias, *norm, *out;
} delta_names;

/* The gated delta rule in place of attention; n_v_heads 0: there is none. */
typedef struct delta_desc {
    int64_t n_k_heads, n_v_heads, k_dim, v_dim, kernel;
    bool by_key_head; /* one matrix with the rows of each key head together */
    bool separate;    /* matrices, convolutions and their states of query, key and value by themselves */
    const struct delta_names *names; /* of separate ones */
    bool by_feature;   /* every feature of a key has a decay of its own, and the gate is a sigmoid */
    bool sigmoid_f32;  /* it, and the one of beta, are computed in F32 */
    int64_t low_rank;  /* these decays and the gate come through so many numbers; 0: straight */
    float lower_bound; /* delta_spec's */
    bool negative_eigenvalues;
    float eps; /* of its norm; 0: the layer's */
} delta_desc;

/* Linear attention in place of attention; n_heads 0: there is none. */
typedef struct lightning_desc {
    int64_t n_heads, head_dim, norm_groups;
    const rope_spec *rope;
    const float *log_decays; /* [n_heads] */
    bool qk_norm, qkv_bias, o_bias, f32;
} lightning_desc;

/* Multi-head latent attention in place of attention; kv_rank 0: there is none. */
typedef struct latent_desc {
    const char *module, *out; /* NULL: "self_attn", "o_proj" */
    bool head_gate;           /* each head's result is multiplied with a sigmoid, computed in F32: "g_proj" */
    int64_t n_heads, q_rank,
        kv_rank; /* of the latents of queries (0: they have none) and of keys and values */
    int64_t nope_dim, rope_dim, v_dim; /* of a head: what is not rotated, what is, values */
    double scale, q_factor, kv_factor; /* of scores; of queries and latents, 0: none */
    const rope_spec *rope;             /* NULL: no positions */
    position_scale temperature;        /* of queries; n 0: none */
    float eps;                         /* of the norms on latents */
    bool bias;
    bool expanded;                        /* caches keep every head's keys and values, not latents */
    bool whole_keys;                      /* latent_spec's */
    int64_t index_heads, index_dim, topk; /* keys of their own select the entries; topk 0: none do */
    const rope_spec *index_rope;
} latent_desc;

/* A state space in place of attention, or beside it; n_heads 0: there is none. */
typedef enum ssm_norm {
    SSM_GATED,       /* only multiplied with the gate */
    SSM_NORM_GATED,  /* a norm, then the gate */
    SSM_GATED_NORM,  /* the gate, then a norm */
    SSM_GATED_GROUPS /* the gate, then a norm of each group by itself */
} ssm_norm;
typedef struct ssm_desc {
    const char *module; /* "mixer", "mamba" */
    int64_t n_heads, head_dim, n_groups, state_dim, kernel;
    bool by_head;    /* PLaMo 2: gate and input of a head lie together; with dt_rank, but heads of Mamba-2 */
    int64_t dt_rank; /* Mamba-1: B, C and dt come from the convolution's result, dt through so many
                        numbers; 0: Mamba-2, they come from the layer's input */
    bool in_bias, conv_bias, out_bias;
    ssm_norm norm;
    bool beside; /* attention to the same input is added, too */
    bool narrow_D;
    float eps;
    float dt_min, dt_max;
    bool part_norms;       /* Mamba-1: norms on dt, B and C */
    bool weightless_norms; /* which only divide */
} ssm_desc;

/* Routing and experts: n 0 is none. */
typedef struct moe_desc {
    int64_t n, width, shared;      /* shared: width of the MLP that all tokens run through, too; 0: none */
    route_spec route;              /* its bias comes with the weights */
    bool bias;                     /* there is one */
    bool expert_bias, router_bias; /* experts' matrices have biases; so has the router's */
    bool shared_gate;              /* the shared MLP is multiplied with a sigmoid of its own */
    bool f32;                      /* the router's input is in F32 */
    bool f32_scores;               /* the router's result is in F32 */
    bool own_shared_act;           /* the shared MLP has an activation of its own: */
    activation shared_act;
    double logit_cap, result_scale; /* of the router's result; of the experts' sum; 0: none */
    bool shared_fused;              /* its gate and up are one matrix */
    bool ungated;                   /* experts and shared MLP are down(act(up(x))) */
    bool coefficients; /* experts and shared MLP are weighed against each other, by a softmax of two */
    int64_t latent;    /* experts work on so many numbers of x's; 0: on x */
} moe_desc;

/* BOTH: gemma4.c. SHORTCUT: an MLP, and experts for the same input, whose result is added at the
 * end of the next layer. LINEAR: one matrix. */
typedef enum ffn_kind {
    FFN_GATED,
    FFN_PLAIN,
    FFN_EXPERTS,
    FFN_BOTH,
    FFN_SHORTCUT,
    FFN_LINEAR,
    FFN_NONE
} ffn_kind;

typedef struct ffn_desc {
    ffn_kind kind;
    int64_t width; /* intermediate_size */
    activation act;
    bool xielu; /* in place of act, with numbers of each layer's own */
    bool bias;
    bool fused;  /* gate and up are one matrix, gate first */
    bool sparse; /* gates count by what they are more than the mean and so many standard deviations: */
    float deviations;
    bool out_norm; /* a norm before the last matrix */
    moe_desc moe;
} ffn_desc;

/* Where norms stand: before attention and feed-forward, after them (before the sum), or both. Or
 * the two work side by side, on the result of one norm or each on its own's. */
typedef enum places { PLACES_PRE, PLACES_POST, PLACES_SANDWICH, PLACES_PARALLEL, PLACES_PARALLEL_TWO } places;

/* Several streams of the text (gemma3n.c); n 0: there is one. */
typedef struct altup_desc {
    int64_t n, active;  /* active: the one that layers compute on */
    double coef_clip;   /* coefficients are at most so large; 0: as large as they are */
    bool correct_scale; /* a vector scales what the layer's own input meets */
    int64_t laurel_rank;
} altup_desc;

typedef struct layer_desc {
    attention_desc attention;
    conv_desc conv;
    delta_desc delta;
    latent_desc latent;
    lightning_desc lightning;
    ssm_desc ssm;
    bool linear, linear_bias; /* one matrix in place of attention */
    bool only_ffn;            /* there is nothing but a feed-forward */
    ffn_desc ffn;
    places places;
    bool x_first;    /* of parallel places: the sum is (x + attention) + feed-forward */
    float eps;       /* of its norms; 0: the description's */
    bool scalar;     /* the layer's result is multiplied with a number of its own */
    double residual; /* what attention and feed-forward are multiplied with before the sum; 0: nothing */
    bool clip;       /* sums saturate in F16 */
    const struct names *names; /* where they are others than the description's; NULL: they are not */
    int64_t first;             /* the layer that is 0 in this one's list of layers */
} layer_desc;

/* Names of weights in mlx-lm's modules. The second part is a layer's, after "LAYERS.N.". */
typedef struct names {
    const char *embed, *positions, *norm, *head, *layers;

    const char *q, *k, *v, *qkv, *o, *q_norm, *k_norm, *out_gate, *sinks, *out_norm;
    const char *pre, *post, *ffn_pre, *ffn_post; /* norms; pre only where `places` says so, and so on */
    const char *linear, *ffn_linear;             /* in place of attention, of the feed-forward */
    const char *gate, *up, *gate_up, *down, *xielu, *mlp_norm;
    const char *router, *router_bias;
    const char *experts, *shared; /* their gate_proj, up_proj and down_proj */
    const char *shared_gate, *coefficients;
    const char *latent_in, *latent_out; /* of experts */
} names;

typedef struct desc {
    int64_t hidden, n_layers, vocab;
    float eps;                           /* of all norms */
    bool layer_norm, norm_bias;          /* norms are LayerNorms; they have biases */
    double norm_offset;                  /* 1: norms weigh with 1 + w */
    double post_offset, ffn_post_offset; /* those after attention and feed-forward; 0: the same */
    bool norm_weightless;                /* norms only divide */
    names names;
    int64_t positions;                           /* so many have rows of their own, which the embedding
                                                    gains; 0: none have */
    double embed_scale;                          /* 0: none; so for those below */
    double head_divide, logit_divide, logit_cap; /* what enters the head; what leaves it */
    double logit_scale;                          /* before logit_cap */
    float post_eps;                              /* of the norms after attention and feed-forward; 0: eps */
    bool last_norm_plain;                        /* without norm_offset */
    bool embed_norm;                             /* a norm without weights on the embedding */
    bool tied, head_bias;                        /* the head is the embedding; it has a bias */
    bool norm_head;                              /* the columns of a head of its own get the length 1 */
    bool gains;     /* what each layer's halves add, the embedding, which it adds, too, and the logits have
                       factors of their own (mlx-lm talkie.py) */
    int64_t halves; /* so many of these layers are one layer of mlx-lm's; 0: one */
    int64_t layer_inputs; /* width of each layer's own input from an embedding of all layers; 0: none
                             (gemma4.c) */
    int64_t layer_inputs_vocab;
    altup_desc altup;
    int64_t loops;       /* how often all layers run, each time with caches of their own; 0: once */
    int64_t loop_window; /* of two loops the second one attends to the first one's entries and, in a
                            window, to its own, and a gate for each head mixes the two; 0: it does not */
    bool loop_norm;      /* the last norm ends every loop, not only the last one */
    bool predicts_more;  /* checkpoints have layers more, which predict further tokens and are left out */
    const char *never_quantized; /* model_info's */
    bool ignores_kv_bits;        /* mlx-lm leaves its caches as they are, whatever kv_bits says */
    bool own_caches;             /* mlx-lm's class has make_cache: max_kv_size has no effect */
    layer_desc layer;            /* what all layers are made from */
} desc;

/* ---- what is loaded ---- */

typedef struct attention {
    attention_desc d;
    const weight *q, *k, *v, *qkv, *o, *q_norm, *k_norm, *gate, *sinks, *q_gain, *out_norm;
    const weight *k_step, *v_step; /* of fake_8bit */
    const weight *loop_gate;       /* of loop_window */
} attention;

typedef struct mlp {
    const weight *gate, *up, *gate_up, *down;
    const weight *norm; /* before down; NULL: none */
    float eps;
} mlp;

typedef struct ffn {
    ffn_desc d;
    mlp mlp; /* of experts: the shared one; LINEAR: down */
    xielu_spec xielu;
    const weight *gate, *up, *down; /* of the experts */
    const weight *router, *shared_gate, *coefficients, *expert_scale, *latent_in, *latent_out;
} ffn;

typedef struct conv_mixer {
    conv_desc d;
    const weight *in, *conv, *out;
} conv_mixer;

typedef struct delta {
    delta_desc d;
    const weight *qkv, *z, *b, *a, *qkvz, *ba, *conv, *norm, *out;
    const weight *q, *k, *v, *q_conv, *k_conv, *v_conv, *z_low, *a_low; /* separate */
    delta_spec rule;
} delta;

typedef struct latent_mixer {
    latent_desc d;
    const weight *gate;                                  /* of heads */
    const weight *q_a, *q_norm, *q, *kv_a, *kv_norm, *o; /* q: from q_a's result where there is one */
    const weight *kv_b;                                  /* of expanded caches, instead of rule's */
    latent_spec rule;
    const weight *index_q, *index_k, *index_norm, *index_weights; /* of what selects entries */
} latent_mixer;

typedef struct state_space {
    ssm_desc d;
    const weight *in, *conv, *norm, *out;
    const weight *parts, *dt, *dt_norm, *B_norm, *C_norm; /* Mamba-1 */
    ssm_spec rule;
} state_space;

typedef struct lightning {
    lightning_desc d;
    const weight *qkv, *q_norm, *k_norm, *gate, *norm, *o;
    lightning_spec rule;
} lightning;

typedef struct altup {
    altup_desc d;
    const weight *router_norm, *router, *predict, *correct, *scale;
    const weight *left, *right, *laurel_norm;
} altup;

typedef struct layer {
    attention attention;
    altup altup;
    latent_mixer latent;
    lightning lightning;
    conv_mixer conv;
    delta delta;
    state_space ssm;
    const weight *linear;
    bool only_ffn;
    ffn ffn;
    places places;
    bool layer_norm, x_first;
    const weight *pre, *post, *ffn_pre, *ffn_post;
    float eps, post_eps, residual;
    bool clip;
    dtype kv_dtype;                                           /* of keys and values */
    int64_t cache;                                            /* which of a loop's caches it reads */
    bool owns_cache;                                          /* it writes to it, too */
    const weight *scalar;                                     /* NULL: none */
    const weight *gain, *ffn_gain, *embed_gain;               /* desc's gains */
    const weight *input_gate, *input_projection, *input_norm; /* of its own input */
    const weight *router_norm;                                /* FFN_BOTH, and the norms below */
    const weight *mlp_post, *experts_pre, *experts_post;
} layer;

typedef struct decoder {
    desc d;
    const weight *embed, *positions, *norm, *head, *head_gain;
    const weight *layer_embed, *layer_projection, *layer_norm; /* of the layers' own inputs */
    const weight **stream_in, **stream_out;                    /* of all streams but the first */
    layer *layers;
    int64_t n_caches; /* in one loop */
} decoder;

/* ---- architectures ---- */

/* How a vision model's config.json holds that of its text model, `text_config`; a config.json
 * without it is the text model's. JSON objects; NULL: none. */
typedef struct wrapper {
    const char *forced; /* fields that win over text_config's */
    const char *top;    /* a number of config.json's top, not an object: wins over both, where it is there */
    const char *defaults; /* fields that text_config may lack */
} wrapper;

/* Fills in *d from config.json. */
typedef void describe_function(loader *l, desc *d);

/* Changes *out, a copy of d->layer, into layer i. layer_alike changes nothing. */
typedef void layer_function(loader *l, const desc *d, int64_t i, layer_desc *out);

/* One line in architectures.def. */
typedef struct architecture {
    const char *model_type;   /* config.json's */
    const char *known;        /* well-known checkpoints, for people */
    const char *like;         /* the model_type whose class it is; NULL: its own */
    const char *also, *class; /* config.json may say this model_type, and this class as one of its
                                 "architectures"; NULL: it may not */
    const char *tested;       /* how, where it is not as all others */
    describe_function *describe;
    layer_function *layer;
    const name_rule *rules;   /* published names that differ; NULL: none */
    const slice_rule *slices; /* published tensors that hold several; NULL: none */
    const wrapper *wrapper;   /* NULL: config.json is the text model's */
} architecture;

/* The functions of architectures.def. mlx-lm's file has the same name unless a function says
 * another. */
#define ARCHITECTURE(type, how, each, ...)                                                                   \
    extern describe_function describe_##how;                                                                 \
    extern layer_function layer_##each;
#include "model/architectures.def"
#undef ARCHITECTURE

/* ---- helpers of descriptions ---- */

/* Fields that config.json may leave out, and what they are then; 0: it must have it (head_dim 0:
 * hidden_size / heads, kv_heads 0: heads). */
typedef struct decoder_defaults {
    int64_t hidden, n_layers, vocab, n_heads, n_kv_heads, head_dim, width;
    double eps;
} decoder_defaults;

/* Names of fields that are others than hidden_size, num_hidden_layers, ...; NULL: they are not. */
typedef struct decoder_keys {
    const char *hidden, *n_layers, *n_heads, *n_kv_heads, *width, *eps, *vocab;
} decoder_keys;

/* What every decoder has: sizes, heads, rms_norm_eps, intermediate_size, default names, norms. */
void read_decoder(loader *l, desc *d);
void read_decoder_or(loader *l, desc *d, const decoder_defaults *defaults);
void read_decoder_keys(loader *l, desc *d, const decoder_keys *keys, const decoder_defaults *defaults);

/* Refuses what cannot be: groups (`key` says how many) and experts that do not fit together. */
void check_expert_groups(loader *l, const moe_desc *e, const char *key);

/* partial_rotary_factor of head_dim, as an even number. */
int64_t partial_dims(loader *l, const desc *d, double otherwise);

/* Experts chosen by sigmoids with a bias, perhaps within the best groups; e->n and e->route.k are
 * read. */
void read_sigmoid_routing(loader *l, moe_desc *e);

/* What YaRN's mscale_all_dim makes of scores. mlx-lm rope_utils.py: apply_yarn_mscale */
double yarn_score_factor(loader *l);

/* layer_types[i] is "sliding_attention". Without layer_types: `otherwise`. */
bool is_sliding(loader *l, const desc *d, int64_t i, bool otherwise);

extern const names default_names;

/* What vision models have beside their text model, and where that is. */
extern const name_rule vision_rules[], kimi_rules[], gemma4_rules[];
extern const slice_rule gemma4_slices[], qwen3_5_slices[], qwen3_vl_slices[], granite_slices[],
    llama4_slices[], gpt_oss_slices[];

/* ---- the parts ---- */

void load_attention(loader *l, const desc *d, const attention_desc *in, attention *out);
/* projected: keys and values that the last layer with such matrices projected; this one may replace
 * them. */
tensor run_attention(graph *g, const attention *a, tensor x, float eps, cache *c, tensor projected[2]);
/* In a second loop: first, the first one's cache. mlx-lm iquestloopcoder.py */
tensor run_second_attention(graph *g, const attention *a, tensor x, float eps, cache *c, cache *first);
void load_mlp(loader *l, const desc *d, const ffn_desc *in, mlp *out);
tensor run_mlp(graph *g, const mlp *m, activation act, tensor x);

void load_delta(loader *l, const desc *d, const delta_desc *in, delta *out);
tensor run_delta(graph *g, const delta *m, tensor x, float eps, cache *c);

void load_latent(loader *l, const desc *d, const latent_desc *in, latent_mixer *out);
/* caches: the layer's, and that of the keys which select entries, if there are any. */
tensor run_latent(graph *g, const latent_mixer *m, tensor x, cache *const caches[]);
/* What a layer's cache keeps; selecting: its second one. */
void latent_cache(const latent_desc *d, bool selecting, cache_spec *out);

void load_lightning(loader *l, const desc *d, const lightning_desc *in, lightning *out);
tensor run_lightning(graph *g, const lightning *m, tensor x, float eps, cache *c);

void load_ssm(loader *l, const desc *d, const ssm_desc *in, state_space *out);
tensor run_ssm(graph *g, const state_space *m, tensor x, cache *c);

/* The states of a layer's cache: of the convolution, of the heads. */
void ssm_cache(const ssm_desc *d, dtype type, cache_spec *out);

void load_conv_mixer(loader *l, const desc *d, const conv_desc *in, conv_mixer *out);
tensor run_conv_mixer(graph *g, const conv_mixer *m, tensor x, cache *c);

void load_ffn(loader *l, const desc *d, const ffn_desc *in, ffn *out);
tensor run_ffn(graph *g, const ffn *f, tensor x);
tensor run_moe(graph *g, const ffn *f, tensor x); /* the experts of FFN_EXPERTS and FFN_SHORTCUT */

/* An MLP and experts beside each other, each with norms of its own, and routing by the sum before
 * the norm.
 */
void load_both(loader *l, const desc *d, const layer_desc *in, layer *out);
tensor run_both(graph *g, const layer *l, tensor h);

/* The layers' own inputs: [L, n_layers * width], and what a layer makes of its part. */
void load_layer_inputs(loader *l, decoder *m);
void load_layer_input(loader *l, const desc *d, layer *out);
tensor layer_inputs(graph *g, const decoder *m, tensor ids, tensor x);
tensor layer_input(graph *g, const layer *l, tensor h, tensor input);

/* 1 + the last layer before `first` of layer i's kind of attention; 0, with an error: there is
 * none. */
int64_t find_keys(loader *l, const desc *d, int64_t i, int64_t first);

/* Several streams of the text: gemma3n.c. */
void load_streams(loader *l, decoder *m);
void load_altup(loader *l, const desc *d, altup *out);
tensor begin_streams(graph *g, const decoder *m, tensor x);
tensor end_streams(graph *g, const decoder *m, tensor x);
tensor run_altup_layer(graph *g, const layer *l, tensor x, tensor input, cache *c);

/* ---- the whole ---- */

void decoder_load(loader *l, const architecture *a, decoder *out);
tensor decoder_forward(const decoder *m, graph *g, tensor ids, cache *const caches[]);

#endif
