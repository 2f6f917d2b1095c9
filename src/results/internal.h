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

/* A new run at the end, unset; NULL when out of memory. */
row *reader_add(reader *r);

/* Fails with the file's name and line before the message. */
int reader_fail(const reader *r, const char *format, ...) PRINTF_LIKE(2, 3);

#endif
