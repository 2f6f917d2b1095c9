/* test_session.c - depth, turns and sequences in lockstep, on every engine and with every kind of
 * cache. In F32 a text gives the same logits however it came into the caches and whatever is
 * decoded beside it. The model is random and would only repeat its last token, so steps go on with
 * a given text. */
#include "generate/generate.h"

#include "folder.h"

#include <math.h>

enum {
    STEP = 8,
    DEPTH = 2 * STEP,
    PROMPT = 13,
    NEW = 10,
    TEXT = DEPTH + PROMPT,
    ALL = TEXT + NEW,
    MOST = 6,
    MARKED_EVERY = 4,
    VOCABULARY = 509, /* a prime: the text repeats after as many tokens */
    LAYERS = 2,
    HEADS = 2
};

typedef struct setting {
    checkpoint *c;
    engine *e;
    model *m;
} setting;

static const struct {
    const char *name;
    float tolerance; /* of the largest logit: quantized numbers may be on the border of two steps */
    generate_options options;
} kinds[] = {
    {"plain", 1e-5f, {.prefill_step_size = STEP}},
    {"rotating", 1e-5f, {.prefill_step_size = STEP, .max_kv_size = 20}},
    {"quantized", 1e-3f, {.prefill_step_size = STEP, .kv_bits = 8, .kv_group_size = 32}},
    {"quantized later",
     1e-3f,
     {.prefill_step_size = STEP, .kv_bits = 8, .kv_group_size = 32, .quantized_kv_start = DEPTH + 1}},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

/* A model as small as it can be with two layers and two heads: thousands of steps follow, in each
 * of which threads wait for each other, and each wait is long where other programs have the
 * CPUs. */
static const char smallest[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 128, "
    "\"num_hidden_layers\": 2, \"intermediate_size\": 128, \"num_attention_heads\": 2, "
    "\"num_key_value_heads\": 2, \"head_dim\": 64, \"rms_norm_eps\": 1e-05, \"vocab_size\": 509, "
    "\"rope_theta\": 10000.0, \"tie_word_embeddings\": true}";

static int write_model(void **state) {
    if (new_folder(state)) return -1;
    make_folders("presets");
    write_text("presets/smallest.json", smallest);
    return setenv("MLXBENCH_SHARE", folder, 1);
}

/* What must succeed. */
static void must(bool done) {
    if (!done) fail_msg("%s", error_message());
}

static setting set_up(const char *engine_name) {
    setting s = {.e = engine_open(engine_name, &(engine_options){.threads = 2})};
    if (!s.e) {
        print_message("not run: %s\n", error_message());
        skip();
    }
    s.c = checkpoint_open("synthetic:smallest-f32", 0);
    must(s.c != NULL);
    s.m = model_load(s.c, s.e);
    must(s.m != NULL);
    return s;
}

static void tear_down(setting *s) {
    model_free(s->m);
    engine_close(s->e);
    checkpoint_close(s->c);
}

/* Ids [n_sequences][n] from `first` on: sequence k starts k tokens later in one text, as bench has
 * it. */
static void fill_text(int32_t *out, int n_sequences, int first, int n) {
    for (int k = 0; k < n_sequences; k++)
        for (int i = 0; i < n; i++) out[k * n + i] = (first + i + k) * 7919 % VOCABULARY;
}

static session *new_session(const setting *s, int kind, int n_sequences) {
    session_spec spec = {
        .options = kinds[kind].options, .n_sequences = n_sequences, .capacity = ALL, .keep_logits = true};
    session *made = session_new(s->m, s->e, &spec);
    must(made != NULL);
    return made;
}

/* The logits of NEW steps after the first TEXT tokens, which go on with the text:
 * [NEW][n_sequences]. */
static float *logits_of(session *s, int n_sequences) {
    size_t size = (size_t)n_sequences * VOCABULARY;
    float *out = malloc(NEW * size * sizeof *out);
    int32_t forced[MOST * NEW], ids[MOST];
    assert_non_null(out);
    fill_text(forced, n_sequences, TEXT, NEW);
    must(!session_force(s, forced, NEW));
    for (int i = 0; i < NEW; i++) {
        must(!session_step(s, ids));
        memcpy(out + (size_t)i * size, session_logits(s), size * sizeof *out);
        for (int k = 0; k < n_sequences; k++) /* what was chosen is the largest */
            for (int v = 0; v < VOCABULARY; v++) {
                const float *row = out + (size_t)i * size + (size_t)k * VOCABULARY;
                if (row[v] > row[ids[k]]) fail_msg("step %d chose %d, not %d", i, ids[k], v);
            }
    }
    return out;
}

/* A sequence that starts at `first`, alone and not marked. */
static float *alone(const setting *s, int kind, int first) {
    int32_t ids[ALL];
    session *one = new_session(s, kind, 1);
    fill_text(ids, 1, first, ALL);
    must(!session_force(one, ids + TEXT, NEW));
    must(!session_prefill(one, ids, TEXT));
    float *out = malloc(NEW * VOCABULARY * sizeof *out);
    assert_non_null(out);
    for (int i = 0, id; i < NEW; i++) {
        must(!session_step(one, &id));
        memcpy(out + (size_t)i * VOCABULARY, session_logits(one), VOCABULARY * sizeof *out);
    }
    session_free(one);
    return out;
}

/* How far apart, as a part of the largest. */
static float apart(const float *a, const float *b) {
    float largest = 0, difference = 0;
    for (int v = 0; v < VOCABULARY; v++) {
        largest = fmaxf(largest, fabsf(b[v]));
        difference = fmaxf(difference, fabsf(a[v] - b[v]));
    }
    return difference / largest;
}

static void compare(const float *found, float *const wanted[], int kind, int n_sequences, int run) {
    for (int i = 0; i < NEW; i++)
        for (int k = 0; k < n_sequences; k++) {
            const float *row = found + ((size_t)i * (size_t)n_sequences + (size_t)k) * VOCABULARY;
            float by = apart(row, wanted[k] + (size_t)i * VOCABULARY);
            if (!(by <= kinds[kind].tolerance))
                fail_msg("%s cache, run %d, sequence %d of %d, step %d: %g apart", kinds[kind].name, run, k,
                         n_sequences, i, (double)by);
        }
}

static void check_kind(const setting *s, int kind, int n_sequences) {
    int32_t depth[MOST * DEPTH], prompt[MOST * PROMPT], whole[MOST * TEXT];
    float *wanted[MOST];
    fill_text(depth, n_sequences, 0, DEPTH);
    fill_text(prompt, n_sequences, DEPTH, PROMPT);
    fill_text(whole, n_sequences, 0, TEXT);
    for (int k = 0; k < n_sequences; k++) wanted[k] = alone(s, kind, k);
    session *marked = new_session(s, kind, n_sequences), *plain = new_session(s, kind, n_sequences);
    must(!session_fill(marked, depth, DEPTH));
    must(!session_mark(marked));
    for (int run = 0; run < 3; run++) { /* without a mark; then twice from it */
        if (run > 1) must(!session_return(marked));
        session *one = run ? marked : plain;
        must(!session_prefill(one, run ? prompt : whole, run ? PROMPT : TEXT));
        float *found = logits_of(one, n_sequences);
        compare(found, wanted, kind, n_sequences, run);
        free(found);
    }
    for (int k = 0; k < n_sequences; k++) free(wanted[k]);
    session_free(marked);
    session_free(plain);
}

/* What the first token alone changes in the last step's logits is more than what is allowed. */
static void check_sensitive(const setting *s, int kind) {
    int32_t ids[TEXT];
    session *one = new_session(s, kind, 1);
    float *wanted = alone(s, kind, 0);
    fill_text(ids, 1, 0, TEXT);
    ids[0] = 5;
    must(!session_prefill(one, ids, TEXT));
    float *found = logits_of(one, 1);
    for (int i = 0; i < NEW; i++)
        assert_true(apart(found + (size_t)i * VOCABULARY, wanted + (size_t)i * VOCABULARY) >
                    2 * kinds[kind].tolerance);
    free(found), free(wanted);
    session_free(one);
}

/* Steps first to NEW of a session whose text goes on, compared with what they give without any
 * mark. */
static void step_on(session *s, int first, const float *wanted, int kind, int n_sequences) {
    int32_t ids[MOST];
    size_t row = (size_t)n_sequences * VOCABULARY;
    for (int i = first; i < NEW; i++) {
        must(!session_step(s, ids));
        for (int k = 0; k < n_sequences; k++) {
            float by = apart(session_logits(s) + k * VOCABULARY, wanted + (size_t)i * row + k * VOCABULARY);
            if (!(by <= kinds[kind].tolerance))
                fail_msg("%s cache, marked before step %d, sequence %d, step %d: %g apart", kinds[kind].name,
                         first, k, i, (double)by);
        }
    }
}

/* A session can be marked again and again: after a prefill, and after any number of steps. */
static void check_marks(const setting *s, int kind, int n_sequences) {
    int32_t text[MOST * TEXT], forced[MOST * NEW], ids[MOST];
    fill_text(text, n_sequences, 0, TEXT);
    fill_text(forced, n_sequences, TEXT, NEW);
    session *plain = new_session(s, kind, n_sequences), *marked = new_session(s, kind, n_sequences);
    must(!session_prefill(plain, text, TEXT));
    float *wanted = logits_of(plain, n_sequences);
    must(!session_prefill(marked, text, TEXT));
    must(!session_mark(marked));
    must(!session_force(marked, text, NEW)); /* is undone */
    must(!session_step(marked, ids));
    must(!session_return(marked));
    must(!session_force(marked, forced, NEW));
    for (int first = 0; first < NEW; first += MARKED_EVERY) {
        must(!session_mark(marked));
        for (int run = 0; run < 2; run++) {
            step_on(marked, first, wanted, kind, n_sequences);
            must(!session_return(marked));
        }
        for (int i = 0; i < MARKED_EVERY; i++) must(!session_step(marked, ids));
    }
    must(!session_return(marked)); /* a prefill behind a mark with a queued step */
    must(!session_prefill(marked, text, 1));
    must(!session_step(marked, ids));
    free(wanted);
    session_free(marked);
    session_free(plain);
}

static void check_engine(const char *name) {
    setting s = set_up(name);
    for (int kind = 0; kind < N_KINDS; kind++) {
        check_sensitive(&s, kind);
        check_kind(&s, kind, 1);
        check_kind(&s, kind, 3);
        check_marks(&s, kind, 1 + kind % 2 * 2);
    }
    check_kind(&s, 0, MOST); /* the CPU engine multiplies so many as it does a prompt's */
    tear_down(&s);
}

static void test_cpu(void **state) {
    (void)state;
    check_engine("cpu");
}

static void test_mlx(void **state) {
    (void)state;
    check_engine("mlx");
}

/* After steps a prompt goes on behind the last chosen token, on engines that work ahead and on
 * others. */
static void check_turns(const char *name) {
    int32_t ids[ALL], chosen[NEW];
    setting s = set_up(name);
    fill_text(ids, 1, 0, TEXT);
    session *turns = new_session(&s, 0, 1), *one = new_session(&s, 0, 1);
    must(!session_prefill(turns, ids, DEPTH));
    for (int i = 0; i < NEW; i++) must(!session_step(turns, chosen + i));
    must(!session_prefill(turns, ids + DEPTH, PROMPT));
    float *found = logits_of(turns, 1);
    memmove(ids + DEPTH + NEW, ids + DEPTH, PROMPT * sizeof *ids);
    memcpy(ids + DEPTH, chosen, sizeof chosen);
    must(!session_prefill(one, ids, ALL));
    float *wanted = logits_of(one, 1);
    compare(found, &wanted, 0, 1, 0);
    free(found), free(wanted);
    session_free(turns);
    session_free(one);
    tear_down(&s);
}

static void test_turns_cpu(void **state) {
    (void)state;
    check_turns("cpu");
}

static void test_turns_mlx(void **state) {
    (void)state;
    check_turns("mlx");
}

/* A mark is no cache in use, and counts where memory is asked for. */
static void test_memory(void **state) {
    (void)state;
    setting s = set_up("cpu");
    int32_t depth[DEPTH];
    fill_text(depth, 1, 0, DEPTH);
    session *one = new_session(&s, 0, 1);
    must(!session_fill(one, depth, DEPTH));
    engine_memory before = engine_memory_used(s.e);
    must(!session_mark(one));
    engine_memory after = engine_memory_used(s.e);
    assert_int_equal(before.kv, after.kv);
    assert_int_equal(before.peak, after.peak);
    session_free(one);
    assert_int_equal(engine_memory_used(s.e).kv, 0);
    session_spec spec = {.options = kinds[0].options, .capacity = 100};
    int64_t plain = session_bytes(s.m, &spec);
    assert_int_equal(plain, 100 * LAYERS * HEADS * (64 + 64) * 4); /* layers, heads, head_dim of both, F32 */
    spec.marked = 50;
    spec.n_sequences = 3;
    assert_int_equal(session_bytes(s.m, &spec), plain * 3 * 3 / 2);
    assert_int_equal(session_check_memory(s.m, &spec, plain), -1);
    error_clear();
    tear_down(&s);
}

static void test_wrong_order(void **state) {
    (void)state;
    setting s = set_up("cpu");
    int32_t ids[DEPTH], id, outside = VOCABULARY;
    fill_text(ids, 1, 0, DEPTH);
    session *one = new_session(&s, 0, 1);
    assert_int_equal(session_step(one, &id), -1);
    assert_int_equal(session_return(one), -1);
    assert_int_equal(session_prefill(one, ids, 0), -1);
    assert_int_equal(session_prefill(one, &outside, 1), -1);
    error_clear();
    session_free(one);
    tear_down(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpu),       cmocka_unit_test(test_mlx),    cmocka_unit_test(test_turns_cpu),
        cmocka_unit_test(test_turns_mlx), cmocka_unit_test(test_memory), cmocka_unit_test(test_wrong_order),
    };
    return cmocka_run_group_tests(tests, write_model, drop_folder);
}
