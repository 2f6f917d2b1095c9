/* test_tokenizer.c - what the comparison with Hugging Face tokenizers does not reach: malformed
 * files, GGUF vocabularies, streaming, UTF-8, limits on hostile patterns. */
#include "folder.h"
#include "text/text.h"
#include "text/utf8.h"

/* A tokenizer.json of this text, or NULL with the recorded error. */
static tokenizer *open_text(const char *text) {
    write_text("tokenizer.json", text);
    error_clear();
    return tokenizer_open(in_folder("tokenizer.json"));
}

static void expect_error(const char *text, const char *part) {
    tokenizer *t = open_text(text);
    if (t) fail_msg("accepted: %s", text);
    if (!strstr(error_message(), part)) fail_msg("%s gave: %s (wanted: %s)", text, error_message(), part);
}

static void expect_ids(const tokenizer *t, const char *text, bool special, int n, const int32_t *wanted) {
    token_ids ids = {0};
    assert_int_equal(tokenizer_encode(t, text, strlen(text), special, &ids), 0);
    assert_int_equal(ids.n, n);
    if (n) assert_memory_equal(ids.items, wanted, (size_t)n * sizeof *wanted);
    free(ids.items);
}
#define IDS(t, text, special, ...)                                                                           \
    expect_ids(t, text, special, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t), (int32_t[]){__VA_ARGS__})

/* ---- malformed files ---- */

#define MODEL(vocab, merges) "{\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges "}"
#define GOOD                 MODEL("{\"a\":0,\"b\":1,\"ab\":2}", "[\"a b\"]")
#define WITH(rest)           GOOD "," rest "}"

static void malformed_models(void **state) {
    (void)state;
    tokenizer *good = open_text(GOOD "}");
    assert_non_null(good);
    IDS(good, "abba", true, 2, 1, 0);
    tokenizer_free(good);
    expect_error("", "not valid JSON");
    expect_error("{\"model\":", "not valid JSON");
    expect_error("{\"model\":\"\xff\"}", "not valid UTF-8");
    expect_error("[]", "\"model\" is missing");
    expect_error("{}", "\"model\" is missing");
    expect_error("{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}",
                 "model type Unigram is not supported yet");
    expect_error("{\"model\":{\"type\":7}}", "\"type\" is not a string");
    expect_error("{\"model\":{}}", "\"vocab\" is missing");
    expect_error(MODEL("[1]", "[]") "}", "\"vocab\" is missing or not an object");
    expect_error(MODEL("{}", "[]") "}", "the vocabulary is empty");
    expect_error(MODEL("{\"a\":0}", "{}") "}", "\"merges\" are missing or not a list");
    expect_error(MODEL("{\"a\":\"0\"}", "[]") "}", "token \"a\" is not a number");
    expect_error(MODEL("{\"a\":-1}", "[]") "}", "token \"a\" has the id -1");
    expect_error(MODEL("{\"a\":0.5}", "[]") "}", "has the id 0.5");
    expect_error(MODEL("{\"a\":1e300}", "[]") "}", "has the id 1e+300");
    expect_error(MODEL("{\"a\":2147483647}", "[]") "}", "has the id 2.14748e+09");
    expect_error(MODEL("{\"a\":0,\"b\":0}", "[]") "}", "id 0 is given to both \"a\" and \"b\"");
    expect_error(MODEL("{\"a\":0,\"a\":1}", "[]") "}", "token \"a\" has two ids, 0 and 1");
    expect_error(MODEL("{\"a\":0}", "[\"a z\"]") "}", "merge 0 (\"a\" + \"z\") is of tokens that are not in");
    expect_error(MODEL("{\"a\":0}", "[\"a a\"]") "}", "merge 0 (\"a\" + \"a\") is of tokens that are not in");
    expect_error(MODEL("{\"a\":0}", "[\"aa\"]") "}", "merge 0 is neither");
    expect_error(MODEL("{\"a\":0}", "[\"a a a\"]") "}", "merge 0 is neither");
    expect_error(MODEL("{\"a\":0}", "[[\"a\"]]") "}", "merge 0 is neither");
    expect_error(MODEL("{\"a\":0}", "[[\"a\",1]]") "}", "merge 0 is neither");
    expect_error("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}",
                 "\"dropout\" is not supported");
    expect_error("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}",
                 "\"end_of_word_suffix\" is not supported");
    expect_error("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"?\"}}",
                 "unknown token \"?\"");
    assert_null(tokenizer_open("no/such/tokenizer.json"));
    assert_non_null(strstr(error_message(), "no/such/tokenizer.json"));
}

static void malformed_stages(void **state) {
    (void)state;
    expect_error(WITH("\"normalizer\":{}"), "\"type\" is missing (in \"normalizer\")");
    expect_error(WITH("\"normalizer\":{\"type\":\"Precompiled\"}"),
                 "normalizer Precompiled is not supported yet");
    expect_error(WITH("\"normalizer\":{\"type\":\"NFX\"}"), "normalizer NFX is unknown");
    expect_error(WITH("\"normalizer\":{\"type\":\"Replace\",\"content\":\"x\"}"), "a \"pattern\" is neither");
    expect_error(WITH("\"pre_tokenizer\":{\"type\":\"Punctuation\"}"),
                 "pre-tokenizer Punctuation is not supported");
    expect_error(
        WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Odd\",\"pattern\":{\"String\":\"x\"}}"),
        "behavior Odd is unknown");
    expect_error(
        WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Removed\",\"pattern\":{\"Regex\":\"(\"}}"),
        "cannot use the pattern (: ");
    expect_error(WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Removed\",\"pattern\":{\"Regex\":"
                      "\"[a&&b]\"}}"),
                 "nested character classes");
    expect_error(WITH("\"decoder\":{\"type\":\"WordPiece\"}"), "decoder WordPiece is not supported yet");
    expect_error(WITH("\"decoder\":{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}"),
                 "in this place");
    expect_error(WITH("\"post_processor\":{\"type\":\"BertProcessing\"}"), "post-processor BertProcessing");
    expect_error(WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}"), "0 times");
    expect_error(
        WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
             "\"x\"}}]}"),
        "lacks the ids of \"x\"");
    expect_error(
        WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
             "\"x\"}},{\"Sequence\":{}}],\"special_tokens\":{\"x\":{\"ids\":[99]}}}"),
        "the id 99, which is not in the vocabulary");
    expect_error(WITH("\"added_tokens\":[{\"id\":1}]"), "\"content\" is missing (in \"added_tokens\")");
    expect_error(WITH("\"added_tokens\":[{\"content\":\"x\"}]"), "added token \"x\" has no id");
    expect_error(WITH("\"added_tokens\":[{\"content\":\"x\",\"id\":1}]"),
                 "id 1 is given to both \"b\" and \"x\"");
    expect_error(WITH("\"added_tokens\":[{\"content\":\"x\",\"id\":1e9}]"), "token \"x\" has the id 1e+09");
}

/* A pattern that backtracks without end must become an error, not a hang. */
static void exploding_pattern_is_an_error(void **state) {
    (void)state;
    tokenizer *t =
        open_text(WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":"
                       "{\"Regex\":\"(a|aa|b?a)+$(?<!a)\"}}"));
    assert_non_null(t);
    char text[201] = {0};
    memset(text, 'a', 200);
    token_ids ids = {0};
    assert_int_equal(tokenizer_encode(t, text, 200, true, &ids), -1);
    assert_non_null(strstr(error_message(), "cannot be matched"));
    free(ids.items);
    tokenizer_free(t);
}

#define SPLIT_AT(pattern)                                                                                    \
    WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":"           \
         "\"" pattern "\"}}")

/* Patterns with which PCRE2 gives matches that end before they begin or lie inside a character:
 * none is accepted, however it is spelt. */
static void patterns_of_no_text_are_refused(void **state) {
    (void)state;
    expect_error(SPLIT_AT("(?(DEFINE)(abc\\\\K))(?=(?1))"), "\\K is not supported");
    expect_error(SPLIT_AT("a+|\\\\C(?=\\\\C\\\\C\\\\C$)"), "\\C is not supported");
    expect_error(SPLIT_AT("\\\\Q[\\\\E\\\\K"), "\\Q is not supported");
    expect_error(SPLIT_AT("[\\\\K]"), "\\K is not supported");
    expect_error(SPLIT_AT("a(*ACCEPT)b"), "(* is not supported");
    expect_error(WITH("\"normalizer\":{\"type\":\"Replace\",\"content\":\"x\",\"pattern\":{\"Regex\":"
                      "\"(?(DEFINE)(abc\\\\K))(?=(?1))\"}}"),
                 "\\K is not supported");
    tokenizer *t = open_text(SPLIT_AT("[(*]|\\\\\\\\K")); /* a class, and an escaped backslash */
    if (!t) fail_msg("%s", error_message());
    tokenizer_free(t);
}

#define TIMES_8  "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aaaaaaaa\"}"
#define TIMES_8_ TIMES_8 ","

/* Twelve replacements make 8^12 letters of one: an error, while there is memory left. */
static void exploding_text_is_an_error(void **state) {
    (void)state;
    const char *steps = "[" TIMES_8_ TIMES_8_ TIMES_8_ TIMES_8_ TIMES_8_ TIMES_8_ TIMES_8_ TIMES_8_ TIMES_8_
        TIMES_8_ TIMES_8_ TIMES_8 "]";
    str text = {0};
    str_printf(&text, GOOD ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":%s}}", steps);
    tokenizer *t = open_text(text.data);
    assert_non_null(t);
    token_ids ids = {0};
    assert_int_equal(tokenizer_encode(t, "a", 1, true, &ids), -1);
    assert_non_null(strstr(error_message(), "a text of more than 268435456 bytes"));
    free(ids.items);
    tokenizer_free(t);
    str_clear(&text);
    str_printf(&text, GOOD ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":%s}}", steps);
    t = open_text(text.data);
    if (!t) fail_msg("%s", error_message());
    str out = {0};
    assert_int_equal(tokenizer_decode(t, &(int32_t){0}, 1, false, &out), -1);
    str_free(&out);
    tokenizer_free(t);
    str_free(&text);
}

/* ---- ids and special tokens ---- */

static void ids_of_tokens(void **state) {
    (void)state;
    tokenizer *t =
        open_text(WITH("\"added_tokens\":[{\"content\":\"<s>\",\"id\":5,\"special\":true},{\"content\":"
                       "\"b\",\"id\":1,\"special\":false}]"));
    assert_non_null(t);
    assert_int_equal(tokenizer_size(t), 6);
    assert_int_equal(tokenizer_id(t, "ab"), 2);
    assert_int_equal(tokenizer_id(t, "<s>"), 5);
    assert_int_equal(tokenizer_id(t, "zz"), -1);
    assert_true(tokenizer_is_special(t, 5));
    assert_false(tokenizer_is_special(t, 1));
    assert_false(tokenizer_is_special(t, -1));
    assert_false(tokenizer_is_special(t, 99));
    IDS(t, "a<s>ab", true, 0, 5, 0, 1);
    expect_ids(t, "", true, 0, NULL);
    str out = {0};
    assert_int_equal(tokenizer_decode(t, (int32_t[]){0, 3}, 2, false, &out), -1); /* between the used ids */
    assert_int_equal(tokenizer_decode(t, (int32_t[]){6}, 1, false, &out), -1);
    assert_int_equal(tokenizer_decode(t, (int32_t[]){-1}, 1, false, &out), -1);
    assert_string_equal(error_message(), "token id -1 is not in the vocabulary (6 tokens)");
    str_free(&out);
    tokenizer_free(t);
}

/* ---- GGUF vocabularies ---- */

static const char *const tokens[] = {"<|end|>",    "a",        "b",        "\xc4\xa0", "1",     "ab",
                                     "\304\240ab", "\xc3\xa6", "\xc2\xa5", "\xc2\xbd", "<user>"};
static const int32_t types[] = {3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4};
static const char *const merges[] = {"a b", "\xc4\xa0 ab"};
enum { N_TOKENS = sizeof tokens / sizeof *tokens };

static gguf_vocabulary sample(const char *pre) {
    return (gguf_vocabulary){.name = "x.gguf",
                             .model = "gpt2",
                             .pre = pre,
                             .n_tokens = N_TOKENS,
                             .n_merges = 2,
                             .tokens = tokens,
                             .types = types,
                             .merges = merges,
                             .bos_id = 0,
                             .eos_id = 0};
}

static void vocabulary_of_gguf(void **state) {
    (void)state;
    gguf_vocabulary v = sample("smollm");
    tokenizer *t = tokenizer_from_vocabulary(&v);
    assert_non_null(t);
    IDS(t, "ab ab<|end|>11<user>a", true, 5, 6, 0, 4, 4, 10, 1);
    assert_true(tokenizer_is_special(t, 0));
    assert_false(tokenizer_is_special(t, 10));
    tokenizer_free(t);
    v.add_bos = true;
    t = tokenizer_from_vocabulary(&v);
    assert_non_null(t);
    IDS(t, "a", true, 0, 1);
    IDS(t, "a", false, 1);
    tokenizer_free(t);
    const char *const pres[] = {"gpt-2", "qwen2", "llama-bpe", "deepseek-r1-qwen", "default", NULL};
    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++) {
        v = sample(pres[i]);
        t = tokenizer_from_vocabulary(&v);
        assert_non_null(t);
        IDS(t, " ab", false, 6);
        tokenizer_free(t);
    }
}

static void expect_vocabulary_error(gguf_vocabulary v, const char *part) {
    assert_null(tokenizer_from_vocabulary(&v));
    if (!strstr(error_message(), part)) fail_msg("got: %s (wanted: %s)", error_message(), part);
}

static void malformed_vocabularies(void **state) {
    (void)state;
    gguf_vocabulary v = sample("llm");
    expect_vocabulary_error(v, "x.gguf: pre-tokenizer \"llm\" is not supported yet");
    expect_vocabulary_error(sample(""), "pre-tokenizer \"\" is not supported");
    expect_vocabulary_error(sample("smollm starcoder"), "is not supported");
    v = sample("smollm");
    v.model = "llama";
    expect_vocabulary_error(v, "tokenizer model \"llama\" is not supported yet");
    v.model = NULL;
    expect_vocabulary_error(v, "tokenizer model \"(none)\"");
    v = sample("smollm");
    v.n_tokens = 0;
    expect_vocabulary_error(v, "the vocabulary is empty");
    v = sample("smollm");
    v.n_tokens = 3;
    v.types = NULL;
    expect_vocabulary_error(v, "merge 0 (\"a\" + \"b\")");
    v = sample("smollm");
    v.merges = (const char *const[]){"a b", "ab"};
    expect_vocabulary_error(v, "merge 1 is not two tokens");
    v = sample("smollm");
    v.add_bos = true;
    v.bos_id = N_TOKENS;
    expect_vocabulary_error(v, "begin-of-sequence id 11");
}

/* ---- streaming ---- */

static void streaming_holds_back_unfinished_characters(void **state) {
    (void)state;
    gguf_vocabulary v = sample("smollm");
    tokenizer *t = tokenizer_from_vocabulary(&v);
    detokenizer *d = detokenizer_new(t);
    assert_non_null(d);
    str out = {0};
    static const struct {
        int32_t id;
        const char *so_far;
    } steps[] = {
        {6, " ab"},
        {7, " ab"}, /* E6 A5 BD: one character in three tokens */
        {8, " ab"},
        {9, " ab\xe6\xa5\xbd"},
        {0, " ab\xe6\xa5\xbd<|end|>"},
        {7, " ab\xe6\xa5\xbd<|end|>"},
        {1, " ab\xe6\xa5\xbd<|end|>\xef\xbf\xbd"
            "a"}, /* never finished */
        {9, " ab\xe6\xa5\xbd<|end|>\xef\xbf\xbd"
            "a\xef\xbf\xbd"},
        {7, " ab\xe6\xa5\xbd<|end|>\xef\xbf\xbd"
            "a\xef\xbf\xbd"},
    };
    int32_t ids[sizeof steps / sizeof *steps];
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        ids[i] = steps[i].id;
        assert_int_equal(detokenizer_add(d, ids[i], &out), 0);
        assert_string_equal(out.data, steps[i].so_far);
    }
    assert_int_equal(detokenizer_finish(d, &out), 0);
    str whole = {0};
    assert_int_equal(tokenizer_decode(t, ids, sizeof ids / sizeof *ids, false, &whole), 0);
    assert_string_equal(out.data, whole.data);
    assert_int_equal(detokenizer_add(d, 999, &out), -1);
    str_free(&out);
    str_free(&whole);
    detokenizer_free(d);
    detokenizer_free(NULL);
    tokenizer_free(t);
}

/* The stages of a SentencePiece-like decoder, token by token. */
static void streaming_strips_the_beginning_once(void **state) {
    (void)state;
    tokenizer *t = open_text(
        "{\"model\":{\"vocab\":{\"_\":0,\"_a\":1,\"<0xE6>\":2,\"<0xA5>\":3,\"<0xBD>\":4},\"merges\":[]},"
        "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"_"
        "\"},"
        "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
        "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}}");
    assert_non_null(t);
    detokenizer *d = detokenizer_new(t);
    str out = {0};
    const int32_t ids[] = {0, 1, 1, 2, 3, 4, 0};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        assert_int_equal(detokenizer_add(d, ids[i], &out), 0);
    assert_int_equal(detokenizer_finish(d, &out), 0);
    assert_string_equal(out.data, " a a\xe6\xa5\xbd ");
    str_free(&out);
    detokenizer_free(d);
    tokenizer_free(t);
}

/* ---- UTF-8 ---- */

static void every_character_survives(void **state) {
    (void)state;
    for (int32_t c = 0; c <= 0x10ffff; c++) {
        if (c >= 0xd800 && c < 0xe000) continue;
        char bytes[4];
        int32_t back;
        size_t n = utf8_encode(c, bytes);
        if (utf8_decode(bytes, n, &back) != n || back != c) fail_msg("U+%04X", (unsigned)c);
        for (size_t k = 1; k < n; k++)
            if (utf8_unfinished(bytes, k) != k) fail_msg("U+%04X, %zu bytes", (unsigned)c, k);
    }
    for (int byte = 0; byte < 256; byte++) assert_int_equal(byte_of_char(char_of_byte((uint8_t)byte)), byte);
    assert_int_equal(byte_of_char(' '), -1);
    assert_int_equal(byte_of_char(0x4e00), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_models),
        cmocka_unit_test(malformed_stages),
        cmocka_unit_test(exploding_pattern_is_an_error),
        cmocka_unit_test(patterns_of_no_text_are_refused),
        cmocka_unit_test(exploding_text_is_an_error),
        cmocka_unit_test(ids_of_tokens),
        cmocka_unit_test(vocabulary_of_gguf),
        cmocka_unit_test(malformed_vocabularies),
        cmocka_unit_test(streaming_holds_back_unfinished_characters),
        cmocka_unit_test(streaming_strips_the_beginning_once),
        cmocka_unit_test(every_character_survives),
    };
    return cmocka_run_group_tests(tests, new_folder, drop_folder);
}
