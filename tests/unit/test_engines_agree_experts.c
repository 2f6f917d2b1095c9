/* test_engines_agree_experts.c - routing and experts on engine/cpu and engine/mlx; what MLX
 * refuses. What is compared, and how closely, is in engines_agree.h. */
#include "engines_agree.h"

static tensor of_experts(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return experts(
        g, x,
        route(g, linear(g, x, s->router), &(route_spec){.k = EXPERTS, .renormalize = false, .last = true}),
        ACT_SILU, s->gate, s->up, s->down);
}
static tensor of_best_experts(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return experts(
        g, x, route(g, linear(g, x, s->router), &(route_spec){.k = 2, .renormalize = true, .last = true}),
        ACT_GELU_TANH, s->gate, s->up, s->down);
}
static tensor routed_by(graph *g, const side *s, tensor x, route_spec spec) {
    spec.bias = s->router_bias;
    return experts(g, x, route(g, linear(g, x, s->router), &spec), ACT_SILU, s->gate, s->up, s->down);
}
static tensor of_sigmoid_routing(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return routed_by(
        g, s, x,
        (route_spec){.k = 2, .score = SCORE_SIGMOID, .renormalize = true, .eps = 1e-20f, .scale = 2.5f});
}
static tensor of_group_routing(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return routed_by(g, s, x,
                     (route_spec){.k = 2,
                                  .score = SCORE_SIGMOID,
                                  .renormalize = true,
                                  .eps = 2,
                                  .eps_is_floor = true,
                                  .n_group = 2,
                                  .topk_group = 1,
                                  .scale = 0.5f});
}
static tensor of_best_groups(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return routed_by(
        g, s, x,
        (route_spec){
            .k = 1, .n_group = 2, .topk_group = 1, .group_max = true, .mask_inf = true, .last = true});
}
static tensor of_top_softmax(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return routed_by(g, s, x, (route_spec){.k = 3, .score = SCORE_TOP_SOFTMAX});
}
static tensor of_band(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    route_spec spec = {.k = 3, .score = SCORE_BAND, .jitter = 0.4f};
    return experts(g, x, route(g, linear(g, x, s->router), &spec), ACT_SILU, s->gate, s->up, s->down);
}
static tensor of_weighed_input(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return routed_by(g, s, x, (route_spec){.k = 1, .score = SCORE_TOP_SIGMOID, .on_input = true});
}
static tensor of_biased_experts(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return experts(g, x, route(g, linear(g, x, s->router), &(route_spec){.k = EXPERTS, .last = true}),
                   ACT_OAI, s->gate, s->biased_up, s->biased_down);
}
static tensor of_ungated_experts(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return experts(g, x, route(g, linear(g, x, s->router), &(route_spec){.k = EXPERTS, .last = true}),
                   ACT_RELU2, NULL, s->up, s->down);
}
/* Six choices, of which the last two are identities. */
static tensor of_identities(graph *g, const side *s, cache *c, tensor x) {
    route_spec spec = {.k = 3, .identities = 2, .narrow = true, .last = true};
    (void)c;
    tensor logits = part(g, linear(g, x, s->keys), 7, EXPERTS + 2);
    return experts(g, x, route(g, logits, &spec), ACT_SILU, s->gate, s->up, s->down);
}
static tensor of_identities_in_a_sum(graph *g, const side *s, cache *c, tensor x) {
    return add(g, of_identities(g, s, c, x), x);
}

static const agreement operations[] = {
    {.name = "all experts", .build = of_experts, .experts = true},
    {.name = "best experts", .build = of_best_experts, .experts = true, .choosy = true},
    {.name = "sigmoid routing", .build = of_sigmoid_routing, .experts = true, .choosy = true},
    {.name = "group routing", .build = of_group_routing, .experts = true, .choosy = true},
    {.name = "best groups", .build = of_best_groups, .experts = true, .choosy = true},
    {.name = "top softmax", .build = of_top_softmax, .experts = true, .choosy = true},
    {.name = "band", .build = of_band, .experts = true, .choosy = true},
    {.name = "weighed input", .build = of_weighed_input, .experts = true, .choosy = true},
    {.name = "experts with biases", .build = of_biased_experts, .experts = true},
    {.name = "experts without gate", .build = of_ungated_experts, .experts = true},
    {.name = "identities", .build = of_identities, .experts = true, .choosy = true},
    {.name = "identities in a sum", .build = of_identities_in_a_sum, .experts = true, .choosy = true},
};

static void test_operations(void **state) {
    (void)state;
    check_agreements(operations, COUNT(operations));
}

/* Marks the k largest of n logits. */
static void mark_largest(bool *chosen, const float *logits, int n, int k) {
    bool here[16] = {false};
    for (int j = 0; j < k; j++) {
        int best = -1;
        for (int i = 0; i < n; i++)
            if (!here[i] && (best < 0 || logits[i] > logits[best])) best = i;
        here[best] = chosen[best] = true;
    }
}

static int count_of(const bool *chosen, int n) {
    int found = 0;
    for (int i = 0; i < n; i++) found += chosen[i];
    return found;
}

/* Two layers of experts, over several steps: the mean of what the logits say each of them chose. Of
 * the second one's choices the last two are no experts. Steps that are not noted, and experts that
 * nothing reads, do not count. */
static void check_touched(const side *s) {
    enum { CHOICES = EXPERTS + 2 };
    bool first[EXPERTS] = {false}, second[CHOICES] = {false};
    float logits[2 * ROWS], out[2 * DIM];
    for (int step = 0; step < 3; step++) {
        graph *g = graph_begin(s->e, 1);
        tensor x = rows_of(g, s->table, 2 * step, 2), all = part(g, linear(g, x, s->keys), 7, CHOICES);
        tensor a = linear(g, x, s->router), nobody = route(g, a, &(route_spec){.k = EXPERTS});
        experts(g, x, nobody, ACT_SILU, s->gate, s->up, s->biased_down);
        tensor y = experts(g, x, route(g, a, &(route_spec){.k = 1, .last = true}), ACT_SILU, s->gate, s->up,
                           s->down);
        tensor z = experts(g, x, route(g, all, &(route_spec){.k = 2, .identities = 2, .last = true}),
                           ACT_SILU, s->gate, s->biased_up, s->biased_down);
        if (step < 2) graph_note_experts(g);
        finish(g, add(g, y, z), out, 2 * DIM);
        for (int row = 0; row < 2 && step < 2; row++) {
            g = graph_begin(s->e, 1);
            x = rows_of(g, s->table, 2 * step + row, 1);
            finish(g, linear(g, x, s->router), logits, EXPERTS);
            mark_largest(first, logits, EXPERTS, 1);
            g = graph_begin(s->e, 1);
            x = rows_of(g, s->table, 2 * step + row, 1);
            finish(g, part(g, linear(g, x, s->keys), 7, CHOICES), logits, CHOICES);
            mark_largest(second, logits, CHOICES, 2);
        }
    }
    assert_true(count_of(second, CHOICES) > count_of(second, EXPERTS)); /* else this shows less */
    double wanted = (count_of(first, EXPERTS) + count_of(second, EXPERTS)) / 2.0;
    assert_true(wanted < EXPERTS && fabs(engine_experts_touched(s->e) - wanted) < 1e-12);
    assert_true(engine_experts_touched(s->e) == 0);
}

static void test_touched(void **state) {
    (void)state;
    const char *const names[] = {"cpu", "mlx"};
    for (size_t i = 0; i < COUNT(names); i++) {
        side s = {.e = engine_open(names[i], &(engine_options){.threads = 2})};
        if (!s.e) {
            print_message("not run: %s\n", error_message());
            continue;
        }
        load(&s, (kind){DTYPE_F32, 0, 0});
        check_touched(&s);
        unload(&s);
        engine_close(s.e);
    }
}

/* What MLX throws is a message, and the engine goes on. */
static void test_mlx_errors(void **state) {
    (void)state;
    side s = {.e = engine_open("mlx", &(engine_options){0})};
    if (!s.e) {
        print_message("not run: %s\n", error_message());
        skip();
    }
    kind plain = {DTYPE_BF16, 0, 0};
    load(&s, plain);
    if (!strcmp(engine_describe(s.e).device, "cpu")) {
        graph *g = graph_begin(s.e, 1);
        tensor x = of_experts(g, &s, NULL, rows_of(g, s.table, 0, 2));
        result *r = NULL;
        float values[2 * DIM];
        int status = graph_end(g, 1, &x, &r);
        if (!status) status = result_read(r, values, 2 * DIM);
        assert_int_equal(status, -1);
        assert_non_null(strstr(error_message(), "mlx: "));
        result_free(r);
    }
    float out[DIM];
    graph *g = graph_begin(s.e, 1);
    finish(g, linear(g, rows_of(g, s.table, 0, 1), s.square), out, DIM);
    unload(&s);
    assert_int_equal(engine_memory_used(s.e).weights, 0);
    engine_close(s.e);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_operations), cmocka_unit_test(test_touched),
                                       cmocka_unit_test(test_mlx_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
