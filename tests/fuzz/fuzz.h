/* fuzz.h - what fuzz targets of files share that are opened by their path: files made of the
 * fuzzer's bytes. Each process has a folder of its own, which it removes when it ends. */
#ifndef FUZZ_H
#define FUZZ_H

#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char fuzz_folder[4096];

/* FOLDER/name; the text is good until the second next call. */
static inline const char *fuzz_path(const char *name) {
    static char paths[2][sizeof fuzz_folder + 64];
    static int next;
    next = !next;
    snprintf(paths[next], sizeof paths[next], "%s/%s", fuzz_folder, name);
    return paths[next];
}

static const char *const fuzz_names[] = {"model.gguf", "config.json", "model.safetensors"};

static inline void fuzz_remove(void) {
    for (size_t i = 0; i < sizeof fuzz_names / sizeof *fuzz_names; i++) remove(fuzz_path(fuzz_names[i]));
    rmdir(fuzz_folder);
}

/* Writes one of fuzz_names. */
static inline void fuzz_write(const char *name, const void *data, size_t n) {
    if (!*fuzz_folder) {
        const char *parent = getenv("TMPDIR");
        snprintf(fuzz_folder, sizeof fuzz_folder, "%s/fuzz-XXXXXX", parent ? parent : "/tmp");
        if (!mkdtemp(fuzz_folder)) abort();
        atexit(fuzz_remove);
    }
    FILE *f = fopen(fuzz_path(name), "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f)) abort();
}

/* Where the second half of an input begins: after its first zero byte; n when there is none. */
static inline size_t fuzz_split(const uint8_t *data, size_t n) {
    const uint8_t *zero = n ? memchr(data, 0, n) : NULL;
    return zero ? (size_t)(zero - data) + 1 : n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#endif
