/* added.c - finds added tokens in text: the leftmost, of those the longest.
 * The tokens are sorted, so each further byte narrows a range of them; most positions fail on their
 * first byte. */
#include "text/pipeline.h"

#include <stdlib.h>
#include <string.h>

int added_tokens_add(added_tokens *set, const added_token *item) {
    if (set->n == set->capacity) {
        size_t capacity = set->capacity ? 2 * set->capacity : 64;
        void *items = set->items;
        if (mem_resize(&items, capacity, sizeof *item, "added tokens")) return -1;
        set->items = items;
        set->capacity = capacity;
    }
    set->items[set->n] = *item;
    set->items[set->n].order = (int32_t)set->n;
    set->n++;
    set->first_bytes[(unsigned char)item->text[0]] = true;
    return 0;
}

/* By bytes; equal ones in the order they were given, because the first of them wins. */
static int compare(const void *a, const void *b) {
    const added_token *x = a, *y = b;
    size_t shorter = x->length < y->length ? x->length : y->length;
    int order = memcmp(x->text, y->text, shorter);
    if (order) return order;
    if (x->length != y->length) return x->length < y->length ? -1 : 1;
    return x->order - y->order;
}

void added_tokens_sort(added_tokens *set) {
    if (set->n) qsort(set->items, set->n, sizeof *set->items, compare);
}

void added_tokens_free(added_tokens *set) {
    free(set->items);
}

/* First item in [low, high) whose byte at depth is at least `byte`; they share the bytes before it
 * and are all longer than depth. */
static size_t lower_bound(const added_tokens *set, size_t low, size_t high, size_t depth, int byte) {
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)set->items[middle].text[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest token that text begins with, or NULL. */
static const added_token *longest_prefix(const added_tokens *set, const char *text, size_t n) {
    const added_token *best = NULL;
    size_t low = 0, high = set->n;
    for (size_t depth = 0; depth < n && low < high; depth++) {
        int byte = (unsigned char)text[depth];
        low = lower_bound(set, low, high, depth, byte);
        high = lower_bound(set, low, high, depth, byte + 1);
        if (low < high && set->items[low].length == depth + 1) {
            best = &set->items[low];
            while (low < high && set->items[low].length == depth + 1)
                low++; /* they have no byte further on */
        }
    }
    return best;
}

/* The character that ends at byte n, or begins at text; -1 when there is none. */
static int32_t char_before(const char *text, size_t n, size_t *length) {
    int32_t c = -1;
    size_t start = n;
    while (start && ((unsigned char)text[--start] & 0xc0) == 0x80) {
    }
    if (n) utf8_decode(text + start, n - start, &c);
    *length = n - start;
    return c;
}

static int32_t char_after(const char *text, size_t n, size_t *length) {
    int32_t c = -1;
    *length = n ? utf8_decode(text, n, &c) : 0;
    return c;
}

static bool is_word_at(const char *text, size_t n, size_t start, size_t end) {
    size_t length;
    int32_t before = char_before(text, start, &length), after = char_after(text + end, n - end, &length);
    return (before < 0 || !char_is_word(before)) && (after < 0 || !char_is_word(after));
}

bool added_tokens_next(const added_tokens *set, const char *text, size_t n, added_match *m) {
    size_t last_end = m->end, length;
    for (size_t i = m->resume; i < n && set->n; i++) {
        const added_token *found =
            set->first_bytes[(unsigned char)text[i]] ? longest_prefix(set, text + i, n - i) : NULL;
        if (!found) continue;
        *m =
            (added_match){.start = i, .end = i + found->length, .id = found->id, .resume = i + found->length};
        if (found->single_word && !is_word_at(text, n, m->start, m->end)) {
            i = m->resume - 1; /* a refused match still hides those that overlap it */
            continue;
        }
        if (found->lstrip)
            while (m->start > last_end && char_is_space(char_before(text, m->start, &length)))
                m->start -= length;
        if (found->rstrip)
            while (char_is_space(char_after(text + m->end, n - m->end, &length))) m->end += length;
        return true;
    }
    return false;
}
