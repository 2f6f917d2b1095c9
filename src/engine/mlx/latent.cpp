/* latent.cpp - multi-head latent attention as mlx-lm writes it: mla.py, deepseek_v3.py,
 * mistral4.py. The cache's keys are latents, its values rotated keys, both of one head. */
#include "engine/mlx/mlx.hpp"

#include <limits>

/* mla.py: MultiLinear, QuantizedMultiLinear. x [B, H or 1, L, in or, not transposed, out] */
static mx::array multiply_heads(const mx::array &x, const mlx_weight &w, bool transpose = true) {
    if (w.bits)
        return mx::quantized_matmul(x, w.values, *w.scales, w.biases, transpose, w.group_size, w.bits,
                                    matrix_kind_name(w.base.kind));
    return mx::matmul(x, transpose ? mx::swapaxes(w.values, -1, -2) : w.values);
}

void mlx_linear_heads(mlx_engine &e, const graph *, const node *x) {
    value &out = value_of(e, x);
    const mlx_weight &w = weight_of(x->w[0]);
    out.first = multiply_heads(heads_first(value_of(e, x->in[0])), w);
    if (w.bias) out.first = mx::add(*out.first, mx::expand_dims(*w.bias, -2));
    out.heads_first = true;
}

/* What the running step sees of an array of the cache. */
static mx::array seen(const cached &x, int64_t end) {
    const mx::array &all = x[0];
    if (end >= all.shape(2)) return all;
    return mx::slice(all, {0, 0, 0, 0}, {all.shape(0), all.shape(1), static_cast<int>(end), all.shape(3)});
}

/* deepseek_v32.py: Indexer */
void mlx_select_entries(mlx_engine &e, const graph *g, const node *x) {
    const mlx_cache &c = *reinterpret_cast<const mlx_cache *>(x->cache);
    mx::array q = heads_first(value_of(e, x->in[0])), weights = *value_of(e, x->in[2]).first;
    int64_t n = rows_per_sequence(g, x);
    int k = static_cast<int>(x->shape[1]);
    mx::array scores = mx::matmul(q, mx::swapaxes(seen(c.keys, x->position + n), -1, -2));
    scores = mx::maximum(scores, constant(0, scores));
    scores = mx::multiply(scores, mx::expand_dims(mx::swapaxes(weights, -1, -2), -1));
    if (n > 1) {
        std::vector<mx::array> heads = mx::split(scores, scores.shape(1), 1);
        scores = heads[0];
        for (size_t h = 1; h < heads.size(); h++) scores = mx::add(scores, heads[h]);
        scores = mx::where(mlx_causal_mask(e, g, x), scores,
                           constant(-std::numeric_limits<float>::infinity(), scores));
    } else {
        scores = mx::sum(scores, 1, true);
    }
    mx::array order = mx::argpartition(scores, -k, -1);
    mx::Shape start(4, 0), stop = order.shape();
    start[3] = stop[3] - k;
    value_of(e, x).first = mx::slice(order, start, stop); /* [B, 1, L, k] */
}

/* deepseek_v32.py: what one token selected, of an array of the cache. */
static mx::array selected_of(const mx::array &x, const mx::array &selected) {
    mx::array index = mx::expand_dims(mx::squeeze(selected, 2), -1); /* [B, 1, k, 1] */
    return mx::take_along_axis(
        x, mx::broadcast_to(index, {index.shape(0), index.shape(1), index.shape(2), x.shape(3)}), 2);
}

/* ... of several tokens: what each may see. */
static mx::array selected_mask(const mx::array &selected, const mx::array &visible, int n) {
    mx::Shape shape = selected.shape();
    shape[3] = n;
    mx::array mask = mx::put_along_axis(mx::zeros(shape, mx::bool_), selected, mx::array(true), -1);
    return mx::logical_and(mask, visible);
}

/* One token; or several, with keys and values of all heads. */
static mx::array attend_parts(mlx_engine &e, const graph *g, const node *x, const mx::array &q,
                              const mx::array &q_pe, mx::array latents, mx::array k_pe) {
    float scale = x->latent.scale;
    bool one = rows_per_sequence(g, x) == 1;
    optional_array selected;
    if (x->in[3]) selected = value_of(e, x->in[3]).first;
    if (selected && one) {
        latents = selected_of(latents, *selected);
        k_pe = selected_of(k_pe, *selected);
    }
    mx::array scores = mx::matmul(mx::multiply(q_pe, constant(scale, q_pe)), mx::swapaxes(k_pe, -1, -2));
    if (!one) {
        mx::array mask = mlx_causal_mask(e, g, x);
        if (selected) mask = selected_mask(*selected, mask, k_pe.shape(2));
        scores = mx::where(mask, scores, constant(mx::finfo(scores.dtype()).min, scores));
    }
    if (!x->w[0]) return mx::fast::scaled_dot_product_attention(q, latents, latents, scale, "", scores);
    mx::array keys = multiply_heads(latents, weight_of(x->w[0]), false);
    mx::array values = multiply_heads(latents, weight_of(x->w[1]));
    return mx::fast::scaled_dot_product_attention(q, keys, values, scale, "", scores);
}

/* mistral4.py: several tokens */
static mx::array attend_whole(mlx_engine &e, const graph *g, const node *x, const mx::array &q,
                              const mx::array &q_pe, const mx::array &latents, const mx::array &k_pe) {
    mx::array keys = multiply_heads(latents, weight_of(x->w[0]), false);
    mx::array values = multiply_heads(latents, weight_of(x->w[1]));
    mx::array pe = mx::broadcast_to(k_pe, {k_pe.shape(0), keys.shape(1), k_pe.shape(2), k_pe.shape(3)});
    optional_array mask = mlx_attention_mask(e, g, x);
    return mx::fast::scaled_dot_product_attention(mx::concatenate({q, q_pe}, -1),
                                                  mx::concatenate({keys, pe}, -1), values, x->latent.scale,
                                                  mask ? "" : "causal", mask);
}

void mlx_attend_latent(mlx_engine &e, const graph *g, const node *x) {
    const mlx_cache &c = *reinterpret_cast<const mlx_cache *>(x->cache);
    mx::Dtype type = mlx_dtype(c.base.spec.dtype);
    mx::array in = heads_first(value_of(e, x->in[0]));
    mx::array q = mx::astype(in, type), q_pe = mx::astype(heads_first(value_of(e, x->in[2])), type);
    int64_t end = x->position + rows_per_sequence(g, x);
    mx::array latents = seen(c.keys, end), k_pe = seen(c.values, end);
    mx::array out = x->w[0] && x->latent.whole_keys ? attend_whole(e, g, x, q, q_pe, latents, k_pe)
                                                    : attend_parts(e, g, x, q, q_pe, latents, k_pe);
    value_of(e, x).first = mx::astype(out, in.dtype());
    value_of(e, x).heads_first = true;
}
