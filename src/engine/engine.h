/* engine.h - the operation set: all a model needs, documented to the letter, and what an engine is.
 * A model is written once in these operations; an engine is one implementation of them (engine/cpu,
 * ...).
 *
 * Life of one step: graph_begin, operations (each records a node and returns a handle borrowed from
 * the graph), graph_end, which runs what the requested outputs and the caches need - nothing else -
 * and drops the rest. A failing operation records the error once, and all later ones of that graph
 * do nothing: model code has no error ladder; graph_end reports it.
 *
 * Shapes: L tokens (rows), D features, H heads, hd = head_dim, V vocabulary. Several sequences are
 * [n_sequences * L], one after another.
 * Number types: a value has the dtype mlx-lm would give it (that of the checkpoint's activations).
 * An engine may compute and keep values in a wider one: engine/cpu holds every value in F32.
 * Constants are rounded to the activation dtype, as MLX's weakly typed Python scalars are. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <stdbool.h>

#include "base/base.h"

typedef struct engine engine;
typedef struct graph graph;
typedef const struct node *tensor; /* a value of a graph; never freed by the caller, dead after graph_end */
typedef struct result result;      /* a value that outlives its graph */

/* ---- engines ---- */

/* A setting by name, as users give it and rows show it (results/params.def lists them):
 *   graph        mlx: "mlx-lm", exactly its operations, or "fused", kernels of our own where there
 *                are some
 *   activations  cpu: "exact", or "int8": what quantized weights are multiplied with is rounded to
 *                8 bits
 *   affinity     cpu: "none", or "cores": each thread stays on a CPU of its own
 * Both strings are borrowed for the call alone; value NULL: not given. */
typedef struct engine_setting {
    const char *name, *value;
} engine_setting;

/* An engine reads the settings it knows; the others mean nothing to it. */
enum { ENGINE_MAX_SETTINGS = 16 };
typedef struct engine_options {
    int threads;     /* CPU threads; 0: one per physical core */
    int cores;       /* physical cores this process may use; 0: unknown. More threads wait without spinning */
    const int *cpus; /* [cores] a CPU of each, for affinity; lives as long as the program. NULL: unknown */
    int n_settings;
    engine_setting settings[ENGINE_MAX_SETTINGS];
} engine_options;

/* Whether setting `name` was given this value. One that was not given is the engine's own
 * choice. */
bool engine_asks(const engine_options *o, const char *name, const char *value);

/* Opens the engine of that name: "cpu"; "mlx", a module that is loaded now (engine/module.c says
 * from where); "mlx@PATH", the module in that file or folder, of which a process can have one;
 * "fake"; or "auto": mlx where it has a GPU, else cpu. NULL with a message that says why, or lists
 * the known ones. One graph and one thread at a time may use it. engine_close(NULL) does
 * nothing. */
engine *engine_open(const char *name, const engine_options *options);
void engine_close(engine *e);

/* -1 with a usage error when there is no engine of that name. Opens nothing. */
int engine_check_name(const char *name);

/* Changes the options without touching loaded weights. -1 with a recorded error. */
int engine_configure(engine *e, const engine_options *options);

/* What ran: for every result row. Strings live as long as the engine. */
typedef struct engine_info {
    const char *name;    /* "cpu" */
    const char *version; /* the engine's own version */
    const char *device;  /* "avx2", a GPU's name, ... */
    int threads;         /* in use; 0 where it means nothing */
    bool lookahead;      /* graph_end returns before the work is done: the next step should be queued first */
    int64_t wired_limit; /* bytes that its GPU keeps resident at most; 0 where there is no such limit */
} engine_info;
engine_info engine_describe(const engine *e);

/* The value of a setting that is in use; NULL where it means nothing to this engine. */
const char *engine_setting_used(const engine *e, const char *name);

/* Names of this build's engines, for help and `mlxbench models`: i = 0, 1, ... until NULL. (The
 * engine "fake", which computes nothing, is there for tests alone and not among them.) */
const char *engine_name(int i);

/* Bytes held, from the engine's own allocator. weights counts mapped checkpoint bytes in use, too.
 * peak is the highest total since engine_reset_peak. */
typedef struct engine_memory {
    int64_t weights, kv, scratch, peak;
} engine_memory;
engine_memory engine_memory_used(const engine *e);
void engine_reset_peak(engine *e);

/* ---- weights ---- */

/* A loaded weight. Owned by the engine, valid until engine_drop_weights. */
typedef struct weight {
    int rank; /* logical shape: [n], [out, in] or [experts, out, in] */
    int64_t shape[3];
    matrix_kind kind;
    enum dtype dtype; /* of its numbers (matrix_dtype) */
    bool has_bias;
} weight;

/* Takes a weight from the checkpoint. m's data must stay valid as long as the weight: engine/cpu
 * computes on it in place. Nobody else may read it afterwards: engine/mlx copies it and gives its
 * pages back. bias: [out], of experts [experts, out], or NULL. offset is added to m (and the sum
 * rounded to m's dtype), as for Gemma's norms. NULL on error. */
typedef struct weight_source {
    const char *name; /* for messages; copied */
    matrix m;
    const matrix *bias;
    double offset;
    float factor; /* vectors are multiplied with this; 0: not */
} weight_source;
const weight *engine_weight(engine *e, const weight_source *source);

/* Frees all weights of the engine (the model that used them must be gone). */
void engine_drop_weights(engine *e);

/* ---- caches: what a sequence remembers ---- */

/* Keys and values, an array of states, or both. max_size 0: plain, grows without limit (mlx-lm
 * cache.py: KVCache). max_size > 0: rotating, keeps the first `keep` and the newest entries,
 * max_size in all after single-token steps; a chunk of S > 1 tokens sees up to max_size - 1 earlier
 * entries through a causal window of max_size, or of `window` if that is larger (RotatingKVCache,
 * make_mask included). chunk > 0: a token sees those of its own chunk of the text, which are the
 * positions with the same quotient by it; entries that no later token sees may be gone
 * (ChunkedKVCache; llama4.py: chunk_mask). It is never quantized. States are zero at first, always
 * written, and never rotated, quantized or trimmed (ArraysCache). cache_new refuses what no engine
 * has yet: a rotating cache with a window below max_size. */
enum { CACHE_MAX_STATES = 4 };
typedef struct cache_spec {
    int n_sequences;                      /* in lockstep, all at one position; 0 means 1 */
    int n_kv_heads, head_dim, v_head_dim; /* 0: no keys and values */
    bool latent; /* of attend_latent: one head, latents as keys and rotated keys as values */
    int64_t max_size, keep;
    int64_t window; /* entries that a token sees; of a rotating cache, one of several. 0: all, max_size */
    int64_t chunk;  /* with max_size and window 0 */
    int n_states;
    struct cache_state {
        int64_t rows, cols;
        enum dtype dtype;
    } states[CACHE_MAX_STATES]; /* of a convolution, a delta rule, ... */
    enum dtype dtype;           /* of keys and values while not quantized */
    int64_t capacity; /* entries of a sequence that will be needed, as a hint: an engine may allocate them at
                         once. 0: unknown */
    bool aside;       /* it only keeps a copy: engine_memory does not count it */
} cache_spec;

typedef struct cache {
    cache_spec spec;
    int64_t step;         /* the last step that wrote keys and values */
    int64_t offset;       /* tokens of each sequence seen so far: the position of the next one */
    int bits, group_size; /* 0, 0 while not quantized */
} cache;

/* A new, empty cache; NULL on error (out of memory: the message names the size). cache_free(NULL)
 * does nothing. */
cache *cache_new(engine *e, const cache_spec *spec);
void cache_free(engine *e, cache *c);

/* Makes `to` hold what `from` holds, at its position, in memory of its own; nothing of it is left
 * to be done afterwards. Both were made for the same spec, but for capacity and aside. Between
 * graphs only. -1 on error: then `to` may only be freed. */
int cache_copy(engine *e, cache *to, const cache *from);

/* Quantizes what the cache holds and all that follows: affine, along head_dim, as mx.quantize does
 * (KVCache.to_quantized). Harmless when it is quantized already. -1 for a rotating cache or a
 * head_dim that group_size does not divide. Between graphs only. */
int cache_quantize(engine *e, cache *c, int bits, int group_size);

/* ---- graphs ---- */

/* Starts a step of n_sequences sequences, which advance by the same number of tokens: row r of a
 * value belongs to sequence r / L, where L is that number. Only one graph of an engine exists at a
 * time. Never NULL: an error shows at graph_end. */
graph *graph_begin(engine *e, int n_sequences);

/* Runs the step: every cache write recorded, and the n outputs with all they need; then drops the
 * graph. The caches that it wrote are at the next position afterwards; while recording, all see the
 * position before it. results[i] receives outputs[i] (free it with result_free). n = 0 is a prefill
 * chunk: in the last layer only keys and values are computed, as mlx-lm evaluates nothing but cache
 * states there. -1 on error: then no result is set, and the caches used must not be used again.
 * fail_interrupted when Ctrl-C was seen. */
int graph_end(graph *g, int n, const tensor outputs[], result *results[]);

/* Waits for a result and copies it: F32 values for float tensors, int32_t for ids. count elements
 * must fit the tensor exactly. -1 on error. */
int result_read(result *r, void *out, int64_t count);
void result_free(result *r); /* NULL is harmless */

/* The step notes which experts it runs: to be called before graph_end. It takes time, on a GPU the
 * host waits for it, so it is not for steps that are measured. */
void graph_note_experts(graph *g);

/* Distinct experts that the noted steps ran since the last call: the mean over the layers that ran
 * some. 0: none did. Forgets them. */
double engine_experts_touched(engine *e);

/* True once an operation failed: for loops that would otherwise record much more. */
bool graph_failed(const graph *g);

/* The shape of a value, for code that must know: dimension i. 0 for a failed value. */
int64_t tensor_dim(tensor x, int i);

/* ---- operations ---- */

/* Token ids, copied -> I32 [n], n / n_sequences of each sequence. An id outside the vocabulary is
 * an error of embed. */
tensor tokens(graph *g, const int32_t *ids, int64_t n);

/* An earlier step's result (an argmax) as this step's ids, without waiting for it -> I32 [n]. The
 * result must stay alive until this graph ended. mlx-lm generate.py: _step(y). */
tensor token_result(graph *g, result *r);

/* Rows of w [P, D] by position -> [L, D]: those of the tokens `ids`. A text longer than P is
 * refused. mlx-lm gpt2.py: wpe. */
tensor embed_positions(graph *g, tensor ids, const weight *w, const cache *c);

/* Rows of w [V, D] by id, dequantized -> [L, D] in w's dtype. mlx nn.Embedding,
 * nn.QuantizedEmbedding. */
tensor embed(graph *g, tensor ids, const weight *w);

/* As embed, but an id beyond w's last row means its first one. mlx-lm gemma3n.py:
 * get_per_layer_inputs */
tensor embed_or_first(graph *g, tensor ids, const weight *w);

/* x [L, in] times w [out, in] transposed, plus w's bias -> [L, out]. mlx nn.Linear,
 * mx.quantized_matmul. */
tensor linear(graph *g, tensor x, const weight *w);

/* n linears over one input, recorded together so that an engine can run them as one. */
void linears(graph *g, tensor x, int n, const weight *const w[], tensor *const out[]);

/* x / sqrt(mean(x^2) + eps) * w over the last dimension, in F32, rounded once at the end. w [last]
 * or NULL for none. x of any rank. mx.fast.rms_norm. */
tensor rms_norm(graph *g, tensor x, const weight *w, float eps);

/* [L, n * hd] seen as [L, n, hd]; no work. */
tensor heads(graph *g, tensor x, int n);

/* Rotary embedding: for position p and pair i of the first dims features, the angle is scale * p /
 * freqs[i]. Pairs are (i, i + dims / 2), or (2i, 2i + 1) when traditional. The rotated features are
 * first multiplied by mscale (rounded to the activation dtype). mx.fast.rope; variants: mlx-lm
 * rope_utils.py. */
typedef struct rope_spec {
    int dims;
    bool traditional;
    float scale;        /* 1 / factor for linear scaling, else 1 */
    float base;         /* of plain rope, where freqs[i] = base^(2i / dims); 0 when freqs are a variant's */
    float mscale;       /* YaRN and longrope; else 1 */
    const float *freqs; /* dims / 2 of them; lives as long as the model */
    int64_t limit;      /* later positions would need other frequencies and are refused; 0: none would */
} rope_spec;

/* Rotates x [L, H, hd]; row r has position c->offset + r % L. */
tensor rope(graph *g, tensor x, const rope_spec *spec, const cache *c);

/* Appends k [L, Hkv, hd] and v [L, Hkv, hd_v] to the cache, then softmax(scale * q k^T) v over what
 * the cache shows to each row (causal; the window of a rotating cache) -> [L, H * hd_v]. Query head
 * h uses KV head h / (H / Hkv). A quantized cache is read as it is stored. One step writes a cache
 * at most once. mlx-lm base.py: scaled_dot_product_attention,
 * quantized_scaled_dot_product_attention. */
typedef struct attend_spec {
    float scale;
    const weight *sinks; /* [H], NULL: none. A head's sum of exponentials gains that of its sink, which has no
                            value: attention may go nowhere */
    float softcap;       /* scores become softcap tanh(scores / softcap); 0: they do not. mlx-lm gemma2.py */
    bool f32;            /* mlx: queries in F32, which makes keys and values so (mlx-lm phi.py) */
} attend_spec;
tensor attend(graph *g, cache *c, tensor q, tensor k, tensor v, const attend_spec *spec);

/* Causal convolution of every feature by itself: y[t, d] = sum over j < K of w[d, j] * in[t + j,
 * d], plus w's bias, then x * sigmoid(x) when silu; in is the K - 1 rows of the cache's state
 * `slot`, then x [L, D]. The state [K - 1, D] keeps the last K - 1 rows. w [D, K]. mlx nn.Conv1d
 * with as many groups as channels; mlx-lm qwen3_next.py, lfm2.py. */
tensor short_conv(graph *g, cache *c, int slot, tensor x, const weight *w, bool silu);

/* As attend, with the keys and values that another layer wrote to its cache in this step: nothing
 * is written. mlx-lm gemma4_text.py: shared_kv */
tensor attend_shared(graph *g, cache *c, tensor q, const attend_spec *spec);

/* Functions of one number. SILU: x sigmoid(x). GELU_TANH: mlx nn.gelu_approx. GELU: x (1 + erf(x /
 * sqrt 2)) / 2. RELU2: max(x, 0)^2. SIGMOID_F32: computed in F32, and rounded to
 * x's type. SOFTPLUS: log(1 + e^x), in F32, rounded so. OAI, in gated() and experts() alone
 * (mlx-lm activations.py: swiglu_oai): the gate g is at most 7, up u within -7 .. 7, and the result
 * is g sigmoid(1.702 g) (u + 1). CLAMPED_7 and CLAMPED_16, there, too (mlx-lm step3p5.py:
 * clamped_swiglu): silu(g) is at most that number, u within its two signs; the result is their
 * product. */
typedef enum activation {
    ACT_SILU,
    ACT_GELU_TANH,
    ACT_GELU,
    ACT_RELU,
    ACT_RELU2,
    ACT_SIGMOID,
    ACT_SIGMOID_F32,
    ACT_TANH,
    ACT_SOFTPLUS,
    ACT_OAI,
    ACT_SILU_F32,
    ACT_CLAMPED_7,
    ACT_CLAMPED_16,
} activation;

/* act(gate) * up, elementwise, in the wider of their types. ACT_SILU_F32 computes both in F32 and
 * rounds once, to up's type (mlx-lm activations.py: precise_swiglu). */
tensor gated(graph *g, activation act, tensor gate, tensor up);

/* act(x), elementwise, any shape. */
tensor activate(graph *g, activation act, tensor x);

/* XIELU, elementwise: alpha_p x^2 + beta x where x > 0, else (e^m - 1 - x) alpha_n + beta x, m the
 * smaller of x and eps; with softplus(alpha_p) for alpha_p and beta + softplus(alpha_n) for
 * alpha_n. All four are [1]. mlx-lm activations.py: xielu. */
typedef struct xielu_spec {
    const weight *alpha_p, *alpha_n, *beta, *eps;
} xielu_spec;
tensor xielu(graph *g, tensor x, const xielu_spec *spec);

/* e^x over its sum, over the last dimension, in F32, rounded once. mx.softmax, precise. */
tensor softmax(graph *g, tensor x);

/* a + b, equal shapes. add_clipped saturates at the largest finite value when the dtype is F16
 * (mlx-lm gemma3_text.py: clip_residual). */
tensor add(graph *g, tensor a, tensor b);
tensor add_clipped(graph *g, tensor a, tensor b);

/* x * s, s rounded to x's dtype. */
tensor scale(graph *g, tensor x, float s);

/* x / s, which rounds otherwise than scale by 1 / s. */
tensor divide(graph *g, tensor x, float s);

/* x, each number within -most .. most. mx.clip */
tensor clip(graph *g, tensor x, float most);

/* c tanh(x / c). */
tensor soft_cap(graph *g, tensor x, float c);

/* a * b. b has a's shape, or 1 as its last dimension: one factor per row. */
tensor product(graph *g, tensor a, tensor b);

/* x * w over the last dimension; w [last], or [1]: one factor for all. */
tensor product_weight(graph *g, tensor x, const weight *w);

/* Columns first .. first + n of the last dimension of [L, D] or [L, H, D]. mx.split */
tensor part(graph *g, tensor x, int64_t first, int64_t n);

/* Columns of a, then those of b: [L, D1], [L, D2] -> [L, D1 + D2]; [L, H, D1], [L, H or 1, D2] ->
 * [L, H, D1 + D2], where all heads share b. mx.concatenate */
tensor concat(graph *g, tensor a, tensor b);

/* gate a + (1 - gate) b; a, b [L, H, hd], gate [L, H, 1]. mlx-lm iquestloopcoder.py:
 * _mix_attention. */
tensor blend(graph *g, tensor gate, tensor a, tensor b);

/* x [L, H, hd] with its heads in another order: a * n + b becomes b * (H / n) + a. */
tensor swap_heads(graph *g, tensor x, int64_t n);

/* x as integers of 8 bits would keep it: round(x / w), within -128 .. 127, times w; in F32, rounded
 * to x's dtype. w [1]. mlx-lm afm7.py: fake_8bit_quant. */
tensor fake_quant(graph *g, tensor x, const weight *w);

/* [L, H, hd] seen as [L, H * hd]; no work. */
tensor flatten(graph *g, tensor x);

/* x [L, H, hd] times 1 + beta log(1 + floor((p + shift) / n)), p the row's position; the factor, or
 * with f32 the product, is rounded to x's dtype. Longer texts get sharper attention. mlx-lm
 * ministral3.py; llama4.py with f32. */
typedef struct position_scale {
    float beta, shift, n;
    bool f32;
} position_scale;
tensor scale_positions(graph *g, tensor x, position_scale s, const cache *c);

/* Choosing experts: the k with the largest scores (ties: lowest index) -> routing [L, k], for
 * experts() only. mlx-lm: the MoE classes of models/, e.g. qwen3_moe.py, glm4_moe.py
 * (group_expert_select), mixtral.py. */
typedef enum score_kind {
    SCORE_SOFTMAX,     /* of all logits, in F32 */
    SCORE_SIGMOID,     /* in F32 */
    SCORE_TOP_SOFTMAX, /* the logits choose; softmax of the chosen ones */
    SCORE_TOP_SIGMOID, /* the logits choose; sigmoid of the chosen ones, in F32 */
    SCORE_BAND /* the logits choose; each by the softmax of those that were left and are not far below it:
                  (it - logit) / max(it, |logit|) is at most 2 jitter (mlx-lm phimoe.py: sparsemixer) */
} score_kind;
typedef struct route_spec {
    int k;
    score_kind score;
    int n_group, topk_group; /* more than one group: experts of all but the topk_group groups with the largest
                                sum of two best scores count as 0 while choosing */
    bool group_max;          /* groups by their best score instead */
    bool mask_inf;           /* they count as minus infinity */
    bool renormalize;        /* weights are divided by their sum; those of SCORE_TOP_SOFTMAX have the sum 1 */
    float eps;               /* added to that sum, or its least value: */
    bool eps_is_floor;
    float scale;                /* weights are multiplied with this; 0: not */
    const weight *bias;         /* [E], added to the scores for choosing only; NULL: none */
    const weight *expert_scale; /* [E], weights are multiplied with; NULL: not */
    float jitter;               /* of SCORE_BAND */
    int identities;             /* so many of the last experts have no matrices: they give x back */
    bool imprecise;             /* mlx: the softmax or the sigmoids are computed in the logits' dtype */
    bool narrow_bias;           /* mlx: the bias is rounded to the scores' dtype */
    bool wide;                  /* mlx: weights are F32 where results are summed */
    bool narrow;                /* weights are rounded to the dtype of the experts' input */
    bool on_input; /* the experts' input is multiplied with the weight, not their result; k is 1 (mlx-lm
                      llama4.py: MoE) */
    bool last;     /* mlx: mlx-lm partitions for the last k, not the first: the order of the sum */
} route_spec;
tensor route(graph *g, tensor logits, const route_spec *spec);

/* x in F32 from here on, whatever the dtype was; no work in engine/cpu. mx.astype */
tensor as_f32(graph *g, tensor x);

/* The chosen experts' gated MLPs, summed with their routing weights: x [L, D], gate and up [E, I,
 * D], down [E, D, I] -> [L, D]. gate NULL: they have none, and are down(act(up(x))). Their biases,
 * if they have some, are [E, out]. mlx-lm switch_layers.py: SwitchGLU, SwitchMLP. */
tensor experts(graph *g, tensor x, tensor routing, activation act, const weight *gate, const weight *up,
               const weight *down);

/* x - logsumexp(x) over the last dimension, in x's dtype. mlx-lm generate.py: _step. */
tensor logprobs(graph *g, tensor x);

/* Index of the largest element of each row (ties: lowest) -> I32 [L]. x [L, V]. */
tensor argmax(graph *g, tensor x);

/* (x - mean) / sqrt(variance + eps) over the last dimension, times w, plus w's bias, in F32,
 * rounded once at the end. w [last] or NULL for none. mx.fast.layer_norm. */
tensor layer_norm(graph *g, tensor x, const weight *w, float eps);

/* Several streams of one text, side by side [L, n * D]. Predict: stream i gains the sum over j of
 * coefficients[i * n + j] times stream j. Correct: it gains (1 + coefficients[i]) * (y - stream
 * `active`), y [L, D]. Both in F32, rounded once. Add: all but the first gain y. Mean: of n
 * streams, [L, D]. mlx-lm gemma3n.py: Gemma3nAltUp. */
tensor predict_streams(graph *g, tensor x, tensor coefficients);
tensor correct_streams(graph *g, tensor x, tensor y, tensor coefficients, int active);
tensor add_to_streams(graph *g, tensor x, tensor y);
tensor mean_of_streams(graph *g, tensor x, int n);

/* x, whose rows get the mean square of those of `like`. mlx-lm gemma3n.py: LanguageModel. */
tensor rescale(graph *g, tensor x, tensor like);

/* GELU_TANH of what a number is more than its row's mean plus so many standard deviations; 0 of
 * those that are less. mlx-lm gemma3n.py: gelu_topk. */
tensor gelu_above(graph *g, tensor x, float deviations);

#include "engine/mixers.h"

#endif
