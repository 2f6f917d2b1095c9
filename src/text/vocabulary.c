/* vocabulary.c - an array of tokens by id and a hash table over it.
 * Open addressing with ids as slots: 4 bytes per slot, and one compare against the token's own
 * text. */
#include "text/pipeline.h"

#include <stdlib.h>
#include <string.h>

enum { LARGEST_ID = (1 << 22) - 1, FIRST_SLOTS = 1 << 10 };

int vocabulary_init(vocabulary *v) {
    v->arena = arena_new();
    v->n_slots = FIRST_SLOTS;
    v->slots = mem_new(v->n_slots, sizeof *v->slots, "the vocabulary");
    if (!v->arena || !v->slots) return -1;
    memset(v->slots, 0xff, v->n_slots * sizeof *v->slots);
    return 0;
}

void vocabulary_free(vocabulary *v) {
    arena_free(v->arena);
    free(v->tokens);
    free(v->slots);
    *v = (vocabulary){0};
}

static uint64_t hash_text(const char *text, size_t length) {
    uint64_t h = length * 0x9e3779b97f4a7c15u;
    for (; length >= 8; text += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, text, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    uint64_t rest = 0;
    for (size_t i = 0; i < length; i++) rest = rest << 8 | (unsigned char)text[i];
    h = (h ^ rest) * 0xff51afd7ed558ccdu;
    return h ^ h >> 32;
}

/* The slot that holds the text, or the empty one where it belongs. */
static size_t find_slot(const vocabulary *v, const char *text, size_t length) {
    size_t slot = hash_text(text, length) & (v->n_slots - 1);
    for (; v->slots[slot] >= 0; slot = (slot + 1) & (v->n_slots - 1)) {
        const token *t = &v->tokens[v->slots[slot]];
        if (t->length == length && !memcmp(t->text, text, length)) break;
    }
    return slot;
}

int32_t vocabulary_find(const vocabulary *v, const char *text, size_t length) {
    return v->slots[find_slot(v, text, length)];
}

/* Doubles the table when it is half full. */
static int grow_slots(vocabulary *v) {
    if (2 * v->n_indexed < v->n_slots) return 0;
    int32_t *old = v->slots;
    size_t n_old = v->n_slots;
    int32_t *slots = mem_new(2 * n_old, sizeof *slots, "the vocabulary");
    if (!slots) return -1;
    memset(slots, 0xff, 2 * n_old * sizeof *slots);
    v->slots = slots;
    v->n_slots = 2 * n_old;
    for (size_t i = 0; i < n_old; i++) {
        if (old[i] < 0) continue;
        const token *t = &v->tokens[old[i]];
        slots[find_slot(v, t->text, t->length)] = old[i];
    }
    free(old);
    return 0;
}

static int grow_tokens(vocabulary *v, int64_t id) {
    if (id < v->capacity) return 0;
    int64_t capacity = v->capacity ? v->capacity : 1024;
    while (capacity <= id) capacity *= 2;
    void *tokens = v->tokens;
    if (mem_resize(&tokens, (size_t)capacity, sizeof *v->tokens, "the vocabulary")) return -1;
    v->tokens = tokens;
    memset(v->tokens + v->capacity, 0, (size_t)(capacity - v->capacity) * sizeof *v->tokens);
    v->capacity = capacity;
    return 0;
}

int vocabulary_put(vocabulary *v, const char *text, size_t length, double id, bool indexed,
                   const char *name) {
    if (!(id >= 0 && id <= LARGEST_ID) || id != (double)(int32_t)id)
        return fail("%s: token \"%.80s\" has the id %g; ids are whole numbers from 0 to %d", name, text, id,
                    LARGEST_ID);
    int32_t i = (int32_t)id;
    if (length > UINT32_MAX) return fail("%s: token %d is too long", name, i);
    if (grow_tokens(v, i) || grow_slots(v)) return -1;
    if (v->tokens[i].text)
        return fail("%s: id %d is given to both \"%.80s\" and \"%.80s\"", name, i, v->tokens[i].text, text);
    size_t slot = find_slot(v, text, length);
    if (indexed && v->slots[slot] >= 0)
        return fail("%s: token \"%.80s\" has two ids, %d and %d", name, text, v->slots[slot], i);
    const char *copy = arena_string_n(v->arena, text, length);
    if (!copy) return -1;
    v->tokens[i] = (token){.text = copy, .length = (uint32_t)length};
    if (i >= v->size) v->size = i + 1;
    if (indexed) {
        v->slots[slot] = i;
        v->n_indexed++;
    }
    return 0;
}
