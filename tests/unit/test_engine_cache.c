/* test_engine_cache.c - rotary positions, attention and KV caches against straightforward lists and
 * loops. The reference keeps a list of the positions a cache holds, oldest first, and computes in
 * double precision.
 */
#include "engine/cpu/kernels/kernels.h"
#include "engine_values.h"

enum { KV_HEADS = 2, HEADS = 4, DIM = 32, V_DIM = 64, MOST = 1024 };

/* Queries, keys and values of MOST positions; keys and values as the cache under test stores
 * them. */
typedef struct setting {
    engine *e;
    const weight *wq, *wk, *wv;
    float *q, *k, *v;
    float *stored[2]; /* keys, values */
    int64_t held[2 * MOST], n_held, n_seen;
    struct cache *cache;
} setting;

/* x as a cache of that dtype gives it back. */
static void store(float *x, int64_t n, dtype type) {
    char stored[V_DIM * 4];
    floats_to(stored, type, x, n);
    floats_from(x, stored, type, n);
}

/* The same for a quantized one. */
static void store_quantized(float *x, int64_t n, dtype type, int bits, int group_size) {
    uint32_t words[V_DIM];
    char scales[V_DIM * 4], biases[V_DIM * 4];
    float scale[V_DIM], bias[V_DIM];
    quantize_row(words, scales, biases, type, x, n, bits, group_size);
    floats_from(scale, scales, type, n / group_size);
    floats_from(bias, biases, type, n / group_size);
    for (int64_t i = 0; i < n; i++) {
        unsigned q = 0;
        for (int b = 0; b < bits; b++) {
            int64_t bit = i * bits + b;
            q |= (words[bit / 32] >> bit % 32 & 1) << b;
        }
        x[i] = scale[i / group_size] * (float)q + bias[i / group_size];
    }
}

static float *copy_of(const float *x, int64_t n) {
    float *copy = malloc((size_t)n * sizeof *copy);
    assert_non_null(copy);
    return memcpy(copy, x, (size_t)n * sizeof *copy);
}

static setting set_up(int threads, cache_spec spec) {
    setting s = {.e = open_cpu(threads)};
    s.wq = new_weight(s.e, MOST, HEADS * DIM, 0, &s.q);
    s.wk = new_weight(s.e, MOST, KV_HEADS * DIM, 0, &s.k);
    s.wv = new_weight(s.e, MOST, KV_HEADS * V_DIM, 0, &s.v);
    s.stored[0] = copy_of(s.k, MOST * KV_HEADS * DIM);
    s.stored[1] = copy_of(s.v, MOST * KV_HEADS * V_DIM);
    for (int64_t i = 0; i < MOST * KV_HEADS; i++) {
        store(s.stored[0] + i * DIM, DIM, spec.dtype);
        store(s.stored[1] + i * V_DIM, V_DIM, spec.dtype);
    }
    spec.n_kv_heads = KV_HEADS;
    spec.head_dim = DIM;
    spec.v_head_dim = V_DIM;
    s.cache = cache_new(s.e, &spec);
    assert_non_null(s.cache);
    return s;
}

static void tear_down(setting *s) {
    cache_free(s->e, s->cache);
    assert_int_equal(engine_memory_used(s->e).kv, 0);
    engine_drop_weights(s->e);
    engine_close(s->e);
    free(s->q), free(s->k), free(s->v), free(s->stored[0]), free(s->stored[1]);
}

/* Removes the oldest entries after the first `keep` until at most n are left. */
static void shorten(setting *s, int64_t n) {
    int64_t keep = s->cache->spec.keep, surplus = s->n_held - n;
    if (surplus <= 0) return;
    memmove(s->held + keep, s->held + keep + surplus, (size_t)(s->n_held - keep - surplus) * sizeof *s->held);
    s->n_held = n;
}

/* softmax(scale q k^T) v of query head h at position over list entries [low, high) */
static void reference_row(const setting *s, int64_t position, int h, int64_t low, int64_t high, double *out) {
    int kv_head = h / (HEADS / KV_HEADS);
    double weights[2 * MOST], sum = 0;
    for (int64_t i = low; i < high; i++) {
        const float *q = s->q + (position * HEADS + h) * DIM;
        const float *k = s->stored[0] + (s->held[i] * KV_HEADS + kv_head) * DIM;
        double score = 0;
        for (int d = 0; d < DIM; d++) score += (double)q[d] * k[d];
        sum += weights[i] = exp(score * .25);
    }
    for (int d = 0; d < V_DIM; d++) {
        out[d] = 0;
        for (int64_t i = low; i < high; i++)
            out[d] += weights[i] / sum * s->stored[1][(s->held[i] * KV_HEADS + kv_head) * V_DIM + d];
    }
}

/* What the next n tokens must give: mlx-lm cache.py as a list. Several tokens first shorten the
 * list to max_size - 1 and see a causal window of max_size, or a larger one; a single one replaces
 * the oldest. Of chunks the list keeps all. */
static void reference_step(setting *s, int64_t n, double *out) {
    const cache_spec *spec = &s->cache->spec;
    int64_t max_size = spec->max_size, first = s->n_seen, window = spec->window ? spec->window : max_size;
    if (max_size) shorten(s, max_size - 1);
    for (int64_t t = 0; t < n; t++) s->held[s->n_held++] = s->n_seen++;
    for (int64_t t = 0; t < n; t++)
        for (int h = 0; h < HEADS; h++) {
            int64_t high = s->n_held - n + t + 1, low = window && high > window ? high - window : 0;
            if (spec->chunk) low = (high - 1) / spec->chunk * spec->chunk;
            reference_row(s, first + t, h, low, high, out + (t * HEADS + h) * V_DIM);
        }
}

static tensor step(graph *g, setting *s, int64_t n) {
    int64_t first = s->cache->offset;
    return attend(g, s->cache, heads(g, rows_of(g, s->wq, first, n), HEADS),
                  heads(g, rows_of(g, s->wk, first, n), KV_HEADS),
                  heads(g, rows_of(g, s->wv, first, n), KV_HEADS), &(attend_spec){.scale = .25f});
}

/* n tokens through engine and reference. The outputs are means of values in [-1, 1], computed in
 * F32 with an error of the scores of about 1e-6. */
static void check_step(setting *s, int64_t n) {
    int64_t count = n * HEADS * V_DIM;
    float *found = malloc((size_t)count * sizeof *found);
    double *wanted = malloc((size_t)count * sizeof *wanted);
    assert_true(found && wanted);
    graph *g = graph_begin(s->e, 1);
    finish(g, step(g, s, n), found, count);
    reference_step(s, n, wanted);
    assert_int_equal(s->cache->offset, s->n_seen);
    check_close(found, wanted, count, 1e-5);
    free(found), free(wanted);
}

static void check_steps(cache_spec spec, const int *steps, int n) { /* -n: n single tokens */
    for (int threads = 1; threads <= 2; threads++) {
        setting s = set_up(threads, spec);
        for (int i = 0; i < n; i++) {
            if (steps[i] > 0) check_step(&s, steps[i]);
            for (int k = 0; k < -steps[i]; k++) check_step(&s, 1);
        }
        tear_down(&s);
    }
}

static void test_plain(void **state) {
    (void)state;
    static const int short_steps[] = {5, -3, 40, 2, -2, 70}, long_steps[] = {300, -2, 260, -3};
    for (dtype type = DTYPE_F32; type <= DTYPE_BF16; type++)
        check_steps((cache_spec){.dtype = type}, short_steps, COUNT(short_steps));
    check_steps((cache_spec){.dtype = DTYPE_F32, .capacity = 700}, long_steps, COUNT(long_steps));
}

static void test_rotating(void **state) {
    (void)state;
    static const int from_prompt[] = {5, -3, 3, -12, 7, -1, 12, 20, -25, 2, 2, -3}, from_one[] = {-30, 3, -9},
                     longer[] = {30, 2, -1, 9}, large[] = {200, -100, 300, -3, 50, -40};
    for (int64_t max_size = 6; max_size <= 12; max_size += 2)
        for (int64_t keep = 0; keep <= 4; keep += 4) {
            cache_spec spec = {.dtype = DTYPE_F32, .max_size = max_size, .keep = keep};
            check_steps(spec, from_prompt, COUNT(from_prompt));
            check_steps(spec, from_one, COUNT(from_one));
            check_steps(spec, longer, COUNT(longer));
        }
    check_steps((cache_spec){.dtype = DTYPE_BF16, .max_size = 280, .keep = 4, .capacity = 500}, large,
                COUNT(large));
}

/* mlx-lm plamo3.py: several tokens see one entry more than the ring has. */
static void test_wider_window(void **state) {
    (void)state;
    static const int steps[] = {5, -3, 3, -12, 7, 1, 12, 20, -25, 2, 2, -3};
    for (int64_t max_size = 6; max_size <= 12; max_size += 2)
        check_steps((cache_spec){.dtype = DTYPE_F32, .max_size = max_size, .window = max_size + 1}, steps,
                    COUNT(steps));
    setting s = set_up(1, (cache_spec){.dtype = DTYPE_F32});
    cache_spec narrow = s.cache->spec;
    narrow.max_size = 8, narrow.window = 7;
    assert_null(cache_new(s.e, &narrow));
    tear_down(&s);
}

static void test_chunks(void **state) {
    (void)state;
    static const int few[] = {5, -3, 3, -12, 7, -1, 12, 20, -25, 2, 2, -3}, from_one[] = {-30, 3, -9},
                     many[] = {7, 400, -30, 7, 7, -300, 100}, large[] = {350, -3, 260, -40, 300};
    for (int64_t chunk = 1; chunk <= 12; chunk += 3) {
        check_steps((cache_spec){.dtype = DTYPE_F32, .chunk = chunk}, few, COUNT(few));
        check_steps((cache_spec){.dtype = DTYPE_F32, .chunk = chunk}, from_one, COUNT(from_one));
    }
    check_steps((cache_spec){.dtype = DTYPE_BF16, .chunk = 300}, many, COUNT(many));
    check_steps((cache_spec){.dtype = DTYPE_F32, .chunk = 600, .capacity = 953}, large, COUNT(large));
    setting s = set_up(2, (cache_spec){.dtype = DTYPE_F32, .chunk = 8});
    check_step(&s, 5);
    assert_int_equal(cache_quantize(s.e, s.cache, 8, 32), 0); /* stays as it is */
    assert_int_equal(s.cache->bits, 0);
    for (int i = 0; i < 900; i++) check_step(&s, 1);
    assert_true(engine_memory_used(s.e).kv <= 256 * KV_HEADS * (DIM + V_DIM) * 4); /* no more grows */
    tear_down(&s);
}

static void quantize_stored(setting *s, dtype type, int bits, int group_size) {
    for (int64_t i = 0; i < MOST * KV_HEADS; i++) {
        store_quantized(s->stored[0] + i * DIM, DIM, type, bits, group_size);
        store_quantized(s->stored[1] + i * V_DIM, V_DIM, type, bits, group_size);
    }
}

static void test_quantized(void **state) {
    (void)state;
    static const int widths[] = {2, 3, 4, 5, 6, 8};
    for (size_t b = 0; b < COUNT(widths); b++)
        for (int before = 0; before <= 6; before += 6) { /* quantized while empty, or with entries */
            setting s = set_up(2, (cache_spec){.dtype = DTYPE_F32});
            if (before) check_step(&s, before);
            assert_int_equal(cache_quantize(s.e, s.cache, widths[b], 32), 0);
            assert_int_equal(s.cache->bits, widths[b]);
            assert_int_equal(cache_quantize(s.e, s.cache, widths[b], 32), 0);
            quantize_stored(&s, DTYPE_F32, widths[b], 32);
            check_step(&s, 9);
            check_step(&s, 1);
            check_step(&s, 300); /* grows */
            check_step(&s, 1);
            check_step(&s, 300);
            check_step(&s, 1); /* shared out between threads */
            tear_down(&s);
        }
    setting rotating = set_up(1, (cache_spec){.dtype = DTYPE_F32, .max_size = 8});
    assert_int_equal(cache_quantize(rotating.e, rotating.cache, 8, 32), -1);
    tear_down(&rotating);
    setting narrow = set_up(1, (cache_spec){.dtype = DTYPE_F32});
    assert_int_equal(cache_quantize(narrow.e, narrow.cache, 8, 64), -1); /* head_dim is 32 */
    check_step(&narrow, 3);
    tear_down(&narrow);
}

/* A chunk without outputs is in the cache all the same. */
static void test_no_outputs(void **state) {
    (void)state;
    setting s = set_up(2, (cache_spec){.dtype = DTYPE_F32});
    static double unused[50 * HEADS * V_DIM];
    for (int i = 0; i < 2; i++) {
        graph *g = graph_begin(s.e, 1);
        step(g, &s, 50);
        assert_int_equal(graph_end(g, 0, NULL, NULL), 0);
        reference_step(&s, 50, unused);
        assert_int_equal(s.cache->offset, s.n_seen);
        check_step(&s, 1);
    }
    assert_true(engine_memory_used(s.e).kv >= 102 * KV_HEADS * (DIM + V_DIM) * 4);
    tear_down(&s);
}

/* Rotates n rows of positions from `first` on. */
static void reference_rope(double *x, const rope_spec *spec, int64_t first, int64_t n) {
    for (int64_t row = 0; row < n * HEADS; row++, x += DIM)
        for (int i = 0; i < spec->dims / 2; i++) {
            int a = spec->traditional ? 2 * i : i, b = spec->traditional ? a + 1 : i + spec->dims / 2;
            double angle = (double)(first + row / HEADS) * spec->scale / spec->freqs[i];
            double c = cos(angle) * spec->mscale, sine = sin(angle) * spec->mscale, at_a = x[a], at_b = x[b];
            x[a] = at_a * c - at_b * sine;
            x[b] = at_a * sine + at_b * c;
        }
}

/* One after another in one step. Angles of positions below 100 are good to 1e-5 in F32. */
static void check_ropes(setting *s, const rope_spec *const specs[], int n_specs, int64_t n) {
    float found[20 * HEADS * DIM];
    double wanted[20 * HEADS * DIM];
    int64_t first = s->cache->offset;
    for (int64_t i = 0; i < n * HEADS * DIM; i++) wanted[i] = s->q[first * HEADS * DIM + i];
    graph *g = graph_begin(s->e, 1);
    tensor x = heads(g, rows_of(g, s->wq, first, n), HEADS);
    for (int i = 0; i < n_specs; i++) {
        x = rope(g, x, specs[i], s->cache);
        reference_rope(wanted, specs[i], first, n);
    }
    finish(g, x, found, n * HEADS * DIM);
    check_close(found, wanted, n * HEADS * DIM, 3e-5 * n_specs);
}

static void test_rope(void **state) {
    (void)state;
    float freqs[DIM / 2], others[DIM / 2];
    for (int i = 0; i < DIM / 2; i++) freqs[i] = powf(10000, (float)i / (DIM / 2)), others[i] = 2 + (float)i;
    static const rope_spec all = {.dims = DIM, .scale = 1, .mscale = 1};
    rope_spec other = all;
    other.freqs = others;
    for (int threads = 1; threads <= 3; threads++) {
        setting s = set_up(threads, (cache_spec){.dtype = DTYPE_F32});
        for (int i = 0; i < 3; i++) {
            for (int dims = 0; dims <= DIM; dims += dims == 24 ? 8 : 6)
                for (int traditional = 0; traditional < 2; traditional++) {
                    rope_spec spec = {.dims = dims,
                                      .traditional = traditional,
                                      .scale = i ? 1 : .5f,
                                      .mscale = i ? 1 : 1.25f,
                                      .freqs = freqs};
                    const rope_spec *specs[] = {&spec, &other,
                                                &spec}; /* layers of two kinds, as Gemma 3 has */
                    check_ropes(&s, specs, 1, 20);
                    check_ropes(&s, specs, 3, 20);
                    check_ropes(&s, specs, 3, 1);
                }
            check_step(&s, 33); /* the next positions */
        }
        tear_down(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),     cmocka_unit_test(test_rotating),
        cmocka_unit_test(test_quantized), cmocka_unit_test(test_no_outputs),
        cmocka_unit_test(test_rope),      cmocka_unit_test(test_wider_window),
        cmocka_unit_test(test_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
