/* graph_latent.c - recording multi-head latent attention (MLA), whose cache has one short entry for
 * all heads. One token's queries go to the latents' space; of several tokens every head's keys and
 * values are made from the latents again. mlx-lm chooses in the same way. */
#include "engine/graph_record.h"

static bool is_per_head(const weight *w, int64_t n_heads, int64_t out, int64_t in) {
    return w->rank == 3 && w->shape[0] == n_heads && w->shape[1] == out && w->shape[2] == in;
}

tensor linear_heads(graph *g, tensor in, const weight *w) {
    if (in->rank != 3 || w->rank != 3 || in->shape[1] != w->shape[0] || in->shape[2] != w->shape[2])
        return refuse(g, "linear_heads", in, "the weight has other heads or another input width");
    node *x =
        add_node(g, OP_LINEAR_HEADS, w->kind > MATRIX_AFFINE ? in->dtype : promoted(in->dtype, w->dtype));
    if (!x) return &nothing;
    x->in[0] = in;
    x->w[0] = w;
    set_shape(x, 3, in->shape[0], in->shape[1], w->shape[1]);
    return x;
}

/* values NULL: there are none. */
static const node *write_entries(graph *g, cache *c, tensor keys, tensor values) {
    node *write = add_node(g, OP_KV_WRITE, keys->dtype);
    if (!write) return &nothing;
    write->in[0] = keys;
    write->in[1] = values;
    copy_shape(write, keys);
    c->step = g->step;
    write->cache = c;
    write->position = c->offset;
    return write;
}

tensor attend_latent(graph *g, cache *c, const latent_inputs *in, const latent_spec *spec) {
    const cache_spec *s = &c->spec;
    tensor q = in->q_nope, pe = in->q_pe, latent = in->latent, k_pe = in->k_pe;
    int64_t n_heads = q->shape[1], rank = s->head_dim, v_dim = spec->unembed_out->shape[1];
    if (q->rank != 3 || pe->rank != 3 || latent->rank != 3 || k_pe->rank != 3 || pe->shape[1] != n_heads ||
        pe->shape[0] != q->shape[0])
        return refuse(g, "attend_latent", q, "wants [L, H, dim] twice, and [L, 1, dim] twice");
    if (!s->latent || latent->shape[1] != 1 || latent->shape[2] != rank || k_pe->shape[1] != 1 ||
        k_pe->shape[2] != s->v_head_dim || pe->shape[2] != s->v_head_dim || latent->shape[0] != q->shape[0] ||
        k_pe->shape[0] != q->shape[0])
        return refuse(g, "attend_latent", latent, "the cache has another shape");
    if (!is_per_head(spec->embed_q, n_heads, rank, q->shape[2]) ||
        !is_per_head(spec->unembed_out, n_heads, v_dim, rank))
        return refuse(g, "attend_latent", q, "the weights have another shape");
    if (s->n_sequences != g->n_sequences || q->shape[0] % g->n_sequences)
        return refuse(g, "attend_latent", latent, "the cache is of another number of sequences");
    if (c->step == g->step) return refuse(g, "attend_latent", latent, "this step wrote the cache before");
    if (in->selected && (in->selected->op != OP_SELECT_ENTRIES || in->selected->shape[0] != q->shape[0] ||
                         in->selected->cache->offset != c->offset || s->max_size))
        return refuse(g, "attend_latent", in->selected, "these are no entries of a plain cache");
    bool one = q->shape[0] == g->n_sequences;
    if (one) q = linear_heads(g, q, spec->embed_q);
    const node *write = write_entries(g, c, latent, k_pe);
    node *x = add_node(g, OP_ATTEND_LATENT, q->dtype);
    if (!x) return &nothing;
    x->in[0] = q;
    x->in[1] = write;
    x->in[2] = pe;
    x->in[3] = in->selected;
    x->w[0] = one ? NULL : spec->embed_q;
    x->w[1] = one ? NULL : spec->unembed_out;
    x->cache = c;
    x->position = write->position;
    x->latent = *spec;
    set_shape(x, 3, q->shape[0], n_heads, one ? rank : v_dim);
    return one ? linear_heads(g, x, spec->unembed_out) : x;
}

tensor select_entries(graph *g, cache *c, tensor q, tensor k, tensor weights, int64_t topk) {
    const cache_spec *s = &c->spec;
    if (k->rank != 3 || k->shape[1] != 1 || s->n_kv_heads != 1 || k->shape[2] != s->head_dim ||
        s->v_head_dim || s->max_size)
        return refuse(g, "select_entries", k, "the cache has another shape");
    if (q->rank != 3 || q->shape[0] != k->shape[0] || q->shape[2] != k->shape[2] || weights->rank != 2 ||
        weights->shape[0] != q->shape[0] || weights->shape[1] != q->shape[1] || topk < 1)
        return refuse(g, "select_entries", q, "queries, keys and weights do not fit together");
    if (s->n_sequences != g->n_sequences || k->shape[0] % g->n_sequences)
        return refuse(g, "select_entries", k, "the cache is of another number of sequences");
    if (c->step == g->step) return refuse(g, "select_entries", k, "this step wrote the cache before");
    const node *write = write_entries(g, c, k, NULL);
    if (c->offset + k->shape[0] / g->n_sequences <= topk) return NULL;
    node *x = add_node(g, OP_SELECT_ENTRIES, DTYPE_I32);
    if (!x) return &nothing;
    x->in[0] = q;
    x->in[1] = write;
    x->in[2] = weights;
    x->cache = c;
    x->position = write->position;
    set_shape(x, 2, q->shape[0], topk, 0);
    return x;
}
