/* latent.cpp - multi-head latent attention as mlx-lm writes it: mla.py, deepseek_v3.py,
 * mistral4.py. The cache's keys are latents, its values rotated keys, both of one head. */
#include "engine/mlx/mlx.hpp"

/* mla.py: MultiLinear, QuantizedMultiLinear. x [B, H or 1, L, in or, not transposed, out] */
static mx::array multiply_heads(const mx::array &x, const mlx_weight &w, bool transpose = true) {
    if (w.bits)
        return mx::quantized_matmul(x, w.values, *w.scales, w.biases, transpose, w.group_size, w.bits,
                                    matrix_kind_name(w.base.kind));
    return mx::matmul(x, transpose ? mx::swapaxes(w.values, -1, -2) : w.values);
}

void mlx_linear_heads(mlx_engine &e, const graph *, const node *x) {
    value &out = value_of(e, x);
    out.first = multiply_heads(heads_first(value_of(e, x->in[0])), weight_of(x->w[0]));
    out.heads_first = true;
}

/* What the running step sees of an array of the cache. */
static mx::array seen(const cached &x, int64_t end) {
    const mx::array &all = x[0];
    if (end >= all.shape(2)) return all;
    return mx::slice(all, {0, 0, 0, 0}, {all.shape(0), all.shape(1), static_cast<int>(end), all.shape(3)});
}

/* One token; or several, with keys and values of all heads. */
static mx::array attend_parts(mlx_engine &e, const graph *g, const node *x, const mx::array &q,
                              const mx::array &q_pe, const mx::array &latents, const mx::array &k_pe) {
    float scale = x->latent.scale;
    mx::array scores = mx::matmul(mx::multiply(q_pe, constant(scale, q_pe)), mx::swapaxes(k_pe, -1, -2));
    if (rows_per_sequence(g, x) > 1)
        scores = mx::where(mlx_causal_mask(e, g, x), scores, constant(mx::finfo(scores.dtype()).min, scores));
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
