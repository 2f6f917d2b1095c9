/* format.h - what a report format is, and the list of them (private to report/).
 * A format turns records into text; report.c writes the text. */
#ifndef REPORT_FORMAT_H
#define REPORT_FORMAT_H

#include "report/copy.h"
#include "report/report.h"

/* One line per format. Its name on the command line has hyphens where this one has underscores;
 * the file is called as the format is (sqlite's is sql.c). */
#define FORMATS(FORMAT)                                                                                      \
    FORMAT(csv)                                                                                              \
    FORMAT(mlxbench)                                                                                         \
    FORMAT(md)                                                                                               \
    FORMAT(json)                                                                                             \
    FORMAT(jsonl)                                                                                            \
    FORMAT(sql)                                                                                              \
    FORMAT(sqlite)                                                                                           \
    FORMAT(share)                                                                                            \
    FORMAT(llama_bench)                                                                                      \
    FORMAT(llama_bench_csv)                                                                                  \
    FORMAT(llama_bench_json)                                                                                 \
    FORMAT(llama_bench_jsonl)                                                                                \
    FORMAT(llama_bench_sql)                                                                                  \
    FORMAT(mlx_lm)                                                                                           \
    FORMAT(prometheus)                                                                                       \
    FORMAT(benchfmt)

/* What a format appends to. The text is written and emptied after each call. The parts are kept:
 * they stand behind all text, one behind the other, a second list for example. shared is the
 * format's own. */
enum { MAX_OWN_COLUMNS = 16 };
typedef struct output {
    const sweep *sweep;
    int64_t n_runs, n_summaries; /* so far, without the one at hand */
    str text;
    str parts[MAX_PARTS];
    str remark, kept;                        /* the format's own */
    int64_t n_written;                       /* the format's own: lines so far */
    int n_columns, columns[MAX_OWN_COLUMNS]; /* the format's own: those of its table */
    summary *shared;
} output;

/* Each takes what it has a use for: runs, configurations, or both. */
typedef struct format {
    bool readable;            /* results_read reads it: rows can be added to such a file */
    void (*begin)(output *o); /* NULL: nothing to do */
    void (*row)(output *o, const row *r);
    void (*end)(output *o); /* completes text and parts; in a file after every row, so it changes nothing
                               else; NULL: nothing to do */
    bool one_sequence;      /* it has no place for several sequences (batch) */
} format;

#define FORMAT(name) extern const format format_##name;
FORMATS(FORMAT)
#undef FORMAT

/* One line of a CSV file (RFC 4180, lines end with \n) with the n columns given; the header's when
 * r is NULL.
 */
void put_csv(str *out, const row *r, const int *columns, int n, int decimals, const char *none);

/* One field of such a line. */
void put_csv_text(str *out, const char *text);

/* Columns first to last as members of a JSON object, separated by commas. */
void put_json_columns(str *out, const row *r, int first, int last);

/* The parameters that tell this configuration of a comparison from others: "n_prompt 512, kv_bits
 * 8". */
void put_configuration(str *out, const comparison *c, const row *r);

/* The lines of a run in Go's benchmark format, whose names have the parameters that vary; and the
 * line that says which way its units are better. */
void put_benchfmt(str *out, const row *run, const bool varies[N_COLUMNS]);
void put_benchfmt_units(str *out);

/* A comparison as annotations of GitHub Actions. */
void put_annotations(str *out, const char *a, const char *b, const comparison *c);

/* A comparison as a JUnit test suite. */
void put_junit(str *out, const char *a, const char *b, const comparison *c);

/* As a run's members, with a comma before them: its raw sample. */
void put_json_raw(str *out, const sample *s);

/* As a summary's member, with a comma before it: the spreads of its metrics. */
void put_json_spreads(str *out, const row *r);

#endif
