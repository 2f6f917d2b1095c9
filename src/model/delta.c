/* delta.c - the gated delta rule in place of attention: a convolution over queries, keys and
 * values, then what each head remembers, corrected token by token. mlx-lm models/qwen3_5.py:
 * GatedDeltaNet; models/qwen3_next.py: Qwen3NextGatedDeltaNet. */
#include "model/decoder.h"

#include <math.h>

static const weight *load_part(loader *l, const desc *d, int64_t n, const char *name) {
    return load_linear(l, (linear_shape){n, d->hidden, false}, name);
}

static void load_separate(loader *l, const desc *d, const delta_desc *in, delta *out) {
    int64_t k = in->n_k_heads * in->k_dim, v = in->n_v_heads * in->v_dim;
    out->q = load_part(l, d, k, "linear_attn.q_proj");
    out->k = load_part(l, d, k, "linear_attn.k_proj");
    out->v = load_part(l, d, v, "linear_attn.v_proj");
    out->z = load_part(l, d, v, "linear_attn.g_proj");
    out->b = load_part(l, d, in->n_v_heads, "linear_attn.b_proj");
    out->a = load_part(l, d, in->n_v_heads, "linear_attn.a_proj");
    out->q_conv = load_conv(l, k, in->kernel, false, "linear_attn.q_conv1d");
    out->k_conv = load_conv(l, k, in->kernel, false, "linear_attn.k_conv1d");
    out->v_conv = load_conv(l, v, in->kernel, false, "linear_attn.v_conv1d");
}

static void load_joined(loader *l, const desc *d, const delta_desc *in, delta *out) {
    int64_t k = in->n_k_heads * in->k_dim, v = in->n_v_heads * in->v_dim;
    if (in->by_key_head) {
        out->qkvz = load_part(l, d, 2 * k + 2 * v, "linear_attn.in_proj_qkvz");
        out->ba = load_part(l, d, 2 * in->n_v_heads, "linear_attn.in_proj_ba");
    } else {
        out->qkv = load_part(l, d, 2 * k + v, "linear_attn.in_proj_qkv");
        out->z = load_part(l, d, v, "linear_attn.in_proj_z");
        out->b = load_part(l, d, in->n_v_heads, "linear_attn.in_proj_b");
        out->a = load_part(l, d, in->n_v_heads, "linear_attn.in_proj_a");
    }
    out->conv = load_conv(l, 2 * k + v, in->kernel, false, "linear_attn.conv1d");
}

void load_delta(loader *l, const desc *d, const delta_desc *in, delta *out) {
    int64_t v = in->n_v_heads * in->v_dim;
    out->d = *in;
    if (in->separate)
        load_separate(l, d, in, out);
    else
        load_joined(l, d, in, out);
    out->rule = (delta_spec){.slot = in->separate ? 3 : 1,
                             .A_log = load_vector(l, in->n_v_heads, "linear_attn.A_log"),
                             .dt_bias = load_vector(l, in->n_v_heads, "linear_attn.dt_bias"),
                             .negative_eigenvalues = in->negative_eigenvalues};
    out->norm = load_norm(l, in->v_dim, 0, in->separate ? "linear_attn.o_norm" : "linear_attn.norm");
    out->out = load_linear(l, (linear_shape){d->hidden, v, false},
                           in->separate ? "linear_attn.o_proj" : "linear_attn.out_proj");
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

/* Query, key and values after their convolutions; p gets what else is projected. */
static delta_inputs convolved(graph *g, const delta *m, tensor x, cache *c, projected *p) {
    const delta_desc *d = &m->d;
    int64_t k = d->n_k_heads * d->k_dim, v = d->n_v_heads * d->v_dim;
    if (!d->separate) {
        *p = project(g, m, x);
        tensor y = short_conv(g, c, 0, p->qkv, m->conv, true);
        return (delta_inputs){.q = part(g, y, 0, k), .k = part(g, y, k, k), .v = part(g, y, 2 * k, v)};
    }
    delta_inputs in;
    linears(g, x, 6, (const weight *const[]){m->q, m->k, m->v, m->z, m->b, m->a},
            (tensor *const[]){&in.q, &in.k, &in.v, &p->z, &p->b, &p->a});
    in.q = short_conv(g, c, 0, in.q, m->q_conv, true);
    in.k = short_conv(g, c, 1, in.k, m->k_conv, true);
    in.v = short_conv(g, c, 2, in.v, m->v_conv, true);
    return in;
}

tensor run_delta(graph *g, const delta *m, tensor x, float eps, cache *c) {
    const delta_desc *d = &m->d;
    double dk = (double)d->k_dim;
    projected p = {0};
    delta_inputs in = convolved(g, m, x, c, &p);
    in.q = normalized(g, heads(g, in.q, (int)d->n_k_heads), dk, 1 / dk);
    in.k = normalized(g, heads(g, in.k, (int)d->n_k_heads), dk, pow(dk, -0.5));
    in.v = heads(g, in.v, (int)d->n_v_heads);
    in.a = p.a;
    in.b = p.b;
    tensor out = rms_norm(g, delta_rule(g, c, &in, &m->rule), m->norm, d->eps > 0 ? d->eps : eps);
    out = gated(g, ACT_SILU_F32, heads(g, p.z, (int)d->n_v_heads), out);
    return linear(g, flatten(g, out), m->out);
}
