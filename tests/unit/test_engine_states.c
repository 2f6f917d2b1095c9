/* test_engine_states.c - caches that are states: what short_conv keeps of earlier tokens, and copies of it.
 * The reference convolves the whole text at once, in double precision. */
#include "engine_values.h"

enum { WIDE = 300, TAPS = 4, LONGEST = 64, SEQUENCES = 3 };

typedef struct setting {
    engine *e;
    const weight *table, *w;
    float *given, *x, *taps, bias[WIDE]; /* x: [SEQUENCES * LONGEST, WIDE] */
} setting;

static setting set_up(const char *engine_name, int threads) {
    setting s = {.e = engine_open(engine_name, &(engine_options){.threads = threads})};
    if (!s.e) {
        print_message("not run: %s\n", error_message());
        skip();
    }
    s.x = malloc(SEQUENCES * LONGEST * WIDE * sizeof *s.x);
    assert_non_null(s.x);
    uint32_t begin = seed;
    for (int i = 0; i < SEQUENCES * LONGEST * WIDE; i++) s.x[i] = uniform();
    seed = begin; /* the engine may give a weight's memory back, so it has the same numbers of its own */
    s.table = new_weight(s.e, SEQUENCES * LONGEST, WIDE, 0, &s.given);
    s.taps = malloc(WIDE * TAPS * sizeof *s.taps);
    assert_non_null(s.taps);
    for (int i = 0; i < WIDE * TAPS; i++) s.taps[i] = uniform();
    for (int i = 0; i < WIDE; i++) s.bias[i] = uniform();
    return s;
}

/* Copies, for the same reason. */
static void load_taps(setting *s, float copy[WIDE * TAPS], float bias_copy[WIDE]) {
    memcpy(copy, s->taps, WIDE * TAPS * sizeof *copy);
    memcpy(bias_copy, s->bias, sizeof s->bias);
    matrix bias = {.rank = 1, .shape = {WIDE}};
    bias.values = (array){.dtype = DTYPE_F32, .rank = 1, .shape = {WIDE}, .data = bias_copy};
    weight_source source = {.name = "w", .m = {.rank = 2, .shape = {WIDE, TAPS}}, .bias = &bias};
    source.m.values = (array){.dtype = DTYPE_F32, .rank = 2, .shape = {WIDE, TAPS}, .data = copy};
    s->w = engine_weight(s->e, &source);
    assert_non_null(s->w);
}

/* Token t of sequence q, feature d. */
static double reference(const setting *s, int q, int t, int d, bool silu) {
    double sum = s->bias[d];
    for (int j = 0; j < TAPS; j++) {
        int row = t + j - (TAPS - 1);
        if (row >= 0) sum += (double)s->taps[d * TAPS + j] * s->x[(q * LONGEST + row) * WIDE + d];
    }
    return silu ? sum / (1 + exp(-sum)) : sum;
}

/* Tokens [first, first + n) of each sequence. */
static void check_step(const setting *s, cache *c, int n_sequences, int first, int n, bool silu) {
    int32_t ids[SEQUENCES * LONGEST];
    static float found[SEQUENCES * LONGEST * WIDE];
    static double wanted[SEQUENCES * LONGEST * WIDE];
    for (int q = 0; q < n_sequences; q++)
        for (int t = 0; t < n; t++) {
            ids[q * n + t] = q * LONGEST + first + t;
            for (int d = 0; d < WIDE; d++)
                wanted[(q * n + t) * WIDE + d] = reference(s, q, first + t, d, silu);
        }
    graph *g = graph_begin(s->e, n_sequences);
    tensor x = embed(g, tokens(g, ids, n * n_sequences), s->table);
    finish(g, short_conv(g, c, 0, x, s->w, silu), found, (int64_t)n * n_sequences * WIDE);
    check_close(found, wanted, (int64_t)n * n_sequences * WIDE, 1e-5);
    assert_int_equal(c->offset, first + n);
}

static void check_engine(const char *name, int threads) {
    static const int steps[] = {1, 1, 1, 1, 20, 1, 2, 1, 3}; /* shorter than the state, and longer */
    static float taps[WIDE * TAPS], bias[WIDE];
    setting s = set_up(name, threads);
    load_taps(&s, taps, bias);
    for (int n_sequences = 1; n_sequences <= SEQUENCES; n_sequences += 2) {
        cache_spec spec = {.n_sequences = n_sequences,
                           .n_states = 1,
                           .states = {{.rows = TAPS - 1, .cols = WIDE, .dtype = DTYPE_F32}}};
        cache *c = cache_new(s.e, &spec), *copy = cache_new(s.e, &spec);
        assert_true(c && copy);
        int at = 0, copied = 0;
        for (size_t i = 0; i < COUNT(steps); at += steps[i++]) {
            if (i == 5) assert_int_equal(cache_copy(s.e, copy, c), 0), copied = at;
            check_step(&s, c, n_sequences, at, steps[i], i % 2);
        }
        assert_int_equal(copy->offset, copied);
        check_step(&s, copy, n_sequences, copied, 5, true);
        cache_free(s.e, c);
        cache_free(s.e, copy);
    }
    assert_int_equal(engine_memory_used(s.e).kv, 0);
    engine_drop_weights(s.e);
    engine_close(s.e);
    free(s.given), free(s.x), free(s.taps);
}

static void test_cpu(void **state) {
    (void)state;
    for (int threads = 1; threads <= 3; threads++) check_engine("cpu", threads);
}

static void test_mlx(void **state) {
    (void)state;
    check_engine("mlx", 0);
}

static void test_refused(void **state) {
    (void)state;
    static float taps[WIDE * TAPS], bias[WIDE];
    setting s = set_up("cpu", 1);
    load_taps(&s, taps, bias);
    cache_spec spec = {.n_states = 1, .states = {{.rows = TAPS, .cols = WIDE, .dtype = DTYPE_F32}}};
    cache *c = cache_new(s.e, &spec);
    for (int slot = -1; slot < 2; slot++) { /* 0 has a row too many, the others are not there */
        graph *g = graph_begin(s.e, 1);
        short_conv(g, c, slot, rows_of(g, s.table, 0, 1), s.w, false);
        assert_int_equal(graph_end(g, 0, NULL, NULL), -1);
        assert_non_null(strstr(error_message(), "state"));
        error_clear();
    }
    cache_free(s.e, c);
    engine_drop_weights(s.e);
    engine_close(s.e);
    free(s.given), free(s.x), free(s.taps);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cpu), cmocka_unit_test(test_mlx),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
