/* folder.h - a temporary folder for tests that build their own files, good and broken ones.
 * One folder per program, emptied before each test. */
#ifndef TESTS_FOLDER_H
#define TESTS_FOLDER_H

#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[512];

/* The path of a file in the folder; valid until the next call. */
static inline const char *in_folder(const char *name) {
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static inline void write_file(const char *name, const void *data, size_t n) {
    FILE *file = fopen(in_folder(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static inline void write_text(const char *name, const char *text) {
    write_file(name, text, strlen(text));
}

/* Makes the folders above name. */
static inline void make_parents(const char *name) {
    char path[1024];
    size_t start = strlen(folder) + 1;
    snprintf(path, sizeof path, "%s", in_folder(name));
    for (size_t i = start; path[i]; i++) {
        if (path[i] != '/') continue;
        path[i] = '\0';
        mkdir(path, 0700);
        path[i] = '/';
    }
}

/* Makes the folder name and all above it. */
static inline void make_folders(const char *name) {
    make_parents(name);
    assert_int_equal(mkdir(in_folder(name), 0700), 0);
}

/* Files of the folder, but those with a dot in front. */
static inline int n_files(void) {
    int n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d));) n += entry->d_name[0] != '.';
    closedir(d);
    return n;
}

static inline int remove_one(const char *path, const struct stat *info, int kind, struct FTW *at) {
    (void)info;
    (void)kind;
    (void)at;
    return remove(path);
}

/* Setup and teardown of a test: a new, empty folder, and nothing left behind. */
static inline int new_folder(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/mlxbench-XXXXXX", base ? base : P_tmpdir);
    error_clear();
    return mkdtemp(folder) ? 0 : -1;
}

static inline int drop_folder(void **state) {
    (void)state;
    return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

#define assert_message(part)                                                                                 \
    do {                                                                                                     \
        if (!strstr(error_message(), part)) fail_msg("\"%s\" is not in: %s", part, error_message());         \
    } while (0)

#endif
