/* delta.c - the gated delta rule in place of attention: a convolution over queries, keys and values, then
 * what each head remembers, corrected token by token. mlx-lm models/qwen3_5.py: GatedDeltaNet;
 * models/qwen3_next.py: Qwen3NextGatedDeltaNet. */
#include "model/decoder.h"

#include <math.h>

void load_delta(loader *l, const desc *d, const delta_desc *in, delta *out) {
    int64_t k = in->n_k_heads * in->k_dim, v = in->n_v_heads * in->v_dim;
    out->d = *in;
    if (in->by_key_head) {
        out->qkvz =
            load_linear(l, (linear_shape){2 * k + 2 * v, d->hidden, false}, "linear_attn.in_proj_qkvz");
        out->ba =
            load_linear(l, (linear_shape){2 * in->n_v_heads, d->hidden, false}, "linear_attn.in_proj_ba");
    } else {
        out->qkv = load_linear(l, (linear_shape){2 * k + v, d->hidden, false}, "linear_attn.in_proj_qkv");
        out->z = load_linear(l, (linear_shape){v, d->hidden, false}, "linear_attn.in_proj_z");
        out->b = load_linear(l, (linear_shape){in->n_v_heads, d->hidden, false}, "linear_attn.in_proj_b");
        out->a = load_linear(l, (linear_shape){in->n_v_heads, d->hidden, false}, "linear_attn.in_proj_a");
    }
    out->conv = load_conv(l, 2 * k + v, in->kernel, false, "linear_attn.conv1d");
    out->rule = (delta_spec){.slot = 1,
                             .A_log = load_vector(l, in->n_v_heads, "linear_attn.A_log"),
                             .dt_bias = load_vector(l, in->n_v_heads, "linear_attn.dt_bias")};
    out->norm = load_norm(l, in->v_dim, 0, "linear_attn.norm");
    out->out = load_linear(l, (linear_shape){d->hidden, v, false}, "linear_attn.out_proj");
}

typedef struct projected {
    tensor qkv, z, b, a;
} projected;

/* Each key head's query, key, values and gates stand together. */
static projected split_by_key_head(graph *g, const delta *m, tensor x) {
    const delta_desc *d = &m->d;
    int64_t dk = d->k_dim, n = d->n_v_heads / d->n_k_heads, dv = n * d->v_dim;
    tensor all = heads(g, linear(g, x, m->qkvz), (int)d->n_k_heads);
    tensor ba = heads(g, linear(g, x, m->ba), (int)d->n_k_heads);
    tensor q = flatten(g, part(g, all, 0, dk)), k = flatten(g, part(g, all, dk, dk));
    tensor v = flatten(g, part(g, all, 2 * dk, dv));
    return (projected){concat(g, concat(g, q, k), v), flatten(g, part(g, all, 2 * dk + dv, dv)),
                       flatten(g, part(g, ba, 0, n)), flatten(g, part(g, ba, n, n))};
}

static projected project(graph *g, const delta *m, tensor x) {
    projected p;
    if (m->d.by_key_head) return split_by_key_head(g, m, x);
    linears(g, x, 4, (const weight *const[]){m->qkv, m->z, m->b, m->a},
            (tensor *const[]){&p.qkv, &p.z, &p.b, &p.a});
    return p;
}

/* gated_delta.py: normalize_qk, times `factor`. */
static tensor normalized(graph *g, tensor x, double k_dim, double factor) {
    return scale(g, rms_norm(g, x, NULL, (float)(1e-6 / k_dim)), (float)factor);
}

tensor run_delta(graph *g, const delta *m, tensor x, float eps, cache *c) {
    const delta_desc *d = &m->d;
    int64_t k = d->n_k_heads * d->k_dim, v = d->n_v_heads * d->v_dim;
    double dk = (double)d->k_dim;
    projected p = project(g, m, x);
    tensor y = short_conv(g, c, 0, p.qkv, m->conv, true);
    delta_inputs in = {.q = heads(g, part(g, y, 0, k), (int)d->n_k_heads),
                       .k = heads(g, part(g, y, k, k), (int)d->n_k_heads),
                       .v = heads(g, part(g, y, 2 * k, v), (int)d->n_v_heads),
                       .a = p.a,
                       .b = p.b};
    in.q = normalized(g, in.q, dk, 1 / dk);
    in.k = normalized(g, in.k, dk, pow(dk, -0.5));
    tensor out = rms_norm(g, delta_rule(g, c, &in, &m->rule), m->norm, eps);
    out = gated(g, ACT_SILU_F32, heads(g, p.z, (int)d->n_v_heads), out);
    return linear(g, flatten(g, out), m->out);
}
