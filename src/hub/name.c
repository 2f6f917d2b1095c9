/* name.c - from what people write to a repository, a revision and a file.
 * Sources: huggingface_hub's utils/_validators.py (repository names) and its guide to hf:// addresses. */
#include "hub/name.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

bool hub_is_hex(const char *text, size_t n) {
    return strlen(text) == n && strspn(text, "0123456789abcdef") == n;
}

/* Is text[0..n) a user's or a model's name? "--" is what separates them in the cache. */
static bool is_word(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)text[i]) && !strchr("-_.", text[i])) return false;
        if (i && (!strncmp(text + i - 1, "--", 2) || !strncmp(text + i - 1, "..", 2))) return false;
    }
    return n > 0 && n <= 96 && text[0] != '.' && text[0] != '-' && text[n - 1] != '.' && text[n - 1] != '-';
}

bool hub_path_is_safe(const char *path) {
    for (const char *part = path;; part++) {
        size_t n = strcspn(part, "/");
        if (!n || n > 255 || (n == 1 && *part == '.') || (n == 2 && !strncmp(part, "..", 2))) return false;
        for (size_t i = 0; i < n; i++)
            if ((unsigned char)part[i] < ' ' || part[i] == 127 || part[i] == '\\') return false;
        part += n;
        if (!*part) return strlen(path) < 1024;
    }
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

bool hub_name_is_explicit(const char *text) {
    return !strncmp(text, "hf:", 3) || !strncmp(text, "https://", 8) || !strncmp(text, "http://", 7);
}

/* Copies text[0..n); false when it does not fit. */
static bool copy(char *to, size_t size, const char *text, size_t n) {
    if (n >= size) return false;
    memcpy(to, text, n);
    to[n] = '\0';
    return true;
}

static bool take_revision(hub_name *name, const char *text, size_t n) {
    name->revision_given = true;
    return copy(name->revision, sizeof name->revision, text, n) && hub_path_is_safe(name->revision);
}

enum { TAIL = sizeof "-00001-of-00003.gguf" - 1, MOST_PARTS = 1000 };

int hub_gguf_parts(const char *file) {
    int part, n, used = 0;
    size_t length = strlen(file);
    const char *tail = length > TAIL ? file + length - TAIL : "";
    bool match = sscanf(tail, "-%5d-of-%5d.gguf%n", &part, &n, &used) == 2 && used == TAIL;
    return match && part > 0 && part <= n && n <= MOST_PARTS ? n : 0;
}

void hub_gguf_part(char *file, int i) {
    char digits[16];
    snprintf(digits, sizeof digits, "%05d", i);
    memcpy(file + strlen(file) - TAIL + 1, digits, 5);
}

static bool take_file(hub_name *name, const char *text, size_t n) {
    bool good = copy(name->file, sizeof name->file, text, n) && hub_path_is_safe(name->file) &&
                ends_with(name->file, ".gguf");
    if (good && hub_gguf_parts(name->file)) hub_gguf_part(name->file, 1); /* whichever was named */
    return good;
}

/* A revision before a file ends at the first slash, except of refs/pr/1 and refs/convert/x. */
static size_t revision_length(const char *text) {
    size_t n = strcspn(text, "/");
    for (int i = 0; i < 2 && !strncmp(text, "refs/", 5) && text[n]; i++) n += 1 + strcspn(text + n + 1, "/");
    return n;
}

/* Reads "owner/name" or "name", and says where it ends; NULL when it is none. A single word that
 * ends as a file does is a file that is not there. */
static const char *end_of_repo(const char *text) {
    const char *end = text + strcspn(text, "/@");
    if (!is_word(text, (size_t)(end - text))) return NULL;
    bool file = !*end && (ends_with(text, ".gguf") || ends_with(text, ".safetensors"));
    if (*end != '/') return file ? NULL : end;
    const char *second = end + 1;
    end = second + strcspn(second, "/@");
    return is_word(second, (size_t)(end - second)) ? end : NULL;
}

/* "owner/name..." after any prefix. */
static bool parse_plain(const char *text, hub_name *name) {
    const char *end = end_of_repo(text);
    if (!end || !copy(name->repo, sizeof name->repo, text, (size_t)(end - text))) return false;
    if (*end == '@') {
        const char *revision = end + 1;
        if (!ends_with(revision, ".gguf")) return take_revision(name, revision, strlen(revision));
        size_t n = revision_length(revision);
        return revision[n] == '/' && take_revision(name, revision, n) &&
               take_file(name, revision + n + 1, strlen(revision + n + 1));
    }
    if (!*end || !strcmp(end, "/")) return true;
    const char *at = strrchr(end, '@');
    if (at && !take_revision(name, at + 1, strlen(at + 1))) return false;
    return take_file(name, end + 1, at ? (size_t)(at - end - 1) : strlen(end + 1));
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : isxdigit((unsigned char)c) ? tolower(c) - 'a' + 10 : -1;
}

/* The path of an address: what is before "?" and "#", its %XX decoded. */
static bool decode(char *out, size_t size, const char *text) {
    size_t n = 0;
    for (; *text && *text != '?' && *text != '#'; text++) {
        int high = *text == '%' ? hex_digit(text[1]) : -1, low = high >= 0 ? hex_digit(text[2]) : -1;
        char c = low >= 0 ? (char)(high * 16 + low) : *text;
        if (low >= 0) text += 2;
        if (!c || n + 1 >= size) return false;
        out[n++] = c;
    }
    while (n && out[n - 1] == '/') n--;
    out[n] = '\0';
    return true;
}

static bool begins(const char *text, const char *word) {
    return !strncmp(text, word, strlen(word));
}

/* owner/name, owner/name/tree/REVISION, owner/name/blob/REVISION/FILE (or resolve); the same
 * without owner.
 */
static bool parse_page(const char *address, hub_name *name) {
    char path[1024];
    if (!decode(path, sizeof path, address)) return false;
    char *slash = strchr(path, '/'), *rest = slash ? strchr(slash + 1, '/') : NULL;
    if (rest && (begins(slash, "/tree/") || begins(slash, "/blob/") || begins(slash, "/resolve/")))
        rest = slash;
    if (!rest) return parse_plain(path, name);
    *rest++ = '\0';
    if (!parse_plain(path, name) || name->revision_given) return false;
    bool tree = begins(rest, "tree/"), file = begins(rest, "blob/") || begins(rest, "resolve/");
    const char *revision = strchr(rest, '/');
    if (!revision || (!tree && !file)) return false;
    revision++;
    size_t n = tree ? strlen(revision) : revision_length(revision);
    if (!take_revision(name, revision, n)) return false;
    return tree || (revision[n] == '/' && take_file(name, revision + n + 1, strlen(revision + n + 1)));
}

bool hub_name_parse(const char *text, const char *endpoint, hub_name *name) {
    const char *const pages[] = {endpoint, "https://huggingface.co", "https://hf.co",
                                 "http://huggingface.co"};
    *name = (hub_name){.revision = "main"};
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        size_t n = strlen(pages[i]);
        if (n && !strncmp(text, pages[i], n) && text[n] == '/') return parse_page(text + n + 1, name);
    }
    if (!strncmp(text, "hf://", 5)) return parse_plain(text + 5, name);
    if (!strncmp(text, "hf:", 3)) return parse_plain(text + 3, name);
    return parse_plain(text, name);
}
