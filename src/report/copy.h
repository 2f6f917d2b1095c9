/* copy.h - a file that is complete after each write, though more comes: text, then parts that grow,
 * then a closing (private to report/).
 */
#ifndef REPORT_COPY_H
#define REPORT_COPY_H

#include "base/base.h"

enum { MAX_PARTS = 20 };

/* What stands behind the text. */
typedef struct out_tail {
    const str *parts; /* MAX_PARTS, each of which only grows: a list after a list; NULL: none */
    str closing;      /* a few bytes */
    bool last;        /* nothing comes after this: leave no gaps */
} out_tail;

/* Zeros and fd -1: there is none. */
typedef struct out_copy {
    str name;               /* its own, for while it has not the one that was asked for */
    bool beside;            /* it has its own name */
    int fd;                 /* -1: it is not open */
    int64_t length;         /* bytes of text */
    int n;                  /* parts that were laid out */
    int64_t at[MAX_PARTS];  /* where each begins; before it is a gap of blanks, for what grows before it */
    int64_t has[MAX_PARTS]; /* its bytes that are there */
    int64_t end;            /* of the closing, and of the file */
} out_copy;

/* Is there anything behind the text? */
bool out_tail_is_empty(const out_tail *tail);

/* Adds the text that `from` has and c lacks (from NULL: none), and then `text`; parts and closing
 * follow, whole. n writes cost what the texts and parts are long, and not what all of them together
 * would: what grew is written into the gap behind it, and only when a gap is too small is all that
 * follows written again, with gaps as long as what stands before them. -1 with errno. */
int out_copy_write(out_copy *c, const out_copy *from, const str *text, const out_tail *tail);

/* Copies all that c has to the empty file `fd`, which is c's from then on. -1 with errno. */
int out_copy_move(out_copy *c, int fd);

#endif
