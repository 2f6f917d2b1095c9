/* hub.h - a model's name to its files: found on this machine, or downloaded from the Hugging Face
 * Hub. Nothing else in the program knows names, caches or the Hub's API. docs/hub.md is the user's
 * view. */
#ifndef HUB_HUB_H
#define HUB_HUB_H

#include "base/base.h"

typedef enum hub_need {
    HUB_MODEL,     /* all that a run needs */
    HUB_TOKENIZER, /* what text needs: no weights */
} hub_need;

enum { HUB_MISSING = 1 };

/* Appends to path the checkpoint that `model` names: an existing folder or file as it is,
 * "synthetic:..." as it is, otherwise a name on the Hub ("owner/name", "owner/name@revision",
 * "owner/name/file.gguf", "hf:...", a page's address), looked up in the Hugging Face cache and then
 * in LM Studio's folders. Uses no network. 0: found. HUB_MISSING: a name on the Hub that is not
 * here, or not all of it; the message says so and what to do, and hub_pull can get it. -1: an
 * error. */
int hub_find(const char *model, hub_need need, str *path);

/* ---- downloading ---- */

/* A file that is on its way. */
typedef struct hub_file_progress {
    const char *path; /* foreign text */
    int64_t have, size;
} hub_file_progress;

enum { HUB_MOST_ACTIVE = 16 };

/* How far a download is. Called with it some times a second, and for each `note`. */
typedef struct hub_progress {
    const char *note; /* NULL, or one line worth keeping: a file that is done, a retry, a wait */
    hub_file_progress active[HUB_MOST_ACTIVE];
    int n_active;
    int64_t have, total; /* bytes of all files */
    int64_t received;    /* bytes that this call has received: for the rate */
    int files_done, files;
} hub_progress;

typedef struct hub_pull_options {
    hub_need need;
    void (*progress)(void *context, const hub_progress *progress); /* NULL: nobody asks */
    void *context;
} hub_pull_options;

/* Downloads what `need` asks for of a name on the Hub into the Hugging Face cache, and appends the
 * snapshot's folder (or the GGUF file) to path. What is there already is not fetched again; what
 * was begun is continued; every file is checked against its hash before it gets its name. Waits
 * while another process downloads the same file. Ctrl-C, a full disk or a lost network end it with
 * a message and leave what the next call goes on from. -1 with a message. */
int hub_pull(const char *model, const hub_pull_options *options, str *path);

/* Is the network switched off by HF_HUB_OFFLINE? */
bool hub_offline(void);

/* ---- what is here ---- */

typedef struct hub_entry {
    const char *name;    /* "owner/name", printable */
    const char *folder;  /* the snapshot, LM Studio's folder, or its GGUF file */
    const char *place;   /* "Hugging Face cache" or "LM Studio" */
    int64_t bytes;       /* on the disk */
    int64_t last_used;   /* seconds since 1970, as the file system knows it; 0 when it does not */
    const char *missing; /* what an incomplete one lacks; NULL when it is whole */
} hub_entry;

/* Calls each(context, entry) for every model here until it returns nonzero, which it returns. A
 * missing cache is no error: nothing is called. -1 with a message. */
int hub_list(int (*each)(void *context, const hub_entry *entry), void *context);

/* What removing a model gives back, and what stays because huggingface_hub may share it with other
 * models. */
typedef struct hub_size {
    int64_t own, shared;
} hub_size;

/* Appends the folder in the Hugging Face cache that `name` has, and its size. -1 with a message
 * when it has none. */
int hub_cached(const char *name, str *folder, hub_size *size);

/* Removes what hub_cached found: every revision of it. */
int hub_remove(const char *folder);

#endif
