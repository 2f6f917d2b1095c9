/* attention.c - grouped-query attention with the variations that descriptions ask for.
 * mlx-lm: the Attention class of most models, e.g. models/llama.py. */
#include "model/decoder.h"

#include <math.h>

static void load_norms(loader *l, const desc *d, const attention_desc *in, attention *out) {
    if (in->qk_norm == QK_NONE || in->qk_weightless) return;
    bool own = !in->reads; /* else there is no key to divide */
    if (in->qk_norm == QK_ALL_HEADS && in->qk_each) {
        out->q_norm = load_list(l, in->n_heads, in->head_dim, d->names.q_norm);
        out->k_norm = load_list(l, in->n_kv_heads, in->head_dim, d->names.k_norm);
        return;
    }
    if (in->qk_norm == QK_ALL_HEADS) {
        out->q_norm = load_flat(l, in->n_heads, in->head_dim, d->names.q_norm);
        out->k_norm = load_flat(l, in->n_kv_heads, in->head_dim, d->names.k_norm);
        return;
    }
    bool width = in->qk_norm == QK_WIDTH;
    int64_t q = width ? in->n_heads * in->head_dim : in->head_dim;
    int64_t k = width ? in->n_kv_heads * in->head_dim : in->head_dim;
    out->q_norm = load_norm(l, q, d->norm_offset, d->names.q_norm);
    if (own) out->k_norm = load_norm(l, k, d->norm_offset, d->names.k_norm);
}

void load_attention(loader *l, const desc *d, const attention_desc *in, attention *out) {
    int64_t q = in->n_heads * in->head_dim, k = in->n_kv_heads * in->head_dim;
    int64_t v = in->v_head_dim ? in->n_kv_heads * in->v_head_dim : k;
    out->d = *in;
    if (!in->v_head_dim) out->d.v_head_dim = in->head_dim;
    if (in->scale == 0) out->d.scale = pow((double)in->head_dim, -0.5);
    if (in->packing == PACKING_SEPARATE || in->reads) {
        int64_t rows = in->gate == GATE_IN_Q ? 2 * q : q;
        out->q = load_linear(l, (linear_shape){rows, d->hidden, in->qkv_bias}, d->names.q);
        bool own = !in->reads && !in->borrows;
        if (own) out->k = load_linear(l, (linear_shape){k, d->hidden, in->qkv_bias}, d->names.k);
        if (own && !in->k_is_v)
            out->v = load_linear(l, (linear_shape){v, d->hidden, in->qkv_bias}, d->names.v);
    } else {
        out->qkv = load_linear(l, (linear_shape){q + 2 * k, d->hidden, in->qkv_bias}, d->names.qkv);
    }
    out->o =
        load_linear(l, (linear_shape){d->hidden, in->n_heads * out->d.v_head_dim, in->o_bias}, d->names.o);
    if (in->gate != GATE_NONE && in->gate != GATE_IN_Q) {
        int64_t n = in->gate == GATE_SIGMOID ? q : in->n_heads;
        out->gate = load_linear(l, (linear_shape){n, d->hidden, in->gate_bias}, d->names.out_gate);
    }
    if (in->fake_8bit && !in->reads) {
        out->k_step = load_number(l, "self_attn.quant_key_scale");
        out->v_step = load_number(l, "self_attn.quant_value_scale");
    }
    if (in->sinks) out->sinks = load_vector(l, in->n_heads, d->names.sinks);
    if (in->q_gain) out->q_gain = load_gain(l, in->n_heads, in->head_dim, "attn.head_gain.head_g");
    if (in->out_norm) out->out_norm = load_norm(l, d->hidden, d->norm_offset, d->names.out_norm);
    load_norms(l, d, in, out);
}

typedef struct qkv {
    tensor q, k, v, gate; /* gate: of GATE_IN_Q */
} qkv;

static void norm_both(graph *g, const attention *a, float eps, qkv *x) {
    if (a->d.qk_eps > 0) eps = a->d.qk_eps;
    x->q = rms_norm(g, x->q, a->q_norm, eps);
    x->k = rms_norm(g, x->k, a->k_norm, eps);
}

/* mlx-lm plamo2.py: Attention; cohere.py: LayerNorm2D */
static tensor norm_all_heads(graph *g, const attention_desc *d, tensor x, const weight *w, int64_t n) {
    x = d->qk_layer_norm ? layer_norm(g, x, NULL, d->qk_eps) : rms_norm(g, x, NULL, 1e-6f);
    return heads(g, product_weight(g, flatten(g, x), w), (int)n);
}

/* [L, n_heads * hd] each. */
static qkv split_rows(graph *g, const attention_desc *d, tensor all) {
    int64_t q = d->n_heads * d->head_dim, k = d->n_kv_heads * d->head_dim;
    return (qkv){part(g, all, 0, q), part(g, all, q, k), part(g, all, q + k, k), NULL};
}

/* [L, heads, hd] each, from a KV head's queries, key and value side by side. */
static qkv split_groups(graph *g, const attention_desc *d, tensor all) {
    int64_t hd = d->head_dim, q = d->n_heads / d->n_kv_heads * hd;
    all = heads(g, all, (int)d->n_kv_heads);
    tensor queries = heads(g, flatten(g, part(g, all, 0, q)), (int)d->n_heads);
    return (qkv){queries, part(g, all, q, hd), part(g, all, q + hd, hd), NULL};
}

static qkv project(graph *g, const attention *a, tensor x, float eps, tensor projected[2]) {
    const attention_desc *d = &a->d;
    qkv p = {0};
    if (d->packing == PACKING_GROUPS) return split_groups(g, d, linear(g, x, a->qkv));
    if (d->packing == PACKING_ROWS) {
        tensor all = linear(g, x, a->qkv);
        p = split_rows(g, d, d->clip != 0 ? clip(g, all, (float)d->clip) : all);
    } else if (d->borrows)
        p = (qkv){linear(g, x, a->q), projected[0], projected[1], NULL};
    else
        linears(g, x, d->k_is_v ? 2 : 3, (const weight *const[]){a->q, a->k, a->v},
                (tensor *const[]){&p.q, &p.k, &p.v});
    if (d->k_is_v) p.v = p.k;
    projected[0] = p.k;
    projected[1] = p.v;
    if (d->qk_norm == QK_WIDTH) norm_both(g, a, eps, &p);
    p.q = heads(g, p.q, (int)d->n_heads);
    p.k = heads(g, p.k, (int)d->n_kv_heads);
    p.v = heads(g, p.v, (int)d->n_kv_heads);
    if (d->gate == GATE_IN_Q) {
        p.gate = flatten(g, part(g, p.q, d->head_dim, d->head_dim));
        p.q = part(g, p.q, 0, d->head_dim);
    }
    return p;
}

/* The result of attention times a gate of the layer's input. */
static tensor gate_result(graph *g, const attention *a, tensor x, tensor in_q, tensor out) {
    bool softplus = a->d.gate == GATE_SOFTPLUS_HEAD;
    activation act = softplus ? ACT_SOFTPLUS : a->d.gate_f32 ? ACT_SIGMOID_F32 : ACT_SIGMOID;
    tensor gate = activate(g, act, in_q ? in_q : linear(g, x, a->gate));
    if (a->d.gate != GATE_SIGMOID_HEAD && !softplus) return product(g, out, gate);
    int n = (int)a->d.n_heads;
    return flatten(g, product(g, heads(g, out, n), heads(g, gate, n)));
}

/* Queries alone: keys and values are another layer's. */
static tensor attend_to_others(graph *g, const attention *a, tensor x, float eps, cache *c) {
    const attention_desc *d = &a->d;
    tensor q = heads(g, linear(g, x, a->q), (int)d->n_heads);
    if (d->qk_norm == QK_HEADS) q = rms_norm(g, q, a->q_norm, eps);
    if (d->rope) q = rope(g, q, d->rope, c);
    if (d->qk_norm == QK_AFTER_ROPE) q = rms_norm(g, q, a->q_norm, d->qk_eps > 0 ? d->qk_eps : eps);
    return linear(g, attend_shared(g, c, q, &(attend_spec){.scale = (float)d->scale}), a->o);
}

tensor run_attention(graph *g, const attention *a, tensor x, float eps, cache *c, tensor projected[2]) {
    const attention_desc *d = &a->d;
    if (d->reads) return attend_to_others(g, a, x, eps, c);
    qkv p = project(g, a, x, eps, projected);
    if (d->qk_norm == QK_HEADS) norm_both(g, a, eps, &p);
    if (d->qk_norm == QK_ALL_HEADS) {
        p.q = norm_all_heads(g, d, p.q, a->q_norm, d->n_heads);
        p.k = norm_all_heads(g, d, p.k, a->k_norm, d->n_kv_heads);
    }
    if (d->q_scale != 0) p.q = scale(g, p.q, (float)d->q_scale);
    if (d->v_scale != 0) p.v = scale(g, p.v, (float)d->v_scale);
    if (d->v_norm) p.v = rms_norm(g, p.v, NULL, eps);
    if (d->rope) {
        p.q = rope(g, p.q, d->rope, c);
        p.k = rope(g, p.k, d->rope, c);
    }
    if (d->qk_norm == QK_AFTER_ROPE) norm_both(g, a, eps, &p);
    if (d->q_gain) p.q = heads(g, product_weight(g, flatten(g, p.q), a->q_gain), (int)d->n_heads);
    if (d->temperature.n != 0) p.q = scale_positions(g, p.q, d->temperature, c);
    attend_spec how = {.scale = (float)d->scale, .sinks = a->sinks, .softcap = d->softcap, .f32 = d->f32};
    if (d->f32_of_f16) how.f32 = c->spec.dtype == DTYPE_F16;
    if (d->fake_8bit) {
        p.k = fake_quant(g, p.k, a->k_step);
        p.v = fake_quant(g, p.v, a->v_step);
    }
    if (d->tiled) p.q = swap_heads(g, p.q, d->n_kv_heads);
    tensor out = attend(g, c, p.q, p.k, p.v, &how);
    if (d->tiled) out = flatten(g, swap_heads(g, heads(g, out, (int)d->n_heads), d->n_heads / d->n_kv_heads));
    if (a->out_norm) out = rms_norm(g, out, a->out_norm, eps);
    return linear(g, d->gate == GATE_NONE ? out : gate_result(g, a, x, p.gate, out), a->o);
}

tensor run_second_attention(graph *g, const attention *a, tensor x, float eps, cache *c, cache *first) {
    const attention_desc *d = &a->d;
    attend_spec how = {.scale = (float)d->scale};
    int n = (int)d->n_heads;
    tensor projected[2];
    qkv p = project(g, a, x, eps, projected);
    p.q = rope(g, p.q, d->rope, c);
    p.k = rope(g, p.k, d->rope, c);
    tensor gate = activate(g, ACT_SIGMOID, linear_heads(g, p.q, a->loop_gate));
    tensor all = heads(g, attend_shared(g, first, p.q, &how), n);
    tensor near = heads(g, attend(g, c, p.q, p.k, p.v, &how), n);
    return linear(g, flatten(g, blend(g, gate, all, near)), a->o);
}
