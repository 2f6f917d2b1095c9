/* conv.c - a short convolution in place of attention: (B, C, x) = in(x); out(C * conv(B * x)).
 * mlx-lm models/lfm2.py: ShortConv. */
#include "model/decoder.h"

void load_conv_mixer(loader *l, const desc *d, const conv_desc *in, conv_mixer *out) {
    out->d = *in;
    out->in = load_linear(l, (linear_shape){3 * d->hidden, d->hidden, in->bias}, "conv.in_proj");
    out->conv = load_conv(l, d->hidden, in->kernel, in->bias, "conv.conv");
    out->out = load_linear(l, (linear_shape){d->hidden, d->hidden, in->bias}, "conv.out_proj");
}

tensor run_conv_mixer(graph *g, const conv_mixer *m, tensor x, cache *c) {
    tensor all = linear(g, x, m->in);
    int64_t n = m->out->shape[0];
    tensor b = part(g, all, 0, n), gate = part(g, all, n, n), in = part(g, all, 2 * n, n);
    tensor y = short_conv(g, c, 0, product(g, b, in), m->conv, false);
    return linear(g, product(g, gate, y), m->out);
}
