/* format.h - what a report format is, and the list of them (private to report/).
 * A format turns records into text; report.c writes the text. */
#ifndef REPORT_FORMAT_H
#define REPORT_FORMAT_H

#include "report/report.h"

/* One line per format; the name is also the file's. */
#define FORMATS(FORMAT)                                                                                      \
    FORMAT(csv)                                                                                              \
    FORMAT(mlxbench)                                                                                         \
    FORMAT(md)                                                                                               \
    FORMAT(json)                                                                                             \
    FORMAT(jsonl)

/* What a format appends to. The text is written and emptied after each call; tail is the format's own. */
typedef struct output {
    const plan *plan;
    int64_t n_rows; /* so far, without the one at hand */
    str text;
    str tail;
} output;

typedef struct format {
    void (*begin)(output *o);
    void (*row)(output *o, const record *r);
    void (*end)(output *o); /* completes the text; in a file after every row, so it changes nothing */
} format;

#define FORMAT(name) extern const format format_##name;
FORMATS(FORMAT)
#undef FORMAT

/* The value as plain text; `none` where it is unset. decimals: at most so many. */
void put_value(str *out, value v, int decimals, const char *none);

/* One line of a CSV file (RFC 4180, lines end with \n) with the n columns given; the header's when r is NULL.
 */
void put_csv(str *out, const record *r, const int *columns, int n, int decimals, const char *none);

/* "{...}" with all columns, without the closing brace: jsonl adds to it. */
void put_json_columns(str *out, const record *r);

#endif
