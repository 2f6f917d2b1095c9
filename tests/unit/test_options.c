/* test_options.c - the option table: parsing, its errors and the help page.
 * Errors are checked by their words, since the message is what the user acts on. */
#include "base/base.h" /* before cmocka.h, which defines a macro fail() */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bool verbose;
static const char *model;
static option_texts outputs;
static int64_t threads, step, temperature;

static str sizes;

static const option options[] = {
    {.name = "verbose",
     .short_name = "v",
     .kind = OPTION_FLAG,
     .value = &verbose,
     .help = "print the generated text"},
    {.name = "model",
     .metavar = "M",
     .kind = OPTION_TEXT,
     .value = &model,
     .help = "a folder, a file or a name"},
    {.name = "output",
     .short_name = "o",
     .metavar = "FORMAT[:FILE]",
     .kind = OPTION_TEXTS,
     .value = &outputs,
     .help = "where the rows go; may be repeated"},
    {.name = "threads",
     .short_name = "t",
     .metavar = "N",
     .kind = OPTION_NUMBER,
     .value = &threads,
     .min = 1,
     .max = 64,
     .standard = "physical cores",
     .help = "threads of the CPU engine"},
    {.name = "prefill-step-size",
     .short_name = "pss",
     .metavar = "N",
     .kind = OPTION_NUMBER,
     .value = &step,
     .min = 1,
     .max = INT64_MAX,
     .standard = "2048",
     .help = "tokens per prefill chunk, a text long enough to need a second line in the right column"},
    {.name = "temperature",
     .metavar = "N",
     .kind = OPTION_NUMBER,
     .value = &temperature,
     .min = -100,
     .max = 100,
     .rare = true,
     .help = "may be negative"},
    {.name = "size",
     .metavar = "N,...",
     .kind = OPTION_LIST,
     .value = &sizes,
     .rare = true,
     .help = "a list"},
};
enum { N_OPTIONS = sizeof options / sizeof *options };

static const option_usage usage = {"mlxbench try --model M [--verbose] [--output FORMAT[:FILE]] [--threads "
                                   "N] [--prefill-step-size N] [options]",
                                   "Tries things.\nIn two lines.", "mlxbench try --model x -t 2", "try"};

static int parse(const char *line) {
    char copy[1024], *argv[256] = {"try"};
    int argc = 1;
    static char kept[1024]; /* values are borrowed from argv */
    snprintf(copy, sizeof copy, "%s", line);
    memcpy(kept, copy, sizeof kept);
    for (char *word = strtok(kept, " "); word; word = strtok(NULL, " ")) argv[argc++] = word;
    verbose = false;
    model = NULL;
    outputs = (option_texts){0};
    threads = step = temperature = 0;
    str_free(&sizes);
    error_clear();
    return options_parse(options, N_OPTIONS, &usage, argc, argv);
}

static void expect_error(const char *line, const char *part) {
    assert_int_equal(parse(line), -1);
    assert_int_equal(error_exit_code(), EXIT_USAGE);
    if (!strstr(error_message(), part)) fail_msg("\"%s\" gave: %s (wanted: %s)", line, error_message(), part);
}

static void values_are_set(void **state) {
    (void)state;
    assert_int_equal(parse(""), 0);
    assert_int_equal(parse("-v --model a --model=b -pss 7 -t 64 -o csv --output=md:x --temperature -5"), 0);
    assert_true(verbose);
    assert_string_equal(model, "b");
    assert_int_equal(step, 7);
    assert_int_equal(threads, 64);
    assert_int_equal(temperature, -5);
    assert_int_equal(outputs.n, 2);
    assert_string_equal(outputs.items[1], "md:x");
    assert_int_equal(parse("--model - --verbose"), 0);
    assert_string_equal(model, "-");
    assert_int_equal(parse("--model=--odd --prefill-step-size=9223372036854775807"), 0);
    assert_string_equal(model, "--odd");
    assert_true(step == INT64_MAX);
}

static void errors_name_the_option(void **state) {
    (void)state;
    expect_error("--treads 3", "unknown option --treads; did you mean --threads?");
    expect_error("-ps 3", "did you mean -pss?");
    expect_error("--entirely-different", "unknown option --entirely-different; see mlxbench try --help");
    expect_error("-threads 3", "did you mean --threads?");
    expect_error("stray", "unexpected argument \"stray\"");
    expect_error("-", "unexpected argument \"-\"");
    expect_error("--threads", "--threads needs a value (N)");
    expect_error("--model --verbose", "--model needs a value (M)");
    expect_error("--model -v", "--model needs a value");
    expect_error("--verbose=1", "--verbose takes no value");
    expect_error("-t many", "--threads: \"many\" is not a whole number");
    expect_error("-t 1.5", "--threads: \"1.5\" is not a whole number");
    expect_error("--threads=", "--threads: \"\" is not a whole number");
    expect_error("--threads 65", "--threads: 65 is outside 1 to 64");
    expect_error("-pss 0", "--prefill-step-size: 0 is too small; the least is 1");
    expect_error("-pss 9223372036854775808", "too large");
    expect_error("-pss -99999999999999999999", "too small");
    char many[1024] = "";
    for (int i = 0; i <= OPTION_MAX_TEXTS; i++) strcat(many, "-o a ");
    expect_error(many, "more than 64 times");
}

static void long_words_are_harmless(void **state) {
    (void)state;
    char line[512] = "--";
    memset(line + 2, 'x', 400);
    expect_error(line, "unknown option --xxx");
}

static void lists_grow(void **state) {
    (void)state;
    assert_int_equal(parse("--size 1,2 -v --size=3"), 0);
    assert_string_equal(sizes.data, "1,2,3");
    str_free(&sizes);
}

static char *help_page(bool all) {
    char *page = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&page, &size);
    assert_non_null(out);
    options_help(out, options, N_OPTIONS, &usage, all);
    fclose(out);
    return page;
}

static void help_shows_the_table(void **state) {
    (void)state;
    char *page = help_page(false);
    assert_int_equal(strncmp(page, "usage: mlxbench try --model M", 29), 0);
    assert_non_null(strstr(page, "\nTries things.\nIn two lines.\n"));
    assert_non_null(strstr(page, "\n  -pss, --prefill-step-size N  tokens per prefill chunk"));
    assert_non_null(strstr(page, "right column (2048)"));
    assert_non_null(strstr(page, "\n  --model M                    a folder"));
    assert_non_null(strstr(page, "\n  -h, --help                   show this page\n"));
    assert_non_null(strstr(page, "\n2 more: mlxbench try --help all\n"));
    assert_null(strstr(page, "--temperature"));
    assert_non_null(strstr(page, "\nexample:\n  mlxbench try --model x -t 2\n"));
    for (char *line = strtok(page, "\n"); line; line = strtok(NULL, "\n")) {
        assert_in_range(strlen(line), 1, 100);
        assert_int_not_equal(line[strlen(line) - 1], ' ');
    }
    free(page);
    page = help_page(true);
    assert_non_null(strstr(page, "\n  --temperature N              may be negative\n"));
    assert_null(strstr(page, "more: mlxbench"));
    free(page);
}

static void help_ends_the_parsing(void **state) {
    (void)state;
    assert_int_equal(parse("-v --help --unknown"), 1);
    assert_int_equal(error_exit_code(), EXIT_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_set),          cmocka_unit_test(errors_name_the_option),
        cmocka_unit_test(long_words_are_harmless), cmocka_unit_test(help_shows_the_table),
        cmocka_unit_test(help_ends_the_parsing),   cmocka_unit_test(lists_grow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
