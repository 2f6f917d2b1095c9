/* normalizer.c - rewrites text before it is cut: Unicode forms, replacements, a prefix, lower case.
 * A Sequence is flattened into a list of steps. */
#include "text/pipeline.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ---- Unicode normalization forms ---- */

typedef struct mark {
    int32_t c, position;
    int combining_class;
} mark;

static int compare_marks(const void *a, const void *b) {
    const mark *x = a, *y = b;
    return x->combining_class != y->combining_class ? x->combining_class - y->combining_class
                                                    : x->position - y->position;
}

/* Puts the n marks behind a letter into canonical order: stable, by combining class. */
static int sort_marks(int32_t *chars, int32_t n) {
    mark *marks = mem_new((size_t)n, sizeof *marks, "combining marks");
    if (!marks) return -1;
    for (int32_t i = 0; i < n; i++)
        marks[i] = (mark){chars[i], i, utf8proc_get_property(chars[i])->combining_class};
    qsort(marks, (size_t)n, sizeof *marks, compare_marks);
    for (int32_t i = 0; i < n; i++) chars[i] = marks[i].c;
    free(marks);
    return 0;
}

/* utf8proc's own decomposition sorts marks in quadratic time, which a hostile text could
 * exploit. */
static int order_marks(int32_t *chars, int32_t n) {
    for (int32_t i = 0; i < n;) {
        int32_t start = i;
        while (i < n && utf8proc_get_property(chars[i])->combining_class) i++;
        if (i - start > 1 && sort_marks(chars + start, i - start)) return -1;
        if (i < n) i++;
    }
    return 0;
}

/* Characters of the decomposed text into *out (to be freed); returns how many, -1 on error. */
static int32_t decompose(const normalizer_step *step, const str *text, int32_t **out) {
    enum { MOST_PER_CHAR = 32 }; /* the longest compatibility decomposition has 18 */
    int options = UTF8PROC_DECOMPOSE | (step->compatible ? UTF8PROC_COMPAT : 0), boundary = 0;
    size_t capacity = 0, n = 0;
    void *chars = NULL;
    for (size_t i = 0; i < text->length;) {
        if (n + MOST_PER_CHAR > capacity) {
            capacity = 2 * capacity + text->length + MOST_PER_CHAR;
            if (capacity > INT32_MAX || mem_resize(&chars, capacity, sizeof **out, "normalized text")) {
                free(chars);
                return capacity > INT32_MAX ? fail("the text is too long to normalize") : -1;
            }
        }
        int32_t c;
        i += utf8_decode(text->data + i, text->length - i, &c);
        int32_t *to = (int32_t *)chars + n;
        utf8proc_ssize_t added =
            utf8proc_decompose_char(c, to, MOST_PER_CHAR, (utf8proc_option_t)options, &boundary);
        if (added < 0 || added > MOST_PER_CHAR) { /* unassigned to utf8proc: as it is */
            *to = c;
            added = 1;
        }
        n += (size_t)added;
    }
    *out = chars;
    return (int32_t)n;
}

/* Text below this byte is in the form already: ASCII in all, U+0000 to U+02FF in NFC. */
static bool is_in_form(const normalizer_step *step, const str *text) {
    unsigned char limit = step->compose && !step->compatible ? 0xcc : 0x80;
    for (size_t i = 0; i < text->length; i++)
        if ((unsigned char)text->data[i] >= limit) return false;
    return true;
}

static int to_form(const normalizer_step *step, const str *text, str *out) {
    int32_t *chars = NULL, n = decompose(step, text, &chars);
    utf8proc_ssize_t left = n < 0 || order_marks(chars, n) ? -1 : n;
    if (left > 0 && step->compose)
        left = utf8proc_normalize_utf32(chars, left, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if (n >= 0 && left < 0 && !*error_message()) fail("the text cannot be normalized");
    char bytes[4];
    for (utf8proc_ssize_t i = 0; i < left; i++) str_append(out, bytes, utf8_encode(chars[i], bytes));
    free(chars);
    return left < 0 ? -1 : 0;
}

/* ---- the other steps ---- */

static int replace(const normalizer_step *step, regex_scratch *s, const str *text, str *out) {
    size_t taken = 0, start = 0, end;
    int found = 0;
    while (!out->failed &&
           (found = regex_find(step->pattern, s, text->data, text->length, &start, &end)) > 0) {
        str_append(out, text->data + taken, start - taken);
        if (end > start) str_puts(out, step->content);
        taken = end;
        if (end == start) { /* an empty match replaces nothing: go on behind the next character */
            int32_t c;
            if (end == text->length) break;
            size_t length = utf8_decode(text->data + end, text->length - end, &c);
            str_append(out, text->data + end, length);
            taken += length;
        }
        start = taken;
    }
    str_append(out, text->data + taken, text->length - taken);
    return found < 0 ? -1 : 0;
}

static void lowercase(const str *text, str *out) {
    for (size_t i = 0; i < text->length;) {
        int32_t c;
        char bytes[4];
        i += utf8_decode(text->data + i, text->length - i, &c);
        if (c == 0x130)
            str_puts(out, "i\xcc\x87"); /* the one character whose lower case is two */
        else
            str_append(out, bytes, utf8_encode(utf8proc_tolower(c), bytes));
    }
}

int normalizer_run(const normalizer *z, regex_scratch *s, str *text, str *other) {
    for (int i = 0; i < z->n && text->length; i++) {
        const normalizer_step *step = &z->steps[i];
        if (step->kind == NORMALIZE_FORM && is_in_form(step, text)) continue;
        str_clear(other);
        if (step->kind == NORMALIZE_FORM && to_form(step, text, other)) return -1;
        if (step->kind == NORMALIZE_REPLACE && replace(step, s, text, other)) return -1;
        if (step->kind == NORMALIZE_LOWERCASE) lowercase(text, other);
        if (step->kind == NORMALIZE_PREPEND) {
            str_puts(other, step->content);
            str_append(other, text->data, text->length);
        }
        str swap = *text;
        *text = *other;
        *other = swap;
        if (text->failed) return fail("the tokenizer's normalizer: %s", error_message());
    }
    return text->failed || other->failed ? -1 : 0;
}

void normalizer_free(normalizer *z) {
    for (int i = 0; i < z->n; i++) regex_free(z->steps[i].pattern);
}

/* ---- from tokenizer.json ---- */

static int add_step(normalizer *z, const normalizer_step *step, const char *name) {
    if (z->n == MAX_STEPS) {
        regex_free(step->pattern);
        return fail("%s: more than %d normalizers", name, MAX_STEPS);
    }
    z->steps[z->n++] = *step;
    return 0;
}

int normalizer_add_nfc(normalizer *z, const char *name) {
    return add_step(z, &(normalizer_step){.kind = NORMALIZE_FORM, .compose = true}, name);
}

int normalizer_parse(normalizer *z, arena *a, const json *spec, const char *name) {
    const char *type, *content = NULL;
    if (!spec) return 0;
    if (json_get_string(spec, name, "type", true, &type))
        return fail("%s (in \"normalizer\")", error_message());
    if (!strcmp(type, "Sequence")) {
        json_each (item, json_get(spec, "normalizers"))
            if (normalizer_parse(z, a, item, name)) return -1;
        return 0;
    }
    normalizer_step step = {.kind = NORMALIZE_FORM};
    if (!strncmp(type, "NF", 2)) {
        const char *form = type + 2;
        step.compatible = *form == 'K';
        form += step.compatible;
        step.compose = *form == 'C';
        if (strcmp(form, "C") && strcmp(form, "D")) return fail("%s: normalizer %s is unknown", name, type);
    } else if (!strcmp(type, "Lowercase")) {
        step.kind = NORMALIZE_LOWERCASE;
    } else if (!strcmp(type, "Prepend")) {
        step.kind = NORMALIZE_PREPEND;
        if (json_get_string(spec, name, "prepend", true, &content)) return -1;
    } else if (!strcmp(type, "Replace")) {
        step.kind = NORMALIZE_REPLACE;
        if (json_get_string(spec, name, "content", true, &content)) return -1;
        step.pattern = regex_parse(json_get(spec, "pattern"), name);
        if (!step.pattern) return -1;
    } else {
        return fail("%s: normalizer %s is not supported yet", name, type);
    }
    step.content = content ? arena_string(a, content) : NULL;
    if (content && !step.content) {
        regex_free(step.pattern);
        return -1;
    }
    return add_step(z, &step, name);
}
