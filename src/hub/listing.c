/* listing.c - the Hub's JSON to lists of files, with everything in it checked.
 * The forms are those that huggingface_hub reads (hf_api.py: model_info, list_repo_tree). */
#include "hub/listing.h"
#include "hub/name.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>

enum { LARGEST_FILE_GB = 4096 };

void listing_free(listing *l) {
    for (int i = 0; i < l->n; i++) free(l->items[i].path);
    free(l->items);
    *l = (listing){0};
}

int listing_add(listing *l, const repo_file *file) {
    if (l->n >= LISTING_MOST) return fail("the Hub lists more than %d files; that is no model", LISTING_MOST);
    if (l->n == l->capacity) {
        int capacity = l->capacity ? 2 * l->capacity : 32;
        repo_file *items = realloc(l->items, (size_t)capacity * sizeof *items);
        if (!items) return fail("no memory for a list of %d files", capacity);
        l->items = items;
        l->capacity = capacity;
    }
    repo_file *f = &l->items[l->n];
    *f = *file;
    if (!(f->path = strdup(file->path))) return fail("no memory for a list of files");
    l->n++;
    return 0;
}

/* Checks what the Hub or a file says about one path, and adds it. where: for the message. */
static int add_checked(listing *l, const char *where, const char *path, const json *blob, const json *sha256,
                       double size) {
    const char *etag = json_string(sha256 ? sha256 : blob);
    if (!hub_path_is_safe(path)) return 0;
    if (!etag || !hub_is_hex(etag, sha256 ? 64 : 40))
        return fail("%s: \"%s\" has no hash of the expected form", where, path);
    if (!(size >= 0 && size <= LARGEST_FILE_GB * 1e9) || size != (double)(int64_t)size)
        return fail("%s: \"%s\" has an impossible size", where, path);
    repo_file f = {.path = (char *)path, .size = (int64_t)size, .lfs = sha256 != NULL};
    snprintf(f.etag, sizeof f.etag, "%s", etag);
    return listing_add(l, &f);
}

int listing_read_tree(listing *l, const char *text, size_t n) {
    json *root = json_parse(text, n, "the Hub's list of files");
    if (!root) return -1;
    int status = json_is_array(root) ? 0 : fail("the Hub's list of files is no list");
    const json *item = status ? NULL : json_first(root);
    for (; item && !status; item = json_next(item)) {
        const char *type = json_string(json_get(item, "type")), *path = json_string(json_get(item, "path"));
        const json *lfs = json_get(item, "lfs"), *size = json_get(lfs ? lfs : item, "size"),
                   *sha256 = json_get(lfs, "oid");
        if (!type || strcmp(type, "file") || !path) continue;
        if ((lfs && !sha256) || !json_is_number(size))
            status = fail("the Hub's list of files: \"%s\" has no hash or no size", path);
        else
            status = add_checked(l, "the Hub's list of files", path, json_get(item, "oid"), sha256,
                                 json_number(size));
    }
    json_free(root);
    return status;
}

int listing_read_commit(const char *text, size_t n, char commit[41]) {
    json *root = json_parse(text, n, "the Hub's answer about the model");
    if (!root) return -1;
    const char *sha = json_string(json_get(root, "sha"));
    int status = 0;
    if (sha && hub_is_hex(sha, 40))
        memcpy(commit, sha, 41);
    else
        status = fail("the Hub's answer about the model names no commit");
    json_free(root);
    return status;
}

int listing_read_text(listing *l, const char *text, size_t n, const char *path) {
    int64_t version = 0;
    json *root = json_parse(text, n, path);
    if (!root) return -1;
    int status = json_get_int(root, path, "format_version", true, 1, 1, &version);
    const json *item = status ? NULL : json_first(json_get(root, "files"));
    for (; item && !status; item = json_next(item)) {
        const json *sha256 = json_get(item, "lfs_sha256"),
                   *size = json_get(item, sha256 ? "lfs_size" : "size");
        status = json_key(item) ? add_checked(l, path, json_key(item), json_get(item, "blob_id"), sha256,
                                              json_is_number(size) ? json_number(size) : -1)
                                : fail("%s: \"files\" is no object", path);
    }
    json_free(root);
    return status;
}

int listing_read_file(listing *l, const char *path) {
    file_map map;
    if (file_map_open(&map, path)) return -1;
    int status = listing_read_text(l, map.data, map.size, path);
    file_map_close(&map);
    return status;
}

void listing_write_text(const listing *l, str *text) {
    str_puts(text, "{\n \"format_version\": 1,\n \"files\": {");
    for (int i = 0; i < l->n; i++) {
        const repo_file *f = &l->items[i];
        str_puts(text, i ? ",\n  " : "\n  ");
        json_quote(text, f->path);
        str_printf(text, ": {\"size\": %lld, ", (long long)f->size);
        if (f->lfs)
            str_printf(text, "\"lfs_sha256\": \"%s\", \"lfs_size\": %lld}", f->etag, (long long)f->size);
        else
            str_printf(text, "\"blob_id\": \"%s\"}", f->etag);
    }
    str_puts(text, "\n }\n}\n");
}

bool hub_is_weights(const char *path) {
    return !strchr(path, '/') && !fnmatch("model*.safetensors", path, 0);
}

/* Names first, then patterns. chat_template.jinja is there for hub_needed_name. */
static const char *const needed[] = {
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.json",
    "chat_template.jinja",
    "tiktoken.model",
    "vocab.txt",
    "*.jinja",
    "*.tiktoken",
};
enum { N_NEEDED = sizeof needed / sizeof *needed };

const char *hub_needed_name(int i) {
    return i < N_NEEDED && *needed[i] != '*' ? needed[i] : NULL;
}

bool hub_is_needed(const char *path, hub_need need) {
    if (strchr(path, '/')) return false;
    for (int i = 0; i < N_NEEDED; i++)
        if (!fnmatch(needed[i], path, 0)) return true;
    return need == HUB_MODEL && (hub_is_weights(path) || !strcmp(path, "model.safetensors.index.json"));
}
