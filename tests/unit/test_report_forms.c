/* test_report_forms.c - formats of other programs, from known rows; llama-bench's forms are read
 * back. What other programs make of them is tested in tests/cli.
 */
#include "measured.h"
#include "report/report.h"
#include "texts.h"

enum { RUNS = 3 };

/* What `format` makes of three runs of a configuration; free it. Run i has its first token after
 * (i + 1) / 10 s, so that prompt_tps is 100, 50 and 33.333. */
static char *written(const char *format, const char *name) {
    char spec[1200], *path;
    snprintf(spec, sizeof spec, "%s:%s", format, in_folder("out"));
    path = strchr(spec, ':') + 1;
    unlink(path);
    sweep s = plan_sweep(&one_plan, RUNS);
    reports *to = reports_open(&(option_texts){1, {spec}}, &(report_options){0}, &s);
    summary *sum = summary_new();
    row whole;
    assert_non_null(to);
    for (int i = 0; i < RUNS; i++) {
        measured m = measured_run();
        m.params.model = name;
        m.number = (run_number){1 + i, 1, 1 + i};
        m.sample.start_ns = token_ns[0] - 100000000 * (i + 1);
        row one = row_of(&m);
        assert_int_equal(reports_row(to, &one) | summary_add(sum, &one), 0);
    }
    assert_int_equal(summary_row(sum, &whole) | reports_row(to, &whole), 0);
    summary_free(sum);
    assert_int_equal(reports_close(to), 0);
    char *text = read_file(path);
    unlink(path);
    return text;
}

static void test_llama_bench_and_back(void **state) {
    (void)state;
    static const struct {
        const char *format;
        int n; /* runs of a test */
    } forms[] = {{"llama-bench-json", RUNS},
                 {"llama-bench-jsonl", RUNS},
                 {"llama-bench-csv", 1},
                 {"llama-bench-sql", 1},
                 {"llama-bench", 1}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        results r = {0};
        char *text = written(forms[i].format, "it's \"a\", model\\");
        if (results_parse(&r, text, strlen(text), "file"))
            fail_msg("%s: %s", forms[i].format, error_message());
        assert_int_equal(r.n, 2 * forms[i].n);
        const row *prompt = &r.runs[0], *generation = &r.runs[forms[i].n];
        double mean = (100 + 50 + 33.333) / 3, wanted = forms[i].n == RUNS ? 100 : mean;
        assert_float_equal(prompt->cells[COLUMN_prompt_tps].real, wanted, 0.006);
        assert_float_equal(generation->cells[COLUMN_generation_tps].real, 6, 0.006);
        assert_int_equal(prompt->cells[COLUMN_n_prompt].number, 10);
        assert_int_equal(generation->cells[COLUMN_n_generate].number, 4);
        assert_int_equal(generation->cells[COLUMN_depth].number, 10); /* the prompt is in the cache */
        assert_int_equal(prompt->cells[COLUMN_generation_tps].kind, VALUE_NONE);
        assert_string_equal(prompt->cells[COLUMN_model].text, strcmp(forms[i].format, "llama-bench")
                                                                  ? "it's \"a\", model\\"
                                                                  : "llama 4-bit g64 (random weights)");
        free(text);
        results_free(&r);
    }
}

static void check_has(const char *format, const char *name, const char *wanted) {
    char *text = written(format, name);
    if (!strstr(text, wanted)) fail_msg("\"%s\" is not in: %s", wanted, text);
    free(text);
}

static void test_others(void **state) {
    (void)state;
    check_has("mlx-lm", "m",
              "Running warmup..\nTiming with prompt_tokens=10, generation_tokens=4, batch_size=1.\n"
              "Trial 1:  prompt_tps=100.000, generation_tps=8.000, peak_memory=1.235, total_time=0.600\n");
    check_has("mlx-lm", "m", "\nAverages: prompt_tps=61.111, generation_tps=8.000, peak_memory=1.235\n");
    check_has("prometheus", "a \"b\" \\ c",
              "# TYPE mlxbench_prompt_tokens_per_second gauge\n"
              "mlxbench_prompt_tokens_per_second{model=\"a \\\"b\\\" \\\\ c\",");
    check_has("prometheus", "m", ",statistic=\"median\"} 0.2\n"); /* time to the first token, in seconds */
    check_has("prometheus", "m", "} 1.234568e+09\n");
    check_has("benchfmt", "m", "BenchmarkPrompt 10 10000000.0 ns/op 100.000 tokens/s\n");
    check_has("benchfmt", "m", "BenchmarkGeneration 3 166666666.7 ns/op 6.000 tokens/s\n");
    check_has("llama-bench", "m", "|            pp10 |        61.11 ± 34.69 |\n");
    check_has("llama-bench", "m", "|       tg4 @ d10 |          6.00 ± 0.00 |\n\nbuild: 0.1.0 (0)\n");
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
        cmocka_unit_test(test_llama_bench_and_back),
        cmocka_unit_test(test_others),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
