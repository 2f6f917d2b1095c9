/* str.h - a growable byte string, for output text and decoded tokens.
 * Any failure to grow is remembered, so a caller appends freely and checks once at the end. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Zero-initialise: str s = {0}. data is NUL-terminated once anything was appended; it may hold NUL
 * bytes inside. */
typedef struct str {
    char *data;
    size_t length, capacity;
    bool failed; /* an append ran out of memory or beyond STR_MOST; the error is recorded */
} str;

/* Bytes in a str, at most: far above any text that is meant, far below what would take a machine's
 * memory. A hostile tokenizer can make 8^12 bytes of one letter. */
enum { STR_MOST = 1 << 28 };

void str_append(str *s, const char *text, size_t n);
void str_puts(str *s, const char *text);
void str_printf(str *s, const char *format, ...) PRINTF_LIKE(2, 3);
void str_clear(str *s); /* keeps the memory */
void str_free(str *s);

/* Makes foreign text - names from a file, a server, the command line - fit for one line of a
 * terminal, in place: control characters (U+0000 to U+001F, U+007F to U+009F) become spaces, bytes
 * that are no UTF-8 become question marks. Error messages go through it by themselves. */
void make_printable(char *text);

/* Appends text, made printable. */
void str_put_printable(str *s, const char *text);

/* Insertions, deletions and substitutions that turn a into b, for "did you mean"; of each the first
 * 128 bytes count. */
size_t edit_distance(const char *a, const char *b);

#endif
