/* test_engine_latent.c - multi-head latent attention, from caches of latents, token by token and in
 * chunks. The reference makes every head's keys and values of all entries, in double precision. */
#include "engine_values.h"

enum { HEADS = 11, NOPE = 16, PE = 8, RANK = 24, V_DIM = 20, LONGEST = 700, SEQUENCES = 2 };
enum { QUERY = HEADS * NOPE, QUERY_PE = HEADS * PE, ENTRY = QUERY + QUERY_PE, INDEX = ENTRY + RANK + PE };
/* What selects entries: queries of INDEX_HEADS, a key, weights. */
enum { INDEX_HEADS = 3, INDEX_DIM = 16, INDEX_KEY = INDEX + INDEX_HEADS * INDEX_DIM, TOPK = 20 };
enum { INDEX_WEIGHTS = INDEX_KEY + INDEX_DIM, WIDE = INDEX_WEIGHTS + INDEX_HEADS };
static const double SCALE = 0.2;

typedef struct setting {
    engine *e;
    const weight *table;
    latent_spec spec;
    float *given, *x, *embed_q, *unembed_out, *given_q, *given_out; /* given: the engine's */
} setting;

/* An engine may give a weight's memory back, so it has the numbers for itself: what is returned is
 * a copy. */
static const weight *weight_and_copy(setting *s, int64_t a, int64_t b, int64_t c, float **given,
                                     float **copy) {
    uint32_t begin = seed;
    const weight *w = new_weight(s->e, a, b, c, given);
    int64_t n = a * b * (c ? c : 1);
    *copy = malloc((size_t)n * sizeof **copy);
    assert_non_null(*copy);
    seed = begin;
    for (int64_t i = 0; i < n; i++) (*copy)[i] = uniform();
    return w;
}

static setting set_up(const char *engine_name, int threads, bool whole_keys) {
    setting s = {.e = engine_open(engine_name, &(engine_options){.threads = threads})};
    if (!s.e) {
        print_message("not run: %s\n", error_message());
        skip();
    }
    s.table = weight_and_copy(&s, SEQUENCES * LONGEST, WIDE, 0, &s.given, &s.x);
    s.spec = (latent_spec){.scale = (float)SCALE, .whole_keys = whole_keys};
    s.spec.embed_q = weight_and_copy(&s, HEADS, RANK, NOPE, &s.given_q, &s.embed_q);
    s.spec.unembed_out = weight_and_copy(&s, HEADS, V_DIM, RANK, &s.given_out, &s.unembed_out);
    return s;
}

static void tear_down(setting *s) {
    assert_int_equal(engine_memory_used(s->e).kv, 0);
    engine_drop_weights(s->e);
    engine_close(s->e);
    free(s->given), free(s->x), free(s->embed_q), free(s->unembed_out), free(s->given_q), free(s->given_out);
}

static const float *row_of(const setting *s, int q, int t) {
    return s->x + (int64_t)(q * LONGEST + t) * WIDE;
}

static double score(const setting *s, const float *from, const float *entry, int h) {
    const float *latent = entry + QUERY + QUERY_PE, *embed_q = s->embed_q + h * RANK * NOPE;
    double sum = 0;
    for (int c = 0; c < RANK; c++)
        for (int i = 0; i < NOPE; i++) sum += (double)latent[c] * embed_q[c * NOPE + i] * from[h * NOPE + i];
    for (int i = 0; i < PE; i++) sum += (double)from[QUERY + h * PE + i] * latent[RANK + i];
    return sum * SCALE;
}

static double index_score(const setting *s, int q, int t, int k) {
    const float *from = row_of(s, q, t), *key = row_of(s, q, k) + INDEX_KEY;
    double all = 0;
    for (int h = 0; h < INDEX_HEADS; h++) {
        double sum = 0;
        for (int i = 0; i < INDEX_DIM; i++) sum += (double)from[INDEX + h * INDEX_DIM + i] * key[i];
        all += from[INDEX_WEIGHTS + h] * fmax(sum, 0);
    }
    return all;
}

/* Whether entry k is among the TOPK that token t selects of those up to itself: of equal ones the
 * later. */
static bool is_selected(const setting *s, int q, int t, int k) {
    int better = 0;
    double own = index_score(s, q, t, k);
    for (int i = 0; i <= t; i++) {
        double other = index_score(s, q, t, i);
        better += other > own || (other == own && i > k);
    }
    return better < TOPK;
}

/* Token t of sequence q, which sees tokens [low, t], or of these those that it selects; out [HEADS
 * * V_DIM].
 */
static void reference(const setting *s, int q, int low, int t, bool selects, double *out) {
    static double scores[LONGEST];
    static bool seen[LONGEST];
    for (int k = low; k <= t; k++) seen[k] = !selects || is_selected(s, q, t, k);
    for (int h = 0; h < HEADS; h++) {
        double max = -INFINITY, sum = 0, mean[RANK] = {0};
        for (int k = low; k <= t; k++) {
            scores[k] = seen[k] ? score(s, row_of(s, q, t), row_of(s, q, k), h) : -INFINITY;
            max = fmax(max, scores[k]);
        }
        for (int k = low; k <= t; k++) {
            double p = exp(scores[k] - max);
            sum += p;
            for (int c = 0; c < RANK; c++) mean[c] += p * row_of(s, q, k)[QUERY + QUERY_PE + c];
        }
        for (int v = 0; v < V_DIM; v++) {
            out[h * V_DIM + v] = 0;
            for (int c = 0; c < RANK; c++)
                out[h * V_DIM + v] += mean[c] / sum * s->unembed_out[(h * V_DIM + v) * RANK + c];
        }
    }
}

/* index: the cache that selects; NULL: there is none. */
static tensor record(const setting *s, graph *g, cache *c, cache *index, const int32_t *ids, int n) {
    tensor x = embed(g, tokens(g, ids, n), s->table);
    latent_inputs in = {.q_nope = heads(g, part(g, x, 0, QUERY), HEADS),
                        .q_pe = heads(g, part(g, x, QUERY, QUERY_PE), HEADS),
                        .latent = heads(g, part(g, x, QUERY + QUERY_PE, RANK), 1),
                        .k_pe = heads(g, part(g, x, QUERY + QUERY_PE + RANK, PE), 1)};
    if (index)
        in.selected = select_entries(
            g, index, heads(g, part(g, x, INDEX, INDEX_HEADS * INDEX_DIM), INDEX_HEADS),
            heads(g, part(g, x, INDEX_KEY, INDEX_DIM), 1), part(g, x, INDEX_WEIGHTS, INDEX_HEADS), TOPK);
    return attend_latent(g, c, &in, &s->spec);
}

/* Tokens [first, first + n) of each sequence; the last one is compared, which sees `window`
 * entries. */
static void check_step(const setting *s, cache *c, cache *index, int n_sequences, int first, int n,
                       int window) {
    int32_t ids[SEQUENCES * LONGEST];
    int64_t count = (int64_t)n_sequences * n * HEADS * V_DIM;
    float *found = malloc((size_t)count * sizeof *found);
    assert_non_null(found);
    for (int q = 0; q < n_sequences; q++)
        for (int t = 0; t < n; t++) ids[q * n + t] = q * LONGEST + first + t;
    graph *g = graph_begin(s->e, n_sequences);
    finish(g, record(s, g, c, index, ids, n_sequences * n), found, count);
    for (int q = 0; q < n_sequences; q++)
        for (int t = n > 40 ? n - 40 : 0; t < n; t++) {
            double wanted[HEADS * V_DIM];
            int low = window && first + t + 1 > window ? first + t + 1 - window : 0;
            reference(s, q, low, first + t, index != NULL, wanted);
            check_close(found + (int64_t)(q * n + t) * HEADS * V_DIM, wanted, HEADS * V_DIM, 2e-4);
        }
    free(found);
    assert_int_equal(c->offset, first + n);
}

static const cache_spec latents = {.latent = true, .n_kv_heads = 1, .head_dim = RANK, .v_head_dim = PE};

static void check_engine(const char *name, int threads, bool whole_keys) {
    static const int steps[] = {1, 1, 7, 1, 130, 1, 2, 400, 1, 1};
    setting s = set_up(name, threads, whole_keys);
    for (int n_sequences = 1; n_sequences <= SEQUENCES; n_sequences++) {
        cache_spec spec = latents;
        spec.n_sequences = n_sequences;
        cache *c = cache_new(s.e, &spec), *copy = cache_new(s.e, &spec);
        assert_true(c && copy);
        int at = 0, copied = 0;
        for (size_t i = 0; i < COUNT(steps); at += steps[i++]) {
            if (i == 5) {
                assert_int_equal(cache_copy(s.e, copy, c), 0);
                copied = at;
            }
            check_step(&s, c, NULL, n_sequences, at, steps[i], 0);
        }
        check_step(&s, copy, NULL, n_sequences, copied, 1, 0);
        check_step(&s, copy, NULL, n_sequences, copied + 1, 3, 0);
        assert_int_equal(cache_quantize(s.e, c, 8, 8), -1);
        cache_free(s.e, c);
        cache_free(s.e, copy);
    }
    cache_spec rotating = latents;
    rotating.max_size = 12;
    cache *c = cache_new(s.e, &rotating);
    assert_non_null(c);
    static const int turns[] = {1, 1, 5, 9, 1, 1, 1, 20, 1};
    int at = 0;
    for (size_t i = 0; i < COUNT(turns); at += turns[i++]) check_step(&s, c, NULL, 1, at, turns[i], 12);
    cache_free(s.e, c);
    tear_down(&s);
}

static void check_selecting(const char *name, int threads) {
    static const int steps[] = {1, 7, 30, 1, 1, 300, 1, 17, 1, 1};
    setting s = set_up(name, threads, false);
    for (int n_sequences = 1; n_sequences <= SEQUENCES; n_sequences++) {
        cache_spec spec = latents, keys = {.n_kv_heads = 1, .head_dim = INDEX_DIM};
        spec.n_sequences = keys.n_sequences = n_sequences;
        cache *c = cache_new(s.e, &spec), *index = cache_new(s.e, &keys);
        assert_true(c && index);
        int at = 0;
        for (size_t i = 0; i < COUNT(steps); at += steps[i++])
            check_step(&s, c, index, n_sequences, at, steps[i], 0);
        assert_int_equal(index->offset, at);
        cache_free(s.e, c);
        cache_free(s.e, index);
    }
    tear_down(&s);
}

static void test_cpu(void **state) {
    (void)state;
    for (int threads = 1; threads <= 3; threads++)
        check_engine("cpu", threads, false), check_selecting("cpu", threads);
}

static void test_mlx(void **state) {
    (void)state;
    check_engine("mlx", 0, false);
    check_engine("mlx", 0, true);
    check_selecting("mlx", 0);
}

static void refused(const setting *s, cache_spec spec) {
    int32_t id = 0;
    cache *c = cache_new(s->e, &spec);
    assert_non_null(c);
    graph *g = graph_begin(s->e, 1);
    tensor x = record(s, g, c, NULL, &id, 1);
    assert_true(graph_failed(g));
    assert_int_equal(graph_end(g, 1, &x, &(result *){NULL}), -1);
    assert_non_null(strstr(error_message(), "attend_latent"));
    cache_free(s->e, c);
}

static void test_refused(void **state) {
    (void)state;
    setting s = set_up("cpu", 1, false);
    cache_spec wrong = latents;
    wrong.latent = false;
    refused(&s, wrong);
    wrong = latents;
    wrong.head_dim = RANK + 8;
    refused(&s, wrong);
    const weight *right = s.spec.unembed_out;
    s.spec.unembed_out = s.spec.embed_q;
    refused(&s, latents);
    s.spec.unembed_out = right;
    tear_down(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cpu), cmocka_unit_test(test_mlx),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
