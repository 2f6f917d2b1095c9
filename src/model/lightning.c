/* lightning.c - linear attention in place of attention: every head forgets at a rate of its own.
 * mlx-lm models/bailing_hybrid.py, models/bailing_moe_linear.py: LinearAttention. */
#include "model/decoder.h"

#include <math.h>

void load_lightning(loader *l, const desc *d, const lightning_desc *in, lightning *out) {
    int64_t width = in->n_heads * in->head_dim;
    out->d = *in;
    out->qkv = load_linear(l, (linear_shape){3 * width, d->hidden, in->qkv_bias}, d->names.qkv);
    out->o = load_linear(l, (linear_shape){d->hidden, width, in->o_bias}, d->names.o);
    out->gate = load_linear(l, (linear_shape){width, d->hidden, false}, "attention.g_proj");
    out->norm = load_norm(l, width, 0, "attention.g_norm");
    if (in->qk_norm) {
        out->q_norm = load_norm(l, in->head_dim, 0, d->names.q_norm);
        out->k_norm = load_norm(l, in->head_dim, 0, d->names.k_norm);
    }
    out->rule = (lightning_spec){
        .log_decays = in->log_decays, .scale = (float)pow((double)in->head_dim, -0.5), .f32 = in->f32};
}

tensor run_lightning(graph *g, const lightning *m, tensor x, float eps, cache *c) {
    const lightning_desc *d = &m->d;
    int64_t width = d->n_heads * d->head_dim;
    tensor all, gate;
    linears(g, x, 2, (const weight *const[]){m->qkv, m->gate}, (tensor *const[]){&all, &gate});
    tensor q = heads(g, part(g, all, 0, width), (int)d->n_heads);
    tensor k = heads(g, part(g, all, width, width), (int)d->n_heads);
    tensor v = heads(g, part(g, all, 2 * width, width), (int)d->n_heads);
    if (d->qk_norm) {
        q = rms_norm(g, q, m->q_norm, eps);
        k = rms_norm(g, k, m->k_norm, eps);
    }
    q = rope(g, q, d->rope, c);
    k = rope(g, k, d->rope, c);
    tensor y = flatten(g, linear_attention(g, c, q, k, v, &m->rule));
    y = flatten(g, rms_norm(g, heads(g, y, (int)d->norm_groups), NULL, eps));
    y = product_weight(g, y, m->norm);
    return linear(g, product(g, y, activate(g, ACT_SIGMOID, gate)), m->o);
}
