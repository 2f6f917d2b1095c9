/* places.c - environment variables and files to folders, address and token.
 * LM Studio has no documentation of its files: its home is named by ~/.lmstudio-home-pointer, its
 * settings are in settings.json there or in the system's folder for applications. */
#include "hub/places.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

bool places_true(const char *name) {
    const char *value = variable(name), *const yes[] = {"1", "on", "yes", "true"};
    for (size_t i = 0; value && i < sizeof yes / sizeof *yes; i++)
        if (!strcasecmp(value, yes[i])) return true;
    return false;
}

long places_seconds(const char *name, long standard) {
    const char *value = variable(name);
    char *end;
    long seconds = value ? strtol(value, &end, 10) : 0;
    return value && !*end && seconds > 0 && seconds < 1000000 ? seconds : standard;
}

bool places_offline(void) {
    return variable("HF_HUB_OFFLINE") ? places_true("HF_HUB_OFFLINE") : places_true("TRANSFORMERS_OFFLINE");
}

/* Appends path with a leading "~" and $NAME or ${NAME} expanded, as Python's expanduser and
 * expandvars do: what is not set stays as it is. */
static void expand(str *out, const char *path) {
    const char *home = variable("HOME");
    if (*path == '~' && home && (path[1] == '/' || !path[1])) {
        str_puts(out, home);
        path++;
    }
    while (*path) {
        char name[128];
        size_t before = *path == '$' ? 1 + (path[1] == '{') : 0, n = 0;
        while (before && (isalnum((unsigned char)path[before + n]) || path[before + n] == '_')) n++;
        bool closed = before < 2 || path[before + n] == '}';
        const char *value = NULL;
        if (n && n < sizeof name && closed) {
            memcpy(name, path + before, n);
            name[n] = '\0';
            value = getenv(name);
        }
        if (value)
            str_puts(out, value);
        else
            str_append(out, path, 1);
        path += value ? before + n + (before == 2) : 1;
    }
}

/* Appends ~/.cache/huggingface, or where HF_HOME or XDG_CACHE_HOME say. */
static int hf_home(str *path) {
    const char *fixed = variable("HF_HOME"), *xdg = variable("XDG_CACHE_HOME"), *home = variable("HOME");
    if (fixed)
        expand(path, fixed);
    else if (xdg) {
        expand(path, xdg);
        str_puts(path, "/huggingface");
    } else if (home)
        str_printf(path, "%s/.cache/huggingface", home);
    else
        return fail("cannot find the Hugging Face cache: neither HF_HUB_CACHE, HF_HOME nor HOME is set");
    return path->failed ? -1 : 0;
}

int places_cache(str *path) {
    const char *fixed = variable("HF_HUB_CACHE");
    if (!fixed) fixed = variable("HUGGINGFACE_HUB_CACHE");
    if (!fixed) {
        if (hf_home(path)) return -1;
        str_puts(path, "/hub");
    } else
        expand(path, fixed);
    return path->failed ? -1 : 0;
}

void places_endpoint(str *url) {
    const char *fixed = variable("HF_ENDPOINT");
    str_puts(url, fixed ? fixed : "https://huggingface.co");
    while (!url->failed && url->length && url->data[url->length - 1] == '/') url->data[--url->length] = '\0';
}

/* Appends a small text file without the white space around it; nothing when it can't be read. */
static void read_line(const char *path, str *out) {
    file_map map;
    if (!file_exists(path) || file_map_open(&map, path)) return;
    size_t start = 0, end = map.size < 4096 ? map.size : 4096;
    while (start < end && isspace((unsigned char)map.data[start])) start++;
    while (end > start && isspace((unsigned char)map.data[end - 1])) end--;
    str_append(out, map.data + start, end - start);
    file_map_close(&map);
}

int places_token(str *token) {
    if (places_true("HF_HUB_DISABLE_IMPLICIT_TOKEN")) return 0;
    const char *given = variable("HF_TOKEN"), *file = variable("HF_TOKEN_PATH");
    if (!given) given = variable("HUGGING_FACE_HUB_TOKEN");
    size_t start = token->length;
    if (given) {
        size_t end = strlen(given);
        while (isspace((unsigned char)*given)) given++, end--;
        while (end && isspace((unsigned char)given[end - 1])) end--;
        str_append(token, given, end);
    } else {
        str path = {0};
        if (file)
            expand(&path, file);
        else if (!hf_home(&path))
            str_puts(&path, "/token");
        if (path.length && !path.failed) read_line(path.data, token);
        str_free(&path);
        error_clear(); /* no home: no token */
    }
    for (size_t i = start; i < token->length; i++)
        if (token->data[i] <= ' ' || token->data[i] > '~')
            return fail("the access token (%s) has characters that no token has",
                        given ? "HF_TOKEN" : "the token file");
    return token->failed ? -1 : 0;
}

/* ---- LM Studio ---- */

typedef struct visit {
    int (*each)(void *context, const char *folder);
    void *context;
    str seen; /* newline-separated, so that no folder is visited twice */
} visit;

static int visit_folder(visit *v, const str *folder) {
    if (folder->failed || !folder->length || !dir_exists(folder->data)) return 0;
    str key = {0};
    str_printf(&key, "\n%s\n", folder->data);
    bool seen = key.failed || (v->seen.data && strstr(v->seen.data, key.data));
    if (!seen) str_puts(&v->seen, key.data);
    str_free(&key);
    return seen ? 0 : v->each(v->context, folder->data);
}

/* The models' folder that a settings.json names. */
static int visit_settings(visit *v, const char *home) {
    str path = {0}, folder = {0};
    str_printf(&path, "%s/settings.json", home);
    json *settings = !path.failed && file_exists(path.data) ? json_parse_file(path.data) : NULL;
    const char *named = json_string(json_get(settings, "downloadsFolder"));
    if (named) expand(&folder, named);
    json_free(settings);
    int stop = visit_folder(v, &folder);
    str_free(&path);
    str_free(&folder);
    return stop;
}

static int visit_home(visit *v, const char *home) {
    str folder = {0};
    str_printf(&folder, "%s/models", home);
    int stop = visit_settings(v, home);
    if (!stop) stop = visit_folder(v, &folder);
    str_free(&folder);
    return stop;
}

int places_lmstudio(int (*each)(void *context, const char *folder), void *context) {
    const char *home = variable("HOME"), *const below[] = {".lmstudio", ".cache/lm-studio",
                                                           ".config/LM Studio",
                                                           "Library/Application Support/LM Studio"};
    if (!home) return 0;
    visit v = {.each = each, .context = context};
    str path = {0}, pointed = {0};
    str_printf(&path, "%s/.lmstudio-home-pointer", home);
    if (!path.failed) read_line(path.data, &pointed);
    int stop = pointed.length && !pointed.failed ? visit_home(&v, pointed.data) : 0;
    for (size_t i = 0; i < sizeof below / sizeof *below && !stop; i++) {
        str_clear(&path);
        str_printf(&path, "%s/%s", home, below[i]);
        if (!path.failed) stop = visit_home(&v, path.data);
    }
    str_free(&path);
    str_free(&pointed);
    str_free(&v.seen);
    return stop;
}
