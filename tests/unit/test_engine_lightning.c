/* test_engine_lightning.c - linear_attention on both engines: texts of several of MLX's chunks, and
 * token by token. The reference computes the whole text at once, in double precision. */
#include "engine_values.h"

enum { HEADS = 3, DK = 16, DV = 40, TEXT = 300, SEQUENCES = 2, WIDTH = HEADS * (2 * DK + DV) };

static const float log_decays[HEADS] = {-0.7f, -0.05f, -0.001f}, factor = 0.25f;

/* y of one head and column of values, over sequence q. in: [SEQUENCES * TEXT, WIDTH], the queries
 * of all heads, their keys, their values. */
static void reference(const float *in, int q, int head, int column, double out[TEXT]) {
    double S[DK] = {0}, decay = exp(log_decays[head]);
    for (int t = 0; t < TEXT; t++) {
        const float *row = in + (q * TEXT + t) * WIDTH, *key = row + (HEADS + head) * DK;
        double value = row[2 * HEADS * DK + head * DV + column];
        out[t] = 0;
        for (int i = 0; i < DK; i++) {
            S[i] = S[i] * decay + key[i] * value;
            out[t] += factor * S[i] * row[head * DK + i];
        }
    }
}

/* Tokens [first, first + n) of each sequence. */
static void check_step(engine *e, const weight *table, cache *c, const lightning_spec *spec, int n_sequences,
                       int first, int n, const double *whole) {
    static int32_t ids[SEQUENCES * TEXT];
    static float found[SEQUENCES * TEXT * HEADS * DV];
    for (int i = 0; i < n_sequences * n; i++) ids[i] = i / n * TEXT + first + i % n;
    graph *g = graph_begin(e, n_sequences);
    tensor x = embed(g, tokens(g, ids, n_sequences * n), table);
    tensor q = heads(g, part(g, x, 0, HEADS * DK), HEADS);
    tensor k = heads(g, part(g, x, HEADS * DK, HEADS * DK), HEADS);
    tensor v = heads(g, part(g, x, 2 * HEADS * DK, HEADS * DV), HEADS);
    finish(g, scale(g, flatten(g, linear_attention(g, c, q, k, v, spec)), 1), found,
           (int64_t)n_sequences * n * HEADS * DV);
    for (int i = 0; i < n_sequences * n; i++)
        check_close(found + i * HEADS * DV, whole + ids[i] * HEADS * DV, HEADS * DV, 2e-4);
    assert_int_equal(c->offset, first + n);
}

static void check_engine(const char *name, int threads) {
    static const int steps[] = {1, 270, 1, 7, 1, 20};
    static double whole[SEQUENCES * TEXT * HEADS * DV];
    engine *e = engine_open(name, &(engine_options){.threads = threads});
    if (!e) {
        print_message("not run: %s\n", error_message());
        skip();
    }
    float *given, *in = malloc(SEQUENCES * TEXT * WIDTH * sizeof *in);
    assert_non_null(in);
    uint32_t begin = seed;
    for (int i = 0; i < SEQUENCES * TEXT * WIDTH; i++) in[i] = uniform();
    seed = begin; /* the engine may give a weight's memory back */
    const weight *table = new_weight(e, SEQUENCES * TEXT, WIDTH, 0, &given);
    for (int i = 0; i < SEQUENCES * HEADS * DV; i++) {
        double one[TEXT];
        int q = i / (HEADS * DV), at = i % (HEADS * DV);
        reference(in, q, at / DV, at % DV, one);
        for (int t = 0; t < TEXT; t++) whole[(q * TEXT + t) * HEADS * DV + at] = one[t];
    }
    for (int kind = 0; kind < 2 * SEQUENCES; kind++) {
        lightning_spec spec = {.slot = 0, .log_decays = log_decays, .scale = factor, .f32 = kind % 2};
        cache_spec kept = {.n_sequences = kind / 2 + 1,
                           .n_states = 1,
                           .states = {{.rows = HEADS * DV, .cols = DK, .dtype = DTYPE_F32}}};
        cache *c = cache_new(e, &kept), *copy = cache_new(e, &kept);
        assert_true(c && copy);
        int at = 0;
        for (size_t i = 0; i < COUNT(steps); at += steps[i++]) {
            check_step(e, table, c, &spec, kept.n_sequences, at, steps[i], whole);
            if (!i) assert_int_equal(cache_copy(e, copy, c), 0);
        }
        check_step(e, table, copy, &spec, kept.n_sequences, 1, TEXT - 1, whole);
        cache_free(e, c);
        cache_free(e, copy);
    }
    engine_drop_weights(e);
    engine_close(e);
    free(in), free(given);
}

static void test_cpu(void **state) {
    (void)state;
    for (int threads = 1; threads <= 3; threads += 2) check_engine("cpu", threads);
}

static void test_mlx(void **state) {
    (void)state;
    check_engine("mlx", 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cpu), cmocka_unit_test(test_mlx)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
