/* copy.c - a file that is complete after each write: where its text, its parts and its closing
 * stand. Who reads it while it is written may see half of a write; file.c sees to that.
 */
#include "report/copy.h"

#include <errno.h>
#include <unistd.h>

static int put(const out_copy *c, const char *text, size_t n, int64_t at) {
    while (n) {
        ssize_t done = pwrite(c->fd, text, n, at);
        if (done < 0 && errno != EINTR) return -1;
        if (done <= 0) continue;
        at += done;
        text += done;
        n -= (size_t)done;
    }
    return 0;
}

/* n bytes that mean nothing in any format: blanks and the end of a line. */
static int put_gap(const out_copy *c, int64_t n, int64_t at) {
    char blanks[4096];
    memset(blanks, ' ', sizeof blanks);
    for (; n > (int64_t)sizeof blanks; n -= (int64_t)sizeof blanks, at += (int64_t)sizeof blanks)
        if (put(c, blanks, sizeof blanks, at)) return -1;
    if (n > 0) blanks[n - 1] = '\n';
    return put(c, blanks, (size_t)n, at);
}

/* What stands in `from` between two places goes to c, to the same places. */
static int put_bytes(const out_copy *c, int from, int64_t at, int64_t end) {
    char bytes[1 << 16];
    while (at < end) {
        int64_t n = end - at;
        ssize_t got = pread(from, bytes, n < (int64_t)sizeof bytes ? (size_t)n : sizeof bytes, at);
        if (got < 0 && errno == EINTR) continue;
        if (!got) errno = EIO; /* someone made it shorter */
        if (got <= 0 || put(c, bytes, (size_t)got, at)) return -1;
        at += got;
    }
    return 0;
}

static int count_parts(const out_tail *tail) {
    int n = tail->parts ? MAX_PARTS : 0;
    while (n && !tail->parts[n - 1].length) n--;
    return n;
}

bool out_tail_is_empty(const out_tail *tail) {
    return !count_parts(tail) && !tail->closing.length;
}

/* Has each thing the place that it needs, with a text of `length` bytes? */
static bool fits(const out_copy *c, int64_t length, const out_tail *tail, int n) {
    if (tail->last || c->n != n) return false;
    for (int i = 0; i < n; i++) {
        if (length > c->at[i]) return false;
        length = c->at[i] + (int64_t)tail->parts[i].length;
    }
    return true;
}

/* A gap after the text as long as all parts, and after a part as long as it: so it takes as much
 * text as they have until they are written again, and all of that together is no more than the
 * text. */
static int64_t gap_before(const out_tail *tail, int part, int n, int64_t length) {
    int64_t gap = 0;
    if (tail->last || !length) return 0;
    if (part) return (int64_t)tail->parts[part - 1].length;
    for (int i = 0; i < n; i++) gap += (int64_t)tail->parts[i].length;
    return gap;
}

static int lay_out(out_copy *c, const out_tail *tail, int n) {
    int64_t at = c->length;
    c->n = n;
    for (int i = 0; i < n; i++) {
        int64_t gap = gap_before(tail, i, n, at);
        if (put_gap(c, gap, at)) return -1;
        c->at[i] = at + gap;
        c->has[i] = 0;
        at = c->at[i] + (int64_t)tail->parts[i].length;
    }
    return 0;
}

int out_copy_write(out_copy *c, const out_copy *from, const str *text, const out_tail *tail) {
    int n = count_parts(tail);
    int64_t end = (from ? from->length : c->length) + (int64_t)text->length;
    bool as_it_is = fits(c, end, tail, n);
    if (from && put_bytes(c, from->fd, c->length, from->length)) return -1;
    if (put(c, text->data, text->length, end - (int64_t)text->length)) return -1;
    c->length = end;
    if (!as_it_is && lay_out(c, tail, n)) return -1;
    for (int i = 0; i < n; i++) {
        const str *part = &tail->parts[i];
        if (put(c, part->data + c->has[i], part->length - (size_t)c->has[i], c->at[i] + c->has[i])) return -1;
        c->has[i] = (int64_t)part->length;
        end = c->at[i] + c->has[i];
    }
    if (put(c, tail->closing.data, tail->closing.length, end)) return -1;
    end += (int64_t)tail->closing.length;
    if (end < c->end && ftruncate(c->fd, end)) return -1;
    c->end = end;
    return 0;
}

int out_copy_move(out_copy *c, int fd) {
    out_copy moved = *c;
    moved.fd = fd;
    if (put_bytes(&moved, c->fd, 0, c->end)) return -1;
    close(c->fd);
    *c = moved;
    return 0;
}
