/* attention.c - grouped-query attention with the variations that descriptions ask for.
 * mlx-lm: the Attention class of most models, e.g. models/llama.py. */
#include "model/decoder.h"

#include <math.h>

static void load_norms(loader *l, const desc *d, const attention_desc *in, attention *out) {
    if (in->qk_norm == QK_NONE || in->qk_weightless) return;
    bool width = in->qk_norm == QK_WIDTH;
    int64_t q = width ? in->n_heads * in->head_dim : in->head_dim;
    int64_t k = width ? in->n_kv_heads * in->head_dim : in->head_dim;
    out->q_norm = load_norm(l, q, d->norm_offset, d->names.q_norm);
    out->k_norm = load_norm(l, k, d->norm_offset, d->names.k_norm);
}

void load_attention(loader *l, const desc *d, const attention_desc *in, attention *out) {
    int64_t q = in->n_heads * in->head_dim, k = in->n_kv_heads * in->head_dim;
    out->d = *in;
    if (in->scale == 0) out->d.scale = pow((double)in->head_dim, -0.5);
    out->q = load_linear(l, (linear_shape){q, d->hidden, in->qkv_bias}, d->names.q);
    out->k = load_linear(l, (linear_shape){k, d->hidden, in->qkv_bias}, d->names.k);
    out->v = load_linear(l, (linear_shape){k, d->hidden, in->qkv_bias}, d->names.v);
    out->o = load_linear(l, (linear_shape){d->hidden, q, in->o_bias}, d->names.o);
    load_norms(l, d, in, out);
}

tensor run_attention(graph *g, const attention *a, tensor x, float eps, cache *c) {
    const attention_desc *d = &a->d;
    int n_heads = (int)d->n_heads, n_kv_heads = (int)d->n_kv_heads;
    tensor q, k, v;
    linears(g, x, 3, (const weight *const[]){a->q, a->k, a->v}, (tensor *const[]){&q, &k, &v});
    if (d->qk_norm == QK_WIDTH) {
        q = rms_norm(g, q, a->q_norm, eps);
        k = rms_norm(g, k, a->k_norm, eps);
    }
    q = heads(g, q, n_heads);
    k = heads(g, k, n_kv_heads);
    v = heads(g, v, n_kv_heads);
    if (d->qk_norm == QK_HEADS) {
        q = rms_norm(g, q, a->q_norm, eps);
        k = rms_norm(g, k, a->k_norm, eps);
    }
    if (d->rope) {
        q = rope(g, q, d->rope, c);
        k = rope(g, k, d->rope, c);
    }
    if (d->qk_norm == QK_AFTER_ROPE) {
        q = rms_norm(g, q, a->q_norm, eps);
        k = rms_norm(g, k, a->k_norm, eps);
    }
    return linear(g, attend(g, c, q, k, v, (float)d->scale), a->o);
}
