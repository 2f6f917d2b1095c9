/* fusion.cpp - decode steps with fewer kernels: finds, in the recorded graph, neighbours that one kernel can
 * do. A step's time on a GPU is mostly the number of its kernels; models stay as they are written. */
#include "engine/mlx/mlx.hpp"

#include <cmath>

/* ---- which values are read where ---- */

static void count_readers(fusion &f, const graph *g, int n, const tensor outputs[]) {
    size_t n_nodes = static_cast<size_t>(g->n_nodes);
    f.readers.assign(n_nodes, 0);
    f.reader.assign(n_nodes, -1);
    f.done.assign(n_nodes, false);
    for (int i = 0; i < g->n_nodes; i++) {
        const node *x = graph_node(g, i);
        for (const tensor in : x->in) {
            if (!in || !x->live) continue;
            f.readers[in->index]++;
            f.reader[in->index] = i;
        }
    }
    for (int i = 0; i < n; i++) f.readers[outputs[i]->index]++;
}

/* The only one that reads x, if it is an operation of this kind. */
static const node *sole_reader(const mlx_engine &e, const graph *g, const node *x, op_kind op) {
    if (e.fused.readers[x->index] != 1 || e.fused.reader[x->index] < 0) return nullptr;
    const node *reader = graph_node(g, e.fused.reader[x->index]);
    return reader->op == op ? reader : nullptr;
}

/* ---- linears, with the norm before and what follows ---- */

struct linear_group {
    int n = 0;
    const node *linears[3] = {};
};

/* The linears from node i on that share an input and a kind of weight; none where the kernel cannot do it. */
static linear_group group_at(const graph *g, int i) {
    linear_group group;
    for (; i < g->n_nodes && group.n < 3; i++) {
        const node *x = graph_node(g, i);
        if (x->op != OP_LINEAR || !cuda_matvec_takes(weight_of(x->w[0]))) break;
        const mlx_weight &w = weight_of(x->w[0]);
        if (group.n) {
            const mlx_weight &first = weight_of(group.linears[0]->w[0]);
            if (x->in[0] != group.linears[0]->in[0] || w.bits != first.bits ||
                w.group_size != first.group_size || w.base.dtype != first.base.dtype)
                break;
        } else if (x->in[0]->dtype != w.base.dtype) {
            break;
        }
        group.linears[group.n++] = x;
    }
    return group;
}

/* A norm that only a group of linears reads becomes part of their kernel. */
static bool norm_is_part(mlx_engine &e, const graph *g, const node *x) {
    if (x->rank != 2 || !x->w[0] || x->w[0]->dtype != x->dtype) return false;
    linear_group group = group_at(g, x->index + 1);
    return group.n && group.linears[0]->in[0] == x && e.fused.readers[x->index] == group.n;
}

/* What the group's kernel does with its products; *at: the node whose value that is, null when it is theirs.
 */
static matvec_ending ending_of(const mlx_engine &e, const graph *g, const linear_group &group,
                               const node **at) {
    const node *first = group.linears[0], *second = group.linears[1];
    const node *sum = group.n == 1 ? sole_reader(e, g, first, OP_ADD) : nullptr;
    if (sum && !(sum->clip && sum->dtype == DTYPE_F16)) {
        const node *other = sum->in[0] == first ? sum->in[1] : sum->in[0];
        if (other->index < first->index && other->dtype == first->dtype) {
            *at = sum;
            return MATVEC_ADD;
        }
    }
    const node *both = group.n == 2 ? sole_reader(e, g, first, OP_GATED) : nullptr;
    if (both && both->in[0] == first && both->in[1] == second && sole_reader(e, g, second, OP_GATED) &&
        first->w[0]->shape[0] == second->w[0]->shape[0]) {
        *at = both;
        return both->act == ACT_SILU ? MATVEC_SILU : MATVEC_GELU;
    }
    *at = nullptr;
    return MATVEC_PLAIN;
}

static bool record_linears(mlx_engine &e, const graph *g, const node *x) {
    linear_group group = group_at(g, x->index);
    if (!group.n) return false;
    const node *in = x->in[0], *at;
    bool normalized = in->op == OP_RMS_NORM && e.fused.done[in->index];
    cuda_matvec m = {.x = *e.values[(normalized ? in->in[0] : in)->index].first};
    if (normalized) {
        m.norm = weight_of(in->w[0]).values;
        m.eps = in->eps;
    }
    m.ending = ending_of(e, g, group, &at);
    if (m.ending == MATVEC_ADD) m.residual = *e.values[(at->in[0] == x ? at->in[1] : at->in[0])->index].first;
    m.n = group.n;
    for (int i = 0; i < group.n; i++) m.weights[i] = &weight_of(group.linears[i]->w[0]);
    std::vector<mx::array> out = cuda_matvec_run(m);
    for (int i = 0; i < group.n; i++) {
        if (!at) e.values[group.linears[i]->index].first = out[static_cast<size_t>(i)];
        e.fused.done[group.linears[i]->index] = true;
    }
    if (at) {
        e.values[at->index].first = out[0];
        e.fused.done[at->index] = true;
    }
    return true;
}

/* ---- attention, with rope and the cache writes ---- */

/* What leads from a projection to attention: HEADS, perhaps RMS_NORM, ROPE. */
struct rotated {
    const node *from, *heads, *norm, *rope;
};

static bool is_rotated(const mlx_engine &e, const graph *g, const node *x, op_kind reader, rotated *out) {
    if (x->op != OP_ROPE || !sole_reader(e, g, x, reader) || x->rope->mscale != 1) return false;
    const node *norm = x->in[0]->op == OP_RMS_NORM ? x->in[0] : nullptr,
               *heads = norm ? norm->in[0] : x->in[0];
    if (heads->op != OP_HEADS || e.fused.readers[heads->index] != 1 || e.fused.readers[x->in[0]->index] != 1)
        return false;
    if (norm && (!norm->w[0] || norm->w[0]->dtype != norm->dtype)) return false;
    *out = {heads->in[0], heads, norm, x};
    return true;
}

struct attention_group {
    rotated q, k;
    const node *v, *write;
};

/* What the attention x can do with what comes before it; false where the kernel cannot. */
static bool attention_at(const mlx_engine &e, const graph *g, const node *x, attention_group *out) {
    const node *write = x->in[1], *v = write->in[1];
    const kv &cache = *x->cache;
    if (cache.bits || cache.spec.max_size ||
        !cuda_attend_takes(cache.spec, static_cast<int>(x->in[0]->shape[1])))
        return false;
    if ((x->dtype != DTYPE_BF16 && x->dtype != DTYPE_F16) || v->op != OP_HEADS ||
        e.fused.readers[v->index] != 1)
        return false;
    if (!is_rotated(e, g, x->in[0], OP_ATTEND, &out->q) ||
        !is_rotated(e, g, write->in[0], OP_KV_WRITE, &out->k))
        return false;
    const rotated &q = out->q, &k = out->k;
    if (q.rope->rope != k.rope->rope || !q.norm != !k.norm || (q.norm && q.norm->eps != k.norm->eps))
        return false;
    out->write = write;
    out->v = v;
    return true;
}

static void leave_to_attention(fusion &f, const attention_group &a) {
    for (const node *x : {a.q.heads, a.q.norm, a.q.rope, a.k.heads, a.k.norm, a.k.rope, a.v, a.write})
        if (x) f.done[x->index] = true;
}

static const mx::array &inverse_freqs(fusion &f, const rope_spec *spec) {
    auto found = f.inverse_freqs.find(spec);
    if (found != f.inverse_freqs.end()) return found->second;
    int n = spec->dims / 2;
    std::vector<float> inverse(static_cast<size_t>(n));
    for (int i = 0; i < n; i++) /* as MLX's two kernels compute them */
        inverse[static_cast<size_t>(i)] =
            spec->base != 0
                ? std::exp2(-(static_cast<float>(i) / static_cast<float>(n)) * std::log2(spec->base))
                : 1 / spec->freqs[i];
    mx::array made(inverse.data(), {n}, mx::float32);
    return f.inverse_freqs.emplace(spec, made).first->second;
}

static optional_array weight_of_norm(const node *norm) {
    return norm ? optional_array(weight_of(norm->w[0]).values) : std::nullopt;
}

static bool record_attention(mlx_engine &e, const graph *g, const node *x) {
    attention_group a;
    if (!attention_at(e, g, x, &a)) return false;
    mlx_kv &cache = *reinterpret_cast<mlx_kv *>(x->cache);
    const kv_spec &s = cache.base.spec;
    const mx::array &q = *e.values[a.q.from->index].first, &k = *e.values[a.k.from->index].first;
    mx::Shape entry = {1, s.n_kv_heads, 1, s.head_dim};
    mlx_kv_reserve(cache.keys, 0, entry, k.dtype(), x->position);
    mlx_kv_reserve(cache.values, 0, entry, k.dtype(), x->position);
    fusion &f = e.fused;
    if (!f.entries) f.entries = mx::broadcast_to(mx::array(0.0f), {static_cast<int>(x->position) + 1});
    int n_heads = static_cast<int>(a.q.rope->shape[1]), scratch = cuda_attend_scratch(s, n_heads);
    if (!f.scratch || f.scratch->shape(0) < scratch) f.scratch = mx::zeros({scratch}, mx::float32);
    cuda_attend run = {.q = q,
                       .k = k,
                       .v = *e.values[a.v->in[0]->index].first,
                       .keys = cache.keys[0],
                       .values = cache.values[0],
                       .inverse_freqs = inverse_freqs(f, a.q.rope->rope),
                       .entries = *f.entries,
                       .scratch = *f.scratch,
                       .rope = a.q.rope->rope,
                       .n_heads = n_heads,
                       .scale = x->scale,
                       .q_norm = weight_of_norm(a.q.norm),
                       .k_norm = weight_of_norm(a.k.norm),
                       .eps = a.q.norm ? a.q.norm->eps : 0};
    e.values[x->index].first = cuda_attend_run(run);
    return true;
}

/* ---- a step ---- */

void fusion_begin(mlx_engine &e, const graph *g, int n, const tensor outputs[]) {
    fusion &f = e.fused;
    const node *first = graph_node(g, 0);
    f.running = fuses(e) && n && first->rank == 1 && first->shape[0] == 1;
    if (!f.running) return;
    count_readers(f, g, n, outputs);
    for (int i = 0; i < g->n_nodes; i++) {
        attention_group a;
        const node *x = graph_node(g, i);
        if (x->op == OP_ATTEND && x->live && attention_at(e, g, x, &a)) leave_to_attention(f, a);
    }
}

bool fusion_record(mlx_engine &e, const graph *g, const node *x) {
    if (!e.fused.running) return false;
    if (e.fused.done[x->index]) return true;
    switch (x->op) {
    case OP_RMS_NORM:
        return e.fused.done[x->index] = norm_is_part(e, g, x);
    case OP_LINEAR:
        return record_linears(e, g, x);
    case OP_ATTEND:
        return record_attention(e, g, x);
    default:
        return false;
    }
}

void fusion_end(mlx_engine &e) {
    e.fused.running = false;
    e.fused.entries.reset();
}
