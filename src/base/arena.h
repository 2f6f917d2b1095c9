/* arena.h - memory that is freed all at once, and checked allocation.
 * Load-time data (configurations, names, tables) lives in an arena, so no one frees its parts one
 * by one. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>

#include "base/error.h"

/* Zero-filled memory of n * size bytes, freed with free(). NULL with a recorded error when there is
 * none; what says for the message what it was for. Overflow of n * size is such an error. */
void *mem_new(size_t n, size_t size, const char *what);

/* As realloc on an array of elements of the given size: *items may move. Returns -1 and leaves it
 * when out of memory. */
int mem_resize(void **items, size_t n, size_t size, const char *what);

typedef struct arena arena;

/* A new, empty arena; NULL when out of memory. arena_free(NULL) does nothing. */
arena *arena_new(void);
void arena_free(arena *a);

/* Zero-filled memory, aligned for any type, that lives as long as the arena. NULL when out of
 * memory. */
void *arena_alloc(arena *a, size_t size);

/* Copies of a string, of n bytes of it (terminated), and of a formatted string. NULL when out of
 * memory. */
char *arena_string(arena *a, const char *text);
char *arena_string_n(arena *a, const char *text, size_t n);
char *arena_printf(arena *a, const char *format, ...) PRINTF_LIKE(2, 3);

#endif
