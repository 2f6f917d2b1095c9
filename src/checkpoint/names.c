/* names.c - what a published checkpoint calls its tensors, turned into mlx-lm's names before any is
 * asked for. Rules change the table of tensors alone: no data is touched (mlx-lm: the sanitize
 * function of a model). */
#include "checkpoint/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- notes ---- */

struct checkpoint_note {
    struct checkpoint_note *next;
    const char *text;
};

int checkpoint_add_note(checkpoint *c, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    struct checkpoint_note *note = arena_alloc(c->arena, sizeof *note), **end = &c->notes;
    if (!note || !(note->text = arena_string(c->arena, text))) return -1;
    while (*end) end = &(*end)->next;
    *end = note;
    return 0;
}

const char *checkpoint_note(const checkpoint *c, int i) {
    const struct checkpoint_note *note = c->notes;
    while (note && i-- > 0) note = note->next;
    return note ? note->text : NULL;
}

/* ---- rules ---- */

static bool begins_with(const char *name, const char *start) {
    return !strncmp(name, start, strlen(start));
}

static bool ends_with(const char *name, const char *end) {
    size_t length = strlen(name), n = strlen(end);
    return length >= n && !strcmp(name + length - n, end);
}

/* A rule's `from` in a name: where, how long, and the number that its "*" stands for. */
typedef struct found {
    const char *at, *number;
    size_t length;
    int digits;
} found;

static found find_part(const char *name, const char *from) {
    const char *star = strchr(from, '*');
    if (!star) return (found){.at = strstr(name, from), .length = strlen(from)};
    size_t head = (size_t)(star - from), tail = strlen(star + 1);
    for (; *name; name++) {
        if (strncmp(name, from, head)) continue;
        const char *number = name + head;
        size_t digits = strspn(number, "0123456789");
        if (digits && !strncmp(number + digits, star + 1, tail))
            return (found){name, number, head + digits + tail, (int)digits};
    }
    return (found){0};
}

/* The name with `to` in place of what was found; NULL when there is no memory. */
static const char *replaced(checkpoint *c, const char *name, const found *f, const char *to) {
    const char *star = f->number ? strchr(to, '*') : NULL;
    int before = (int)(f->at - name);
    if (!star) return arena_printf(c->arena, "%.*s%s%s", before, name, to, f->at + f->length);
    return arena_printf(c->arena, "%.*s%.*s%.*s%s%s", before, name, (int)(star - to), to, f->digits,
                        f->number, star + 1, f->at + f->length);
}

/* The name after all rules, NULL when one drops it. *failed: there is no memory. */
static const char *renamed(checkpoint *c, const name_rule *rules, const char *name, bool *failed) {
    for (const name_rule *r = rules; r->kind != NAME_END; r++) {
        bool start = r->kind == NAME_DROP || r->kind == NAME_START;
        found f = start ? (found){.at = begins_with(name, r->from) ? name : NULL, .length = strlen(r->from)}
                        : find_part(name, r->from);
        if (!f.at || (r->kind == NAME_DROP_END && !ends_with(name, r->from))) continue;
        if (r->kind == NAME_DROP_END || r->kind == NAME_DROP || r->kind == NAME_DROP_PART) return NULL;
        name = replaced(c, name, &f, r->to);
        if (!name) {
            *failed = true;
            return NULL;
        }
    }
    return name;
}

/* Modules that config.json's quantization has under names of the wrapper. */
static int rename_modules(checkpoint *c, const name_rule *rules) {
    bool failed = false;
    c->n_modules = 0;
    c->modules = arena_alloc(c->arena, (size_t)json_length(c->quantization) * sizeof *c->modules + 1);
    if (!c->modules) return -1;
    json_each (item, c->quantization) {
        const char *key = json_key(item), *end = ".weight";
        if (!key || !(json_is_object(item) || json_is_bool(item))) continue;
        const char *name = arena_printf(c->arena, "%s%s", key, end);
        if (name) name = renamed(c, rules, name, &failed);
        if (!name || failed || !ends_with(name, end)) continue;
        name = arena_printf(c->arena, "%.*s", (int)(strlen(name) - strlen(end)), name);
        if (!name) return -1;
        c->modules[c->n_modules++] = (struct module_settings){name, item};
    }
    return failed ? -1 : 0;
}

int checkpoint_rename(checkpoint *c, const name_rule *rules) {
    size_t kept = 0, dropped = 0;
    double bytes = 0;
    bool failed = false;
    for (size_t i = 0; i < c->n_tensors && !failed; i++) {
        stored t = c->tensors[i];
        if ((t.name = renamed(c, rules, t.name, &failed))) {
            c->tensors[kept++] = t;
        } else if (!failed) {
            dropped++;
            bytes += (double)t.bytes;
        }
    }
    if (failed || rename_modules(c, rules)) return -1;
    c->n_tensors = kept;
    if (dropped &&
        checkpoint_add_note(c, "%zu tensors (%.2f GB) that generating text does not use were left out",
                            dropped, bytes / 1e9))
        return -1;
    return sort_tensors(c);
}

const json *module_quantization(const checkpoint *c, const char *path) {
    for (int i = 0; i < c->n_modules; i++)
        if (!strcmp(c->modules[i].path, path)) return c->modules[i].settings;
    return json_get(c->quantization, path);
}
