/* test_engine_states.c - caches that are states: what short_conv and delta_rule keep of earlier
 * tokens. The references compute the whole text at once, in double precision. */
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
            if (i == 5) {
                assert_int_equal(cache_copy(s.e, copy, c), 0);
                copied = at;
            }
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

/* ---- the gated delta rule ---- */

enum { KEY_HEADS = 2, VALUE_HEADS = 4, DK = 24, DV = 40, TEXT = 24, N_INPUTS = 5 };
static const int input_heads[N_INPUTS] = {KEY_HEADS, KEY_HEADS, VALUE_HEADS, VALUE_HEADS, VALUE_HEADS};

/* q, k, v, a, b of SEQUENCES texts of TEXT tokens, [SEQUENCES * TEXT, heads, width] each. */
typedef struct delta_setting {
    engine *e;
    delta_spec spec;
    int widths[N_INPUTS];
    const weight *tables[N_INPUTS];
    float *x[N_INPUTS], *given[N_INPUTS + 2], A_log[VALUE_HEADS], dt_bias[VALUE_HEADS * DK];
} delta_setting;

/* A weight of those numbers, which the engine may give back; *given is to be freed. */
static const weight *weight_of(engine *e, const float *x, int64_t rows, int64_t cols, float **given) {
    int64_t n = rows * (cols ? cols : 1);
    *given = malloc((size_t)n * sizeof *x);
    assert_non_null(*given);
    memcpy(*given, x, (size_t)n * sizeof *x);
    weight_source s = {.name = "w", .m = {.rank = cols ? 2 : 1, .shape = {rows, cols}}};
    s.m.values = (array){.dtype = DTYPE_F32, .rank = s.m.rank, .shape = {rows, cols}, .data = *given};
    const weight *w = engine_weight(e, &s);
    assert_non_null(w);
    return w;
}

static delta_setting set_up_delta(engine *e, bool for_features, float lower_bound, bool negative) {
    delta_setting s = {.e = e, .widths = {DK, DK, DV, for_features ? DK : 1, 1}};
    for (int i = 0; i < N_INPUTS; i++) {
        int width = input_heads[i] * s.widths[i], n = SEQUENCES * TEXT * width;
        s.x[i] = malloc((size_t)n * sizeof(float));
        assert_non_null(s.x[i]);
        for (int j = 0; j < n; j++) s.x[i][j] = uniform() * (i < 2 ? .25f : 1);
        s.tables[i] = weight_of(e, s.x[i], SEQUENCES * TEXT, width, &s.given[i]);
    }
    for (int i = 0; i < VALUE_HEADS; i++) s.A_log[i] = uniform();
    for (int i = 0; i < VALUE_HEADS * DK; i++) s.dt_bias[i] = uniform();
    s.spec = (delta_spec){.slot = 1, .lower_bound = lower_bound, .negative_eigenvalues = negative};
    s.spec.A_log = weight_of(e, s.A_log, VALUE_HEADS, 0, &s.given[N_INPUTS]);
    s.spec.dt_bias = weight_of(e, s.dt_bias, VALUE_HEADS * s.widths[3], 0, &s.given[N_INPUTS + 1]);
    return s;
}

static void tear_down_delta(delta_setting *s) {
    engine_drop_weights(s->e);
    for (int i = 0; i < N_INPUTS; i++) free(s->x[i]);
    for (int i = 0; i < N_INPUTS + 2; i++) free(s->given[i]);
}

static const float *input(const delta_setting *s, int i, int row, int head) {
    return s->x[i] + (row * input_heads[i] + head) * s->widths[i];
}

static double decay_at(const delta_setting *s, int row, int head, int feature) {
    int i = s->widths[3] > 1 ? feature : 0;
    double sum = (double)input(s, 3, row, head)[i] + s->dt_bias[head * s->widths[3] + i];
    double rate = exp(s->A_log[head]), bound = s->spec.lower_bound;
    return bound != 0 ? exp(bound / (1 + exp(-rate * sum))) : exp(-rate * log(1 + exp(sum)));
}

/* Row `row` of S over a whole text: out [TEXT], of sequence q. */
static void reference_delta(const delta_setting *s, int q, int head, int row, double out[TEXT]) {
    double S[DK] = {0};
    for (int t = 0; t < TEXT; t++) {
        int at = q * TEXT + t, key_head = head / (VALUE_HEADS / KEY_HEADS);
        const float *query = input(s, 0, at, key_head), *key = input(s, 1, at, key_head);
        double known = 0, beta = 1 / (1 + exp(-input(s, 4, at, head)[0]));
        if (s->spec.negative_eigenvalues) beta *= 2;
        for (int i = 0; i < DK; i++) S[i] *= decay_at(s, at, head, i), known += S[i] * key[i];
        out[t] = 0;
        for (int i = 0; i < DK; i++) {
            S[i] += (input(s, 2, at, head)[row] - known) * beta * key[i];
            out[t] += S[i] * query[i];
        }
    }
}

/* Tokens [first, first + n) of each sequence, against `whole` [n_sequences * TEXT, VALUE_HEADS,
 * DV]. */
static void check_delta_step(const delta_setting *s, cache *c, int n_sequences, int first, int n,
                             const double *whole) {
    int32_t ids[SEQUENCES * TEXT];
    static float found[SEQUENCES * TEXT * VALUE_HEADS * DV];
    tensor in[N_INPUTS];
    graph *g = graph_begin(s->e, n_sequences);
    for (int i = 0; i < n_sequences * n; i++) ids[i] = i / n * TEXT + first + i % n;
    tensor rows = tokens(g, ids, n_sequences * n);
    for (int i = 0; i < N_INPUTS; i++) {
        in[i] = embed(g, rows, s->tables[i]);
        if (s->widths[i] > 1) in[i] = heads(g, in[i], input_heads[i]);
    }
    delta_inputs inputs = {in[0], in[1], in[2], in[3], in[4]};
    finish(g, delta_rule(g, c, &inputs, &s->spec), found, (int64_t)n_sequences * n * VALUE_HEADS * DV);
    for (int i = 0; i < n_sequences * n; i++)
        check_close(found + i * VALUE_HEADS * DV, whole + ids[i] * VALUE_HEADS * DV, VALUE_HEADS * DV, 1e-5);
}

static void check_delta(delta_setting *s) {
    static double whole[SEQUENCES * TEXT * VALUE_HEADS * DV];
    static const int steps[] = {1, 1, 7, 1, 12, 2};
    double one[TEXT];
    for (int i = 0; i < SEQUENCES * VALUE_HEADS * DV; i++) {
        int q = i / (VALUE_HEADS * DV), at = i % (VALUE_HEADS * DV);
        reference_delta(s, q, at / DV, at % DV, one);
        for (int t = 0; t < TEXT; t++) whole[(q * TEXT + t) * VALUE_HEADS * DV + at] = one[t];
    }
    for (int n_sequences = 1; n_sequences <= SEQUENCES; n_sequences += 2) {
        cache_spec spec = {.n_sequences = n_sequences,
                           .n_states = 2,
                           .states = {{.rows = 1, .cols = 1, .dtype = DTYPE_F32},
                                      {.rows = VALUE_HEADS * DV, .cols = DK, .dtype = DTYPE_F32}}};
        cache *c = cache_new(s->e, &spec), *copy = cache_new(s->e, &spec);
        assert_true(c && copy);
        int at = 0;
        for (size_t i = 0; i < COUNT(steps); at += steps[i++]) {
            check_delta_step(s, c, n_sequences, at, steps[i], whole);
            if (!i) assert_int_equal(cache_copy(s->e, copy, c), 0);
        }
        check_delta_step(s, copy, n_sequences, 1, TEXT - 1, whole);
        cache_free(s->e, c);
        cache_free(s->e, copy);
    }
    tear_down_delta(s);
}

static void check_delta_rules(const char *name, int threads) {
    engine *e = engine_open(name, &(engine_options){.threads = threads});
    if (!e) {
        print_message("not run: %s\n", error_message());
        skip();
    }
    for (int i = 0; i < 8; i++) {
        delta_setting s = set_up_delta(e, i & 1, i & 2 ? -5 : 0, i & 4);
        check_delta(&s);
    }
    engine_close(e);
}

static void test_delta_cpu(void **state) {
    (void)state;
    for (int threads = 1; threads <= 3; threads += 2) check_delta_rules("cpu", threads);
}

static void test_delta_mlx(void **state) {
    (void)state;
    check_delta_rules("mlx", 0);
}

/* ---- layer_norm: no state, but the same kind of test ---- */

static void check_layer_norm(const char *name, bool weighed) {
    enum { N = 70, ROWS = 9 };
    float *given[2], x[ROWS * N], w[N], bias[N], bias_copy[N], found[ROWS * N];
    double wanted[ROWS * N];
    engine *e = engine_open(name, &(engine_options){.threads = 2});
    if (!e) {
        print_message("not run: %s\n", error_message());
        skip();
    }
    for (int i = 0; i < ROWS * N; i++) x[i] = 3 * uniform() + 20 * (float)(i / N); /* far from zero */
    for (int i = 0; i < N; i++) w[i] = uniform(), bias[i] = bias_copy[i] = uniform();
    const weight *table = weight_of(e, x, ROWS, N, &given[0]);
    given[1] = malloc(sizeof w);
    assert_non_null(given[1]);
    memcpy(given[1], w, sizeof w);
    matrix b = {.rank = 1, .shape = {N}}, m = {.rank = 1, .shape = {N}};
    b.values = (array){.dtype = DTYPE_F32, .rank = 1, .shape = {N}, .data = bias_copy};
    m.values = (array){.dtype = DTYPE_F32, .rank = 1, .shape = {N}, .data = given[1]};
    const weight *by = engine_weight(e, &(weight_source){.name = "w", .m = m, .bias = &b});
    assert_non_null(by);
    for (int r = 0; r < ROWS; r++) {
        double mean = 0, variance = 0;
        for (int i = 0; i < N; i++) mean += (double)x[r * N + i] / N;
        for (int i = 0; i < N; i++) variance += pow(x[r * N + i] - mean, 2) / N;
        for (int i = 0; i < N; i++) {
            double normal = (x[r * N + i] - mean) / sqrt(variance + 1e-3);
            wanted[r * N + i] = weighed ? normal * w[i] + bias[i] : normal;
        }
    }
    for (int n = 1; n <= ROWS; n += ROWS - 1) {
        graph *g = graph_begin(e, 1);
        finish(g, layer_norm(g, rows_of(g, table, 0, n), weighed ? by : NULL, 1e-3f), found, (int64_t)n * N);
        check_close(found, wanted, (int64_t)n * N, 1e-4); /* of numbers up to 180 before, with 24 bits */
    }
    engine_drop_weights(e);
    engine_close(e);
    free(given[0]), free(given[1]);
}

static void test_layer_norm(void **state) {
    (void)state;
    for (int weighed = 0; weighed < 2; weighed++) {
        check_layer_norm("cpu", weighed);
        check_layer_norm("mlx", weighed);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cpu),       cmocka_unit_test(test_mlx),
                                       cmocka_unit_test(test_refused),   cmocka_unit_test(test_delta_cpu),
                                       cmocka_unit_test(test_delta_mlx), cmocka_unit_test(test_layer_norm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
