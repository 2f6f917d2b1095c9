/* test_engine.c - engine/cpu through engine.h: mistakes, ids, results, and the memory plan.
 * A mistake gives one message and leaves the engine usable; values in shared memory never overwrite
 * each other. */
#include "engine_values.h"

#include <stdio.h>

/* ---- mistakes ---- */

/* An engine with some weights that mistakes are made with. */
typedef struct bench {
    engine *e;
    const weight *table, *square, *wide, *norm, *gate,
        *down; /* [10, 8], [8, 8], [12, 9], [8], [4, 6, 8], [4, 8, 6] */
    float *values[6];
    struct cache *cache;
} bench;

static bench new_bench(void) {
    bench b = {.e = open_cpu(2)};
    b.table = new_weight(b.e, 10, 8, 0, &b.values[0]);
    b.square = new_weight(b.e, 8, 8, 0, &b.values[1]);
    b.wide = new_weight(b.e, 12, 9, 0, &b.values[2]);
    b.norm = new_weight(b.e, 8, 0, 0, &b.values[3]);
    b.gate = new_weight(b.e, 4, 6, 8, &b.values[4]);
    b.down = new_weight(b.e, 4, 8, 6, &b.values[5]);
    b.cache =
        cache_new(b.e, &(cache_spec){.n_kv_heads = 2, .head_dim = 4, .v_head_dim = 4, .dtype = DTYPE_F32});
    assert_non_null(b.cache);
    return b;
}

static void free_bench(bench *b) {
    cache_free(b->e, b->cache);
    engine_drop_weights(b->e);
    assert_int_equal(engine_memory_used(b->e).weights, 0);
    assert_int_equal(engine_memory_used(b->e).kv, 0);
    engine_close(b->e);
    for (int i = 0; i < 6; i++) free(b->values[i]);
}

/* The engine still works. */
static void check_alive(const bench *b) {
    float out[3 * 8];
    graph *g = graph_begin(b->e, 1);
    finish(g, rows_of(g, b->table, 2, 3), out, 24);
    assert_memory_equal(out, b->values[0] + 16, sizeof out);
}

static tensor linear_mistake(graph *g, const bench *b, tensor x) {
    return linear(g, x, b->wide);
}
static tensor norm_mistake(graph *g, const bench *b, tensor x) {
    return rms_norm(g, linear(g, heads(g, x, 2), b->square), b->norm, 1e-6f);
}
static tensor norm_weight_mistake(graph *g, const bench *b, tensor x) {
    (void)b;
    return rms_norm(g, x, b->square, 1e-6f);
}
static tensor heads_mistake(graph *g, const bench *b, tensor x) {
    (void)b;
    return heads(g, x, 3);
}
static tensor rope_mistake(graph *g, const bench *b, tensor x) {
    static const float freqs[4] = {1, 2, 3, 4};
    static const rope_spec spec = {.dims = 8, .scale = 1, .mscale = 1, .freqs = freqs};
    return rope(g, heads(g, x, 2), &spec, b->cache);
}
static tensor keys_mistake(graph *g, const bench *b, tensor x) {
    return attend(g, b->cache, heads(g, x, 2), heads(g, x, 4), heads(g, x, 2), &(attend_spec){.scale = 1});
}
static tensor queries_mistake(graph *g, const bench *b, tensor x) {
    return attend(g, b->cache, heads(g, x, 1), heads(g, x, 2), heads(g, x, 2), &(attend_spec){.scale = 1});
}
static tensor values_mistake(graph *g, const bench *b, tensor x) {
    return attend(g, b->cache, heads(g, x, 2), heads(g, x, 2), heads(g, rows_of(g, b->table, 0, 1), 2),
                  &(attend_spec){.scale = 1});
}
static tensor gated_mistake(graph *g, const bench *b, tensor x) {
    return gated(g, ACT_SILU, x, rows_of(g, b->table, 0, 1));
}
static tensor add_mistake(graph *g, const bench *b, tensor x) {
    (void)b;
    return add(g, x, heads(g, x, 2));
}
static tensor route_mistake(graph *g, const bench *b, tensor x) {
    (void)b;
    return route(g, x, &(route_spec){.k = 9, .renormalize = true, .last = true});
}
static tensor experts_mistake(graph *g, const bench *b, tensor x) {
    return experts(g, x, route(g, x, &(route_spec){.k = 2, .renormalize = true, .last = true}), ACT_SILU,
                   b->gate, b->gate, b->down); /* 8 logits, 4 experts */
}
static tensor argmax_mistake(graph *g, const bench *b, tensor x) {
    (void)b;
    return argmax(g, heads(g, x, 2));
}
static tensor embed_mistake(graph *g, const bench *b, tensor x) {
    return embed(g, x, b->table); /* floats are no ids */
}
static tensor groups_mistake(graph *g, const bench *b, tensor x) {
    (void)b;
    return route(g, x, &(route_spec){.k = 2, .n_group = 3, .topk_group = 1});
}
static tensor product_mistake(graph *g, const bench *b, tensor x) {
    (void)b;
    return product(g, x, part(g, x, 0, 3));
}
static tensor part_mistake(graph *g, const bench *b, tensor x) {
    (void)b;
    return part(g, x, 7, 2);
}
static tensor flatten_mistake(graph *g, const bench *b, tensor x) {
    (void)b;
    return flatten(g, x);
}
static tensor activate_mistake(graph *g, const bench *b, tensor x) {
    (void)b;
    return activate(g, ACT_OAI, x);
}
static tensor weighed_input_mistake(graph *g, const bench *b, tensor x) {
    (void)b;
    return route(g, x, &(route_spec){.k = 2, .score = SCORE_TOP_SIGMOID, .on_input = true});
}
static tensor xielu_mistake(graph *g, const bench *b, tensor x) {
    return xielu(g, x, &(xielu_spec){b->norm, b->norm, b->norm, b->norm});
}
static const struct {
    const char *word; /* of the message */
    tensor (*make)(graph *g, const bench *b, tensor x);
} mistakes[] = {
    {"linear", linear_mistake},     {"linear", norm_mistake},         {"rms_norm", norm_weight_mistake},
    {"heads", heads_mistake},       {"rope", rope_mistake},           {"keys", keys_mistake},
    {"values", values_mistake},     {"queries", queries_mistake},     {"gated", gated_mistake},
    {"add", add_mistake},           {"route", route_mistake},         {"experts", experts_mistake},
    {"argmax", argmax_mistake},     {"embed", embed_mistake},         {"route", groups_mistake},
    {"product", product_mistake},   {"part", part_mistake},           {"flatten", flatten_mistake},
    {"activate", activate_mistake}, {"input", weighed_input_mistake}, {"xielu", xielu_mistake},
};

static void test_mistakes(void **state) {
    (void)state;
    bench b = new_bench();
    for (size_t i = 0; i < COUNT(mistakes); i++) {
        error_clear();
        graph *g = graph_begin(b.e, 1);
        tensor x = mistakes[i].make(g, &b, rows_of(g, b.table, 0, 3));
        if (!graph_failed(g)) fail_msg("mistake %d, %s: not refused", (int)i, mistakes[i].word);
        if (!strstr(error_message(), mistakes[i].word))
            fail_msg("\"%s\" does not name %s", error_message(), mistakes[i].word);
        char first[256];
        snprintf(first, sizeof first, "%s", error_message());
        x = add(g, linear(g, rms_norm(g, x, b.norm, 1e-6f), b.square), x); /* code after it goes on */
        x = argmax(g, logprobs(g, scale(g, gated(g, ACT_SILU, x, x), 2)));
        assert_int_equal(tensor_dim(x, 0), 0);
        result *r = NULL;
        assert_int_equal(graph_end(g, 1, &x, &r), -1);
        assert_null(r);
        assert_string_equal(error_message(), first);
        check_alive(&b);
    }
    free_bench(&b);
}

static void refuse_ids(const bench *b, const int32_t *ids, int64_t n, const char *word) {
    graph *g = graph_begin(b->e, 1);
    tensor x = linear(g, embed(g, tokens(g, ids, n), b->table), b->square);
    result *r = NULL;
    error_clear();
    assert_int_equal(graph_end(g, 1, &x, &r), -1);
    assert_null(r);
    assert_non_null(strstr(error_message(), word));
    check_alive(b);
}

static void test_ids(void **state) {
    (void)state;
    bench b = new_bench();
    refuse_ids(&b, (int32_t[]){0, 9, 10}, 3, " 10 ");
    refuse_ids(&b, (int32_t[]){-1}, 1, " -1 ");
    refuse_ids(&b, (int32_t[]){INT32_MAX, 0}, 2, "2147483647");
    graph *g = graph_begin(b.e, 1);
    tensor x = argmax(g, rows_of(g, b.table, 0, 4));
    result *best, *r = NULL;
    assert_int_equal(graph_end(g, 1, &x, &best), 0);
    int32_t ids[4];
    assert_int_equal(result_read(best, ids, 4), 0);
    for (int t = 0; t < 4; t++)
        for (int i = 0; i < 8; i++) assert_true(b.values[0][t * 8 + i] <= b.values[0][t * 8 + ids[t]]);
    g = graph_begin(b.e, 1);
    float out[4 * 8];
    finish(g, embed(g, token_result(g, best), b.table), out, 32);
    for (int t = 0; t < 4; t++) assert_memory_equal(out + t * 8, b.values[0] + ids[t] * 8, 8 * sizeof *out);
    g = graph_begin(b.e, 1); /* without leaving the graph */
    finish(g, embed(g, argmax(g, rows_of(g, b.table, 0, 4)), b.table), out, 32);
    for (int t = 0; t < 4; t++) assert_memory_equal(out + t * 8, b.values[0] + ids[t] * 8, 8 * sizeof *out);
    g = graph_begin(b.e, 1); /* any of the 10 rows could be the best: the table with 8 has not all */
    x = embed(g, argmax(g, linear(g, rows_of(g, b.table, 0, 4), b.table)), b.square);
    assert_int_equal(graph_end(g, 1, &x, &r), -1);
    result_free(best);
    free_bench(&b);
}

static void test_result(void **state) {
    (void)state;
    bench b = new_bench();
    graph *g = graph_begin(b.e, 1);
    tensor x = rows_of(g, b.table, 0, 3);
    result *r;
    assert_int_equal(graph_end(g, 1, &x, &r), 0);
    float out[25];
    assert_int_equal(result_read(r, out, 23), -1);
    assert_int_equal(result_read(r, out, 25), -1);
    assert_int_equal(result_read(r, out, 24), 0);
    assert_memory_equal(out, b.values[0], 24 * sizeof *out);
    result_free(r);
    result_free(NULL);
    free_bench(&b);
}

/* ---- the memory plan ---- */

enum { NODES = 600, KINDS = 3, OUTPUTS = 40, VIEWED = 1 };
static const int64_t sizes[KINDS][2] = {
    {1, 8}, {3, 40}, {5, 2000}}; /* pieces for one thread, and for several */

typedef struct value {
    tensor x;
    int kind;
    float *wanted;
} value;

static int below(int n) {
    return (int)((uniform() + 1) / 2 * (float)n);
}

/* A value made of random earlier ones of its kind, recent or old; the reference does the same float
 * operations. */
static value grow_value(graph *g, const value *values, int n) {
    const value *a = &values[below(n)], *b = &values[below(3) ? n - 1 - below(n < 9 ? n : 9) : below(n)];
    if (a->kind != b->kind) b = a;
    int64_t count = sizes[a->kind][0] * sizes[a->kind][1];
    value v = {.kind = a->kind, .wanted = malloc((size_t)count * sizeof(float))};
    assert_non_null(v.wanted);
    bool halve = below(3) == 0;
    v.x = halve ? scale(g, a->x, -.5f) : add(g, a->x, b->x);
    for (int64_t i = 0; i < count; i++)
        v.wanted[i] = halve ? a->wanted[i] * -.5f : a->wanted[i] + b->wanted[i];
    return v;
}

static void check_output(result *r, const value *v) {
    static float found[5 * 2000];
    int64_t count = sizes[v->kind][0] * sizes[v->kind][1];
    assert_int_equal(result_read(r, found, count), 0);
    for (int64_t i = 0; i < count; i++)
        if (!(found[i] == v->wanted[i] && isfinite(found[i])))
            fail_msg("element %d is %g, wants %g", (int)i, found[i], v->wanted[i]);
    result_free(r);
}

/* If two live values shared memory, some output would be wrong: sums are compared to the bit. */
static void check_plan(engine *e, const weight *const w[KINDS], float *const tables[KINDS]) {
    value values[NODES];
    tensor outputs[OUTPUTS];
    result *results[OUTPUTS];
    int chosen[OUTPUTS];
    graph *g = graph_begin(e, 1);
    for (int k = 0; k < KINDS; k++)
        values[k] = (value){.x = rows_of(g, w[k], 0, sizes[k][0]), .kind = k, .wanted = tables[k]};
    values[VIEWED].x = heads(g, values[VIEWED].x, 4); /* a view that is read much later */
    for (int n = KINDS; n < NODES; n++) values[n] = grow_value(g, values, n);
    for (int i = 0; i < OUTPUTS; i++) {
        chosen[i] = i < 2   ? 2 * i
                    : i < 6 ? NODES - 1
                            : below(NODES); /* inputs, and one value more than once */
        outputs[i] = values[chosen[i]].x;
        if (i % 4 == 3 && values[chosen[i]].kind != VIEWED)
            outputs[i] = heads(g, outputs[i], 2); /* as a view */
    }
    assert_int_equal(graph_end(g, OUTPUTS, outputs, results), 0);
    for (int i = 0; i < OUTPUTS; i++) check_output(results[i], &values[chosen[i]]);
    for (int i = KINDS; i < NODES; i++) free(values[i].wanted);
}

static void test_plan(void **state) {
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        engine *e = open_cpu(threads);
        const weight *w[KINDS];
        float *tables[KINDS];
        for (int k = 0; k < KINDS; k++) w[k] = new_weight(e, sizes[k][0], sizes[k][1], 0, &tables[k]);
        for (int i = 0; i < 15; i++) check_plan(e, w, tables);
        engine_drop_weights(e);
        engine_close(e);
        for (int k = 0; k < KINDS; k++) free(tables[k]);
    }
}

/* Ids are values, too. */
static void test_id_outputs(void **state) {
    (void)state;
    bench b = new_bench();
    graph *g = graph_begin(b.e, 1);
    tensor ids = tokens(g, (int32_t[]){7, 3}, 2), outputs[] = {ids, embed(g, ids, b.table), ids};
    result *results[3];
    assert_int_equal(graph_end(g, 3, outputs, results), 0);
    int32_t found[2];
    float rows[16];
    for (int i = 0; i < 3; i += 2) {
        assert_int_equal(result_read(results[i], found, 2), 0);
        assert_true(found[0] == 7 && found[1] == 3);
    }
    assert_int_equal(result_read(results[1], rows, 16), 0);
    assert_memory_equal(rows, b.values[0] + 7 * 8, 8 * sizeof *rows);
    assert_memory_equal(rows + 8, b.values[0] + 3 * 8, 8 * sizeof *rows);
    for (int i = 0; i < 3; i++) result_free(results[i]);
    free_bench(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mistakes), cmocka_unit_test(test_ids),        cmocka_unit_test(test_result),
        cmocka_unit_test(test_plan),     cmocka_unit_test(test_id_outputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
