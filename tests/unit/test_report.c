/* test_report.c - every format's exact text from known rows, and the files it goes to.
 * Files are written to a temporary folder, and read back. */
#include "folder.h"
#include "measured.h"
#include "report/report.h"

#include <dirent.h>

/* ---- formats ---- */

static char *read_file(const char *path) {
    file_map map;
    assert_int_equal(file_map_open(&map, path), 0);
    char *text = malloc(map.size + 1);
    assert_non_null(text);
    memcpy(text, map.data, map.size);
    text[map.size] = '\0';
    file_map_close(&map);
    return text;
}

/* Hands out n runs, and each configuration's row after its last one; after each the file must be longer. */
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

static void check_text(char *text, const char *wanted) {
    assert_string_equal(text, wanted);
    free(text);
}

static void check_tail(char *text, const char *wanted) {
    size_t n = strlen(text), m = strlen(wanted);
    if (n < m || strcmp(text + n - m, wanted)) fail_msg("\"%s\" is not the end of: %s", wanted, text);
    free(text);
}

static void test_csv(void **state) {
    (void)state;
    measured rows[2] = {measured_run(), measured_run()};
    rows[1].number = (run_number){2, 2, 1};
    rows[0].params.model = "a \"quoted\", long\nname";
    rows[1].sample.n_tokens = 1;
    check_text(
        written("csv", &one_plan, rows, 2),
        "run,prompt_tokens,prompt_tps,generation_tokens,generation_tps,peak_memory_gb,configuration,repeat,"
        "model,engine,"
        "threads,affinity,graph,activations,n_prompt,"
        "n_generate,depth,batch,prompt_source,max_kv_size,kv_bits,kv_group_size,quantized_kv_start,prefill_"
        "step_"
        "size,sequence_tps,ttft_ms,"
        "itl_p50_ms,itl_p90_ms,itl_p99_ms,itl_max_ms,stalls,itl_at_0_ms,itl_per_1000_ms,itl_fit_r2,total_s,"
        "load_s,weights_gb,kv_gb,scratch_gb,peak_rss_gb,model_type,"
        "quantization,"
        "parameters,synthetic,engine_version,mlx_env,device,hw_model,chip,os,mlxbench_version,seed,order,"
        "warmup,"
        "prompt_"
        "hash,ids_hash,quality,quality_reasons,measured_at,error\n"
        "1,10,20.000,4,6.000,1.234568,1,1,\"a \"\"quoted\"\", "
        "long\nname\",fake,2,none,fused,,10,4,0,1,text,,4,64,0,2048,6.000,500.000,100.000,"
        "300.000,300.000,300.000,1,-1033.3333,100000.0000,0.7500,1.000000,0.250000,1.000000,0.002000,0."
        "000500,1.500000,llama,4-bit "
        "g64,13000000,true,0.1.0,MLX_ENABLE_TF32=0,none,"
        "m2ultra_192gb_76gpu,Apple M2 Ultra,macOS "
        "15.1,0.1.0,3,,1,0123456789abcdef,fedcba9876543210,C,too warm: wait,2026-01-02T03:04:05Z,\n"
        "2,10,20.000,1,,1.234568,2,1,a-model,fake,2,none,fused,,10,4,0,1,text,,4,64,0,2048,,500.000,,"
        ",,,,,,,0."
        "500000,0.250000,1."
        "000000,0.002000,"
        "0.000500,1.500000,llama,4-bit "
        "g64,13000000,true,0.1.0,MLX_ENABLE_TF32=0,none,m2ultra_192gb_76gpu,Apple M2 "
        "Ultra,macOS 15.1,"
        "0.1.0,3,,1,0123456789abcdef,fedcba9876543210,C,too warm: wait,2026-01-02T03:04:05Z,\n");
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

/* The first token of run i comes after 100, 200, ... ms, so that prompt_tps is 100, 50, 33.333, ... */
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

/* A file of many configurations is complete after each row, and still a row costs no more than itself: a list
 * written again at each row would be a thousand times the file. */
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

/* ---- outputs ---- */

static const char *input; /* a path of a model, if any */

static reports *open_outputs(int n, const char *a, const char *b, bool force) {
    error_clear();
    report_options o = {.force = force, .inputs = &input, .n_inputs = input != NULL};
    static sweep s;
    s = plan_sweep(&one_plan, 1);
    return reports_open(&(option_texts){n, {a, b}}, &o, &s);
}

static void check_refused(int n, const char *a, const char *b, bool force, int code, const char *message) {
    assert_null(open_outputs(n, a, b, force));
    assert_int_equal(error_exit_code(), code);
    if (!strstr(error_message(), message)) fail_msg("\"%s\" instead of \"%s\"", error_message(), message);
}

static void test_refused(void **state) {
    (void)state;
    check_refused(1, "xml", NULL, false, EXIT_USAGE,
                  "unknown format \"xml\"; known: csv, mlxbench, md, json, jsonl");
    check_refused(1, "cs", NULL, false, EXIT_USAGE, "unknown format \"cs\"");
    check_refused(1, "", NULL, false, EXIT_USAGE, "unknown format \"\"");
    check_refused(1, "csv:", NULL, false, EXIT_USAGE, "the file's name is missing");
    check_refused(2, "csv", "md", false, EXIT_USAGE, "only one format");
    check_refused(1, "csv:/no/such/folder/file", NULL, false, EXIT_FAILED,
                  "cannot write /no/such/folder/file: ");
    check_refused(1, "csv:/tmp", NULL, true, EXIT_FAILED, "cannot write /tmp: ");
}

/* "FORMAT:the file `name` in the folder" */
static char *spec_of(const char *format, const char *name) {
    static char specs[4][1200];
    static int next;
    char *spec = specs[next++ % 4];
    snprintf(spec, sizeof specs[0], "%s:%s", format, in_folder(name));
    return spec;
}

static int n_files(void) {
    int n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d));) n += entry->d_name[0] != '.';
    closedir(d);
    return n;
}

static void test_one_file_twice(void **state) {
    (void)state;
    check_refused(2, spec_of("csv", "new"), spec_of("md", "new"), false, EXIT_USAGE, "are the same file");
    check_refused(2, spec_of("csv", "new"), spec_of("md", ".//new"), false, EXIT_USAGE, "are the same file");
    write_text("there", "");
    char path[1024];
    snprintf(path, sizeof path, "%s", in_folder("there"));
    assert_int_equal(symlink(path, in_folder("link")), 0);
    check_refused(2, spec_of("csv", "there"), spec_of("md", "link"), false, EXIT_USAGE, "are the same file");
    unlink(in_folder("link"));
    assert_int_equal(link(path, in_folder("link")), 0);
    check_refused(2, spec_of("csv", "there"), spec_of("md", "link"), true, EXIT_USAGE, "are the same file");
    assert_int_equal(n_files(), 2);
    unlink(in_folder("link"));
    unlink(in_folder("there"));
    reports *r = open_outputs(2, "csv:/dev/null", "md:/dev/null", false);
    assert_non_null(r);
    assert_int_equal(reports_close(r), 0);
}

/* A file that is there stays as it is until there is a row to replace it with, and is replaced only with
 * force. */
static void test_earlier_file(void **state) {
    (void)state;
    measured m = measured_run();
    row one = row_of(&m);
    write_text("rows", "earlier\n");
    check_refused(1, spec_of("csv", "rows"), NULL, false, EXIT_USAGE, "is there already");
    check_refused(2, spec_of("csv", "rows"), "csv:/no/such/folder/file", true, EXIT_FAILED, "cannot write");
    check_text(read_file(in_folder("rows")), "earlier\n");
    reports *r = open_outputs(1, spec_of("csv", "rows"), NULL, true);
    assert_non_null(r);
    check_text(read_file(in_folder("rows")), "earlier\n");
    assert_int_equal(reports_close(r), 0);
    check_text(read_file(in_folder("rows")), "earlier\n");
    assert_int_equal(n_files(), 1);
    r = open_outputs(1, spec_of("csv", "rows"), NULL, true);
    assert_non_null(r);
    assert_int_equal(reports_row(r, &one), 0);
    char *text = read_file(in_folder("rows"));
    assert_memory_equal(text, "run,", 4);
    free(text);
    assert_int_equal(reports_close(r), 0);
    assert_int_equal(n_files(), 1);
    unlink(in_folder("rows"));
}

/* Someone else makes the file while the first run is measured: neither their file nor our row is lost. */
static void test_file_made_meanwhile(void **state) {
    (void)state;
    measured m = measured_run();
    row one = row_of(&m);
    reports *r = open_outputs(1, spec_of("csv", "rows"), NULL, false);
    assert_non_null(r);
    write_text("rows", "theirs\n");
    assert_int_equal(reports_row(r, &one), -1);
    assert_message("was made by someone else meanwhile; the rows are in ");
    check_text(read_file(in_folder("rows")), "theirs\n");
    reports_close(r);
    const char *part = strstr(error_message(), "the rows are in ") + strlen("the rows are in ");
    char *text = read_file(part);
    assert_non_null(strstr(text, "\n1,10,20.000"));
    free(text);
    unlink(part);
    unlink(in_folder("rows"));
}

static void test_file_of_a_model(void **state) {
    (void)state;
    char path[1024];
    write_text("model.gguf", "GGUF");
    snprintf(path, sizeof path, "%s", in_folder("model.gguf"));
    input = path;
    check_refused(1, spec_of("csv", "model.gguf"), NULL, true, EXIT_USAGE, "so it cannot be written");
    input = folder;
    check_refused(1, spec_of("csv", "./model.gguf"), NULL, true, EXIT_USAGE, "so it cannot be written");
    input = NULL;
    check_text(read_file(path), "GGUF");
    unlink(path);
}

static void test_full_disk(void **state) {
    (void)state;
    if (!file_exists("/dev/full") && access("/dev/full", W_OK)) {
        print_message("not run: this system has no /dev/full\n");
        skip();
    }
    check_refused(1, "csv:/dev/full", NULL, false, EXIT_FAILED,
                  "cannot write /dev/full: No space left on device");
    /* jsonl begins with nothing, so its first row finds out; the error recorded first stays. */
    measured m = measured_run();
    row r = row_of(&m);
    reports *all = open_outputs(1, "jsonl:/dev/full", NULL, false);
    assert_non_null(all);
    assert_int_equal(reports_row(all, &r), -1);
    fail_usage("first");
    reports_close(all);
    assert_string_equal(error_message(), "first");
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
        cmocka_unit_test(test_csv),
        cmocka_unit_test(test_mlxbench),
        cmocka_unit_test(test_md),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_json_of_many),
        cmocka_unit_test(test_md_repeats),
        cmocka_unit_test(test_md_shares),
        cmocka_unit_test(test_jsonl),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_one_file_twice),
        cmocka_unit_test(test_earlier_file),
        cmocka_unit_test(test_file_made_meanwhile),
        cmocka_unit_test(test_file_of_a_model),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
