/* json_canonical.c - JSON in the one form that a hash can be taken of: RFC 8785. Whoever lays the
 * text out anew, or sorts its members, does not change it.
 */
#include "base/base.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void put_string(str *out, const char *text) {
    static const char letters[] = "btnfr", meant[] = "\b\t\n\f\r";
    str_puts(out, "\"");
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        const char *found = strchr(meant, c);
        if (found)
            str_printf(out, "\\%c", letters[found - meant]);
        else if (c < ' ')
            str_printf(out, "\\u%04x", c);
        else
            str_printf(out, c == '"' || c == '\\' ? "\\%c" : "%c", c);
    }
    str_puts(out, "\"");
}

static void put_zeros(str *out, int n) {
    while (n-- > 0) str_puts(out, "0");
}

/* As ECMAScript writes a number: the fewest digits that mean it. */
static void put_number(str *out, double x) {
    char text[32], digits[20];
    int n = 0, point;
    if (!isfinite(x) || x == 0) {
        str_puts(out, x == 0 ? "0" : "null");
        return;
    }
    for (int precision = 0; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, fabs(x));
        if (strtod(text, NULL) == fabs(x)) break;
    }
    const char *exponent = strchr(text, 'e');
    for (const char *c = text; c < exponent; c++)
        if (*c != '.') digits[n++] = *c;
    digits[n] = '\0';
    point = atoi(exponent + 1) + 1; /* the decimal point stands before this digit */
    str_puts(out, x < 0 ? "-" : "");
    if (point > 0 && point <= 21) {
        int whole = n < point ? n : point;
        str_append(out, digits, (size_t)whole);
        put_zeros(out, point - n);
        str_printf(out, n > point ? ".%s" : "%s", digits + whole);
    } else if (point > -6 && point <= 0) {
        str_puts(out, "0.");
        put_zeros(out, -point);
        str_puts(out, digits);
    } else {
        str_printf(out, "%c%s%se%+d", digits[0], n > 1 ? "." : "", digits + 1, point - 1);
    }
}

static int compare_members(const void *a, const void *b) {
    return strcmp(json_key(*(const json *const *)a), json_key(*(const json *const *)b));
}

static void put_object(str *out, const json *object, const char *without) {
    size_t n = 0;
    const json **members = mem_new((size_t)json_length(object) + 1, sizeof *members, "a JSON object");
    if (!members) out->failed = true;
    json_each (member, object)
        if (members && !(without && !strcmp(json_key(member), without))) members[n++] = member;
    if (members) qsort(members, n, sizeof *members, compare_members);
    str_puts(out, "{");
    for (size_t i = 0; i < n; i++) {
        str_puts(out, i ? "," : "");
        put_string(out, json_key(members[i]));
        str_puts(out, ":");
        json_canonical(out, members[i], NULL);
    }
    str_puts(out, "}");
    free(members);
}

void json_canonical(str *out, const json *v, const char *without) {
    if (json_is_object(v)) {
        put_object(out, v, without);
    } else if (json_is_array(v)) {
        str_puts(out, "[");
        for (const json *item = json_first(v); item; item = json_next(item)) {
            str_puts(out, item == json_first(v) ? "" : ",");
            json_canonical(out, item, NULL);
        }
        str_puts(out, "]");
    } else if (json_is_string(v)) {
        put_string(out, json_string(v));
    } else if (json_is_number(v)) {
        put_number(out, json_number(v));
    } else {
        str_puts(out, json_is_bool(v) ? (json_true(v) ? "true" : "false") : "null");
    }
}
