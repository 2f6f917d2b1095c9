/* begun.c - downloads that were begun and not finished, by this program or by huggingface_hub.
 * Theirs are ETAG.incomplete (before 2.0, which continued them) or ETAG.XXXXXXXX.incomplete (since
 * then; what a killed process leaves), with the file's bytes from its start. */
#include "hub/cache.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Is name one that huggingface_hub gives to a part of this blob? */
static bool is_theirs(const char *name, const char *etag) {
    size_t n = strlen(etag);
    if (strncmp(name, etag, n)) return false;
    const char *rest = name + n;
    if (*rest == '.' && strspn(rest + 1, "0123456789abcdef") == 8) rest += 9;
    return !strcmp(rest, ".incomplete");
}

/* Appends the largest of their parts that can belong to the file; its size, 0 when there is
 * none. */
static int64_t find_theirs(const char *repo_folder, const repo_file *f, str *path) {
    struct stat info;
    int64_t most = 0;
    str blobs = {0}, candidate = {0};
    str_printf(&blobs, "%s/blobs", repo_folder);
    DIR *dir = blobs.failed ? NULL : opendir(blobs.data);
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        if (!is_theirs(entry->d_name, f->etag)) continue;
        str_clear(&candidate);
        str_printf(&candidate, "%s/%s", blobs.data, entry->d_name);
        bool fits = !candidate.failed && !lstat(candidate.data, &info) && S_ISREG(info.st_mode) &&
                    info.st_size > most && info.st_size <= f->size;
        if (!fits) continue;
        most = info.st_size;
        str_clear(path);
        str_puts(path, candidate.data);
    }
    if (dir) closedir(dir);
    str_free(&blobs);
    str_free(&candidate);
    return path->failed ? 0 : most;
}

int64_t cache_begun(const char *repo_folder, const repo_file *f) {
    struct stat info;
    str path = {0};
    cache_partial(&path, repo_folder, f->etag);
    bool ours = !path.failed && !lstat(path.data, &info);
    str_clear(&path);
    int64_t bytes =
        !ours ? find_theirs(repo_folder, f, &path) : (int64_t)info.st_blocks * 512; /* it has holes */
    str_free(&path);
    return bytes < f->size ? bytes : f->size;
}

void cache_adopt(const char *repo_folder, const repo_file *f) {
    struct stat info;
    str ours = {0}, theirs = {0};
    cache_partial(&ours, repo_folder, f->etag);
    if (!ours.failed && lstat(ours.data, &info) && find_theirs(repo_folder, f, &theirs))
        (void)!rename(theirs.data, ours.data); /* when it fails, all comes again */
    str_free(&ours);
    str_free(&theirs);
}
