/* experts.cpp - choosing experts and running them, as mlx-lm writes it. */
#include "engine/mlx/mlx.hpp"

#include <limits>

using arrays = std::vector<mx::array>;

/* mlx-lm glm4_moe.py: group_expert_select; deepseek_v2.py for group_max */
static mx::array masked_groups(const route_spec &s, mx::array scores) {
    int drop = s.n_group - s.topk_group;
    if (!drop) return scores;
    scores = mx::unflatten(scores, -1, {s.n_group, -1});
    mx::array by = s.group_max ? mx::max(scores, -1, true) : mx::sum(mx::topk(scores, 2, -1), -1, true);
    mx::array order = mx::argpartition(by, drop - 1, -2);
    mx::Shape start(order.ndim(), 0), stop = order.shape();
    stop[order.ndim() - 2] = drop;
    mx::array masked(s.mask_inf ? -std::numeric_limits<float>::infinity() : 0.0f, scores.dtype());
    scores = mx::put_along_axis(scores, mx::slice(order, start, stop), masked, -2);
    return mx::flatten(scores, -2, -1);
}

/* mlx-lm phimoe.py: sparsemixer */
static void choose_in_turn(value &out, const mx::array &logits, const route_spec &s) {
    mx::array left = logits;
    mx::array none(-std::numeric_limits<float>::infinity(), logits.dtype());
    arrays chosen, weights;
    for (int j = 0; j < s.k; j++) {
        mx::array top = mx::max(left, -1, true), index = mx::argmax(left, -1, true);
        mx::array below = mx::divide(mx::subtract(top, logits), mx::maximum(mx::abs(logits), top));
        mx::array far = mx::greater(below, constant(2.0 * s.jitter, below));
        mx::array band = mx::softmax(mx::where(far, none, left), -1, true);
        weights.push_back(mx::take_along_axis(band, index, -1));
        chosen.push_back(index);
        left = mx::put_along_axis(left, index, none, -1);
    }
    out.first = mx::concatenate(chosen, -1);
    out.second = mx::concatenate(weights, -1);
}

/* The order in which argpartition leaves the chosen is that of the sum. */
static void choose_experts(value &out, const mx::array &logits, const node *at) {
    const route_spec &s = at->route;
    if (s.score == SCORE_BAND) return choose_in_turn(out, logits, s);
    mx::array scores = s.score == SCORE_SOFTMAX ? mx::softmax(logits, -1, !s.imprecise)
                       : s.score == SCORE_SIGMOID
                           ? mx::sigmoid(s.imprecise ? logits : mx::astype(logits, mx::float32))
                           : logits;
    mx::array by = scores;
    if (at->w[0]) {
        const mx::array &bias = weight_of(at->w[0]).values;
        by = mx::add(scores, s.narrow_bias ? mx::astype(bias, scores.dtype()) : bias);
    }
    if (s.n_group > 1) by = masked_groups(s, by);
    int n = scores.shape(-1);
    out.first = s.last ? last_columns(mx::argpartition(by, -s.k, -1), n - s.k, n)
                       : last_columns(mx::argpartition(mx::negative(by), s.k - 1, -1), 0, s.k);
    mx::array weights = mx::take_along_axis(scores, *out.first, -1);
    if (s.score == SCORE_TOP_SIGMOID) weights = mx::sigmoid(mx::astype(weights, mx::float32));
    if (s.score == SCORE_TOP_SOFTMAX) weights = mx::softmax(weights, -1, !s.imprecise);
    if (s.renormalize) {
        mx::array sum = mx::sum(weights, -1, true);
        if (s.eps_is_floor) sum = mx::maximum(sum, constant(s.eps, sum));
        if (!s.eps_is_floor && s.eps != 0) sum = mx::add(sum, constant(s.eps, sum));
        weights = mx::divide(weights, sum);
    }
    if (s.scale != 0) weights = mx::multiply(weights, constant(s.scale, weights));
    if (at->w[1]) weights = mx::multiply(weights, mx::take(weight_of(at->w[1]).values, *out.first, 0));
    out.second = weights;
}

static mx::array expert_product(const mx::array &x, const mlx_weight &w, const mx::array &experts,
                                bool sorted) {
    if (w.bits)
        return mx::gather_qmm(x, w.values, *w.scales, w.biases, std::nullopt, experts, true, w.group_size,
                              w.bits, matrix_kind_name(w.base.kind),
#if MLX_VERSION_NUMERIC >= 32003
                              std::nullopt, /* a scale for all of it, which these weights have not */
#endif
                              sorted);
    return mx::gather_mm(x, mx::swapaxes(w.values, -1, -2), std::nullopt, experts, sorted);
}

/* switch_layers.py: SwitchLinear, QuantizedSwitchLinear */
static mx::array expert_linear(const mx::array &x, const mlx_weight &w, const mx::array &experts,
                               bool sorted) {
    mx::array y = expert_product(x, w, experts, sorted);
    return w.bias ? mx::add(y, mx::expand_dims(mx::take(*w.bias, experts, 0), -2)) : y;
}

/* mlx-lm switch_layers.py: SwitchGLU, SwitchMLP. Many tokens are sorted by expert, so that each
 * one's weights are read once. */
static mx::array mix_chosen(const mlx_engine &e, mx::array x, const mx::array &chosen,
                            const mx::array &weights, const node *at) {
    int k = chosen.shape(-1);
    bool sort = chosen.size() >= 64, on_input = at->in[1]->route.on_input;
    if (on_input) x = mx::multiply(x, mx::astype(weights, x.dtype())); /* llama4.py: MoE */
    mx::array index = chosen, back = chosen;
    x = mx::expand_dims(x, {-2, -3});
    if (sort) {
        index = mx::flatten(chosen);
        mx::array order = mx::argsort(index);
        back = mx::argsort(order);
        x = mx::take(mx::flatten(x, 0, -3), mx::floor_divide(order, mx::array(k, order.dtype())), 0);
        index = mx::take(index, order, 0);
    }
    mx::array gate = expert_linear(x, weight_of(at->w[0]), index, sort);
    mx::array hidden = at->w[1]
                           ? gate_of(e, at->act, gate, expert_linear(x, weight_of(at->w[1]), index, sort))
                           : activated(at->act, gate);
    mx::array y = expert_linear(hidden, weight_of(at->w[2]), index, sort);
    if (sort) y = mx::unflatten(mx::take(y, back, 0), 0, chosen.shape());
    y = mx::squeeze(y, -2);
    if (on_input) return mx::squeeze(y, -2); /* of the one expert */
    mx::Dtype type = y.dtype();
    const route_spec &s = at->in[1]->route;
    mx::array counted = s.narrow || s.wide ? mx::astype(weights, s.wide ? mx::float32 : type) : weights;
    return mx::astype(mx::sum(mx::multiply(y, mx::expand_dims(counted, -1)), -2), type);
}

/* mlx-lm longcat_flash.py: LongcatFlashMoE, where some experts are identities. */
static mx::array mix_experts(const mlx_engine &e, const mx::array &x, const value &routing, const node *at) {
    const route_spec &s = at->in[1]->route;
    if (!s.identities) return mix_chosen(e, x, *routing.first, *routing.second, at);
    mx::array chosen = *routing.first;
    mx::array weights = s.narrow ? mx::astype(*routing.second, x.dtype()) : *routing.second;
    mx::array n_experts(static_cast<int>(at->w[0]->shape[0]), chosen.dtype());
    mx::array mask = mx::greater_equal(chosen, n_experts), zero = constant(0, weights);
    mx::array y = mix_chosen(e, x, mx::where(mask, mx::array(0, chosen.dtype()), chosen),
                             mx::where(mask, zero, weights), at);
    return mx::add(y, mx::multiply(x, mx::sum(mx::where(mask, weights, zero), -1, true)));
}

void mlx_route(mlx_engine &e, const graph *, const node *x) {
    choose_experts(value_of(e, x), *value_of(e, x->in[0]).first, x);
}

void mlx_experts(mlx_engine &e, const graph *, const node *x) {
    value_of(e, x).first = mix_experts(e, *value_of(e, x->in[0]).first, value_of(e, x->in[1]), x);
}
