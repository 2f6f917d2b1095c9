/* graph_values.c - recording what has no cache: ids, products with weights, norms, shapes,
 * element-wise operations. The operations are described in engine.h; what is asked here, no engine
 * needs to ask. */
#include "engine/graph_record.h"

/* A node with room for n ids; NULL once the graph has failed. */
static node *add_ids(graph *g, int64_t n) {
    if (!g->failed && g->n_ids + n > g->ids_capacity) {
        void *grown = g->ids;
        g->failed = mem_resize(&grown, (size_t)(g->n_ids + n), sizeof *g->ids, "token ids") < 0;
        if (!g->failed) {
            g->ids = grown;
            g->ids_capacity = g->n_ids + n;
        }
    }
    node *x = add_node(g, OP_TOKENS, DTYPE_I32);
    if (!x) return NULL;
    x->first_id = g->n_ids;
    g->n_ids += n;
    set_shape(x, 1, n, 0, 0);
    return x;
}

tensor tokens(graph *g, const int32_t *ids, int64_t n) {
    if (n < 1) return refuse(g, "tokens", &nothing, "there are none");
    if (n % g->n_sequences) return refuse(g, "tokens", &nothing, "not as many for each sequence");
    node *x = add_ids(g, n);
    if (!x) return &nothing;
    memcpy(g->ids + x->first_id, ids, (size_t)n * sizeof *ids);
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

tensor embed_or_first(graph *g, tensor ids, const weight *w) {
    tensor x = embed(g, ids, w);
    if (x != &nothing) graph_node(g, x->index)->or_first = true;
    return x;
}

tensor embed_positions(graph *g, tensor ids, const weight *w, const cache *c) {
    if (ids->rank != 1 || w->rank != 2) return refuse(g, "embed_positions", ids, "wants ids");
    int64_t n = ids->shape[0], each = n / g->n_sequences;
    if (c->offset + each > w->shape[0])
        return refuse(g, "embed_positions", ids, "the text has more tokens than the model has positions");
    node *x = add_ids(g, n);
    if (!x) return &nothing;
    for (int64_t i = 0; i < n; i++) g->ids[x->first_id + i] = (int32_t)(c->offset + i % each);
    return embed(g, x, w);
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

tensor layer_norm(graph *g, tensor in, const weight *w, float eps) {
    tensor x = rms_norm(g, in, w, eps); /* the same shapes and types */
    if (x != &nothing) graph_node(g, x->index)->op = OP_LAYER_NORM;
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

tensor flatten(graph *g, tensor in) {
    if (in->rank != 3) return refuse(g, "flatten", in, "wants [L, H, head_dim]");
    node *x = add_node(g, OP_FLATTEN, in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
    set_shape(x, 2, in->shape[0], in->shape[1] * in->shape[2], 0);
    return x;
}

tensor blend(graph *g, tensor gate, tensor a, tensor b) {
    if (!same_shape(a, b) || gate->rank != a->rank || tensor_rows(gate) != tensor_rows(a) ||
        tensor_last(gate) != 1)
        return refuse(g, "blend", gate, "the operands have other shapes");
    node *x = add_node(g, OP_BLEND, promoted(promoted(a->dtype, b->dtype), gate->dtype));
    if (!x) return &nothing;
    x->in[0] = gate;
    x->in[1] = a;
    x->in[2] = b;
    copy_shape(x, a);
    return x;
}

tensor swap_heads(graph *g, tensor in, int64_t n) {
    if (in->rank != 3 || n < 1 || in->shape[1] % n)
        return refuse(g, "swap_heads", in, "the heads do not fall into these groups");
    node *x = add_node(g, OP_SWAP_HEADS, in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
    x->swapped = n;
    copy_shape(x, in);
    return x;
}

tensor fake_quant(graph *g, tensor in, const weight *w) {
    if (w->rank != 1 || w->shape[0] != 1) return refuse(g, "fake_quant", in, "the weight is no number");
    node *x = add_node(g, OP_FAKE_QUANT, in->dtype);
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
    bool same = a->rank == b->rank && tensor_rows(a) == tensor_rows(b);
    bool shared = a->rank == 3 && b->rank == 3 && b->shape[1] == 1;
    if (a->rank < 2 || a->shape[0] != b->shape[0] || (!same && !shared))
        return refuse(g, "concat", b, "the other operand has another number of rows");
    node *x = add_node(g, OP_CONCAT, promoted(a->dtype, b->dtype));
    if (!x) return &nothing;
    x->in[0] = a;
    x->in[1] = b;
    copy_shape(x, a);
    x->shape[x->rank - 1] = tensor_last(a) + tensor_last(b);
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
    if (has_two_inputs(act)) return refuse(g, "activate", in, "this activation has two inputs");
    node *x = add_node(g, OP_ACTIVATE, in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
    x->act = act;
    copy_shape(x, in);
    return x;
}

tensor xielu(graph *g, tensor in, const xielu_spec *spec) {
    const weight *w[] = {spec->alpha_p, spec->alpha_n, spec->beta, spec->eps};
    enum dtype type = in->dtype;
    for (int i = 0; i < 4; i++) {
        if (w[i]->rank != 1 || w[i]->shape[0] != 1) return refuse(g, "xielu", in, "a weight is no number");
        type = promoted(type, w[i]->dtype);
    }
    node *x = add_node(g, OP_XIELU, type);
    if (!x) return &nothing;
    x->in[0] = in;
    memcpy(x->w, w, sizeof w);
    copy_shape(x, in);
    return x;
}

tensor softmax(graph *g, tensor in) {
    node *x = add_node(g, OP_SOFTMAX, in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
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

tensor clip(graph *g, tensor in, float most) {
    return by_constant(g, OP_CLIP, in, most);
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

tensor as_f32(graph *g, tensor in) {
    node *x = add_node(g, OP_AS_F32, DTYPE_F32);
    if (!x) return &nothing;
    x->in[0] = in;
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
