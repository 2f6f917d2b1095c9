/* arena.c - a list of blocks, freed together.
 * Blocks grow with the arena, so a tokenizer's 100,000 strings cost a few dozen mallocs. */
#include "base/base.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct block {
    struct block *next;
    size_t used, size;
    max_align_t data[];
} block;

struct arena {
    block *blocks;
    size_t next_size;
};

enum { FIRST_BLOCK = 4096, LARGEST_BLOCK = 1 << 20 };

void *mem_new(size_t n, size_t size, const char *what) {
    void *memory = calloc(n ? n : 1, size ? size : 1); /* calloc checks n * size */
    if (!memory) fail_memory("out of memory: %zu x %zu bytes for %s", n, size, what);
    return memory;
}

int mem_resize(void **items, size_t n, size_t size, const char *what) {
    void *moved = size && n > SIZE_MAX / size ? NULL : realloc(*items, n && size ? n * size : 1);
    if (!moved) return fail_memory("out of memory: %zu x %zu bytes for %s", n, size, what);
    *items = moved;
    return 0;
}

arena *arena_new(void) {
    arena *a = mem_new(1, sizeof *a, "an arena");
    if (a) a->next_size = FIRST_BLOCK;
    return a;
}

void arena_free(arena *a) {
    if (!a) return;
    for (block *b = a->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(a);
}

void *arena_alloc(arena *a, size_t size) {
    const size_t unit = sizeof(max_align_t);
    if (size > SIZE_MAX / 2) return fail_null("out of memory: %zu bytes", size);
    size = (size + unit - 1) / unit * unit;
    block *b = a->blocks;
    if (!b || b->size - b->used < size) {
        size_t room = size > a->next_size ? size : a->next_size;
        b = mem_new(1, sizeof *b + room, "load-time data");
        if (!b) return NULL;
        b->size = room;
        b->next = a->blocks;
        a->blocks = b;
        if (a->next_size < LARGEST_BLOCK) a->next_size *= 2;
    }
    void *memory = (char *)b->data + b->used;
    b->used += size;
    return memory;
}

char *arena_string_n(arena *a, const char *text, size_t n) {
    char *copy = arena_alloc(a, n + 1);
    if (copy) memcpy(copy, text, n);
    return copy;
}

char *arena_string(arena *a, const char *text) {
    return arena_string_n(a, text, strlen(text));
}

char *arena_printf(arena *a, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    char *text = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1);
    if (text) vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    va_end(args);
    return text;
}
