/* fuzz_hub.c - what the Hub, a cache or a user says: lists of files, a commit, a name. Whatever it
 * is, what comes out can be written below a folder, or there is an error. The first byte chooses
 * the reader. */
#include "hub/listing.h"
#include "hub/name.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_list(int (*read)(listing *, const char *, size_t), const char *text, size_t n) {
    listing l = {0};
    if (!read(&l, text, n))
        for (int i = 0; i < l.n; i++) {
            const repo_file *f = &l.items[i];
            if (!hub_path_is_safe(f->path) || !hub_is_hex(f->etag, f->lfs ? 64 : 40) || f->size < 0) abort();
        }
    listing_free(&l);
}

static int read_text(listing *l, const char *text, size_t n) {
    return listing_read_text(l, text, n, "a list");
}

static void read_name(const char *data, size_t n) {
    hub_name name;
    char *text = calloc(n + 1, 1);
    if (!text) return;
    memcpy(text, data, n);
    if (hub_name_parse(text, "https://example.org", &name)) {
        if (!hub_path_is_safe(name.repo) || !hub_path_is_safe(name.revision)) abort();
        if (*name.file && !hub_path_is_safe(name.file)) abort();
        if (strstr(name.repo, "--") || strchr(name.repo, '/') != strrchr(name.repo, '/')) abort();
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data + 1;
    char commit[41] = "";
    if (!size) return 0;
    if (*data == 't')
        read_list(listing_read_tree, text, size - 1);
    else if (*data == 'l')
        read_list(read_text, text, size - 1);
    else if (*data == 'n')
        read_name(text, size - 1);
    else if (!listing_read_commit(text, size - 1, commit) && !hub_is_hex(commit, 40))
        abort();
    return 0;
}
