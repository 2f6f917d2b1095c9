/* cache.c - reading and writing the cache's folders, links and refs.
 * Files are written in the repository's folder and renamed into place, and links are made in one
 * step, so that others never see half of anything, nor what a killed process leaves. */
#include "hub/cache.h"
#include "hub/places.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int cache_repo(const char *repo, str *path) {
    if (places_cache(path)) return -1;
    const char *slash = strchr(repo, '/'), *name = slash ? slash + 1 : repo;
    str_printf(path, "/models--%.*s%s%s", (int)(slash ? slash - repo : 0), repo, slash ? "--" : "", name);
    return path->failed ? -1 : 0;
}

bool cache_name(str *out, const char *folder) {
    static const char prefix[] = "models--";
    if (strncmp(folder, prefix, sizeof prefix - 1)) return false;
    const char *name = folder + sizeof prefix - 1, *gap = strstr(name, "--");
    if (gap)
        str_printf(out, "%.*s/%s", (int)(gap - name), name, gap + 2);
    else
        str_puts(out, name);
    return !out->failed;
}

void cache_listing(str *path, const char *repo_folder, const char *commit) {
    str_printf(path, "%s/trees/%s.mlxbench.json", repo_folder, commit);
}

void cache_blob(str *path, const char *repo_folder, const char *etag) {
    str_printf(path, "%s/blobs/%s", repo_folder, etag);
}

void cache_partial(str *path, const char *repo_folder, const char *etag) {
    str_printf(path, "%s/blobs/%s.mlxbench.incomplete", repo_folder, etag);
}

/* ---- snapshots ---- */

/* Appends the commit that refs/REVISION names. False when there is none. */
static bool read_ref(const char *repo_folder, const char *revision, str *commit) {
    str path = {0};
    file_map map;
    str_printf(&path, "%s/refs/%s", repo_folder, revision);
    bool found = !path.failed && file_exists(path.data) && !file_map_open(&map, path.data);
    if (found) {
        size_t n = 0;
        while (n < map.size && isalnum((unsigned char)map.data[n])) n++;
        str_append(commit, map.data, n);
        found = n > 0 && !commit->failed;
        file_map_close(&map);
    }
    str_free(&path);
    return found;
}

static int is_visible(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

/* Appends the only snapshot. */
static bool only_snapshot(const char *snapshots, str *path) {
    struct dirent **found = NULL;
    int n = scandir(snapshots, &found, is_visible, alphasort);
    if (n == 1) str_printf(path, "%s/%s", snapshots, found[0]->d_name);
    for (int i = 0; i < n; i++) free(found[i]);
    free(found);
    return n == 1 && !path->failed;
}

/* False when no ref has the name. */
static bool resolve(const char *repo_folder, const char *revision, str *commit) {
    bool ref = read_ref(repo_folder, revision, commit);
    if (!ref) {
        str_clear(commit);
        str_puts(commit, revision);
    }
    return ref;
}

void cache_commit(const char *repo_folder, const hub_name *name, str *commit) {
    resolve(repo_folder, name->revision, commit);
}

bool cache_no_exist(const char *repo_folder, const char *commit, const char *path) {
    str name = {0};
    str_printf(&name, "%s/.no_exist/%s/%s", repo_folder, commit, path);
    bool absent = !name.failed && file_exists(name.data);
    str_free(&name);
    return absent;
}

bool cache_snapshot(const char *repo_folder, const hub_name *name, str *path) {
    str commit = {0}, folder = {0};
    bool ref = resolve(repo_folder, name->revision, &commit);
    str_printf(&folder, "%s/snapshots", repo_folder);
    size_t end = folder.length;
    str_printf(&folder, "/%s", commit.data ? commit.data : "");
    bool found = !commit.failed && !folder.failed && dir_exists(folder.data);
    if (found)
        str_puts(path, folder.data);
    else if (!ref && !name->revision_given && !folder.failed) {
        folder.data[end] = '\0';
        found = only_snapshot(folder.data, path);
    }
    str_free(&commit);
    str_free(&folder);
    return found && !path->failed;
}

/* ---- what is missing ---- */

void hub_gaps_free(hub_gaps *gaps) {
    str_free(&gaps->names);
    *gaps = (hub_gaps){0};
}

void hub_put_amounts(str *out, const hub_gaps *gaps) {
    bool large = gaps->total >= 1000000000;
    double unit = large ? 1e9 : 1e6;
    str_printf(out, "%.1f of %.1f %s", (double)gaps->have / unit, (double)gaps->total / unit,
               large ? "GB" : "MB");
}

static void add_gap(hub_gaps *gaps, const char *name) {
    if (gaps->n < 3) {
        if (gaps->n) str_puts(&gaps->names, ", ");
        str_put_printable(&gaps->names, name);
    } else if (gaps->n == 3)
        str_puts(&gaps->names, ", ...");
    gaps->n++;
}

/* Bytes of folder/name, following links; -1 when there is no such file. */
static int64_t size_of(const char *folder, const char *name) {
    struct stat info;
    str path = {0};
    str_printf(&path, "%s/%s", folder, name);
    bool found = !path.failed && !stat(path.data, &info) && S_ISREG(info.st_mode);
    str_free(&path);
    return found ? (int64_t)info.st_size : -1;
}

static void gaps_by_listing(const char *snapshot, const char *repo_folder, hub_need need, const listing *l,
                            hub_gaps *gaps) {
    bool weights = false;
    for (int i = 0; i < l->n; i++) {
        const repo_file *f = &l->items[i];
        weights = weights || hub_is_weights(f->path);
        if (!hub_is_needed(f->path, need)) continue;
        bool whole = size_of(snapshot, f->path) == f->size;
        gaps->total += f->size;
        gaps->have += whole ? f->size : cache_begun(repo_folder, f);
        if (!whole) add_gap(gaps, f->path);
    }
    if (need == HUB_MODEL && !weights) add_gap(gaps, "model*.safetensors");
}

static int is_weights(const struct dirent *entry) {
    return hub_is_weights(entry->d_name);
}

/* Without a list: what the index names, or weights of any name that mlx-lm takes. */
static int gaps_by_index(const char *snapshot, hub_gaps *gaps) {
    if (size_of(snapshot, "config.json") < 0) add_gap(gaps, "config.json");
    str path = {0}, last = {0};
    str_printf(&path, "%s/model.safetensors.index.json", snapshot);
    json *index = !path.failed && file_exists(path.data) ? json_parse_file(path.data) : NULL;
    const json *item = json_first(json_get(index, "weight_map"));
    for (; item; item = json_next(item)) {
        const char *name = json_string(item);
        if (!name || !hub_path_is_safe(name) || (last.data && !strcmp(name, last.data))) continue;
        str_clear(&last);
        str_puts(&last, name);
        bool told = gaps->names.data && strstr(gaps->names.data, name);
        if (size_of(snapshot, name) < 0 && !told) add_gap(gaps, name);
    }
    if (!index) {
        struct dirent **found = NULL;
        int n = scandir(snapshot, &found, is_weights, NULL);
        for (int i = 0; i < n; i++) free(found[i]);
        free(found);
        if (n <= 0) add_gap(gaps, "model*.safetensors");
    }
    json_free(index);
    bool failed = path.failed || last.failed;
    str_free(&path);
    str_free(&last);
    return failed ? -1 : 0;
}

/* Reads the list of files that belongs to a snapshot. False when there is none that can be read. */
static bool find_listing(const char *repo_folder, const char *commit, listing *l) {
    bool found = false;
    str path = {0};
    for (int ours = 1; ours >= 0 && !found; ours--) {
        str_clear(&path);
        if (ours)
            cache_listing(&path, repo_folder, commit);
        else
            str_printf(&path, "%s/trees/%s.json", repo_folder, commit);
        found = !path.failed && file_exists(path.data) && !listing_read_file(l, path.data) && l->n;
        if (!found) listing_free(l);
    }
    str_free(&path);
    return found;
}

int cache_gaps(const char *snapshot, hub_need need, hub_gaps *gaps) {
    str folder = {0};
    listing l = {0};
    str_puts(&folder, snapshot);
    if (folder.failed) return -1;
    char *name = strrchr(folder.data, '/'), *above = NULL;
    if (name) {
        *name++ = '\0';
        above = strrchr(folder.data, '/');
        if (above && strcmp(above, "/snapshots")) above = NULL;
        if (above) *above = '\0';
    }
    int status = 0;
    if (above && find_listing(folder.data, name, &l))
        gaps_by_listing(snapshot, folder.data, need, &l, gaps);
    else if (need == HUB_MODEL)
        status = gaps_by_index(snapshot, gaps);
    bool tokenizer = size_of(snapshot, "tokenizer.json") >= 0 || size_of(snapshot, "tokenizer.model") >= 0;
    if (need == HUB_TOKENIZER && !tokenizer) add_gap(gaps, "tokenizer.json");
    listing_free(&l);
    str_free(&folder);
    return status || gaps->names.failed ? -1 : 0;
}

/* ---- writing ---- */

int make_folders(const char *path) {
    str copy = {0};
    str_puts(&copy, path);
    int status = copy.failed ? -1 : 0;
    for (size_t i = 1; !status && i <= copy.length; i++) {
        if (copy.data[i] && copy.data[i] != '/') continue;
        copy.data[i] = '\0';
        if (mkdir(copy.data, 0777) && errno != EEXIST && !dir_exists(copy.data))
            status = fail("cannot make the folder %s: %s", copy.data, strerror(errno));
        if (i < copy.length) copy.data[i] = '/';
    }
    str_free(&copy);
    return status;
}

/* Makes the folder in which path is. */
static int make_parent(const char *path) {
    str folder = {0};
    str_append(&folder, path, (size_t)(strrchr(path, '/') - path));
    int status = folder.failed ? -1 : make_folders(folder.data);
    str_free(&folder);
    return status;
}

/* A link is made in one step; what is in its place and is another one goes first. False when it
 * can't be. */
static bool make_link(const char *target, const char *place) {
    if (!symlink(target, place)) return true;
    if (errno != EEXIST) return false;
    char now[256];
    ssize_t n = readlink(place, now, sizeof now);
    if (n == (ssize_t)strlen(target) && !memcmp(now, target, (size_t)n)) return true;
    return !unlink(place) && !symlink(target, place);
}

int cache_link(const char *repo_folder, const char *commit, const repo_file *file) {
    str place = {0}, target = {0}, blob = {0};
    str_printf(&place, "%s/snapshots/%s/%s", repo_folder, commit, file->path);
    str_puts(&target, "../../");
    for (const char *c = file->path; *c; c++)
        if (*c == '/') str_puts(&target, "../");
    str_printf(&target, "blobs/%s", file->etag);
    cache_blob(&blob, repo_folder, file->etag);
    int status = place.failed || target.failed || blob.failed ? -1 : make_parent(place.data);
    bool linked = !status && !places_true("HF_HUB_DISABLE_SYMLINKS") && make_link(target.data, place.data);
    if (!status && !linked && rename(blob.data, place.data))
        status = fail("cannot write %s: %s", place.data, strerror(errno));
    str_free(&place);
    str_free(&target);
    str_free(&blob);
    return status;
}

int cache_write(const char *repo_folder, const char *path, const char *text, size_t n) {
    str temporary = {0};
    str_printf(&temporary, "%s/.mlxbench.%ld", repo_folder, (long)getpid());
    int status = temporary.failed ? -1 : make_parent(path);
    FILE *file = status ? NULL : fopen(temporary.data, "w");
    /* on the disk before it has its name: after a power failure there is all of it or nothing */
    bool written = file && fwrite(text, 1, n, file) == n && !fflush(file) && !fsync(fileno(file));
    if (file && fclose(file)) written = false;
    if (!status && (!written || rename(temporary.data, path))) {
        status = fail("cannot write %s: %s", path, strerror(errno));
        unlink(temporary.data);
    }
    str_free(&temporary);
    return status;
}

int cache_write_no_exist(const char *repo_folder, const char *commit, const char *path) {
    if (cache_no_exist(repo_folder, commit, path)) return 0;
    str name = {0};
    str_printf(&name, "%s/.no_exist/%s/%s", repo_folder, commit, path);
    int status = name.failed ? -1 : make_parent(name.data), fd = -1;
    if (!status && (fd = open(name.data, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666)) < 0)
        status = fail("cannot write %s: %s", name.data, strerror(errno));
    if (fd >= 0) close(fd);
    str_free(&name);
    return status;
}

int cache_write_ref(const char *repo_folder, const char *revision, const char *commit) {
    if (!strcmp(revision, commit)) return 0;
    str path = {0};
    str_printf(&path, "%s/refs/%s", repo_folder, revision);
    int status = path.failed ? -1 : cache_write(repo_folder, path.data, commit, strlen(commit));
    str_free(&path);
    return status;
}
