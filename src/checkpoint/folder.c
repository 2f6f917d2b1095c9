/* folder.c - which files of a folder are the model's, and what a file is that is no model at all.
 * An index decides where its files are there; what else lies in the folder is left out and said. */
#include "checkpoint/internal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- names ---- */

static int add_name(checkpoint *c, file_list *list, const char *name) {
    for (int i = 0; i < list->n; i++)
        if (!strcmp(list->names[i], name)) return 0;
    void *names = list->names;
    if (mem_resize(&names, (size_t)list->n + 1, sizeof *list->names, "the list of files")) return -1;
    list->names = names;
    return (list->names[list->n++] = arena_string(c->arena, name)) ? 0 : -1;
}

static bool has_name(const file_list *list, const char *name) {
    for (int i = 0; i < list->n; i++)
        if (!strcmp(list->names[i], name)) return true;
    return false;
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static int is_shard(const struct dirent *entry) {
    return !strncmp(entry->d_name, "model", 5) && ends_with(entry->d_name, ".safetensors");
}

static int by_file_name(const void *a, const void *b) {
    return strcmp((*(struct dirent *const *)a)->d_name, (*(struct dirent *const *)b)->d_name);
}

/* model*.safetensors, in an order that does not depend on the disk. */
static int list_folder(checkpoint *c, file_list *out) {
    struct dirent **entries = NULL;
    int n = scandir(c->folder, &entries, is_shard, NULL), status = 0;
    if (n < 0) return fail("cannot read folder %s: %s", c->folder, strerror(errno));
    if (n) qsort(entries, (size_t)n, sizeof *entries, by_file_name);
    for (int i = 0; i < n; i++) {
        if (!status) status = add_name(c, out, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return status;
}

/* The files of model.safetensors.index.json; none without an index. */
static int list_index(checkpoint *c, file_list *out) {
    const char *path = arena_printf(c->arena, "%s/model.safetensors.index.json", c->folder);
    if (!path) return -1;
    if (!file_exists(path)) return 0;
    json *index = json_parse_file(path);
    if (!index) return explain_file(path);
    int status = 0;
    const json *map = json_get(index, "weight_map");
    for (const json *item = json_first(map); item && !status; item = json_next(item)) {
        const char *name = json_string(item);
        if (!name || strchr(name, '/'))
            status = fail("%s: \"weight_map\" names no file for a tensor", path);
        else
            status = add_name(c, out, name);
    }
    json_free(index);
    return status;
}

/* ---- choosing ---- */

/* Takes `names` but those of `others`; what is left out is said in a note. */
static int take_all_but(checkpoint *c, const file_list *names, bool (*left_out)(const char *),
                        const file_list *only, file_list *out) {
    const char *example = NULL;
    int n = 0;
    for (int i = 0; i < names->n; i++) {
        if (only ? has_name(only, names->names[i]) : !left_out(names->names[i])) {
            if (add_name(c, out, names->names[i])) return -1;
        } else {
            if (!n++) example = names->names[i];
        }
    }
    if (!n) return 0;
    const char *why = only ? "model.safetensors.index.json does not name it" : "it predicts further tokens";
    if (n == 1) return checkpoint_add_note(c, "%s was left out: %s", example, why);
    return checkpoint_add_note(c, "%d files were left out, such as %s: %s", n, example, why);
}

static bool predicts_more(const char *name) {
    return !strncmp(name, "model_mtp", 9) || !strncmp(name, "model-mtp", 9);
}

int choose_files(checkpoint *c, file_list *out) {
    file_list found = {0}, index = {0};
    int status = list_folder(c, &found) || list_index(c, &index) ? -1 : 0, there = 0;
    const char *missing = NULL;
    for (int i = 0; i < index.n && !status; i++) {
        const char *path = arena_printf(c->arena, "%s/%s", c->folder, index.names[i]);
        if (!path) status = -1;
        if (path && file_exists(path))
            there++;
        else
            missing = index.names[i];
    }
    if (!status && there && missing)
        status = fail("%s: shard %s is missing (model.safetensors.index.json names it); get the whole model",
                      c->folder, missing);
    else if (!status && there) {
        for (int i = 0; i < index.n && !status; i++) status = add_name(c, out, index.names[i]);
        file_list ignored = {0};
        if (!status) status = take_all_but(c, &found, NULL, &index, &ignored);
        free(ignored.names);
    } else if (!status && index.n && found.n) {
        status = checkpoint_add_note(
            c, "no file that model.safetensors.index.json names is there: %s is read instead",
            found.n == 1 ? found.names[0] : "model*.safetensors");
        if (!status) status = take_all_but(c, &found, predicts_more, NULL, out);
    } else if (!status && index.n) {
        status = fail("%s: shard %s is missing (model.safetensors.index.json names it); get the whole model",
                      c->folder, missing);
    } else if (!status) {
        status = found.n ? take_all_but(c, &found, predicts_more, NULL, out)
                         : fail("%s: no model*.safetensors in this folder", c->folder);
    }
    free(found.names);
    free(index.names);
    return status;
}

/* ---- what is no model ---- */

static bool begins_with(const char *data, size_t size, const char *text) {
    size_t n = strlen(text);
    return size >= n && !strncasecmp(data, text, n);
}

int check_is_model(const char *path, const char *data, size_t size) {
    if (begins_with(data, size, "version https://git-lfs"))
        return fail(
            "%s: a Git LFS pointer, not the file itself; run `git lfs pull` in its folder, or get it with "
            "`hf download`",
            path);
    while (size && isspace((unsigned char)*data)) data++, size--;
    if (begins_with(data, size, "<!doctype html") || begins_with(data, size, "<html"))
        return fail(
            "%s: an HTML page, not the file itself, as a download without a login leaves; get it again",
            path);
    return 0;
}

int explain_file(const char *path) {
    file_map map;
    char message[1024];
    snprintf(message, sizeof message, "%s", error_message());
    int code = error_exit_code();
    if (code != EXIT_FAILED || file_map_open(&map, path)) return fail("%s", message);
    if (!check_is_model(path, map.data, map.size)) fail("%s", message);
    file_map_close(&map);
    return -1;
}
