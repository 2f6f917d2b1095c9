/* tokenizer.c - puts the stages together: tokenizer.json to a tokenizer, text through it and back.
 * Truncation and padding, which the file may also ask for, are left out as mlx-lm leaves them
 * out. */
#include "text/pipeline.h"

#include <stdlib.h>
#include <string.h>

int token_ids_append(token_ids *ids, int32_t id) {
    if (ids->n == ids->capacity) {
        int64_t capacity = ids->capacity ? 2 * ids->capacity : 64;
        void *items = ids->items;
        if (mem_resize(&items, (size_t)capacity, sizeof *ids->items, "token ids")) return -1;
        ids->items = items;
        ids->capacity = capacity;
    }
    ids->items[ids->n++] = id;
    return 0;
}

/* ---- encoding ---- */

typedef struct encoding {
    const tokenizer *t;
    token_ids *out;
    regex_scratch *regexes;
    bpe_scratch bpe;
    pieces pieces, other;
    str normalized, swap;
} encoding;

/* Words of text that holds no added token. */
static int encode_words(encoding *e, bool at_start, const char *text, size_t n) {
    pieces_clear(&e->pieces);
    pieces_add(&e->pieces, text, n);
    if (pretokenizer_run(&e->t->pretokenizer, e->regexes, at_start, &e->pieces, &e->other)) return -1;
    size_t start = 0;
    for (size_t i = 0; i < e->pieces.n; start = e->pieces.ends[i++]) {
        if (interrupted()) return fail_interrupted();
        if (bpe_encode(&e->t->bpe, &e->bpe, e->pieces.text.data + start, e->pieces.ends[i] - start, e->out))
            return -1;
    }
    return 0;
}

/* Text between added tokens: normalized, then searched for those that match normalized text. */
static int encode_text(encoding *e, bool at_start, const char *text, size_t n) {
    str *s = &e->normalized;
    str_clear(s);
    str_append(s, text, n);
    if (s->failed || normalizer_run(&e->t->normalizer, e->regexes, s, &e->swap)) return -1;
    size_t from = 0;
    for (added_match m = {0}; added_tokens_next(&e->t->added_normalized, s->data, s->length, &m);
         from = m.end) {
        if (m.start > from && encode_words(e, at_start && !from, s->data + from, m.start - from)) return -1;
        if (token_ids_append(e->out, m.id)) return -1;
    }
    return s->length > from ? encode_words(e, at_start && !from, s->data + from, s->length - from) : 0;
}

static int encode_all(encoding *e, const char *text, size_t n) {
    size_t from = 0;
    for (added_match m = {0}; added_tokens_next(&e->t->added, text, n, &m); from = m.end) {
        if (m.start > from && encode_text(e, !from, text + from, m.start - from)) return -1;
        if (token_ids_append(e->out, m.id)) return -1;
    }
    return n > from ? encode_text(e, !from, text + from, n - from) : 0;
}

static int append_all(token_ids *out, const token_ids *ids) {
    for (int64_t i = 0; i < ids->n; i++)
        if (token_ids_append(out, ids->items[i])) return -1;
    return 0;
}

int tokenizer_encode(const tokenizer *t, const char *text, size_t n, bool add_special, token_ids *out) {
    encoding e = {.t = t, .out = out, .regexes = regex_scratch_new()};
    str valid = {0};
    if (!utf8_is_valid(text, n)) {
        utf8_append(&valid, text, n);
        text = valid.data;
        n = valid.length;
    }
    int status = !e.regexes || valid.failed || (add_special && append_all(out, &t->prefix)) ||
                         encode_all(&e, text, n) || (add_special && append_all(out, &t->suffix))
                     ? -1
                     : 0;
    regex_scratch_free(e.regexes);
    bpe_scratch_free(&e.bpe);
    pieces_free(&e.pieces);
    pieces_free(&e.other);
    str_free(&e.normalized);
    str_free(&e.swap);
    str_free(&valid);
    return status;
}

/* ---- decoding ---- */

static const token *find_token(const tokenizer *t, int32_t id) {
    const token *found = id >= 0 && id < t->vocabulary.size ? &t->vocabulary.tokens[id] : NULL;
    if (found && found->text) return found;
    return fail_null("token id %d is not in the vocabulary (%lld tokens)", id, (long long)t->vocabulary.size);
}

int tokenizer_decode(const tokenizer *t, const int32_t *ids, int64_t n, bool skip_special, str *out) {
    decoding state = {0};
    int status = 0;
    for (int64_t i = 0; i < n && !status; i++) {
        const token *found = find_token(t, ids[i]);
        status = found ? 0 : -1;
        if (found && !(skip_special && found->special))
            decoder_add(&t->decoder, &state, found->text, found->length);
    }
    decoder_finish(&state);
    if (!status && state.bytes.length) utf8_append(out, state.bytes.data, state.bytes.length);
    if (state.bytes.failed || out->failed) status = -1;
    decoding_free(&state);
    return status;
}

struct detokenizer {
    const tokenizer *t;
    decoding state;
};

detokenizer *detokenizer_new(const tokenizer *t) {
    detokenizer *d = mem_new(1, sizeof *d, "a detokenizer");
    if (d) d->t = t;
    return d;
}

/* Moves all but the last `keep` bytes to out. */
static int take(str *bytes, size_t keep, str *out) {
    size_t ready = bytes->length - keep;
    if (ready) {
        utf8_append(out, bytes->data, ready);
        memmove(bytes->data, bytes->data + ready, keep);
        bytes->length = keep;
    }
    return bytes->failed || out->failed ? -1 : 0;
}

int detokenizer_add(detokenizer *d, int32_t id, str *out) {
    const token *found = find_token(d->t, id);
    if (!found) return -1;
    str *bytes = &d->state.bytes;
    decoder_add(&d->t->decoder, &d->state, found->text, found->length);
    return take(bytes, utf8_unfinished(bytes->data, bytes->length), out);
}

int detokenizer_finish(detokenizer *d, str *out) {
    decoder_finish(&d->state);
    return take(&d->state.bytes, 0, out);
}

void detokenizer_free(detokenizer *d) {
    if (d) decoding_free(&d->state);
    free(d);
}

/* ---- ids ---- */

int64_t tokenizer_size(const tokenizer *t) {
    return t->vocabulary.size;
}

int32_t tokenizer_id(const tokenizer *t, const char *text) {
    int32_t id = vocabulary_find(&t->vocabulary, text, strlen(text));
    for (int64_t i = t->first_added; id < 0 && i < t->vocabulary.size; i++)
        if (t->vocabulary.tokens[i].text && !strcmp(t->vocabulary.tokens[i].text, text)) id = (int32_t)i;
    return id;
}

bool tokenizer_is_special(const tokenizer *t, int32_t id) {
    return id >= 0 && id < t->vocabulary.size && t->vocabulary.tokens[id].special;
}

/* ---- building ---- */

tokenizer *tokenizer_new(void) {
    tokenizer *t = mem_new(1, sizeof *t, "a tokenizer");
    if (!t) return NULL;
    t->bpe.unknown = -1;
    t->first_added = INT64_MAX;
    t->arena = arena_new();
    if (t->arena && !vocabulary_init(&t->vocabulary)) return t;
    tokenizer_free(t);
    return NULL;
}

void tokenizer_free(tokenizer *t) {
    if (!t) return;
    bpe_free(&t->bpe);
    normalizer_free(&t->normalizer);
    pretokenizer_free(&t->pretokenizer);
    added_tokens_free(&t->added);
    added_tokens_free(&t->added_normalized);
    vocabulary_free(&t->vocabulary);
    arena_free(t->arena);
    free(t->prefix.items);
    free(t->suffix.items);
    free(t);
}

/* What to search for in normalized text: the token as the normalizer leaves it. */
static int normalize_added(tokenizer *t, added_token *item) {
    str text = {0}, swap = {0};
    regex_scratch *s = regex_scratch_new();
    str_append(&text, item->text, item->length);
    int status = !s || text.failed || normalizer_run(&t->normalizer, s, &text, &swap) ? -1 : 0;
    item->length = text.length;
    item->text = status ? NULL : arena_string_n(t->arena, text.data, text.length);
    str_free(&text);
    str_free(&swap);
    regex_scratch_free(s);
    return item->text ? 0 : -1;
}

int tokenizer_add_token(tokenizer *t, const char *text, double id, added_token item, const char *name) {
    item.length = strlen(text);
    if (!item.length) return 0;
    item.text = arena_string(t->arena, text);
    item.id = vocabulary_find(&t->vocabulary, text, item.length);
    if (!item.text) return -1;
    if (item.id < 0) {
        if (vocabulary_put(&t->vocabulary, text, item.length, id, false, name)) return -1;
        item.id = (int32_t)id;
        if (item.id < t->first_added) t->first_added = item.id;
    }
    if (item.special) t->vocabulary.tokens[item.id].special = true;
    if (item.normalized && normalize_added(t, &item)) return -1;
    return item.length ? added_tokens_add(item.normalized ? &t->added_normalized : &t->added, &item) : 0;
}

void tokenizer_ready(tokenizer *t) {
    added_tokens_sort(&t->added);
    added_tokens_sort(&t->added_normalized);
}

/* ---- from tokenizer.json ---- */

static int parse_added(tokenizer *t, const json *list, const char *name) {
    json_each (spec, list) {
        const char *text;
        const json *id = json_get(spec, "id");
        added_token item = {0};
        if (json_get_string(spec, name, "content", true, &text))
            return fail("%s (in \"added_tokens\")", error_message());
        if (!json_is_number(id)) return fail("%s: the added token \"%.80s\" has no id", name, text);
        if (json_get_bool(spec, name, "special", false, &item.special)) return -1;
        item.normalized = !item.special;
        if (json_get_bool(spec, name, "normalized", false, &item.normalized) ||
            json_get_bool(spec, name, "single_word", false, &item.single_word) ||
            json_get_bool(spec, name, "lstrip", false, &item.lstrip) ||
            json_get_bool(spec, name, "rstrip", false, &item.rstrip) ||
            tokenizer_add_token(t, text, json_number(id), item, name))
            return -1;
    }
    return 0;
}

/* The ids of a special token of a template, appended to ids. */
static int parse_template_token(tokenizer *t, token_ids *ids, const json *template, const json *part,
                                const char *name) {
    const char *key = json_string(json_get(part, "id"));
    const json *list = key ? json_get(json_get(json_get(template, "special_tokens"), key), "ids") : NULL;
    if (!json_length(list))
        return fail("%s: TemplateProcessing lacks the ids of \"%s\"", name, key ? key : "?");
    json_each (item, list) {
        double id = json_number(item);
        if (!json_is_number(item) || !(id >= 0 && id < (double)t->vocabulary.size) ||
            id != (double)(int32_t)id)
            return fail("%s: TemplateProcessing has the id %g, which is not in the vocabulary", name, id);
        if (token_ids_append(ids, (int32_t)id)) return -1;
    }
    return 0;
}

/* Template for one sequence: what comes before it goes before the prefix so far, what comes after
 * it behind the suffix. */
static int parse_template(tokenizer *t, const json *template, const char *name) {
    token_ids before = {0};
    int sequences = 0, status = 0;
    json_each (part, json_get(template, "single")) {
        const json *special = json_get(part, "SpecialToken");
        sequences += json_get(part, "Sequence") != NULL;
        if (special && !status)
            status = parse_template_token(t, sequences ? &t->suffix : &before, template, special, name);
    }
    if (!status && sequences != 1)
        status =
            fail("%s: TemplateProcessing must have the sequence once, and has it %d times", name, sequences);
    if (!status) status = append_all(&before, &t->prefix);
    free(t->prefix.items);
    t->prefix = before;
    return status;
}

static int parse_post_processor(tokenizer *t, const json *spec, const char *name) {
    const char *type;
    if (!spec) return 0;
    if (json_get_string(spec, name, "type", true, &type))
        return fail("%s (in \"post_processor\")", error_message());
    if (!strcmp(type, "Sequence")) {
        json_each (item, json_get(spec, "processors"))
            if (parse_post_processor(t, item, name)) return -1;
        return 0;
    }
    if (!strcmp(type, "ByteLevel")) return 0; /* changes offsets alone */
    if (!strcmp(type, "TemplateProcessing")) return parse_template(t, spec, name);
    return fail("%s: post-processor %s is not supported yet", name, type);
}

tokenizer *tokenizer_parse(const char *text, size_t n, const char *name) {
    json *root = utf8_is_valid(text, n) ? json_parse(text, n, name) : fail_null("%s: not valid UTF-8", name);
    tokenizer *t = root ? tokenizer_new() : NULL;
    if (t && (bpe_parse(&t->bpe, &t->vocabulary, json_get(root, "model"), name) ||
              normalizer_parse(&t->normalizer, t->arena, json_get(root, "normalizer"), name) ||
              pretokenizer_parse(&t->pretokenizer, t->arena, json_get(root, "pre_tokenizer"), name) ||
              decoder_parse(&t->decoder, t->arena, json_get(root, "decoder"), name) ||
              parse_added(t, json_get(root, "added_tokens"), name) ||
              parse_post_processor(t, json_get(root, "post_processor"), name))) {
        tokenizer_free(t);
        t = NULL;
    }
    json_free(root);
    if (t) tokenizer_ready(t);
    return t;
}

tokenizer *tokenizer_open(const char *path) {
    file_map map;
    if (file_map_open(&map, path)) return NULL;
    tokenizer *t = tokenizer_parse(map.data, map.size, path);
    file_map_close(&map);
    return t;
}
