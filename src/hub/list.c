/* list.c - every model on this machine, how large it is, what it lacks; and removing one.
 * The Hugging Face cache comes first, then LM Studio's folders. */
#include "hub/cache.h"
#include "hub/hub.h"
#include "hub/places.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct walk {
    int (*each)(void *context, const hub_entry *entry);
    void *context;
} walk;

/* Bytes and last use of the files below a folder. Links are followed where they are what a folder
 * consists of. */
static void measure(const char *folder, int depth, hub_entry *e) {
    str path = {0};
    DIR *dir = opendir(folder);
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        struct stat info;
        str_clear(&path);
        str_printf(&path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] == '.' || path.failed || stat(path.data, &info)) continue;
        if (S_ISDIR(info.st_mode) && depth < 8) measure(path.data, depth + 1, e);
        if (!S_ISREG(info.st_mode)) continue;
        e->bytes += (int64_t)info.st_blocks * 512;
        if ((int64_t)info.st_atime > e->last_used) e->last_used = (int64_t)info.st_atime;
    }
    if (dir) closedir(dir);
    str_free(&path);
}

static int is_visible(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static int is_repo(const struct dirent *entry) {
    return !strncmp(entry->d_name, "models--", 8);
}

/* Calls visit(context, name) for the sorted names of a folder until it returns nonzero. */
static int each_name(const char *folder, int (*filter)(const struct dirent *),
                     int (*visit)(void *context, const char *folder, const char *name), void *context) {
    struct dirent **found = NULL;
    int n = dir_exists(folder) ? scandir(folder, &found, filter, alphasort) : 0, stop = 0;
    for (int i = 0; i < n; i++) {
        if (!stop) stop = visit(context, folder, found[i]->d_name);
        free(found[i]);
    }
    free(found);
    return stop;
}

/* ---- the Hugging Face cache ---- */

/* Appends the last of the snapshots in order of names. */
static int keep_name(void *context, const char *folder, const char *name) {
    str_clear(context);
    str_printf(context, "%s/%s", folder, name);
    return 0;
}

/* The first GGUF file of a folder or of those in it. */
static int keep_gguf(void *context, const char *folder, const char *name) {
    struct stat info;
    str path = {0};
    size_t n = strlen(name);
    int stop = 0;
    str_printf(&path, "%s/%s", folder, name);
    if (!path.failed && !lstat(path.data, &info) && S_ISDIR(info.st_mode))
        stop = each_name(path.data, is_visible, keep_gguf, context);
    else if (!path.failed && n > 5 && !strcmp(name + n - 5, ".gguf") && strncmp(name, "mmproj", 6)) {
        str_puts(context, path.data);
        stop = 1;
    }
    str_free(&path);
    return stop;
}

static int visit_snapshot(walk *w, const char *name, const char *repo_folder, const str *snapshot) {
    hub_entry e = {.name = name, .folder = snapshot->data, .place = "Hugging Face cache"};
    hub_gaps gaps = {0};
    str blobs = {0}, gguf = {0}, missing = {0};
    int status = cache_gaps(snapshot->data, HUB_MODEL, &gaps);
    if (!status && gaps.n && each_name(snapshot->data, is_visible, keep_gguf, &gguf) && !gguf.failed)
        e.folder = gguf.data;
    else if (gaps.n) {
        if (gaps.total) hub_put_amounts(&missing, &gaps);
        if (gaps.total) str_puts(&missing, ", ");
        str_printf(&missing, "missing: %s", gaps.names.data ? gaps.names.data : "");
        e.missing = missing.data;
    }
    str_printf(&blobs, "%s/blobs", repo_folder);
    if (!blobs.failed) measure(dir_exists(blobs.data) ? blobs.data : snapshot->data, 0, &e);
    if (!status) status = missing.failed ? -1 : w->each(w->context, &e);
    hub_gaps_free(&gaps);
    str_free(&blobs);
    str_free(&gguf);
    str_free(&missing);
    return status;
}

static int visit_repo(void *context, const char *cache, const char *folder) {
    str name = {0}, repo_folder = {0}, snapshots = {0}, snapshot = {0};
    hub_name main = {.revision = "main"};
    int status = 0;
    str_printf(&repo_folder, "%s/%s", cache, folder);
    str_printf(&snapshots, "%s/snapshots", repo_folder.data ? repo_folder.data : "");
    if (cache_name(&name, folder) && !repo_folder.failed && !snapshots.failed) {
        make_printable(name.data);
        if (!cache_snapshot(repo_folder.data, &main, &snapshot))
            each_name(snapshots.data, is_visible, keep_name, &snapshot);
        if (snapshot.length && !snapshot.failed)
            status = visit_snapshot(context, name.data, repo_folder.data, &snapshot);
    }
    str_free(&name);
    str_free(&repo_folder);
    str_free(&snapshots);
    str_free(&snapshot);
    return status;
}

/* ---- LM Studio ---- */

static int visit_lmstudio_model(void *context, const char *owner_folder, const char *model) {
    walk *w = context;
    hub_entry e = {.place = "LM Studio"};
    hub_gaps gaps = {0};
    str name = {0}, folder = {0}, gguf = {0}, missing = {0};
    str_printf(&folder, "%s/%s", owner_folder, model);
    str_put_printable(&name, strrchr(owner_folder, '/') + 1);
    str_puts(&name, "/");
    str_put_printable(&name, model);
    int status = folder.failed || name.failed ? -1 : 0;
    if (!status && dir_exists(folder.data)) {
        e.name = name.data;
        e.folder = folder.data;
        if (!cache_gaps(folder.data, HUB_MODEL, &gaps) && gaps.n) {
            if (each_name(folder.data, is_visible, keep_gguf, &gguf) && !gguf.failed)
                e.folder = gguf.data;
            else {
                str_printf(&missing, "missing: %s", gaps.names.data);
                e.missing = missing.data;
            }
        }
        measure(folder.data, 0, &e);
        status = missing.failed ? -1 : w->each(w->context, &e);
    }
    hub_gaps_free(&gaps);
    str_free(&name);
    str_free(&folder);
    str_free(&gguf);
    str_free(&missing);
    return status;
}

static int visit_lmstudio_owner(void *context, const char *models, const char *owner) {
    str folder = {0};
    str_printf(&folder, "%s/%s", models, owner);
    int status = folder.failed ? -1 : each_name(folder.data, is_visible, visit_lmstudio_model, context);
    str_free(&folder);
    return status;
}

static int visit_lmstudio(void *context, const char *models) {
    return each_name(models, is_visible, visit_lmstudio_owner, context);
}

int hub_list(int (*each)(void *context, const hub_entry *entry), void *context) {
    walk w = {each, context};
    str cache = {0};
    int status = 0;
    if (!places_cache(&cache)) status = each_name(cache.data, is_repo, visit_repo, &w);
    str_free(&cache);
    return status ? status : places_lmstudio(visit_lmstudio, &w);
}

/* ---- removing ---- */

/* Blobs that are links lead to the cache's own blobs/, where huggingface_hub keeps what models have
 * in common.
 */
static void measure_blobs(const char *repo_folder, hub_size *size) {
    str path = {0};
    hub_entry all = {0};
    str_printf(&path, "%s/blobs", repo_folder);
    bool there = !path.failed && dir_exists(path.data);
    measure(there ? path.data : repo_folder, 0, &all);
    DIR *dir = there ? opendir(path.data) : NULL;
    size_t end = path.length;
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        struct stat link, file;
        path.length = end;
        str_printf(&path, "/%s", entry->d_name);
        bool shared = !path.failed && !lstat(path.data, &link) && S_ISLNK(link.st_mode) &&
                      !stat(path.data, &file) && S_ISREG(file.st_mode);
        if (shared) size->shared += (int64_t)file.st_blocks * 512;
    }
    if (dir) closedir(dir);
    size->own = all.bytes - size->shared;
    str_free(&path);
}

int hub_cached(const char *name, str *folder, hub_size *size) {
    hub_name parsed;
    str endpoint = {0};
    places_endpoint(&endpoint);
    bool named = !endpoint.failed && hub_name_parse(name, endpoint.data, &parsed);
    str_free(&endpoint);
    if (!named) return fail_usage("\"%s\" is no name on the Hub (owner/name)", name);
    if (parsed.revision_given || *parsed.file)
        return fail_usage("%s: a model is removed with all its revisions and files; give %s", name,
                          parsed.repo);
    if (cache_repo(parsed.repo, folder)) return -1;
    if (!dir_exists(folder->data)) {
        str near = {0}, elsewhere = {0};
        if (!hub_find(name, HUB_MODEL, &elsewhere))
            str_printf(&near, "; it is in %s, which is not removed from here", elsewhere.data);
        else
            hub_put_nearest(&near, parsed.repo);
        str_free(&elsewhere);
        fail("%s is not in the Hugging Face cache: there is no %s%s", parsed.repo, folder->data,
             near.data ? near.data : "");
        str_free(&near);
        return -1;
    }
    *size = (hub_size){0};
    measure_blobs(folder->data, size);
    return 0;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *at) {
    (void)info;
    (void)kind;
    (void)at;
    return remove(path) ? (fail("cannot remove %s: %s", path, strerror(errno)), 1) : 0;
}

int hub_remove(const char *folder) {
    /* links are removed, never followed */
    int stopped = nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return stopped < 0 ? fail("cannot remove %s: %s", folder, strerror(errno)) : -stopped;
}
