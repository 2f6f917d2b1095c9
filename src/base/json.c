/* json.c - the thin layer over cJSON.
 * cJSON limits nesting to 1,000 levels, so hostile depth ends in an error, not in a crash. */
#include "base/base.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Python's json module also reads and writes numbers that are not finite. cJSON does not, but gives
 * infinity for a number that is too large. NaN becomes an empty string, which is no number either:
 * only who asks for it finds an error. All keep their length, so that byte numbers in messages are
 * right. */
static void replace_not_finite(char *text, size_t n) {
    static const char *const words[][2] = {{"Infinity", "1e999   "}, {"NaN", "\"\" "}};
    bool quoted = false;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '"') quoted = !quoted;
        if (quoted && text[i] == '\\') i++;
        for (int w = 0; w < 2 && !quoted; w++) {
            size_t length = strlen(words[w][0]);
            if (n - i < length || memcmp(text + i, words[w][0], length)) continue;
            memcpy(text + i, words[w][1], length);
            i += length - 1;
            break;
        }
    }
}

static json *parse_not_finite(const char *text, size_t n) {
    char *copy = mem_new(n + 1, 1, "JSON");
    if (!copy) return NULL;
    memcpy(copy, text, n);
    replace_not_finite(copy, n);
    json *root = cJSON_ParseWithLengthOpts(copy, n, NULL, 0);
    free(copy);
    return root;
}

json *json_parse(const char *text, size_t n, const char *name) {
    const char *end = text;
    json *root = cJSON_ParseWithLengthOpts(text, n, &end, 0);
    if (!root) root = parse_not_finite(text, n);
    if (!root) return fail_null("%s: not valid JSON (at byte %zu of %zu)", name, (size_t)(end - text), n);
    return root;
}

json *json_parse_file(const char *path) {
    file_map map;
    if (file_map_open(&map, path)) return NULL;
    json *root = json_parse(map.data, map.size, path);
    file_map_close(&map);
    return root;
}

void json_free(json *root) {
    cJSON_Delete(root);
}

json *json_merged(const json *first, const json *second) {
    cJSON *all = cJSON_Duplicate(first, true);
    for (const cJSON *item = json_first(second); item && all; item = item->next) {
        if (json_get(all, item->string)) continue;
        cJSON_DeleteItemFromObjectCaseSensitive(all, item->string);
        cJSON *copy = cJSON_Duplicate(item, true);
        if (copy && cJSON_AddItemToObject(all, item->string, copy)) continue;
        cJSON_Delete(copy);
        cJSON_Delete(all);
        all = NULL;
    }
    return all ? all : fail_null("out of memory: JSON");
}

const json *json_get(const json *object, const char *key) {
    const json *v = cJSON_IsObject(object) ? cJSON_GetObjectItemCaseSensitive(object, key) : NULL;
    return cJSON_IsNull(v) ? NULL : v;
}

bool json_is_null(const json *object, const char *key) {
    return cJSON_IsObject(object) && cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(object, key));
}

const json *json_first(const json *parent) {
    return parent ? parent->child : NULL;
}

const json *json_next(const json *item) {
    return item->next;
}

int json_length(const json *parent) {
    return cJSON_GetArraySize(parent);
}

bool json_is_object(const json *v) {
    return cJSON_IsObject(v);
}

bool json_is_array(const json *v) {
    return cJSON_IsArray(v);
}

bool json_is_string(const json *v) {
    return cJSON_IsString(v);
}

/* transformers writes a number that is not finite as {"__float__": "Infinity"}, too. */
static const json *number_of(const json *v) {
    static const cJSON infinite[] = {{.type = cJSON_Number, .valuedouble = INFINITY},
                                     {.type = cJSON_Number, .valuedouble = -INFINITY}};
    const char *text = cJSON_IsObject(v) ? json_string(json_get(v, "__float__")) : NULL;
    if (text && !strcmp(text, "Infinity")) return &infinite[0];
    if (text && !strcmp(text, "-Infinity")) return &infinite[1];
    return cJSON_IsNumber(v) ? v : NULL;
}

bool json_is_number(const json *v) {
    return number_of(v) != NULL;
}

bool json_is_bool(const json *v) {
    return cJSON_IsBool(v);
}

const char *json_key(const json *v) {
    return v->string;
}

const char *json_string(const json *v) {
    return cJSON_GetStringValue(v);
}

double json_number(const json *v) {
    const json *number = number_of(v);
    return number ? number->valuedouble : 0;
}

bool json_true(const json *v) {
    return cJSON_IsTrue(v);
}

/* The member, or NULL with *status -1 (an error is recorded) or 0 (absent, and that is fine). */
static const json *member(const json *object, const char *name, const char *key, bool required, int *status) {
    const json *v = json_get(object, key);
    *status = !v && required ? fail("%s: \"%s\" is missing", name, key) : 0;
    return v;
}

int json_get_int(const json *object, const char *name, const char *key, bool required, int64_t min,
                 int64_t max, int64_t *out) {
    int status;
    const json *v = member(object, name, key, required, &status);
    if (!v) return status;
    double d = json_number(v);
    if (!json_is_number(v) || d != floor(d)) return fail("%s: \"%s\" is not an integer", name, key);
    if (!(d >= (double)min && d <= (double)max))
        return fail("%s: \"%s\" is %.0f, outside %lld to %lld", name, key, d, (long long)min, (long long)max);
    *out = (int64_t)d;
    return 0;
}

int json_get_float(const json *object, const char *name, const char *key, bool required, double *out) {
    int status;
    const json *v = member(object, name, key, required, &status);
    if (!v) return status;
    if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble))
        return fail("%s: \"%s\" is not a finite number", name, key);
    *out = v->valuedouble;
    return 0;
}

int json_get_bool(const json *object, const char *name, const char *key, bool required, bool *out) {
    int status;
    const json *v = member(object, name, key, required, &status);
    if (!v) return status;
    if (!cJSON_IsBool(v)) return fail("%s: \"%s\" is not true or false", name, key);
    *out = cJSON_IsTrue(v);
    return 0;
}

int json_get_string(const json *object, const char *name, const char *key, bool required, const char **out) {
    int status;
    const json *v = member(object, name, key, required, &status);
    if (!v) return status;
    if (!cJSON_IsString(v)) return fail("%s: \"%s\" is not a string", name, key);
    *out = v->valuestring;
    return 0;
}

/* Length of the valid UTF-8 character at s (Unicode, table 3-7), 0 when there is none. */
static size_t utf8_length(const unsigned char *s) {
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0; /* a terminating NUL ends here too */
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xed && s[1] >= 0xa0, too_large = s[0] == 0xf4 && s[1] >= 0x90;
    return overlong || surrogate || too_large ? 0 : n;
}

void json_quote(str *out, const char *text) {
    str_puts(out, "\"");
    for (const char *c = text; *c;) {
        size_t n = utf8_length((const unsigned char *)c);
        if (!n)
            str_puts(out, "\xEF\xBF\xBD");
        else if (*c == '"' || *c == '\\')
            str_printf(out, "\\%c", *c);
        else if (n == 1 && *c < ' ')
            str_printf(out, "\\u%04x", (unsigned)*c);
        else
            str_append(out, c, n);
        c += n ? n : 1;
    }
    str_puts(out, "\"");
}
