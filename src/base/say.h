/* say.h - lines on stderr for whoever is there: plain text for people, or, with --progress json, a
 * JSON object a line for a program that wraps this one.
 */
#ifndef BASE_SAY_H
#define BASE_SAY_H

#include <stdbool.h>

#include "base/error.h"
#include "base/str.h"

typedef enum say_kind { SAY_NOTE, SAY_DOWNLOAD, SAY_ERROR } say_kind;

/* From now on in JSON. */
void say_as_json(void);
bool says_json(void);

/* "mlxbench: note: TEXT", and without the word "note" for the others; as JSON an object with the
 * members "event" (note, download or error) and "text". */
void say(say_kind kind, const char *format, ...) PRINTF_LIKE(2, 3);

/* The recorded error; as JSON it has the "exit_code", too. */
void say_error(int exit_code);

/* One JSON object in a line: "event" and other members, as text after a comma. */
void say_event(const char *event, const str *members);

#endif
