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
