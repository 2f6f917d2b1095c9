/* regex.c - patterns of tokenizer.json on PCRE2.
 * They were written for Oniguruma with Ruby's syntax; the few spellings that mean something else to
 * PCRE2 are translated, those that have no counterpart are refused. */
#include "text/pipeline.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

/* Far above what any sane pattern needs per match; a pattern that explodes on a text ends in an
 * error. */
enum { MATCH_LIMIT = 20000000, JIT_STACK_FIRST = 32 << 10, JIT_STACK_MOST = 16 << 20 };

struct regex {
    pcre2_code *code;
};

struct regex_scratch {
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

/* Contents of the classes that the two libraries define differently. PCRE2 has U+180E among its
 * white space; its \w lacks marks; Oniguruma's \h is a hexadecimal digit. */
static const char *class_content(char escape) {
    switch (escape) {
    case 's':
    case 'S':
        return "\\t-\\r\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"
               "\\x{3000}";
    case 'w':
    case 'W':
        return "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
    case 'h':
    case 'H':
        return "0-9a-fA-F";
    default:
        return NULL;
    }
}

/* Translates the escape at p (a backslash and at least one character) and returns what follows
 * it. */
static const char *translate_escape(str *out, const char *p, bool in_class) {
    const char *content = class_content(p[1]);
    bool negated = p[1] >= 'A' && p[1] <= 'Z';
    if (content && !in_class) {
        str_printf(out, "[%s%s]", negated ? "^" : "", content);
    } else if (content && !negated) {
        str_puts(out, content);
    } else if (p[1] == 'u' && strspn(p + 2, "0123456789abcdefABCDEF") >= 4) {
        str_printf(out, "\\x{%.4s}", p + 2);
        return p + 6;
    } else {
        str_append(out, p, 2);
    }
    return p + 2;
}

/* What means something else to Oniguruma or gives matches that are no stretch of text: \K ends a
 * match before it begins, \C cuts a character in two, \Q and \E are letters there, and so is no
 * "(*VERB)" known. */
static bool is_refused(const char *p, bool in_class) {
    if (p[0] == '\\') return p[1] && strchr("KCQE", p[1]);
    return !in_class && p[0] == '(' && p[1] == '*';
}

/* Copies "(?" and its option letters: Ruby's m (dot matches newlines) is PCRE2's s. */
static const char *translate_options(str *out, const char *p) {
    str_append(out, p, 2);
    for (p += 2; *p && strchr("imx-", *p); p++) str_append(out, *p == 'm' ? "s" : p, 1);
    return p;
}

/* Appends the pattern in PCRE2's syntax. -1 naming what it has no word for. */
static int translate(str *out, const char *pattern, const char *name) {
    bool in_class = false;
    for (const char *p = pattern; *p;) {
        if (is_refused(p, in_class)) {
            return fail("%s: %.2s is not supported (pattern %s)", name, p, pattern);
        } else if (*p == '\\' && p[1]) {
            p = translate_escape(out, p, in_class);
        } else if (!in_class && p[0] == '(' && p[1] == '?') {
            p = translate_options(out, p);
        } else if (in_class && p[0] == '[' && p[1] == ':' && strstr(p, ":]")) {
            const char *end = strstr(p, ":]") + 2;
            str_append(out, p, (size_t)(end - p));
            p = end;
        } else if (in_class && (*p == '[' || (p[0] == '&' && p[1] == '&'))) {
            return fail("%s: nested character classes are not supported yet (pattern %s)", name, pattern);
        } else {
            bool opens = !in_class && *p == '[';
            size_t n = opens && p[1] == '^' ? 2 : 1;
            if (opens && p[n] == ']') n++; /* a bracket first in a class is a member */
            if (opens || *p == ']') in_class = opens;
            str_append(out, p, n);
            p += n;
        }
    }
    return out->failed ? -1 : 0;
}

regex *regex_new(const char *pattern, bool literal, const char *name) {
    str text = {0};
    regex *r = mem_new(1, sizeof *r, "a pattern");
    bool failed = !r || (!literal && translate(&text, pattern, name));
    const char *source = literal || !text.data ? pattern : text.data;
    int code = 0;
    size_t at = 0;
    if (!failed) {
        /* Ruby's ^ and $ are of lines. */
        uint32_t options = literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
        r->code = pcre2_compile((PCRE2_SPTR)source, strlen(source), PCRE2_UTF | options, &code, &at, NULL);
        if (!r->code) {
            char why[256];
            pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
            fail("%s: cannot use the pattern %s: %s", name, pattern, why);
            failed = true;
        } else {
            pcre2_jit_compile(r->code,
                              PCRE2_JIT_COMPLETE); /* without it, matching is slower, not different */
        }
    }
    str_free(&text);
    if (!failed) return r;
    free(r);
    return NULL;
}

void regex_free(regex *r) {
    if (r) pcre2_code_free(r->code);
    free(r);
}

regex *regex_parse(const json *pattern, const char *name) {
    const char *literal = json_string(json_get(pattern, "String")),
               *regular = json_string(json_get(pattern, "Regex"));
    if (!literal && !regular)
        return fail_null("%s: a \"pattern\" is neither {\"String\": ...} nor {\"Regex\": ...}", name);
    return regex_new(literal ? literal : regular, literal != NULL, name);
}

regex_scratch *regex_scratch_new(void) {
    regex_scratch *s = mem_new(1, sizeof *s, "pattern matching");
    if (!s) return NULL;
    s->match = pcre2_match_data_create(1, NULL);
    s->context = pcre2_match_context_create(NULL);
    s->stack =
        pcre2_jit_stack_create(JIT_STACK_FIRST, JIT_STACK_MOST, NULL); /* NULL without JIT: not needed */
    if (!s->match || !s->context) {
        regex_scratch_free(s);
        return fail_null("out of memory for pattern matching");
    }
    pcre2_set_match_limit(s->context, MATCH_LIMIT);
    if (s->stack) pcre2_jit_stack_assign(s->context, NULL, s->stack);
    return s;
}

void regex_scratch_free(regex_scratch *s) {
    if (!s) return;
    pcre2_match_data_free(s->match);
    pcre2_match_context_free(s->context);
    pcre2_jit_stack_free(s->stack);
    free(s);
}

/* Whether position i is inside a character of the (valid) text. */
static bool cuts_character(const char *text, size_t n, size_t i) {
    return i < n && ((unsigned char)text[i] & 0xc0) == 0x80;
}

int regex_find(const regex *r, regex_scratch *s, const char *text, size_t n, size_t *start, size_t *end) {
    int status = pcre2_match(r->code, (PCRE2_SPTR)text, n, *start, PCRE2_NO_UTF_CHECK, s->match, s->context);
    if (status == PCRE2_ERROR_NOMATCH) return 0;
    if (status < 0) {
        char why[256];
        pcre2_get_error_message(status, (PCRE2_UCHAR *)why, sizeof why);
        return fail("a pattern of the tokenizer cannot be matched against this text: %s", why);
    }
    const size_t *bounds = pcre2_get_ovector_pointer(s->match);
    if (bounds[0] < *start || bounds[1] < bounds[0] || bounds[1] > n || cuts_character(text, n, bounds[0]) ||
        cuts_character(text, n, bounds[1]))
        return fail("a pattern of the tokenizer matches what is no part of this text");
    *start = bounds[0];
    *end = bounds[1];
    return 1;
}
