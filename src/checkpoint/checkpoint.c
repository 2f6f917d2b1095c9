/* checkpoint.c - opening and closing a checkpoint, its tensor table, and the memory it owns.
 * The formats differ only in how they fill the table; everything after that is common. */
#include "checkpoint/internal.h"
#include "sys/sys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- memory ---- */

/* Arrays lie side by side in blocks of huge pages, so that small ones, too, are read without a page
 * table's walk for every 4 KiB of them. */
enum { HUGE_PAGE = 2 << 20, BLOCK_SIZE = 32 * HUGE_PAGE, ALIGNMENT = 64 };

struct owned_memory {
    struct owned_memory *next;
    char *data;
    size_t size, used;
};

/* A block with room for size bytes; what is not touched of it costs nothing. */
static struct owned_memory *new_block(checkpoint *c, size_t size, const char *what) {
    struct owned_memory *block = arena_alloc(c->arena, sizeof *block);
    if (!block) return NULL;
    size_t room = size > BLOCK_SIZE ? size : BLOCK_SIZE, whole = room + HUGE_PAGE;
    void *data = MAP_FAILED;
    if (whole > room) data = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        return fail_null("out of memory: %s needs %.2f GB: %s", what, (double)size / 1e9, strerror(errno));
#ifdef MADV_HUGEPAGE
    madvise(data, whole, MADV_HUGEPAGE);
#endif
    size_t skipped = (HUGE_PAGE - (uintptr_t)data % HUGE_PAGE) % HUGE_PAGE;
    *block = (struct owned_memory){.next = c->owned, .data = data, .size = whole, .used = skipped};
    c->owned = block;
    return block;
}

/* Asking the system takes some 0.1 ms, and a model has hundreds of tensors: what it said is used up
 * first. */
static int take_free_memory(checkpoint *c, size_t bytes, const char *what) {
    if (bytes > c->free_memory) {
        int64_t available = sys_available_memory();
        c->free_memory = available ? (uint64_t)available : UINT64_MAX;
    }
    if (bytes > c->free_memory)
        return fail("out of memory: %s needs %.2f GB, %.2f GB are free", what, (double)bytes / 1e9,
                    (double)c->free_memory / 1e9);
    c->free_memory -= bytes;
    return 0;
}

void *own_memory(checkpoint *c, size_t bytes, const char *what) {
    if (!c->sizes_only && take_free_memory(c, bytes, what)) return NULL;
    struct owned_memory *owned = c->owned;
    size_t size = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if ((!owned || size > owned->size - owned->used) && !(owned = new_block(c, size, what))) return NULL;
    void *data = owned->data + owned->used;
    owned->used += size;
    return data;
}

/* ---- the table of tensors ---- */

static int by_name(const void *a, const void *b) {
    return strcmp(((const stored *)a)->name, ((const stored *)b)->name);
}

static int by_place(const void *a, const void *b) {
    const char *x = ((const stored *)a)->data.data, *y = ((const stored *)b)->data.data;
    return (x > y) - (x < y);
}

int64_t checkpoint_stored_bytes(const checkpoint *c) {
    int64_t bytes = 0;
    for (size_t i = 0; i < c->n_tensors; i++) bytes += (int64_t)c->tensors[i].bytes;
    return bytes;
}

stored *find_stored(const checkpoint *c, const char *name) {
    stored key = {.name = name};
    return c->n_tensors ? bsearch(&key, c->tensors, c->n_tensors, sizeof key, by_name) : NULL;
}

stored *add_stored(checkpoint *c, size_t n) {
    void *items = c->tensors;
    if (n > SIZE_MAX - c->n_tensors) return fail_null("out of memory: %zu tensors", n);
    if (mem_resize(&items, c->n_tensors + n, sizeof *c->tensors, "the table of tensors")) return NULL;
    c->tensors = items;
    if (n) memset(c->tensors + c->n_tensors, 0, n * sizeof *c->tensors);
    return c->tensors + c->n_tensors;
}

int check_overlaps(checkpoint *c, size_t first) {
    size_t n = c->n_tensors - first;
    const stored *last = NULL;
    if (n) qsort(c->tensors + first, n, sizeof *c->tensors, by_place);
    for (size_t i = first; i < c->n_tensors; i++) {
        const stored *t = &c->tensors[i];
        if (!t->bytes) continue;
        if (last && (const char *)last->data.data + last->bytes > (const char *)t->data.data)
            return fail("%s: the data of tensors \"%s\" and \"%s\" overlap", t->file, last->name, t->name);
        last = t;
    }
    return 0;
}

int sort_tensors(checkpoint *c) {
    if (c->n_tensors) qsort(c->tensors, c->n_tensors, sizeof *c->tensors, by_name);
    for (size_t i = 1; i < c->n_tensors; i++) {
        const stored *a = &c->tensors[i - 1], *b = &c->tensors[i];
        if (!strcmp(a->name, b->name))
            return fail("tensor \"%s\" is there twice, in %s and in %s", a->name, a->file, b->file);
    }
    return 0;
}

bool checkpoint_has(const checkpoint *c, const char *name) {
    return find_stored(c, name) != NULL;
}

/* ---- which tensors may stay unused ---- */

struct ignored_part {
    struct ignored_part *next;
    const char *part;
};

int checkpoint_ignore(checkpoint *c, const char *part) {
    struct ignored_part *ignored = arena_alloc(c->arena, sizeof *ignored);
    if (!ignored || !(ignored->part = arena_string(c->arena, part))) return -1;
    ignored->next = c->ignored;
    c->ignored = ignored;
    return 0;
}

static bool may_stay_unused(const checkpoint *c, const char *name) {
    for (const struct ignored_part *i = c->ignored; i; i = i->next)
        if (strstr(name, i->part)) return true;
    return false;
}

int checkpoint_check_all_used(const checkpoint *c) {
    const stored *surplus = NULL;
    size_t n = 0;
    for (size_t i = 0; i < c->n_tensors; i++) {
        const stored *t = &c->tensors[i];
        if (t->used || may_stay_unused(c, t->name)) continue;
        if (!surplus) surplus = t;
        n++;
    }
    if (!surplus) return 0;
    char shape[96];
    return fail("%s: surplus tensor \"%s\" %s: a model of this config.json has none (%zu such in all)",
                surplus->file, surplus->name,
                shape_text(shape, sizeof shape, surplus->data.rank, surplus->data.shape), n);
}

/* ---- configuration ---- */

/* Reads config's eos_token_id, a number or a list, over an earlier one. */
static int read_eos_ids(checkpoint *c, const json *config, const char *name) {
    const json *v = json_get(config, "eos_token_id");
    int n = json_is_array(v) ? json_length(v) : v ? 1 : 0;
    bool zero = c->n_eos_ids && json_is_number(v) && json_number(v) == 0; /* nothing to Python's `or` */
    if (!n || zero) return 0;
    int32_t *ids = arena_alloc(c->arena, (size_t)n * sizeof *ids);
    if (!ids) return -1;
    const json *item = json_is_array(v) ? json_first(v) : v;
    for (int i = 0; i < n; i++, item = json_next(item)) {
        double id = json_number(item);
        if (!json_is_number(item) || !(id >= 0 && id <= INT32_MAX) || id != (double)(int32_t)id)
            return fail("%s: \"eos_token_id\" is neither a token id nor a list of them", name);
        ids[i] = (int32_t)id;
    }
    c->eos_ids = ids;
    c->n_eos_ids = n;
    return 0;
}

static int read_generation_config(checkpoint *c) {
    const char *path = arena_printf(c->arena, "%s/generation_config.json", c->folder);
    if (!path) return -1;
    if (!file_exists(path)) return 0;
    json *config = json_parse_file(path);
    if (!config) { /* as mlx-lm: it only adds to config.json */
        error_clear();
        return checkpoint_add_note(c, "generation_config.json is not valid JSON and was not read");
    }
    int status = read_eos_ids(c, config, path);
    json_free(config);
    return status;
}

/* The id of a token in tokenizer.json; -1: it has none. */
static int64_t token_id(const json *tokenizer, const char *token) {
    const json *added = json_get(tokenizer, "added_tokens");
    for (const json *item = json_first(added); item; item = json_next(item)) {
        const char *content = json_string(json_get(item, "content"));
        if (content && !strcmp(content, token)) return (int64_t)json_number(json_get(item, "id"));
    }
    const json *id = json_get(json_get(json_get(tokenizer, "model"), "vocab"), token);
    return json_is_number(id) ? (int64_t)json_number(id) : -1;
}

/* Where config.json says nothing of it: tokenizer_config.json's eos_token (mlx-lm
 * tokenizer_utils.py). */
static int read_tokenizer_eos(checkpoint *c) {
    const char *path = arena_printf(c->arena, "%s/tokenizer_config.json", c->folder);
    const char *file = arena_printf(c->arena, "%s/tokenizer.json", c->folder);
    if (!path || !file) return -1;
    if (c->n_eos_ids || !file_exists(path) || !file_exists(file)) return 0;
    json *config = json_parse_file(path), *tokenizer = config ? json_parse_file(file) : NULL;
    const json *eos = json_get(config, "eos_token");
    const char *token = json_string(json_is_object(eos) ? json_get(eos, "content") : eos);
    int64_t id = token && tokenizer ? token_id(tokenizer, token) : -1;
    if (!config || !tokenizer) error_clear(); /* who needs the tokenizer says what is wrong with it */
    int32_t *ids = id >= 0 && id <= INT32_MAX ? arena_alloc(c->arena, sizeof *ids) : NULL;
    if (ids) {
        *ids = (int32_t)id;
        c->eos_ids = ids;
        c->n_eos_ids = 1;
    }
    json_free(config);
    json_free(tokenizer);
    return 0;
}

static int open_folder(checkpoint *c, const char *path) {
    c->folder = arena_string(c->arena, path);
    c->config_name = arena_printf(c->arena, "%s/config.json", path);
    if (!c->folder || !c->config_name) return -1;
    if (!(c->config = json_parse_file(c->config_name))) return explain_file(c->config_name);
    if (!json_is_object(c->config)) return fail("%s: not a JSON object", c->config_name);
    if (json_get(c->config, "model_file"))
        return fail("%s: \"model_file\" asks to run Python code that comes with the model: not supported",
                    c->config_name);
    if (quantization_read(c)) return -1;
    return safetensors_open(c) || foreign_rename(c) ? -1 : 0;
}

/* ---- opening ---- */

static int open_any(checkpoint *c, const char *path, uint64_t seed) {
    const char prefix[] = "synthetic:";
    int status;
    if (!strncmp(path, prefix, sizeof prefix - 1))
        status = synthetic_open(c, path + sizeof prefix - 1, seed);
    else if (dir_exists(path))
        status = open_folder(c, path);
    else
        status = gguf_open(c, path);
    if (status || read_eos_ids(c, c->config, c->config_name)) return -1;
    if (c->folder && (read_generation_config(c) || read_tokenizer_eos(c))) return -1;
    return sort_tensors(c);
}

checkpoint *checkpoint_open(const char *path, uint64_t seed) {
    checkpoint *c = mem_new(1, sizeof *c, "a checkpoint");
    if (!c) return NULL;
    if (!(c->arena = arena_new()) || open_any(c, path, seed)) {
        checkpoint_close(c);
        return NULL;
    }
    return c;
}

checkpoint *checkpoint_sizes(const checkpoint *of) {
    checkpoint *c = mem_new(1, sizeof *c, "a checkpoint");
    if (!c) return NULL;
    if (!(c->arena = arena_new()) || synthetic_open(c, of->synthetic.preset, of->synthetic.seed)) {
        checkpoint_close(c);
        return NULL;
    }
    checkpoint_skip_values(c);
    return c;
}

void checkpoint_skip_values(checkpoint *c) {
    c->sizes_only = true;
}

void checkpoint_close(checkpoint *c) {
    if (!c) return;
    for (size_t i = 0; i < c->n_files; i++) file_map_close(&c->files[i]);
    for (struct owned_memory *m = c->owned; m; m = m->next) munmap(m->data, m->size);
    json_free(c->config);
    free(c->tensors);
    arena_free(c->arena);
    free(c);
}

const json *checkpoint_config(const checkpoint *c) {
    return c->config;
}

const char *checkpoint_config_name(const checkpoint *c) {
    return c->config_name;
}

bool checkpoint_is_synthetic(const checkpoint *c) {
    return c->synthetic.enabled;
}

bool checkpoint_is_gguf(const checkpoint *c) {
    return !c->folder && !c->synthetic.enabled;
}

const char *checkpoint_folder(const checkpoint *c) {
    return c->folder;
}

int checkpoint_eos_ids(const checkpoint *c, int32_t *ids, int max) {
    int n = c->n_eos_ids < max ? c->n_eos_ids : max;
    for (int i = 0; i < n; i++) ids[i] = c->eos_ids[i];
    return n > 0 ? n : 0;
}

const gguf_vocabulary *checkpoint_vocab(const checkpoint *c) {
    return c->vocabulary;
}
