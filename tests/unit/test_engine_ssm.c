/* test_engine_ssm.c - state spaces: what ssm keeps of earlier tokens, for Mamba-2 and Mamba-1.
 * The reference computes the whole text at once, in double precision. */
#include "engine_values.h"

enum { TEXT = 24, SEQUENCES = 3, N_INPUTS = 4, N_WEIGHTS = 3, MOST = 64 };

/* Mamba-1 has a decay for every feature, and no sizes but these in common with Mamba-2. */
typedef struct sizes {
    int heads, head_dim, groups, n;
    bool each_feature;
} sizes;

typedef struct setting {
    engine *e;
    sizes d;
    ssm_spec spec;
    const weight *tables[N_INPUTS]; /* x, B, C, dt of SEQUENCES texts of TEXT tokens */
    float *x[N_INPUTS], *given[N_INPUTS + N_WEIGHTS], A_log[MOST * 20], D[MOST], dt_bias[MOST];
} setting;

static int width_of(const sizes *d, int i) {
    return i == 0 ? d->heads * d->head_dim : i == 3 ? d->heads : d->groups * d->n;
}

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

static setting set_up(const char *name, int threads, sizes d) {
    setting s = {.e = engine_open(name, &(engine_options){.threads = threads}), .d = d};
    if (!s.e) {
        print_message("not run: %s\n", error_message());
        skip();
    }
    for (int i = 0; i < N_INPUTS; i++) {
        int n = SEQUENCES * TEXT * width_of(&d, i);
        s.x[i] = malloc((size_t)n * sizeof(float));
        assert_non_null(s.x[i]);
        for (int j = 0; j < n; j++) s.x[i][j] = uniform();
        s.tables[i] = weight_of(s.e, s.x[i], SEQUENCES * TEXT, width_of(&d, i), &s.given[i]);
    }
    int n = d.each_feature ? d.heads * d.n : d.heads;
    for (int i = 0; i < n; i++) s.A_log[i] = uniform();
    for (int i = 0; i < d.heads; i++) s.D[i] = uniform(), s.dt_bias[i] = uniform();
    s.spec = (ssm_spec){.slot = 1, .dt_min = 0.5f, .dt_max = 1};
    s.spec.A_log = weight_of(s.e, s.A_log, n, 0, &s.given[N_INPUTS]);
    s.spec.D = weight_of(s.e, s.D, d.heads, 0, &s.given[N_INPUTS + 1]);
    if (d.each_feature)
        s.spec.dt_min = 0, s.spec.dt_max = INFINITY;
    else
        s.spec.dt_bias = weight_of(s.e, s.dt_bias, d.heads, 0, &s.given[N_INPUTS + 2]);
    return s;
}

static void tear_down(setting *s) {
    assert_int_equal(engine_memory_used(s->e).kv, 0);
    engine_drop_weights(s->e);
    engine_close(s->e);
    for (int i = 0; i < N_INPUTS; i++) free(s->x[i]);
    for (int i = 0; i < N_INPUTS + N_WEIGHTS; i++) free(s->given[i]);
}

/* Row `row` of a head's S over a whole text: out [TEXT], of sequence q. */
static void reference(const setting *s, int q, int head, int row, double out[TEXT]) {
    double S[MOST] = {0};
    const sizes *d = &s->d;
    for (int t = 0; t < TEXT; t++) {
        int at = q * TEXT + t, group = head / (d->heads / d->groups);
        double x = s->x[0][(at * d->heads + head) * d->head_dim + row];
        const float *B = s->x[1] + (at * d->groups + group) * d->n,
                    *C = s->x[2] + (at * d->groups + group) * d->n;
        double dt = (double)s->x[3][at * d->heads + head] + (s->spec.dt_bias ? s->dt_bias[head] : 0);
        double delta = fmin(fmax(log(1 + exp(dt)), (double)s->spec.dt_min), (double)s->spec.dt_max);
        out[t] = s->D[head] * x;
        for (int i = 0; i < d->n; i++) {
            double A = exp(s->A_log[d->each_feature ? head * d->n + i : head]);
            S[i] = exp(-A * delta) * S[i] + delta * x * B[i];
            out[t] += S[i] * C[i];
        }
    }
}

static tensor record(const setting *s, graph *g, cache *c, const int32_t *ids, int n) {
    tensor in[N_INPUTS], rows = tokens(g, ids, n);
    for (int i = 0; i < N_INPUTS; i++) {
        in[i] = embed(g, rows, s->tables[i]);
        if (i < 3) in[i] = heads(g, in[i], i ? s->d.groups : s->d.heads);
    }
    return ssm(g, c, &(ssm_inputs){in[0], in[1], in[2], in[3]}, &s->spec);
}

/* Tokens [first, first + n) of each sequence, against `whole` [SEQUENCES * TEXT][width]. */
static void check_step(const setting *s, cache *c, int n_sequences, int first, int n, const double *whole) {
    int32_t ids[SEQUENCES * TEXT];
    static float found[SEQUENCES * TEXT * 1024];
    int width = width_of(&s->d, 0);
    for (int i = 0; i < n_sequences * n; i++) ids[i] = i / n * TEXT + first + i % n;
    graph *g = graph_begin(s->e, n_sequences);
    finish(g, record(s, g, c, ids, n_sequences * n), found, (int64_t)n_sequences * n * width);
    for (int i = 0; i < n_sequences * n; i++)
        check_close(found + i * width, whole + ids[i] * width, width, 2e-5);
    assert_int_equal(c->offset, first + n);
}

static cache_spec cache_for(const sizes *d, int n_sequences) {
    return (cache_spec){.n_sequences = n_sequences,
                        .n_states = 2,
                        .states = {{.rows = 1, .cols = 1, .dtype = DTYPE_F32},
                                   {.rows = d->heads * d->head_dim, .cols = d->n, .dtype = DTYPE_F32}}};
}

static void check(const char *name, int threads, sizes d) {
    static double whole[SEQUENCES * TEXT * 1024];
    static const int steps[] = {1, 1, 7, 1, 12, 2};
    double one[TEXT];
    setting s = set_up(name, threads, d);
    int width = width_of(&d, 0);
    for (int i = 0; i < SEQUENCES * width; i++) {
        reference(&s, i / width, i % width / d.head_dim, i % d.head_dim, one);
        for (int t = 0; t < TEXT; t++) whole[(i / width * TEXT + t) * width + i % width] = one[t];
    }
    for (int n_sequences = 1; n_sequences <= SEQUENCES; n_sequences += 2) {
        cache_spec spec = cache_for(&d, n_sequences);
        cache *c = cache_new(s.e, &spec), *copy = cache_new(s.e, &spec);
        assert_true(c && copy);
        int at = 0;
        for (size_t i = 0; i < COUNT(steps); at += steps[i++]) {
            check_step(&s, c, n_sequences, at, steps[i], whole);
            if (!i) assert_int_equal(cache_copy(s.e, copy, c), 0);
        }
        check_step(&s, copy, n_sequences, 1, TEXT - 1, whole);
        cache_free(s.e, c);
        cache_free(s.e, copy);
    }
    tear_down(&s);
}

/* Rows of one piece of work and of several, widths that fill registers and that do not. */
static const sizes all[] = {{4, 40, 2, 24, false},
                            {2, 64, 1, 32, false},
                            {6, 5, 3, 19, false},
                            {40, 1, 1, 16, true},
                            {33, 1, 1, 20, true}};

static void test_cpu(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(all); i++)
        for (int threads = 1; threads <= 3; threads += 2) check("cpu", threads, all[i]);
}

static void test_mlx(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(all); i++) check("mlx", 0, all[i]);
}

/* A state of another size, and a decay for every feature of heads that are wider than one
 * number. */
static void test_refused(void **state) {
    (void)state;
    setting s = set_up("cpu", 1, all[0]);
    static const int32_t ids[] = {0};
    for (int i = 0; i < 2; i++) {
        cache_spec spec = cache_for(&s.d, 1);
        spec.states[1].cols += i == 0;
        cache *c = cache_new(s.e, &spec);
        assert_non_null(c);
        if (i) s.spec.A_log = weight_of(s.e, s.A_log, s.d.heads * s.d.n, 0, &s.given[N_INPUTS + 2]);
        graph *g = graph_begin(s.e, 1);
        record(&s, g, c, ids, 1);
        assert_int_equal(graph_end(g, 0, NULL, NULL), -1);
        assert_non_null(strstr(error_message(), i ? "weights" : "state"));
        error_clear();
        cache_free(s.e, c);
        if (!i) free(s.given[N_INPUTS + 2]);
    }
    tear_down(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cpu), cmocka_unit_test(test_mlx),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
