/* hub.c - looking models up in the Hugging Face cache.
 * Layout of the cache: huggingface_hub's guide "Understand caching". Downloads will be a file of their own.
 */
#include "hub/hub.h"

#include <ctype.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

/* Appends the cache's folder. -1 when no home folder is known. */
static int cache_folder(str *path) {
    const char *fixed = getenv("HF_HUB_CACHE"), *hf_home = getenv("HF_HOME"), *xdg = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    if (fixed && *fixed)
        str_puts(path, fixed);
    else if (hf_home && *hf_home)
        str_printf(path, "%s/hub", hf_home);
    else if (xdg && *xdg)
        str_printf(path, "%s/huggingface/hub", xdg);
    else if (home && *home)
        str_printf(path, "%s/.cache/huggingface/hub", home);
    else
        return fail("cannot find the Hugging Face cache: neither HF_HUB_CACHE, HF_HOME nor HOME is set");
    return path->failed ? -1 : 0;
}

/* Is text[0..n) made of the characters of Hub names, and no path out of a folder? */
static bool is_hub_word(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)text[i]) && !strchr("-_.", text[i])) return false;
    return n > 0 && text[0] != '.';
}

/* Splits "owner/name[@revision]". */
static bool split_name(const char *model, size_t *owner, size_t *name, const char **revision) {
    const char *slash = strchr(model, '/'), *at = strchr(model, '@');
    if (!slash || (at && at < slash)) return false;
    *owner = (size_t)(slash - model);
    *name = at ? (size_t)(at - slash - 1) : strlen(slash + 1);
    *revision = at ? at + 1 : "main";
    bool safe = (*revision)[0] && (*revision)[0] != '/' && !strstr(*revision, "..");
    return safe && is_hub_word(model, *owner) && is_hub_word(slash + 1, *name);
}

/* Appends the commit that refs/REVISION of a model's folder names. False when there is none. */
static bool read_ref(const char *repo, const char *revision, str *commit) {
    str path = {0};
    file_map map;
    str_printf(&path, "%s/refs/%s", repo, revision);
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

/* Appends the snapshot folder of a revision (a ref or a commit). False when it is not there. */
static bool find_snapshot(const char *repo, const char *revision, str *out) {
    str commit = {0}, path = {0};
    if (!read_ref(repo, revision, &commit)) {
        str_clear(&commit);
        str_puts(&commit, revision);
    }
    str_printf(&path, "%s/snapshots/%s", repo, commit.data ? commit.data : "");
    bool found = !commit.failed && !path.failed && dir_exists(path.data);
    if (found) str_puts(out, path.data);
    str_free(&commit);
    str_free(&path);
    return found && !out->failed;
}

int hub_find(const char *model, str *path) {
    size_t owner, name;
    const char *revision;
    if (!strncmp(model, "synthetic:", 10) || dir_exists(model) || file_exists(model)) {
        str_puts(path, model);
        return path->failed ? -1 : 0;
    }
    if (!split_name(model, &owner, &name, &revision))
        return fail(
            "model \"%s\" not found: it is no folder or file, no synthetic:PRESET, and no Hugging Face "
            "name (owner/name)",
            model);
    str cache = {0}, repo = {0};
    int status = cache_folder(&cache);
    if (!status) {
        str_printf(&repo, "%s/models--%.*s--%.*s", cache.data, (int)owner, model, (int)name,
                   model + owner + 1);
        status = repo.failed ? -1 : 0;
    }
    if (!status && !find_snapshot(repo.data, revision, path)) {
        int n = (int)(owner + 1 + name);
        bool main_revision = !strcmp(revision, "main");
        status = fail(
            "model \"%s\" is no folder or file here, and not in the Hugging Face cache (%s); get it "
            "with: hf download %.*s%s%s - or measure synthetic:llama-3.2-1b-4bit, which needs no "
            "download",
            model, cache.data, n, model, main_revision ? "" : " --revision ", main_revision ? "" : revision);
    }
    str_free(&cache);
    str_free(&repo);
    return status;
}

/* ---- listing ---- */

static int is_model(const struct dirent *entry) {
    return !strncmp(entry->d_name, "models--", 8);
}

static int is_visible(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

/* Appends the snapshot of main, or else any one. False when there is none. */
static bool any_snapshot(const char *repo, str *out) {
    if (find_snapshot(repo, "main", out)) return true;
    str folder = {0};
    struct dirent **snapshots = NULL;
    str_printf(&folder, "%s/snapshots", repo);
    int n = folder.failed ? -1 : scandir(folder.data, &snapshots, is_visible, alphasort);
    if (n > 0) str_printf(out, "%s/%s", folder.data, snapshots[0]->d_name);
    for (int i = 0; i < n; i++) free(snapshots[i]);
    free(snapshots);
    str_free(&folder);
    return n > 0 && !out->failed;
}

/* "models--owner--name" to "owner/name". */
static void model_name(str *out, const char *folder) {
    const char *name = folder + strlen("models--"), *gap = strstr(name, "--");
    if (gap)
        str_printf(out, "%.*s/%s", (int)(gap - name), name, gap + 2);
    else
        str_puts(out, name);
}

int hub_list(int (*each)(void *context, const char *name, const char *folder), void *context) {
    str cache = {0}, repo = {0}, name = {0}, folder = {0};
    struct dirent **models = NULL;
    int n = 0, status = cache_folder(&cache);
    if (!status && dir_exists(cache.data)) n = scandir(cache.data, &models, is_model, alphasort);
    for (int i = 0; i < n; i++) {
        str_clear(&repo);
        str_clear(&name);
        str_clear(&folder);
        str_printf(&repo, "%s/%s", cache.data, models[i]->d_name);
        model_name(&name, models[i]->d_name);
        if (!status && !repo.failed && !name.failed && any_snapshot(repo.data, &folder))
            status = each(context, name.data, folder.data);
        free(models[i]);
    }
    free(models);
    str_free(&cache);
    str_free(&repo);
    str_free(&name);
    str_free(&folder);
    return status < 0 ? -1 : 0;
}
