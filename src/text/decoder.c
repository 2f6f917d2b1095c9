/* decoder.c - tokens back to bytes of text.
 * tokenizer.json's decoder is a sequence of stages; all known ones fit one fixed order (replace,
 * byte fallback, fuse, strip), so they become fields, and a token can be decoded as soon as it
 * comes. */
#include "text/pipeline.h"

#include <string.h>

/* Bytes of a token in the byte-level alphabet; a token with other characters is its own bytes. */
static void add_byte_level(decoding *state, const char *text, size_t n) {
    size_t before = state->bytes.length;
    for (size_t i = 0; i < n;) {
        int32_t c;
        i += utf8_decode(text + i, n - i, &c);
        int byte = byte_of_char(c);
        if (byte < 0) {
            state->bytes.length = before;
            str_append(&state->bytes, text, n);
            return;
        }
        str_append(&state->bytes, &(char){(char)byte}, 1);
    }
}

/* The value of "<0x41>", -1 for other tokens. */
static int byte_token(const str *word) {
    static const char digits[] = "0123456789ABCDEF";
    const char *t = word->data;
    if (word->length != 6 || memcmp(t, "<0x", 3) || t[5] != '>') return -1;
    const char *high = t[3] ? strchr(digits, t[3]) : NULL, *low = t[4] ? strchr(digits, t[4]) : NULL;
    return high && low ? (int)(high - digits) << 4 | (int)(low - digits) : -1;
}

/* A run of byte tokens that is no text counts as one U+FFFD per byte. */
static void end_run(decoding *state) {
    size_t n = state->n_run < state->bytes.length ? state->n_run : state->bytes.length;
    state->n_run = 0;
    if (!n || utf8_is_valid(state->bytes.data + state->bytes.length - n, n)) return;
    state->bytes.length -= n;
    while (n--) str_puts(&state->bytes, "\xef\xbf\xbd");
}

static void replace_all(const char *from, const char *to, const str *in, str *out) {
    size_t n = strlen(from);
    str_clear(out);
    for (size_t i = 0; i < in->length && !out->failed;) {
        bool here = in->length - i >= n && !memcmp(in->data + i, from, n);
        str_append(out, here ? to : in->data + i, here ? strlen(to) : 1);
        i += here ? n : 1;
    }
}

/* Takes the stripped text off the front of the word while nothing else has come. */
static void strip_front(const decoder *d, decoding *state, str *word) {
    size_t n = strlen(d->strip), skip = 0;
    while (state->n_stripped < d->n_strip && word->length - skip >= n &&
           !memcmp(word->data + skip, d->strip, n)) {
        state->n_stripped++;
        skip += n;
    }
    if (word->length == skip) {
        str_clear(word);
        return;
    }
    state->n_stripped = d->n_strip; /* something else came: the beginning is over */
    memmove(word->data, word->data + skip, word->length - skip);
    word->length -= skip;
}

void decoder_add(const decoder *d, decoding *state, const char *text, size_t n) {
    bool first = !state->started;
    state->started = true;
    if (d->byte_level) {
        add_byte_level(state, text, n);
        return;
    }
    if (d->spaced && !first) str_puts(&state->bytes, " ");
    str *word = &state->token;
    str_clear(word);
    str_append(word, text, n);
    for (int i = 0; i < d->n_replace && !state->swap.failed && !word->failed; i++) {
        replace_all(d->replace[i].from, d->drop_first && first ? "" : d->replace[i].to, word, &state->swap);
        str swap = *word;
        *word = state->swap;
        state->swap = swap;
    }
    int byte = d->byte_fallback ? byte_token(word) : -1;
    if (byte < 0) end_run(state);
    if (byte >= 0) {
        str_clear(word);
        str_append(word, &(char){(char)byte}, 1);
    }
    if (d->strip && state->n_stripped < d->n_strip) strip_front(d, state, word);
    str_append(&state->bytes, word->data, word->length);
    if (byte >= 0) state->n_run += word->length;
    if (word->failed || state->swap.failed) state->bytes.failed = true;
}

void decoder_finish(decoding *state) {
    end_run(state);
}

void decoding_free(decoding *state) {
    str_free(&state->bytes);
    str_free(&state->token);
    str_free(&state->swap);
}

/* ---- from tokenizer.json ---- */

static int add_replace(decoder *d, arena *a, const char *from, const char *to, const char *name) {
    if (!from || !*from || !to)
        return fail("%s: a decoder's Replace needs a text to find and one to put", name);
    if (d->n_replace == MAX_STEPS) return fail("%s: more than %d Replace decoders", name, MAX_STEPS);
    d->replace[d->n_replace].from = arena_string(a, from);
    d->replace[d->n_replace].to = arena_string(a, to);
    if (!d->replace[d->n_replace].from || !d->replace[d->n_replace].to) return -1;
    d->n_replace++;
    return 0;
}

static int parse_strip(decoder *d, arena *a, const json *spec, const char *name) {
    const char *content;
    int64_t stop = 0;
    if (json_get_string(spec, name, "content", true, &content) ||
        json_get_int(spec, name, "start", true, 0, 1000, &d->n_strip) ||
        json_get_int(spec, name, "stop", true, 0, 1000, &stop))
        return -1;
    if (stop) return fail("%s: a decoder's Strip at the end is not supported yet", name);
    if (!*content) return fail("%s: a decoder's Strip of nothing", name);
    d->strip = arena_string(a, content);
    return d->strip ? 0 : -1;
}

static int parse_metaspace(decoder *d, arena *a, const json *spec, const char *name) {
    const char *replacement = NULL, *scheme = "always";
    bool legacy_prefix = true;
    if (json_get_string(spec, name, "replacement", true, &replacement) ||
        json_get_string(spec, name, "prepend_scheme", false, &scheme) ||
        json_get_bool(spec, name, "add_prefix_space", false, &legacy_prefix))
        return -1;
    d->drop_first = legacy_prefix && strcmp(scheme, "never");
    return add_replace(d, a, replacement, " ", name);
}

/* Fills d from one stage; *order is that of the last one, and must not go back. */
static int parse_stage(decoder *d, arena *a, const json *spec, int *order, const char *name) {
    static const char *const types[] = {"ByteLevel", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"};
    enum { BYTE_LEVEL, METASPACE, REPLACE, BYTE_FALLBACK, FUSE, STRIP, N_TYPES };
    const char *type;
    if (json_get_string(spec, name, "type", true, &type)) return fail("%s (in \"decoder\")", error_message());
    if (!strcmp(type, "Sequence")) {
        json_each (item, json_get(spec, "decoders"))
            if (parse_stage(d, a, item, order, name)) return -1;
        return 0;
    }
    int kind = 0;
    while (kind < N_TYPES && strcmp(type, types[kind])) kind++;
    if (kind == N_TYPES) return fail("%s: decoder %s is not supported yet", name, type);
    bool alone = kind == BYTE_LEVEL || kind == METASPACE; /* nothing but Fuse may go with these */
    if (kind < *order || (alone && *order >= 0) ||
        (kind != FUSE && (*order == BYTE_LEVEL || *order == METASPACE)) || (kind == STRIP && *order != FUSE))
        return fail("%s: the decoder %s in this place of a sequence is not supported yet", name, type);
    *order = kind;
    if (kind == BYTE_LEVEL) d->byte_level = true;
    if (kind == BYTE_FALLBACK) d->byte_fallback = true;
    if (kind == METASPACE) return parse_metaspace(d, a, spec, name);
    if (kind == STRIP) return parse_strip(d, a, spec, name);
    if (kind == REPLACE)
        return add_replace(d, a, json_string(json_get(json_get(spec, "pattern"), "String")),
                           json_string(json_get(spec, "content")), name);
    return 0;
}

int decoder_parse(decoder *d, arena *a, const json *spec, const char *name) {
    int order = -1;
    d->spaced = !spec;
    return spec ? parse_stage(d, a, spec, &order, name) : 0;
}
