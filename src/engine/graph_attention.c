/* graph_attention.c - recording positions, and attention to a cache of keys and values.
 * The operations are described in engine.h; what is asked here, no engine needs to ask. */
#include "engine/graph_record.h"

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

/* Queries [L, H, hd] to what the cache shows after the write. */
static tensor attend_to(graph *g, tensor q, const node *write, const attend_spec *spec) {
    const cache_spec *s = &write->cache->spec;
    if (q->rank != 3 || q->shape[0] != write->shape[0] || q->shape[2] != s->head_dim ||
        q->shape[1] % s->n_kv_heads)
        return refuse(g, "attend: queries", q, "the keys have another shape");
    if (spec->sinks && (spec->sinks->rank != 1 || spec->sinks->shape[0] != q->shape[1]))
        return refuse(g, "attend: queries", q, "there is not one sink per head");
    if (write->cache->bits && (spec->sinks || spec->softcap != 0 || spec->f32))
        return refuse(g, "attend: queries", q, "a quantized cache has no sinks, soft caps or queries in F32");
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
