/* graph.c - recording: every operation checks its shapes here, once for all engines, and adds a node.
 * After a first error nothing more is recorded; graph_end reports it. */
#include "engine/graph.h"

#include <stdlib.h>

const int op_flags[OP_COUNT] = {
#define OP(name, function, flags) [OP_##name] = (flags),
    ENGINE_OPS(OP)
#undef OP
};

static const node nothing = {.op = OP_COUNT, .rank = 1};

graph *graph_begin(engine *e, int n_sequences) {
    graph *g = &e->graph;
    g->engine = e;
    g->n_sequences = n_sequences;
    g->step++;
    g->n_nodes = 0;
    g->n_ids = 0;
    g->failed = false;
    return g;
}

void graph_release(graph *g) {
    for (int i = 0; i < g->n_blocks; i++) free(g->blocks[i]);
    free(g->blocks);
    free(g->ids);
    *g = (graph){0};
}

bool graph_failed(const graph *g) {
    return g->failed;
}

int64_t tensor_dim(tensor x, int i) {
    return x->shape[i];
}

static bool grow(graph *g) {
    void *blocks = g->blocks;
    if (mem_resize(&blocks, (size_t)g->n_blocks + 1, sizeof *g->blocks, "a graph")) return false;
    g->blocks = blocks;
    g->blocks[g->n_blocks] = mem_new(GRAPH_BLOCK, sizeof(node), "a graph");
    if (!g->blocks[g->n_blocks]) return false;
    g->n_blocks++;
    return true;
}

/* A new node; NULL once the graph has failed. */
static node *add_node(graph *g, op_kind op, dtype type) {
    if (g->failed) return NULL;
    if (g->n_nodes == g->n_blocks * GRAPH_BLOCK && !grow(g)) {
        g->failed = true;
        return NULL;
    }
    node *x = graph_node(g, g->n_nodes);
    *x = (node){.op = op, .dtype = type, .index = g->n_nodes++};
    return x;
}

static void set_shape(node *x, int rank, int64_t a, int64_t b, int64_t c) {
    x->rank = rank;
    x->shape[0] = a;
    x->shape[1] = b;
    x->shape[2] = c;
}

static void copy_shape(node *x, tensor from) {
    set_shape(x, from->rank, from->shape[0], from->shape[1], from->shape[2]);
}

/* Marks the graph as failed with an error that names the operation and the shapes it was given. */
static tensor refuse(graph *g, const char *operation, tensor x, const char *wanted) {
    char shape[64];
    if (!g->failed)
        fail("%s of %s: %s", operation, shape_text(shape, sizeof shape, x->rank, x->shape), wanted);
    g->failed = true;
    return &nothing;
}

static bool same_shape(tensor a, tensor b) {
    if (a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->shape[i] != b->shape[i]) return false;
    return true;
}

tensor tokens(graph *g, const int32_t *ids, int64_t n) {
    if (n < 1) return refuse(g, "tokens", &nothing, "there are none");
    if (n % g->n_sequences) return refuse(g, "tokens", &nothing, "not as many for each sequence");
    if (!g->failed && g->n_ids + n > g->ids_capacity) {
        void *grown = g->ids;
        g->failed = mem_resize(&grown, (size_t)(g->n_ids + n), sizeof *ids, "token ids") < 0;
        if (!g->failed) {
            g->ids = grown;
            g->ids_capacity = g->n_ids + n;
        }
    }
    node *x = add_node(g, OP_TOKENS, DTYPE_I32);
    if (!x) return &nothing;
    memcpy(g->ids + g->n_ids, ids, (size_t)n * sizeof *ids);
    x->first_id = g->n_ids;
    g->n_ids += n;
    set_shape(x, 1, n, 0, 0);
    return x;
}

tensor token_result(graph *g, result *r) {
    if (r->dtype != DTYPE_I32) return refuse(g, "token_result", &nothing, "the result holds no token ids");
    node *x = add_node(g, OP_TOKEN_RESULT, DTYPE_I32);
    if (!x) return &nothing;
    x->from = r;
    set_shape(x, 1, r->count, 0, 0);
    return x;
}

tensor embed(graph *g, tensor ids, const weight *w) {
    if (ids->rank != 1 || ids->dtype != DTYPE_I32 || w->rank != 2)
        return refuse(g, "embed", ids, "wants I32 ids");
    node *x = add_node(g, OP_EMBED, w->dtype);
    if (!x) return &nothing;
    x->in[0] = ids;
    x->w[0] = w;
    set_shape(x, 2, ids->shape[0], w->shape[1], 0);
    return x;
}

/* MLX promotes: two different types of floats become F32. */
static enum dtype promoted(enum dtype a, enum dtype b) {
    return a == b ? a : DTYPE_F32;
}

tensor linear(graph *g, tensor in, const weight *w) {
    if (in->rank != 2 || w->rank != 2 || in->shape[1] != w->shape[1])
        return refuse(g, "linear", in, "the weight has another input width");
    enum dtype type = w->kind > MATRIX_AFFINE ? in->dtype : promoted(in->dtype, w->dtype);
    node *x = add_node(g, OP_LINEAR, type); /* scales of one byte promote nothing */
    if (!x) return &nothing;
    x->in[0] = in;
    x->w[0] = w;
    x->group = x->index;
    set_shape(x, 2, in->shape[0], w->shape[0], 0);
    return x;
}

void linears(graph *g, tensor in, int n, const weight *const w[], tensor *const out[]) {
    int first = g->n_nodes;
    for (int i = 0; i < n; i++) *out[i] = linear(g, in, w[i]);
    for (int i = first; i < g->n_nodes; i++) graph_node(g, i)->group = first;
}

tensor rms_norm(graph *g, tensor in, const weight *w, float eps) {
    if (w && (w->rank != 1 || w->shape[0] != tensor_last(in)))
        return refuse(g, "rms_norm", in, "the weight has another width");
    node *x = add_node(g, OP_RMS_NORM, w ? promoted(in->dtype, w->dtype) : in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
    x->w[0] = w;
    x->eps = eps;
    copy_shape(x, in);
    return x;
}

tensor heads(graph *g, tensor in, int n) {
    if (in->rank != 2 || n < 1 || in->shape[1] % n)
        return refuse(g, "heads", in, "the width is no multiple of them");
    node *x = add_node(g, OP_HEADS, in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
    set_shape(x, 3, in->shape[0], n, in->shape[1] / n);
    return x;
}

tensor rope(graph *g, tensor in, const rope_spec *spec, const cache *c) {
    if (in->rank != 3 || spec->dims > in->shape[2] || spec->dims % 2)
        return refuse(g, "rope", in, "wants [L, H, head_dim] with an even number of rotated features");
    if (spec->limit && c->offset + in->shape[0] / g->n_sequences > spec->limit)
        return refuse(g, "rope", in,
                      "the text is longer than max_position_embeddings; dynamic scaling is not supported");
    node *x = add_node(g, OP_ROPE, in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
    x->rope = spec;
    x->position = c->offset;
    copy_shape(x, in);
    return x;
}

/* Queries [L, H, hd] to what the cache shows after the write. */
static tensor attend_to(graph *g, tensor q, const node *write, const attend_spec *spec) {
    const cache_spec *s = &write->cache->spec;
    if (q->rank != 3 || q->shape[0] != write->shape[0] || q->shape[2] != s->head_dim ||
        q->shape[1] % s->n_kv_heads)
        return refuse(g, "attend: queries", q, "the keys have another shape");
    if (spec->sinks && (spec->sinks->rank != 1 || spec->sinks->shape[0] != q->shape[1]))
        return refuse(g, "attend: queries", q, "there is not one sink per head");
    if (write->cache->bits && (spec->sinks || spec->softcap != 0))
        return refuse(g, "attend: queries", q, "a quantized cache has neither sinks nor soft caps");
    node *x = add_node(g, OP_ATTEND, q->dtype);
    if (!x) return &nothing;
    x->in[0] = q;
    x->in[1] = write;
    x->w[0] = spec->sinks;
    x->attention = *spec;
    x->cache = write->cache;
    x->position = write->position;
    set_shape(x, 2, q->shape[0], q->shape[1] * s->v_head_dim, 0);
    return x;
}

tensor attend(graph *g, cache *c, tensor q, tensor k, tensor v, const attend_spec *spec) {
    const cache_spec *s = &c->spec;
    if (k->rank != 3 || k->shape[1] != s->n_kv_heads || k->shape[2] != s->head_dim)
        return refuse(g, "attend: keys", k, "the cache has another shape");
    if (v->rank != 3 || v->shape[1] != s->n_kv_heads || v->shape[2] != s->v_head_dim ||
        v->shape[0] != k->shape[0])
        return refuse(g, "attend: values", v, "the cache has another shape");
    if (s->n_sequences != g->n_sequences || k->shape[0] % g->n_sequences)
        return refuse(g, "attend: keys", k, "the cache is of another number of sequences");
    if (c->step == g->step) return refuse(g, "attend: keys", k, "this step wrote the cache before");
    node *write = add_node(g, OP_KV_WRITE, k->dtype);
    if (!write) return &nothing;
    write->in[0] = k;
    write->in[1] = v;
    copy_shape(write, k);
    c->step = g->step;
    write->cache = c;
    write->position = c->offset;
    return attend_to(g, q, write, spec);
}

tensor attend_shared(graph *g, cache *c, tensor q, const attend_spec *spec) {
    for (int i = g->n_nodes - 1; i >= 0; i--) {
        const node *x = graph_node(g, i);
        if (x->op == OP_KV_WRITE && x->cache == c) return attend_to(g, q, x, spec);
    }
    return refuse(g, "attend_shared", q, "no layer wrote to this cache in this step");
}

tensor short_conv(graph *g, cache *c, int slot, tensor in, const weight *w, bool silu) {
    if (in->rank != 2 || w->rank != 2 || w->shape[0] != in->shape[1] || in->shape[0] % g->n_sequences)
        return refuse(g, "short_conv", in, "the weight has another number of features");
    bool there = slot >= 0 && slot < c->spec.n_states && c->spec.n_sequences == g->n_sequences;
    const struct cache_state *state = there ? &c->spec.states[slot] : NULL;
    if (!state || state->rows != w->shape[1] - 1 || state->cols != in->shape[1])
        return refuse(g, "short_conv", in, "the cache has no state that fits");
    node *x = add_node(g, OP_SHORT_CONV, in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
    x->w[0] = w;
    x->cache = c;
    x->position = c->offset;
    x->conv = (conv_options){slot, silu};
    copy_shape(x, in);
    return x;
}

tensor gated(graph *g, activation act, tensor gate, tensor up) {
    if (!same_shape(gate, up)) return refuse(g, "gated", up, "the gate has another shape");
    node *x = add_node(g, OP_GATED, act == ACT_SILU_F32 ? up->dtype : promoted(gate->dtype, up->dtype));
    if (!x) return &nothing;
    x->in[0] = gate;
    x->in[1] = up;
    x->act = act;
    copy_shape(x, gate);
    return x;
}

static tensor sum(graph *g, tensor a, tensor b, bool clip) {
    if (!same_shape(a, b)) return refuse(g, "add", b, "the other operand has another shape");
    node *x = add_node(g, OP_ADD, promoted(a->dtype, b->dtype));
    if (!x) return &nothing;
    x->in[0] = a;
    x->in[1] = b;
    x->clip = clip;
    copy_shape(x, a);
    return x;
}

tensor add(graph *g, tensor a, tensor b) {
    return sum(g, a, b, false);
}

tensor add_clipped(graph *g, tensor a, tensor b) {
    return sum(g, a, b, true);
}

tensor activate(graph *g, activation act, tensor in) {
    if (act == ACT_OAI || act == ACT_SILU_F32)
        return refuse(g, "activate", in, "this activation has two inputs");
    node *x = add_node(g, OP_ACTIVATE, in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
    x->act = act;
    copy_shape(x, in);
    return x;
}

static tensor by_constant(graph *g, op_kind op, tensor in, float s) {
    node *x = add_node(g, op, in->dtype);
    if (!x) return &nothing;
    if (in->dtype == DTYPE_BF16) s = bf16_to_f32(f32_to_bf16(s));
    if (in->dtype == DTYPE_F16) s = f16_to_f32(f32_to_f16(s));
    x->in[0] = in;
    x->scale = s;
    copy_shape(x, in);
    return x;
}

tensor scale(graph *g, tensor in, float s) {
    return by_constant(g, OP_SCALE, in, s);
}

tensor divide(graph *g, tensor in, float s) {
    return by_constant(g, OP_DIVIDE, in, s);
}

tensor soft_cap(graph *g, tensor in, float c) {
    return by_constant(g, OP_SOFT_CAP, in, c);
}

tensor product(graph *g, tensor a, tensor b) {
    bool per_row = a->rank == b->rank && tensor_rows(a) == tensor_rows(b) && tensor_last(b) == 1;
    if (!same_shape(a, b) && !per_row) return refuse(g, "product", b, "the other operand has another shape");
    node *x = add_node(g, OP_PRODUCT, promoted(a->dtype, b->dtype));
    if (!x) return &nothing;
    x->in[0] = a;
    x->in[1] = b;
    copy_shape(x, a);
    return x;
}

tensor product_weight(graph *g, tensor in, const weight *w) {
    if (w->rank != 1 || (w->shape[0] != 1 && w->shape[0] != tensor_last(in)))
        return refuse(g, "product_weight", in, "the weight has another width");
    node *x = add_node(g, OP_PRODUCT_WEIGHT, promoted(in->dtype, w->dtype));
    if (!x) return &nothing;
    x->in[0] = in;
    x->w[0] = w;
    copy_shape(x, in);
    return x;
}

tensor part(graph *g, tensor in, int64_t first, int64_t n) {
    if (in->rank < 2 || first < 0 || n < 1 || first + n > tensor_last(in))
        return refuse(g, "part", in, "the columns are outside");
    node *x = add_node(g, OP_PART, in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
    x->first = first;
    copy_shape(x, in);
    x->shape[x->rank - 1] = n;
    return x;
}

tensor concat(graph *g, tensor a, tensor b) {
    if (a->rank != 2 || b->rank != 2 || a->shape[0] != b->shape[0])
        return refuse(g, "concat", b, "the other operand has another number of rows");
    node *x = add_node(g, OP_CONCAT, promoted(a->dtype, b->dtype));
    if (!x) return &nothing;
    x->in[0] = a;
    x->in[1] = b;
    set_shape(x, 2, a->shape[0], a->shape[1] + b->shape[1], 0);
    return x;
}

tensor flatten(graph *g, tensor in) {
    if (in->rank != 3) return refuse(g, "flatten", in, "wants [L, H, head_dim]");
    node *x = add_node(g, OP_FLATTEN, in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
    set_shape(x, 2, in->shape[0], in->shape[1] * in->shape[2], 0);
    return x;
}

tensor scale_positions(graph *g, tensor in, position_scale s, const cache *c) {
    if (in->rank != 3) return refuse(g, "scale_positions", in, "wants [L, H, head_dim]");
    node *x = add_node(g, OP_SCALE_POSITIONS, in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
    x->by_position = s;
    x->position = c->offset;
    copy_shape(x, in);
    return x;
}

tensor route(graph *g, tensor logits, const route_spec *spec) {
    int64_t n = logits->rank == 2 ? logits->shape[1] : 0;
    if (spec->k < 1 || spec->k > n) return refuse(g, "route", logits, "has fewer experts than k");
    if (spec->bias && (spec->bias->rank != 1 || spec->bias->shape[0] != n))
        return refuse(g, "route", logits, "has another number of experts than the bias");
    if (spec->expert_scale && (spec->expert_scale->rank != 1 || spec->expert_scale->shape[0] != n))
        return refuse(g, "route", logits, "has another number of experts than their scales");
    if (spec->n_group > 1 && (n % spec->n_group || spec->topk_group < 1 || spec->topk_group > spec->n_group))
        return refuse(g, "route", logits, "does not fall into these groups");
    node *x = add_node(g, OP_ROUTE, DTYPE_OTHER);
    if (!x) return &nothing;
    x->in[0] = logits;
    x->w[0] = spec->bias;
    x->w[1] = spec->expert_scale;
    x->route = *spec;
    set_shape(x, 2, logits->shape[0], spec->k, 0);
    return x;
}

tensor as_f32(graph *g, tensor in) {
    node *x = add_node(g, OP_AS_F32, DTYPE_F32);
    if (!x) return &nothing;
    x->in[0] = in;
    copy_shape(x, in);
    return x;
}

tensor experts(graph *g, tensor in, tensor routing, activation act, const weight *gate, const weight *up,
               const weight *down) {
    bool fits = in->rank == 2 && gate->rank == 3 && up->rank == 3 && down->rank == 3 &&
                gate->shape[2] == in->shape[1] && up->shape[2] == in->shape[1] &&
                down->shape[1] == in->shape[1] && gate->shape[1] == up->shape[1] &&
                gate->shape[1] == down->shape[2];
    if (!fits || routing->op != OP_ROUTE || routing->in[0]->shape[1] != gate->shape[0])
        return refuse(g, "experts", in, "input, routing and weights do not fit together");
    node *x = add_node(g, OP_EXPERTS, in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
    x->in[1] = routing;
    x->act = act;
    x->w[0] = gate;
    x->w[1] = up;
    x->w[2] = down;
    copy_shape(x, in);
    return x;
}

tensor logprobs(graph *g, tensor in) {
    node *x = add_node(g, OP_LOGPROBS, in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
    copy_shape(x, in);
    return x;
}

tensor argmax(graph *g, tensor in) {
    if (in->rank != 2) return refuse(g, "argmax", in, "wants [L, V]");
    node *x = add_node(g, OP_ARGMAX, DTYPE_I32);
    if (!x) return &nothing;
    x->in[0] = in;
    set_shape(x, 1, in->shape[0], 0, 0);
    return x;
}

tensor layer_norm(graph *g, tensor in, const weight *w, float eps) {
    tensor x = rms_norm(g, in, w, eps); /* the same shapes and types */
    if (x != &nothing) graph_node(g, x->index)->op = OP_LAYER_NORM;
    return x;
}

/* Whether state `slot` of the cache is rows x cols. */
static bool cache_has_state(const graph *g, const cache *c, int slot, int64_t rows, int64_t cols) {
    const cache_spec *s = &c->spec;
    if (slot < 0 || slot >= s->n_states || s->n_sequences != g->n_sequences) return false;
    return s->states[slot].rows == rows && s->states[slot].cols == cols;
}

tensor delta_rule(graph *g, cache *c, const delta_inputs *in, const delta_spec *spec) {
    tensor q = in->q, k = in->k, v = in->v, a = in->a, b = in->b;
    if (!same_shape(q, k) || q->rank != 3 || v->rank != 3 || v->shape[1] % q->shape[1] ||
        v->shape[0] != q->shape[0] || v->shape[0] % g->n_sequences)
        return refuse(g, "delta_rule", v, "queries, keys and values do not fit together");
    int64_t heads = v->shape[1], n = a->rank == 3 ? heads * q->shape[2] : heads;
    bool fits = b->rank == 2 && b->shape[1] == heads && tensor_count(a) == v->shape[0] * n &&
                a->shape[1] == heads && spec->A_log->shape[0] == heads && spec->dt_bias->shape[0] == n;
    if (!fits || b->shape[0] != v->shape[0] || spec->A_log->rank != 1 || spec->dt_bias->rank != 1)
        return refuse(g, "delta_rule", a, "gates and weights do not fit the values");
    if (!cache_has_state(g, c, spec->slot, heads * v->shape[2], q->shape[2]))
        return refuse(g, "delta_rule", v, "the cache has no state that fits");
    node *x = add_node(g, OP_DELTA_RULE, q->dtype);
    if (!x) return &nothing;
    tensor inputs[] = {q, k, v, a, b};
    for (int i = 0; i < 5; i++) x->in[i] = inputs[i];
    x->w[0] = spec->A_log;
    x->w[1] = spec->dt_bias;
    x->cache = c;
    x->position = c->offset;
    x->delta = spec;
    copy_shape(x, v);
    return x;
}

void graph_mark_live(graph *g, int n, const tensor outputs[]) {
    for (int i = 0; i < g->n_nodes; i++) {
        node *x = graph_node(g, i);
        x->live = op_flags[x->op] & EFFECT;
        x->readers = 0;
        x->reader = NULL;
    }
    for (int i = 0; i < n; i++) {
        node *x = graph_node(g, outputs[i]->index);
        x->live = true;
        x->readers++;
    }
    for (int i = g->n_nodes - 1; i >= 0; i--) {
        node *x = graph_node(g, i);
        for (int k = 0; k < NODE_MAX_INPUTS && x->live; k++) {
            if (!x->in[k]) continue;
            node *from = graph_node(g, x->in[k]->index);
            from->live = true;
            from->readers++;
            if (!from->reader) from->reader = x;
        }
    }
}

/* Every cache that the step writes goes on by its tokens, before the engine runs it: MLX slices to there. */
static void advance_caches(graph *g) {
    for (int i = 0; i < g->n_nodes; i++) {
        node *x = graph_node(g, i);
        if (op_flags[x->op] & EFFECT) x->cache->offset = x->position + rows_per_sequence(g, x);
    }
}

int graph_end(graph *g, int n, const tensor outputs[], result *results[]) {
    if (g->failed) return -1;
    if (interrupted()) return fail_interrupted();
    graph_mark_live(g, n, outputs);
    advance_caches(g);
    return g->engine->type->run(g->engine, g, n, outputs, results);
}
