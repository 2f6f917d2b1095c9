/* file.h - where the text of one output goes (private to report/): a file, a pipe, a terminal.
 * A regular file appears under its name with its first row, and from then on it is whole at every
 * moment.
 */
#ifndef REPORT_FILE_H
#define REPORT_FILE_H

#include "report/copy.h"

#include <sys/stat.h>

typedef struct out_file {
    const char *path; /* as given; NULL: standard output */
    bool direct;      /* no regular file, or a descriptor by its name: it is written as it is */
    bool in_place;    /* a regular file that no other one can be written beside */
    bool named;       /* the target is ours */
    str target;       /* the path without links; the last part may not exist yet */
    struct stat target_info, folder_info; /* st_ino 0: there is no such file */
    int fd;                               /* of what is written directly; -1: not open */
    out_copy copies[2]; /* they take turns: one has the target's name, the other is written */
    int shown;          /* which one has it, or will */
} out_file;

/* Finds out what path (NULL: standard output) is, without touching it. -1 when it can't be written.
 * out_file_close frees it in any case. */
int out_file_find(out_file *f, const char *path);

/* Is it a regular file with something in it? */
bool out_file_has_content(const out_file *f);

/* Are these the same file, however their paths are spelt? */
bool out_file_same(const out_file *a, const out_file *b);

/* Is f the file `path`, or one of those in the folder `path`? */
bool out_file_is_of(const out_file *f, const char *path);

/* Opens what was found; a regular file is not touched yet: its text goes to a new one beside it.
 * Where there can be none beside it, the file itself is emptied, if emptied: what it has is in no
 * need of being kept. */
int out_file_open(out_file *f, bool emptied);

/* Is it open, and has nothing failed? */
bool out_file_is_open(const out_file *f);

/* Adds text. In a regular file the tail follows, whole; elsewhere only text is written. A file that
 * has its name, and something behind its text, is replaced by a copy with the new text, so that a
 * program that is killed at any moment leaves it complete. Two copies take turns, and each gets
 * what it lacks. */
int out_file_write(out_file *f, const str *text, const out_tail *tail);

/* All rows that an earlier file has, and a new one, were written: the file takes its name. -1 when
 * what was found under this name is another file meanwhile, unless force. */
int out_file_keep(out_file *f, bool force);

/* Closes and frees f; a file that has not got its name is removed. -1 when closing failed. */
int out_file_close(out_file *f);

#endif
