/* units.h - options' values that are more than a number: 3%, 500ms, 2m, auto (private to cmd/).
 * name is the option's, for the message of a usage error.
 */
#ifndef CMD_UNITS_H
#define CMD_UNITS_H

#include "base/base.h"

/* "3%" or "3", from 0 to below 100: *out is 0.03. NULL leaves *out as it is. -1 with a usage
 * error. */
int parse_percent(const char *text, const char *name, double *out);

/* "500ms", "10s" or "10", "2m", "1h", in nanoseconds; at most a year. NULL leaves *out as it is. */
int parse_duration(const char *text, const char *name, int64_t *out);

/* A number within [min, max], or "auto", which is `automatic`. NULL leaves *out as it is. */
typedef struct auto_range {
    int64_t min, max, automatic;
} auto_range;
int parse_auto(const char *text, const char *name, auto_range range, int64_t *out);

#endif
