/* graph_states.c - recording operations whose cache is an array of states.
 * The operations are described in engine.h; what is asked here, no engine needs to ask. */
#include "engine/graph_record.h"

/* Whether state `slot` of the cache is rows x cols. */
static bool cache_has_state(const graph *g, const cache *c, int slot, int64_t rows, int64_t cols) {
    const cache_spec *s = &c->spec;
    if (slot < 0 || slot >= s->n_states || s->n_sequences != g->n_sequences) return false;
    return s->states[slot].rows == rows && s->states[slot].cols == cols;
}

tensor short_conv(graph *g, cache *c, int slot, tensor in, const weight *w, bool silu) {
    if (in->rank != 2 || w->rank != 2 || w->shape[0] != in->shape[1] || in->shape[0] % g->n_sequences)
        return refuse(g, "short_conv", in, "the weight has another number of features");
    if (!cache_has_state(g, c, slot, w->shape[1] - 1, in->shape[1]))
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

/* What y and all that leads to it promote to. */
static enum dtype ssm_dtype(const ssm_inputs *in, const ssm_spec *spec) {
    enum dtype type = in->x->dtype;
    if (spec->A_log->shape[0] != in->x->shape[1]) /* Mamba-1 */
        type = promoted(promoted(promoted(type, in->dt->dtype), in->B->dtype), spec->A_log->dtype);
    return spec->narrow_D ? type : promoted(type, spec->D->dtype);
}

tensor ssm(graph *g, cache *c, const ssm_inputs *in, const ssm_spec *spec) {
    tensor v = in->x, b = in->B, dt = in->dt;
    if (v->rank != 3 || b->rank != 3 || !same_shape(b, in->C) || b->shape[0] != v->shape[0] ||
        v->shape[1] % b->shape[1] || v->shape[0] % g->n_sequences)
        return refuse(g, "ssm", v, "x, B and C do not fit together");
    int64_t heads = v->shape[1], n = b->shape[2];
    const weight *A_log = spec->A_log, *D = spec->D, *bias = spec->dt_bias;
    bool each = A_log->shape[0] == heads, vectors = A_log->rank == 1 && D->rank == 1;
    if (!vectors || (!each && (A_log->shape[0] != heads * n || v->shape[2] != 1)) || D->shape[0] != heads ||
        (bias && (bias->rank != 1 || bias->shape[0] != heads)) || dt->rank != 2 || dt->shape[1] != heads ||
        dt->shape[0] != v->shape[0])
        return refuse(g, "ssm", dt, "dt and weights do not fit the heads");
    if (!cache_has_state(g, c, spec->slot, heads * v->shape[2], n))
        return refuse(g, "ssm", v, "the cache has no state that fits");
    node *x = add_node(g, OP_SSM, ssm_dtype(in, spec));
    if (!x) return &nothing;
    tensor inputs[] = {v, b, in->C, dt};
    for (int i = 0; i < 4; i++) x->in[i] = inputs[i];
    x->w[0] = A_log;
    x->w[1] = D;
    x->w[2] = bias;
    x->cache = c;
    x->position = c->offset;
    x->ssm = spec;
    copy_shape(x, v);
    return x;
}

tensor linear_attention(graph *g, cache *c, tensor q, tensor k, tensor v, const lightning_spec *spec) {
    if (q->rank != 3 || v->rank != 3 || !same_shape(q, k) || v->shape[0] != q->shape[0] ||
        v->shape[1] != q->shape[1] || q->shape[0] % g->n_sequences)
        return refuse(g, "linear_attention", v, "queries, keys and values do not fit together");
    if (!cache_has_state(g, c, spec->slot, v->shape[1] * v->shape[2], q->shape[2]))
        return refuse(g, "linear_attention", v, "the cache has no state that fits");
    node *x = add_node(g, OP_LINEAR_ATTENTION, q->dtype);
    if (!x) return &nothing;
    x->in[0] = q;
    x->in[1] = k;
    x->in[2] = v;
    x->cache = c;
    x->position = c->offset;
    x->lightning = spec;
    copy_shape(x, v);
    return x;
}
