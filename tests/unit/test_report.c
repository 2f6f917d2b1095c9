/* test_report.c - every format's exact text from known rows, as it stands in a file.
 * Files are written to a temporary folder, and read back. */
#include "measured.h"
#include "report/report.h"
#include "texts.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Hands out n runs, and each configuration's row after its last one; after each the file must be
 * longer. */
static void write_rows(reports *to, const char *path, const measured *runs, int n) {
    summary *s = summary_new();
    size_t before = 0;
    for (int i = 0; i < n; i++) {
        row one = row_of(&runs[i]), whole;
        assert_int_equal(reports_row(to, &one), 0);
        assert_int_equal(summary_add(s, &one), 0);
        if (i + 1 == n || runs[i + 1].number.configuration != runs[i].number.configuration) {
            assert_int_equal(summary_row(s, &whole), 0);
            assert_int_equal(reports_row(to, &whole), 0);
            summary_clear(s);
        }
        char *text = read_file(path);
        assert_true(strlen(text) > before ||
                    !strncmp(text, "| ", 2)); /* out at once; md waits for the configuration */
        before = strlen(text);
        free(text);
    }
    summary_free(s);
}

/* What `format` makes of n runs; free it. The file must be complete after each row. */
static char *written(const char *format, const plan *p, const measured *runs, int n) {
    char spec[1200], *path;
    snprintf(spec, sizeof spec, "%s:%s", format, in_folder(format));
    path = strchr(spec, ':') + 1;
    error_clear();
    unlink(path);
    int64_t repeats = 0;
    for (int i = 0; i < n; i++)
        if (runs[i].number.repeat > repeats) repeats = runs[i].number.repeat;
    sweep s = plan_sweep(p, repeats);
    reports *r = reports_open(&(option_texts){1, {spec}}, &(report_options){0}, &s);
    assert_non_null(r);
    write_rows(r, path, runs, n);
    char *last = read_file(path);
    assert_int_equal(reports_close(r), 0);
    char *text = read_file(path);
    if (strcmp(format, "json")) /* complete after each row; blanks in JSON: test_json_of_many */
        assert_string_equal(last, text);
    free(last);
    unlink(path);
    return text;
}

static void check_tail(char *text, const char *wanted) {
    size_t n = strlen(text), m = strlen(wanted);
    if (n < m || strcmp(text + n - m, wanted)) fail_msg("\"%s\" is not the end of: %s", wanted, text);
    free(text);
}

/* Field number `which` of a line without quotes, in a buffer that the next call reuses. */
static const char *field(const char *line, int which) {
    static char out[200];
    for (; which; which--) {
        line += strcspn(line, ",\n");
        if (*line++ != ',') fail_msg("the line has too few fields");
    }
    snprintf(out, sizeof out, "%.*s", (int)strcspn(line, ",\n"), line);
    return out;
}

/* Columns come and go with their lists: what is said of all is that each is there once, behind the
 * first six.
 */
static void test_csv(void **state) {
    (void)state;
    static const char first[] =
        "run,prompt_tokens,prompt_tps,generation_tokens,generation_tps,peak_memory_gb,"
        "configuration,repeat,model,engine,threads,";
    static const char quoted[] =
        "\n1,10,20.000,4,6.000,1.234568,1,1,\"a \"\"quoted\"\", long\nname\",fake,2,";
    static const char *const wanted[][2] = {
        {"run", "2"},
        {"prompt_tps", "20.000"},
        {"generation_tps", ""},
        {"model", "a-model"},
        {"graph", "fused"},
        {"activations", ""},
        {"max_kv_size", ""},
        {"kv_bits", "4"},
        {"ttft_ms", "500.000"},
        {"itl_p99_ms", ""},
        {"total_s", "0.500000"},
        {"peak_rss_gb", "1.500000"},
        {"parameters", "13000000"},
        {"synthetic", "true"},
        {"quantization", "4-bit g64"},
        {"os", "macOS 15.1"},
        {"ids_hash", "fedcba9876543210"},
        {"quality", "C"},
        {"error", ""},
    };
    measured rows[2] = {measured_run(), measured_run()};
    rows[1].number = (run_number){2, 2, 1};
    rows[0].params.model = "a \"quoted\", long\nname";
    rows[1].sample.n_tokens = 1;
    char *text = written("csv", &one_plan, rows, 2), *second = strstr(text, "\n2,");
    assert_memory_equal(text, first, sizeof first - 1);
    assert_non_null(strstr(text, quoted));
    assert_non_null(second);
    size_t found = 0;
    for (int c = 0; c < N_COLUMNS; c++) {
        const char *name = field(text, c);
        int times = 0;
        for (int k = 0; k < N_COLUMNS; k++) times += !strcmp(name, column_table[k].name);
        assert_int_equal(times, 1);
        for (size_t i = 0; i < COUNT(wanted); i++) {
            if (strcmp(field(text, c), wanted[i][0])) continue;
            assert_string_equal(field(second + 1, c), wanted[i][1]);
            found++;
        }
    }
    assert_int_equal(found, COUNT(wanted));
    assert_string_equal(second + strlen(second) - 1, "\n");
    free(text);
}

static void test_mlxbench(void **state) {
    (void)state;
    measured rows[2] = {measured_run(), measured_run()};
    rows[1].number = (run_number){2, 2, 1};
    rows[1].sample.n_tokens = 1;
    rows[1].params.kv_bits = 0;
    rows[1].params.max_kv_size = 512;
    check_text(written("mlxbench", &one_plan, rows, 2),
               "run,model,hw_model,n_prompt,n_generate,max_kv_size,kv_bits,kv_group_size,quantized_kv_start,"
               "prefill_step_size,prompt_tokens,prompt_tps,generation_tokens,generation_tps,peak_memory_gb\n"
               "1,a-model,m2ultra_192gb_76gpu,10,4,None,4,64,0,2048,10,20.000,4,6.000,1.235\n"
               "2,a-model,m2ultra_192gb_76gpu,10,4,512,None,64,0,2048,10,20.000,1,None,1.235\n");
}

static void test_md(void **state) {
    (void)state;
    plan p;
    const char *lists[N_PARAMS];
    for (int i = 0; i < N_PARAMS; i++) lists[i] = param_table[i].default_list;
    lists[PARAM_model] = "tiny,a|b";
    lists[PARAM_kv_bits] = "none,8";
    assert_int_equal(plan_parse(&p, lists), 0);
    measured rows[2] = {measured_run(), measured_run()};
    rows[1].number = (run_number){2, 2, 1};
    rows[0].params.model = "tiny";
    rows[0].params.kv_bits = 0;
    rows[1].params.model = "a|b";
    rows[1].sample.n_tokens = 1;
    check_text(
        written("md", &p, rows, 2),
        "| model |  kv_bits | quantization |    kv_gb | prompt_tokens | prompt_tps | generation_tokens | "
        "generation_tps | quality |  ttft_ms | peak_memory_gb |\n"
        "| ----- | -------: | ------------ | -------: | ------------: | ---------: | ----------------: | "
        "-------------: | ------- | -------: | -------------: |\n"
        "| tiny  |          | 4-bit g64    |    0.002 |            10 |     20.000 |                 4 |     "
        "     "
        "6.000 | C       |  500.000 |          1.235 |\n"
        "| a\\|b   |        4 | 4-bit g64    |    0.002 |            10 |     20.000 |                 1 |   "
        "             "
        "| C       |  500.000 |          1.235 |\n"
        "\n"
        "mlxbench 0.1.0, engine fake (none), 2 threads, random weights, text prompt, graph fused; "
        "Apple M2 Ultra; macOS 15.1\n"
        "\n"
        "The quality is C (line 1): too warm: wait.\n");
    plan_free(&p);
}

/* The first token of run i comes after 100, 200, ... ms, so that prompt_tps is 100, 50, 33.333,
 * ... */
static char *md_of_repeats(int n) {
    measured runs[8];
    for (int i = 0; i < n; i++) {
        runs[i] = measured_run();
        runs[i].number = (run_number){1 + i, 1, 1 + i};
        runs[i].sample.start_ns = token_ns[0] - 100000000 * (i + 1);
    }
    return written("md", &one_plan, runs, n);
}

static void test_md_repeats(void **state) {
    (void)state;
    char *few = md_of_repeats(3), *many = md_of_repeats(7);
    assert_non_null(strstr(few, "| prompt_tps |           min to max |"));
    assert_non_null(strstr(few, "|     50.000 |    33.333 to 100.000 |"));
    assert_non_null(strstr(few, "|  3 | C       |  200.000 |"));
    assert_non_null(strstr(many, "| prompt_tps |        95 % interval |"));
    assert_non_null(strstr(many, "|     25.000 |    14.286 to 100.000 |"));
    assert_non_null(strstr(many, "|  7 | C       |  400.000 |"));
    assert_null(strstr(strstr(many, "\n| a-model") + 1, "\n| a-model")); /* one line */
    free(few);
    free(many);
}

/* The line below the table has what all lines share, and nothing that only some have. */
static void test_md_shares(void **state) {
    (void)state;
    measured runs[3] = {measured_run(), measured_run(), measured_run()};
    for (int i = 0; i < 3; i++) {
        runs[i].number = (run_number){1 + i, 1 + i, 1};
        runs[i].facts.quality = "B"; /* no reason for a sentence */
    }
    runs[1].params.threads = 4;
    runs[1].facts.os = "Linux";
    runs[2].facts = (facts){.error = "failed", .chip = "other", .synthetic = -1}; /* has no part in it */
    check_tail(written("md", &one_plan, runs, 3),
               "\n\nmlxbench 0.1.0, engine fake (none), weights 4-bit g64 (random), text prompt, graph "
               "fused, kv_bits 4; "
               "Apple M2 Ultra\n");
}

static void test_json(void **state) {
    (void)state;
    measured runs[2] = {measured_run(), measured_run()};
    runs[0].params.model = "a \"quoted\"\nname\\";
    runs[1].number = (run_number){2, 2, 1};
    runs[1].sample.n_tokens = 1;
    for (int n = 1; n <= 2; n++) {
        char *text = written("json", &one_plan, runs, n);
        json *root = json_parse(text, strlen(text), "report");
        assert_non_null(root);
        assert_true(json_number(json_get(root, "schema")) == 1);
        assert_string_equal(json_string(json_get(json_get(root, "machine"), "chip")), "Apple M2 Ultra");
        assert_int_equal(json_length(json_get(root, "summaries")), n);
        assert_int_equal(json_length(json_get(root, "runs")), n);
        const json *one = json_first(json_get(root, "runs"));
        for (int i = 0; i < n; i++, one = json_next(one)) {
            assert_int_equal(json_length(one), N_COLUMNS);
            assert_string_equal(json_string(json_get(one, "model")), runs[i].params.model);
            assert_true(json_true(json_get(one, "synthetic")));
            assert_true(json_number(json_get(one, "ttft_ms")) == 500);
            assert_null(json_get(one, "max_kv_size"));
            assert_int_equal(json_get(one, "generation_tps") == NULL, i == 1);
        }
        json_free(root);
        free(text);
    }
}

static void check_lists(const char *path, int n) {
    char *text = read_file(path);
    json *root = json_parse(text, strlen(text), "report");
    if (!root) fail_msg("%s", error_message());
    assert_int_equal(json_length(json_get(root, "runs")), n);
    assert_int_equal(json_length(json_get(root, "summaries")), n);
    json_free(root);
    free(text);
}

/* By this process, as Linux counts it; 0 elsewhere. */
static int64_t bytes_written(void) {
    long long n = 0;
    FILE *f = fopen("/proc/self/io", "r");
    char line[100];
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "wchar: %lld", &n) == 1) break;
    if (f) fclose(f);
    return n;
}

/* A file of many configurations is complete after each row, and still a row costs no more than
 * itself: a list written again at each row would be a thousand times the file. */
static void test_json_of_many(void **state) {
    (void)state;
    enum { ROWS = 2000 };
    sweep s = plan_sweep(&one_plan, 1);
    char spec[1100], *path = strchr(strcpy(spec, "json:"), ':') + 1;
    snprintf(path, sizeof spec - 5, "%s", in_folder("many"));
    reports *to = reports_open(&(option_texts){1, {spec}}, &(report_options){0}, &s);
    assert_non_null(to);
    int64_t before = bytes_written();
    for (int i = 0; i < ROWS; i++) {
        measured m = measured_run();
        m.number = (run_number){1 + i, 1 + i, 1};
        row one = row_of(&m), whole;
        summary *sum = summary_new();
        assert_int_equal(reports_row(to, &one) | summary_add(sum, &one) | summary_row(sum, &whole), 0);
        assert_int_equal(reports_row(to, &whole), 0);
        summary_free(sum);
        if (i % 250 == 0) check_lists(path, i + 1);
    }
    int64_t written = bytes_written() - before;
    assert_int_equal(reports_close(to), 0);
    check_lists(path, ROWS);
    char *text = read_file(path);
    assert_null(strstr(text, "  ")); /* no gap is left */
    if (written > 4 * (int64_t)strlen(text))
        fail_msg("%lld bytes were written for a file of %zu", (long long)written, strlen(text));
    if (!written) print_message("not checked: this system does not say how much a process has written\n");
    free(text);
    unlink(path);
}

static void test_jsonl(void **state) {
    (void)state;
    measured m = measured_run();
    char *text = written("jsonl", &one_plan, &m, 1);
    char *end = strchr(text, '\n');
    assert_non_null(end);
    json *run = json_parse(text, (size_t)(end - text), "report"),
         *whole = json_parse(end, strlen(end), "report");
    assert_non_null(run);
    assert_non_null(whole);
    assert_string_equal(json_string(json_get(run, "kind")), "run");
    assert_true(json_number(json_get(run, "start_ns")) == 1e9);
    assert_true(json_number(json_get(run, "load_ns")) == 25e7);
    assert_int_equal(json_length(json_get(run, "token_ns")), 4);
    assert_int_equal(json_length(json_get(run, "token_ids")), 4);
    assert_true(json_number(json_first(json_get(run, "token_ns"))) == 15e8);
    assert_true(json_number(json_first(json_get(run, "token_ids"))) == 3);
    assert_string_equal(json_string(json_get(whole, "kind")), "summary");
    assert_true(json_number(json_get(json_get(json_get(whole, "spreads"), "prompt_tps"), "n")) == 1);
    assert_null(json_get(whole, "token_ns"));
    assert_null(json_get(whole, "run"));
    json_free(run);
    json_free(whole);
    free(text);
}

static int set_up(void **state) {
    return make_one_plan() ? -1 : new_folder(state);
}

static int tear_down(void **state) {
    (void)state;
    plan_free(&one_plan);
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_csv),          cmocka_unit_test(test_mlxbench),  cmocka_unit_test(test_md),
        cmocka_unit_test(test_md_repeats),   cmocka_unit_test(test_md_shares), cmocka_unit_test(test_json),
        cmocka_unit_test(test_json_of_many), cmocka_unit_test(test_jsonl),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
