/* fusion.cpp - decode steps with fewer kernels: finds, in the recorded graph, neighbours that one
 * kernel can do. A step's time on a GPU is mostly the number of its kernels; models stay as they
 * are written. */
#include "engine/mlx/mlx.hpp"

/* ---- which values are read where ---- */

const node *sole_reader(const mlx_engine &e, const node *x, op_kind op) {
    return e.fused.readers[x->index] == 1 && x->reader && x->reader->op == op ? x->reader : nullptr;
}

/* ---- linears, with the norm before and what follows ---- */

struct linear_group {
    int n = 0;
    const node *linears[3] = {};
};

/* The linears from node i on that were recorded together and have one kind of weight; none where
 * the kernel cannot do it. */
static linear_group group_at(const graph *g, int i) {
    linear_group group;
    for (; i < g->n_nodes && group.n < 3; i++) {
        const node *x = graph_node(g, i);
        if (x->op != OP_LINEAR || !cuda_matvec_takes(weight_of(x->w[0]))) break;
        const mlx_weight &w = weight_of(x->w[0]);
        if (group.n) {
            const mlx_weight &first = weight_of(group.linears[0]->w[0]);
            if (x->group != group.linears[0]->group || w.bits != first.bits ||
                w.group_size != first.group_size || w.base.dtype != first.base.dtype)
                break;
        } else if (x->in[0]->dtype != w.base.dtype) {
            break;
        }
        group.linears[group.n++] = x;
    }
    return group;
}

/* A norm that the kernels which read x can do for themselves. */
static bool kernels_normalize(const node *x) {
    return x->op == OP_RMS_NORM && x->rank == 2 && x->w[0] && x->w[0]->dtype == x->dtype;
}

/* A norm that only a group of linears reads (and experts, see below) becomes part of their
 * kernels. */
static bool norm_is_part(mlx_engine &e, const graph *g, const node *x) {
    linear_group group = group_at(g, x->index + 1);
    return kernels_normalize(x) && group.n && group.linears[0]->in[0] == x &&
           e.fused.readers[x->index] == group.n;
}

/* The norm of in, where it became part of what reads it. */
static const node *norm_in_kernel(const mlx_engine &e, const node *in) {
    return in->op == OP_RMS_NORM && e.fused.done[in->index] ? in : nullptr;
}

/* A sum with x, and nothing else that reads x: the kernel that computes x can add what was there
 * before. */
static const node *sum_with(const mlx_engine &e, const node *x) {
    const node *sum = sole_reader(e, x, OP_ADD);
    if (!sum || (sum->clip && sum->dtype == DTYPE_F16)) return nullptr;
    const node *other = sum->in[0] == x ? sum->in[1] : sum->in[0];
    return other->index < x->index && other->dtype == x->dtype ? sum : nullptr;
}

static optional_array other_part(const mlx_engine &e, const node *sum, const node *x) {
    return sum ? e.values[(sum->in[0] == x ? sum->in[1] : sum->in[0])->index].first : std::nullopt;
}

/* What the group's kernel does with its products; *at: the node whose value that is, null when it
 * is theirs.
 */
static matvec_ending ending_of(const mlx_engine &e, const linear_group &group, const node **at) {
    const node *first = group.linears[0], *second = group.linears[1];
    *at = group.n == 1 ? sum_with(e, first) : nullptr;
    if (*at) return MATVEC_ADD;
    const node *both = group.n == 2 ? sole_reader(e, first, OP_GATED) : nullptr;
    if (both && both->in[0] == first && both->in[1] == second && sole_reader(e, second, OP_GATED) &&
        first->w[0]->shape[0] == second->w[0]->shape[0] &&
        (both->act == ACT_SILU || both->act == ACT_GELU_TANH)) {
        *at = both;
        return both->act == ACT_SILU ? MATVEC_SILU : MATVEC_GELU;
    }
    return MATVEC_PLAIN;
}

static bool record_linears(mlx_engine &e, const graph *g, const node *x) {
    linear_group group = group_at(g, x->index);
    if (!group.n) return false;
    const node *norm = norm_in_kernel(e, x->in[0]), *at;
    cuda_matvec m = {.x = *e.values[(norm ? norm->in[0] : x->in[0])->index].first,
                     .norm = weight_of_norm(norm),
                     .eps = norm ? norm->eps : 0};
    m.ending = ending_of(e, group, &at);
    if (m.ending == MATVEC_ADD) m.residual = other_part(e, at, x);
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

/* ---- experts, with the choice of them and the norm before ---- */

/* What the kernels choose and run: Qwen3's way. */
static bool is_plain(const node *x, const route_spec &s) {
    bool more =
        s.bias || s.expert_scale || s.identities || s.n_group > 1 || s.scale != 0 || s.eps != 0 || s.on_input;
    return s.score == SCORE_SOFTMAX && !more && (x->act == ACT_SILU || x->act == ACT_GELU_TANH);
}

/* Leaves the choice to the experts' kernels, if they can do it. They normalize for themselves, too:
 * then only the router counts as a reader of the norm. */
static void find_experts(mlx_engine &e, const node *x) {
    fusion &f = e.fused;
    const node *routing = x->in[1], *in = x->in[0];
    if (!x->w[1]) return; /* no gate */
    bool type = x->dtype == routing->in[0]->dtype && x->dtype == x->w[0]->dtype;
    bool biases = x->w[0]->has_bias || x->w[1]->has_bias || x->w[2]->has_bias;
    if (!type || biases || !is_plain(x, routing->route) || sole_reader(e, routing, OP_EXPERTS) != x ||
        !cuda_experts_take(weight_of(x->w[0]), weight_of(x->w[1]), weight_of(x->w[2]), routing->route.k))
        return;
    f.done[routing->index] = true;
    if (kernels_normalize(in)) f.readers[in->index]--;
}

static bool record_experts(mlx_engine &e, const node *x) {
    const node *routing = x->in[1], *norm = norm_in_kernel(e, x->in[0]), *sum = sum_with(e, x);
    if (!e.fused.done[routing->index]) return false;
    cuda_experts run = {.x = *e.values[(norm ? norm->in[0] : x->in[0])->index].first,
                        .norm = weight_of_norm(norm),
                        .eps = norm ? norm->eps : 0,
                        .logits = *e.values[routing->in[0]->index].first,
                        .k = routing->route.k,
                        .renormalize = routing->route.renormalize,
                        .act = x->act,
                        .gate = &weight_of(x->w[0]),
                        .up = &weight_of(x->w[1]),
                        .down = &weight_of(x->w[2]),
                        .residual = other_part(e, sum, x)};
    const node *at = sum ? sum : x;
    e.values[at->index].first = cuda_experts_run(run);
    return e.fused.done[at->index] = true;
}

/* ---- a step ---- */

void fusion_begin(mlx_engine &e, const graph *g, int n_outputs) {
    fusion &f = e.fused;
    const node *first = graph_node(g, 0);
    f.running = fuses(e) && n_outputs && g->n_sequences == 1 && first->rank == 1 && first->shape[0] == 1;
    if (!f.running) return;
    f.readers.clear();
    for (int i = 0; i < g->n_nodes; i++) f.readers.push_back(graph_node(g, i)->readers);
    f.done.assign(f.readers.size(), false);
    f.attentions.clear();
    for (int i = 0; i < g->n_nodes; i++) {
        const node *x = graph_node(g, i);
        if (x->live && x->op == OP_ATTEND) find_attention(e, x);
        if (x->live && x->op == OP_EXPERTS) find_experts(e, x);
    }
}

bool fusion_record(mlx_engine &e, const graph *g, const node *x) {
    if (!e.fused.running) return false;
    if (e.fused.done[x->index]) /* where experts are noted, what their kernel chooses for itself, too */
        return x->op != OP_ROUTE || !x->touched;
    switch (x->op) {
    case OP_RMS_NORM:
        return e.fused.done[x->index] = norm_is_part(e, g, x);
    case OP_LINEAR:
        return record_linears(e, g, x);
    case OP_ATTEND:
        return record_attention(e, x);
    case OP_EXPERTS:
        return record_experts(e, x);
    default:
        return false;
    }
}

void fusion_end(mlx_engine &e) {
    e.fused.running = false;
    e.fused.entries.reset();
}
