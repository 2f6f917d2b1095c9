/* listing.h - the files of a repository: as the Hub lists them, and as the list is kept beside the
 * cache. All of it is foreign text, so every name, hash and size is checked before anybody uses
 * it. */
#ifndef HUB_LISTING_H
#define HUB_LISTING_H

#include "hub/hub.h"

typedef struct repo_file {
    char *path;    /* below the snapshot's folder; hub_path_is_safe holds */
    char etag[65]; /* name of its blob: SHA-256 of the content with LFS, else git's SHA-1 of the blob */
    int64_t size;
    bool lfs;
} repo_file;

typedef struct listing {
    int n, capacity;
    repo_file *items;
} listing;

enum { LISTING_MOST = 50000 }; /* files of one repository */

void listing_free(listing *l);

/* Adds a copy of one file. -1 with a message. */
int listing_add(listing *l, const repo_file *file);

/* Adds the files of one page of the Hub's answer to /api/models/NAME/tree/COMMIT: an array of
 * {"type": "file", "path", "size", "oid", "lfs": {"oid", "size"}}. Files whose names can't be
 * written below a folder are left out. -1 when it is not such an answer. */
int listing_read_tree(listing *l, const char *text, size_t n);

/* The commit in the Hub's answer to /api/models/NAME/revision/REVISION: {"sha": 40 hexadecimal
 * digits}. */
int listing_read_commit(const char *text, size_t n, char commit[41]);

/* Reads and writes what huggingface_hub writes as trees/COMMIT.json: {"format_version": 1, "files":
 * {path: {"size", "blob_id", "lfs_sha256", "lfs_size"}}}. Source: its _tree_cache.py. */
int listing_read_file(listing *l, const char *path);
int listing_read_text(listing *l, const char *text, size_t n, const char *path);
void listing_write_text(const listing *l, str *text);

/* Is a file one that `need` asks for? Configuration, tokenizer, chat templates, and with HUB_MODEL
 * model*.safetensors and its index: what mlx-lm loads. */
bool hub_is_needed(const char *path, hub_need need);

/* The names among them that are no patterns, i = 0, 1, ... until NULL: what programs ask for by
 * name. */
const char *hub_needed_name(int i);
bool hub_is_weights(const char *path);

#endif
