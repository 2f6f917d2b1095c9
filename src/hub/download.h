/* download.h - files of one repository, fetched side by side, checked and given their names.
 * What pull.c decided on; all state that must survive is on the disk (partial.h). */
#ifndef HUB_DOWNLOAD_H
#define HUB_DOWNLOAD_H

#include <pthread.h>

#include "hub/listing.h"
#include "hub/partial.h"
#include "hub/transport.h"

enum { MOST_TRANSFERS = 8 };

typedef enum file_state {
    FILE_WAITING,  /* nothing done yet, or another process has its lock */
    FILE_FETCHING, /* it has its lock and its partial file */
    FILE_HASHED,   /* all bytes came and were hashed */
    FILE_DONE,     /* it has its name, and is linked */
} file_state;

typedef struct download_file {
    const repo_file *wanted;
    file_state state;
    int lock;
    partial part;
    char *busy;     /* for each piece: a transfer is on it */
    char *location; /* where the Hub redirected to; NULL: ask the Hub */
    bool resolved;  /* the address gives data, so several transfers may ask there */
    bool whole;     /* the server gives no ranges: one transfer from the start */
    bool told;      /* that another process has the lock */
    bool again;     /* its hash was wrong once */
    int active, redirects, failures;
    int64_t retry_at; /* ns */
    int64_t n_hashed; /* pieces; this and what follows is the hashing thread's while FILE_FETCHING */
    bool hashed;
    hasher *hash;
    char digest[65];
} download_file;

typedef struct download {
    transport *t;
    const char *endpoint, *repo, *commit, *repo_folder;
    const hub_pull_options *options;
    int n;
    download_file *files;

    /* the rest is download.c's own */
    pthread_mutex_t mutex; /* over states, pieces' bytes and hashes: two threads have them */
    pthread_cond_t more;   /* there is something to hash, or `stop` */
    pthread_t hasher;
    bool stop, hash_failed;
    http_transfer *transfers[MOST_TRANSFERS];
    int waits; /* for a rate limit */
    long idle; /* seconds without data after which a request is repeated */
    int64_t pause_until, look_at_locks, shown_at, received;
} download;

/* Fetches all files, so that each is in blobs/ and linked in snapshots/COMMIT/. -1 with a message;
 * what has come is kept for the next time. */
int download_run(download *d);

/* The thread that hashes pieces, in order, as they come (verify.c). */
void *download_hash(void *context);

/* The last attempt's message for a status that is no success; always -1 (answers.c). */
int fail_answer(const http_answer *answer, const char *endpoint, const char *repo, const char *what);

/* Could another attempt go better: 408, 5xx? */
bool status_may_pass(int status);

/* Seconds to wait for a rate limit (429); -1 with a message when that is too long, or was too
 * often. */
long wait_for_limit(const http_answer *answer, int *waits);

#endif
