/* test_checkpoint.c - checkpoint folders: what is found in safetensors files, and what is refused.
 * Every file is built here, byte by byte, so that a broken one differs from a good one in one
 * place. */
#include "checkpoint/checkpoint.h"
#include "folder.h"

/* A file with that header and n bytes of data, each its own offset modulo 251. length 0: the
 * header's. */
static void write_safetensors(const char *name, const char *header, size_t n, uint64_t length) {
    size_t used = strlen(header), size = 8 + used + n;
    if (!length) length = used;
    unsigned char *bytes = malloc(size);
    assert_non_null(bytes);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, used);
    for (size_t i = 0; i < n; i++) bytes[8 + used + i] = (unsigned char)(i % 251);
    write_file(name, bytes, size);
    free(bytes);
}

static checkpoint *open_folder(const char *config, const char *header, size_t n) {
    write_text("config.json", config);
    write_safetensors("model.safetensors", header, n, 0);
    return checkpoint_open(folder, 0);
}

static void assert_refused(const char *config, const char *header, size_t n, const char *message) {
    error_clear();
    checkpoint *c = open_folder(config, header, n);
    if (c) fail_msg("opened; expected: %s", message);
    assert_message(message);
}

static const int64_t two_by_four[] = {2, 4}, four_by_two[] = {4, 2}, four[] = {4};

/* ---- what is found ---- */

static void test_plain(void **state) {
    (void)state;
    checkpoint *c =
        open_folder("{\"eos_token_id\": [2, 3]}",
                    "{\"__metadata__\": {\"format\": \"mlx\"},"
                    " \"a.weight\": {\"dtype\": \"F32\", \"shape\": [2, 4], \"data_offsets\": [0, 32]},"
                    " \"b.weight\": {\"dtype\": \"BF16\", \"shape\": [4], \"data_offsets\": [32, 40]}} ",
                    40);
    assert_non_null(c);
    assert_true(checkpoint_has(c, "a.weight"));
    assert_false(checkpoint_has(c, "a"));
    matrix a, b;
    assert_int_equal(checkpoint_matrix(c, "a", 2, two_by_four, &a), 0);
    assert_int_equal(a.bits, 0);
    assert_int_equal(a.values.dtype, DTYPE_F32);
    assert_int_equal(a.shape[1], 4);
    const unsigned char *bytes = a.values.data; /* wherever the header ended, the floats can be read */
    for (int i = 0; i < 32; i++) assert_int_equal(bytes[i], i);
    assert_int_equal(checkpoint_check_all_used(c), -1);
    assert_message("surplus tensor \"b.weight\" [4]");
    assert_int_equal(checkpoint_plain(c, "b.weight", 1, four, &b), 0);
    assert_int_equal(*(const unsigned char *)b.values.data, 32);
    assert_int_equal(checkpoint_check_all_used(c), 0);
    assert_int_equal(checkpoint_parameters(c), 12);
    assert_int_equal(checkpoint_bytes(c), 40);
    assert_string_equal(checkpoint_quantization(c), "f32");
    assert_string_equal(checkpoint_folder(c), folder);
    int32_t ids[4];
    assert_int_equal(checkpoint_eos_ids(c, ids, 4), 2);
    assert_int_equal(ids[1], 3);
    checkpoint_close(c);
}

/* MLX does not pad its headers: the data is used where it is, without a copy. */
static void test_odd_addresses(void **state) {
    (void)state;
    char header[256] = "{\"a.weight\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[0,8]}}";
    for (int spaces = 0; spaces < 4; spaces++) {
        checkpoint *c = open_folder("{}", header, 8);
        matrix m;
        assert_non_null(c);
        assert_int_equal(checkpoint_plain(c, "a.weight", 1, four, &m), 0);
        assert_memory_equal(m.values.data, "\0\1\2\3\4\5\6\7", 8);
        checkpoint_close(c);
        strcat(header, " ");
    }
}

static void test_wrong_shape_and_type(void **state) {
    (void)state;
    checkpoint *c =
        open_folder("{}",
                    "{\"a.weight\": {\"dtype\": \"F32\", \"shape\": [2, 4], \"data_offsets\": [0, 32]},"
                    " \"i.weight\": {\"dtype\": \"I64\", \"shape\": [4], \"data_offsets\": [32, 64]},"
                    " \"n.weight\": {\"dtype\": \"F4\", \"shape\": [4], \"data_offsets\": [64, 66]}}",
                    66);
    assert_non_null(c);
    matrix m;
    assert_int_equal(checkpoint_matrix(c, "a", 2, four_by_two, &m), -1);
    assert_message("tensor \"a.weight\": wanted shape [4, 2], found [2, 4]");
    assert_int_equal(checkpoint_plain(c, "i.weight", 1, four, &m), -1);
    assert_message("tensor \"i.weight\" [4]: wanted type F32, F16 or BF16, found I64");
    assert_int_equal(checkpoint_plain(c, "n.weight", 1, four, &m), -1);
    assert_message("found F4");
    assert_int_equal(checkpoint_plain(c, "none.weight", 1, four, &m), -1);
    assert_message("tensor \"none.weight\" is missing (wanted shape [4])");
    assert_int_equal(checkpoint_ignore(c, ".weight"), 0);
    assert_int_equal(checkpoint_check_all_used(c), 0);
    checkpoint_close(c);
}

/* ---- quantization ---- */

/* Module q: 64 inputs in groups of 32, 4 bits: 8 words and 2 groups a row. */
static const char quantized[] =
    "{\"q.weight\": {\"dtype\": \"U32\", \"shape\": [2, 8], \"data_offsets\": [0, 64]},"
    " \"q.scales\": {\"dtype\": \"F16\", \"shape\": [2, 2], \"data_offsets\": [64, 72]},"
    " \"q.biases\": {\"dtype\": \"F16\", \"shape\": [2, 2], \"data_offsets\": [72, 80]}}";

static int take_q(const char *config, const char *header, int64_t in, matrix *m) {
    checkpoint *c = open_folder(config, header, 80);
    assert_non_null(c);
    int status = checkpoint_matrix(c, "q", 2, (int64_t[]){2, in}, m);
    if (!status) assert_int_equal(checkpoint_check_all_used(c), 0);
    checkpoint_close(c);
    return status;
}

static void test_bits_are_inferred(void **state) {
    (void)state;
    matrix m;
    assert_int_equal(take_q("{\"quantization\": {\"bits\": 8, \"group_size\": 64}}", quantized, 64, &m), 0);
    assert_int_equal(m.bits, 4);
    assert_int_equal(m.group_size, 32);
    assert_int_equal(m.shape[1], 64);
    assert_int_equal(matrix_dtype(&m), DTYPE_F16);
    assert_int_equal(take_q("{}", quantized, 128, &m), 0); /* the same bytes, read as 2 bits */
    assert_int_equal(m.bits, 2);
    assert_int_equal(m.group_size, 64);
}

static void test_all_bits_and_groups(void **state) {
    (void)state;
    static const int bits[] = {2, 3, 4, 5, 6, 8}, groups[] = {32, 64, 128};
    for (int b = 0; b < 6; b++)
        for (int g = 0; g < 3; g++) {
            char header[512];
            int words = 128 * bits[b] / 32, cols = 128 / groups[g], w = words * 4, s = cols * 4;
            snprintf(header, sizeof header,
                     "{\"q.weight\":{\"dtype\":\"U32\",\"shape\":[1,%d],\"data_offsets\":[0,%d]},"
                     "\"q.scales\":{\"dtype\":\"F32\",\"shape\":[1,%d],\"data_offsets\":[%d,%d]},"
                     "\"q.biases\":{\"dtype\":\"F32\",\"shape\":[1,%d],\"data_offsets\":[%d,%d]}}",
                     words, w, cols, w, w + s, cols, w + s, w + 2 * s);
            checkpoint *c = open_folder("{}", header, (size_t)(w + 2 * s));
            matrix m;
            char expected[32];
            assert_non_null(c);
            assert_int_equal(checkpoint_matrix(c, "q", 2, (int64_t[]){1, 128}, &m), 0);
            assert_int_equal(m.bits, bits[b]);
            assert_int_equal(m.group_size, groups[g]);
            snprintf(expected, sizeof expected, "%d-bit g%d", bits[b], groups[g]);
            assert_string_equal(checkpoint_quantization(c), expected);
            checkpoint_close(c);
        }
}

static void test_overrides(void **state) {
    (void)state;
    matrix m;
    assert_int_equal(
        take_q("{\"quantization\": {\"q\": {\"bits\": 4, \"group_size\": 32}}}", quantized, 64, &m), 0);
    assert_int_equal(take_q("{\"quantization\": {\"q\": {\"bits\": 4, \"group_size\": 32}},"
                            " \"quantization_config\": {\"quant_method\": \"awq\"}}",
                            quantized, 64, &m),
                     0);
    assert_int_equal(
        take_q("{\"quantization\": {\"q\": {\"bits\": 8, \"group_size\": 32}}}", quantized, 64, &m), -1);
    assert_message(
        "module q should have 8 bits in groups of 32, but its tensors have 4 bits in groups of 32");
    assert_int_equal(take_q("{\"quantization\": {\"q\": false}}", quantized, 64, &m), -1);
    assert_message("\"q.weight\": wanted shape [2, 64], found [2, 8]");
    assert_int_equal(take_q("{\"quantization\": {\"q\": {\"mode\": \"mxfp4\"}}}", quantized, 64, &m), -1);
    assert_message("module q should be quantized in mode mxfp4, but its tensors are affine");
    assert_int_equal(take_q("{\"quantization\": {\"q\": 4}}", quantized, 64, &m), -1);
    assert_message("\"q\"");
    assert_int_equal(
        take_q("{\"quantization\": {\"q\": {\"bits\": 4}}}",
               "{\"q.weight\": {\"dtype\": \"F32\", \"shape\": [2, 4], \"data_offsets\": [0, 32]}}", 4, &m),
        -1);
    assert_message("tensor \"q.scales\" is missing");
}

static int take_fp(const char *config, matrix_kind kind, int64_t in, matrix *out) {
    char header[512];
    int w = (int)in * matrix_kind_bits(kind) / 8, s = (int)in / matrix_kind_group_size(kind);
    snprintf(header, sizeof header,
             "{\"q.weight\":{\"dtype\":\"U32\",\"shape\":[1,%d],\"data_offsets\":[0,%d]},"
             "\"q.scales\":{\"dtype\":\"U8\",\"shape\":[1,%d],\"data_offsets\":[%d,%d]}}",
             w / 4, w, s, w, w + s);
    checkpoint *c = open_folder(config, header, (size_t)(w + s));
    if (!c) return -1;
    int status = checkpoint_matrix(c, "q", 2, (int64_t[]){1, in}, out);
    if (!status) assert_string_equal(checkpoint_quantization(c), matrix_kind_name(kind));
    checkpoint_close(c);
    return status;
}

static void test_scales_of_one_byte(void **state) {
    (void)state;
    matrix m;
    for (matrix_kind kind = MATRIX_MXFP4; kind < N_MATRIX_KINDS; kind++) {
        assert_int_equal(take_fp("{}", kind, 64, &m), 0);
        assert_int_equal(m.kind, kind);
        assert_int_equal(m.bits, matrix_kind_bits(kind));
        assert_int_equal(m.group_size, matrix_kind_group_size(kind));
        assert_int_equal(matrix_bytes(&m), 64 * m.bits / 8 + 64 / m.group_size);
    }
    assert_int_equal(
        take_fp("{\"quantization\": {\"bits\": 4, \"q\": {\"mode\": \"mxfp4\"}}}", MATRIX_MXFP4, 64, &m), 0);
    assert_int_equal(
        take_fp("{\"quantization\": {\"q\": {\"bits\": 4, \"group_size\": 32}}}", MATRIX_MXFP4, 64, &m), -1);
    assert_message("module q should be quantized in mode affine, but its tensors are mxfp4");
    assert_int_equal(
        take_fp("{\"quantization\": {\"q\": {\"mode\": \"nvfp4\", \"bits\": 8}}}", MATRIX_NVFP4, 64, &m), -1);
    assert_message("should have 8 bits in groups of 16, but its tensors have 4 bits in groups of 16");
    assert_int_equal(take_q("{}",
                            "{\"q.weight\":{\"dtype\":\"U32\",\"shape\":[2,8],\"data_offsets\":[0,64]},"
                            "\"q.scales\":{\"dtype\":\"U8\",\"shape\":[2,1],\"data_offsets\":[64,66]}}",
                            64, &m),
                     -1);
    assert_message("U32 [2, 8] with scales U8 [2, 1] and no biases, which is no quantization of it");
}

static void test_no_affine_quantization(void **state) {
    (void)state;
    matrix m;
    assert_int_equal(take_q("{}", quantized, 60, &m), -1);
    assert_message("q.weight: wanted shape [2, 60], found U32 [2, 8] with scales F16 [2, 2]");
    assert_int_equal(take_q("{}", quantized, 32, &m), -1); /* 8 bits, but groups of 16 */
    assert_message("no quantization of it");
    char header[512];
    snprintf(header, sizeof header, "%s", quantized);
    memcpy(strstr(header, "[72, 80]") - strlen("\"F16\", \"shape\": [2, 2], \"data_offsets\": "), "\"U16\"",
           5);
    assert_int_equal(take_q("{}", header, 64, &m), -1); /* biases of another type than the scales */
    assert_message("biases other");
    *strstr(header, "q.biases") = 'x';
    assert_int_equal(take_q("{}", header, 64, &m), -1);
    assert_message("tensor \"q.biases\" is missing");
}

static void test_experts_are_stacked(void **state) {
    (void)state;
    const int64_t shape[] = {3, 1, 4}, too_many[] = {4, 1, 4};
    char header[1024] = "{";
    for (int e = 0; e < 3; e++) /* the last expert first */
        snprintf(header + strlen(header), sizeof header - strlen(header),
                 "%s\"l.mlp.experts.%d.up_proj.weight\": {\"dtype\": \"F32\", \"shape\": [1, 4],"
                 " \"data_offsets\": [%d, %d]}",
                 e ? "," : "", e, 32 - 16 * e, 48 - 16 * e);
    strcat(header, "}");
    checkpoint *c = open_folder("{}", header, 48);
    assert_non_null(c);
    matrix m;
    assert_int_equal(checkpoint_matrix(c, "l.mlp.switch_mlp.up_proj", 3, too_many, &m), -1);
    assert_message("tensor \"l.mlp.experts.3.up_proj.weight\" is missing");
    assert_int_equal(checkpoint_matrix(c, "l.mlp.switch_mlp.down_proj", 3, shape, &m), -1);
    assert_message("tensor \"l.mlp.switch_mlp.down_proj.weight\" is missing");
    checkpoint_close(c);

    c = checkpoint_open(folder, 0);
    assert_non_null(c);
    assert_int_equal(checkpoint_matrix(c, "l.mlp.switch_mlp.up_proj", 3, shape, &m), 0);
    const unsigned char *bytes = m.values.data;
    for (int e = 0; e < 3; e++) assert_int_equal(bytes[16 * e], 32 - 16 * e);
    assert_int_equal(checkpoint_check_all_used(c), 0);
    assert_int_equal(checkpoint_parameters(c), 12);
    checkpoint_close(c);
}

static void test_quantized_experts_are_stacked(void **state) {
    (void)state;
    static const char *const parts[] = {"weight", "scales", "biases"}, *const types[] = {"U32", "BF16",
                                                                                         "BF16"};
    static const int sizes[] = {64, 8, 8}, cols[] = {8, 2, 2};
    char header[2048] = "{";
    int at = 0;
    for (int e = 0; e < 2; e++)
        for (int p = 0; p < 3; p++, at += sizes[p - 1])
            snprintf(header + strlen(header), sizeof header - strlen(header),
                     "%s\"l.mlp.experts.%d.up_proj.%s\": {\"dtype\": \"%s\", \"shape\": [2, %d],"
                     " \"data_offsets\": [%d, %d]}",
                     at ? "," : "", e, parts[p], types[p], cols[p], at, at + sizes[p]);
    strcat(header, "}");
    checkpoint *c = open_folder("{}", header, 160);
    assert_non_null(c);
    matrix m;
    assert_int_equal(checkpoint_matrix(c, "l.mlp.switch_mlp.up_proj", 3, (int64_t[]){2, 2, 64}, &m), 0);
    assert_int_equal(m.bits, 4);
    assert_int_equal(m.group_size, 32);
    assert_int_equal(((const unsigned char *)m.values.data)[64], 80);
    assert_int_equal(((const unsigned char *)m.scales.data)[8], 144);
    assert_int_equal(((const unsigned char *)m.biases.data)[8], 152);
    assert_int_equal(checkpoint_check_all_used(c), 0);
    assert_int_equal(checkpoint_bytes(c), 160);
    checkpoint_close(c);
}

/* ---- configuration ---- */

static const char one[] = "{\"a\": {\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [0, 16]}}";

static void test_generation_config_wins(void **state) {
    (void)state;
    int32_t ids[2];
    write_text("generation_config.json", "{\"eos_token_id\": 7}");
    checkpoint *c = open_folder("{\"eos_token_id\": [2, 3]}", one, 16);
    assert_non_null(c);
    assert_int_equal(checkpoint_eos_ids(c, ids, 2), 1);
    assert_int_equal(ids[0], 7);
    checkpoint_close(c);
    write_text("generation_config.json", "{\"eos_token_id\": \"x\"}");
    assert_refused("{}", one, 16, "generation_config.json: \"eos_token_id\"");
}

static void test_bad_config(void **state) {
    (void)state;
    assert_null(checkpoint_open(folder, 0));
    assert_message("config.json: No such file");
    assert_refused("{\"a\": ", one, 16, "config.json: not valid JSON");
    assert_refused("[1]", one, 16, "config.json: not a JSON object");
    assert_refused("{\"model_file\": \"x.py\"}", one, 16, "model_file");
    assert_refused("{\"quantization\": 4}", one, 16, "\"quantization\" is not an object");
    assert_refused("{\"quantization_config\": {\"quant_method\": \"hqq\"}}", one, 16,
                   "quant_method \"hqq\" is not supported");
    assert_refused("{\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 3}}", one, 16,
                   "gptq weights of 3 bits are not supported");
    assert_refused("{\"eos_token_id\": 1.5}", one, 16, "eos_token_id");
    assert_refused("{\"eos_token_id\": -1}", one, 16, "eos_token_id");
    assert_refused("{\"eos_token_id\": [1, 1e99]}", one, 16, "eos_token_id");
}

/* ---- broken safetensors ---- */

static void test_bad_header(void **state) {
    (void)state;
    write_text("config.json", "{}");
    assert_null(checkpoint_open(folder, 0));
    assert_message("no model*.safetensors");
    write_text("model.safetensors", "\1\0\0");
    assert_null(checkpoint_open(folder, 0));
    assert_message("truncated");
    static const uint64_t lengths[] = {1000, 81, (uint64_t)1 << 40, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        write_safetensors("model.safetensors", one, 16, lengths[i]);
        error_clear();
        assert_null(checkpoint_open(folder, 0));
        assert_message("the header should have");
    }
    assert_refused("{}", "{\"a\"", 16, "model.safetensors: not valid JSON");
    assert_refused("{}", "[]", 16, "the header is not a JSON object");
}

static void test_bad_entries(void **state) {
    (void)state;
    static const struct {
        const char *entry, *message;
    } bad[] = {
        {"4", "tensor \"a\" has no dtype"},
        {"{\"dtype\": \"F32\", \"data_offsets\": [0, 16]}", "has no shape"},
        {"{\"dtype\": \"F32\", \"shape\": [4]}", "no valid data_offsets"},
        {"{\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [0]}", "no valid data_offsets"},
        {"{\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [16, 0]}", "no valid data_offsets"},
        {"{\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [-16, 0]}", "no valid data_offsets"},
        {"{\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [0, 1e300]}", "no valid data_offsets"},
        {"{\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [8, 24]}", "outside the 16 bytes of data"},
        {"{\"dtype\": \"F32\", \"shape\": [5], \"data_offsets\": [0, 16]}", "does not fit its shape"},
        {"{\"dtype\": \"BF16\", \"shape\": [4], \"data_offsets\": [0, 16]}", "does not fit its shape"},
        {"{\"dtype\": \"F32\", \"shape\": [-4], \"data_offsets\": [0, 16]}", "absurd shape"},
        {"{\"dtype\": \"F32\", \"shape\": [4294967296, 4294967296], \"data_offsets\": [0, 16]}",
         "absurd shape"},
        {"{\"dtype\": \"F32\", \"shape\": [4503599627370496, 4503599627370496, 0], \"data_offsets\": [0, 0]}",
         "absurd shape"},
        {"{\"dtype\": \"F32\", \"shape\": [4611686018427387905], \"data_offsets\": [0, 16]}", "absurd shape"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char header[512];
        snprintf(header, sizeof header, "{\"a\": %s}", bad[i].entry);
        assert_refused("{}", header, 16, bad[i].message);
    }
}

static void test_overlap_and_duplicates(void **state) {
    (void)state;
    assert_refused("{}",
                   "{\"a\": {\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [0, 16]},"
                   " \"b\": {\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [12, 28]}}",
                   28, "tensors \"a\" and \"b\" overlap");
    write_safetensors("model-2.safetensors", one, 16, 0);
    assert_refused("{}", one, 16, "tensor \"a\" is there twice");
}

static void test_shards(void **state) {
    (void)state;
    write_safetensors("model-00002-of-00002.safetensors",
                      "{\"b\": {\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [0, 16]}}", 16, 0);
    write_text("other.safetensors", "not a shard");
    write_text("model.safetensors.index.json", "{\"weight_map\": {\"a\": \"model.safetensors\","
                                               " \"b\": \"model-00002-of-00002.safetensors\"}}");
    checkpoint *c = open_folder("{}", one, 16);
    assert_non_null(c);
    assert_true(checkpoint_has(c, "a") && checkpoint_has(c, "b"));
    checkpoint_close(c);
    assert_int_equal(unlink(in_folder("model-00002-of-00002.safetensors")), 0);
    assert_refused("{}", one, 16, "shard model-00002-of-00002.safetensors is missing");
    write_text("model.safetensors.index.json", "{\"weight_map\": {\"a\": 3}}");
    assert_refused("{}", one, 16, "\"weight_map\" names no file");
}

/* A cut anywhere gives an error with a message, whatever it cuts through. */
static void test_truncated_anywhere(void **state) {
    (void)state;
    char bytes[512];
    write_text("config.json", "{}");
    write_safetensors("model.safetensors", one, 16, 0);
    FILE *file = fopen(in_folder("model.safetensors"), "rb");
    assert_non_null(file);
    size_t n = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    for (size_t cut = 0; cut < n; cut++) {
        write_file("model.safetensors", bytes, cut);
        error_clear();
        assert_null(checkpoint_open(folder, 0));
        assert_message("model.safetensors");
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, new_folder, drop_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_plain),
        TEST(test_odd_addresses),
        TEST(test_wrong_shape_and_type),
        TEST(test_bits_are_inferred),
        TEST(test_all_bits_and_groups),
        TEST(test_overrides),
        TEST(test_scales_of_one_byte),
        TEST(test_no_affine_quantization),
        TEST(test_experts_are_stacked),
        TEST(test_quantized_experts_are_stacked),
        TEST(test_generation_config_wins),
        TEST(test_bad_config),
        TEST(test_bad_header),
        TEST(test_bad_entries),
        TEST(test_overlap_and_duplicates),
        TEST(test_shards),
        TEST(test_truncated_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
