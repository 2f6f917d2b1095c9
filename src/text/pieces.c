/* pieces.c - a text and where its pieces end.
 * Steps read one and write another, so no step needs to know what the others changed. */
#include "text/pipeline.h"

#include <stdlib.h>

void pieces_clear(pieces *p) {
    str_clear(&p->text);
    p->n = 0;
}

void pieces_free(pieces *p) {
    str_free(&p->text);
    free(p->ends);
    *p = (pieces){0};
}

void pieces_close(pieces *p) {
    size_t start = p->n ? p->ends[p->n - 1] : 0;
    if (p->text.failed || p->text.length == start) return;
    if (p->n == p->capacity) {
        size_t capacity = p->capacity ? 2 * p->capacity : 64;
        void *ends = p->ends;
        if (mem_resize(&ends, capacity, sizeof *p->ends, "pieces of text")) {
            p->text.failed = true;
            return;
        }
        p->ends = ends;
        p->capacity = capacity;
    }
    p->ends[p->n++] = p->text.length;
}

void pieces_add(pieces *p, const char *text, size_t n) {
    str_append(&p->text, text, n);
    pieces_close(p);
}
