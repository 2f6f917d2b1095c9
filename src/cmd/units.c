/* units.c - percentages, durations, and numbers that may be "auto".
 * Every message names the option, the value and what it may be.
 */
#include "cmd/units.h"

#include <stdlib.h>

/* A plain decimal number at the start of text, not negative; *end is behind it. -1 when there is
 * none. */
static double parse_decimal(const char *text, const char **end) {
    size_t n = strspn(text, "0123456789.");
    char *stop = NULL;
    double x = n && n < 30 ? strtod(text, &stop) : -1;
    *end = text + n;
    return stop == *end ? x : -1;
}

int parse_percent(const char *text, const char *name, double *out) {
    const char *end;
    if (!text) return 0;
    double percent = parse_decimal(text, &end);
    end += *end == '%';
    if (*end || !(percent >= 0 && percent < 100))
        return fail_usage("%s: \"%s\" is not a percentage from 0 to below 100", name, text);
    *out = percent / 100;
    return 0;
}

int parse_duration(const char *text, const char *name, int64_t *out) {
    static const struct {
        const char *name;
        double ns;
    } units[] = {{"", 1e9}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
    const double longest = 365 * 24 * 3600e9;
    const char *unit;
    if (!text) return 0;
    double n = parse_decimal(text, &unit);
    for (size_t i = 0; i < sizeof units / sizeof *units && n >= 0; i++)
        if (!strcmp(unit, units[i].name) && n * units[i].ns <= longest) {
            *out = (int64_t)(n * units[i].ns);
            return 0;
        }
    return fail_usage("%s: \"%s\" is no duration such as 500ms, 10s, 2m or 1h", name, text);
}

int parse_auto(const char *text, const char *name, auto_range range, int64_t *out) {
    if (!text) return 0;
    if (strcmp(text, "auto")) return parse_number(text, name, range.min, range.max, out);
    *out = range.automatic;
    return 0;
}
