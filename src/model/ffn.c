/* ffn.c - a layer's second half: a gated MLP, or a router and its experts.
 * mlx-lm: the MLP and SparseMoeBlock classes of most models, e.g. models/qwen3_moe.py. */
#include "model/decoder.h"

#include <stdio.h>

static void load_moe(loader *l, const desc *d, const moe_desc *in, ffn *out) {
    char name[128];
    const char *e = d->names.experts;
    out->router = load_linear(l, (linear_shape){in->n, d->hidden, false}, d->names.router);
    snprintf(name, sizeof name, "%s.gate_proj", e);
    out->gate = load_experts(l, in->n, (linear_shape){in->width, d->hidden, false}, name);
    snprintf(name, sizeof name, "%s.up_proj", e);
    out->up = load_experts(l, in->n, (linear_shape){in->width, d->hidden, false}, name);
    snprintf(name, sizeof name, "%s.down_proj", e);
    out->down = load_experts(l, in->n, (linear_shape){d->hidden, in->width, false}, name);
}

void load_ffn(loader *l, const desc *d, const ffn_desc *in, ffn *out) {
    out->d = *in;
    if (in->kind == FFN_EXPERTS) {
        load_moe(l, d, &in->moe, out);
        return;
    }
    out->gate = load_linear(l, (linear_shape){in->width, d->hidden, in->bias}, d->names.gate);
    out->up = load_linear(l, (linear_shape){in->width, d->hidden, in->bias}, d->names.up);
    out->down = load_linear(l, (linear_shape){d->hidden, in->width, in->bias}, d->names.down);
}

tensor run_ffn(graph *g, const ffn *f, tensor x) {
    const ffn_desc *d = &f->d;
    if (d->kind == FFN_EXPERTS) {
        tensor routing = route(g, linear(g, x, f->router), (int)d->moe.k, d->moe.renormalize);
        return experts(g, x, routing, d->act, f->gate, f->up, f->down);
    }
    tensor gate, up;
    linears(g, x, 2, (const weight *const[]){f->gate, f->up}, (tensor *const[]){&gate, &up});
    return linear(g, gated(g, d->act, gate, up), f->down);
}
