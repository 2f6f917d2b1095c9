/* ffn.c - a layer's second half: an MLP, or a router and its experts, with an MLP for all tokens
 * beside them. mlx-lm: the MLP and SparseMoeBlock classes of most models, e.g.
 * models/qwen3_moe.py. */
#include "model/decoder.h"

#include <stdio.h>

/* Where the gate, up and down of experts or of a shared MLP are. */
typedef struct three_names {
    char gate[128], up[128], down[128];
} three_names;

static three_names names_below(const char *module) {
    three_names n;
    snprintf(n.gate, sizeof n.gate, "%s.gate_proj", module);
    snprintf(n.up, sizeof n.up, "%s.up_proj", module);
    snprintf(n.down, sizeof n.down, "%s.down_proj", module);
    return n;
}

/* The MLP that all tokens run through. */
static void load_shared(loader *l, const desc *d, const ffn_desc *in, mlp *out) {
    const moe_desc *m = &in->moe;
    linear_shape wide = {m->shared, d->hidden, in->bias};
    three_names n = names_below(d->names.shared);
    if (m->shared_fused) {
        wide.out *= 2;
        out->gate_up = load_linear(l, wide, d->names.gate_up);
        out->down = load_linear(l, (linear_shape){d->hidden, m->shared, in->bias}, d->names.down);
        return;
    }
    if (!m->ungated) out->gate = load_linear(l, wide, n.gate);
    out->up = load_linear(l, wide, n.up);
    out->down = load_linear(l, (linear_shape){d->hidden, m->shared, in->bias}, n.down);
}

static void load_moe(loader *l, const desc *d, const ffn_desc *in, ffn *out) {
    const moe_desc *m = &in->moe;
    int64_t width = m->latent ? m->latent : d->hidden;
    linear_shape wide = {m->width, width, m->expert_bias}, back = {width, m->width, m->expert_bias};
    three_names n = names_below(d->names.experts);
    if (m->ungated) { /* mlx-lm switch_layers.py: SwitchMLP */
        snprintf(n.up, sizeof n.up, "%s.fc1", d->names.experts);
        snprintf(n.down, sizeof n.down, "%s.fc2", d->names.experts);
    }
    int64_t choices = m->n + m->route.identities;
    out->router = load_router(l, (linear_shape){choices, d->hidden, m->router_bias}, d->names.router);
    if (m->bias) out->d.moe.route.bias = load_vector(l, choices, d->names.router_bias);
    if (!m->ungated) out->gate = load_experts(l, m->n, wide, n.gate);
    out->up = load_experts(l, m->n, wide, n.up);
    out->down = load_experts(l, m->n, back, n.down);
    if (m->latent) {
        out->latent_in = load_linear(l, (linear_shape){m->latent, d->hidden, in->bias}, d->names.latent_in);
        out->latent_out = load_linear(l, (linear_shape){d->hidden, m->latent, in->bias}, d->names.latent_out);
    }
    if (!m->shared) return;
    load_shared(l, d, in, &out->mlp);
    if (m->coefficients)
        out->coefficients = load_linear(l, (linear_shape){2, d->hidden, true}, d->names.coefficients);
    if (m->shared_gate)
        out->shared_gate = load_linear(l, (linear_shape){1, d->hidden, false}, d->names.shared_gate);
}

void load_mlp(loader *l, const desc *d, const ffn_desc *in, mlp *out) {
    linear_shape wide = {in->width, d->hidden, in->bias};
    if (in->fused) {
        out->gate_up = load_linear(l, (linear_shape){2 * in->width, d->hidden, in->bias}, d->names.gate_up);
    } else {
        if (in->kind != FFN_PLAIN) out->gate = load_linear(l, wide, d->names.gate);
        out->up = load_linear(l, wide, d->names.up);
    }
    out->down = load_linear(l, (linear_shape){d->hidden, in->width, in->bias}, d->names.down);
    out->eps = d->eps;
    if (in->out_norm) out->norm = load_norm(l, in->width, d->norm_offset, d->names.mlp_norm);
}

/* The numbers of the activation. mlx-lm activations.py: XieLU */
static void load_xielu(loader *l, const desc *d, xielu_spec *out) {
    static const char *const parts[] = {"alpha_p", "alpha_n", "beta", "eps"};
    const weight **const to[] = {&out->alpha_p, &out->alpha_n, &out->beta, &out->eps};
    for (int i = 0; i < 4; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s.%s", d->names.xielu, parts[i]);
        *to[i] = load_number(l, name);
    }
}

void load_ffn(loader *l, const desc *d, const ffn_desc *in, ffn *out) {
    out->d = *in;
    if (in->kind == FFN_NONE) return;
    if (in->xielu) load_xielu(l, d, &out->xielu);
    if (in->kind == FFN_LINEAR) {
        out->mlp.down = load_linear(l, (linear_shape){d->hidden, d->hidden, in->bias}, d->names.ffn_linear);
        return;
    }
    if (in->kind != FFN_EXPERTS) load_mlp(l, d, in, &out->mlp);
    if (in->kind == FFN_EXPERTS || in->kind == FFN_BOTH || in->kind == FFN_SHORTCUT) load_moe(l, d, in, out);
}

tensor run_mlp(graph *g, const mlp *m, activation act, tensor x) {
    tensor gate, up;
    if (m->gate_up) {
        tensor both = linear(g, x, m->gate_up);
        int64_t n = m->down->shape[1];
        gate = part(g, both, 0, n);
        up = part(g, both, n, n);
    } else if (!m->gate) {
        return linear(g, activate(g, act, linear(g, x, m->up)), m->down);
    } else {
        linears(g, x, 2, (const weight *const[]){m->gate, m->up}, (tensor *const[]){&gate, &up});
    }
    tensor h = gated(g, act, gate, up);
    return linear(g, m->norm ? rms_norm(g, h, m->norm, m->eps) : h, m->down);
}

tensor run_moe(graph *g, const ffn *f, tensor x) {
    const ffn_desc *d = &f->d;
    tensor logits = linear(g, d->moe.f32 ? as_f32(g, x) : x, f->router);
    if (d->moe.f32_scores) logits = as_f32(g, logits);
    if (d->moe.logit_cap != 0) logits = soft_cap(g, logits, (float)d->moe.logit_cap);
    tensor in = f->latent_in ? linear(g, x, f->latent_in) : x;
    tensor y = experts(g, in, route(g, logits, &d->moe.route), d->act, f->gate, f->up, f->down);
    if (d->moe.result_scale != 0) y = scale(g, y, (float)d->moe.result_scale);
    if (f->latent_out) y = linear(g, y, f->latent_out);
    if (!d->moe.shared) return y;
    tensor shared = run_mlp(g, &f->mlp, d->moe.own_shared_act ? d->moe.shared_act : d->act, x);
    if (f->coefficients) { /* mlx-lm Klear.py: KlearSparseMoeBlock */
        tensor by = softmax(g, linear(g, x, f->coefficients));
        return add(g, product(g, y, part(g, by, 0, 1)), product(g, shared, part(g, by, 1, 1)));
    }
    if (f->shared_gate) shared = product(g, shared, activate(g, ACT_SIGMOID, linear(g, x, f->shared_gate)));
    return add(g, y, shared);
}

tensor run_ffn(graph *g, const ffn *f, tensor x) {
    if (f->d.kind == FFN_EXPERTS) return run_moe(g, f, x);
    if (f->d.kind == FFN_LINEAR) return linear(g, x, f->mlp.down);
    if (f->d.xielu) return linear(g, xielu(g, linear(g, x, f->mlp.up), &f->xielu), f->mlp.down);
    return run_mlp(g, &f->mlp, f->d.act, x);
}
