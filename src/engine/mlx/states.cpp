/* states.cpp - LayerNorm, and the gated delta rule and state spaces as mlx-lm writes them.
 * A state is replaced by a new array at every step; what it held is dropped once that is
 * evaluated. */
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

/* Tokens first .. end of [B, L, ...]. */
static mx::array tokens_of(const mx::array &x, int first, int end) {
    mx::Shape start(x.ndim(), 0), stop = x.shape();
    start[1] = first;
    stop[1] = end;
    return mx::slice(x, start, stop);
}

/* Token t of [B, L, ...]. */
static mx::array token(const mx::array &x, int t) {
    return mx::squeeze(tokens_of(x, t, t + 1), 1);
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

using arrays = std::vector<mx::array>;

/* A token's q, k, v, decay and beta, and the state before it -> y, and the state after it.
 * gated_delta.py: _gated_delta_step_ops */
static arrays follow_token(const arrays &x) {
    const mx::array &q = x[0], &k = x[1], &v = x[2], &decay = x[3], &beta = x[4];
    mx::array key = mx::expand_dims(k, -2);
    mx::array state = mx::multiply(
        x[5], mx::expand_dims(decay, decay.ndim() == 2 ? std::vector<int>{-1, -2} : std::vector<int>{-2}));
    mx::array known = mx::sum(mx::multiply(state, key), -1);
    mx::array by = mx::multiply(mx::subtract(v, known), mx::expand_dims(beta, -1));
    state = mx::add(state, mx::multiply(key, mx::expand_dims(by, -1)));
    mx::array y = mx::sum(mx::multiply(state, mx::expand_dims(q, -2)), -1);
    return {mx::astype(y, q.dtype()), state};
}

/* On a GPU with fewer kernels, as in mlx-lm; on the CPU MLX would start a C++ compiler for it. */
static arrays follow(const mlx_engine &e, const arrays &x) {
    static const auto fused = mx::compile(follow_token);
    return e.stream.device == mx::Device::gpu ? fused(x) : follow_token(x);
}

/* gated_delta.py: gated_delta_ops */
void mlx_delta_rule(mlx_engine &e, const graph *g, const node *x) {
    mx::array in[] = {rows_of(value_of(e, x->in[0])), rows_of(value_of(e, x->in[1])),
                      rows_of(value_of(e, x->in[2])), rows_of(value_of(e, x->in[3])),
                      *value_of(e, x->in[4]).first};
    int heads = static_cast<int>(x->shape[1]), dv = static_cast<int>(x->shape[2]), dk = in[0].shape(3);
    mx::array q = for_heads(in[0], heads), k = for_heads(in[1], heads), v = in[2];
    mx::array beta = mx::sigmoid(in[4]), decay = decays(x, in[3]);
    if (x->delta->negative_eigenvalues) beta = mx::multiply(beta, constant(2, beta));
    optional_array &kept = state_of(x, x->delta->slot);
    mx::Shape shape = {g->n_sequences, heads, dv, dk};
    mx::array state = kept ? mx::reshape(*kept, shape) : mx::zeros(shape, mx::float32);
    arrays out;
    for (int t = 0; t < q.shape(1); t++) {
        arrays now =
            follow(e, {token(q, t), token(k, t), token(v, t), token(decay, t), token(beta, t), state});
        out.push_back(now[0]);
        state = now[1];
    }
    kept = state;
    value_of(e, x).first = mx::stack(out, 1);
}

/* ---- Mamba-2: ssm.py, ssm_attn, for one token, too; its kernel for Metal has no counterpart here
 * ---- */

enum { SSM_STEP = 256 }; /* tokens that attend to each other at once */

/* dtx [B, L, H, hd], dtA [B, L, H], in F32; B, C [B, L, G, N] */
struct ssm_parts {
    mx::array dtx, dtA, B, C;
};

/* ssm.py: segsum. x [B, H, L] */
static mx::array segment_sums(const mx::array &x) {
    return mx::cumsum(mx::tril(mx::repeat(mx::expand_dims(x, -1), x.shape(-1), -1), -1), -2);
}

/* What the state gives to the tokens' results; the state before them becomes that after them. */
static mx::array from_state(const ssm_parts &p, mx::array &next, const mx::array &state) {
    int b = state.shape(0), heads = state.shape(1), hd = state.shape(2), n = state.shape(3);
    int groups = p.C.shape(2), s = p.C.shape(1);
    mx::array passed = mx::exp(mx::cumsum(p.dtA, -2));
    mx::array last = mx::expand_dims(token(passed, s - 1), {-1, -2});
    next = mx::add(next, mx::multiply(last, state));
    mx::array y = mx::matmul(mx::reshape(state, {b, 1, groups, heads / groups, hd, n}),
                             mx::reshape(p.C, {b, s, groups, 1, n, 1}));
    return mx::multiply(mx::expand_dims(passed, -1), mx::flatten(mx::squeeze(y, -1), 2, 3));
}

/* ssm.py: ssm_attn, _step */
static mx::array attend_to_states(const ssm_parts &p, optional_array &state, mx::Dtype type) {
    int repeats = p.dtx.shape(2) / p.B.shape(2), s = p.dtx.shape(1);
    mx::array B = mx::transpose(p.B, {0, 2, 3, 1});
    mx::array CB = mx::repeat(mx::matmul(mx::swapaxes(p.C, 1, 2), B), repeats, 1);
    mx::array decay = mx::exp(segment_sums(mx::swapaxes(p.dtA, 1, 2)));
    mx::array y = mx::matmul(mx::tril(mx::multiply(CB, decay), 0), mx::swapaxes(p.dtx, 1, 2));
    y = mx::swapaxes(y, 1, 2);
    mx::Shape start(4, 0), stop = decay.shape();
    start[2] = s - 1;
    decay = mx::transpose(mx::slice(decay, start, stop), {0, 3, 1, 2});
    B = mx::swapaxes(mx::repeat(B, repeats, 1), 2, 3);
    mx::array decayed = mx::swapaxes(mx::swapaxes(mx::multiply(p.dtx, decay), 1, 2), 2, 3);
    mx::array next = mx::matmul(decayed, B);
    if (state) y = mx::add(y, from_state(p, next, *state));
    state = next;
    return mx::astype(y, type);
}

/* ssm.py: compute_dt */
static mx::array time_steps(const node *x, const mx::array &dt) {
    mx::array wide = mx::astype(dt, mx::float32);
    if (x->w[2]) wide = mx::add(wide, weight_of(x->w[2]).values);
    return mx::clip(mx::logaddexp(wide, constant(0, wide)), mx::array(x->ssm->dt_min),
                    mx::array(x->ssm->dt_max));
}

static mx::array scan_chunks(const node *x, const mx::array &v, const mx::array in[2], const mx::array &dt,
                             optional_array &state) {
    mx::array delta = time_steps(x, dt);
    mx::array A = mx::astype(mx::negative(mx::exp(weight_of(x->w[0]).values)), delta.dtype());
    ssm_parts all = {mx::multiply(mx::expand_dims(delta, -1), v),
                     mx::multiply(delta, mx::reshape(A, {1, 1, -1})), in[0], in[1]};
    std::vector<mx::array> out;
    int n = v.shape(1);
    for (int i = 0; i < n; i += SSM_STEP) {
        int end = i + SSM_STEP < n ? i + SSM_STEP : n;
        ssm_parts p = {tokens_of(all.dtx, i, end), tokens_of(all.dtA, i, end), tokens_of(all.B, i, end),
                       tokens_of(all.C, i, end)};
        out.push_back(attend_to_states(p, state, v.dtype()));
    }
    return mx::concatenate(out, 1);
}

/* ---- Mamba-1: mamba.py, ssm_step; token by token, with what does not hang on the state before
 * ---- */

static mx::array scan_tokens(const node *x, const mx::array &v, const mx::array in[2], const mx::array &dt,
                             optional_array &state) {
    int heads = v.shape(2), n = in[0].shape(3);
    mx::array A = mx::negative(mx::exp(mx::reshape(weight_of(x->w[0]).values, {heads, n})));
    mx::array delta = mx::logaddexp(dt, constant(0, dt));
    mx::array added = mx::multiply(mx::expand_dims(mx::multiply(delta, mx::squeeze(v, -1)), -1), in[0]);
    mx::array decay = mx::exp(mx::multiply(mx::expand_dims(delta, -1), A));
    std::vector<mx::array> states;
    for (int t = 0; t < v.shape(1); t++) {
        mx::array next = token(added, t);
        if (state) next = mx::add(next, mx::multiply(*state, token(decay, t)));
        states.push_back(next);
        state = next;
    }
    mx::array y = mx::matmul(mx::stack(states, 1), mx::swapaxes(in[1], -1, -2));
    return y;
}

void mlx_ssm(mlx_engine &e, const graph *g, const node *x) {
    int heads = static_cast<int>(x->shape[1]), hd = static_cast<int>(x->shape[2]);
    mx::array v = rows_of(value_of(e, x->in[0])), dt = *value_of(e, x->in[3]).first;
    mx::array in[] = {rows_of(value_of(e, x->in[1])), rows_of(value_of(e, x->in[2]))};
    optional_array &kept = state_of(x, x->ssm->slot), state;
    if (kept) state = mx::reshape(*kept, {g->n_sequences, heads, hd, in[0].shape(3)});
    mx::array D = weight_of(x->w[1]).values;
    if (x->ssm->narrow_D) D = mx::astype(D, v.dtype());
    mx::array own = mx::multiply(v, mx::reshape(D, {1, 1, heads, 1}));
    if (x->w[0]->shape[0] == heads) {
        value_of(e, x).first = mx::add(scan_chunks(x, v, in, dt, state), own);
    } else {
        if (state) state = mx::squeeze(*state, 2);
        value_of(e, x).first = mx::add(scan_tokens(x, v, in, dt, state), own);
    }
    kept = state;
}

void mlx_layer_norm(mlx_engine &e, const graph *, const node *x) {
    const value &in = value_of(e, x->in[0]);
    value &out = value_of(e, x);
    optional_array bias = x->w[0] ? weight_of(x->w[0]).bias : std::nullopt;
    out.first = mx::fast::layer_norm(*in.first, weight_of_norm(x->w[0] ? x : nullptr), bias, x->eps);
    out.heads_first = in.heads_first;
}
