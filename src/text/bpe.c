/* bpe.c - byte-pair encoding of one word: merge the neighbours of lowest rank until none is left.
 * A linked list of symbols and a heap of candidate merges: O(n log n), so a megabyte without spaces
 * is no trap. Source of the semantics: Hugging Face tokenizers, models/bpe. */
#include "text/pipeline.h"

#include <stdlib.h>
#include <string.h>

typedef struct symbol {
    int32_t id;         /* -1: merged into its left neighbour */
    int32_t prev, next; /* -1: none */
} symbol;

typedef struct candidate {
    int32_t rank, position; /* position of the left symbol */
    int32_t result;
} candidate;

/* ---- the table of merges ---- */

static size_t merge_slot(const bpe *b, int32_t left, int32_t right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    size_t slot = (h ^ h >> 32) & (b->n_slots - 1);
    while (b->merges[slot].rank >= 0 && (b->merges[slot].left != left || b->merges[slot].right != right))
        slot = (slot + 1) & (b->n_slots - 1);
    return slot;
}

int bpe_init(bpe *b, const vocabulary *v, int64_t n_merges) {
    if (n_merges < 0 || n_merges > INT32_MAX / 4)
        return fail("%lld merges are too many", (long long)n_merges);
    b->vocabulary = v;
    for (b->n_slots = 16; b->n_slots < 2 * (size_t)n_merges; b->n_slots *= 2) {
    }
    b->merges = mem_new(b->n_slots, sizeof *b->merges, "merges");
    if (!b->merges) return -1;
    for (size_t i = 0; i < b->n_slots; i++) b->merges[i].rank = -1;
    char text[8];
    for (int32_t c = 0; c < BPE_DIRECT_CHARS; c++)
        b->chars[c] = vocabulary_find(v, text, utf8_encode(c, text));
    for (unsigned byte = 0; byte < 256; byte++) {
        snprintf(text, sizeof text, "<0x%02X>", byte);
        b->bytes[byte] = vocabulary_find(v, text, 6);
    }
    return 0;
}

int bpe_add_merge(bpe *b, int32_t rank, const char *left, size_t n_left, const char *right, size_t n_right,
                  const char *name) {
    const vocabulary *v = b->vocabulary;
    merge m = {
        .left = vocabulary_find(v, left, n_left), .right = vocabulary_find(v, right, n_right), .rank = rank};
    str whole = {0};
    str_append(&whole, left, n_left);
    str_append(&whole, right, n_right);
    m.result = whole.failed ? -1 : vocabulary_find(v, whole.data, whole.length);
    str_free(&whole);
    if (m.left < 0 || m.right < 0 || m.result < 0)
        return fail("%s: merge %d (\"%.*s\" + \"%.*s\") is of tokens that are not in the vocabulary", name,
                    rank, (int)(n_left < 80 ? n_left : 80), left, (int)(n_right < 80 ? n_right : 80), right);
    b->merges[merge_slot(b, m.left, m.right)] = m; /* of two equal ones the later counts */
    return 0;
}

void bpe_free(bpe *b) {
    free(b->merges);
}

/* ---- encoding ---- */

static bool comes_before(const candidate *a, const candidate *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->position < b->position;
}

static void heap_push(bpe_scratch *s, candidate c) {
    size_t i = s->heap_n++;
    for (; i && comes_before(&c, &s->heap[(i - 1) / 2]); i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = c;
}

static candidate heap_pop(bpe_scratch *s) {
    candidate top = s->heap[0], last = s->heap[--s->heap_n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < s->heap_n; i = child) {
        if (child + 1 < s->heap_n && comes_before(&s->heap[child + 1], &s->heap[child])) child++;
        if (!comes_before(&s->heap[child], &last)) break;
        s->heap[i] = s->heap[child];
    }
    s->heap[i] = last;
    return top;
}

/* Offers the merge of the symbol at position with its right neighbour, if there is one. */
static void offer(const bpe *b, bpe_scratch *s, int32_t position) {
    if (position < 0 || s->symbols[position].next < 0) return;
    const merge *m =
        &b->merges[merge_slot(b, s->symbols[position].id, s->symbols[s->symbols[position].next].id)];
    if (m->rank >= 0) heap_push(s, (candidate){m->rank, position, m->result});
}

/* Room for n symbols. Every symbol is offered once, and every merge offers at most two more. */
static int reserve(bpe_scratch *s, size_t n) {
    if (n <= s->capacity) return 0;
    if (n > INT32_MAX / 4) return fail("a word of %zu bytes is too long to tokenize", n);
    size_t capacity = n < 128 ? 128 : n + n / 2;
    void *symbols = s->symbols, *heap = s->heap;
    if (mem_resize(&symbols, capacity, sizeof *s->symbols, "a word")) return -1;
    s->symbols = symbols;
    if (mem_resize(&heap, 3 * capacity, sizeof *s->heap, "a word")) return -1;
    s->heap = heap;
    s->capacity = capacity;
    return 0;
}

void bpe_scratch_free(bpe_scratch *s) {
    free(s->symbols);
    free(s->heap);
}

static bool has_all_bytes(const bpe *b, const char *text, size_t n) {
    bool all = b->byte_fallback;
    for (size_t i = 0; i < n; i++) all = all && b->bytes[(unsigned char)text[i]] >= 0;
    return all;
}

/* The word's characters as symbols; returns how many. One may become several (bytes) or none
 * (unknown without an unknown token). */
static int32_t split_characters(const bpe *b, symbol *symbols, const char *word, size_t n) {
    int32_t count = 0, unknown = 0; /* unknown tokens that wait, since neighbours may fuse */
    for (size_t i = 0, length; i < n; i += length) {
        int32_t c;
        length = utf8_decode(word + i, n - i, &c);
        int32_t id =
            c >= 0 && c < BPE_DIRECT_CHARS ? b->chars[c] : vocabulary_find(b->vocabulary, word + i, length);
        if (id < 0 && has_all_bytes(b, word + i, length)) {
            for (size_t k = 0; k < length; k++) symbols[count++].id = b->bytes[(unsigned char)word[i + k]];
        } else if (id < 0 && b->unknown >= 0) {
            if (unknown && !b->fuse_unknown) symbols[count++].id = b->unknown;
            unknown = 1;
        } else if (id >= 0) {
            if (unknown) symbols[count++].id = b->unknown;
            unknown = 0;
            symbols[count++].id = id;
        }
    }
    if (unknown) symbols[count++].id = b->unknown;
    return count;
}

int bpe_encode(const bpe *b, bpe_scratch *s, const char *word, size_t n, token_ids *out) {
    if (b->ignore_merges) { /* a word that is a token is that token */
        int32_t id = vocabulary_find(b->vocabulary, word, n);
        if (id >= 0) return token_ids_append(out, id);
    }
    if (reserve(s, n)) return -1;
    symbol *symbols = s->symbols;
    int32_t count = split_characters(b, symbols, word, n);
    for (int32_t i = 0; i < count; i++) {
        symbols[i].prev = i - 1;
        symbols[i].next = i + 1 < count ? i + 1 : -1;
    }
    s->heap_n = 0;
    for (int32_t i = 0; i < count; i++) offer(b, s, i);
    while (s->heap_n) {
        candidate c = heap_pop(s);
        symbol *left = &symbols[c.position];
        if (left->id < 0 || left->next < 0) continue;
        symbol *right = &symbols[left->next];
        const merge *m = &b->merges[merge_slot(b, left->id, right->id)];
        if (m->rank < 0 || m->result != c.result) continue; /* the neighbours changed since it was offered */
        left->id = c.result;
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0) symbols[left->next].prev = c.position;
        offer(b, s, left->prev);
        offer(b, s, c.position);
    }
    for (int32_t i = 0; i < count; i++)
        if (symbols[i].id >= 0 && token_ids_append(out, symbols[i].id)) return -1;
    return 0;
}

/* ---- from tokenizer.json ---- */

static int parse_vocabulary(vocabulary *v, const json *spec, const char *name) {
    if (!json_is_object(spec)) return fail("%s: the model's \"vocab\" is missing or not an object", name);
    json_each (item, spec) {
        const char *text = json_key(item);
        if (!json_is_number(item)) return fail("%s: the id of token \"%.80s\" is not a number", name, text);
        if (vocabulary_put(v, text, strlen(text), json_number(item), true, name)) return -1;
    }
    return v->size ? 0 : fail("%s: the vocabulary is empty", name);
}

/* "left right" or ["left", "right"]. */
static int parse_merge(bpe *b, int32_t rank, const json *item, const char *name) {
    const char *left = json_string(item), *right = left ? strchr(left, ' ') : NULL;
    if (right && !strchr(right + 1, ' '))
        return bpe_add_merge(b, rank, left, (size_t)(right - left), right + 1, strlen(right + 1), name);
    if (json_is_array(item) && json_length(item) == 2) {
        left = json_string(json_first(item));
        right = json_string(json_next(json_first(item)));
        if (left && right) return bpe_add_merge(b, rank, left, strlen(left), right, strlen(right), name);
    }
    return fail("%s: merge %d is neither \"left right\" nor [\"left\", \"right\"]", name, rank);
}

/* Members that change the ids and are not implemented; empty values are harmless. */
static int refuse_unsupported(const json *model, const char *name) {
    static const char *const keys[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json *v = json_get(model, keys[i]);
        const char *text = json_string(v);
        if (v && !(text && !*text) && !(json_is_number(v) && json_number(v) == 0))
            return fail("%s: the BPE model's \"%s\" is not supported yet", name, keys[i]);
    }
    return 0;
}

int bpe_parse(bpe *b, vocabulary *v, const json *model, const char *name) {
    const char *type = "BPE", *unknown = NULL;
    if (!json_is_object(model)) return fail("%s: \"model\" is missing or not an object", name);
    if (json_get_string(model, name, "type", false, &type)) return -1;
    if (strcmp(type, "BPE")) return fail("%s: model type %s is not supported yet (BPE is)", name, type);
    if (refuse_unsupported(model, name) || parse_vocabulary(v, json_get(model, "vocab"), name)) return -1;
    const json *merges = json_get(model, "merges");
    if (!json_is_array(merges)) return fail("%s: the model's \"merges\" are missing or not a list", name);
    if (bpe_init(b, v, json_length(merges))) return -1;
    int32_t rank = 0;
    json_each (item, merges)
        if (parse_merge(b, rank++, item, name)) return -1;
    if (json_get_bool(model, name, "ignore_merges", false, &b->ignore_merges) ||
        json_get_bool(model, name, "fuse_unk", false, &b->fuse_unknown) ||
        json_get_bool(model, name, "byte_fallback", false, &b->byte_fallback) ||
        json_get_string(model, name, "unk_token", false, &unknown))
        return -1;
    b->unknown = unknown ? vocabulary_find(v, unknown, strlen(unknown)) : -1;
    if (unknown && b->unknown < 0)
        return fail("%s: the unknown token \"%s\" is not in the vocabulary", name, unknown);
    return 0;
}
