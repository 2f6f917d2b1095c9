/* report.h - the outputs of a benchmark: any number of formats, to files or standard output.
 * A format is one file and one line in report/format.h; it sees records and columns, never a file. */
#ifndef REPORT_REPORT_H
#define REPORT_REPORT_H

#include "bench/bench.h"

typedef struct reports reports;

/* Opens one report per FORMAT or FORMAT:FILE and writes what comes before the first row, so that an output
 * that can't be written is found before anything is measured. No spec: md on a terminal, else csv, on
 * standard output. p must outlive it. NULL with an error: unknown format, standard output or a file named
 * twice (usage), a file that can't be written. */
reports *reports_open(const option_texts *specs, const plan *p);

/* Writes and flushes a row everywhere. -1 when one could not be written (disk full, closed pipe). */
int reports_row(reports *r, const record *row);

/* Completes what was opened (JSON stays valid however the run ended) and frees r, which may be NULL. An error
 * that was recorded before stays the recorded one. */
int reports_close(reports *r);

/* "csv, mlxbench, ..." appended to out, for help. */
void report_formats(str *out);

#endif
