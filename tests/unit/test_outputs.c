/* test_outputs.c - where a report goes: files that are there, that cannot be written, or that
 * others use. Files are written to a temporary folder, and read back. */
#include "measured.h"
#include "report/report.h"
#include "texts.h"

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
                  "unknown format \"xml\"; known: csv, mlxbench, md, json, jsonl, sql, sqlite, share");
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

/* A file that is there stays as it is until there is a row to replace it with, and is replaced only
 * with force. */
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

/* Someone else makes the file while the first run is measured: neither their file nor our row is
 * lost. */
static void test_file_made_meanwhile(void **state) {
    (void)state;
    measured m = measured_run();
    row one = row_of(&m);
    reports *r = open_outputs(1, spec_of("csv", "rows"), NULL, false);
    assert_non_null(r);
    write_text("rows", "theirs\n");
    assert_int_equal(reports_row(r, &one), -1);
    assert_message("was written by someone else meanwhile; the rows are in ");
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
        cmocka_unit_test(test_refused),         cmocka_unit_test(test_one_file_twice),
        cmocka_unit_test(test_earlier_file),    cmocka_unit_test(test_file_made_meanwhile),
        cmocka_unit_test(test_file_of_a_model), cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
