/* ops.cpp - the operations but for attention, each as mlx-lm writes it: same calls, same order,
 * same dtypes. Nothing is computed here: MLX collects the expressions until they are evaluated. */
#include "engine/mlx/mlx.hpp"

#include <cmath>

static const mx::array &in(mlx_engine &e, const node *x, int i) {
    return *e.values[x->in[i]->index].first;
}

mx::array heads_first(const value &x) {
    return x.heads_first ? *x.first : mx::transpose(*x.first, {0, 2, 1, 3});
}

static mx::array tokens_of(const graph *g, const node *x) {
    int n = static_cast<int>(rows_per_sequence(g, x));
    return mx::array(g->ids + x->first_id, {g->n_sequences, n}, mx::int32);
}

static std::string mode(const mlx_weight &w) {
    return matrix_kind_name(w.base.kind);
}

/* mlx nn.Embedding, nn.QuantizedEmbedding */
static mx::array embed_rows(const mx::array &ids, const mlx_weight &w) {
    mx::array rows = mx::take(w.values, ids, 0);
    if (!w.bits) return rows;
    optional_array biases;
    if (w.biases) biases = mx::take(*w.biases, ids, 0);
    return mx::dequantize(rows, mx::take(*w.scales, ids, 0), biases, w.group_size, w.bits, mode(w));
}

/* mlx nn.Linear, nn.QuantizedLinear; for a tied embedding as_linear, which is the same */
static mx::array multiply(const mx::array &x, const mlx_weight &w) {
    if (w.bits) {
        mx::array y =
            mx::quantized_matmul(x, w.values, *w.scales, w.biases, true, w.group_size, w.bits, mode(w));
        return w.bias ? mx::add(y, *w.bias) : y;
    }
    mx::array transposed = mx::transpose(w.values);
    return w.bias ? mx::addmm(*w.bias, x, transposed) : mx::matmul(x, transposed);
}

static mx::array frequencies(mlx_engine &e, const rope_spec *spec) {
    auto found = e.freqs.find(spec->freqs);
    if (found == e.freqs.end())
        found = e.freqs.emplace(spec->freqs, mx::array(spec->freqs, {spec->dims / 2}, mx::float32)).first;
    return found->second;
}

/* mlx nn.RoPE; mlx-lm rope_utils.py */
static mx::array rotate(mlx_engine &e, mx::array x, const node *at) {
    const rope_spec *spec = at->rope;
    int offset = static_cast<int>(at->position);
    if (spec->mscale != 1) {
        mx::Shape start(4, 0), stop = x.shape();
        stop[3] = spec->dims;
        x = mx::slice_update_prod(x, constant(spec->mscale, x), start, stop);
    }
    if (spec->base != 0)
        return mx::fast::rope(x, spec->dims, spec->traditional, spec->base, spec->scale, offset);
    return mx::fast::rope(x, spec->dims, spec->traditional, std::nullopt, spec->scale, offset,
                          frequencies(e, spec));
}

using arrays = std::vector<mx::array>;

static mx::array swiglu(const mx::array &gate, const mx::array &up) {
    return mx::multiply(mx::multiply(gate, mx::sigmoid(gate)), up);
}

mx::array gelu_approx(const mx::array &x) {
    mx::array cube = mx::multiply(constant(0.044715, x), mx::power(x, constant(3, x)));
    mx::array inner = mx::multiply(constant(std::sqrt(2 / M_PI), x), mx::add(x, cube));
    return mx::multiply(mx::multiply(constant(0.5, x), x), mx::add(constant(1, x), mx::tanh(inner)));
}

/* activations.py: swiglu_oai */
static mx::array swiglu_oai(const mx::array &gate, const mx::array &up) {
    mx::array g = mx::minimum(gate, constant(7, gate));
    mx::array u = mx::clip(up, constant(-7, up), constant(7, up));
    return mx::multiply(mx::add(u, constant(1, u)),
                        mx::multiply(g, mx::sigmoid(mx::multiply(constant(1.702, g), g))));
}

/* mlx-lm step3p5.py: clamped_swiglu */
static mx::array swiglu_clamped(const mx::array &gate, const mx::array &up, double limit) {
    mx::array high = constant(limit, gate);
    mx::array g = mx::minimum(mx::multiply(gate, mx::sigmoid(gate)), high);
    return mx::multiply(g, mx::clip(up, constant(-limit, up), constant(limit, up)));
}

mx::array activated(activation act, const mx::array &x) {
    switch (act) {
    case ACT_SILU:
        return mx::multiply(x, mx::sigmoid(x));
    case ACT_GELU_TANH:
        return gelu_approx(x);
    case ACT_GELU: {
        mx::array half = mx::add(constant(1, x), mx::erf(mx::divide(x, constant(std::sqrt(2), x))));
        return mx::divide(mx::multiply(x, half), constant(2, x));
    }
    case ACT_RELU:
        return mx::maximum(x, constant(0, x));
    case ACT_RELU2:
        return mx::square(mx::maximum(x, constant(0, x)));
    case ACT_SIGMOID:
        return mx::sigmoid(x);
    case ACT_SIGMOID_F32:
        return mx::astype(mx::sigmoid(mx::astype(x, mx::float32)), x.dtype());
    case ACT_TANH:
        return mx::tanh(x);
    case ACT_SOFTPLUS:
        return mx::astype(mx::logaddexp(mx::astype(x, mx::float32), mx::array(0.0f)), x.dtype());
    case ACT_OAI:
    case ACT_SILU_F32:
    case ACT_CLAMPED_7:
    case ACT_CLAMPED_16:
        break;
    }
    throw std::invalid_argument("this activation has two inputs");
}

/* One kernel on a GPU, as in mlx-lm. On the CPU MLX would start a C++ compiler for it; the result
 * is the same. */
mx::array gate_of(const mlx_engine &e, activation act, const mx::array &gate, const mx::array &up) {
    bool fuse = e.stream.device == mx::Device::gpu;
    if (act == ACT_SILU) {
        static const auto fused =
            mx::compile([](const arrays &x) { return arrays{swiglu(x[0], x[1])}; }, true);
        return fuse ? fused({gate, up})[0] : swiglu(gate, up);
    }
    if (act == ACT_OAI) {
        static const auto fused =
            mx::compile([](const arrays &x) { return arrays{swiglu_oai(x[0], x[1])}; }, true);
        return fuse ? fused({gate, up})[0] : swiglu_oai(gate, up);
    }
    if (act == ACT_CLAMPED_7 || act == ACT_CLAMPED_16)
        return swiglu_clamped(gate, up, act == ACT_CLAMPED_7 ? 7 : 16);
    if (act == ACT_SILU_F32)
        return mx::astype(swiglu(mx::astype(gate, mx::float32), mx::astype(up, mx::float32)), up.dtype());
    if (act != ACT_GELU_TANH) return mx::multiply(activated(act, gate), up);
    static const auto fused = mx::compile([](const arrays &x) { return arrays{gelu_approx(x[0])}; }, true);
    return mx::multiply(fuse ? fused({gate})[0] : gelu_approx(gate), up);
}

/* mlx-lm gemma3_text.py: clip_residual */
static mx::array sum_of(const mx::array &a, const mx::array &b, bool clip) {
    if (!clip || a.dtype() != mx::float16) return mx::add(a, b);
    mx::array x = mx::add(mx::astype(a, mx::float32), mx::astype(b, mx::float32));
    return mx::astype(mx::clip(x, constant(-65504, x), constant(65504, x)), mx::float16);
}

mx::array last_columns(const mx::array &x, int first, int end) {
    mx::Shape start(x.ndim(), 0), stop = x.shape();
    start.back() = first;
    stop.back() = end;
    return mx::slice(x, start, stop);
}

/* [B, L, V] as [B * L, V]. */
static mx::array rows_of(const mx::array &x) {
    if (x.ndim() < 3) return x;
    return x.shape(0) == 1 ? mx::squeeze(x, 0) : mx::flatten(x, 0, 1);
}

/* mlx-lm generate.py: _step. Of one row, as there, over all axes; the result is [B * L, V]. */
static mx::array log_softmax(const mx::array &logits) {
    mx::array x = rows_of(logits);
    return mx::subtract(x, x.shape(0) == 1 ? mx::logsumexp(x, true) : mx::logsumexp(x, -1, true));
}

static optional_array norm_weight(const node *x) {
    return x->w[0] ? optional_array(weight_of(x->w[0]).values) : std::nullopt;
}

static mx::array split_heads(const mx::array &x, const node *at) {
    return mx::reshape(
        x, {x.shape(0), x.shape(1), static_cast<int>(at->shape[1]), static_cast<int>(at->shape[2])});
}

/* ---- one function per operation ---- */

void mlx_tokens(mlx_engine &e, const graph *g, const node *x) {
    value_of(e, x).first = tokens_of(g, x);
}

void mlx_token_result(mlx_engine &e, const graph *g, const node *x) {
    value_of(e, x).first =
        mx::reshape(reinterpret_cast<const mlx_result *>(x->from)->data, {g->n_sequences, -1});
}

void mlx_embed(mlx_engine &e, const graph *, const node *x) {
    mx::array ids = in(e, x, 0), n(static_cast<int>(x->w[0]->shape[0]));
    if (x->or_first) ids = mx::where(mx::less(ids, n), ids, mx::zeros_like(ids));
    value_of(e, x).first = embed_rows(ids, weight_of(x->w[0]));
}

void mlx_linear(mlx_engine &e, const graph *, const node *x) {
    value_of(e, x).first = multiply(in(e, x, 0), weight_of(x->w[0]));
}

void mlx_rms_norm(mlx_engine &e, const graph *, const node *x) {
    value &out = value_of(e, x);
    out.first = mx::fast::rms_norm(in(e, x, 0), norm_weight(x), x->eps);
    out.heads_first = value_of(e, x->in[0]).heads_first;
}

void mlx_heads(mlx_engine &e, const graph *, const node *x) {
    value_of(e, x).first = split_heads(in(e, x, 0), x);
}

void mlx_rope(mlx_engine &e, const graph *, const node *x) {
    value &out = value_of(e, x);
    out.first = rotate(e, heads_first(value_of(e, x->in[0])), x);
    out.heads_first = true;
}

/* mlx nn.Conv1d with a group for every channel, after what the state keeps; mlx-lm qwen3_next.py */
void mlx_short_conv(mlx_engine &e, const graph *g, const node *x) {
    auto &state = reinterpret_cast<mlx_cache *>(x->cache)->states[static_cast<size_t>(x->conv.slot)];
    const mx::array &now = in(e, x, 0);
    const mlx_weight &w = weight_of(x->w[0]);
    int n_before = static_cast<int>(x->w[0]->shape[1]) - 1, width = now.shape(2);
    if (!state) state = mx::zeros({g->n_sequences, n_before, width}, now.dtype());
    mx::array all = mx::concatenate({*state, now}, 1);
    state = mx::contiguous(
        mx::slice(all, {0, now.shape(1), 0}, {g->n_sequences, now.shape(1) + n_before, width}));
    mx::array y = mx::conv1d(all, mx::expand_dims(w.values, -1), 1, 0, 1, width);
    if (w.bias) y = mx::add(y, *w.bias);
    value_of(e, x).first = x->conv.silu ? mx::multiply(y, mx::sigmoid(y)) : y;
}

void mlx_gated(mlx_engine &e, const graph *, const node *x) {
    value_of(e, x).first = gate_of(e, x->act, in(e, x, 0), in(e, x, 1));
}

void mlx_add(mlx_engine &e, const graph *, const node *x) {
    value_of(e, x).first = sum_of(in(e, x, 0), in(e, x, 1), x->clip);
}

void mlx_scale(mlx_engine &e, const graph *, const node *x) {
    value_of(e, x).first = mx::multiply(in(e, x, 0), constant(x->scale, in(e, x, 0)));
}

void mlx_activate(mlx_engine &e, const graph *, const node *x) {
    value &out = value_of(e, x);
    out.first = activated(x->act, in(e, x, 0));
    out.heads_first = value_of(e, x->in[0]).heads_first;
}

/* activations.py: xielu */
static mx::array xielu_of(const arrays &a) {
    const mx::array &x = a[0], &beta = a[3];
    auto softplus = [](const mx::array &w) { return mx::logaddexp(w, constant(0, w)); };
    mx::array alpha_p = softplus(a[1]), alpha_n = mx::add(beta, softplus(a[2]));
    mx::array above = mx::add(mx::multiply(alpha_p, mx::square(x)), mx::multiply(beta, x));
    mx::array curve = mx::subtract(mx::expm1(mx::minimum(x, a[4])), x);
    mx::array below = mx::add(mx::multiply(curve, alpha_n), mx::multiply(beta, x));
    return mx::where(mx::greater(x, constant(0, x)), above, below);
}

void mlx_xielu(mlx_engine &e, const graph *, const node *x) {
    static const auto fused = mx::compile([](const arrays &a) { return arrays{xielu_of(a)}; }, true);
    arrays inputs{in(e, x, 0)};
    for (int i = 0; i < 4; i++) inputs.push_back(weight_of(x->w[i]).values);
    value_of(e, x).first = e.stream.device == mx::Device::gpu ? fused(inputs)[0] : xielu_of(inputs);
    value_of(e, x).heads_first = value_of(e, x->in[0]).heads_first;
}

void mlx_softmax(mlx_engine &e, const graph *, const node *x) {
    value_of(e, x).first = mx::softmax(in(e, x, 0), -1, true);
    value_of(e, x).heads_first = value_of(e, x->in[0]).heads_first;
}

void mlx_divide(mlx_engine &e, const graph *, const node *x) {
    value_of(e, x).first = mx::divide(in(e, x, 0), constant(x->scale, in(e, x, 0)));
}

void mlx_clip(mlx_engine &e, const graph *, const node *x) {
    const mx::array &from = in(e, x, 0);
    value_of(e, x).first = mx::clip(from, constant(-x->scale, from), constant(x->scale, from));
}

void mlx_soft_cap(mlx_engine &e, const graph *, const node *x) {
    mx::array cap = constant(x->scale, in(e, x, 0));
    value_of(e, x).first = mx::multiply(mx::tanh(mx::divide(in(e, x, 0), cap)), cap);
}

/* [1, L, H, hd], whatever the order it was left in. */
static mx::array rows_first(const value &x) {
    return x.heads_first ? mx::transpose(*x.first, {0, 2, 1, 3}) : *x.first;
}

void mlx_product(mlx_engine &e, const graph *, const node *x) {
    value_of(e, x).first = mx::multiply(rows_first(value_of(e, x->in[0])), rows_first(value_of(e, x->in[1])));
}

void mlx_product_weight(mlx_engine &e, const graph *, const node *x) {
    value &out = value_of(e, x);
    out.first = mx::multiply(in(e, x, 0), weight_of(x->w[0]).values);
    out.heads_first = value_of(e, x->in[0]).heads_first;
}

void mlx_part(mlx_engine &e, const graph *, const node *x) {
    int first = static_cast<int>(x->first), n = static_cast<int>(tensor_last(x));
    value_of(e, x).first = last_columns(in(e, x, 0), first, first + n);
    value_of(e, x).heads_first = value_of(e, x->in[0]).heads_first;
}

/* iquestloopcoder.py: _mix_attention */
void mlx_blend(mlx_engine &e, const graph *, const node *x) {
    mx::array gate = rows_first(value_of(e, x->in[0]));
    mx::array a = rows_first(value_of(e, x->in[1])), b = rows_first(value_of(e, x->in[2]));
    mx::array rest = mx::subtract(constant(1, gate), gate);
    value_of(e, x).first = mx::add(mx::multiply(gate, a), mx::multiply(rest, b));
}

void mlx_swap_heads(mlx_engine &e, const graph *, const node *x) {
    mx::array in = heads_first(value_of(e, x->in[0]));
    int n = static_cast<int>(x->swapped), heads = in.shape(1);
    mx::array groups = mx::reshape(in, {in.shape(0), heads / n, n, in.shape(2), in.shape(3)});
    value_of(e, x).first = mx::reshape(mx::swapaxes(groups, 1, 2), in.shape());
    value_of(e, x).heads_first = true;
}

/* afm7.py: fake_8bit_quant */
void mlx_fake_quant(mlx_engine &e, const graph *, const node *x) {
    const value &in = value_of(e, x->in[0]);
    const mx::array &s = weight_of(x->w[0]).values;
    mx::array steps = mx::round(mx::divide(mx::astype(*in.first, mx::float32), s));
    steps = mx::clip(steps, mx::array(-128.0f), mx::array(127.0f));
    value_of(e, x).first = mx::astype(mx::multiply(steps, s), in.first->dtype());
    value_of(e, x).heads_first = in.heads_first;
}

void mlx_concat(mlx_engine &e, const graph *, const node *x) {
    value &out = value_of(e, x);
    out.heads_first = x->rank == 3;
    if (!out.heads_first) {
        out.first = mx::concatenate({in(e, x, 0), in(e, x, 1)}, -1);
        return;
    }
    mx::array a = heads_first(value_of(e, x->in[0])), b = heads_first(value_of(e, x->in[1]));
    b = mx::broadcast_to(b, {b.shape(0), a.shape(1), b.shape(2), b.shape(3)});
    out.first = mx::concatenate({a, b}, -1);
}

void mlx_as_f32(mlx_engine &e, const graph *, const node *x) {
    value_of(e, x).first = mx::astype(in(e, x, 0), mx::float32);
    value_of(e, x).heads_first = value_of(e, x->in[0]).heads_first;
}

void mlx_flatten(mlx_engine &e, const graph *, const node *x) {
    mx::array rows = rows_first(value_of(e, x->in[0]));
    value_of(e, x).first = mx::reshape(rows, {rows.shape(0), rows.shape(1), -1});
}

/* mlx-lm ministral3.py: _get_llama_4_attn_scale; llama4.py: Attention */
void mlx_scale_positions(mlx_engine &e, const graph *, const node *x) {
    mx::array in = heads_first(value_of(e, x->in[0]));
    position_scale s = x->by_position;
    int first = static_cast<int>(x->position), n = in.shape(2);
    mx::array positions = mx::astype(mx::arange(first, first + n), mx::float32);
    if (s.shift != 0) positions = mx::add(positions, mx::array(s.shift));
    mx::array sharper = mx::log(mx::add(mx::array(1.0f), mx::floor(mx::divide(positions, mx::array(s.n)))));
    mx::array factor = mx::add(mx::array(1.0f), mx::multiply(mx::array(s.beta), sharper));
    if (!s.f32) factor = mx::astype(factor, in.dtype());
    value_of(e, x).first = mx::astype(mx::multiply(in, mx::expand_dims(factor, 1)), in.dtype());
    value_of(e, x).heads_first = true;
}

void mlx_logprobs(mlx_engine &e, const graph *, const node *x) {
    value_of(e, x).first = log_softmax(in(e, x, 0));
}

void mlx_argmax(mlx_engine &e, const graph *, const node *x) {
    value_of(e, x).first = mx::argmax(rows_of(in(e, x, 0)), -1);
}

void mlx_record(mlx_engine &e, const graph *g, const node *x) {
    static void (*const functions[])(mlx_engine &, const graph *, const node *) = {
#define OP(NAME, function, flags) mlx_##function,
        ENGINE_OPS(OP)
#undef OP
    };
    functions[x->op](e, g, x);
}
