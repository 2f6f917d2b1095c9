/* cpu.h - the CPU engine's inner structures (private to engine/cpu/).
 * All values are F32; weights are used where the checkpoint has them, KV caches keep the
 * checkpoint's dtype.
 */
#ifndef ENGINE_CPU_CPU_H
#define ENGINE_CPU_CPU_H

#include "engine/cpu/kernels/kernels.h"
#include "engine/graph.h"

enum {
    CPU_MAX_JOINED = 3, /* linears computed with the one before them */
    CPU_MAX_TAPS = 16   /* of a short convolution */
};

typedef struct cpu_weight {
    weight base;
    struct cpu_weight *next;
    rows rows;             /* of the first expert, or of all */
    float *floats, *bias;  /* vectors are converted once, as are convolutions, to [taps][features]; NULL where
                              there are none */
    int64_t counted_bytes; /* what it adds to memory.weights */
} cpu_weight;

/* What the engine knows of a node while its graph is run; zero at first. */
typedef struct node_state {
    void *data, *workspace; /* the value; memory used only while it is computed */
    atomic_long taken[2];   /* work sharing, one counter per phase */
    bool placed;            /* data is in the plan's memory, at offset */
    bool barrier;           /* all threads meet before it */
    bool skipped;           /* it is not computed: readers take in[0]'s value in its place */
    size_t offset, workspace_offset, workspace_size;
    int last;           /* index of the last node that reads it */
    const node *next;   /* in the plan's list of values in memory */
    size_t own;         /* every thread computes the value for itself: bytes of a copy; 0: there is one */
    const node *by;     /* the node that computes this one with its own value */
    int n_joined;       /* LINEAR: so many that follow it are computed with it */
    const node *ending; /* LINEAR, EXPERTS: the sum or gate that is computed in place of its own value */
} node_state;

typedef struct cpu_result {
    result base;
    struct cpu_result *next; /* in the engine's list of unused ones */
    size_t capacity;
    void *data;
} cpu_result;

/* cos and sin, times mscale, of a step's positions: [token][dims / 2]. All layers share them. */
typedef struct rope_table {
    struct rope_table *next;
    const rope_spec *spec; /* NULL: not of the running step */
    int64_t position, n_tokens;
    float *cos, *sin;
    size_t size; /* of both, in one piece of memory */
} rope_table;

typedef struct cpu {
    engine base;
    pool *pool;
    const kernels *kernels;
    int threads;
    const int *cpus; /* of engine_options, with affinity; else NULL */
    bool int8_activations;
    engine_memory memory;
    int64_t aside; /* bytes of caches that only keep a copy */
    cpu_weight *weights;
    cpu_result *unused;

    char *scratch; /* values of the running graph */
    size_t scratch_size;
    char **thread_scratch; /* one per thread, for tiles */
    size_t thread_scratch_size;

    struct slab *slabs; /* memory.c */
    struct spare *spares;

    node_state *states; /* of the running graph, by node */
    int states_capacity;

    struct free_block *free_blocks; /* of the memory plan */
    int n_free, free_capacity;

    rope_table *rope_tables;

    graph *running;
    atomic_int stop_at; /* number of the barrier after which all threads give up; -1: none */
} cpu;

/* ---- memory.c ---- */

/* Memory for n bytes, aligned to a cache line and counted in *account of e->memory; NULL with an
 * error naming what and the size. Released before cpu_free_memory, which ends what is kept for
 * reuse. */
void *cpu_allocate(cpu *e, size_t n, int64_t *account, const char *what);
void cpu_release(cpu *e, void *memory, size_t n, int64_t *account);
void cpu_free_memory(cpu *e);

/* ---- cache.c ---- */

/* One of keys or values: [n_sequences * n_kv_heads][capacity] entries of head_dim numbers, or of
 * their quantized form. */
typedef struct cpu_entries {
    int dim;
    void *values; /* dtype, or uint32 words when quantized */
    void *scales, *biases;
} cpu_entries;

typedef struct cpu_cache {
    cache base;
    int64_t capacity;       /* entries allocated per head */
    int64_t length, index;  /* mlx-lm's keys.shape[2] and _idx of a rotating cache; length of a plain one */
    cpu_entries entries[2]; /* keys, values; of a latent cache both in one piece, and no others */
    float *states[CACHE_MAX_STATES]; /* [n_sequences][rows][cols] */
    int64_t first;                   /* of chunks: the position of entry 0 */
    int64_t write_at;                /* this step: first entry written, */
    int64_t n_visible, window; /* entries attended to, and the causal window over them (0: causal only) */
    bool whole;                /* a single token sees all visible entries */
} cpu_cache;

cache *cpu_cache_new(engine *e, const cache_spec *spec);
void cpu_cache_free(engine *e, cache *c);
int cpu_cache_copy(engine *e, cache *to, const cache *from);
int cpu_cache_quantize(engine *e, cache *c, int bits, int group_size);

/* Makes room for n_tokens of each sequence that the running step appends at position, and sets
 * where they go and what they see. */
int cpu_cache_prepare(cpu *e, cpu_cache *c, int64_t position, int64_t n_tokens);

/* Stores one entry of KV head h of all sequences' at index i. part: 0 keys, 1 values. */
void cpu_cache_store(const cpu *e, cpu_cache *c, int part, int64_t h, int64_t i, const float *x);

/* All entries of head h, as they are stored. */
rows cpu_cache_rows(const cpu_cache *c, int part, int64_t h);

/* ---- join.c ---- */

/* Sets which nodes are computed together with others (by, n_joined, ending), which by every thread
 * for itself (own) and which, though the graph has them, not at all (skipped), so that threads meet
 * less often. */
void cpu_join(const cpu *e, const graph *g, int n, const tensor outputs[]);

/* ---- plan.c ---- */

/* Gives every live node its memory and sets where threads must meet. */
int cpu_plan(cpu *e, graph *g, int n, const tensor outputs[], result *results[]);

/* After the run: fills the results of values that live elsewhere, such as ids and values that are
 * an output twice. */
void cpu_copy_outputs(const cpu *e, int n, const tensor outputs[], result *const results[]);

/* ---- operations: called by every thread of the pool, in the same order ---- */

#define OP(name, function, flags) void cpu_##function(cpu *e, const node *x, int thread);
ENGINE_OPS(OP)
#undef OP

typedef struct cpu_op {
    void (*run)(cpu *e, const node *x, int thread);
    size_t (*workspace)(const cpu *e, const node *x);      /* bytes shared by the threads; NULL: none */
    size_t (*thread_scratch)(const cpu *e, const node *x); /* bytes per thread; NULL: none */
} cpu_op;
extern const cpu_op cpu_ops[OP_COUNT];

static inline node_state *state_of(const cpu *e, tensor x) {
    return &e->states[x->index];
}

/* Whether threads run x itself: not another node that computes it, too. */
static inline bool is_run(const cpu *e, const node *x) {
    const node_state *s = state_of(e, x);
    return x->live && !s->by && !s->skipped && !(op_flags[x->op] & (SOURCE | VIEW));
}

/* ops_linear.c */
size_t cpu_linear_workspace(const cpu *e, const node *x);
size_t cpu_linear_scratch(const cpu *e, const node *x);

/* Whether linears with one input can share it once it is prepared: they are multiplied in one
 * way. */
bool cpu_same_products(const cpu *e, const node *a, const node *b);

/* Rows from `first` on. */
rows cpu_rows_from(const rows *w, int64_t first);

/* How activations of that dtype are multiplied with w; NULL: by the table's matvec and matmul.
 * sensitive: 8 bits are not enough for them. */
const products *cpu_products(const cpu *e, const rows *w, enum dtype activations, bool sensitive);

/* Few tokens: each is prepared once, then multiplied with rows of w: y[r] for row r. For up to
 * FEW_TOKENS packing rows does not pay; where rows are multiplied straight from the checkpoint, for
 * up to FEW_FOR_STRAIGHT. */
enum { FEW_TOKENS = 4, FEW_FOR_STRAIGHT = 3 };
bool cpu_are_few(const products *p, const rows *w, int64_t n_tokens);
bool cpu_has_few_tokens(const cpu *e, const node *linear);
size_t cpu_prepared_bytes(const products *p, const rows *w);
void cpu_prepare(const cpu *e, const products *p, void *prepared, const rows *w, const float *x);
void cpu_matvec(const cpu *e, const products *p, float *y, const rows *w, runs rs, const float *x,
                const void *prepared);

/* Many tokens: with products, panel i of the tokens is packed first, by any thread, of
 * cpu_token_panels(..) in all; in F32 there are none. */
int64_t cpu_token_panels(const products *p, int64_t n_tokens);
void cpu_pack_tokens(const products *p, char *panels, const rows *w, int64_t i, const float *x,
                     int64_t n_tokens);
/* out[t * out_stride + r] = token t (x in F32, panels with products) times row r < n_rows. tile:
 * thread scratch of cpu_tile_bytes. */
void cpu_multiply(const cpu *e, const products *p, float *out, int64_t out_stride, const rows *w,
                  int64_t n_rows, const float *x, int64_t n_tokens, const char *panels, void *tile);
size_t cpu_tile_bytes(const products *p, const rows *w);

/* Rows of one piece of work, such that n_rows make some pieces for every thread. */
int64_t cpu_rows_per_piece(const cpu *e, const products *p, const rows *w, int64_t n_rows, int64_t n_tokens);

/* ---- share.c: few tokens' rows, of one matrix or of several one after another ---- */

typedef struct row_share {
    const int64_t *n_rows; /* of each matrix, the caller's */
    int n;
    unsigned round; /* of the pool's, whose items are 2^log2_rows rows, but for each matrix' last */
    int log2_rows;
    int64_t items, least; /* of a part */
    bool others;          /* its own are taken: now what others have left */
    pool_part taken;
    int64_t at; /* of `taken` this item is the next */
} row_share;

/* Rows base + r of a matrix for each r of `rows`. */
typedef struct row_part {
    int matrix;
    int64_t base;
    runs rows;
} row_part;

/* n_rows[i] rows of matrix i < n, which have rows as long as w's, to be shared out by all threads,
 * each of which calls this. */
row_share cpu_share(const cpu *e, int thread, const rows *w, const int64_t *n_rows, int n);

/* The next part: of the thread's own rows, or, once these are done, of others'. False: there is
 * none. */
bool cpu_take_rows(const cpu *e, int thread, row_share *s, row_part *part);

/* ops_experts.c */
typedef struct routed {
    int32_t expert;
    float weight;
} routed;
size_t cpu_route_scratch(const cpu *e, const node *x);
size_t cpu_experts_workspace(const cpu *e, const node *x);
size_t cpu_experts_scratch(const cpu *e, const node *x);

/* ops_attention.c */
int cpu_rope_prepare(cpu *e, graph *g); /* before the step runs: makes its tables */
void cpu_rope_free(cpu *e);
size_t cpu_attend_workspace(const cpu *e, const node *x);
size_t cpu_attend_scratch(const cpu *e, const node *x);

/* The keys that token t of n_tokens sees. */
seen_keys cpu_visible(const cpu_cache *c, int64_t n_tokens, int64_t t);

/* Attention by the table's own kernels, where they fit, or block by block, without soft caps.
 * scratch: bytes of the first, aligned to 64. */
size_t cpu_attention_scratch(const cpu *e, int64_t n_rows, int64_t dim, int64_t v_dim);
void cpu_attention(const cpu *e, const attention *a, void *scratch);

/* ops_latent.c */
size_t cpu_linear_heads_scratch(const cpu *e, const node *x);
size_t cpu_select_entries_workspace(const cpu *e, const node *x);
size_t cpu_select_entries_scratch(const cpu *e, const node *x);
size_t cpu_attend_latent_workspace(const cpu *e, const node *x);
size_t cpu_attend_latent_scratch(const cpu *e, const node *x);

/* ops_elementwise.c: out = act(gate) * up, n numbers; up NULL: act(gate) */
void cpu_gate(const cpu *e, activation act, float *out, const float *gate, const float *up, int64_t n);

/* ops_simple.c */
size_t cpu_logprobs_workspace(const cpu *e, const node *x);
size_t cpu_logprobs_scratch(const cpu *e, const node *x);
size_t cpu_argmax_workspace(const cpu *e, const node *x);

/* ops_states.c */
size_t cpu_delta_rule_scratch(const cpu *e, const node *x);
size_t cpu_linear_attention_scratch(const cpu *e, const node *x);
size_t cpu_ssm_scratch(const cpu *e, const node *x);

/* The value of x, or this thread's copy of it. */
static inline float *floats_of(const cpu *e, tensor x, int thread) {
    const node_state *s = state_of(e, x);
    return (float *)(void *)((char *)s->data + (size_t)thread * s->own);
}

typedef struct piece {
    int64_t first, end;
} piece;

/* Work sharing: the next piece of up to `step` of n items; where each thread computes a copy of its
 * own, all of them, once. p begins as zeros. */
static inline bool cpu_take(const cpu *e, const node *x, int64_t n, int64_t step, piece *p) {
    node_state *s = state_of(e, x);
    if (!s->own) return pool_take(&s->taken[0], n, step, &p->first, &p->end);
    if (p->end) return false;
    *p = (piece){0, n};
    return true;
}

static inline const cpu_weight *cpu_weight_of(const node *x, int i) {
    return (const cpu_weight *)x->w[i];
}

#endif
