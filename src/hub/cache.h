/* cache.h - the Hugging Face cache's layout, and how complete what lies in it is.
 * models--OWNER--NAME (or models--NAME)/{refs/REVISION, snapshots/COMMIT/FILE -> ../../blobs/ETAG,
 * trees/COMMIT.json}, and .locks/models--OWNER--NAME/ETAG.lock beside them. Source:
 * huggingface_hub's file_download.py. */
#ifndef HUB_CACHE_H
#define HUB_CACHE_H

#include "hub/listing.h"
#include "hub/name.h"

/* Appends CACHE/models--OWNER--NAME. -1 when there is no cache's folder to name. */
int cache_repo(const char *repo, str *path);

/* Appends the commit that a revision means, as far as refs/ knows; else the revision itself. */
void cache_commit(const char *repo_folder, const hub_name *name, str *commit);

/* Appends the folder snapshots/COMMIT that a revision means: a ref, a commit, or - when nobody
 * asked for a revision and there is no ref - the only one there is. False when there is none. */
bool cache_snapshot(const char *repo_folder, const hub_name *name, str *path);

/* What a snapshot lacks. */
typedef struct hub_gaps {
    int n;               /* files that are missing */
    str names;           /* the first few, for people */
    int64_t have, total; /* bytes; total is 0 when nobody knows */
} hub_gaps;

void hub_gaps_free(hub_gaps *gaps);

/* Appends "3.1 of 6.4 GB", or in MB. */
void hub_put_amounts(str *out, const hub_gaps *gaps);

/* Finds what is missing in a folder that should hold all that `need` asks for. A list of the
 * repository's files beside the snapshot decides, ours or huggingface_hub's; without one,
 * config.json, and the files that the index names or any weights. -1 on an error. */
int cache_gaps(const char *snapshot, hub_need need, hub_gaps *gaps);

/* Appends the path of our own list of what a run needs, trees/COMMIT.mlxbench.json. huggingface_hub
 * takes trees/COMMIT.json for the whole repository, so ours has another name. */
void cache_listing(str *path, const char *repo_folder, const char *commit);

/* Appends what a download of this blob is until it is whole, and blobs/ETAG itself. */
void cache_partial(str *path, const char *repo_folder, const char *etag);
void cache_blob(str *path, const char *repo_folder, const char *etag);

/* Bytes of a file that are on the disk though its download is not finished: ours, or what
 * huggingface_hub left. */
int64_t cache_begun(const char *repo_folder, const repo_file *file);

/* Makes what huggingface_hub left of a file the beginning of our download, if we have none. The
 * caller has the file's lock, so nobody writes it. */
void cache_adopt(const char *repo_folder, const repo_file *file);

/* Did the Hub say that the repository has no such file, in .no_exist/COMMIT/PATH? An empty file
 * there, which huggingface_hub writes when it is told so, and so do we. */
bool cache_no_exist(const char *repo_folder, const char *commit, const char *path);
int cache_write_no_exist(const char *repo_folder, const char *commit, const char *path);

/* "models--owner--name" to "owner/name", "models--name" to "name"; false when it is none. */
bool cache_name(str *out, const char *folder);

/* Appends "; did you mean NAME, which is here?" when a model here has a name much like this one. */
void hub_put_nearest(str *out, const char *name);

/* Makes a folder and those above it, like mkdir -p. */
int make_folders(const char *path);

/* Links snapshots/COMMIT/PATH to its blob, replacing what was there; where links are impossible the
 * blob itself moves there, as with huggingface_hub. */
int cache_link(const char *repo_folder, const char *commit, const repo_file *file);

/* Writes a small file of the repository's folder, in one step; makes the folders above it. */
int cache_write(const char *repo_folder, const char *path, const char *text, size_t n);

/* Writes refs/REVISION, in one step. Nothing to do for a commit. */
int cache_write_ref(const char *repo_folder, const char *revision, const char *commit);

#endif
