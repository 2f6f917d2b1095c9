/* str.c - growth by doubling, failure remembered.
 * See str.h for why appends return nothing. */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(str *s, size_t extra) {
    if (s->failed) return false;
    if (extra >= STR_MOST - s->length) {
        fail("a text of more than %d bytes", STR_MOST);
        s->failed = true;
        return false;
    }
    size_t need = s->length + extra + 1;
    if (need <= s->capacity) return true;
    size_t capacity = s->capacity ? s->capacity : 64;
    while (capacity < need) capacity *= 2;
    void *data = s->data;
    if (mem_resize(&data, capacity, 1, "text")) {
        s->failed = true;
        return false;
    }
    s->data = data;
    s->capacity = capacity;
    return true;
}

void str_append(str *s, const char *text, size_t n) {
    if (!reserve(s, n)) return;
    if (n) memcpy(s->data + s->length, text, n);
    s->length += n;
    s->data[s->length] = '\0';
}

void str_puts(str *s, const char *text) {
    str_append(s, text, strlen(text));
}

void str_printf(str *s, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n >= 0 && reserve(s, (size_t)n)) {
        vsnprintf(s->data + s->length, (size_t)n + 1, format, again);
        s->length += (size_t)n;
    }
    va_end(again);
    va_end(args);
}

void str_clear(str *s) {
    s->length = 0;
    if (s->data) s->data[0] = '\0';
}

void str_free(str *s) {
    free(s->data);
    *s = (str){0};
}

/* Bytes of the UTF-8 character at c: 0 when it is none. */
static size_t character_length(const unsigned char *c) {
    size_t n = *c < 0x80                 ? 1
               : *c >= 0xc2 && *c < 0xe0 ? 2
               : (*c & 0xf0) == 0xe0     ? 3
               : *c >= 0xf0 && *c < 0xf5 ? 4
                                         : 0;
    for (size_t i = 1; i < n; i++)
        if ((c[i] & 0xc0) != 0x80) return 0;
    return n;
}

void make_printable(char *text) {
    for (unsigned char *c = (unsigned char *)text; *c;) {
        size_t n = character_length(c);
        if (!n)
            *c = '?';
        else if (*c < ' ' || *c == 127)
            *c = ' ';
        else if (*c == 0xc2 && c[1] < 0xa0) /* a terminal takes U+009B for the start of a command */
            c[0] = c[1] = ' ';
        c += n ? n : 1;
    }
}

void str_put_printable(str *s, const char *text) {
    size_t start = s->length;
    str_puts(s, text);
    if (!s->failed) make_printable(s->data + start);
}

enum { LONGEST_WORD = 128 };

size_t edit_distance(const char *a, const char *b) {
    size_t n = strnlen(a, LONGEST_WORD), m = strnlen(b, LONGEST_WORD), row[LONGEST_WORD + 1];
    for (size_t j = 0; j <= m; j++) row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[m];
}
