/* json.h - reading JSON with errors that name the file and the key (on top of cJSON).
 * Every getter takes the owner's name for the message and refuses wrong types and absurd
 * numbers. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

/* A parsed value; iterate with json_each. A document's root owns everything and is freed with
 * json_free. */
typedef struct cJSON json;

/* Parses n bytes (need not be terminated). NULL with a message "NAME: not valid JSON at byte N".
 * Infinity and NaN are read, as Python does; NaN is no number to the getters. */
json *json_parse(const char *text, size_t n, const char *name);
json *json_parse_file(const char *path);
void json_free(json *root);

/* A new object: all members of first, and those of second that first does not have (or has as
 * null). NULL when there is no memory. Free it with json_free. */
json *json_merged(const json *first, const json *second);

/* Members and elements. json_get returns NULL when absent, null, or when object is no object. */
const json *json_get(const json *object, const char *key);
bool json_is_null(const json *object, const char *key); /* the member is there, and null */
const json *json_first(const json *parent);             /* first member or element, NULL when none */
const json *json_next(const json *item);
#define json_each(item, parent) for (const json *item = json_first(parent); item; item = json_next(item))
int json_length(const json *parent);

bool json_is_object(const json *v);
bool json_is_array(const json *v);
bool json_is_string(const json *v);
bool json_is_number(const json *v);
bool json_is_bool(const json *v);
const char *json_key(const json *v);    /* member name, NULL for an element */
const char *json_string(const json *v); /* NULL when v is no string */
double json_number(const json *v);      /* 0 when v is no number */
bool json_true(const json *v);          /* v is the literal true */

/* Checked members: *out is untouched and 0 returned when the key is absent or null and required is
 * false. -1 with a message that starts with name (the file) when absent though required, of another
 * type, not an integer, or outside [min, max]. */
int json_get_int(const json *object, const char *name, const char *key, bool required, int64_t min,
                 int64_t max, int64_t *out);
int json_get_float(const json *object, const char *name, const char *key, bool required, double *out);
int json_get_bool(const json *object, const char *name, const char *key, bool required, bool *out);
int json_get_string(const json *object, const char *name, const char *key, bool required, const char **out);

/* Appends a value in its canonical form (RFC 8785, for names in ASCII), but for the member
 * `without` of it; NULL: all. Infinite numbers, which JSON has not, become null. */
void json_canonical(str *out, const json *v, const char *without);

/* Appends text as a JSON string, quotes included. UTF-8 passes through; each byte that is not part
 * of valid UTF-8 becomes U+FFFD, and a control character \u00XX. */
void json_quote(str *out, const char *text);

#endif
