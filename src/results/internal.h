/* internal.h - what the files of results/ share (private to results/).
 */
#ifndef RESULTS_INTERNAL_H
#define RESULTS_INTERNAL_H

#include "results/results.h"

/* real, rounded to so many decimals as every output shows, so that a row is the same in memory and
 * in a file. Unset when it is no number. */
value value_of_real(double real, int decimals);

/* ---- qualities of several runs ---- */

enum { N_GRADES = 5 };

typedef struct grades {
    int64_t n[N_GRADES]; /* A, B, C, D, F */
} grades;
void grades_add(grades *g, value quality);

/* The grade that three of four runs have, or a better one: a median is not moved by less. 0: none
 * is known.
 */
char grades_of(const grades *g);

/* ---- ranks of two groups, or of one ---- */

typedef struct ranks {
    int64_t n_a, n_b;
    int64_t *of; /* [n_a + n_b] twice the rank in the whole, a's first; equal numbers share theirs */
    double ties; /* sum of t^3 - t over groups of t equal numbers */
} ranks;

/* -1 when out of memory. Free r->of. */
int rank_all(ranks *r, const double *a, int64_t n_a, const double *b, int64_t n_b);

/* ---- reading ---- */

typedef struct reader {
    results *results;
    const char *name; /* of the file, for messages */
    int64_t line;     /* from 1; 0: unknown */
    int64_t capacity;
} reader;

/* The runs in a text, appended. */
int read_csv(reader *r, const char *text, size_t n);
int read_json(reader *r, const char *text, size_t n);
int read_jsonl(reader *r, const char *text, size_t n);
int read_sql(reader *r, const char *text, size_t n);
bool is_sql(const char *text, size_t n);

/* Those of the SQLite file r->name. */
int read_database(reader *r);

/* A value of column c from its text, as csv and sql have it; an empty one is unset. */
int read_text_cell(reader *r, int c, const char *text, value *out);

/* Which of our columns the table of runs has, and whether it has others. Returns how many it has in
 * all, 0 when there is no such table; -1 on an error. */
struct sqlite3;
int table_columns(struct sqlite3 *db, const char *path, bool has[N_COLUMNS], bool *others);

/* A new run at the end, unset; NULL when out of memory. */
row *reader_add(reader *r);

/* Fails with the file's name and line before the message. */
int reader_fail(const reader *r, const char *format, ...) PRINTF_LIKE(2, 3);

#endif
