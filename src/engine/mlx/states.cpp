/* states.cpp - LayerNorm, and the gated delta rule as mlx-lm writes it.
 * A state is replaced by a new array at every step; what it held is dropped once that is evaluated. */
#include "engine/mlx/mlx.hpp"

static optional_array &state_of(const node *x, int slot) {
    return reinterpret_cast<mlx_cache *>(x->cache)->states[static_cast<size_t>(slot)];
}

/* [B, L, H, n]; [B, L, H] where there are no heads */
static mx::array rows_of(const value &x) {
    return x.heads_first ? mx::transpose(*x.first, {0, 2, 1, 3}) : *x.first;
}

/* [B, L, H, n], of key heads that several value heads share. */
static mx::array for_heads(const mx::array &x, int heads) {
    return x.shape(2) == heads ? x : mx::repeat(x, heads / x.shape(2), 2);
}

/* Token t of [B, L, ...]. */
static mx::array token(const mx::array &x, int t) {
    mx::Shape start(x.ndim(), 0), stop = x.shape();
    start[1] = t;
    stop[1] = t + 1;
    return mx::squeeze(mx::slice(x, start, stop), 1);
}

/* gated_delta.py: compute_g, compute_lower_bound_g */
static mx::array decays(const node *x, const mx::array &a) {
    const delta_spec &s = *x->delta;
    mx::array rate = mx::exp(mx::astype(weight_of(s.A_log).values, mx::float32));
    mx::array dt_bias = weight_of(s.dt_bias).values;
    if (a.ndim() == 4) {
        rate = mx::expand_dims(rate, 1);
        dt_bias = mx::reshape(dt_bias, {a.shape(2), a.shape(3)});
    }
    if (s.lower_bound == 0) {
        mx::array sum = mx::add(a, dt_bias);
        return mx::exp(mx::multiply(mx::negative(rate), mx::logaddexp(sum, constant(0, sum))));
    }
    mx::array sum = mx::multiply(rate, mx::add(mx::astype(a, mx::float32), dt_bias));
    return mx::exp(mx::multiply(constant(s.lower_bound, sum), mx::sigmoid(sum)));
}

/* gated_delta.py: gated_delta_ops, _gated_delta_step_ops */
void mlx_delta_rule(mlx_engine &e, const graph *g, const node *x) {
    mx::array in[] = {rows_of(value_of(e, x->in[0])), rows_of(value_of(e, x->in[1])),
                      rows_of(value_of(e, x->in[2])), rows_of(value_of(e, x->in[3])),
                      *value_of(e, x->in[4]).first};
    int heads = static_cast<int>(x->shape[1]), dv = static_cast<int>(x->shape[2]), dk = in[0].shape(3);
    mx::Dtype type = in[0].dtype();
    mx::array q = for_heads(in[0], heads), k = for_heads(in[1], heads), v = in[2];
    mx::array beta = mx::sigmoid(in[4]), decay = decays(x, in[3]);
    if (x->delta->negative_eigenvalues) beta = mx::multiply(beta, constant(2, beta));
    optional_array &kept = state_of(x, x->delta->slot);
    mx::Shape shape = {g->n_sequences, heads, dv, dk};
    mx::array state = kept ? mx::reshape(*kept, shape) : mx::zeros(shape, mx::float32);
    std::vector<mx::array> out;
    for (int t = 0; t < q.shape(1); t++) {
        mx::array now = token(decay, t), key = mx::expand_dims(token(k, t), -2);
        state = mx::multiply(
            state, mx::expand_dims(now, now.ndim() == 2 ? std::vector<int>{-1, -2} : std::vector<int>{-2}));
        mx::array known = mx::sum(mx::multiply(state, key), -1);
        mx::array by = mx::multiply(mx::subtract(token(v, t), known), mx::expand_dims(token(beta, t), -1));
        state = mx::add(state, mx::multiply(key, mx::expand_dims(by, -1)));
        mx::array y = mx::sum(mx::multiply(state, mx::expand_dims(token(q, t), -2)), -1);
        out.push_back(mx::astype(y, type));
    }
    kept = state;
    value_of(e, x).first = mx::stack(out, 1);
}

void mlx_layer_norm(mlx_engine &e, const graph *, const node *x) {
    const value &in = value_of(e, x->in[0]);
    value &out = value_of(e, x);
    optional_array bias = x->w[0] ? weight_of(x->w[0]).bias : std::nullopt;
    out.first = mx::fast::layer_norm(*in.first, weight_of_norm(x->w[0] ? x : nullptr), bias, x->eps);
    out.heads_first = in.heads_first;
}
