/* test_watch.c - runs on a machine that is disturbed at times: the grade in their rows, and what
 * --require-quality makes of it. The machine and the clock follow scripts.
 */
#include "bench/bench.h"
#include "folder.h"

enum { MOST = 64 };

static int n_rows, n_summaries, n_watched, disturbed_from, disturbed_to;
static char grades[MOST + 1], reasons[256], summary_grade;
static int64_t clock_at[MOST];

/* Each look at the machine is a second later; runs in between meet another program's CPU second, or
 * none. */
static void watch(sys_state *s, bool gpu) {
    assert_false(gpu); /* the engine fake has none */
    *s = (sys_state){.at_s = n_watched, .n_cpus = 2, .own_s = 0, .busy_s = 0};
    for (int i = 1; i <= n_watched; i++) s->busy_s += i >= disturbed_from && i <= disturbed_to;
    n_watched++;
}

static int take(void *context, const row *r) {
    value grade = r->cells[COLUMN_quality];
    (void)context;
    if (r->kind == ROW_SUMMARY) {
        n_summaries++;
        summary_grade = grade.kind == VALUE_TEXT ? *grade.text : '-';
        return 0;
    }
    assert_true(n_rows < MOST);
    clock_at[n_rows] = clock_ns();
    grades[n_rows++] = grade.kind == VALUE_TEXT ? *grade.text : '-';
    value why = r->cells[COLUMN_quality_reasons];
    if (why.kind == VALUE_TEXT) snprintf(reasons, sizeof reasons, "%s", why.text);
    return 0;
}

static int find_model(const char *name, str *path) {
    str_puts(path, name);
    return path->failed ? -1 : 0;
}

/* Seven runs of a millisecond a token; the machine is disturbed while it is looked at for the
 * from-th to the to-th time. */
static int measure(int from, int to, char required) {
    const char *lists[N_PARAMS];
    plan p;
    n_rows = n_summaries = n_watched = 0;
    memset(grades, 0, sizeof grades);
    reasons[0] = '\0';
    disturbed_from = from;
    disturbed_to = to;
    for (int i = 0; i < N_PARAMS; i++) lists[i] = param_table[i].default_list;
    lists[PARAM_model] = "synthetic:tiny-llama-13m-4bit";
    lists[PARAM_engine] = "fake";
    lists[PARAM_n_prompt] = "8";
    lists[PARAM_n_generate] = "4";
    lists[PARAM_prompt_source] = "random";
    write_text("script", "1000000 1000000\n");
    setenv("MLXBENCH_FAKE_SCRIPT", in_folder("script"), 1);
    bench_options o = {.repeats = 7,
                       .warmup = 1,
                       .time_limit_ns = 120000000000,
                       .require_quality = required,
                       .watch = watch,
                       .find_model = find_model};
    error_clear();
    int failed = plan_parse(&p, lists) || bench_run(&p, &o, take, NULL);
    plan_free(&p);
    return failed ? -1 : 0;
}

/* An optimized build has A where nothing disturbs; one with sanitizers tells of itself. */
static void check_grades(const char *wanted) {
    if (quality_is_unoptimized()) wanted = "FFFFFFF";
    assert_string_equal(grades, wanted);
}

static void test_rows_have_grades(void **state) {
    (void)state;
    assert_int_equal(measure(0, 0, 0), 0);
    check_grades("AAAAAAA");
    assert_int_equal(measure(5, 5, 0), 0); /* two looks a run, the first run is the warm-up */
    if (quality_is_unoptimized()) return;
    assert_true(grades[0] == 'A' && grades[1] > 'B' && grades[6] == 'A');
    assert_non_null(strstr(reasons, "other programs used"));
    assert_int_equal(summary_grade, 'A'); /* three of four runs are good */
    assert_int_equal(measure(5, 9, 0), 0);
    assert_true(summary_grade > 'B');
}

static void test_waits_for_quality(void **state) {
    (void)state;
    if (quality_is_unoptimized()) skip();
    assert_int_equal(measure(5, 9, 'B'), 0);
    assert_string_equal(grades, "AAAAAAA");
    assert_int_equal(n_rows, 7);
    int64_t pause = 0;
    for (int i = 1; i < 7; i++)
        if (clock_at[i] - clock_at[i - 1] > pause) pause = clock_at[i] - clock_at[i - 1];
    assert_true(pause > 3000000000); /* it waited 1 s, then 1 s, then 2 s */
}

static void test_quality_never_comes(void **state) {
    (void)state;
    int64_t start = clock_ns();
    assert_int_equal(measure(0, 1000000, 'B'), -1);
    assert_int_equal(error_exit_code(), EXIT_GATE);
    assert_message("--require-quality B");
    assert_message(quality_is_unoptimized() ? "not optimized" : "other programs used");
    assert_string_equal(grades, "-"); /* a row that says why */
    assert_true(clock_ns() - start < 180000000000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rows_have_grades, new_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_waits_for_quality, new_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_quality_never_comes, new_folder, drop_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
