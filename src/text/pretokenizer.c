/* pretokenizer.c - cuts text into the words BPE works on.
 * Every pre-tokenizer of tokenizer.json becomes one to three of three steps: split at a pattern,
 * prefix, bytes to the byte-level alphabet. */
#include "text/pipeline.h"

#include <string.h>

/* The pattern of GPT-2, which ByteLevel has built in. Source: openai/gpt-2, encoder.py. */
static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- running ---- */

/* A piece that is being cut: what does it, where its parts go, and whether the last one counted as
 * a match (with invert, what lies between two). */
typedef struct cut {
    split_behavior behavior;
    bool invert, after_match;
    pieces *out;
} cut;

/* One part - found: a match, else what lies between two - goes to the output. The behaviors differ
 * only in whether it begins a piece of its own or joins the part before it. */
static void add_part(cut *c, bool found, const char *text, size_t n) {
    bool match = found != c->invert;
    bool joins = (c->behavior == SPLIT_MERGED_WITH_PREVIOUS && match && !c->after_match) ||
                 (c->behavior == SPLIT_MERGED_WITH_NEXT && !match && c->after_match) ||
                 (c->behavior == SPLIT_CONTIGUOUS && match == c->after_match);
    if (!joins) pieces_close(c->out);
    if (c->behavior != SPLIT_REMOVED || !match) str_append(&c->out->text, text, n);
    c->after_match = match;
}

/* Cuts one piece at the matches of the step's pattern. */
static int split_piece(const pretokenizer_step *step, regex_scratch *scratch, const char *text, size_t n,
                       pieces *out) {
    size_t taken = 0, from = 0, start, end;
    cut c = {.behavior = step->behavior, .invert = step->invert, .out = out};
    bool any = false;
    int found = 0;
    while ((start = from) <= n && (found = regex_find(step->pattern, scratch, text, n, &start, &end)) > 0) {
        if (start == end && end == taken && any) { /* an empty match right behind a match is none */
            int32_t character;
            from = end < n ? end + utf8_decode(text + end, n - end, &character) : n + 1;
            continue;
        }
        if (start > taken) add_part(&c, false, text + taken, start - taken);
        add_part(&c, true, text + start, end - start);
        any = true;
        taken = from = end;
    }
    if (n > taken) add_part(&c, false, text + taken, n - taken);
    pieces_close(out);
    return found < 0 ? -1 : 0;
}

/* Spaces become the prefix, and the piece gets one if it has none. */
static void prefix_piece(const pretokenizer_step *step, bool first, const char *text, size_t n, pieces *out) {
    size_t length = strlen(step->prefix);
    bool wanted = step->scheme == PREFIX_ALWAYS || (step->scheme == PREFIX_FIRST && first);
    bool there = *text == ' ' || (n >= length && !memcmp(text, step->prefix, length));
    if (wanted && !there) str_append(&out->text, step->prefix, length);
    for (const char *end = text + n; text < end;) {
        const char *space = memchr(text, ' ', (size_t)(end - text));
        str_append(&out->text, text, (size_t)((space ? space : end) - text));
        if (space) str_append(&out->text, step->prefix, length);
        text = space ? space + 1 : end;
    }
    pieces_close(out);
}

static void bytes_piece(const char (*alphabet)[2], const char *text, size_t n, pieces *out) {
    char buffer[256];
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        const char *c = alphabet[(unsigned char)text[i]];
        buffer[used++] = c[0];
        if (c[0] & 0x80) buffer[used++] = c[1];
        if (used < sizeof buffer - 2 && i + 1 < n) continue;
        str_append(&out->text, buffer, used);
        used = 0;
    }
    pieces_close(out);
}

int pretokenizer_run(const pretokenizer *p, regex_scratch *s, bool at_start, pieces *text, pieces *other) {
    for (int i = 0; i < p->n; i++) {
        const pretokenizer_step *step = &p->steps[i];
        pieces_clear(other);
        size_t start = 0;
        for (size_t k = 0; k < text->n; start = text->ends[k++]) {
            const char *piece = text->text.data + start;
            size_t n = text->ends[k] - start;
            if (step->kind == PRETOKENIZE_SPLIT && split_piece(step, s, piece, n, other)) return -1;
            if (step->kind == PRETOKENIZE_PREFIX) prefix_piece(step, at_start && !k, piece, n, other);
            if (step->kind == PRETOKENIZE_BYTES) bytes_piece(p->alphabet, piece, n, other);
        }
        pieces swap = *text;
        *text = *other;
        *other = swap;
        if (text->text.failed) return fail("the tokenizer's pre-tokenizer: %s", error_message());
    }
    return text->text.failed || other->text.failed ? -1 : 0;
}

void pretokenizer_free(pretokenizer *p) {
    for (int i = 0; i < p->n; i++) regex_free(p->steps[i].pattern);
}

/* ---- building ---- */

static int add_step(pretokenizer *p, const pretokenizer_step *step, const char *name) {
    if (p->n == MAX_STEPS) {
        regex_free(step->pattern);
        return fail("%s: more than %d pre-tokenizing steps", name, MAX_STEPS);
    }
    p->steps[p->n++] = *step;
    return 0;
}

int pretokenizer_add_split(pretokenizer *p, regex *pattern, split_behavior behavior, bool invert,
                           const char *name) {
    pretokenizer_step step = {
        .kind = PRETOKENIZE_SPLIT, .pattern = pattern, .behavior = behavior, .invert = invert};
    return pattern ? add_step(p, &step, name) : -1;
}

int pretokenizer_add_byte_level(pretokenizer *p, byte_level_options o, const char *name) {
    pretokenizer_step prefix = {.kind = PRETOKENIZE_PREFIX, .prefix = " ", .scheme = PREFIX_ALWAYS};
    if (o.prefix_space && add_step(p, &prefix, name)) return -1;
    if (o.use_regex &&
        pretokenizer_add_split(p, regex_new(gpt2_pattern, false, name), SPLIT_ISOLATED, false, name))
        return -1;
    for (int byte = 0; byte < 256; byte++) utf8_encode(char_of_byte((uint8_t)byte), p->alphabet[byte]);
    return add_step(p, &(pretokenizer_step){.kind = PRETOKENIZE_BYTES}, name);
}

int pretokenizer_add_digits(pretokenizer *p, bool individual, const char *name) {
    const char *pattern = individual ? "\\p{N}" : "\\p{N}+";
    return pretokenizer_add_split(p, regex_new(pattern, false, name), SPLIT_ISOLATED, false, name);
}

/* ---- from tokenizer.json ---- */

static int parse_split(pretokenizer *p, const json *spec, const char *name) {
    static const char *const behaviors[] = {
        [SPLIT_ISOLATED] = "Isolated",
        [SPLIT_REMOVED] = "Removed",
        [SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
        [SPLIT_CONTIGUOUS] = "Contiguous",
    };
    const char *text;
    bool invert = false;
    if (json_get_string(spec, name, "behavior", true, &text) ||
        json_get_bool(spec, name, "invert", false, &invert))
        return -1;
    for (size_t i = 0; i < sizeof behaviors / sizeof *behaviors; i++)
        if (!strcmp(text, behaviors[i]))
            return pretokenizer_add_split(p, regex_parse(json_get(spec, "pattern"), name), (split_behavior)i,
                                          invert, name);
    return fail("%s: the Split behavior %s is unknown", name, text);
}

/* Spaces to a visible character, one in front, and a cut before each of them. */
static int parse_metaspace(pretokenizer *p, arena *a, const json *spec, const char *name) {
    const char *replacement = NULL, *scheme = "always";
    bool split = true, legacy_prefix = true;
    if (json_get_string(spec, name, "replacement", true, &replacement) ||
        json_get_string(spec, name, "prepend_scheme", false, &scheme) ||
        json_get_bool(spec, name, "add_prefix_space", false, &legacy_prefix) ||
        json_get_bool(spec, name, "split", false, &split))
        return -1;
    if (!legacy_prefix) scheme = "never";
    pretokenizer_step step = {.kind = PRETOKENIZE_PREFIX, .prefix = arena_string(a, replacement)};
    if (!strcmp(scheme, "always")) step.scheme = PREFIX_ALWAYS;
    if (!strcmp(scheme, "first")) step.scheme = PREFIX_FIRST;
    if (step.scheme == PREFIX_NEVER && strcmp(scheme, "never"))
        return fail("%s: the Metaspace prepend_scheme %s is unknown", name, scheme);
    if (!step.prefix || add_step(p, &step, name)) return -1;
    if (!split) return 0;
    return pretokenizer_add_split(p, regex_new(replacement, true, name), SPLIT_MERGED_WITH_NEXT, false, name);
}

int pretokenizer_parse(pretokenizer *p, arena *a, const json *spec, const char *name) {
    const char *type;
    byte_level_options byte_level = {.prefix_space = true, .use_regex = true};
    bool individual = false;
    if (!spec) return 0;
    if (json_get_string(spec, name, "type", true, &type))
        return fail("%s (in \"pre_tokenizer\")", error_message());
    if (!strcmp(type, "Sequence")) {
        json_each (item, json_get(spec, "pretokenizers"))
            if (pretokenizer_parse(p, a, item, name)) return -1;
        return 0;
    }
    if (!strcmp(type, "Split")) return parse_split(p, spec, name);
    if (!strcmp(type, "Metaspace")) return parse_metaspace(p, a, spec, name);
    if (!strcmp(type, "Digits")) {
        if (json_get_bool(spec, name, "individual_digits", false, &individual)) return -1;
        return pretokenizer_add_digits(p, individual, name);
    }
    if (strcmp(type, "ByteLevel")) return fail("%s: pre-tokenizer %s is not supported yet", name, type);
    if (json_get_bool(spec, name, "add_prefix_space", false, &byte_level.prefix_space) ||
        json_get_bool(spec, name, "use_regex", false, &byte_level.use_regex))
        return -1;
    return pretokenizer_add_byte_level(p, byte_level, name);
}
