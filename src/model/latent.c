/* latent.c - multi-head latent attention: keys and values of all heads come from one short latent,
 * which is what caches keep; or, of older architectures, every head's keys and values are kept all
 * the same. mlx-lm models/deepseek_v3.py: DeepseekV3Attention; models/deepseek_v2.py:
 * DeepseekV2Attention. */
#include "model/decoder.h"

#include <math.h>
#include <stdio.h>

/* A part of the module that latent attention is. */
static const weight *load_part(loader *l, const latent_desc *in, linear_shape shape, const char *part) {
    char name[128];
    snprintf(name, sizeof name, "%s.%s", in->module, part);
    return load_linear(l, shape, name);
}

static const weight *load_part_norm(loader *l, const latent_desc *in, int64_t n, const char *part) {
    char name[128];
    snprintf(name, sizeof name, "%s.%s", in->module, part);
    return load_norm(l, n, 0, name);
}

static void load_queries(loader *l, const desc *d, const latent_desc *in, latent_mixer *out) {
    int64_t q = in->n_heads * (in->nope_dim + in->rope_dim);
    if (!in->q_rank) {
        out->q = load_part(l, in, (linear_shape){q, d->hidden, false}, "q_proj");
        return;
    }
    out->q_a = load_part(l, in, (linear_shape){in->q_rank, d->hidden, in->bias}, "q_a_proj");
    out->q_norm = load_part_norm(l, in, in->q_rank, "q_a_layernorm");
    out->q = load_part(l, in, (linear_shape){q, in->q_rank, false}, "q_b_proj");
}

/* mlx-lm deepseek_v32.py: Indexer. */
static void load_indexer(loader *l, const desc *d, const latent_desc *in, latent_mixer *out) {
    int64_t n = in->index_heads, dim = in->index_dim;
    out->index_q = load_linear(l, (linear_shape){n * dim, in->q_rank, false}, "self_attn.indexer.wq_b");
    out->index_k = load_linear(l, (linear_shape){dim, d->hidden, false}, "self_attn.indexer.wk");
    out->index_norm = load_layer_norm(l, dim, 0, true, "self_attn.indexer.k_norm");
    out->index_weights =
        load_linear(l, (linear_shape){n, d->hidden, false}, "self_attn.indexer.weights_proj");
}

void load_latent(loader *l, const desc *d, const latent_desc *given, latent_mixer *out) {
    const latent_desc *in = &out->d;
    out->d = *given;
    if (!out->d.module) out->d.module = "self_attn";
    if (!out->d.out) out->d.out = "o_proj";
    int64_t n = in->n_heads;
    load_queries(l, d, in, out);
    out->kv_a = load_part(l, in, (linear_shape){in->kv_rank + in->rope_dim, d->hidden, in->bias},
                          "kv_a_proj_with_mqa");
    out->kv_norm = load_part_norm(l, in, in->kv_rank, "kv_a_layernorm");
    if (in->expanded)
        out->kv_b =
            load_part(l, in, (linear_shape){n * (in->nope_dim + in->v_dim), in->kv_rank, false}, "kv_b_proj");
    else
        load_kv_b(l, in->module, &(kv_b_shape){n, in->nope_dim, in->v_dim, in->kv_rank}, &out->rule.embed_q,
                  &out->rule.unembed_out);
    if (in->topk) load_indexer(l, d, in, out);
    out->rule.scale = (float)in->scale;
    out->rule.whole_keys = in->whole_keys;
    out->o = load_part(l, in, (linear_shape){d->hidden, n * in->v_dim, in->bias}, in->out);
    if (in->head_gate) out->gate = load_part(l, in, (linear_shape){n, d->hidden, false}, "g_proj");
}

void latent_cache(const latent_desc *d, bool selecting, cache_spec *out) {
    if (selecting) {
        out->n_kv_heads = 1;
        out->head_dim = (int)d->index_dim;
        out->v_head_dim = 0;
        return;
    }
    out->latent = !d->expanded;
    out->n_kv_heads = d->expanded ? (int)d->n_heads : 1;
    out->head_dim = (int)(d->expanded ? d->nope_dim + d->rope_dim : d->kv_rank);
    out->v_head_dim = (int)(d->expanded ? d->v_dim : d->rope_dim);
}

/* Keys and values of all heads, from the latent. */
static tensor attend_expanded(graph *g, const latent_mixer *m, const latent_inputs *in, tensor latent,
                              cache *c) {
    const latent_desc *d = &m->d;
    tensor kv = heads(g, linear(g, latent, m->kv_b), (int)d->n_heads);
    tensor k = concat(g, part(g, kv, 0, d->nope_dim), in->k_pe);
    tensor v = part(g, kv, d->nope_dim, d->v_dim);
    return attend(g, c, concat(g, in->q_nope, in->q_pe), k, v, &(attend_spec){.scale = m->rule.scale});
}

/* latent: the queries'. */
static tensor select_by_index(graph *g, const latent_mixer *m, tensor x, tensor latent, cache *c) {
    const latent_desc *d = &m->d;
    tensor q = rope(g, heads(g, linear(g, latent, m->index_q), (int)d->index_heads), d->index_rope, c);
    tensor k = layer_norm(g, linear(g, x, m->index_k), m->index_norm, 1e-5f);
    double factor = pow((double)d->index_heads, -0.5) * pow((double)d->index_dim, -0.5);
    tensor weights = scale(g, linear(g, x, m->index_weights), (float)factor);
    return select_entries(g, c, q, rope(g, heads(g, k, 1), d->index_rope, c), weights, d->topk);
}

tensor run_latent(graph *g, const latent_mixer *m, tensor x, cache *const caches[]) {
    const latent_desc *d = &m->d;
    cache *c = caches[0];
    tensor q, kv, selected = NULL;
    linears(g, x, 2, (const weight *const[]){m->q_a ? m->q_a : m->q, m->kv_a}, (tensor *const[]){&q, &kv});
    if (m->q_a) q = rms_norm(g, q, m->q_norm, d->eps);
    if (d->topk) selected = select_by_index(g, m, x, q, caches[1]);
    if (m->q_a) q = linear(g, q, m->q);
    q = heads(g, q, (int)d->n_heads);
    if (d->q_factor != 0) q = scale(g, q, (float)d->q_factor);
    tensor latent = rms_norm(g, part(g, kv, 0, d->kv_rank), m->kv_norm, d->eps);
    if (d->kv_factor != 0) latent = scale(g, latent, (float)d->kv_factor);
    latent_inputs in = {.q_nope = part(g, q, 0, d->nope_dim),
                        .q_pe = part(g, q, d->nope_dim, d->rope_dim),
                        .k_pe = heads(g, part(g, kv, d->kv_rank, d->rope_dim), 1)};
    if (d->rope) {
        in.q_pe = rope(g, in.q_pe, d->rope, c);
        in.k_pe = rope(g, in.k_pe, d->rope, c);
    }
    if (d->temperature.n != 0) {
        in.q_nope = scale_positions(g, in.q_nope, d->temperature, c);
        in.q_pe = scale_positions(g, in.q_pe, d->temperature, c);
    }
    if (d->expanded) return linear(g, attend_expanded(g, m, &in, latent, c), m->o);
    in.latent = heads(g, latent, 1);
    in.selected = selected;
    tensor out = attend_latent(g, c, &in, &m->rule);
    if (m->gate) {
        tensor gate = activate(g, ACT_SIGMOID_F32, linear(g, x, m->gate));
        out = product(g, out, heads(g, gate, (int)d->n_heads));
    }
    return linear(g, flatten(g, out), m->o);
}
