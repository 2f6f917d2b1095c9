/* lightning.cpp - linear attention with a fixed decay for each head, as mlx-lm writes it: by tokens
 * (bailing_moe_linear.py), or by chunks of them (bailing_hybrid.py). */
#include "engine/mlx/mlx.hpp"

/* Entries first .. end of [B, H, L or chunks, ...]. */
static mx::array some(const mx::array &x, int first, int end) {
    mx::Shape start(x.ndim(), 0), stop = x.shape();
    start[2] = first;
    stop[2] = end;
    return mx::slice(x, start, stop);
}

static mx::array transposed(const mx::array &x) {
    return mx::swapaxes(x, -1, -2);
}

struct heads_of {
    mx::array q, k, v; /* [B, H, L, d] */
};

/* bailing_moe_linear.py: recurrent_gla */
static mx::array by_tokens(const heads_of &x, const mx::array &log_decays, float scale,
                           optional_array &state) {
    mx::array decay = mx::astype(mx::expand_dims(mx::exp(log_decays), {1, 2}), x.q.dtype());
    mx::array q = mx::multiply(x.q, constant(scale, x.q));
    std::vector<mx::array> out;
    for (int t = 0; t < q.shape(2); t++) {
        mx::array more = mx::matmul(transposed(some(x.k, t, t + 1)), some(x.v, t, t + 1));
        state = state ? mx::add(mx::multiply(*state, decay), more) : more;
        out.push_back(mx::matmul(some(q, t, t + 1), *state));
    }
    return mx::concatenate(out, 2);
}

/* bailing_hybrid.py: _recurrent_gla_step */
static mx::array by_one(const heads_of &x, const mx::array &log_decays, float scale, mx::array &state) {
    mx::array decay = mx::expand_dims(mx::exp(log_decays), {1, 2});
    state = mx::add(mx::multiply(state, decay), mx::matmul(transposed(x.k), x.v));
    mx::array q = mx::multiply(x.q, constant(scale, x.q));
    return mx::astype(mx::matmul(q, state), q.dtype());
}

/* [B, H, chunks, C, d], with zeros after the last token. */
static mx::array in_chunks(const mx::array &x, int n, int c) {
    int pad = n * c - x.shape(2);
    mx::array all = pad ? mx::pad(x, {{0, 0}, {0, 0}, {0, pad}, {0, 0}}) : x;
    return mx::unflatten(all, 2, {n, c});
}

/* bailing_hybrid.py: recurrent_gla. Within a chunk all tokens attend to each other; the state goes
 * from chunk to chunk. */
static mx::array by_chunks(const heads_of &x, const mx::array &log_decays, float scale, mx::array &state) {
    int length = x.q.shape(2), heads = x.q.shape(1), c = length < 128 ? length : 128;
    int n = (length + c - 1) / c;
    float centre = 0.5f * static_cast<float>(c);
    mx::array there = mx::astype(mx::less(mx::arange(n * c), mx::array(length)), mx::float32);
    there = mx::reshape(there, {1, 1, n, c});
    mx::array rank = mx::cumsum(there, -1), g = mx::reshape(log_decays, {1, heads, 1, 1});
    mx::array total = some(mx::swapaxes(rank, 2, 3), c - 1, c);
    total = mx::swapaxes(total, 2, 3);
    mx::array e = mx::multiply(g, mx::subtract(rank, mx::array(centre)));
    mx::array eq = mx::multiply(mx::multiply(mx::exp(e), mx::array(scale)), there);
    mx::array ek = mx::multiply(mx::exp(mx::negative(e)), there);
    mx::array q = mx::multiply(in_chunks(x.q, n, c), mx::expand_dims(eq, -1));
    mx::array k = mx::multiply(in_chunks(x.k, n, c), mx::expand_dims(ek, -1));
    mx::array v = mx::astype(in_chunks(x.v, n, c), mx::float32);
    mx::array within = mx::matmul(mx::tril(mx::matmul(q, transposed(k))), v);
    mx::array carry = mx::matmul(transposed(k), v);
    mx::array decay = mx::expand_dims(mx::exp(mx::multiply(g, mx::subtract(total, mx::array(centre)))), -1);
    mx::array kept = mx::expand_dims(mx::exp(mx::multiply(g, total)), -1);
    auto chunk = [](const mx::array &all, int i) { return mx::squeeze(some(all, i, i + 1), 2); };
    std::vector<mx::array> across;
    for (int i = 0; i < n; i++) {
        across.push_back(mx::matmul(chunk(q, i), state));
        state = mx::add(mx::multiply(chunk(kept, i), state), mx::multiply(chunk(carry, i), chunk(decay, i)));
    }
    mx::array by = mx::reshape(mx::exp(mx::multiply(log_decays, mx::array(centre))), {1, heads, 1, 1, 1});
    mx::array y = mx::add(within, mx::multiply(mx::stack(across, 2), by));
    return some(mx::flatten(mx::astype(y, x.q.dtype()), 2, 3), 0, length);
}

void mlx_linear_attention(mlx_engine &e, const graph *g, const node *x) {
    const lightning_spec &s = *x->lightning;
    int heads = static_cast<int>(x->shape[1]), dv = static_cast<int>(x->shape[2]);
    heads_of in = {heads_first(value_of(e, x->in[0])), heads_first(value_of(e, x->in[1])),
                   heads_first(value_of(e, x->in[2]))};
    mx::Shape shape = {g->n_sequences, heads, in.q.shape(3), dv};
    optional_array &kept = reinterpret_cast<mlx_cache *>(x->cache)->states[static_cast<size_t>(s.slot)];
    optional_array state;
    if (kept) state = mx::reshape(*kept, shape);
    mx::array log_decays(s.log_decays, {heads}, mx::float32);
    value &out = value_of(e, x);
    out.heads_first = true;
    if (s.f32) {
        mx::array now = state ? *state : mx::zeros(shape, mx::float32);
        bool one = in.q.shape(2) == 1;
        out.first = one ? by_one(in, log_decays, s.scale, now) : by_chunks(in, log_decays, s.scale, now);
        state = now;
    } else {
        out.first = by_tokens(in, log_decays, s.scale, state);
    }
    kept = state;
}
