/* junit.c - a comparison as JUnit's XML, which continuous integration shows: a test case for each
 * line, failed where the loss is beyond --fail-slower, skipped where the machine was disturbed.
 */
#include "report/format.h"

#include <math.h>

static void put_xml(str *out, const char *text) {
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '&')
            str_puts(out, "&amp;");
        else if (c == '<')
            str_puts(out, "&lt;");
        else if (c == '"')
            str_puts(out, "&quot;");
        else if (c < ' ') /* XML has no way to say most of these */
            str_puts(out, " ");
        else
            str_append(out, text, 1);
    }
}

static bool is_skipped(const comparison *c, const difference *d) {
    return c->only_quiet && difference_is_disturbed(d);
}

static void put_case(str *out, const comparison *c, const difference *d) {
    str name = {0};
    put_configuration(&name, c, d->of);
    str_puts(out, "  <testcase classname=\"");
    put_xml(out, column_table[d->column].name);
    str_puts(out, "\" name=\"");
    put_xml(out, name.data ? name.data : "");
    str_puts(out, "\">\n");
    if (is_skipped(c, d))
        str_printf(out, "    <skipped message=\"quality %c before, %c after: not comparable\"/>\n",
                   d->grade_a ? d->grade_a : '?', d->grade_b ? d->grade_b : '?');
    if (difference_is_loss(c, d))
        str_printf(
            out, "    <failure message=\"%+.1f %%, from %.3f to %.3f; the limit is %+.1f %%, p = %.4f\"/>\n",
            100 * (d->ratio - 1), d->a.median, d->b.median, 100 * (c->limit - 1), d->p_holm);
    str_printf(out, "    <system-out>%.3f to %.3f, %+.2f %%", d->a.median, d->b.median, 100 * (d->ratio - 1));
    if (isfinite(d->low))
        str_printf(out, " (95 %% %+.2f %% to %+.2f %%)", 100 * (d->low - 1), 100 * (d->high - 1));
    str_printf(out, ", p = %.4f, %lld + %lld runs</system-out>\n  </testcase>\n", d->p_holm,
               (long long)d->a.n, (long long)d->b.n);
    out->failed |= name.failed;
    str_free(&name);
}

void put_junit(str *out, const char *a, const char *b, const comparison *c) {
    int failures = 0, skipped = 0;
    for (int64_t i = 0; i < c->n; i++) {
        failures += difference_is_loss(c, &c->items[i]);
        skipped += is_skipped(c, &c->items[i]);
    }
    str_puts(out, " <testsuite name=\"");
    put_xml(out, a);
    str_puts(out, " to ");
    put_xml(out, b);
    str_printf(out, "\" tests=\"%lld\" failures=\"%d\" skipped=\"%d\">\n", (long long)c->n, failures,
               skipped);
    for (int64_t i = 0; i < c->n; i++) put_case(out, c, &c->items[i]);
    str_puts(out, " </testsuite>\n");
}
