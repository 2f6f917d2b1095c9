/* test_plan.c - parameter lists: values, their product and its order, and what is refused.
 * Also that the parameter table, the struct and the columns agree, since one list makes them
 * all. */
#include "bench/bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

/* A plan of the defaults, but for one list; -1 leaves the error recorded. */
static int parse_with(plan *p, int i, const char *list) {
    const char *lists[N_PARAMS];
    for (int k = 0; k < N_PARAMS; k++) lists[k] = param_table[k].default_list;
    lists[i] = list;
    error_clear();
    return plan_parse(p, lists);
}

static void test_defaults(void **state) {
    (void)state;
    plan p;
    assert_int_equal(parse_with(&p, PARAM_model, "a-model"), 0);
    assert_int_equal(p.n, 1);
    params c = plan_params(&p, 0);
    assert_string_equal(c.model, "a-model");
    assert_string_equal(c.engine, "auto");
    assert_string_equal(c.prompt_source, "text");
    assert_int_equal(c.threads, 0);
    assert_string_equal(c.graph, "mlx-lm");
    assert_string_equal(c.activations, "exact");
    assert_int_equal(c.n_prompt, 1000);
    assert_int_equal(c.n_generate, 100);
    assert_int_equal(c.max_kv_size, 0);
    assert_int_equal(c.kv_bits, 0);
    assert_int_equal(c.kv_group_size, 64);
    assert_int_equal(c.quantized_kv_start, 0);
    assert_int_equal(c.prefill_step_size, 2048);
    plan_free(&p);
    plan_free(&p); /* harmless */
}

static void test_product_order(void **state) {
    (void)state;
    plan p;
    const char *lists[N_PARAMS];
    for (int k = 0; k < N_PARAMS; k++) lists[k] = param_table[k].default_list;
    lists[PARAM_model] = "a,b";
    lists[PARAM_kv_bits] = "none, 4 ,8";
    lists[PARAM_prefill_step_size] = "16,32";
    assert_int_equal(plan_parse(&p, lists), 0);
    assert_int_equal(p.n, 12);
    static const int bits[] = {0, 4, 8};
    for (int64_t i = 0; i < p.n; i++) { /* model slowest, the last parameter fastest */
        params c = plan_params(&p, i);
        assert_string_equal(c.model, i < 6 ? "a" : "b");
        assert_int_equal(c.kv_bits, bits[i / 2 % 3]);
        assert_int_equal(c.prefill_step_size, i % 2 ? 32 : 16);
    }
    plan_free(&p);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        int i;
        const char *list, *message;
    } cases[] = {
        {PARAM_n_prompt, "", "--n-prompt: an element of the list is empty"},
        {PARAM_n_prompt, "8,,9", "--n-prompt: an element of the list is empty"},
        {PARAM_n_prompt, "8,", "--n-prompt: an element of the list is empty"},
        {PARAM_model, "a, ,b", "--model: an element of the list is empty"},
        {PARAM_n_prompt, "0", "--n-prompt: 0 is outside 1 to 100000000"},
        {PARAM_n_generate, "-1", "--n-generate: -1 is outside"},
        {PARAM_n_prompt, "99999999999999999999", "--n-prompt: 99999999999999999999 is outside"},
        {PARAM_n_prompt, "1e3", "--n-prompt: \"1e3\" is not a whole number"},
        {PARAM_n_prompt, "none", "--n-prompt: \"none\" is not a whole number"},
        {PARAM_kv_bits, "7", "--kv-bits: \"7\" is not one of 2,3,4,5,6,8"},
        {PARAM_kv_bits, "1", "--kv-bits: \"1\" is not one of 2,3,4,5,6,8"},
        {PARAM_kv_bits, "9", "--kv-bits: 9 is outside 0 to 8"},
        {PARAM_kv_group_size, "48", "--kv-group-size: \"48\" is not one of 32,64,128"},
        {PARAM_prompt_source, "tex", "--prompt-tokens: \"tex\" is not one of text,book,random,file:F"},
        {PARAM_prompt_source, "text,words",
         "--prompt-tokens: \"words\" is not one of text,book,random,file:F"},
        {PARAM_graph, "fast", "--graph: \"fast\" is not one of mlx-lm,fused"},
        {PARAM_activations, "exact,int4", "--activations: \"int4\" is not one of exact,int8"},
        {PARAM_idle_s, "1.5s", "--idle: \"1.5s\" is no duration of whole seconds"},
        {PARAM_idle_s, "s", "--idle: \"s\" is no duration"},
        {PARAM_idle_s, "5ms", "--idle: \"5ms\" is no duration"},
        {PARAM_idle_s, "25h", "--idle: 25 is outside 0 to 24"},
        {PARAM_threads, "2000", "--threads: 2000 is outside 0 to 1024"},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        plan p;
        assert_int_equal(parse_with(&p, cases[k].i, cases[k].list), -1);
        assert_int_equal(error_exit_code(), EXIT_USAGE);
        if (!strstr(error_message(), cases[k].message))
            fail_msg("\"%s\" instead of \"%s\"", error_message(), cases[k].message);
        plan_free(&p);
    }
}

static void check_range(const char *list, int n, const int64_t *wanted) {
    plan p;
    if (parse_with(&p, PARAM_n_prompt, list)) fail_msg("%s: %s", list, error_message());
    assert_int_equal(p.n, n);
    for (int i = 0; i < n; i++) assert_int_equal(plan_params(&p, i).n_prompt, wanted[i]);
    plan_free(&p);
}

static void test_ranges(void **state) {
    (void)state;
    check_range("512-4096*2", 4, (int64_t[]){512, 1024, 2048, 4096});
    check_range("512-5000*2", 4, (int64_t[]){512, 1024, 2048, 4096});
    check_range("1-9+2", 5, (int64_t[]){1, 3, 5, 7, 9});
    check_range("3-5", 3, (int64_t[]){3, 4, 5});
    check_range("7, 8-16*2 ,9-9", 4, (int64_t[]){7, 8, 16, 9});
    check_range("1-100000000*10", 9,
                (int64_t[]){1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000});
    static const struct {
        int i;
        const char *list, *message;
    } cases[] = {
        {PARAM_n_prompt, "9-1", "--n-prompt: the range 9-1 has no end"},
        {PARAM_n_prompt, "1-9+0", "--n-prompt: the range 1-9+0 has no end"},
        {PARAM_n_prompt, "1-9*1", "--n-prompt: the range 1-9*1 has no end"},
        {PARAM_depth, "0-9*2", "--depth: the range 0-9*2 has no end"},
        {PARAM_n_prompt, "0-9", "--n-prompt: 0 is outside 1 to 100000000"},
        {PARAM_n_prompt, "1-9-2", "--n-prompt: \"1-9-2\" is not a whole number"},
        {PARAM_n_prompt, "1-9+2x", "--n-prompt: \"1-9+2x\" is not a whole number"},
        {PARAM_n_prompt, "-9", "--n-prompt: -9 is outside"},
        {PARAM_n_prompt, "1-", "--n-prompt: \"1-\" is not a whole number"},
        {PARAM_n_prompt, "1-100000000", "--n-prompt: the list is too long"},
        {PARAM_kv_bits, "3-8", "--kv-bits: \"7\" is not one of"},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        plan p;
        assert_int_equal(parse_with(&p, cases[k].i, cases[k].list), -1);
        assert_int_equal(error_exit_code(), EXIT_USAGE);
        if (!strstr(error_message(), cases[k].message))
            fail_msg("\"%s\" instead of \"%s\"", error_message(), cases[k].message);
        plan_free(&p);
    }
}

static void test_commas_in_names(void **state) {
    (void)state;
    plan p;
    assert_int_equal(parse_with(&p, PARAM_model, "a\\,b , c\\d,\\,"), 0);
    assert_int_equal(p.n, 3);
    assert_string_equal(plan_params(&p, 0).model, "a,b");
    assert_string_equal(plan_params(&p, 1).model, "c\\d");
    assert_string_equal(plan_params(&p, 2).model, ",");
    plan_free(&p);
}

/* generate's defaults, where they differ from bench's, and no lists. */
static void test_of_generate(void **state) {
    (void)state;
    params p;
    const char *texts[N_PARAMS] = {[PARAM_model] = "a,b", [PARAM_kv_bits] = "4"};
    assert_int_equal(params_parse(&p, texts), 0);
    assert_string_equal(p.model, "a,b");
    assert_string_equal(p.graph, "fused");
    assert_string_equal(p.engine, "auto");
    assert_int_equal(p.kv_bits, 4);
    assert_int_equal(p.prefill_step_size, 2048);
    assert_int_equal(p.n_prompt, 0); /* generate has no such parameter */
    engine_options how = params_engine(&p);
    assert_true(engine_asks(&how, "graph", "fused"));
    assert_true(engine_asks(&how, "affinity", "none"));
    assert_false(engine_asks(&how, "nonesuch", "none"));
    texts[PARAM_kv_bits] = "4,8";
    assert_int_equal(params_parse(&p, texts), -1);
    assert_non_null(strstr(error_message(), "--kv-bits"));
}

static void test_unset(void **state) {
    (void)state;
    plan p;
    assert_int_equal(parse_with(&p, PARAM_kv_bits, "0,none,04"), 0);
    assert_int_equal(p.n, 3);
    row r;
    params one = plan_params(&p, 0), other = plan_params(&p, 2);
    row_of_run(&r, (run_number){1, 1, 1}, &one, NULL, &(facts){0});
    assert_int_equal(r.cells[COLUMN_kv_bits].kind, VALUE_NONE);
    row_of_run(&r, (run_number){1, 1, 1}, &other, NULL, &(facts){0});
    assert_int_equal(r.cells[COLUMN_kv_bits].kind, VALUE_NUMBER);
    assert_int_equal(r.cells[COLUMN_kv_bits].number, 4);
    assert_int_equal(r.cells[COLUMN_quantized_kv_start].number, 0); /* a zero that means zero */
    plan_free(&p);
}

static void test_too_many(void **state) {
    (void)state;
    plan p;
    char list[4001] = "";
    for (int i = 0; i < 2000; i++) strcat(list, i ? ",8" : "8");
    const char *lists[N_PARAMS];
    for (int k = 0; k < N_PARAMS; k++) lists[k] = param_table[k].default_list;
    lists[PARAM_n_prompt] = lists[PARAM_n_generate] = lists[PARAM_prefill_step_size] = list;
    assert_int_equal(plan_parse(&p, lists), -1);
    assert_non_null(strstr(error_message(), "more than 1000000 configurations"));
    plan_free(&p);
}

static void test_columns_follow_parameters(void **state) {
    (void)state;
    for (int i = 0; i < N_PARAMS; i++)
        assert_string_equal(column_table[COLUMN_FIRST_PARAM + i].name, param_table[i].name);
    for (int c = 0; c < N_COLUMNS; c++) {
        assert_non_null(column_table[c].name);
        assert_int_equal(column_find(column_table[c].name), c); /* no name twice */
    }
}

/* What varies, and how wide it is, is known before anything runs. */
static void test_sweep(void **state) {
    (void)state;
    plan p;
    assert_int_equal(parse_with(&p, PARAM_kv_bits, "none,4,8"), 0);
    sweep s = plan_sweep(&p, 7);
    assert_int_equal(s.repeats, 7);
    assert_true(s.varies[COLUMN_kv_bits] && s.varies[COLUMN_kv_gb]);
    assert_false(s.varies[COLUMN_model] || s.varies[COLUMN_quantization] || s.varies[COLUMN_device]);
    plan_free(&p);
    assert_int_equal(parse_with(&p, PARAM_model, "a,n\xc3\xa4me"), 0);
    s = plan_sweep(&p, 1);
    assert_true(s.varies[COLUMN_model] && s.varies[COLUMN_quantization] && s.varies[COLUMN_kv_gb]);
    assert_int_equal(s.width[COLUMN_model], 4);
    plan_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),        cmocka_unit_test(test_product_order),
        cmocka_unit_test(test_refused),         cmocka_unit_test(test_unset),
        cmocka_unit_test(test_too_many),        cmocka_unit_test(test_columns_follow_parameters),
        cmocka_unit_test(test_commas_in_names), cmocka_unit_test(test_of_generate),
        cmocka_unit_test(test_sweep),           cmocka_unit_test(test_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
