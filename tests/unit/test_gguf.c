/* test_gguf.c - GGUF files: configuration, names, vocabulary, repacking, and what is refused.
 * Files are written here value by value; a broken one differs from the good one in one place. */
#include "checkpoint/checkpoint.h"
#include "folder.h"
#include "gguf_writer.h"

/* ---- the good file ---- */

static void put_metadata(writer *w, const char *architecture) {
    static const struct {
        const char *name;
        uint32_t value;
    } numbers[] = {{"block_count", 1},          {"context_length", 512},     {"embedding_length", 32},
                   {"feed_forward_length", 64}, {"attention.head_count", 2}, {"attention.head_count_kv", 1}};
    char key[128];
    put_text(w, "general.architecture", architecture);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(key, sizeof key, "%s.%s", architecture, numbers[i].name);
        put_int(w, key, numbers[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", architecture);
    put_float(w, key, 1e-5f);
}

static void put_vocabulary(writer *w) {
    put_text(w, "tokenizer.ggml.model", "gpt2");
    put_text(w, "tokenizer.ggml.pre", "smollm");
    put_texts(w, "tokenizer.ggml.tokens", 3, (const char *const[]){"a", "b", "ab"});
    put_texts(w, "tokenizer.ggml.merges", 1, (const char *const[]){"a b"});
    put_int(w, "tokenizer.ggml.bos_token_id", 1);
    put_int(w, "tokenizer.ggml.eos_token_id", 2);
}

static void put_good(writer *w, const char *architecture) {
    put_metadata(w, architecture);
    put_tensor(w, "token_embd.weight", TENSOR_F32, 32, 3, 384);
}

static checkpoint *open_gguf(void) {
    error_clear();
    return checkpoint_open(in_folder("m.gguf"), 0);
}

/* ---- what is found ---- */

static void test_config(void **state) {
    (void)state;
    writer w = {0};
    put_good(&w, "llama");
    put_float(&w, "llama.rope.freq_base", 100000);
    put_vocabulary(&w);
    finish(&w);
    checkpoint *c = open_gguf();
    assert_non_null(c);
    const json *config = checkpoint_config(c);
    static const struct {
        const char *key;
        double value;
    } numbers[] = {{"hidden_size", 32},        {"num_hidden_layers", 1},   {"intermediate_size", 64},
                   {"num_attention_heads", 2}, {"num_key_value_heads", 1}, {"vocab_size", 3},
                   {"rope_theta", 100000},     {"bos_token_id", 1},        {"max_position_embeddings", 512}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        assert_true(json_number(json_get(config, numbers[i].key)) == numbers[i].value);
    assert_true((float)json_number(json_get(config, "rms_norm_eps")) == 1e-5f);
    assert_string_equal(json_string(json_get(config, "model_type")), "llama");
    assert_true(json_true(json_get(config, "tie_word_embeddings")));
    assert_null(json_get(config, "rope_scaling"));
    assert_null(json_get(config, "head_dim"));
    int32_t eos;
    assert_int_equal(checkpoint_eos_ids(c, &eos, 1), 1);
    assert_int_equal(eos, 2);
    assert_null(checkpoint_folder(c));

    const gguf_vocabulary *v = checkpoint_vocab(c);
    assert_non_null(v);
    assert_string_equal(v->model, "gpt2");
    assert_string_equal(v->pre, "smollm");
    assert_int_equal(v->n_tokens, 3);
    assert_string_equal(v->tokens[2], "ab");
    assert_string_equal(v->merges[0], "a b");
    assert_null(v->types);
    assert_int_equal(v->eos_id, 2);
    assert_false(v->add_bos);
    checkpoint_close(c);
}

static void test_names_and_experts(void **state) {
    (void)state;
    static const char *const names[][2] = {
        {"output.weight", "lm_head.weight"},
        {"output_norm.weight", "model.norm.weight"},
        {"blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"},
        {"blk.12.attn_q.weight", "model.layers.12.self_attn.q_proj.weight"},
        {"blk.0.attn_q.bias", "model.layers.0.self_attn.q_proj.bias"},
        {"blk.0.attn_k_norm.weight", "model.layers.0.self_attn.k_norm.weight"},
        {"blk.0.attn_output.weight", "model.layers.0.self_attn.o_proj.weight"},
        {"blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"},
        {"blk.0.ffn_gate_inp.weight", "model.layers.0.mlp.gate.weight"},
        {"blk.0.ffn_down_exps.weight", "model.layers.0.mlp.switch_mlp.down_proj.weight"},
        {"blk.0.unheard_of.weight", "blk.0.unheard_of.weight"},
        {"blk..attn_q.weight", "blk..attn_q.weight"},
    };
    enum { N = sizeof names / sizeof *names };
    writer w = {0};
    put_good(&w, "qwen3moe");
    put_int(&w, "qwen3moe.expert_count", 4);
    put_int(&w, "qwen3moe.expert_used_count", 2);
    put_int(&w, "qwen3moe.expert_feed_forward_length", 16);
    for (int i = 0; i < N; i++) put_tensor(&w, names[i][0], TENSOR_F32, 8, 0, 32);
    finish(&w);
    checkpoint *c = open_gguf();
    assert_non_null(c);
    for (int i = 0; i < N; i++)
        if (!checkpoint_has(c, names[i][1])) fail_msg("%s is not %s", names[i][0], names[i][1]);
    const json *config = checkpoint_config(c);
    assert_string_equal(json_string(json_get(config, "model_type")), "qwen3_moe");
    assert_int_equal(json_number(json_get(config, "num_experts")), 4);
    assert_int_equal(json_number(json_get(config, "moe_intermediate_size")), 16);
    assert_true(json_is_bool(json_get(config, "tie_word_embeddings")));
    assert_false(json_true(json_get(config, "tie_word_embeddings")));
    assert_null(checkpoint_vocab(c));
    assert_int_equal(checkpoint_check_all_used(c), -1);
    assert_message("surplus tensor");
    checkpoint_close(c);
}

static uint16_t half(const array *a, int i) {
    return ((const uint16_t *)a->data)[i];
}

/* Blocks of 32 values become groups of 32 with the same values: dequantized by both rules. */
static void test_repacking(void **state) {
    (void)state;
    static const struct {
        uint32_t type;
        int bits, block, header;
    } formats[] = {{TENSOR_Q8_0, 8, 34, 2}, {TENSOR_Q4_0, 4, 18, 2}, {TENSOR_Q4_1, 4, 20, 4}};
    for (int f = 0; f < 3; f++) {
        writer w = {0};
        put_good(&w, "qwen2");
        put_tensor(&w, "blk.0.attn_v.weight", formats[f].type, 64, 2, (size_t)formats[f].block * 4);
        finish(&w);
        checkpoint *c = open_gguf();
        assert_non_null(c);
        matrix m;
        assert_int_equal(checkpoint_matrix(c, "model.layers.0.self_attn.v_proj", 2, (int64_t[]){2, 64}, &m),
                         0);
        assert_int_equal(m.bits, formats[f].bits);
        assert_int_equal(m.group_size, 32);
        assert_int_equal(m.scales.dtype, DTYPE_F16);
        assert_int_equal(m.values.shape[1], 64 * m.bits / 32);
        const uint32_t *words = m.values.data;
        for (int i = 0; i < 128; i++) {
            int block = i / 32, at = i % 32, start = block * formats[f].block;
            unsigned char b[34];
            for (int k = 0; k < formats[f].block; k++) b[k] = (unsigned char)((start + k) % 251);
            uint16_t d, least;
            memcpy(&d, b, 2);
            memcpy(&least, b + 2, 2);
            float scale = f16_to_f32(d), expected;
            const unsigned char *q = b + formats[f].header;
            int nibble = at < 16 ? q[at] & 15 : q[at % 16] >> 4;
            if (formats[f].type == TENSOR_Q8_0)
                expected = scale * (float)(int8_t)q[at];
            else if (formats[f].type == TENSOR_Q4_0)
                expected = scale * (float)(nibble - 8);
            else
                expected = scale * (float)nibble + f16_to_f32(least);
            uint32_t word = words[i * m.bits / 32], packed = word >> i * m.bits % 32 & ((1u << m.bits) - 1);
            float found =
                f16_to_f32(half(&m.scales, block)) * (float)packed + f16_to_f32(half(&m.biases, block));
            assert_float_equal(found, expected, 1e-6);
        }
        assert_int_equal(checkpoint_parameters(c), 128);
        checkpoint_close(c);
    }
}

/* Who asks only whether a model loads gets the same shapes and counts, and nothing is converted. */
static void test_without_values(void **state) {
    (void)state;
    writer w = {0};
    put_good(&w, "qwen2");
    put_tensor(&w, "blk.0.attn_v.weight", TENSOR_Q8_0, 64, 2, 4 * 34);
    finish(&w);
    int64_t bytes[2];
    for (int skip = 0; skip < 2; skip++) {
        checkpoint *c = open_gguf();
        matrix m;
        assert_non_null(c);
        if (skip) checkpoint_skip_values(c);
        assert_int_equal(checkpoint_matrix(c, "model.layers.0.self_attn.v_proj", 2, (int64_t[]){2, 64}, &m),
                         0);
        assert_int_equal(m.bits, 8);
        assert_int_equal(checkpoint_parameters(c), 128);
        assert_true(skip == !*(const uint32_t *)m.values.data);
        bytes[skip] = checkpoint_bytes(c);
        checkpoint_close(c);
    }
    assert_int_equal(bytes[0], bytes[1]);
}

/* Two heads of four rows: llama.cpp has rows 0 2 1 3 of what mlx-lm has; norms and v stay. */
static void test_row_order(void **state) {
    (void)state;
    static const char *const architectures[] = {"llama", "qwen3"};
    static const int undone[] = {0, 2, 1, 3, 4, 6, 5, 7};
    for (int a = 0; a < 2; a++) {
        writer w = {0};
        put_good(&w, architectures[a]);
        put_tensor(&w, "blk.0.attn_q.weight", TENSOR_F32, 1, 8, 32);
        put_tensor(&w, "blk.0.attn_q.bias", TENSOR_F32, 8, 0, 32);
        put_tensor(&w, "blk.0.attn_v.weight", TENSOR_F32, 1, 8, 32);
        finish(&w);
        checkpoint *c = open_gguf();
        assert_non_null(c);
        matrix q, bias, v;
        const int64_t shape[] = {8, 1};
        assert_int_equal(checkpoint_matrix(c, "model.layers.0.self_attn.q_proj", 2, shape, &q), 0);
        assert_int_equal(checkpoint_plain(c, "model.layers.0.self_attn.q_proj.bias", 1, shape, &bias), 0);
        assert_int_equal(checkpoint_matrix(c, "model.layers.0.self_attn.v_proj", 2, shape, &v), 0);
        for (int r = 0; r < 8; r++) {
            int source = a ? r : undone[r];
            assert_int_equal(((const unsigned char *)q.values.data)[4 * r], 4 * source);
            assert_int_equal(((const unsigned char *)bias.values.data)[4 * r], 4 * source);
            assert_int_equal(((const unsigned char *)v.values.data)[4 * r], 4 * r);
        }
        checkpoint_close(c);
    }
}

static void test_rope_scaling(void **state) {
    (void)state;
    writer w = {0};
    put_good(&w, "llama");
    put_text(&w, "llama.rope.scaling.type", "linear");
    put_float(&w, "llama.rope.scaling.factor", 4);
    finish(&w);
    checkpoint *c = open_gguf();
    assert_non_null(c);
    const json *scaling = json_get(checkpoint_config(c), "rope_scaling");
    assert_string_equal(json_string(json_get(scaling, "rope_type")), "linear");
    assert_int_equal(json_number(json_get(scaling, "factor")), 4);
    checkpoint_close(c);

    w = (writer){0};
    put_good(&w, "llama");
    put_tensor(&w, "rope_freqs.weight", TENSOR_F32, 8, 0, 32);
    finish(&w);
    c = open_gguf();
    assert_non_null(c);
    scaling = json_get(checkpoint_config(c), "rope_scaling");
    assert_string_equal(json_string(json_get(scaling, "rope_type")), "gguf_factors");
    matrix m;
    assert_int_equal(checkpoint_plain(c, "rope_freqs.weight", 1, (int64_t[]){8}, &m), 0);
    checkpoint_close(c);

    w = (writer){0};
    put_good(&w, "llama");
    put_text(&w, "llama.rope.scaling.type", "yarn");
    finish(&w);
    assert_null(open_gguf());
    assert_message("RoPE scaling \"yarn\" is not supported");
}

static void test_taking_errors(void **state) {
    (void)state;
    writer w = {0};
    put_good(&w, "llama");
    put_tensor(&w, "blk.0.attn_q.weight", TENSOR_Q4_0, 32, 4, 72);
    put_tensor(&w, "blk.0.attn_k.weight", TENSOR_F32, 1, 3, 12); /* one head of an odd size */
    put_tensor(&w, "output_norm.weight", TENSOR_Q8_0, 32, 0, 34);
    finish(&w);
    checkpoint *c = open_gguf();
    assert_non_null(c);
    matrix m;
    assert_int_equal(checkpoint_matrix(c, "model.layers.0.self_attn.q_proj", 2, (int64_t[]){4, 64}, &m), -1);
    assert_message("m.gguf (blk.0.attn_q.weight): tensor \"model.layers.0.self_attn.q_proj.weight\": wanted "
                   "shape [4, 64], found [4, 32]");
    assert_int_equal(checkpoint_matrix(c, "model.layers.0.self_attn.k_proj", 2, (int64_t[]){3, 1}, &m), -1);
    assert_message("3 rows do not make 1 heads");
    assert_int_equal(checkpoint_plain(c, "model.norm.weight", 1, (int64_t[]){32}, &m), -1);
    assert_message("found Q8_0");
    checkpoint_close(c);
}

/* ---- broken files ---- */

/* Opens the good file with n bytes at an offset replaced. */
static void assert_patched(size_t at, const void *bytes, size_t n, const char *message) {
    writer w = {0};
    put_good(&w, "llama");
    finish(&w);
    FILE *file = fopen(in_folder("m.gguf"), "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
    assert_null(open_gguf());
    assert_message(message);
}

static void test_bad_header(void **state) {
    (void)state;
    static const uint64_t huge[] = {1000, (uint64_t)1 << 40, UINT64_MAX / 24 + 1, UINT64_MAX};
    assert_patched(0, "GGML", 4, "not a GGUF file");
    assert_patched(4, &(uint32_t){1}, 4, "GGUF version 1 is not supported");
    assert_patched(4, &(uint32_t){3u << 24}, 4, "is not supported"); /* a big-endian file */
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        assert_patched(8, &huge[i], 8, "tensors cannot be in a file of");
        assert_patched(16, &huge[i], 8, "metadata keys cannot be in a file of");
        assert_patched(24, &huge[i], 8, "runs past the end of the file");              /* the first key */
        assert_patched(24 + 8 + 20 + 4, &huge[i], 8, "runs past the end of the file"); /* and its value */
    }
    assert_patched(24 + 8 + 20, &(uint32_t){13}, 4, "unknown GGUF value type 13");
    write_text("m.gguf", "");
    assert_null(open_gguf());
    assert_message("not a GGUF file");
}

static void test_bad_arrays(void **state) {
    (void)state;
    static const uint64_t huge[] = {1000000, (uint64_t)1 << 61, UINT64_MAX};
    for (int strings = 0; strings < 2; strings++)
        for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
            writer w = {0};
            put_key(&w, "x", ARRAY);
            put_u32(&w.values, strings ? STRING : U64);
            put_u64(&w.values, huge[i]);
            put_good(&w, "llama");
            finish(&w);
            assert_null(open_gguf());
            assert_message("array elements cannot be in a file of");
        }
    writer w = {0};
    put_key(&w, "x", ARRAY);
    put_u32(&w.values, ARRAY);
    put_good(&w, "llama");
    finish(&w);
    assert_null(open_gguf());
    assert_message("nested arrays");
}

static void test_bad_metadata(void **state) {
    (void)state;
    static const struct {
        const char *key, *message;
    } missing[] = {{"llama.block_count", "\"llama.block_count\" is missing"},
                   {"llama.attention.head_count", "\"llama.attention.head_count\" is missing"},
                   {"general.architecture", "\"general.architecture\" is missing"}};
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++) {
        writer w = {0};
        put_good(&w, "llama");
        char *at = memmem(w.values.data, w.values.length, missing[i].key, strlen(missing[i].key));
        assert_non_null(at);
        *at = 'x';
        finish(&w);
        assert_null(open_gguf());
        assert_message(missing[i].message);
    }
    writer w = {0};
    put_good(&w, "gpt9");
    finish(&w);
    assert_null(open_gguf());
    assert_message("architecture \"gpt9\" is not supported (llama, qwen2, qwen3 and qwen3moe are)");

    w = (writer){0};
    put_int(&w, "llama.block_count", 0); /* the first of two wins */
    put_good(&w, "llama");
    finish(&w);
    assert_null(open_gguf());
    assert_message("\"llama.block_count\" is 0, outside 1 to");

    w = (writer){0};
    put_text(&w, "llama.block_count", "1");
    put_good(&w, "llama");
    finish(&w);
    assert_null(open_gguf());
    assert_message("\"llama.block_count\" is not one integer");

    w = (writer){0};
    put_int(&w, "tokenizer.ggml.bos_token_id", 3);
    put_good(&w, "llama");
    put_vocabulary(&w);
    finish(&w);
    assert_null(open_gguf());
    assert_message("bos_token_id\" is 3, outside 0 to 2");

    w = (writer){0};
    put_metadata(&w, "llama");
    finish(&w);
    assert_null(open_gguf());
    assert_message("tensor \"token_embd.weight\" is missing");
}

static void test_bad_tensors(void **state) {
    (void)state;
    static const struct {
        uint32_t type;
        uint64_t in, out;
        const char *message;
    } bad[] = {
        {TENSOR_Q3_K, 32, 2, "tensor \"t\" has type Q3_K, which is not supported"},
        {TENSOR_Q6_K, 32, 2, "rows of 32 values are no whole blocks of Q6_K"},
        {4, 32, 2, "tensor \"t\" has type number 4"},
        {UINT32_MAX, 32, 2, "tensor \"t\" has type number 4294967295"},
        {TENSOR_Q4_0, 33, 2, "no whole blocks of Q4_0"},
        {TENSOR_F32, 1000, 1000, "lies outside the file"},
        {TENSOR_F32, (uint64_t)1 << 62, 2, "absurd shape"},
        {TENSOR_F32, (uint64_t)1 << 62, 4, "absurd shape"},
        {TENSOR_F16, UINT64_MAX, 1, "absurd shape"},
        {TENSOR_F32, (uint64_t)1 << 40, (uint64_t)1 << 40, "absurd shape"},
        {TENSOR_Q4_0, (uint64_t)1 << 61, 0, "absurd shape"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        writer w = {0};
        put_good(&w, "llama");
        put_tensor(&w, "t", bad[i].type, bad[i].in, bad[i].out, 64);
        finish(&w);
        assert_null(open_gguf());
        assert_message(bad[i].message);
    }
}

static void test_bad_offsets(void **state) {
    (void)state;
    static const struct {
        uint64_t offset;
        const char *message;
    } bad[] = {{16, "not aligned to 32 bytes"},
               {352, "overlap"},
               {4096, "lies outside the file"},
               {UINT64_MAX - 31, "lies outside the file"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        writer w = {0};
        put_good(&w, "llama");
        put_tensor(&w, "t", TENSOR_F32, 8, 0, 32);
        memcpy(w.tensors.data + w.tensors.length - 8, &bad[i].offset, 8);
        finish(&w);
        assert_null(open_gguf());
        assert_message(bad[i].message);
    }
    writer w = {0};
    put_int(&w, "general.alignment", 0);
    put_good(&w, "llama");
    finish(&w);
    assert_null(open_gguf());
    assert_message("general.alignment");
}

static void test_truncated_anywhere(void **state) {
    (void)state;
    writer w = {0};
    put_good(&w, "llama");
    put_vocabulary(&w);
    finish(&w);
    static char bytes[4096];
    FILE *file = fopen(in_folder("m.gguf"), "rb");
    assert_non_null(file);
    size_t n = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    assert_in_range(n, 500, sizeof bytes - 1);
    for (size_t cut = 0; cut < n; cut++) {
        write_file("m.gguf", bytes, cut);
        assert_null(open_gguf());
        assert_message("m.gguf");
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, new_folder, drop_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_config),
        TEST(test_names_and_experts),
        TEST(test_repacking),
        TEST(test_without_values),
        TEST(test_row_order),
        TEST(test_rope_scaling),
        TEST(test_taking_errors),
        TEST(test_bad_header),
        TEST(test_bad_arrays),
        TEST(test_bad_metadata),
        TEST(test_bad_tensors),
        TEST(test_bad_offsets),
        TEST(test_truncated_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
