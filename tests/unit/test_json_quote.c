/* test_json_quote.c - strings written as JSON are valid JSON whatever the bytes.
 * Prompts and names from files reach reports, so every byte sequence must survive. */
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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(quotes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
