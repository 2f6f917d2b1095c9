/* test_results.c - metrics from known timestamps, spreads of known numbers, summaries, and rows
 * read back from files. tests/oracle/test_statistics.py compares the statistics with scipy's; here
 * are the cases at their edges.
 */
#include "folder.h"
#include "measured.h"
#include "report/report.h"

#include <math.h>

static void check_metric(const measured *m, int c, double wanted) {
    value v = row_of(m).cells[c];
    assert_int_equal(v.kind, VALUE_REAL);
    if (v.real < wanted - 1e-9 || v.real > wanted + 1e-9)
        fail_msg("%s: %g instead of %g", column_table[c].name, v.real, wanted);
}

static void test_metrics(void **state) {
    (void)state;
    measured r = measured_run();
    check_metric(&r, COLUMN_prompt_tokens, 10);
    check_metric(&r, COLUMN_prompt_tps, 20);
    check_metric(&r, COLUMN_generation_tokens, 4);
    check_metric(&r, COLUMN_generation_tps, 6);
    check_metric(&r, COLUMN_sequence_tps, 6);
    check_metric(&r, COLUMN_ttft_ms, 500);
    check_metric(&r, COLUMN_itl_p50_ms, 100);
    check_metric(&r, COLUMN_itl_p90_ms, 300);
    check_metric(&r, COLUMN_itl_p99_ms, 300);
    check_metric(&r, COLUMN_itl_max_ms, 300);
    check_metric(&r, COLUMN_stalls, 1); /* 100, 100, 300 ms with 11, 12, 13 tokens in the cache */
    check_metric(&r, COLUMN_itl_per_1000_ms, 100000);
    check_metric(&r, COLUMN_itl_at_0_ms, -1033.3333);
    check_metric(&r, COLUMN_itl_fit_r2, 0.75);
    check_metric(&r, COLUMN_total_s, 1);
    check_metric(&r, COLUMN_load_s, 0.25);
    check_metric(&r, COLUMN_peak_memory_gb, 1.234568); /* rounded as it is shown */
    check_metric(&r, COLUMN_weights_gb, 1);
    check_metric(&r, COLUMN_kv_gb, 0.002);
    check_metric(&r, COLUMN_scratch_gb, 0.0005);
    check_metric(&r, COLUMN_peak_rss_gb, 1.5);
    check_metric(&r, COLUMN_experts_touched, 7.25);
    r.sample.n_sequences = 4; /* speeds are of all, tokens of one */
    check_metric(&r, COLUMN_prompt_tokens, 10);
    check_metric(&r, COLUMN_prompt_tps, 80);
    check_metric(&r, COLUMN_generation_tps, 24);
    check_metric(&r, COLUMN_sequence_tps, 6);
}

/* One token has no time between tokens; a clock that stood still gives no rate. */
static void test_metrics_unset(void **state) {
    (void)state;
    measured r = measured_run();
    r.sample.n_tokens = 1;
    r.sample.peak_rss = 0;
    r.sample.experts_touched = 0;
    static const int unset[] = {COLUMN_generation_tps, COLUMN_itl_p50_ms,  COLUMN_itl_p99_ms,
                                COLUMN_itl_max_ms,     COLUMN_stalls,      COLUMN_itl_at_0_ms,
                                COLUMN_itl_fit_r2,     COLUMN_peak_rss_gb, COLUMN_experts_touched};
    for (size_t i = 0; i < sizeof unset / sizeof *unset; i++)
        assert_int_equal(row_of(&r).cells[unset[i]].kind, VALUE_NONE);
    check_metric(&r, COLUMN_prompt_tps, 20);
    r.sample.start_ns = token_ns[0];
    assert_int_equal(row_of(&r).cells[COLUMN_prompt_tps].kind, VALUE_NONE);
}

/* A configuration that failed has no sample to make metrics of. */
static void test_failed(void **state) {
    (void)state;
    measured m = {.params = plan_params(&one_plan, 0), .facts = {.synthetic = -1, .error = "out of memory"}};
    row r = row_of(&m);
    for (int c = COLUMN_FIRST_METRIC; c < N_COLUMNS; c++) {
        value_kind wanted = c == COLUMN_error                        ? VALUE_TEXT
                            : c == COLUMN_seed || c == COLUMN_warmup ? VALUE_NUMBER
                                                                     : VALUE_NONE;
        assert_int_equal(r.cells[c].kind, wanted);
    }
}

/* ---- spreads ---- */

static void check_spread(int n, const double *numbers, double median, double low, double high, int outliers) {
    double copy[64];
    memcpy(copy, numbers, (size_t)n * sizeof *copy);
    spread s = spread_of(copy, n);
    assert_int_equal(s.n, n);
    assert_true(s.median == median);
    assert_true(isnan(low) ? isnan(s.low) && isnan(s.high) : s.low == low && s.high == high);
    assert_int_equal(s.outliers, outliers);
}

static void test_spread(void **state) {
    (void)state;
    static const double numbers[] = {5, 1, 4, 2, 3, 6, 100, 8, 7};
    check_spread(1, numbers, 5, NAN, NAN, 0);
    check_spread(2, numbers, 3, NAN, NAN, 0);
    check_spread(5, numbers, 3, NAN, NAN, 0); /* five numbers enclose the median with 93.75 % only */
    check_spread(6, numbers, 3.5, 1, 6, 0);
    check_spread(7, numbers, 4, 1, 100, 1);
    check_spread(9, numbers, 5, 2, 8, 1);
    static const double equal[] = {2, 2, 2, 2, 2, 2, 3};
    check_spread(7, equal, 2, 2, 3, 0); /* no distance to judge by */
    spread none = spread_of(NULL, 0);
    assert_true(none.n == 0 && isnan(none.median) && isnan(none.mean) && isnan(none.sd) && isnan(none.min));
    double one[] = {4};
    assert_true(isnan(spread_of(one, 1).sd) && spread_of(one, 1).mean == 4);
}

/* ---- summaries ---- */

static void test_summary(void **state) {
    (void)state;
    summary *s = summary_new();
    row out;
    assert_int_equal(summary_row(s, &out), -1);
    for (int i = 0; i < 3; i++) {
        char text[] = "gone after this run";
        measured m = measured_run();
        m.number = (run_number){7 + i, 4, 1 + i};
        m.sample.start_ns -= 500000000 * (i == 1); /* the second run's first token takes twice as long */
        m.sample.memory.peak += i;
        m.facts.ids_hash = i == 2 ? "another" : "one";
        m.facts.chip = text;
        row r = row_of(&m);
        assert_int_equal(summary_add(s, &r), 0);
        memset(text, 'x', sizeof text - 1);
    }
    assert_int_equal(summary_row(s, &out), 0);
    assert_int_equal(out.kind, ROW_SUMMARY);
    assert_int_equal(out.cells[COLUMN_configuration].number, 4);
    assert_int_equal(out.cells[COLUMN_run].kind, VALUE_NONE);
    assert_int_equal(out.cells[COLUMN_repeat].kind, VALUE_NONE);
    assert_int_equal(out.cells[COLUMN_ids_hash].kind, VALUE_NONE); /* not the same */
    assert_string_equal(out.cells[COLUMN_prompt_hash].text, "0123456789abcdef");
    assert_true(out.cells[COLUMN_prompt_tps].real == 20);
    const spread *tps = &out.spreads[METRIC_prompt_tps];
    assert_true(tps->n == 3 && tps->min == 10 && tps->max == 20 && isnan(tps->low));
    const spread *peaks = &out.spreads[METRIC_peak_memory_gb];
    assert_true(peaks->n == 3 && tps->in_order[1] == 10 && tps->in_order[2] == 20);
    assert_true(out.cells[COLUMN_peak_memory_gb].real == 1.234568); /* the largest, not a median */

    measured bad = measured_run(); /* what was measured before an error still is */
    bad.facts.error = "no memory";
    row r = row_of(&bad);
    assert_int_equal(summary_add(s, &r), 0);
    assert_int_equal(summary_row(s, &out), 0);
    assert_string_equal(out.cells[COLUMN_error].text, "no memory");
    assert_true(out.cells[COLUMN_prompt_tps].real == 20 && out.spreads[METRIC_prompt_tps].n == 3);
    summary_free(s);
}

/* ---- files ---- */

static int write_row(void *to, const row *r) {
    return reports_row(to, r);
}

static char *text_of(const char *path) {
    file_map map;
    assert_int_equal(file_map_open(&map, path), 0);
    char *text = malloc(map.size + 1);
    assert_non_null(text);
    memcpy(text, map.data, map.size);
    text[map.size] = '\0';
    file_map_close(&map);
    return text;
}

/* The text of rows in a format; free it. */
static char *format_rows(const results *rows, const char *format) {
    char spec[1200];
    snprintf(spec, sizeof spec, "%s:%s", format, in_folder("out"));
    reports *to = reports_open(&(option_texts){1, {spec}}, &(report_options){.force = true}, &rows->sweep);
    assert_non_null(to);
    assert_int_equal(results_each(rows, write_row, to), 0);
    assert_int_equal(reports_close(to), 0);
    return text_of(in_folder("out"));
}

/* A random configuration's run: odd texts, unset values, few or many tokens, failures. */
static void random_run(row *out, uint64_t *seed, run_number number) {
    static const char *const texts[] = {
        "plain",   "a,b", "\"quoted\"", "two\nlines", "r\xc3\xa9sum\xc3\xa9", "tab\tand\rreturn",
        "\\ back", "x"};
    static int64_t times[8];
    static int32_t tokens[24];
    static sample s;
    measured m = measured_run();
    m.number = number;
    m.params.model = texts[number.configuration % 8];
    m.params.kv_bits = number.configuration % 3 ? 0 : 8;
    m.params.threads = (int64_t)(random_next(seed) % 2);
    m.facts.chip = texts[random_next(seed) % 8];
    m.facts.synthetic = (int8_t)((int)(random_next(seed) % 3) - 1);
    m.facts.seed = (int64_t)(random_next(seed) >> 11);
    m.sample.n_tokens = 1 + (int64_t)(random_next(seed) % 8);
    m.sample.token_ns = times;
    m.sample.ids = tokens;
    for (int i = 0; i < m.sample.n_tokens; i++) {
        times[i] = (i ? times[i - 1] : m.sample.start_ns) + 1 + (int64_t)(random_next(seed) % 1000000000);
    }
    m.params.batch = m.sample.n_sequences = 1 + (int64_t)(random_next(seed) % 3);
    for (int i = 0; i < 24; i++) tokens[i] = (int32_t)(random_next(seed) % 200000);
    if (random_next(seed) % 5 == 0) m.facts.error = texts[random_next(seed) % 8];
    s = m.sample;
    row_of_run(out, number, &m.params, m.facts.error ? NULL : &s, &m.facts);
}

/* What is written, read and written again is the same, byte for byte, in each format and from each
 * to each other. */
static void test_write_read_write(void **state) {
    (void)state;
    static const char *const formats[] = {"csv", "json", "jsonl"};
    uint64_t seed = 1;
    for (int round = 0; round < 60; round++) {
        char *first[3], spec[3][1200];
        option_texts specs = {0};
        sweep none = {0};
        for (int f = 0; f < 3; f++) {
            snprintf(spec[f], sizeof spec[f], "%s:%s", formats[f], in_folder(formats[f]));
            specs.items[specs.n++] = spec[f];
        }
        reports *to = reports_open(&specs, &(report_options){.force = true}, &none);
        summary *s = summary_new();
        assert_non_null(to);
        for (int64_t c = 1, run = 0; c <= 1 + round % 4; c++) {
            row one;
            for (int64_t repeat = 1; repeat <= 1 + (round + c) % 8; repeat++) {
                random_run(&one, &seed, (run_number){++run, c, repeat});
                assert_int_equal(reports_row(to, &one), 0);
                assert_int_equal(summary_add(s, &one), 0);
            }
            assert_int_equal(summary_row(s, &one), 0);
            assert_int_equal(reports_row(to, &one), 0);
            summary_clear(s);
        }
        assert_int_equal(reports_close(to), 0);
        summary_free(s);
        for (int f = 0; f < 3; f++) first[f] = text_of(in_folder(formats[f]));
        for (int f = 0; f < 3; f++) {
            results rows;
            if (results_read(&rows, in_folder(formats[f]))) fail_msg("%s", error_message());
            for (int g = 0; g < 3; g++) {
                char *again = format_rows(&rows, formats[g]);
                bool raw_lost = g == 2 && f != 2; /* jsonl has more than the others */
                if (!raw_lost) assert_string_equal(again, first[g]);
                free(again);
            }
            results_free(&rows);
        }
        for (int f = 0; f < 3; f++) free(first[f]);
    }
}

static void check_read(const char *text, int64_t n) {
    results r;
    error_clear();
    if (results_parse(&r, text, strlen(text), "file")) fail_msg("%s", error_message());
    assert_int_equal(r.n, n);
    assert_string_equal(error_message(), "");
    results_free(&r);
}

static void check_unreadable(const char *text, const char *message) {
    results r;
    error_clear();
    assert_int_equal(results_parse(&r, text, strlen(text), "file"), -1);
    assert_message(message);
    results_free(&r);
}

/* A killed program leaves the last line unfinished; columns of others are no error. */
static void test_read(void **state) {
    (void)state;
    check_read("run,configuration,new\n1,1,x\n2,1,y\n", 2);
    check_read("run,configuration\r\n1,1\r\n", 1);
    check_read("run,configuration\n1,1", 1);
    check_read("configuration,run,model\n1,1,a\n1,2", 1);
    check_read("configuration,run,model\n1,1,a\n1,2,\"b", 1);
    check_read("{\"kind\": \"run\", \"configuration\": 1, \"model\": null}\n{\"kind\": "
               "\"summary\"}\n{\"kind\": \"ru",
               1);
    check_read("{\"schema\": 1, \"new\": [], \"runs\": [{\"configuration\": 1, \"x\": {}}]}", 1);
}

static void test_unreadable(void **state) {
    (void)state;
    check_unreadable("", "no results in it");
    check_unreadable(" \n", "no results in it");
    check_unreadable("run,configuration\n", "no results in it");
    check_unreadable("a,b\n1,2\n", "lacks the columns run and configuration");
    check_unreadable("run,configuration,run\n1,2,3\n", "column run is there twice");
    check_unreadable("run,configuration\n1,x\n2,2\n",
                     "file, line 2: column configuration: \"x\" is not a whole number");
    check_unreadable("run,configuration\n1\n", "1 fields, where the first line has 2");
    check_unreadable("run,configuration\n1,2,3\n", "3 fields, where the first line has 2");
    check_unreadable("run,configuration,ttft_ms\n1,1,nan\n", "is not a number");
    check_unreadable("run,configuration,synthetic\n1,1,yes\n", "is not true or false");
    check_unreadable("run,configuration\n1,99999999999999999999\n", "is not a whole number");
    check_unreadable("run,configuration\n1,\n", "row 1 has no configuration");
    check_unreadable("{", "not valid JSON");
    check_unreadable("[]", "no results in it");
    check_unreadable("{\"schema\": 2, \"runs\": []}", "schema");
    check_unreadable("{\"schema\": 1}", "runs");
    check_unreadable("{\"schema\": 1, \"runs\": [1]}", "no JSON object");
    check_unreadable("{\"schema\": 1, \"runs\": [{\"configuration\": 1.5}]}",
                     "configuration has a value of a wrong kind");
    check_unreadable("{\"schema\": 1, \"runs\": [{\"configuration\": 1, \"model\": 3}]}",
                     "model has a value");
    check_unreadable("{\"kind\": \"run\", \"configuration\": 1}\n{\n{\"kind\": \"run\"}\n",
                     "line 2: not valid JSON");
    check_unreadable("{\"kind\": \"other\"}\n", "neither");
    check_unreadable("{\"kind\": \"run\", \"configuration\": 1, \"token_ns\": [1], \"token_ids\": []}\n",
                     "belong together");
    results r;
    assert_int_equal(results_parse(&r, "run\0configuration", 17, "file"), -1);
    assert_message("zero bytes");
    results_free(&r);
}

static int set_up(void **state) {
    return make_one_plan() ? -1 : new_folder(state);
}

static int tear_down(void **state) {
    plan_free(&one_plan);
    return drop_folder(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metrics), cmocka_unit_test(test_metrics_unset),
        cmocka_unit_test(test_failed),  cmocka_unit_test(test_spread),
        cmocka_unit_test(test_summary), cmocka_unit_test(test_write_read_write),
        cmocka_unit_test(test_read),    cmocka_unit_test(test_unreadable),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
