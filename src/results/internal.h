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

/* Calls one() for the JSON value of each line that is not empty, until it fails. The last line may
 * be cut off: then it is left out. */
typedef int read_object(reader *r, const json *object, void *context);
int read_json_lines(reader *r, const char *text, size_t n, read_object *one, void *context);

int read_sql(reader *r, const char *text, size_t n);
bool is_sql(const char *text, size_t n);

/* A text of SQL statements. */
typedef struct sql_text {
    const char *at, *end;
    str word;
} sql_text;

/* Takes the text if it comes next, in any case of letters. */
bool sql_take(sql_text *q, const char *text);

/* A name, a number, a text between two of the quotes given, TRUE, FALSE or NULL (an empty word).
 * -1 when there is none. */
int sql_word(sql_text *q, char quote);

/* Calls statement for each one that is not cut off, until it returns nonzero: -1. r->line is its
 * first. */
int sql_each(reader *r, const char *text, size_t n, int (*statement)(reader *r, sql_text *q, void *context),
             void *context);

/* Those of the SQLite file r->name. */
int read_database(reader *r);

/* A value of column c from its text, as csv and sql have it; an empty one is unset. */
int read_text_cell(reader *r, int c, const char *text, value *out);

/* Which of our columns the table of runs has, and whether it has others. Returns how many it has in
 * all, 0 when there is no such table; -1 on an error. */
struct sqlite3;
int table_columns(struct sqlite3 *db, const char *path, bool has[N_COLUMNS], bool *others);

/* The next field of a line of CSV, without its quotes. */
typedef struct csv {
    const char *at, *end;
    str field;
    bool line_ended; /* with the field just read */
    bool whole;      /* by a line break, not by the end of the text */
} csv;

/* -1 when a quoted field is not closed. */
int csv_next(csv *c);

/* A new run at the end, unset; NULL when out of memory. */
row *reader_add(reader *r);

/* Fails with the file's name and line before the message. */
int reader_fail(const reader *r, const char *format, ...) PRINTF_LIKE(2, 3);

/* ---- llama-bench's forms ---- */

/* One test, as text: what each form has. */
typedef struct llama_test {
    const char *values[N_LLAMA]; /* NULL: not there */
    int64_t n_samples;           /* of tokens per second; 0: only their mean, avg_ts, is known */
    const double *samples;
} llama_test;

typedef struct llama_tests {
    llama_test *items;
    int64_t n, capacity;
} llama_tests;

/* A new test at the end; NULL when out of memory. */
llama_test *llama_add(llama_tests *t);

/* The column of that name, or in md of that short name; -1 when there is none. */
int llama_find(const char *name, bool md);

/* The tests in a text, appended. -1 with an error that has the line. */
int read_llama_json(reader *r, const char *text, size_t n, llama_tests *out);
int read_llama_jsonl(reader *r, const char *text, size_t n, llama_tests *out);
int read_llama_csv(reader *r, const char *text, size_t n, llama_tests *out);
int read_llama_md(reader *r, const char *text, size_t n, llama_tests *out);
int read_llama_sql(reader *r, const char *text, size_t n, llama_tests *out);

/* Is the text one of llama-bench's forms? Then its tests become runs: 1; 0: it is none; -1: it is
 * one, but not whole. */
int read_llama_bench(reader *r, const char *text, size_t n);

#endif
