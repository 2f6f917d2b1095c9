/* partial.c - bytes, then a table: "mlxbench", the size of a piece, a number for each piece.
 * A piece's bytes are written before its number, so a killed process leaves nothing that is claimed
 * falsely; what a power failure does is found by the hash. */
#include "hub/partial.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct table_head {
    char magic[8];
    uint32_t piece_bytes, n_pieces;
} table_head;

static table_head head_of(const partial *p) {
    return (table_head){{'m', 'l', 'x', 'b', 'e', 'n', 'c', 'h'}, PIECE_BYTES, (uint32_t)p->n_pieces};
}

int64_t partial_piece_size(const partial *p, int64_t piece) {
    int64_t rest = p->size - piece * PIECE_BYTES;
    return rest < PIECE_BYTES ? rest : PIECE_BYTES;
}

int64_t partial_have(const partial *p) {
    int64_t bytes = 0;
    for (int64_t i = 0; i < p->n_pieces; i++) bytes += p->have[i];
    return bytes;
}

/* Writes all of it, at an offset. */
static int put(const partial *p, const void *data, size_t n, int64_t at) {
    const char *from = data;
    while (n) {
        ssize_t written = pwrite(p->fd, from, n, (off_t)at);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0 && (errno == ENOSPC || errno == EDQUOT))
            return fail("the disk is full (what has come so far is kept): %s", strerror(errno));
        if (written <= 0) return fail("cannot write the download: %s", strerror(errno));
        from += written;
        n -= (size_t)written;
        at += written;
    }
    return 0;
}

/* Takes over the table of what was begun. False when it is none of this file. */
static bool read_table(partial *p) {
    table_head head, wanted = head_of(p);
    size_t n = (size_t)p->n_pieces * sizeof *p->have;
    if (pread(p->fd, &head, sizeof head, (off_t)p->size) != (ssize_t)sizeof head) return false;
    if (memcmp(&head, &wanted, sizeof head)) return false;
    if (pread(p->fd, p->have, n, (off_t)(p->size + (int64_t)sizeof head)) != (ssize_t)n) return false;
    for (int64_t i = 0; i < p->n_pieces; i++)
        if (p->have[i] > partial_piece_size(p, i)) return false;
    return true;
}

int partial_reset(partial *p) {
    table_head head = head_of(p);
    memset(p->have, 0, (size_t)p->n_pieces * sizeof *p->have);
    if (ftruncate(p->fd, 0)) return fail("cannot write the download: %s", strerror(errno));
    if (put(p, p->have, (size_t)p->n_pieces * sizeof *p->have, p->size + (int64_t)sizeof head)) return -1;
    return put(p, &head, sizeof head, p->size);
}

/* Of a file without a table: bytes from its start up to its end or its first hole. */
static int64_t contiguous(const partial *p, int64_t size) {
#ifdef SEEK_HOLE
    off_t hole = lseek(p->fd, 0, SEEK_HOLE);
    if (hole >= 0 && hole < size) return hole;
#endif
    return size;
}

/* What is there came from elsewhere, in order: the first bytes of the file. */
static int take_beginning(partial *p, int64_t bytes) {
    table_head head = head_of(p);
    p->continued = bytes > 0;
    for (int64_t i = 0; i < p->n_pieces && bytes > 0; i++, bytes -= PIECE_BYTES)
        p->have[i] = (uint32_t)(bytes < partial_piece_size(p, i) ? bytes : partial_piece_size(p, i));
    if (put(p, p->have, (size_t)p->n_pieces * sizeof *p->have, p->size + (int64_t)sizeof head)) return -1;
    return put(p, &head, sizeof head, p->size);
}

int partial_open(partial *p, const char *path, int64_t size) {
    struct stat info;
    *p = (partial){.fd = -1, .size = size, .n_pieces = (size + PIECE_BYTES - 1) / PIECE_BYTES};
    p->have = calloc((size_t)p->n_pieces + 1, sizeof *p->have);
    if (!p->have) return fail("no memory for a download");
    p->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (p->fd < 0 || fstat(p->fd, &info)) return fail("cannot write %s: %s", path, strerror(errno));
    if (size && info.st_size == size) { /* killed between the last two steps: the hash will tell */
        for (int64_t i = 0; i < p->n_pieces; i++) p->have[i] = (uint32_t)partial_piece_size(p, i);
        p->continued = true;
        return 0;
    }
    if (info.st_size < size) return take_beginning(p, contiguous(p, info.st_size));
    p->continued = info.st_size > size && read_table(p);
    return p->continued ? 0 : partial_reset(p);
}

void partial_close(partial *p) {
    if (p->fd >= 0) {
        table_head head = head_of(p);
        size_t n = (size_t)p->n_pieces * sizeof *p->have;
        /* without fail(): why the download ends is recorded already, and what is lost comes
         * again */
        bool kept = pwrite(p->fd, p->have, n, (off_t)(p->size + (int64_t)sizeof head)) == (ssize_t)n &&
                    pwrite(p->fd, &head, sizeof head, (off_t)p->size) == (ssize_t)sizeof head;
        (void)kept;
        close(p->fd);
    }
    free(p->have);
    *p = (partial){.fd = -1};
}

int64_t partial_write(partial *p, int64_t at, const char *data, size_t n, uint32_t *have) {
    int64_t piece = at / PIECE_BYTES, offset = at % PIECE_BYTES, room = partial_piece_size(p, piece) - offset;
    size_t take = (int64_t)n < room ? n : (size_t)room;
    *have = p->have[piece];
    if (offset < *have) { /* of these, some are there */
        size_t there = (size_t)(*have - offset);
        return (int64_t)(there < take ? there : take);
    }
    if (put(p, data, take, at)) return -1;
    *have = (uint32_t)(offset + (int64_t)take);
    return (int64_t)take;
}

int partial_note(partial *p, int64_t piece) {
    int64_t at = p->size + (int64_t)sizeof(table_head) + piece * (int64_t)sizeof *p->have;
    return put(p, &p->have[piece], sizeof *p->have, at);
}

int partial_finish(partial *p, const char *path, const char *name) {
    /* on the disk before it has its name: after a power failure nobody takes for whole what is
     * not */
    if (ftruncate(p->fd, (off_t)p->size) || fsync(p->fd) || rename(path, name))
        return fail("cannot write %s: %s", name, strerror(errno));
    close(p->fd);
    p->fd = -1;
    return 0;
}
