/* test_engine_model.c - what a model's steps rely on: experts, any number of threads, memory that
 * stays flat. A made-up layer of every operation is run as a prompt and token by token. */
#include "engine/cpu/kernels/kernels.h"
#include "engine_values.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

/* ---- experts ---- */

enum { EXPERTS = 6, D = 40, INNER = 24, TOKENS = 300 };

static double activated(activation act, double x) {
    if (act == ACT_RELU2) return x > 0 ? x * x : 0;
    double u = act == ACT_SILU ? x : 2 * sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x);
    return x / (1 + exp(-u));
}

static double dot(const double *x, const float *w, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * w[i];
    return sum;
}

/* out += share * the MLP of one expert: gate (NULL: none), up [INNER, D], down [D, INNER] */
static void add_expert(double *out, double share, activation act, const double *x, const float *gate,
                       const float *up, const float *down) {
    double inner[INNER];
    for (int i = 0; i < INNER; i++) {
        double own = dot(x, up + i * D, D);
        inner[i] = gate ? activated(act, dot(x, gate + i * D, D)) * own : activated(act, own);
    }
    for (int i = 0; i < D; i++) out[i] += share * dot(inner, down + i * INNER, INNER);
}

/* The k largest of p; ties to the lowest index. */
static void reference_token(double *out, const double *x, const double *logits, int k, bool renormalize,
                            activation act, float *const w[3]) {
    double sum = 0, chosen = 0, p[EXPERTS];
    int best[EXPERTS];
    for (int i = 0; i < EXPERTS; i++) sum += p[i] = exp(logits[i]);
    for (int j = 0; j < k; j++) {
        best[j] = 0;
        for (int i = 1; i < EXPERTS; i++)
            if (p[i] > p[best[j]]) best[j] = i;
        chosen += exp(logits[best[j]]) / sum;
        p[best[j]] = -1;
    }
    for (int i = 0; i < D; i++) out[i] = 0;
    for (int j = 0; j < k; j++) {
        int at = best[j] * INNER * D;
        double share = exp(logits[best[j]]) / sum / (renormalize ? chosen : 1);
        add_expert(out, share, act, x, w[0] ? w[0] + at : NULL, w[1] + at, w[2] + at);
    }
}

static void check_experts(engine *e, int n_tokens, int k, bool renormalize, activation act) {
    float *table, *router, *w[3] = {NULL}, *found = malloc(TOKENS * D * sizeof *found);
    double *wanted = malloc(TOKENS * D * sizeof *wanted);
    assert_true(found && wanted);
    const weight *wx = new_weight(e, TOKENS, D, 0, &table), *wr = new_weight(e, EXPERTS, D, 0, &router);
    const weight *gate = act == ACT_RELU2 ? NULL : new_weight(e, EXPERTS, INNER, D, &w[0]),
                 *up = new_weight(e, EXPERTS, INNER, D, &w[1]);
    const weight *down = new_weight(e, EXPERTS, D, INNER, &w[2]);
    memcpy(router + 3 * D, router + D, D * sizeof *router); /* experts 1 and 3 always tie */
    graph *g = graph_begin(e, 1);
    tensor x = rows_of(g, wx, 0, n_tokens),
           routing =
               route(g, linear(g, x, wr), &(route_spec){.k = k, .renormalize = renormalize, .last = true});
    finish(g, experts(g, x, routing, act, gate, up, down), found, n_tokens * D);
    for (int t = 0; t < n_tokens; t++) {
        double in[D], logits[EXPERTS];
        for (int i = 0; i < D; i++) in[i] = table[t * D + i];
        for (int i = 0; i < EXPERTS; i++) logits[i] = dot(in, router + i * D, D);
        reference_token(wanted + t * D, in, logits, k, renormalize, act, w);
    }
    check_close(found, wanted, n_tokens * D,
                1e-3); /* of values up to hundreds: sums of 24 products of sums of 40 */
    engine_drop_weights(e);
    free(table), free(router), free(w[0]), free(w[1]), free(w[2]), free(found), free(wanted);
}

static void test_experts(void **state) {
    (void)state;
    static const int counts[] = {1, 2, 5, 17, TOKENS};
    for (int threads = 1; threads <= 3; threads += 2) {
        engine *e = open_cpu(threads);
        for (size_t i = 0; i < COUNT(counts); i++)
            for (int k = 1; k <= EXPERTS; k += k == 1 ? 1 : 4)
                for (int renormalize = 0; renormalize < 2; renormalize++)
                    for (int a = 0; a < 2; a++)
                        check_experts(e, counts[i], k, renormalize,
                                      a        ? ACT_RELU2
                                      : k == 2 ? ACT_GELU_TANH
                                               : ACT_SILU);
        engine_close(e);
    }
}

/* ---- a model of one layer ---- */

enum { WIDTH = 64, N_HEADS = 4, N_KV = 2, HEAD = 16, MLP = 96, VOCABULARY = 5000, N_WEIGHTS = 13 };

/* Shapes of: embedding, q, k, v, o, gate, up, down, norm, router, experts' gate, up, down */
static const int64_t shapes[N_WEIGHTS][3] = {
    {VOCABULARY, WIDTH},
    {N_HEADS * HEAD, WIDTH},
    {N_KV * HEAD, WIDTH},
    {N_KV * HEAD, WIDTH},
    {WIDTH, N_HEADS *HEAD},
    {MLP, WIDTH},
    {MLP, WIDTH},
    {WIDTH, MLP},
    {WIDTH},
    {EXPERTS, WIDTH},
    {EXPERTS, 32, WIDTH},
    {EXPERTS, 32, WIDTH},
    {EXPERTS, WIDTH, 32},
};

typedef struct layer {
    engine *e;
    const weight *w[N_WEIGHTS];
    void *memory[N_WEIGHTS][3];
    float freqs[HEAD / 2];
    rope_spec rope;
    struct cache *cache;
} layer;

/* The random numbers of weight i, plain or quantized to 4 bits; the same for every engine. */
static void make_weight(layer *m, int i, bool affine) {
    int rank = shapes[i][2] ? 3 : shapes[i][1] ? 2 : 1;
    int64_t n = 1, in = shapes[i][rank - 1];
    for (int d = 0; d < rank; d++) n *= shapes[i][d];
    float *x = malloc((size_t)n * sizeof *x);
    assert_non_null(x);
    for (int64_t k = 0; k < n; k++) x[k] = uniform() / 8;
    weight_source s = {.name = "w", .m = {.rank = rank}};
    memcpy(s.m.shape, shapes[i], sizeof shapes[i]);
    s.m.values = (array){.dtype = DTYPE_F32, .rank = rank, .data = m->memory[i][0] = x};
    memcpy(s.m.values.shape, shapes[i], sizeof shapes[i]);
    if (affine && rank > 1) {
        m->memory[i][0] = malloc((size_t)n / 2);
        m->memory[i][1] = malloc((size_t)n / 32 * 2);
        m->memory[i][2] = malloc((size_t)n / 32 * 2);
        assert_true(m->memory[i][0] && m->memory[i][1] && m->memory[i][2]);
        quantize_row(m->memory[i][0], m->memory[i][1], m->memory[i][2], DTYPE_BF16, x, n, 4, 32);
        free(x);
        s.m.kind = MATRIX_AFFINE;
        s.m.bits = 4;
        s.m.group_size = 32;
        s.m.values.dtype = DTYPE_U32;
        s.m.values.shape[rank - 1] = in / 8;
        s.m.values.data = m->memory[i][0];
        s.m.scales = s.m.biases = s.m.values;
        s.m.scales.dtype = s.m.biases.dtype = DTYPE_BF16;
        s.m.scales.shape[rank - 1] = s.m.biases.shape[rank - 1] = in / 32;
        s.m.scales.data = m->memory[i][1];
        s.m.biases.data = m->memory[i][2];
    }
    m->w[i] = engine_weight(m->e, &s);
    assert_non_null(m->w[i]);
}

static layer *new_layer(int threads, bool affine) {
    layer *m = calloc(1, sizeof *m);
    assert_non_null(m);
    m->e = open_cpu(threads);
    seed = 7;
    for (int i = 0; i < N_WEIGHTS; i++) make_weight(m, i, affine);
    for (int i = 0; i < HEAD / 2; i++) m->freqs[i] = powf(10000, (float)i / (HEAD / 2));
    m->rope = (rope_spec){.dims = HEAD, .scale = 1, .mscale = 1, .freqs = m->freqs};
    m->cache = cache_new(
        m->e,
        &(cache_spec){
            .n_kv_heads = N_KV, .head_dim = HEAD, .v_head_dim = HEAD, .dtype = DTYPE_BF16, .capacity = 1000});
    assert_non_null(m->cache);
    return m;
}

static void free_layer(layer *m) {
    assert_true(engine_memory_used(m->e).weights > 0 && engine_memory_used(m->e).kv > 0);
    cache_free(m->e, m->cache);
    engine_drop_weights(m->e);
    engine_memory used = engine_memory_used(m->e);
    assert_int_equal(used.weights, 0);
    assert_int_equal(used.kv, 0);
    assert_true(used.peak >= used.scratch);
    engine_close(m->e);
    for (int i = 0; i < N_WEIGHTS; i++)
        for (int k = 0; k < 3; k++) free(m->memory[i][k]);
    free(m);
}

/* Log-probabilities [L, V] after the ids. */
static tensor forward(graph *g, const layer *m, tensor ids) {
    const weight *const *w = m->w;
    tensor x = embed(g, ids, w[0]), h = rms_norm(g, x, w[8], 1e-5f), q, k, v;
    linears(g, h, 3, (const weight *[]){w[1], w[2], w[3]}, (tensor *[]){&q, &k, &v});
    q = rope(g, heads(g, q, N_HEADS), &m->rope, m->cache);
    k = rope(g, heads(g, k, N_KV), &m->rope, m->cache);
    x = add(g, x,
            linear(g, attend(g, m->cache, q, k, heads(g, v, N_KV), &(attend_spec){.scale = .25f}), w[4]));
    h = rms_norm(g, x, w[8], 1e-5f);
    x = add_clipped(g, x, linear(g, gated(g, ACT_GELU_TANH, linear(g, h, w[5]), linear(g, h, w[6])), w[7]));
    h = rms_norm(g, x, NULL, 1e-5f);
    x = add(g, x,
            experts(g, h,
                    route(g, linear(g, h, w[9]), &(route_spec){.k = 2, .renormalize = true, .last = true}),
                    ACT_SILU, w[10], w[11], w[12]));
    return logprobs(g, scale(g, linear(g, x, w[0]), 3));
}

enum { PROMPT = 40, PASSAGE = 560, STEPS = 6 };

/* Some tokens' log-probabilities: of a prompt, then, after a long passage, of single tokens and
 * their choice.
 */
static float *run_layer(const layer *m) {
    float *out = malloc((PROMPT + STEPS) * VOCABULARY * sizeof *out);
    int32_t ids[PASSAGE];
    assert_non_null(out);
    for (int i = 0; i < PASSAGE; i++) ids[i] = i * 37 % VOCABULARY;
    graph *g = graph_begin(m->e, 1);
    finish(g, forward(g, m, tokens(g, ids, PROMPT)), out, PROMPT * VOCABULARY);
    g = graph_begin(m->e, 1);
    forward(g, m, tokens(g, ids, PASSAGE)); /* beyond what one thread attends to at once */
    assert_int_equal(graph_end(g, 0, NULL, NULL), 0);
    result *last = NULL;
    for (int i = 0; i < STEPS; i++) {
        g = graph_begin(m->e, 1);
        tensor p = forward(g, m, last ? token_result(g, last) : tokens(g, ids, 1));
        result *results[2];
        assert_int_equal(graph_end(g, 2, (tensor[]){p, argmax(g, p)}, results), 0);
        assert_int_equal(result_read(results[0], out + (PROMPT + i) * VOCABULARY, VOCABULARY), 0);
        result_free(results[0]);
        result_free(last);
        last = results[1];
    }
    result_free(last);
    return out;
}

/* How work is shared out must not change a single bit. */
static void test_threads(void **state) {
    (void)state;
    for (int affine = 0; affine < 2; affine++) {
        float *first = NULL;
        for (int threads = 1; threads <= 3; threads++) {
            layer *m = new_layer(threads, affine);
            float *found = run_layer(m);
            free_layer(m);
            for (int i = 0; i < (PROMPT + STEPS) * VOCABULARY && first; i++)
                if (memcmp(&found[i], &first[i], sizeof *found))
                    fail_msg("%d threads, %s: row %d, element %d is %.9g, with one thread %.9g", threads,
                             affine ? "4 bits" : "F32", i / VOCABULARY, i % VOCABULARY, found[i], first[i]);
            if (first)
                free(found);
            else
                first = found;
        }
        for (int t = 0; t < PROMPT + STEPS; t++) { /* and they are log-probabilities */
            double sum = 0;
            for (int i = 0; i < VOCABULARY; i++) sum += exp(first[t * VOCABULARY + i]);
            assert_true(fabs(sum - 1) < 1e-4);
        }
        free(first);
    }
}

/* ---- memory ---- */

static result *decode(const layer *m, result *last) {
    graph *g = graph_begin(m->e, 1);
    tensor next = argmax(g, forward(g, m, last ? token_result(g, last) : tokens(g, (int32_t[]){1}, 1)));
    result *r;
    assert_int_equal(graph_end(g, 1, &next, &r), 0);
    result_free(last);
    return r;
}

static size_t heap_in_use(void) {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    struct mallinfo2 info = mallinfo2();
    if (!info.uordblks)
        print_message("heap: not checked, a sanitizer's allocator does not say what is in use\n");
    return info.uordblks + info.hblkhd;
#else
    print_message("heap: not checked, only glibc says what is in use\n");
    return 0;
#endif
}

/* Once warm, a token leaves nothing behind, neither in the engine's accounts nor on the heap. */
static void test_flat_memory(void **state) {
    (void)state;
    layer *m = new_layer(2, true);
    result *last = NULL;
    for (int i = 0; i < 5; i++) last = decode(m, last);
    engine_memory before = engine_memory_used(m->e);
    size_t heap = heap_in_use();
    for (int i = 0; i < 50; i++) last = decode(m, last);
    assert_int_equal(heap_in_use(), heap);
    engine_memory after = engine_memory_used(m->e);
    assert_int_equal(after.weights, before.weights);
    assert_int_equal(after.kv, before.kv);
    assert_int_equal(after.scratch, before.scratch);
    assert_int_equal(after.peak, before.peak);
    engine_reset_peak(m->e);
    after = engine_memory_used(m->e);
    assert_int_equal(after.peak, after.weights + after.kv + after.scratch);
    last = decode(m, last); /* and it works without its scratch */
    result_free(last);
    free_layer(m);
}

/* Other threads: weights and caches stay. */
static void test_configure(void **state) {
    (void)state;
    layer *m = new_layer(1, false);
    result *last = decode(m, NULL);
    for (int threads = 3; threads >= 1; threads--) {
        assert_int_equal(engine_configure(m->e, &(engine_options){.threads = threads}), 0);
        assert_int_equal(engine_describe(m->e).threads, threads);
        last = decode(m, last);
    }
    assert_int_equal(m->cache->offset, 4);
    result_free(last);
    free_layer(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_experts),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_flat_memory),
        cmocka_unit_test(test_configure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
