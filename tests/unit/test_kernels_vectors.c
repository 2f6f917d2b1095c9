/* test_kernels_vectors.c - conversions, norms, activations and exponentials of every kernel table;
 * quantization. Against the definitions in double precision, and against what MLX's own
 * quantization gave. */
#include "kernel_tables.h"
#include "quantized.h"

/* ---- conversions ---- */

/* The value of a half by its definition; the code after the largest finite one counts as the next
 * number. */
static double value_of(dtype type, unsigned code) {
    int fraction_bits = type == DTYPE_F16 ? 10 : 7, bias = type == DTYPE_F16 ? 15 : 127;
    int exponent = (int)(code & 0x7fff) >> fraction_bits, fraction = (int)code & ((1 << fraction_bits) - 1);
    double value = exponent ? ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits)
                            : ldexp(fraction, 1 - bias - fraction_bits);
    return code & 0x8000 ? -value : value;
}

static unsigned infinity_of(dtype type) {
    return type == DTYPE_F16 ? 0x7c00 : 0x7f80;
}

static void check_to_f32(dtype type, const uint16_t *codes, int64_t n, size_t skew) {
    char *in = get_memory(skew + (size_t)n * sizeof *codes);
    float *out = get_memory((size_t)n * sizeof *out);
    if (n) memcpy(in + skew, codes, (size_t)n * sizeof *codes);
    tested->to_f32(out, in + skew, type, n);
    for (int64_t i = 0; i < n; i++) {
        unsigned magnitude = codes[i] & 0x7fff, infinite = infinity_of(type);
        double wanted = magnitude > infinite ? NAN : value_of(type, codes[i]);
        if (magnitude == infinite) wanted = codes[i] & 0x8000 ? -INFINITY : INFINITY;
        check_near(out[i], wanted, 0, "to_f32", codes[i]);
        if (!isnan(wanted)) assert_int_equal(!!signbit(out[i]), codes[i] >> 15); /* also of zero */
    }
    free(in), free(out);
}

static void test_to_f32(void) {
    static uint16_t codes[65536];
    for (int i = 0; i < 65536; i++) codes[i] = (uint16_t)i;
    for
        EACH(t, float_types) {
            if (float_types[t] == DTYPE_F32) continue;
            for (size_t skew = 0; skew < 2; skew++) check_to_f32(float_types[t], codes, 65536, skew);
            for (int n = 0; n < 18; n++) check_to_f32(float_types[t], codes + 15000, n, 0);
        }
    float in[11], out[11];
    for (int i = 0; i < 11; i++) in[i] = uniform();
    tested->to_f32(out, in, DTYPE_F32, 11);
    assert_memory_equal(out, in, sizeof in);
}

/* Between every two neighbours: the middle goes to the even one, what is next to it to the nearer
 * one. */
static void check_from_f32(dtype type) {
    int n = 4 * (int)infinity_of(type) * 2, at = 0;
    float *in = get_memory((size_t)n * sizeof *in);
    uint16_t *wanted = get_memory((size_t)n * sizeof *wanted), *out = get_memory((size_t)n * sizeof *out);
    for (unsigned sign = 0; sign <= 0x8000; sign += 0x8000)
        for (unsigned code = 0; code < infinity_of(type); code++) {
            double low = value_of(type, sign | code), high = value_of(type, sign | (code + 1));
            float middle = (float)(low / 2 + high / 2);
            unsigned nearest[] = {code, code + (code & 1), code, code + 1};
            float inputs[] = {(float)low, middle, nextafterf(middle, (float)low),
                              nextafterf(middle, sign ? -INFINITY : INFINITY)};
            for (int k = 0; k < 4; k++) {
                in[at] = inputs[k];
                wanted[at++] = (uint16_t)(sign | nearest[k]);
            }
        }
    tested->from_f32(out, type, in, n);
    for (int i = 0; i < n; i++)
        if (out[i] != wanted[i])
            fail_msg("%s: %a to %s is %04x, wants %04x", tested->name, in[i], dtype_name(type), out[i],
                     wanted[i]);
    free(in), free(wanted), free(out);
}

static void test_from_f32(void) {
    static const float special[] = {INFINITY, -INFINITY, 0x1.fffffep127f, 0x1p-149f, -0.0f, 1, NAN, -2, 3,
                                    NAN,      5};
    for
        EACH(t, float_types) {
            dtype type = float_types[t];
            if (type == DTYPE_F32) continue;
            check_from_f32(type);
            unsigned inf = infinity_of(type);
            uint16_t *out = get_memory(COUNT(special) * sizeof *out); /* 8 and a tail */
            tested->from_f32(out, type, special, COUNT(special));
            assert_int_equal(out[0], inf);
            assert_int_equal(out[1], 0x8000 | inf);
            assert_int_equal(out[2], inf);
            assert_int_equal(out[3], 0);
            assert_int_equal(out[4], 0x8000);
            assert_true((out[6] & 0x7fff) > inf && (out[9] & 0x7fff) > inf);
            for (int i = 5; i < 11; i++)
                if (!isnan(special[i])) assert_true(value_of(type, out[i]) == special[i]);
            free(out);
        }
    float in[9], out[9];
    for (int i = 0; i < 9; i++) in[i] = uniform();
    tested->from_f32(out, DTYPE_F32, in, 9);
    assert_memory_equal(out, in, sizeof in);
}

/* ---- functions of vectors ---- */

/* The sum has positive terms only, so the whole is good to some roundings: 2e-6 are 32 of them. */
static void check_rms_norm(int64_t n, float size, bool weighted, float eps) {
    float *x = get_floats(n), *w = weighted ? get_floats(n) : NULL, *out = get_marks(n);
    double squares = 0;
    for (int64_t i = 0; i < n; i++) {
        x[i] *= size;
        squares += (double)x[i] * x[i];
    }
    tested->rms_norm(out, x, w, n, eps);
    for (int64_t i = 0; i < n; i++) {
        double wanted = x[i] / sqrt(squares / (double)n + eps) * (w ? w[i] : 1);
        check_near(out[i], wanted, 2e-6 * fabs(wanted), "rms_norm", i);
    }
    tested->rms_norm(x, x, w, n, eps);
    assert_memory_equal(x, out, (size_t)n * sizeof *x);
    free(x), free(w), free(out);
}

static void test_rms_norm(void) {
    static const int lengths[] = {1, 7, 8, 9, 33, 576, 4097};
    for
        EACH(n, lengths)
    for (int weighted = 0; weighted < 2; weighted++) {
        check_rms_norm(lengths[n], 1, weighted, 1e-6f);
        check_rms_norm(lengths[n], 1e-3f, weighted, 1e-5f);
        check_rms_norm(lengths[n], 1e4f, weighted, 1e-5f);
        check_rms_norm(lengths[n], 0, weighted, 1e-6f);
    }
}

/* The mean is off by roundings of itself and of the row's spread, each result by its own. */
static void check_layer_norm(int64_t n, float size, float middle, bool weighted) {
    float *x = get_floats(n), *out = get_marks(n), eps = 1e-5f;
    float *w = weighted ? get_floats(n) : NULL, *bias = weighted ? get_floats(n) : NULL;
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < n; i++) x[i] = x[i] * size + middle, mean += x[i] / (double)n;
    for (int64_t i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean) / (double)n;
    tested->layer_norm(out, x, w, bias, n, eps);
    for (int64_t i = 0; i < n; i++) {
        double factor = (w ? w[i] : 1) / sqrt(variance + eps);
        double wanted = (x[i] - mean) * factor + (bias ? bias[i] : 0);
        double off = fabs(factor) * (fabs(mean) * 0x1p-23 + size * 0x1p-24 + fabs(x[i] - mean) * 1e-6);
        check_near(out[i], wanted, off + fabs(wanted) * 0x1p-23, "layer_norm", i);
    }
    tested->layer_norm(x, x, w, bias, n, eps);
    assert_memory_equal(x, out, (size_t)n * sizeof *x);
    free(x), free(w), free(bias), free(out);
}

static void test_layer_norm(void) {
    static const int lengths[] = {1, 7, 8, 9, 33, 576, 4097};
    for
        EACH(n, lengths)
    for (int weighted = 0; weighted < 2; weighted++) {
        check_layer_norm(lengths[n], 1, 0, weighted);
        check_layer_norm(lengths[n], 1e-2f, 1, weighted);
        check_layer_norm(lengths[n], 1, -1000, weighted);
        check_layer_norm(lengths[n], 1e4f, 1e6f, weighted);
        check_layer_norm(lengths[n], 0, 3, weighted);
    }
}

/* An error of u by some roundings changes exp(u) by that times u; and where exp(-u) is beyond F32
 * the result may be 0 instead of something below |x| 2^-127. Two roundings among subnormal numbers:
 * one step each. */
static void check_gated(activation act, const float *gate, const float *up, int64_t n) {
    float *out = get_marks(n), *copy = get_memory((size_t)n * sizeof *copy);
    tested->gated(out, act, gate, up, n);
    for (int64_t i = 0; i < n; i++) {
        double x = gate[i], u = x;
        if (act == ACT_GELU_TANH) u = 2 * sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x);
        double wanted = x / (1 + exp(-u)) * up[i];
        double relative = 1e-6 + (u < 0 && u > -100 ? -u * 6 * 0x1p-24 : 0);
        check_near(out[i], wanted, relative * fabs(wanted) + fabs(x * up[i]) * 0x1p-127 + 0x1p-148, "gated",
                   i);
    }
    memcpy(copy, gate, (size_t)n * sizeof *copy);
    tested->gated(copy, act, copy, up, n);
    assert_memory_equal(copy, out, (size_t)n * sizeof *copy);
    memcpy(copy, up, (size_t)n * sizeof *copy);
    tested->gated(copy, act, gate, copy, n);
    assert_memory_equal(copy, out, (size_t)n * sizeof *copy);
    free(out), free(copy);
}

static void test_gated(void) {
    static const float sizes[] = {0,     1e-40f, 1e-30f, 1e-10f, 1e-3f, .1f,  .5f,   1,     2,
                                  3,     5,      8,      10,     20,    50,   80,    87,    88,
                                  88.7f, 89,     100,    104,    200,   1e4f, 1e12f, 1e20f, 1e38f};
    enum { N = 2 * COUNT(sizes) };
    float extreme[N], ups[N];
    for (size_t i = 0; i < N; i++) {
        extreme[i] = i % 2 ? -sizes[i / 2] : sizes[i / 2];
        ups[i] = i % 3 ? .75f : -1;
    }
    for (activation act = ACT_SILU; act <= ACT_GELU_TANH; act++) {
        check_gated(act, extreme, ups, N);
        for (int64_t n = 0; n < 18; n++) {
            float *gate = get_floats(n), *up = get_floats(n);
            for (int64_t i = 0; i < n; i++) gate[i] *= 10;
            check_gated(act, gate, up, n);
            free(gate), free(up);
        }
        float special[] = {INFINITY, NAN}, one[] = {1, 1}, out[2];
        tested->gated(out, act, special, one, 2);
        assert_true(isinf(out[0]) && out[0] > 0 && isnan(out[1]));
    }
}

static void test_max(void) {
    for (int64_t n = 1; n < 40; n++) {
        float *x = get_floats(n);
        for (int64_t i = 0; i < n; i++) {
            float old = x[i];
            x[i] = 1.5f;
            assert_true(tested->max(x, n) == 1.5f);
            x[i] = old;
        }
        for (int64_t i = 0; i < n; i++) x[i] = -INFINITY;
        assert_true(tested->max(x, n) == -INFINITY);
        x[n - 1] = -1e30f;
        assert_true(tested->max(x, n) == -1e30f);
        free(x);
    }
    assert_true(tested->max(&mark, 0) == -INFINITY);
}

/* 1e-6, and below the normal numbers one step of the subnormal ones. The sum: n roundings of
 * positive terms.
 */
static void check_exp_sum(const float *x, int64_t n, float shift) {
    float *y = get_memory((size_t)n * sizeof *y);
    if (n) memcpy(y, x, (size_t)n * sizeof *y);
    double sum = tested->exp_sum(y, n, shift), wanted_sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double wanted = exp((double)(x[i] - shift));
        check_near(y[i], wanted, 1e-6 * wanted + 0x1p-149, "exp_sum", i);
        wanted_sum += y[i];
    }
    check_near(sum, wanted_sum, (double)n * 0x1p-24 * wanted_sum, "exp_sum: sum", n);
    free(y);
}

static void test_exp_sum(void) {
    float x[64];
    for (float first = -110; first < 80; first += 8) {
        for (int i = 0; i < 64; i++) x[i] = first + (float)i / 8 + uniform() / 16;
        check_exp_sum(x, 64, 0);
        check_exp_sum(x, 61, 7.25f);
    }
    static const float special[] = {-INFINITY, -200, 80,     88.7f,  -103.9f, -104,
                                    -87.34f,   0,    -1e30f, 1e-30f, -87.33f};
    for (size_t n = 0; n <= COUNT(special); n++) check_exp_sum(special, (int64_t)n, 0);
    float beyond[] = {89, 1e30f, NAN, INFINITY, 0, 0, 0, 0, 0};
    float infinite = tested->exp_sum(beyond, 2, 0);
    assert_true(isinf(infinite) && isinf(beyond[0]) && isinf(beyond[1]));
    assert_true(isnan(tested->exp_sum(beyond + 2, 7, 0)));
    float nothing[] = {-INFINITY, -INFINITY};
    assert_true(tested->exp_sum(nothing, 2, 0) == 0 && nothing[0] == 0 && nothing[1] == 0);
}

/* ---- not in the table ---- */

static void quantize_input(float x[128], dtype type) {
    uint32_t s = 12345, stored[128];
    for (int i = 0; i < 128; i++) {
        s = s * 1664525u + 1013904223u;
        float v = (float)(s >> 16) / 32768 - 1, of_group[] = {v, 1.5f + v / 2, 0, -3};
        x[i] = of_group[i / 32];
    }
    floats_to(stored, type, x, 128);
    floats_from(x, stored, type, 128);
}

static void test_quantize(void **state) {
    (void)state;
    for
        EACH(i, quantized) {
            const recorded *wanted = &quantized[i];
            int64_t n_groups = 128 / wanted->group_size;
            size_t n_words = 4 * (size_t)wanted->bits, n_scales = (size_t)n_groups;
            float x[128], found[4];
            uint32_t *words = get_memory(n_words * sizeof *words);
            void *scales = get_memory(n_scales * dtype_size(wanted->dtype));
            void *biases = get_memory(n_scales * dtype_size(wanted->dtype));
            quantize_input(x, wanted->dtype);
            quantize_row(words, scales, biases, wanted->dtype, x, 128, wanted->bits, wanted->group_size);
            assert_memory_equal(words, wanted->words, n_words * sizeof *words);
            floats_from(found, scales, wanted->dtype, n_groups);
            for (int64_t g = 0; g < n_groups; g++) assert_true(found[g] == wanted->scales[g]);
            floats_from(found, biases, wanted->dtype, n_groups);
            for (int64_t g = 0; g < n_groups; g++) assert_true(found[g] == wanted->biases[g]);
            free(words), free(scales), free(biases);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EACH_TABLE(test_to_f32),     ON_EACH_TABLE(test_from_f32),    ON_EACH_TABLE(test_rms_norm),
        ON_EACH_TABLE(test_layer_norm), ON_EACH_TABLE(test_gated),       ON_EACH_TABLE(test_max),
        ON_EACH_TABLE(test_exp_sum),    cmocka_unit_test(test_quantize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
