/* graph.h - the recorded graph, as engines see it (private to engine/).
 * Recording is common to all engines: shapes are checked once here, so an engine only computes. */
#ifndef ENGINE_GRAPH_H
#define ENGINE_GRAPH_H

#include "engine/engine.h"

/* One line per operation an engine implements: its name, its function's name in every engine, and
 * what it is. SOURCE: its value is there already. VIEW: its value is in[0]'s, seen in another
 * shape. EFFECT: it changes a cache, and so always runs. SMALL: of one token a thread computes it
 * sooner than it waits for another. */
enum op_flags { PLAIN_OP = 0, SOURCE = 1, VIEW = 2, EFFECT = 4, SMALL = 8 };
#define ENGINE_OPS(OP)                                                                                       \
    OP(TOKENS, tokens, SOURCE)             /* ids copied into the graph */                                   \
    OP(TOKEN_RESULT, token_result, SOURCE) /* an earlier result */                                           \
    OP(EMBED, embed, SMALL)                                                                                  \
    OP(LINEAR, linear, PLAIN_OP)                                                                             \
    OP(RMS_NORM, rms_norm, SMALL)                                                                            \
    OP(HEADS, heads, VIEW)                                                                                   \
    OP(ROPE, rope, SMALL)                                                                                    \
    OP(KV_WRITE, kv_write, EFFECT) /* in[0] keys, in[1] values */                                            \
    OP(ATTEND, attend, PLAIN_OP)   /* in[0] queries, in[1] the KV_WRITE before it */                         \
    OP(SHORT_CONV, short_conv, EFFECT)                                                                       \
    OP(GATED, gated, SMALL)                                                                                  \
    OP(ADD, add, SMALL)                                                                                      \
    OP(SCALE, scale, SMALL)                                                                                  \
    OP(ACTIVATE, activate, SMALL)                                                                            \
    OP(XIELU, xielu, SMALL) /* w: alpha_p, alpha_n, beta, eps */                                             \
    OP(SOFTMAX, softmax, SMALL)                                                                              \
    OP(DIVIDE, divide, SMALL)                                                                                \
    OP(CLIP, clip, SMALL)                                                                                    \
    OP(SOFT_CAP, soft_cap, SMALL)                                                                            \
    OP(PRODUCT, product, SMALL)                                                                              \
    OP(PRODUCT_WEIGHT, product_weight, SMALL)                                                                \
    OP(BLEND, blend, SMALL) /* in: gate, a, b */                                                             \
    OP(SWAP_HEADS, swap_heads, SMALL)                                                                        \
    OP(FAKE_QUANT, fake_quant, SMALL)                                                                        \
    OP(CONCAT, concat, SMALL)                                                                                \
    OP(PART, part, SMALL)                                                                                    \
    OP(AS_F32, as_f32, VIEW)                                                                                 \
    OP(FLATTEN, flatten, VIEW)                                                                               \
    OP(SCALE_POSITIONS, scale_positions, SMALL)                                                              \
    OP(ROUTE, route, SMALL)                                                                                  \
    OP(EXPERTS, experts, PLAIN_OP) /* in: x, routing; w: gate, up, down, or up, NULL, down */                \
    OP(LOGPROBS, logprobs, PLAIN_OP)                                                                         \
    OP(ARGMAX, argmax, PLAIN_OP)                                                                             \
    OP(LAYER_NORM, layer_norm, SMALL)                                                                        \
    OP(DELTA_RULE, delta_rule, EFFECT)             /* in: q, k, v, a, b */                                   \
    OP(SSM, ssm, EFFECT)                           /* in: x, B, C, dt */                                     \
    OP(LINEAR_ATTENTION, linear_attention, EFFECT) /* in: q, k, v */                                         \
    OP(PREDICT_STREAMS, predict_streams, SMALL)                                                              \
    OP(CORRECT_STREAMS, correct_streams, SMALL)                                                              \
    OP(ADD_TO_STREAMS, add_to_streams, SMALL)                                                                \
    OP(MEAN_OF_STREAMS, mean_of_streams, SMALL)                                                              \
    OP(RESCALE, rescale, SMALL)                                                                              \
    OP(GELU_ABOVE, gelu_above, SMALL)                                                                        \
    OP(LINEAR_HEADS, linear_heads, PLAIN_OP)                                                                 \
    OP(ATTEND_LATENT, attend_latent,                                                                         \
       PLAIN_OP) /* in: q_nope, the KV_WRITE before it, q_pe; SELECT_ENTRIES */                              \
    OP(SELECT_ENTRIES, select_entries, PLAIN_OP) /* in: q, the KV_WRITE before it, weights */

typedef enum op_kind {
#define OP(name, ...) OP_##name,
    ENGINE_OPS(OP)
#undef OP
        OP_COUNT
} op_kind;

extern const int op_flags[OP_COUNT]; /* of enum op_flags */

enum { NODE_MAX_INPUTS = 5, NODE_MAX_WEIGHTS = 4 };

/* SHORT_CONV: which of the cache's states, and what follows */
typedef struct conv_options {
    int slot;
    bool silu;
} conv_options;

/* PREDICT_STREAMS, CORRECT_STREAMS, ADD_TO_STREAMS, MEAN_OF_STREAMS */
typedef struct stream_options {
    int n, active;
} stream_options;

/* A value, and how it comes about. It holds nothing of an engine's: engines keep what they need by
 * index. */
typedef struct node {
    op_kind op;
    enum dtype dtype;
    int rank;
    int64_t shape[3];
    tensor in[NODE_MAX_INPUTS];
    const weight *w[NODE_MAX_WEIGHTS];
    struct cache *cache; /* ROPE reads nothing of it but position; KV_WRITE, ATTEND */
    int64_t
        position; /* ROPE, SCALE_POSITIONS, KV_WRITE, ATTEND...: of a sequence's first token in this step */
    union {
        int64_t first_id; /* TOKENS: they are graph->ids[first_id .. + shape[0]) */
        result *from;     /* TOKEN_RESULT */
        float eps;        /* RMS_NORM */
        const rope_spec *rope;
        float scale; /* SCALE, DIVIDE, CLIP, SOFT_CAP, GELU_ABOVE */
        attend_spec attention;
        latent_spec latent;
        activation act;  /* GATED, ACTIVATE, EXPERTS */
        int64_t first;   /* PART */
        int64_t swapped; /* SWAP_HEADS */
        bool or_first;   /* EMBED: an id beyond the last row means the first one */
        stream_options streams;
        position_scale by_position;
        route_spec route;
        bool clip;         /* ADD: saturate in F16 */
        conv_options conv; /* SHORT_CONV */
    };
    unsigned char *touched;  /* ROUTE: [choices], 1 for each that is chosen. NULL: nobody notes them */
    int index;               /* place in the graph */
    int group;               /* LINEAR: index of the first of those recorded together */
    bool live;               /* set by graph_mark_live: an output or a cache write needs it */
    int readers;             /* set by graph_mark_live: how often live nodes and outputs read it; */
    struct node *reader;     /* the last of those nodes */
    const delta_spec *delta; /* DELTA_RULE */
    const ssm_spec *ssm;     /* SSM */
    const lightning_spec *lightning; /* LINEAR_ATTENTION */
} node;

/* Nodes 0 .. n_nodes - 1, each after its inputs, in blocks that keep their addresses while more are
 * recorded. The memory is kept from graph to graph. */
enum { GRAPH_BLOCK = 256 }; /* nodes */
struct graph {
    struct engine *engine;
    int n_sequences;
    int64_t step; /* counts the steps of this engine */
    int n_nodes, n_blocks;
    bool failed;
    node **blocks;
    int32_t *ids; /* of all TOKENS nodes */
    int64_t n_ids, ids_capacity;
    bool notes_experts;
    struct touched_layer *touched; /* [n_touched]: by the steps that noted it (touched.c) */
    int n_touched;
};

static inline node *graph_node(const graph *g, int i) {
    return &g->blocks[i / GRAPH_BLOCK][i % GRAPH_BLOCK];
}

/* Frees what recording keeps from graph to graph. */
void graph_release(graph *g);

/* ---- touched.c ---- */

/* Gives live ROUTE nodes their `touched`. -1 when out of memory. */
int graph_make_touched(graph *g);
void graph_forget_touched(graph *g);

/* For engines: expert i is one that routing chose. Several threads may say so at once. */
static inline void touch_expert(tensor routing, int64_t i) {
    if (routing->touched) __atomic_store_n(&routing->touched[i], 1, __ATOMIC_RELAXED);
}

/* Sets live on what the outputs and the cache writes need, and counts who reads it. */
void graph_mark_live(graph *g, int n, const tensor outputs[]);

static inline int64_t tensor_rows(tensor x) { /* product of all dimensions but the last */
    int64_t n = 1;
    for (int i = 0; i + 1 < x->rank; i++) n *= x->shape[i];
    return n;
}

static inline int64_t tensor_last(tensor x) {
    return x->shape[x->rank - 1];
}

static inline int64_t tensor_count(tensor x) {
    return tensor_rows(x) * tensor_last(x);
}

/* Tokens of each sequence, of a value whose rows are those of the step. */
static inline int64_t rows_per_sequence(const graph *g, tensor x) {
    return x->shape[0] / g->n_sequences;
}

/* What an engine implements. Instances embed `engine` as their first member. */
typedef struct engine_class {
    const char *name;
    engine *(*open)(const engine_options *options);
    void (*close)(engine *e);
    int (*configure)(engine *e, const engine_options *options);
    engine_info (*describe)(const engine *e);
    const char *(*setting)(const engine *e, const char *name); /* engine_setting_used */
    engine_memory (*memory_used)(const engine *e);
    void (*reset_peak)(engine *e);
    weight *(*new_weight)(engine *e, const weight_source *source); /* fills all but the public part */
    void (*drop_weights)(engine *e);
    cache *(*cache_new)(engine *e, const cache_spec *spec);
    void (*cache_free)(engine *e, cache *c);
    int (*cache_copy)(engine *e, cache *to, const cache *from);
    int (*cache_quantize)(engine *e, cache *c, int bits, int group_size);
    int (*run)(engine *e, graph *g, int n, const tensor outputs[], result *results[]);
    int (*result_read)(result *r, void *out);
    void (*result_free)(result *r);
} engine_class;

struct engine {
    const engine_class *type;
    struct graph graph;
};

/* Public part of a result; an engine embeds it first. */
struct result {
    struct engine *engine;
    enum dtype dtype;
    int64_t count;
};

extern const engine_class cpu_engine, fake_engine;

/* ---- engines in loadable modules ---- */

/* What a module exports, as a function of the name below and of this type. It may use the program's
 * functions. */
typedef struct engine_module {
    uint64_t abi; /* ENGINE_ABI: the build's hash of this header and those it includes (CMakeLists.txt) */
    const char *built; /* what it was compiled against, for messages: "MLX 0.32.4" */
    const engine_class *type;
} engine_module;
typedef const engine_module *engine_module_get(void);
#define ENGINE_MODULE_SYMBOL "mlxbench_engine_module"

/* The class of the engine in module `mlxbench-NAME`, loaded at the first call; NULL with a message
 * that says where it was looked for. It stays loaded. */
const engine_class *engine_module_load(const char *name);

#endif
