/* test_report.c - metrics from known timestamps, and every format's exact text from known records.
 * Files are written to a temporary folder, and read back. */
#include "folder.h"
#include "report/report.h"

#include <dirent.h>

static plan one_plan;

/* 10 prompt tokens, the first token after 0.5 s, then one each 0.1 s but for a last one after 0.3 s. */
static int64_t token_ns[] = {1500000000, 1600000000, 1700000000, 2000000000};
static int32_t ids[] = {3, 10, 17, 24};

static record sample_record(void) {
    record r = {
        .run = 1,
        .params = plan_params(&one_plan, 0),
        .sample = {.n_prompt = 10,
                   .n_tokens = 4,
                   .load_ns = 250000000,
                   .start_ns = 1000000000,
                   .token_ns = token_ns,
                   .ids = ids,
                   .memory = {.weights = 1000000000, .kv = 2000000, .scratch = 500000, .peak = 1234567890},
                   .peak_rss = 1500000000},
        .facts = {.model_type = "llama",
                  .quantization = "4-bit g64",
                  .parameters = 13000000,
                  .synthetic = true,
                  .engine_version = "0.1.0",
                  .device = "none",
                  .hw_model = "m2ultra_192gb_76gpu",
                  .chip = "Apple M2 Ultra",
                  .os = "macOS 15.1",
                  .mlxbench_version = "0.1.0",
                  .measured_at = "2026-01-02T03:04:05Z"},
    };
    r.params.engine = "fake";
    r.params.threads = 2;
    r.params.graph = "mlx-lm";
    r.params.activations = NULL; /* means nothing to this engine */
    r.params.mlx_ops_per_buffer = 50;
    r.params.mlx_cuda_graphs = "off";
    r.params.mlx_cudnn_attention = r.params.mlx_tf32 = NULL;
    return r;
}

static void check_metric(const record *r, int column, double wanted) {
    value v = record_value(r, column);
    assert_int_equal(v.kind, VALUE_REAL);
    if (v.real < wanted - 1e-9 || v.real > wanted + 1e-9)
        fail_msg("%s: %g instead of %g", column_name(column), v.real, wanted);
}

static void test_metrics(void **state) {
    (void)state;
    record r = sample_record();
    check_metric(&r, COLUMN_prompt_tokens, 10);
    check_metric(&r, COLUMN_prompt_tps, 20);
    check_metric(&r, COLUMN_generation_tokens, 4);
    check_metric(&r, COLUMN_generation_tps, 6);
    check_metric(&r, COLUMN_ttft_ms, 500);
    check_metric(&r, COLUMN_itl_p50_ms, 100);
    check_metric(&r, COLUMN_itl_p99_ms, 300);
    check_metric(&r, COLUMN_total_s, 1);
    check_metric(&r, COLUMN_load_s, 0.25);
    check_metric(&r, COLUMN_peak_memory_gb, 1.23456789);
    check_metric(&r, COLUMN_weights_gb, 1);
    check_metric(&r, COLUMN_kv_gb, 0.002);
    check_metric(&r, COLUMN_scratch_gb, 0.0005);
    check_metric(&r, COLUMN_peak_rss_gb, 1.5);
}

/* One token has no time between tokens; a clock that stood still gives no rate. */
static void test_metrics_unset(void **state) {
    (void)state;
    record r = sample_record();
    r.sample.n_tokens = 1;
    r.sample.peak_rss = 0;
    static const int unset[] = {COLUMN_generation_tps, COLUMN_itl_p50_ms, COLUMN_itl_p99_ms,
                                COLUMN_peak_rss_gb};
    for (size_t i = 0; i < sizeof unset / sizeof *unset; i++)
        assert_int_equal(record_value(&r, unset[i]).kind, VALUE_NONE);
    check_metric(&r, COLUMN_prompt_tps, 20);
    r.sample.start_ns = token_ns[0];
    assert_int_equal(record_value(&r, COLUMN_prompt_tps).kind, VALUE_NONE);
}

/* A configuration that failed has no sample to make metrics of. */
static void test_failed(void **state) {
    (void)state;
    record r = {.params = plan_params(&one_plan, 0), .facts = {.synthetic = -1, .error = "out of memory"}};
    for (int c = COLUMN_FIRST_PARAM + N_PARAMS; c < N_COLUMNS; c++)
        assert_int_equal(record_value(&r, c).kind, c == COLUMN_error ? VALUE_TEXT : VALUE_NONE);
}

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

/* What `format` makes of n records; free it. The file must be whole after each row. */
static char *written(const char *format, const plan *p, const record *rows, int n) {
    char spec[1200], *path;
    snprintf(spec, sizeof spec, "%s:%s", format, in_folder(format));
    path = strchr(spec, ':') + 1;
    error_clear();
    unlink(path);
    reports *r = reports_open(&(option_texts){1, {spec}}, &(report_options){0}, p);
    assert_non_null(r);
    size_t before = 0;
    for (int i = 0; i < n; i++) {
        assert_int_equal(reports_row(r, &rows[i]), 0);
        char *text = read_file(path);
        assert_true(strlen(text) > before); /* out at once */
        before = strlen(text);
        free(text);
    }
    char *last = read_file(path);
    assert_int_equal(reports_close(r), 0);
    char *text = read_file(path);
    assert_string_equal(last, text); /* complete after each row */
    free(last);
    unlink(path);
    return text;
}

static void check_text(char *text, const char *wanted) {
    assert_string_equal(text, wanted);
    free(text);
}

static void test_csv(void **state) {
    (void)state;
    record rows[2] = {sample_record(), sample_record()};
    rows[0].params.model = "a \"quoted\", long\nname";
    rows[1].run = 2;
    rows[1].sample.n_tokens = 1;
    check_text(
        written("csv", &one_plan, rows, 2),
        "run,prompt_tokens,prompt_tps,generation_tokens,generation_tps,peak_memory_gb,model,engine,"
        "threads,affinity,graph,activations,n_prompt,"
        "n_generate,prompt_source,max_kv_size,kv_bits,kv_group_size,quantized_kv_start,prefill_step_"
        "size,mlx_ops_per_buffer,mlx_mb_per_buffer,mlx_cuda_graphs,mlx_cuda_graph_cache,mlx_cudnn_attention,"
        "mlx_tf32,mlx_bfs_width,ttft_ms,"
        "itl_p50_ms,itl_p99_ms,total_s,load_s,weights_gb,kv_gb,scratch_gb,peak_rss_gb,model_type,"
        "quantization,"
        "parameters,synthetic,engine_version,device,hw_model,chip,os,mlxbench_version,measured_at,error\n"
        "1,10,20.000,4,6.000,1.234568,\"a \"\"quoted\"\", "
        "long\nname\",fake,2,none,mlx-lm,,10,4,text,,4,64,0,2048,50,,off,,,,,500.000,100.000,"
        "300.000,1.000000,0.250000,1.000000,0.002000,0.000500,1.500000,llama,4-bit "
        "g64,13000000,true,0.1.0,none,"
        "m2ultra_192gb_76gpu,Apple M2 Ultra,macOS 15.1,0.1.0,2026-01-02T03:04:05Z,\n"
        "2,10,20.000,1,,1.234568,a-model,fake,2,none,mlx-lm,,10,4,text,,4,64,0,2048,50,,off,,,,,500.000,,,0."
        "500000,0.250000,1."
        "000000,0.002000,"
        "0.000500,1.500000,llama,4-bit g64,13000000,true,0.1.0,none,m2ultra_192gb_76gpu,Apple M2 "
        "Ultra,macOS 15.1,"
        "0.1.0,2026-01-02T03:04:05Z,\n");
}

static void test_mlxbench(void **state) {
    (void)state;
    record rows[2] = {sample_record(), sample_record()};
    rows[1].run = 2;
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
    record rows[2] = {sample_record(), sample_record()};
    rows[0].params.model = "tiny";
    rows[0].params.kv_bits = 0;
    rows[1].params.model = "a|b";
    rows[1].sample.n_tokens = 1;
    check_text(
        written("md", &p, rows, 2),
        "| model |  kv_bits | prompt_tokens | prompt_tps | generation_tokens | generation_tps |  ttft_ms | "
        "peak_memory_gb |\n"
        "| ----- | -------: | ------------: | ---------: | ----------------: | -------------: | -------: | "
        "-------------: |\n"
        "| tiny  |          |            10 |     20.000 |                 4 |          6.000 |  500.000 | "
        "         1.235 |\n"
        "| a\\|b   |        4 |            10 |     20.000 |                 1 |                |  500.000 | "
        "         1.235 |\n"
        "\n"
        "mlxbench 0.1.0, engine fake (none), 2 threads, text prompt, random weights; Apple M2 Ultra; macOS "
        "15.1\n");
    plan_free(&p);
}

static void test_json(void **state) {
    (void)state;
    record rows[2] = {sample_record(), sample_record()};
    rows[0].params.model = "a \"quoted\"\nname\\";
    rows[1].sample.n_tokens = 1;
    for (int n = 1; n <= 2; n++) {
        char *text = written("json", &one_plan, rows, n);
        json *root = json_parse(text, strlen(text), "report");
        assert_non_null(root);
        assert_int_equal(json_length(root), n);
        const json *row = json_first(root);
        for (int i = 0; i < n; i++, row = json_next(row)) {
            assert_int_equal(json_length(row), N_COLUMNS);
            assert_string_equal(json_string(json_get(row, "model")), rows[i].params.model);
            assert_true(json_true(json_get(row, "synthetic")));
            assert_true(json_number(json_get(row, "ttft_ms")) == 500);
            assert_null(json_get(row, "max_kv_size"));
            assert_int_equal(json_get(row, "generation_tps") == NULL, i == 1);
        }
        json_free(root);
        free(text);
    }
}

static void test_jsonl(void **state) {
    (void)state;
    record rows[2] = {sample_record(), sample_record()};
    char *text = written("jsonl", &one_plan, rows, 2);
    char *end = strchr(text, '\n');
    assert_non_null(end);
    assert_int_equal(strlen(end), end - text + 2); /* two equal lines */
    json *row = json_parse(text, (size_t)(end - text), "report");
    assert_non_null(row);
    assert_true(json_number(json_get(row, "start_ns")) == 1e9);
    assert_true(json_number(json_get(row, "load_ns")) == 25e7);
    assert_int_equal(json_length(json_get(row, "token_ns")), 4);
    assert_int_equal(json_length(json_get(row, "token_ids")), 4);
    assert_true(json_number(json_first(json_get(row, "token_ns"))) == 15e8);
    assert_true(json_number(json_first(json_get(row, "token_ids"))) == 3);
    json_free(row);
    free(text);
}

/* ---- outputs ---- */

static const char *input; /* a path of a model, if any */

static reports *open_outputs(int n, const char *a, const char *b, bool force) {
    error_clear();
    report_options o = {.force = force, .inputs = &input, .n_inputs = input != NULL};
    return reports_open(&(option_texts){n, {a, b}}, &o, &one_plan);
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
    record row = sample_record();
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
    assert_int_equal(reports_row(r, &row), 0);
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
    record row = sample_record();
    reports *r = open_outputs(1, spec_of("csv", "rows"), NULL, false);
    assert_non_null(r);
    write_text("rows", "theirs\n");
    assert_int_equal(reports_row(r, &row), -1);
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
    check_refused(1, spec_of("csv", "model.gguf"), NULL, true, EXIT_USAGE, "is a file of the model");
    input = folder;
    check_refused(1, spec_of("csv", "./model.gguf"), NULL, true, EXIT_USAGE, "is a file of the model");
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
    record r = sample_record();
    reports *all = open_outputs(1, "jsonl:/dev/full", NULL, false);
    assert_non_null(all);
    assert_int_equal(reports_row(all, &r), -1);
    fail_usage("first");
    reports_close(all);
    assert_string_equal(error_message(), "first");
}

static int set_up(void **state) {
    const char *lists[N_PARAMS];
    for (int i = 0; i < N_PARAMS; i++) lists[i] = param_table[i].default_list;
    lists[PARAM_model] = "a-model";
    lists[PARAM_n_prompt] = "10";
    lists[PARAM_n_generate] = "4";
    lists[PARAM_kv_bits] = "4";
    return plan_parse(&one_plan, lists) ? -1 : new_folder(state);
}

static int tear_down(void **state) {
    (void)state;
    plan_free(&one_plan);
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_metrics_unset),
        cmocka_unit_test(test_failed),
        cmocka_unit_test(test_csv),
        cmocka_unit_test(test_mlxbench),
        cmocka_unit_test(test_md),
        cmocka_unit_test(test_json),
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
