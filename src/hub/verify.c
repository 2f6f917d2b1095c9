/* verify.c - the thread that hashes a download while it comes.
 * Pieces come in any order, a hash needs them in theirs: it reads back what is complete, mostly
 * from memory.
 */
#include "hub/download.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* git's hash of a file is that of "blob SIZE", a NUL and its content. */
static hasher *begin(const download_file *f) {
    hasher *h = hash_new(f->wanted->lfs);
    if (h && !f->wanted->lfs) {
        char head[40];
        int n = snprintf(head, sizeof head, "blob %lld", (long long)f->wanted->size);
        hash_add(h, head, (size_t)n + 1);
    }
    return h;
}

static int hash_piece(download_file *f, int64_t piece, char *buffer, size_t size) {
    int64_t at = piece * PIECE_BYTES, end = at + partial_piece_size(&f->part, piece);
    while (at < end) {
        size_t want = end - at < (int64_t)size ? (size_t)(end - at) : size;
        ssize_t n = pread(f->part.fd, buffer, want, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        hash_add(f->hash, buffer, (size_t)n);
        at += n;
    }
    return 0;
}

/* A file whose next piece can be hashed, or whose last one was. */
static download_file *find_work(download *d) {
    for (int i = 0; i < d->n; i++) {
        download_file *f = &d->files[i];
        if (f->state != FILE_FETCHING || f->hashed) continue;
        int64_t next = f->n_hashed;
        if (next == f->part.n_pieces || f->part.have[next] == partial_piece_size(&f->part, next)) return f;
    }
    return NULL;
}

void *download_hash(void *context) {
    enum { BUFFER = 1 << 20 };
    download *d = context;
    char *buffer = malloc(BUFFER);
    pthread_mutex_lock(&d->mutex);
    while (!d->stop) {
        download_file *f = find_work(d);
        if (!f) {
            pthread_cond_wait(&d->more, &d->mutex);
            continue;
        }
        if (!f->hash) f->hash = begin(f);
        int64_t piece = f->n_hashed;
        if (!f->hash || !buffer)
            d->hash_failed = true;
        else if (piece == f->part.n_pieces) {
            hash_end(f->hash, f->digest);
            f->hash = NULL;
            f->hashed = true;
        } else {
            pthread_mutex_unlock(&d->mutex); /* nobody changes a complete piece */
            int failed = hash_piece(f, piece, buffer, BUFFER);
            pthread_mutex_lock(&d->mutex);
            f->n_hashed++;
            if (failed) d->hash_failed = true;
        }
        if (d->hash_failed) d->stop = true;
        if (f->hashed || d->stop) transport_wake(d->t);
    }
    pthread_mutex_unlock(&d->mutex);
    free(buffer);
    return NULL;
}
