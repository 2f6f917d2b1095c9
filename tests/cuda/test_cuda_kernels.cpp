/* test_cuda_kernels.cpp - the MLX engine's CUDA kernels, run without a GPU, against MLX's own
 * operations. The operations compute in F32 and round where the kernels do. */
#include "values.hpp"

#include <algorithm>

/* ---- a step's linears ---- */

struct linear_case {
    mx::Dtype type;
    int bits, group_size, k;
    std::vector<int> rows;
    matvec_ending ending;
    bool norm, bias;
};

static std::string name_of(const linear_case &c) {
    static const char *const endings[] = {"plain", "add", "silu", "gelu"};
    std::string text = c.type == mx::bfloat16 ? "bf16 " : "f16 ";
    text += std::to_string(c.bits) + " bits, group " + std::to_string(c.group_size);
    for (int n : c.rows) text += ", " + std::to_string(n);
    text += " x " + std::to_string(c.k) + " " + endings[c.ending];
    return text + (c.norm ? " norm" : "") + (c.bias ? " bias" : "");
}

/* shape: [rows, columns], or one per expert */
static mlx_weight random_weight(const mx::Shape &shape, mx::Dtype type, int bits, int group_size) {
    mx::array plain = random_values(shape, type, 1 / std::sqrt(static_cast<float>(shape.back())));
    mlx_weight w = {.base = {}, .values = plain, .bits = bits, .group_size = group_size};
    w.base.rank = static_cast<int>(shape.size());
    std::copy(shape.begin(), shape.end(), w.base.shape);
    w.base.dtype = type == mx::bfloat16 ? DTYPE_BF16 : DTYPE_F16;
    if (!bits) return w;
    std::vector<mx::array> packed = mx::quantize(plain, group_size, bits);
    w.values = packed[0];
    w.scales = packed[1];
    w.biases = packed[2];
    return w;
}

static mx::array product(const mx::array &x, const mlx_weight &w) {
    mx::array x32 = mx::astype(x, mx::float32), y = x32;
    if (w.bits)
        y = mx::quantized_matmul(x32, w.values, mx::astype(*w.scales, mx::float32),
                                 mx::astype(*w.biases, mx::float32), true, w.group_size, w.bits);
    else
        y = mx::matmul(x32, mx::transpose(mx::astype(w.values, mx::float32)));
    y = mx::astype(y, x.dtype());
    return w.bias ? mx::add(y, *w.bias) : y;
}

/* Each operation in F32, rounded as x is. */
static mx::array gated(matvec_ending act, const mx::array &gate, const mx::array &up) {
    mx::Dtype type = gate.dtype();
    auto wide = [](const mx::array &x) { return mx::astype(x, mx::float32); };
    auto rounded = [&](const mx::array &x) { return wide(mx::astype(x, type)); };
    auto number = [&](float x) { return rounded(mx::array(x)); };
    mx::array x = wide(gate), y = x;
    if (act == MATVEC_SILU) {
        y = rounded(x * rounded(mx::sigmoid(x)));
    } else {
        mx::array cube = rounded(number(0.044715f) * rounded(x * x * x));
        mx::array inner = rounded(number(std::sqrt(2 / static_cast<float>(M_PI))) * rounded(x + cube));
        y = rounded(rounded(number(0.5f) * x) * rounded(number(1) + rounded(mx::tanh(inner))));
    }
    return mx::astype(y * wide(up), type);
}

static void check_linears(const linear_case &c) {
    std::vector<mlx_weight> weights;
    for (int rows : c.rows) {
        weights.push_back(random_weight({rows, c.k}, c.type, c.bits, c.group_size));
        if (c.bias) weights.back().bias = random_values({rows}, c.type);
    }
    cuda_matvec m = {.x = random_values({1, 1, c.k}, c.type, 2), .n = static_cast<int>(c.rows.size())};
    mx::array x = m.x;
    if (c.norm) {
        m.norm = random_values({c.k}, c.type, 0.2f, 1);
        m.eps = 1e-5f;
        x = mx::fast::rms_norm(x, *m.norm, m.eps);
    }
    for (int i = 0; i < m.n; i++) m.weights[i] = &weights[static_cast<size_t>(i)];
    m.ending = c.ending;
    if (c.ending == MATVEC_ADD) m.residual = random_values({1, 1, c.rows[0]}, c.type);
    assert_true(cuda_matvec_takes(weights[0]));
    std::vector<mx::array> found = cuda_matvec_run(m), wanted;
    for (const mlx_weight &w : weights) wanted.push_back(product(x, w));
    if (c.ending == MATVEC_ADD) wanted[0] = mx::add(wanted[0], *m.residual);
    if (c.ending >= MATVEC_SILU) wanted = {gated(c.ending, wanted[0], wanted[1])};
    assert_int_equal(found.size(), wanted.size());
    for (size_t i = 0; i < found.size(); i++) check_same(found[i], wanted[i], name_of(c));
}

/* K: less than a chunk per lane, no multiple of what a warp takes, several turns with loads ahead
 * by 1 to 4.
 */
static void test_linears(void **) {
    for (mx::Dtype type : {mx::bfloat16, mx::float16})
        for (int bits : {0, 4, 8}) {
            check_linears({type, bits, 32, 96, {33, 7, 20}, MATVEC_PLAIN, true, true});
            check_linears({type, bits, 64, 576, {65, 31}, MATVEC_PLAIN, true, false});
            check_linears({type, bits, 32, 96 * 32, {37}, MATVEC_ADD, false, false});
            check_linears({type, bits, 64, 1024, {19}, MATVEC_ADD, false, true});
            check_linears({type, bits, 64, 576, {45, 45}, MATVEC_SILU, true, false});
            check_linears({type, bits, 128, 1152, {30, 30}, MATVEC_GELU, true, false});
            check_linears({type, bits, 128, 2048, {41, 41}, MATVEC_SILU, false, true});
        }
}

/* More rows than the grid has warps, and two rows at a time. */
static void test_many_rows(void **) {
    check_linears({mx::bfloat16, 4, 64, 64, {3301}, MATVEC_PLAIN, true, false});
    check_linears({mx::bfloat16, 4, 32, 128, {8194}, MATVEC_PLAIN, true, false});
    check_linears({mx::float16, 8, 64, 320, {8194}, MATVEC_ADD, false, true});
    check_linears({mx::bfloat16, 0, 64, 64, {8200}, MATVEC_PLAIN, true, true});
    check_few_differ(); /* in all tests of linears */
}

static void test_what_is_taken(void **) {
    mlx_weight w = random_weight({2, 64}, mx::bfloat16, 0, 64);
    assert_true(cuda_matvec_takes(w));
    w.base.shape[1] = 60; /* rows that are no multiple of 16 bytes */
    assert_false(cuda_matvec_takes(w));
    w.base.shape[1] = 1 << 20; /* x does not fit in shared memory */
    assert_false(cuda_matvec_takes(w));
    w.base.shape[1] = 64;
    w.base.dtype = DTYPE_F32;
    assert_false(cuda_matvec_takes(w));
    w.base.dtype = DTYPE_BF16;
    w.bits = 3;
    assert_false(cuda_matvec_takes(w));
}

/* ---- experts ---- */

struct experts_case {
    mx::Dtype type;
    int bits, group_size, n, k, in, width; /* k of n experts */
    activation act;
    bool renormalize, norm, residual;
};

static std::string name_of(const experts_case &c) {
    std::string text = c.type == mx::bfloat16 ? "bf16 " : "f16 ";
    text += std::to_string(c.bits) + " bits, " + std::to_string(c.k) + " of " + std::to_string(c.n) +
            " experts, " + std::to_string(c.width) + " x " + std::to_string(c.in);
    return text + (c.renormalize ? " renormalized" : "") + (c.norm ? " norm" : "") +
           (c.residual ? " residual" : "");
}

static mlx_weight expert(const mlx_weight &all, int i) {
    auto part = [&](const mx::array &x) { return mx::take(x, i, 0); };
    mlx_weight w = {
        .base = all.base, .values = part(all.values), .bits = all.bits, .group_size = all.group_size};
    if (w.bits) {
        w.scales = part(*all.scales);
        w.biases = part(*all.biases);
    }
    return w;
}

/* The largest first, of equal ones the first. */
static std::vector<int> order_of(const std::vector<float> &logits) {
    std::vector<int> order(logits.size());
    for (size_t i = 0; i < order.size(); i++) order[i] = static_cast<int>(i);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
        return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    return order;
}

/* As ops.cpp has it, but that the chosen are summed in F32. */
static mx::array mixed(const cuda_experts &e, const mx::array &x) {
    auto rounded = [&](const mx::array &y) { return mx::astype(mx::astype(y, x.dtype()), mx::float32); };
    mx::array gates = rounded(mx::softmax(mx::astype(mx::flatten(e.logits), mx::float32)));
    std::vector<int> order = order_of(floats_in(mx::flatten(e.logits)));
    mx::array chosen = mx::take(gates, mx::array(order.data(), {e.k}, mx::int32), 0);
    if (e.renormalize) chosen = rounded(chosen / rounded(mx::sum(chosen)));
    mx::array sum = mx::zeros(x.shape());
    for (int i = 0; i < e.k; i++) {
        int which = order[static_cast<size_t>(i)];
        mx::array gate = product(x, expert(*e.gate, which)), up = product(x, expert(*e.up, which));
        mx::array y = gated(e.act == ACT_SILU ? MATVEC_SILU : MATVEC_GELU, gate, up);
        y = mx::astype(product(y, expert(*e.down, which)), mx::float32);
        sum = sum + rounded(y * mx::take(chosen, i));
    }
    sum = mx::astype(sum, x.dtype());
    return e.residual ? mx::add(sum, *e.residual) : sum;
}

static void check_experts(const experts_case &c, const mx::array &logits) {
    mlx_weight gate = random_weight({c.n, c.width, c.in}, c.type, c.bits, c.group_size),
               up = random_weight({c.n, c.width, c.in}, c.type, c.bits, c.group_size),
               down = random_weight({c.n, c.in, c.width}, c.type, c.bits, c.group_size);
    assert_true(cuda_experts_take(gate, up, down, c.k));
    cuda_experts e = {.x = random_values({1, 1, c.in}, c.type, 2),
                      .logits = logits,
                      .k = c.k,
                      .renormalize = c.renormalize,
                      .act = c.act,
                      .gate = &gate,
                      .up = &up,
                      .down = &down};
    mx::array x = e.x;
    if (c.norm) {
        e.norm = random_values({c.in}, c.type, 0.2f, 1);
        e.eps = 1e-5f;
        x = mx::fast::rms_norm(x, *e.norm, e.eps);
    }
    if (c.residual) e.residual = random_values({1, 1, c.in}, c.type, 0.2f);
    check_same(cuda_experts_run(e), mixed(e, x), name_of(c), 2);
}

static void check_experts(const experts_case &c) {
    check_experts(c, random_values({1, 1, c.n}, c.type, 2));
}

/* Choices of 1 to 16, for which a warp's lanes are divided in different ways; more experts than
 * lanes; rows of few loads, and of more than a team takes at once. */
static void test_experts(void **) {
    for (mx::Dtype type : {mx::bfloat16, mx::float16})
        for (int bits : {0, 4, 8}) {
            check_experts({type, bits, 32, 5, 1, 96, 64, ACT_SILU, true, true, true});
            check_experts({type, bits, 32, 8, 2, 64, 96, ACT_GELU_TANH, false, false, false});
            check_experts({type, bits, 64, 40, 6, 192, 320, ACT_SILU, false, true, true});
            check_experts({type, bits, 64, 20, 16, 64, 64, ACT_SILU, true, false, true});
            check_experts({type, bits, 64, 8, 4, 320, 576, ACT_SILU, true, true, true});
        }
    check_experts({mx::bfloat16, 4, 64, 256, 8, 128, 64, ACT_SILU, true, true, true});
}

/* What is another kernel for each of these. */
static void test_kinds_of_experts(void **) {
    const experts_case c = {mx::float16, 8, 32, 9, 4, 64, 64, ACT_SILU, true, true, true};
    experts_case less_chosen = c, gelu = c, not_renormalized = c, not_normalized = c, no_residual = c;
    less_chosen.k = 2;
    gelu.act = ACT_GELU_TANH;
    not_renormalized.renormalize = not_normalized.norm = no_residual.residual = false;
    for (const experts_case &x : {c, less_chosen, gelu, not_renormalized, not_normalized, no_residual})
        check_experts(x);
}

/* More rows than the grid has warps, of gate and up and of down. */
static void test_many_expert_rows(void **) {
    check_experts({mx::bfloat16, 4, 32, 16, 14, 64, 256, ACT_SILU, true, false, true});
    check_experts({mx::float16, 4, 32, 2, 1, 3200, 32, ACT_SILU, false, false, true});
}

static void test_equal_logits(void **) {
    experts_case c = {mx::bfloat16, 4, 32, 70, 5, 64, 64, ACT_SILU, false, false, false};
    check_experts(c, mx::full({1, 1, c.n}, -3.0f, c.type));
    std::vector<float> logits(static_cast<size_t>(c.n), -1.0f);
    logits[66] = logits[33] = 2;
    logits[2] = logits[34] = logits[68] = logits[69] = 0;
    check_experts(c, mx::astype(mx::array(logits.data(), {1, 1, c.n}), c.type));
    check_few_differ(2); /* in all tests of experts */
}

/* They choose something, and show in the result. */
static void test_logits_that_are_no_numbers(void **) {
    for (float logit : {NAN, -NAN}) {
        mlx_weight up = random_weight({9, 32, 64}, mx::float16, 8, 32),
                   down = random_weight({9, 64, 32}, mx::float16, 8, 32);
        cuda_experts e = {.x = random_values({1, 1, 64}, mx::float16),
                          .logits = mx::full({1, 1, 9}, logit, mx::float16),
                          .k = 8,
                          .renormalize = true,
                          .act = ACT_SILU,
                          .gate = &up,
                          .up = &up,
                          .down = &down};
        assert_true(mx::all(mx::isnan(cuda_experts_run(e))).item<bool>());
    }
}

static void test_which_experts_are_taken(void **) {
    mlx_weight up = random_weight({9, 32, 64}, mx::float16, 8, 32),
               down = random_weight({9, 64, 32}, mx::float16, 4, 32), other = up;
    assert_true(cuda_experts_take(up, up, down, 9)); /* down may be of another kind */
    assert_false(cuda_experts_take(up, up, down, 17));
    other.bits = 4;
    assert_false(cuda_experts_take(up, other, down, 9));
    other.bits = 3;
    assert_false(cuda_experts_take(other, other, down, 9));
    other = down;
    other.base.dtype = DTYPE_BF16;
    assert_false(cuda_experts_take(up, up, other, 9));
    other = up;
    other.base.shape[0] = 257;
    assert_false(cuda_experts_take(other, other, down, 9));
    other = down;
    other.bias = random_values({9, 64}, mx::float16);
    assert_false(cuda_experts_take(up, up, other, 9));
    other = down;
    other.base.shape[2] = 4096; /* once this fits in shared memory, but not for each of nine experts */
    assert_true(cuda_experts_take(up, up, other, 1));
    assert_false(cuda_experts_take(up, up, other, 9));
}

/* ---- attention ---- */

struct attend_case {
    mx::Dtype type;
    int head_dim, n_kv_heads, per_kv_head, n; /* entries with the new one */
    int dims;
    bool traditional, own_freqs, norm;
};

static std::string name_of(const attend_case &c) {
    std::string text = c.type == mx::bfloat16 ? "attend bf16 " : "attend f16 ";
    text += std::to_string(c.n_kv_heads) + "*" + std::to_string(c.per_kv_head) + " heads of " +
            std::to_string(c.head_dim) + ", " + std::to_string(c.n) + " entries";
    return text + (c.traditional ? " traditional" : "") + (c.own_freqs ? " freqs" : "") +
           (c.norm ? " norm" : "");
}

/* [1, 1, heads * head_dim] as attention gets it: [1, heads, 1, head_dim], normalized and
 * rotated. */
static mx::array rotated(const attend_case &c, const rope_spec &spec, mx::array x, const optional_array &norm,
                         float eps) {
    x = mx::transpose(mx::reshape(x, {1, 1, -1, c.head_dim}), {0, 2, 1, 3});
    if (norm) x = mx::fast::rms_norm(x, *norm, eps);
    x = mx::astype(x, mx::float32);
    if (c.own_freqs)
        x = mx::fast::rope(x, c.dims, c.traditional, std::nullopt, spec.scale, c.n - 1,
                           mx::array(spec.freqs, {c.dims / 2}));
    else
        x = mx::fast::rope(x, c.dims, c.traditional, spec.base, spec.scale, c.n - 1);
    return mx::astype(x, c.type);
}

/* Entries that there is room for: whole steps of 256. */
static int capacity(const attend_case &c) {
    return (c.n + 255) / 256 * 256;
}

/* A cache with n - 1 entries, and NaN where nothing was written yet. */
static mx::array random_cache(const attend_case &c) {
    mx::Shape shape = {1, c.n_kv_heads, c.n - 1, c.head_dim}, rest = shape;
    rest[2] = capacity(c) - c.n + 1;
    mx::array nothing = mx::full(rest, NAN, c.type);
    mx::array x = c.n > 1 ? mx::concatenate({random_values(shape, c.type), nothing}, 2) : nothing;
    x.eval();
    return x;
}

static mx::array entries(const mx::array &entries, int first, int end) {
    return mx::slice(entries, {0, 0, first, 0}, {1, entries.shape(1), end, entries.shape(3)});
}

static void check_cache(const attend_case &c, const mx::array &found, const mx::array &before,
                        const mx::array &added, const std::string &what) {
    check_same(entries(found, c.n - 1, c.n), added, name_of(c) + ": " + what);
    if (c.n > 1)
        assert_true(mx::array_equal(entries(found, 0, c.n - 1), entries(before, 0, c.n - 1)).item<bool>());
    if (c.n < capacity(c)) assert_true(mx::all(mx::isnan(entries(found, c.n, capacity(c)))).item<bool>());
}

static rope_spec spec_of(const attend_case &c, std::vector<float> &freqs, std::vector<float> &inverse) {
    int n = c.dims / 2;
    for (int i = 0; i < n; i++) {
        freqs.push_back(c.own_freqs ? 1 + 7 * static_cast<float>(i)
                                    : std::pow(10000.0f, static_cast<float>(i) / static_cast<float>(n)));
        inverse.push_back(1 / freqs.back());
    }
    return {.dims = c.dims,
            .traditional = c.traditional,
            .scale = c.own_freqs ? 0.5f : 1,
            .base = c.own_freqs ? 0 : 10000.0f,
            .mscale = 1,
            .freqs = freqs.data(),
            .limit = 0};
}

static void check_attend(const attend_case &c) {
    std::vector<float> freqs, inverse;
    rope_spec spec = spec_of(c, freqs, inverse);
    int n_heads = c.n_kv_heads * c.per_kv_head;
    cache_spec sizes = {};
    sizes.n_kv_heads = c.n_kv_heads;
    sizes.head_dim = sizes.v_head_dim = c.head_dim;
    assert_true(cuda_attend_takes(sizes, n_heads));
    mx::array keys = random_cache(c), values = random_cache(c);
    mx::array old_keys = mx::copy(keys), old_values = mx::copy(values);
    mx::eval(old_keys, old_values);
    cuda_attend a = {.q = random_values({1, 1, n_heads * c.head_dim}, c.type),
                     .k = random_values({1, 1, c.n_kv_heads * c.head_dim}, c.type),
                     .v = random_values({1, 1, c.n_kv_heads * c.head_dim}, c.type),
                     .keys = keys,
                     .values = values,
                     .inverse_freqs = mx::array(inverse.data(), {c.dims / 2}),
                     .entries = mx::broadcast_to(mx::array(0.0f), {c.n}),
                     .scratch = mx::zeros({cuda_attend_scratch(sizes, n_heads)}),
                     .rope = &spec,
                     .n_heads = n_heads,
                     .scale = 2 / std::sqrt(static_cast<float>(c.head_dim))};
    if (c.norm) {
        a.q_norm = random_values({c.head_dim}, c.type, 0.2f, 1);
        a.k_norm = random_values({c.head_dim}, c.type, 0.2f, 1);
        a.eps = 1e-6f;
    }
    mx::array found = cuda_attend_run(a);
    found.eval(); /* caches are written in place */
    mx::array k = rotated(c, spec, a.k, a.k_norm, a.eps), q = rotated(c, spec, a.q, a.q_norm, a.eps);
    mx::array v = mx::reshape(a.v, {1, c.n_kv_heads, 1, c.head_dim});
    check_cache(c, keys, old_keys, k, "new key");
    check_cache(c, values, old_values, v, "new value");
    auto wide = [&](const mx::array &x) { return mx::astype(x, mx::float32); };
    mx::array wanted = mx::fast::scaled_dot_product_attention(wide(q), wide(entries(keys, 0, c.n)),
                                                              wide(entries(values, 0, c.n)), a.scale);
    check_same(mx::reshape(found, wanted.shape()), mx::astype(wanted, c.type), name_of(c));
    for (int i = 0; i < c.n_kv_heads; i++) assert_true(a.scratch.data<float>()[i] == 0);
}

static void test_lengths(void **) {
    for (int n : {1, 2, 63, 64, 65, 200, 256}) {
        check_attend({mx::bfloat16, 64, 2, 2, n, 64, false, false, false});
        check_attend({mx::float16, 128, 1, 3, n, 128, false, false, true});
    }
}

/* As many parts as there are blocks for: they are longer then, and the last one may be empty. */
static void test_many_parts(void **) {
    check_attend({mx::float16, 64, 132, 1, 200, 64, false, false, false});
    check_attend({mx::bfloat16, 64, 4, 1, 66 * 64 + 1, 64, false, false, false});
}

static void test_heads(void **) {
    for (mx::Dtype type : {mx::bfloat16, mx::float16}) {
        check_attend({type, 64, 3, 1, 70, 64, false, false, true});
        check_attend({type, 64, 1, 16, 150, 64, false, true, false});
        check_attend({type, 128, 2, 8, 70, 128, false, false, false});
        check_attend({type, 256, 1, 4, 70, 256, false, false, true});
        check_attend({type, 256, 2, 1, 2, 256, false, true, false});
    }
}

static void test_ropes(void **) {
    for (bool traditional : {false, true})
        for (bool own_freqs : {false, true})
            for (int dims : {64, 32})
                check_attend({mx::bfloat16, 64, 2, 3, 70, dims, traditional, own_freqs, false});
    check_few_differ(); /* in all tests of attention */
}

int main() {
    mx::set_default_device(mx::Device::cpu);
    mx::random::seed(1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_linears),
                                       cmocka_unit_test(test_many_rows),
                                       cmocka_unit_test(test_what_is_taken),
                                       cmocka_unit_test(test_experts),
                                       cmocka_unit_test(test_kinds_of_experts),
                                       cmocka_unit_test(test_many_expert_rows),
                                       cmocka_unit_test(test_equal_logits),
                                       cmocka_unit_test(test_logits_that_are_no_numbers),
                                       cmocka_unit_test(test_which_experts_are_taken),
                                       cmocka_unit_test(test_lengths),
                                       cmocka_unit_test(test_many_parts),
                                       cmocka_unit_test(test_heads),
                                       cmocka_unit_test(test_ropes)};
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
