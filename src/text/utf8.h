/* utf8.h - UTF-8 by hand: decoding that survives any bytes, and the few character classes the
 * tokenizers need. Private to text/. */
#ifndef TEXT_UTF8_H
#define TEXT_UTF8_H

#include "base/base.h"

enum { UTF8_INVALID = -1, UTF8_UNFINISHED = -2, UTF8_REPLACEMENT = 0xfffd };

/* Decodes the character at text (n > 0 bytes) and returns its length. For bytes that are no
 * character *c is UTF8_INVALID, or UTF8_UNFINISHED when more bytes could complete it, and the
 * length is that of the bytes one U+FFFD stands for (the Unicode standard's maximal subpart). */
size_t utf8_decode(const char *text, size_t n, int32_t *c);

/* Writes c's 1 to 4 bytes and returns how many. */
size_t utf8_encode(int32_t c, char *bytes);

/* Appends n bytes with U+FFFD in place of whatever is no character. */
void utf8_append(str *out, const char *text, size_t n);
bool utf8_is_valid(const char *text, size_t n);

/* How many bytes at the end begin a character that is not complete: 0 to 3. */
size_t utf8_unfinished(const char *text, size_t n);

bool char_is_space(int32_t c); /* Unicode White_Space */
bool char_is_word(int32_t c);  /* letters, marks, digits, connectors: what \w is to Hugging Face tokenizers */

/* The byte-level alphabet of GPT-2: every byte has a printable character. byte_of_char is -1 for
 * characters outside it. */
int32_t char_of_byte(uint8_t byte);
int byte_of_char(int32_t c);

#endif
