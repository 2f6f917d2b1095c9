/* report.h - the outputs of a benchmark: any number of formats, to files or standard output.
 * A format is one file and one line in report/format.h; it sees rows, never a file. */
#ifndef REPORT_REPORT_H
#define REPORT_REPORT_H

#include "results/results.h"

typedef struct reports reports;

typedef struct report_options {
    bool force;          /* replace files that are there */
    bool append;         /* rows are added to those that are there already, where a format can be read */
    const char *resumed; /* a result file whose rows come first, and may go to the file itself; or NULL */
    const results *resumed_rows; /* what is in it */
    const char *kept;            /* a database that rows are added to whatever `force` says; or NULL */
    bool at_end;                 /* rows come quickly: files are completed at the end, not after each row */
    int n_inputs;
    const char *const *inputs; /* paths of models and files that are read, which no output may replace */
} report_options;

/* Checks all FORMAT or FORMAT:FILE, then opens one report for each and writes what comes before the
 * first row, so that an output that can't be written is found before anything is measured. A file
 * gets its name with its first row; until then an earlier one stays as it is. No spec: md on a
 * terminal, else csv, on standard output. s and the texts must outlive it. NULL with an error:
 * unknown format, standard output or a file named twice, a file that is there already and no rows
 * can be added to, or is a model's (usage), a file that can't be written. */
reports *reports_open(const option_texts *specs, const report_options *o, const sweep *s);

/* The format on standard output where none is asked for. */
const char *report_usual_output(void);

/* Writes a row everywhere. -1 when one could not be written (disk full, closed pipe). */
int reports_row(reports *r, const row *next);

/* Does a format for programs go to standard output, so that nothing else may? */
bool reports_own_stdout(const reports *r);

/* The largest numbers of runs and configurations in files that rows are added to; larger than *run
 * and *configuration, or these stay. */
void reports_last(const reports *r, int64_t *run, int64_t *number_of_configuration);

/* Completes what was opened (JSON stays valid however the run ended) and frees r, which may be
 * NULL. An error that was recorded before stays the recorded one. */
int reports_close(reports *r);

/* A row as a line of jsonl, appended to out. */
void report_json_line(str *out, const row *r);

/* A configuration's row in one line that can be pasted, appended to out. */
void report_line(str *out, const row *summary);

/* A comparison of the files a and b as text, md, csv, json, junit or annotations, appended to out;
 * first: of several. report_comparison_end follows the last one. benchfmt has no comparison, only
 * what report_benchfmt writes. -1 with a usage error when the format is none of them. */
int report_comparison(str *out, const char *form, const char *a, const char *b, const comparison *c,
                      bool first);
void report_comparison_end(str *out, const char *form);

/* What was measured over time, appended to out as text or json; each: every measurement, not only
 * the last one of each configuration. -1 with a usage error when the format is none of them. */
int report_history(str *out, const char *form, const trends *t, bool each);

/* The JSON Schema of the formats json and jsonl, and of what hwinfo, compare and history print,
 * appended to out. */
void report_schema(str *out);

/* The runs of n files in Go's benchmark format, appended to out, each file's behind a key "results"
 * with its name: `benchstat -col results` compares them. */
void report_benchfmt(str *out, const char *const *names, const results *files, int n);

/* The help of the option --output, appended to out. */
void report_output_help(str *out);

#endif
