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
    int64_t length;  /* bytes that stay: the closing text after them is replaced by the next write */
    int64_t closing; /* bytes of that text */
} out_file;

/* Finds out what path (NULL: standard output) is, without touching it. -1 when it can't be written, and as a
 * usage error when it is a regular file with something in it, unless force. out_file_close frees it in any
 * case. */
int out_file_find(out_file *f, const char *path, bool force);

/* Are these the same file, however their paths are spelt? */
bool out_file_same(const out_file *a, const out_file *b);

/* Is f the file `path`, or one of those in the folder `path`? */
bool out_file_is_of(const out_file *f, const char *path);

/* Opens what was found; a regular file is not touched yet: its text goes to a new one beside it. */
int out_file_open(out_file *f);

/* Writes n bytes. In a regular file the closing text follows them, which the next write replaces, so that the
 * file is complete after each write; elsewhere closing is left out. */
int out_file_write(out_file *f, const str *text, const str *closing);

/* The first row was written: the file takes its name. -1 when another one has got it meanwhile, unless force.
 */
int out_file_keep(out_file *f, bool force);

/* Closes and frees f; a file that has not got its name is removed. -1 when closing failed. */
int out_file_close(out_file *f);

#endif
