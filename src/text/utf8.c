/* utf8.c - UTF-8, character classes and the byte-level alphabet.
 * Everything behind this file may assume that text is valid UTF-8. */
#include "text/utf8.h"

#include <utf8proc.h>

size_t utf8_decode(const char *text, size_t n, int32_t *c) {
    const unsigned char *s = (const unsigned char *)text;
    unsigned char lead = s[0], low = 0x80, high = 0xbf; /* what the second byte may be */
    size_t length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    *c = lead;
    if (length == 1) return 1;
    *c = UTF8_INVALID;
    if (lead < 0xc2 || lead > 0xf4) return 1;
    if (lead == 0xe0) low = 0xa0;  /* else it had a shorter form */
    if (lead == 0xed) high = 0x9f; /* else it is a surrogate */
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f; /* else beyond U+10FFFF */
    int32_t value = lead & (0x7f >> length);
    for (size_t i = 1; i < length; i++, low = 0x80, high = 0xbf) {
        if (i >= n) *c = UTF8_UNFINISHED;
        if (i >= n || s[i] < low || s[i] > high) return i;
        value = value << 6 | (s[i] & 0x3f);
    }
    *c = value;
    return length;
}

size_t utf8_encode(int32_t c, char *bytes) {
    static const unsigned char leads[] = {0, 0, 0xc0, 0xe0, 0xf0};
    size_t length = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = length; i-- > 1; c >>= 6) bytes[i] = (char)(0x80 | (c & 0x3f));
    bytes[0] = (char)(leads[length] | c);
    return length;
}

/* Bytes of valid UTF-8 at the beginning. */
static size_t valid_prefix(const char *text, size_t n) {
    size_t i = 0;
    for (int32_t c = 0; i < n;) {
        size_t length = utf8_decode(text + i, n - i, &c);
        if (c < 0) break;
        i += length;
    }
    return i;
}

bool utf8_is_valid(const char *text, size_t n) {
    return valid_prefix(text, n) == n;
}

void utf8_append(str *out, const char *text, size_t n) {
    while (n) {
        size_t valid = valid_prefix(text, n);
        str_append(out, text, valid);
        if (valid == n) break;
        int32_t c;
        size_t bad = utf8_decode(text + valid, n - valid, &c);
        str_puts(out, "\xef\xbf\xbd");
        text += valid + bad;
        n -= valid + bad;
    }
}

size_t utf8_unfinished(const char *text, size_t n) {
    for (size_t k = 1; k <= 3 && k <= n; k++) {
        unsigned char byte = (unsigned char)text[n - k];
        if (byte < 0x80) return 0;
        if (byte < 0xc0) continue;
        int32_t c;
        return utf8_decode(text + n - k, k, &c) == k && c == UTF8_UNFINISHED ? k : 0;
    }
    return 0;
}

bool char_is_space(int32_t c) {
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

bool char_is_word(int32_t c) {
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default: /* joiners, and the enclosed letters, which are symbols with the Alphabetic property */
        return c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
               (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
    }
}

/* Printable Latin-1 bytes stand for themselves; the other 68 are numbered from U+0100 on. */
int32_t char_of_byte(uint8_t byte) {
    if (byte <= ' ') return 256 + byte;
    if (byte >= 127 && byte <= 160) return 256 + 33 + (byte - 127);
    return byte == 173 ? 256 + 33 + 34 : byte;
}

int byte_of_char(int32_t c) {
    if (c >= 256 && c < 256 + 33) return c - 256;
    if (c >= 256 + 33 && c < 256 + 33 + 34) return c - (256 + 33) + 127;
    if (c == 256 + 33 + 34) return 173;
    return c > ' ' && c < 256 && char_of_byte((uint8_t)c) == c ? c : -1;
}
