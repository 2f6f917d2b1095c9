/* test_synthetic.c - synthetic checkpoints: presets, what their suffixes ask for, and the random
 * weights. Weights must be repeatable, look like a model's, and never exceed the memory there
 * is. */
#include "checkpoint/checkpoint.h"
#include "folder.h"

#include <math.h>

static const int64_t shape[] = {256, 512};

/* Values of row r as floats. */
static void dequantize(const matrix *m, int64_t r, float *out) {
    int64_t in = m->shape[1], groups = in / (m->bits ? m->group_size : in);
    if (!m->bits) {
        const char *row = (const char *)m->values.data + (size_t)(r * in) * dtype_size(m->values.dtype);
        floats_from(out, row, m->values.dtype, in);
        return;
    }
    float scales[64], biases[64];
    size_t offset = (size_t)(r * groups) * dtype_size(m->scales.dtype);
    floats_from(scales, (const char *)m->scales.data + offset, m->scales.dtype, groups);
    floats_from(biases, (const char *)m->biases.data + offset, m->biases.dtype, groups);
    const uint32_t *words = (const uint32_t *)m->values.data + r * m->values.shape[1];
    for (int64_t i = 0; i < in; i++) {
        unsigned q = 0;
        for (int b = 0; b < m->bits; b++) {
            int64_t bit = i * m->bits + b;
            q |= (words[bit / 32] >> bit % 32 & 1) << b;
        }
        out[i] = scales[i / m->group_size] * (float)q + biases[i / m->group_size];
    }
}

static checkpoint *open_preset(const char *name) {
    checkpoint *c = checkpoint_open(name, 42);
    if (!c) fail_msg("%s: %s", name, error_message());
    return c;
}

static void test_formats(void **state) {
    (void)state;
    static const struct {
        const char *name, *text;
        int bits;
        dtype dtype;
    } formats[] = {
        {"synthetic:llama-3.2-1b-4bit", "4-bit g64", 4, DTYPE_BF16},
        {"synthetic:llama-3.2-1b", "4-bit g64", 4, DTYPE_BF16},
        {"synthetic:llama-3.2-1b-8bit", "8-bit g64", 8, DTYPE_BF16},
        {"synthetic:llama-3.2-1b-2bit", "2-bit g64", 2, DTYPE_BF16},
        {"synthetic:llama-3.2-1b-3bit", "3-bit g64", 3, DTYPE_BF16},
        {"synthetic:llama-3.2-1b-5bit", "5-bit g64", 5, DTYPE_BF16},
        {"synthetic:llama-3.2-1b-6bit", "6-bit g64", 6, DTYPE_BF16},
        {"synthetic:llama-3.2-1b-bf16", "bf16", 0, DTYPE_BF16},
        {"synthetic:llama-3.2-1b-f16", "f16", 0, DTYPE_F16},
        {"synthetic:llama-3.2-1b-f32", "f32", 0, DTYPE_F32},
    };
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        checkpoint *c = open_preset(formats[f].name);
        matrix m;
        assert_int_equal(checkpoint_matrix(c, "model.layers.0.mlp.up_proj", 2, shape, &m), 0);
        assert_int_equal(m.bits, formats[f].bits);
        assert_int_equal(m.group_size, formats[f].bits ? 64 : 0);
        assert_int_equal(matrix_dtype(&m), formats[f].dtype);
        double sum = 0, squares = 0, largest = 0;
        for (int64_t r = 0; r < shape[0]; r++) {
            float row[512];
            dequantize(&m, r, row);
            for (int i = 0; i < 512; i++) {
                sum += row[i];
                squares += row[i] * row[i];
                if (fabs(row[i]) > largest) largest = fabs(row[i]);
            }
        }
        double n = 256 * 512;
        assert_true(fabs(sum / n) < 0.0005);
        assert_true(sqrt(squares / n) > 0.02 && sqrt(squares / n) < 0.035);
        assert_true(largest > 0.035 && largest < 0.055);
        assert_string_equal(checkpoint_quantization(c), formats[f].text);
        assert_int_equal(checkpoint_parameters(c), 256 * 512);
        const json *q = json_get(checkpoint_config(c), "quantization");
        assert_int_equal(json_number(json_get(q, "bits")), formats[f].bits);
        assert_int_equal(json_number(json_get(q, "group_size")), formats[f].bits ? 64 : 0);
        checkpoint_close(c);
    }
}

/* The same seed and name give the same weights, whatever was taken before; another one others. */
static void test_seed(void **state) {
    (void)state;
    checkpoint *a = open_preset("synthetic:qwen3-0.6b-4bit"), *b = open_preset("synthetic:qwen3-0.6b-4bit"),
               *other = checkpoint_open("synthetic:qwen3-0.6b-4bit", 43);
    matrix first, second, third, name;
    assert_non_null(other);
    assert_int_equal(checkpoint_matrix(b, "y", 2, shape, &name), 0);
    assert_int_equal(checkpoint_matrix(a, "x", 2, shape, &first), 0);
    assert_int_equal(checkpoint_matrix(b, "x", 2, shape, &second), 0);
    assert_int_equal(checkpoint_matrix(other, "x", 2, shape, &third), 0);
    size_t n = array_bytes(&first.values), s = array_bytes(&first.scales);
    assert_memory_equal(first.values.data, second.values.data, n);
    assert_memory_equal(first.scales.data, second.scales.data, s);
    assert_memory_equal(first.biases.data, second.biases.data, s);
    assert_memory_not_equal(first.values.data, third.values.data, n);
    assert_memory_not_equal(first.values.data, name.values.data, n);
    checkpoint_close(a);
    checkpoint_close(b);
    checkpoint_close(other);
}

static float mean(const matrix *m) {
    float values[512], sum = 0;
    floats_from(values, m->values.data, m->values.dtype, 512);
    for (int i = 0; i < 512; i++) sum += values[i];
    return sum / 512;
}

static void test_norms_and_biases(void **state) {
    (void)state;
    const int64_t n = 512;
    matrix m;
    checkpoint *c = open_preset("synthetic:qwen3-0.6b-4bit");
    assert_int_equal(checkpoint_norm(c, "model.layers.0.self_attn.q_norm.weight", n, 1, &m), 0);
    assert_float_equal(mean(&m), 1, 0.02);
    assert_int_equal(m.values.dtype, DTYPE_BF16);
    assert_int_equal(checkpoint_plain(c, "model.layers.0.self_attn.q_proj.bias", 1, &n, &m), 0);
    assert_float_equal(mean(&m), 0, 0.02);
    assert_false(checkpoint_has(c, "lm_head.weight"));
    assert_int_equal(checkpoint_check_all_used(c), 0);
    assert_true(checkpoint_is_synthetic(c));
    assert_null(checkpoint_folder(c));
    assert_null(checkpoint_vocab(c));
    checkpoint_close(c);
    c = open_preset("synthetic:gemma-3-1b-4bit"); /* its norms multiply by 1 + w */
    assert_int_equal(checkpoint_norm(c, "model.norm.weight", n, 0, &m), 0);
    assert_float_equal(mean(&m), 0, 0.02);
    checkpoint_close(c);
}

static void test_exceptions(void **state) {
    (void)state;
    checkpoint *c = open_preset("synthetic:qwen3-30b-a3b-4bit");
    matrix m;
    assert_int_equal(checkpoint_router(c, "model.layers.0.mlp.gate", shape[0], shape[1], &m), 0);
    assert_int_equal(m.bits, 8);
    assert_int_equal(checkpoint_matrix(c, "odd", 2, (int64_t[]){4, 96}, &m), 0); /* no whole groups */
    assert_int_equal(m.bits, 0);
    assert_int_equal(checkpoint_matrix(c, "l.mlp.switch_mlp.up_proj", 3, (int64_t[]){8, 64, 128}, &m), 0);
    assert_int_equal(m.rank, 3);
    assert_int_equal(m.values.shape[2], 16);
    assert_string_equal(checkpoint_quantization(c), "8-bit g64 + 4-bit g64 + bf16");
    checkpoint_close(c);
}

static void test_too_big(void **state) {
    (void)state;
    checkpoint *c = open_preset("synthetic:tiny-llama-13m-bf16");
    matrix m;
    assert_int_equal(checkpoint_matrix(c, "x", 2, (int64_t[]){1 << 28, 1 << 20}, &m), -1);
    assert_message("out of memory: x needs");
    assert_int_equal(checkpoint_matrix(c, "x", 2, (int64_t[]){INT64_MAX / 2, INT64_MAX / 2}, &m), -1);
    assert_message("absurd size of x");
    checkpoint_close(c);
}

static void test_unknown(void **state) {
    (void)state;
    static const char *const names[] = {"synthetic:none-4bit",
                                        "synthetic:none",
                                        "synthetic:",
                                        "synthetic:-4bit",
                                        "synthetic:llama-3.2-1b-7bit",
                                        "synthetic:../presets/llama-3.2-1b-4bit"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        error_clear();
        assert_null(checkpoint_open(names[i], 0));
        assert_message(names[i]);
        assert_message("llama-3.2-1b, llama-3.2-3b");
        assert_int_equal(error_exit_code(), EXIT_USAGE);
    }
}

/* ---- the presets themselves ---- */

static int check_preset(void *context, const char *name, const json *config) {
    ++*(int *)context;
    static const char *const fields[] = {
        "hidden_size",         "num_hidden_layers", "intermediate_size",      "num_attention_heads",
        "num_key_value_heads", "vocab_size",        "max_position_embeddings"};
    int64_t n;
    double eps;
    const char *type, *eps_key = json_get(config, "norm_eps")             ? "norm_eps"
                                 : json_get(config, "layer_norm_epsilon") ? "layer_norm_epsilon"
                                                                          : "rms_norm_eps";
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (json_get_int(config, name, fields[i], true, 1, 1 << 20, &n)) return -1;
    return json_get_float(config, name, eps_key, true, &eps) ||
                   json_get_string(config, name, "model_type", true, &type)
               ? -1
               : 0;
}

static void test_presets(void **state) {
    (void)state;
    int n = 0;
    if (checkpoint_presets(check_preset, &n)) fail_msg("%s", error_message());
    assert_in_range(n, 10, 1000);
}

static void test_broken_preset(void **state) {
    (void)state;
    make_folders("presets");
    write_text("presets/a.json", "{\"model_type\": ");
    write_text("presets/b.json", "");
    setenv("MLXBENCH_SHARE", folder, 1);
    assert_null(checkpoint_open("synthetic:a-4bit", 0));
    assert_message("a.json: not valid JSON");
    assert_null(checkpoint_open("synthetic:b-bf16", 0));
    assert_message("b.json: not valid JSON");
}

/* The presets of this source tree, wherever the test runs. */
static int use_presets(void **state) {
    setenv("MLXBENCH_SHARE", SOURCE_DIR "/share", 1);
    return new_folder(state);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, use_presets, drop_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_formats), TEST(test_seed),    TEST(test_norms_and_biases), TEST(test_exceptions),
        TEST(test_too_big), TEST(test_unknown), TEST(test_presets),          TEST(test_broken_preset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
