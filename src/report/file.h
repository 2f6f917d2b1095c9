/* file.h - where the text of one output goes (private to report/): a file, a pipe, a terminal.
 * A regular file appears under its name with its first row, and holds every row from then on.
 */
#ifndef REPORT_FILE_H
#define REPORT_FILE_H

#include "base/base.h"

#include <sys/stat.h>

typedef struct out_file {
    const char *path; /* as given; NULL: standard output */
    bool direct;      /* no regular file, or a descriptor by its name: it is written as it is */
    str target;       /* the path without links; the last part may not exist yet */
    str part;         /* the file beside it that becomes the target with the first row; empty from then on */
    struct stat target_info, folder_info; /* st_ino 0: there is no such file */
    int fd;                               /* -1: not open, or writing has failed */
    int64_t length;                       /* bytes of the text that goes on */
    int64_t tail_at, end; /* where the tail begins and what follows it ends; between length and tail_at is
                             a gap of blanks */
    size_t tail;          /* bytes of the tail that are there */
} out_file;

/* What stands behind the text of a regular file, so that the file is complete after each write. */
typedef struct out_tail {
    str text; /* grows as the text before it does, but is small next to it or as long: a list after a list */
    str closing; /* a few bytes */
    bool last;   /* nothing comes after this: leave no gap */
} out_tail;

/* Finds out what path (NULL: standard output) is, without touching it. -1 when it can't be written.
 * out_file_close frees it in any case. */
int out_file_find(out_file *f, const char *path);

/* Is it a regular file with something in it? */
bool out_file_has_content(const out_file *f);

/* Are these the same file, however their paths are spelt? */
bool out_file_same(const out_file *a, const out_file *b);

/* Is f the file `path`, or one of those in the folder `path`? */
bool out_file_is_of(const out_file *f, const char *path);

/* Opens what was found; a regular file is not touched yet: its text goes to a new one beside it. */
int out_file_open(out_file *f);

/* Adds text. In a regular file the tail follows, whole: of tail->text, what was there before is
 * expected to be its beginning. Blanks may stand before the tail, so that n writes cost what n
 * texts and tails do, and not what all tails together would. Elsewhere only text is written. */
int out_file_write(out_file *f, const str *text, const out_tail *tail);

/* All rows that an earlier file has, and a new one, were written: the file takes its name. -1 when
 * what was found under this name is another file meanwhile, unless force. */
int out_file_keep(out_file *f, bool force);

/* Closes and frees f; a file that has not got its name is removed. -1 when closing failed. */
int out_file_close(out_file *f);

#endif
