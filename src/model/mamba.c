/* mamba.c - a state space in place of attention or beside it: a convolution, then what each head
 * remembers, times a gate. mlx-lm models/nemotron_h.py: NemotronHMamba2Mixer, models/mamba2.py:
 * Mamba2Block; Mamba-1: models/mamba.py: MambaBlock, models/jamba.py: JambaMambaMixer; between the
 * two: models/plamo2.py: Mamba. */
#include "model/decoder.h"

#include <math.h>
#include <stdio.h>

static int64_t inner_width(const ssm_desc *d) {
    return d->n_heads * d->head_dim;
}

static int64_t conv_width(const ssm_desc *d) {
    return inner_width(d) + (d->dt_rank ? 0 : 2 * d->n_groups * d->state_dim);
}

void ssm_cache(const ssm_desc *d, dtype type, cache_spec *out) {
    dtype kept = d->dt_rank && !d->by_head ? type : DTYPE_F32;
    out->n_states = 2;
    out->states[0] = (struct cache_state){d->kernel - 1, conv_width(d), type};
    out->states[1] = (struct cache_state){inner_width(d), d->state_dim, kept};
}

/* ---- loading ---- */

/* PLaMo 2's, whose dt has no bias of its own. */
static void load_parts_by_head(loader *l, const ssm_desc *d, state_space *out) {
    int64_t n = d->state_dim;
    out->parts = load_linear(l, (linear_shape){d->dt_rank + 2 * n, inner_width(d), false}, "bcdt_proj");
    out->dt = load_linear(l, (linear_shape){d->n_heads, d->dt_rank, false}, "dt_proj");
    out->dt_norm = load_vector(l, d->dt_rank, "dt_norm_weight");
    out->B_norm = load_vector(l, n, "B_norm_weight");
    out->C_norm = load_vector(l, n, "C_norm_weight");
}

/* What Mamba-1 makes of the convolution's result. */
static void load_parts(loader *l, const ssm_desc *d, state_space *out) {
    int64_t width = inner_width(d), n = d->state_dim;
    out->parts = load_linear(l, (linear_shape){d->dt_rank + 2 * n, width, false}, "x_proj");
    out->dt = load_linear(l, (linear_shape){width, d->dt_rank, true}, "dt_proj");
    if (!d->part_norms || d->weightless_norms) return;
    out->dt_norm = load_norm(l, d->dt_rank, 0, "dt_layernorm");
    out->B_norm = load_norm(l, n, 0, "b_layernorm");
    out->C_norm = load_norm(l, n, 0, "c_layernorm");
}

void load_ssm(loader *l, const desc *d, const ssm_desc *in, state_space *out) {
    int64_t width = inner_width(in), rows = in->dt_rank ? 2 * width : width + conv_width(in) + in->n_heads;
    size_t end = strlen(l->prefix);
    snprintf(l->prefix + end, sizeof l->prefix - end, "%s.", in->module);
    out->d = *in;
    out->in = load_linear(l, (linear_shape){rows, d->hidden, in->in_bias}, "in_proj");
    out->conv = load_conv(l, conv_width(in), in->kernel, in->conv_bias, "conv1d");
    out->rule = (ssm_spec){.slot = 1, .dt_min = in->dt_min, .dt_max = in->dt_max, .narrow_D = in->narrow_D};
    if (in->by_head) load_parts_by_head(l, in, out);
    if (in->dt_rank && !in->by_head) {
        load_parts(l, in, out);
        out->rule.A_log = load_flat(l, width, in->state_dim, "A_log");
    } else {
        out->rule.A_log = load_vector(l, in->n_heads, "A_log");
        out->rule.dt_bias = load_vector(l, in->n_heads, "dt_bias");
    }
    out->rule.D = load_vector(l, in->n_heads, "D");
    if (in->norm != SSM_GATED) out->norm = load_norm(l, width, 0, "norm");
    out->out = load_linear(l, (linear_shape){d->hidden, width, in->out_bias}, "out_proj");
    l->prefix[end] = '\0';
}

/* ---- running ---- */

typedef struct projected {
    ssm_inputs in;
    tensor gate;
} projected;

/* Mamba-2: gate, what is convolved, and dt side by side. */
static projected project(graph *g, const state_space *m, tensor x, cache *c) {
    const ssm_desc *d = &m->d;
    int64_t width = inner_width(d), all = conv_width(d), n = d->n_groups * d->state_dim;
    int groups = (int)d->n_groups;
    tensor from = linear(g, x, m->in), y = short_conv(g, c, 0, part(g, from, width, all), m->conv, true);
    return (projected){.gate = part(g, from, 0, width),
                       .in = {.x = heads(g, part(g, y, 0, width), (int)d->n_heads),
                              .B = heads(g, part(g, y, width, n), groups),
                              .C = heads(g, part(g, y, width + n, n), groups),
                              .dt = part(g, from, width + all, d->n_heads)}};
}

static tensor normalized(graph *g, const state_space *m, tensor x, const weight *w) {
    return m->d.part_norms ? rms_norm(g, x, w, m->d.eps) : x;
}

/* Mamba-1: what is convolved, then the gate; the rest comes from the convolution's result. */
static projected project_late(graph *g, const state_space *m, tensor x, cache *c) {
    const ssm_desc *d = &m->d;
    int64_t width = inner_width(d), n = d->state_dim, rank = d->dt_rank;
    tensor from = linear(g, x, m->in), y = short_conv(g, c, 0, part(g, from, 0, width), m->conv, true);
    tensor parts = linear(g, y, m->parts);
    tensor dt = normalized(g, m, part(g, parts, 0, rank), m->dt_norm);
    return (projected){.gate = part(g, from, width, width),
                       .in = {.x = heads(g, y, (int)d->n_heads),
                              .B = heads(g, normalized(g, m, part(g, parts, rank, n), m->B_norm), 1),
                              .C = heads(g, normalized(g, m, part(g, parts, rank + n, n), m->C_norm), 1),
                              .dt = linear(g, dt, m->dt)}};
}

/* PLaMo 2: a head's gate, then what is convolved of it. */
static projected project_by_head(graph *g, const state_space *m, tensor x, cache *c) {
    const ssm_desc *d = &m->d;
    int64_t n = d->state_dim;
    tensor from = heads(g, linear(g, x, m->in), (int)d->n_heads);
    tensor y = short_conv(g, c, 0, flatten(g, part(g, from, d->head_dim, d->head_dim)), m->conv, true);
    tensor parts = linear(g, y, m->parts);
    tensor dt = normalized(g, m, part(g, parts, 2 * n, d->dt_rank), m->dt_norm);
    return (projected){.gate = flatten(g, part(g, from, 0, d->head_dim)),
                       .in = {.x = heads(g, y, (int)d->n_heads),
                              .B = heads(g, normalized(g, m, part(g, parts, 0, n), m->B_norm), 1),
                              .C = heads(g, normalized(g, m, part(g, parts, n, n), m->C_norm), 1),
                              .dt = linear(g, dt, m->dt)}};
}

static tensor gate_result(graph *g, const state_space *m, tensor gate, tensor y) {
    const ssm_desc *d = &m->d;
    if (d->norm == SSM_NORM_GATED) return gated(g, ACT_SILU, gate, rms_norm(g, y, m->norm, d->eps));
    y = gated(g, ACT_SILU, gate, y);
    if (d->norm == SSM_GATED) return y;
    if (d->norm == SSM_GATED_NORM) return rms_norm(g, y, m->norm, d->eps);
    y = flatten(g, rms_norm(g, heads(g, y, (int)d->n_groups), NULL, d->eps));
    return product_weight(g, y, m->norm);
}

tensor run_ssm(graph *g, const state_space *m, tensor x, cache *c) {
    projected p = m->d.by_head   ? project_by_head(g, m, x, c)
                  : m->d.dt_rank ? project_late(g, m, x, c)
                                 : project(g, m, x, c);
    tensor y = flatten(g, ssm(g, c, &p.in, &m->rule));
    return linear(g, gate_result(g, m, p.gate, y), m->out);
}
