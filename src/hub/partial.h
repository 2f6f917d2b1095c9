/* partial.h - a file that is being downloaded: its bytes, and which of them are there.
 * It is as long as the file, with holes, and has a table of its pieces after that; so it survives a
 * kill at any moment, can be filled from several places at once, and can't be taken for the whole
 * file. */
#ifndef HUB_PARTIAL_H
#define HUB_PARTIAL_H

#include "base/base.h"

enum { PIECE_BYTES = 16 << 20 };

typedef struct partial {
    int fd; /* -1: not open */
    int64_t size, n_pieces;
    uint32_t *have; /* bytes that each piece has, from its start */
    bool continued; /* there was something already */
} partial;

/* Opens what was begun at path, or begins it. What is there without a table, and shorter than the
 * file, is taken for its beginning, up to the first hole. -1 with a message. */
int partial_open(partial *p, const char *path, int64_t size);

/* Puts the table on the disk, and closes it. Harmless when it is not open. */
void partial_close(partial *p);

int64_t partial_piece_size(const partial *p, int64_t piece);
int64_t partial_have(const partial *p); /* bytes in all */

/* Writes bytes that belong at an offset, into the piece's `have`: bytes that are there already are
 * skipped. The caller sees to it that nothing is left out. Takes up to the end of the piece,
 * returns how many bytes; -1 with a message. Only `have` of this piece changes, and it is the
 * caller's business who reads it meanwhile. */
int64_t partial_write(partial *p, int64_t at, const char *data, size_t n, uint32_t *have);

/* Puts the number of a piece's bytes on the disk. */
int partial_note(partial *p, int64_t piece);

/* Forgets all bytes. */
int partial_reset(partial *p);

/* The file is whole and right: takes the table away, gives it its name, and closes it. */
int partial_finish(partial *p, const char *path, const char *name);

#endif
