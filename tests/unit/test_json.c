/* test_json.c - strings written as JSON are valid JSON whatever the bytes; numbers that are not
 * finite; merging. Prompts and names from files reach reports, so every byte sequence must
 * survive. */
#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define REPLACED "\xEF\xBF\xBD"

static const struct {
    const char *text, *quoted;
} cases[] = {
    {"", "\"\""},
    {"plain", "\"plain\""},
    {"a\"b\\c/", "\"a\\\"b\\\\c/\""},
    {"\n\t\x01\x1f\x7f", "\"\\u000a\\u0009\\u0001\\u001f\x7f\""},
    {"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xF4\x8F\xBF\xBF",
     "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xF4\x8F\xBF\xBF\""},
    {"a\x80z", "\"a" REPLACED "z\""},                       /* continuation alone */
    {"\xC0\xAF", "\"" REPLACED REPLACED "\""},              /* overlong, two bytes */
    {"\xE0\x80\xAF", "\"" REPLACED REPLACED REPLACED "\""}, /* overlong, three bytes */
    {"\xF0\x80\x80\xAF", "\"" REPLACED REPLACED REPLACED REPLACED "\""},
    {"\xED\xA0\x80", "\"" REPLACED REPLACED REPLACED "\""},              /* a surrogate */
    {"\xF4\x90\x80\x80", "\"" REPLACED REPLACED REPLACED REPLACED "\""}, /* beyond U+10FFFF */
    {"\xFF\xFE", "\"" REPLACED REPLACED "\""},
    {"\xE2\x82", "\"" REPLACED REPLACED "\""},                    /* cut at the end */
    {"\xF0\x9F\x98\"", "\"" REPLACED REPLACED REPLACED "\\\"\""}, /* cut by a quote, which still is escaped */
};

static void quotes(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        str out = {0};
        json_quote(&out, cases[i].text);
        assert_string_equal(out.data, cases[i].quoted);
        json *parsed = json_parse(out.data, out.length, "quoted");
        assert_non_null(parsed);
        assert_true(json_is_string(parsed));
        json_free(parsed);
        str_free(&out);
    }
}

/* What Python's json module writes for numbers that are not finite. */
static void not_finite(void **state) {
    (void)state;
    static const char text[] = "{\"a\": Infinity, \"b\": -Infinity, \"c\": NaN, \"d\": [1, Infinity],"
                               " \"Infinity\": \"NaN \\\" Infinity\", \"e\": {\"__float__\": \"Infinity\"}}";
    json *root = json_parse(text, sizeof text - 1, "numbers");
    assert_non_null(root);
    double found = 0;
    assert_true(json_number(json_get(root, "a")) > 1e308);
    assert_true(json_number(json_get(root, "b")) < -1e308);
    assert_true(json_number(json_get(root, "e")) > 1e308);
    assert_false(json_is_number(json_get(root, "c")));
    assert_true(json_number(json_next(json_first(json_get(root, "d")))) > 1e308);
    assert_string_equal(json_string(json_get(root, "Infinity")), "NaN \" Infinity");
    assert_int_equal(json_get_float(root, "numbers", "a", true, &found), -1); /* no size or scale may be */
    error_clear();
    json_free(root);
    assert_null(json_parse("{\"a\": Infinit}", 14, "broken"));
    error_clear();
}

static void merged(void **state) {
    (void)state;
    json *first = json_parse("{\"a\": 1, \"b\": null}", 20, "first"),
         *second = json_parse("{\"a\": 2, \"b\": 3, \"c\": [4]}", 28, "second");
    json *all = json_merged(first, second);
    assert_non_null(all);
    assert_true(json_number(json_get(all, "a")) == 1 && json_number(json_get(all, "b")) == 3);
    assert_int_equal(json_length(json_get(all, "c")), 1);
    json_free(first), json_free(second), json_free(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(quotes), cmocka_unit_test(not_finite),
                                       cmocka_unit_test(merged)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
