/* download.c - which piece of which file comes next, and what to do when it ended.
 * One thread has all transfers and all files; verify.c's thread only reads complete pieces. */
#include "hub/download.h"
#include "hub/cache.h"
#include "hub/lock.h"
#include "hub/places.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define SECOND 1000000000LL
enum { MOST_REDIRECTS = 8, MOST_FAILURES = 5, NOTE_EVERY = 1 << 20, ERROR_PAGE = 64 << 10 };

/* One transfer: a piece, or with `whole` everything from the start. */
typedef struct fetch {
    download *d;
    download_file *f;
    int64_t piece, at, end;             /* the next byte, and the one after the last */
    int64_t fresh;                      /* bytes that were not there before */
    bool ranged, checked, data, broken; /* broken: a write failed, and its message is recorded */
    size_t page;                        /* bytes of an error page */
    const char *refused;
} fetch;

/* ---- progress ---- */

static void show(download *d, const char *note) {
    if (!d->options->progress || (!note && clock_ns() < d->shown_at)) return;
    d->shown_at = clock_ns() + SECOND / 10;
    hub_progress p = {.note = note, .received = d->received, .files = d->n};
    for (int i = 0; i < d->n; i++) {
        const download_file *f = &d->files[i];
        int64_t have = f->state == FILE_DONE      ? f->wanted->size
                       : f->state == FILE_WAITING ? 0
                                                  : partial_have(&f->part);
        p.total += f->wanted->size;
        p.have += have;
        p.files_done += f->state == FILE_DONE;
        if (f->state == FILE_FETCHING && p.n_active < HUB_MOST_ACTIVE)
            p.active[p.n_active++] = (hub_file_progress){f->wanted->path, have, f->wanted->size};
    }
    d->options->progress(d->options->context, &p);
}

static void note(download *d, const char *path, const char *what) {
    str text = {0};
    str_put_printable(&text, path);
    str_puts(&text, ": ");
    str_put_printable(&text, what);
    if (!text.failed) show(d, text.data);
    str_free(&text);
}

/* ---- beginning and ending files ---- */

/* Is the blob there, with the right size? One of another size is removed. */
static bool blob_is_there(download *d, const download_file *f) {
    struct stat info;
    str path = {0};
    cache_blob(&path, d->repo_folder, f->wanted->etag);
    bool there = !path.failed && !stat(path.data, &info);
    if (there && (int64_t)info.st_size != f->wanted->size) {
        unlink(path.data);
        there = false;
    }
    str_free(&path);
    return there;
}

static bool is_linked(download *d, const download_file *f) {
    struct stat info;
    str path = {0};
    str_printf(&path, "%s/snapshots/%s/%s", d->repo_folder, d->commit, f->wanted->path);
    bool linked = !path.failed && !stat(path.data, &info) && (int64_t)info.st_size == f->wanted->size;
    str_free(&path);
    return linked;
}

static void set_state(download *d, download_file *f, file_state state) {
    pthread_mutex_lock(&d->mutex);
    f->state = state;
    pthread_cond_signal(&d->more);
    pthread_mutex_unlock(&d->mutex);
}

static void release(download_file *f) {
    partial_close(&f->part);
    if (f->lock >= 0) close(f->lock);
    f->lock = -1;
    free(f->busy);
    free(f->location);
    f->busy = f->location = NULL;
}

static int open_partial(download *d, download_file *f) {
    str path = {0};
    cache_adopt(d->repo_folder, f->wanted);
    cache_partial(&path, d->repo_folder, f->wanted->etag);
    int status = path.failed ? -1 : partial_open(&f->part, path.data, f->wanted->size);
    if (!status && !(f->busy = calloc((size_t)f->part.n_pieces + 1, 1)))
        status = fail("no memory for a download");
    str_free(&path);
    if (!status) set_state(d, f, FILE_FETCHING);
    return status;
}

/* Is there a beginning of ours? With `drop`, there is none afterwards. */
static bool was_begun(download *d, const download_file *f, bool drop) {
    struct stat info;
    str path = {0};
    cache_partial(&path, d->repo_folder, f->wanted->etag);
    bool begun = !path.failed && !lstat(path.data, &info);
    if (begun && drop) unlink(path.data);
    str_free(&path);
    return begun;
}

/* Takes a waiting file's lock, if it can be had, and looks again what is there: others may have
 * been here. */
static int begin_file(download *d, download_file *f) {
    bool linked = is_linked(d, f);
    int status = 1;
    if (!linked || was_begun(d, f, false)) status = lock_try(d->repo_folder, f->wanted->etag, &f->lock);
    if (status < 0 || (!status && !linked)) {
        if (!status && !f->told) note(d, f->wanted->path, "another process downloads it; waiting");
        f->told = true;
        return status;
    }
    if (linked || blob_is_there(d, f)) {
        if (f->lock >= 0) was_begun(d, f, true); /* others have finished it */
        status = linked ? 0 : cache_link(d->repo_folder, d->commit, f->wanted);
        release(f);
        set_state(d, f, FILE_DONE);
        return status;
    }
    return open_partial(d, f);
}

static int finish_file(download *d, download_file *f) {
    str path = {0}, name = {0};
    cache_partial(&path, d->repo_folder, f->wanted->etag);
    cache_blob(&name, d->repo_folder, f->wanted->etag);
    int status = path.failed || name.failed ? -1 : 0;
    bool right = !strcmp(f->digest, f->wanted->etag);
    if (!status && !right && f->again) {
        unlink(path.data);
        status =
            fail("%s: its checksum is not the one the Hub has for it, twice; a proxy may change what comes",
                 f->wanted->path);
    } else if (!status && !right) {
        note(d, f->wanted->path, "the checksum is wrong; once more from the start");
        f->again = true;
        f->whole = f->whole || !f->part.continued; /* ranges may have been wrong */
        f->n_hashed = 0;
        f->hashed = false;
        status = partial_reset(&f->part);
        if (!status) set_state(d, f, FILE_FETCHING);
    } else if (!status) {
        status = partial_finish(&f->part, path.data, name.data);
        if (!status) status = cache_link(d->repo_folder, d->commit, f->wanted);
        release(f);
        set_state(d, f, FILE_DONE);
        if (!status) note(d, f->wanted->path, "downloaded and verified");
    }
    str_free(&path);
    str_free(&name);
    return status;
}

/* ---- data ---- */

/* The first bytes of an answer: is it what was asked for? */
static bool check_start(fetch *x, const http_answer *a) {
    download_file *f = x->f;
    x->checked = true;
    if (a->status != 200 && a->status != 206) return true; /* an error page */
    if (a->encoded) {
        x->refused = "the server compressed what must not be compressed";
    } else if (x->ranged && a->status == 200) {
        f->whole = true;
        x->refused = "";
    } else if ((x->ranged && (a->range_first != x->at || a->range_last != x->end - 1 ||
                              a->range_total != f->wanted->size)) ||
               (!x->ranged && a->status == 206)) {
        f->whole = true;
        x->refused = "the server gave another range than was asked for";
    } else
        x->data = f->resolved = true;
    return !x->refused;
}

static bool take_data(void *context, const http_answer *a, const char *data, size_t n) {
    fetch *x = context;
    download_file *f = x->f;
    if (!x->checked && !check_start(x, a)) return false;
    if (!x->data) return (x->page += n) < ERROR_PAGE;
    if ((int64_t)n > x->end - x->at) {
        x->refused = "the server sent more than the file has";
        return false;
    }
    while (n) {
        int64_t piece = x->at / PIECE_BYTES;
        uint32_t have, before = f->part.have[piece];
        int64_t taken = partial_write(&f->part, x->at, data, n, &have);
        if (taken < 0) {
            x->broken = true;
            return false;
        }
        pthread_mutex_lock(&x->d->mutex);
        f->part.have[piece] = have;
        if (have == partial_piece_size(&f->part, piece)) pthread_cond_signal(&x->d->more);
        pthread_mutex_unlock(&x->d->mutex);
        bool note_it =
            have / NOTE_EVERY != before / NOTE_EVERY || have == partial_piece_size(&f->part, piece);
        if (note_it && partial_note(&f->part, piece)) x->broken = true;
        x->fresh += have - before;
        x->d->received += have - before;
        x->at += taken;
        data += taken;
        n -= (size_t)taken;
    }
    return !x->broken;
}

/* ---- starting transfers ---- */

static void put_address(str *url, const download *d, const download_file *f) {
    if (f->location) {
        str_puts(url, f->location);
        return;
    }
    str_printf(url, "%s/%s/resolve/%s/", d->endpoint, d->repo, d->commit);
    for (const char *c = f->wanted->path; *c; c++) {
        if (isalnum((unsigned char)*c) || strchr("-_.~/", *c))
            str_append(url, c, 1);
        else
            str_printf(url, "%%%02X", (unsigned char)*c);
    }
}

static int start(download *d, download_file *f, int64_t piece, http_transfer **slot) {
    fetch *x = calloc(1, sizeof *x);
    if (!x) return fail("no memory for a request");
    *x = (fetch){.d = d, .f = f, .piece = piece, .at = piece * PIECE_BYTES + f->part.have[piece]};
    x->end = piece * PIECE_BYTES + partial_piece_size(&f->part, piece);
    x->ranged = x->at > 0 || x->end < f->wanted->size;
    if (f->whole) {
        x->at = 0;
        x->end = f->wanted->size;
        x->ranged = false;
    }
    str url = {0};
    put_address(&url, d, f);
    http_request request = {.url = url.data,
                            .first = x->ranged ? x->at : -1,
                            .last = x->end - 1,
                            .idle = d->idle,
                            .body = take_data,
                            .context = x};
    *slot = url.failed ? NULL : transport_start(d->t, &request);
    str_free(&url);
    if (!*slot) {
        free(x);
        return -1;
    }
    f->busy[piece] = 1;
    f->active++;
    return 0;
}

/* The next piece of a file that can be asked for now, -1 for none. */
static int64_t next_piece(const download_file *f) {
    if (f->state != FILE_FETCHING || clock_ns() < f->retry_at) return -1;
    if (f->active && (!f->resolved || f->whole)) return -1;
    for (int64_t i = 0; i < f->part.n_pieces; i++)
        if (!f->busy[i] && f->part.have[i] < partial_piece_size(&f->part, i)) return i;
    return -1;
}

/* Fills free slots, files in their order. */
static int start_more(download *d) {
    int slot = 0;
    bool locks = clock_ns() >= d->look_at_locks;
    if (locks) d->look_at_locks = clock_ns() + SECOND / 5;
    if (clock_ns() < d->pause_until) return 0;
    for (int i = 0; i < d->n; i++) {
        download_file *f = &d->files[i];
        while (slot < MOST_TRANSFERS && d->transfers[slot]) slot++;
        if (slot == MOST_TRANSFERS) return 0;
        if (f->state == FILE_WAITING && (locks || !f->told) && begin_file(d, f)) return -1;
        for (int64_t piece; (piece = next_piece(f)) >= 0;) {
            while (slot < MOST_TRANSFERS && d->transfers[slot]) slot++;
            if (slot == MOST_TRANSFERS) return 0;
            if (start(d, f, piece, &d->transfers[slot])) return -1;
        }
    }
    return 0;
}

/* ---- ends of transfers ---- */

static void ask_the_hub_again(download_file *f) {
    free(f->location);
    f->location = NULL;
    f->resolved = false;
    f->redirects = 0;
}

/* Counts a failure and sets the time of the next attempt; the transfers of a file that fail
 * together count once. A network that fails gets its patience back with each new byte; a server
 * that answers wrongly does not. */
static int failure(fetch *x, const char *why) {
    download_file *f = x->f;
    bool wrong = x->refused != NULL;
    if (clock_ns() < f->retry_at) return 0;
    if (x->fresh && !wrong) f->failures = 0;
    f->failures += wrong ? 2 : 1;
    if (f->failures > MOST_FAILURES)
        return fail("cannot download %s: %s; what has come so far is kept for the next time", f->wanted->path,
                    why);
    f->retry_at = clock_ns() + ((SECOND / 4) << (f->failures - 1));
    ask_the_hub_again(f);
    note(x->d, f->wanted->path, why);
    return 0;
}

static int redirect(fetch *x, const http_answer *a) {
    download_file *f = x->f;
    if (!*a->location) return failure(x, "the server redirects to nowhere");
    if (++f->redirects > MOST_REDIRECTS)
        return fail("cannot download %s: the Hub redirects more than %d times", f->wanted->path,
                    MOST_REDIRECTS);
    size_t n = strlen(f->wanted->etag);
    if (strlen(a->etag) == n && hub_is_hex(a->etag, n) && strcmp(a->etag, f->wanted->etag))
        return fail("%s: the Hub gives two hashes for it; try again later", f->wanted->path);
    free(f->location);
    f->location = strdup(a->location);
    f->resolved = false;
    return f->location ? 0 : fail("no memory for a request");
}

static int refused(fetch *x, const http_answer *a) {
    download *d = x->d;
    char why[80];
    bool at_hub = !x->f->location || transport_is_endpoint(d->t, x->f->location);
    if (a->status == 429) {
        long seconds = wait_for_limit(a, &d->waits);
        if (seconds < 0) return -1;
        snprintf(why, sizeof why, "the Hub's rate limit; waiting %ld s", seconds);
        d->pause_until = clock_ns() + seconds * SECOND;
        note(d, x->f->wanted->path, why);
        return 0;
    }
    snprintf(why, sizeof why, "the server answers %d", a->status);
    if (a->status == 416) x->f->whole = true;
    bool proxy = a->status == 407;
    if (status_may_pass(a->status) || a->status == 416 || (!at_hub && !proxy)) return failure(x, why);
    return fail_answer(a, d->endpoint, d->repo, x->f->wanted->path);
}

static int end_transfer(fetch *x, const http_transfer *t) {
    download_file *f = x->f;
    const http_answer *a = &t->answer;
    f->active--;
    f->busy[x->piece] = 0;
    if (x->broken) return -1;
    for (int64_t i = 0; i < (f->whole ? f->part.n_pieces : 0); i++)
        if (partial_note(&f->part, i)) return -1;
    if (!f->whole && partial_note(&f->part, x->piece)) return -1;
    if (t->end == HTTP_FATAL) return fail("cannot download %s: %s", f->wanted->path, t->why);
    if (t->end == HTTP_TRANSIENT) return failure(x, t->why);
    if (x->refused) return *x->refused ? failure(x, x->refused) : 0;
    if (a->status >= 300 && a->status < 400) return redirect(x, a);
    if (a->status != 200 && a->status != 206) return refused(x, a);
    if (x->at < x->end) return failure(x, "the server sent less than the file has");
    f->failures = 0;
    return 0;
}

/* Takes an ended transfer out of its slot. */
static int collect(download *d, http_transfer *t) {
    fetch *x = t->context;
    for (int i = 0; i < MOST_TRANSFERS; i++)
        if (d->transfers[i] == t) d->transfers[i] = NULL;
    int status = end_transfer(x, t);
    transfer_free(d->t, t);
    free(x);
    return status;
}

/* ---- the whole ---- */

static int check_space(const download *d) {
    struct statvfs disk;
    int64_t need = 0;
    for (int i = 0; i < d->n; i++) {
        const repo_file *f = d->files[i].wanted;
        str path = {0};
        cache_blob(&path, d->repo_folder, f->etag);
        if (path.failed || !file_exists(path.data)) need += f->size - cache_begun(d->repo_folder, f);
        str_free(&path);
    }
    if (!need || statvfs(d->repo_folder, &disk)) return 0;
    int64_t there = (int64_t)disk.f_bavail * (int64_t)disk.f_frsize;
    if (there >= need) return 0;
    return fail("%s needs %.2f GB more, and the disk of %s has %.2f GB left; make room (mlxbench models "
                "--remove), or "
                "set HF_HUB_CACHE to another disk",
                d->repo, (double)need / 1e9, d->repo_folder, (double)there / 1e9);
}

/* Has the hashing thread done with a file? Then it is no longer that thread's. */
static bool take_hashed(download *d, download_file *f) {
    if (f->state != FILE_FETCHING || f->active) return false;
    pthread_mutex_lock(&d->mutex);
    bool hashed = f->hashed;
    if (hashed) f->state = FILE_HASHED;
    pthread_mutex_unlock(&d->mutex);
    return hashed;
}

/* Finishes files whose hash is known; returns how many are done, or -1. */
static int finish_files(download *d) {
    int done = 0;
    pthread_mutex_lock(&d->mutex);
    bool failed = d->hash_failed;
    pthread_mutex_unlock(&d->mutex);
    if (failed) return fail("a download can't be read back to check it");
    for (int i = 0; i < d->n; i++) {
        if (take_hashed(d, &d->files[i]) && finish_file(d, &d->files[i])) return -1;
        done += d->files[i].state == FILE_DONE;
    }
    return done;
}

static int loop(download *d) {
    for (;;) {
        if (interrupted()) return fail_interrupted();
        int done = finish_files(d);
        if (done < 0 || done == d->n) return done < 0 ? -1 : 0;
        if (start_more(d)) return -1;
        http_transfer *t = transport_step(d->t, 100);
        for (; t; t = transport_step(d->t, 0))
            if (collect(d, t)) return -1;
        show(d, NULL);
    }
}

static void stop(download *d) {
    pthread_mutex_lock(&d->mutex);
    d->stop = true;
    pthread_cond_signal(&d->more);
    pthread_mutex_unlock(&d->mutex);
    pthread_join(d->hasher, NULL);
    for (int i = 0; i < MOST_TRANSFERS; i++) {
        if (!d->transfers[i]) continue;
        fetch *x = d->transfers[i]->context;
        x->f->active--;
        transfer_free(d->t, d->transfers[i]);
        free(x);
    }
    for (int i = 0; i < d->n; i++) {
        download_file *f = &d->files[i];
        hash_free(f->hash);
        f->hash = NULL;
        release(f);
    }
}

int download_run(download *d) {
    for (int i = 0; i < d->n; i++) d->files[i].lock = d->files[i].part.fd = -1;
    d->idle = places_seconds("HF_HUB_DOWNLOAD_TIMEOUT", 10);
    if (check_space(d)) return -1;
    pthread_mutex_init(&d->mutex, NULL);
    pthread_cond_init(&d->more, NULL);
    if (pthread_create(&d->hasher, NULL, download_hash, d)) return fail("cannot start a thread");
    int status = loop(d);
    if (!status) show(d, NULL);
    stop(d);
    pthread_cond_destroy(&d->more);
    pthread_mutex_destroy(&d->mutex);
    return status;
}
