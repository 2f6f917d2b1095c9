/* streams.cpp - several streams of one text, as mlx-lm's gemma3n.py computes them; there they are
 * [n, B, L, D], here [B, L, n * D]. */
#include "engine/mlx/mlx.hpp"

static const mx::array &in(mlx_engine &e, const node *x, int i) {
    return *e.values[x->in[i]->index].first;
}

/* [B, L, n, D] */
static mx::array apart(const mx::array &x, int n) {
    return mx::unflatten(x, -1, {n, x.shape(-1) / n});
}

static mx::array streams_from(const mx::array &x, int first, int end) {
    mx::Shape start(4, 0), stop = x.shape();
    start[2] = first;
    stop[2] = end;
    return mx::slice(x, start, stop);
}

/* Gemma3nAltUp.predict */
void mlx_predict_streams(mlx_engine &e, const graph *, const node *x) {
    mx::array streams = apart(in(e, x, 0), x->streams.n);
    mx::array wide = mx::astype(streams, mx::float32);
    mx::array by = mx::transpose(apart(in(e, x, 1), x->streams.n), {0, 1, 3, 2});
    mx::array sums = mx::transpose(mx::matmul(mx::transpose(wide, {0, 1, 3, 2}), by), {0, 1, 3, 2});
    value_of(e, x).first = mx::flatten(mx::astype(mx::add(sums, wide), streams.dtype()), 2, 3);
}

/* Gemma3nAltUp.correct */
void mlx_correct_streams(mlx_engine &e, const graph *, const node *x) {
    mx::array streams = apart(in(e, x, 0), x->streams.n), y = mx::expand_dims(in(e, x, 1), 2);
    mx::array news = mx::subtract(y, streams_from(streams, x->streams.active, x->streams.active + 1));
    mx::array by = mx::expand_dims(mx::add(in(e, x, 2), constant(1, in(e, x, 2))), -1);
    mx::array corrected = mx::add(mx::multiply(news, by), streams);
    value_of(e, x).first = mx::flatten(mx::astype(corrected, mlx_dtype(x->dtype)), 2, 3);
}

void mlx_add_to_streams(mlx_engine &e, const graph *, const node *x) {
    mx::array streams = apart(in(e, x, 0), x->streams.n);
    mx::array others = mx::add(streams_from(streams, 1, x->streams.n), mx::expand_dims(in(e, x, 1), 2));
    mx::array all = mx::concatenate({streams_from(streams, 0, 1), others}, 2);
    value_of(e, x).first = mx::flatten(all, 2, 3);
}

void mlx_mean_of_streams(mlx_engine &e, const graph *, const node *x) {
    value_of(e, x).first = mx::mean(apart(in(e, x, 0), x->streams.n), 2);
}

static mx::array magnitude(const mx::array &x) {
    return mx::power(mx::mean(mx::power(x, constant(2, x)), -1, true), constant(0.5, x));
}

/* LanguageModel.__call__ */
void mlx_rescale(mlx_engine &e, const graph *, const node *x) {
    mx::array own = magnitude(in(e, x, 0));
    own = mx::maximum(own, constant(mx::finfo(own.dtype()).min, own));
    value_of(e, x).first = mx::multiply(in(e, x, 0), mx::divide(magnitude(in(e, x, 1)), own));
}

/* gelu_topk */
void mlx_gelu_above(mlx_engine &e, const graph *, const node *x) {
    const mx::array &all = in(e, x, 0);
    mx::array deviation = mx::std(all, -1, true);
    mx::array cutoff =
        mx::add(mx::mean(all, -1, true), mx::multiply(deviation, constant(x->scale, deviation)));
    value_of(e, x).first = gelu_approx(mx::maximum(constant(0, all), mx::subtract(all, cutoff)));
}
