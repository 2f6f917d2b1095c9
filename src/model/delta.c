/* delta.c - the gated delta rule in place of attention: a convolution over queries, keys and
 * values, then what each head remembers, corrected token by token. mlx-lm models/qwen3_5.py:
 * GatedDeltaNet; models/qwen3_next.py: Qwen3NextGatedDeltaNet; models/kimi_linear.py:
 * KimiDeltaAttention. */
#include "model/decoder.h"

#include <math.h>

static const weight *load_part(loader *l, const desc *d, int64_t n, const char *name) {
    return load_linear(l, (linear_shape){n, d->hidden, false}, name);
}

static const delta_names olmo_names = {.q = "linear_attn.q_proj",
                                       .k = "linear_attn.k_proj",
                                       .v = "linear_attn.v_proj",
                                       .gate = "linear_attn.g_proj",
                                       .decay = "linear_attn.a_proj",
                                       .beta = "linear_attn.b_proj",
                                       .q_conv = "linear_attn.q_conv1d",
                                       .k_conv = "linear_attn.k_conv1d",
                                       .v_conv = "linear_attn.v_conv1d",
                                       .A_log = "linear_attn.A_log",
                                       .dt_bias = "linear_attn.dt_bias",
                                       .norm = "linear_attn.o_norm",
                                       .out = "linear_attn.o_proj"};

/* A matrix of n rows, perhaps after one that makes low_rank numbers. */
static const weight *load_low(loader *l, const desc *d, const delta_desc *in, int64_t n, const char *name,
                              const char *low_name, const weight **low) {
    if (!in->low_rank) return load_part(l, d, n, name);
    *low = load_part(l, d, in->low_rank, low_name);
    return load_linear(l, (linear_shape){n, in->low_rank, false}, name);
}

static void load_separate(loader *l, const desc *d, const delta_desc *in, delta *out) {
    const delta_names *n = in->names;
    int64_t k = in->n_k_heads * in->k_dim, v = in->n_v_heads * in->v_dim;
    int64_t decays = in->n_v_heads * (in->by_feature ? in->k_dim : 1);
    out->q = load_part(l, d, k, n->q);
    out->k = load_part(l, d, k, n->k);
    out->v = load_part(l, d, v, n->v);
    out->z = load_low(l, d, in, v, n->gate, n->gate_low, &out->z_low);
    out->b = load_part(l, d, in->n_v_heads, n->beta);
    out->a = load_low(l, d, in, decays, n->decay, n->decay_low, &out->a_low);
    out->q_conv = load_conv(l, k, in->kernel, false, n->q_conv);
    out->k_conv = load_conv(l, k, in->kernel, false, n->k_conv);
    out->v_conv = load_conv(l, v, in->kernel, false, n->v_conv);
    const int64_t rates[] = {1, 1, in->n_v_heads, 1}, biases[] = {in->n_v_heads, in->k_dim};
    out->rule = (delta_spec){.slot = 3,
                             .A_log = load_shaped(l, in->n_v_heads, 4, rates, n->A_log),
                             .dt_bias = load_shaped(l, decays, 2, biases, n->dt_bias),
                             .lower_bound = in->lower_bound,
                             .negative_eigenvalues = in->negative_eigenvalues};
    out->norm = load_norm(l, in->v_dim, 0, n->norm);
    out->out = load_linear(l, (linear_shape){d->hidden, v, false}, n->out);
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
    out->rule = (delta_spec){.slot = 1,
                             .A_log = load_vector(l, in->n_v_heads, "linear_attn.A_log"),
                             .dt_bias = load_vector(l, in->n_v_heads, "linear_attn.dt_bias"),
                             .negative_eigenvalues = in->negative_eigenvalues};
    out->norm = load_norm(l, in->v_dim, 0, "linear_attn.norm");
    out->out = load_linear(l, (linear_shape){d->hidden, v, false}, "linear_attn.out_proj");
}

void load_delta(loader *l, const desc *d, const delta_desc *in, delta *out) {
    out->d = *in;
    if (!out->d.names) out->d.names = &olmo_names;
    if (in->separate)
        load_separate(l, d, &out->d, out);
    else
        load_joined(l, d, in, out);
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
    const weight *z = m->z_low ? m->z_low : m->z, *a = m->a_low ? m->a_low : m->a;
    linears(g, x, 6, (const weight *const[]){m->q, m->k, m->v, z, m->b, a},
            (tensor *const[]){&in.q, &in.k, &in.v, &p->z, &p->b, &p->a});
    if (m->z_low) p->z = linear(g, p->z, m->z);
    if (m->a_low) p->a = linear(g, p->a, m->a);
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
    in.a = d->by_feature ? heads(g, p.a, (int)d->n_v_heads) : p.a;
    in.b = d->sigmoid_f32 ? as_f32(g, p.b) : p.b;
    tensor out = rms_norm(g, delta_rule(g, c, &in, &m->rule), m->norm, d->eps > 0 ? d->eps : eps);
    activation act = d->sigmoid_f32 ? ACT_SIGMOID_F32 : d->by_feature ? ACT_SIGMOID : ACT_SILU_F32;
    out = gated(g, act, heads(g, p.z, (int)d->n_v_heads), out);
    return linear(g, flatten(g, out), m->out);
}
