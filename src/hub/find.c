/* find.c - a name to what is on this machine: the path itself, the Hugging Face cache, LM Studio's
 * folders. No network here; what is missing is told with what to do about it. */
#include "hub/cache.h"
#include "hub/hub.h"
#include "hub/places.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

bool hub_offline(void) {
    return places_offline();
}

/* What was found, and what was not. */
typedef struct search {
    const hub_name *name;
    hub_need need;
    str *path;
    hub_gaps gaps; /* of what is there in part */
    str absent;    /* the commit that has no such file, as the Hub said */
} search;

/* ---- LM Studio ---- */

static int is_gguf(const struct dirent *entry) {
    const char *name = entry->d_name;
    size_t n = strlen(name);
    bool further = hub_gguf_parts(name) && !strstr(name, "-00001-of-");
    return n > 5 && !strcasecmp(name + n - 5, ".gguf") && strncmp(name, "mmproj", 6) && !further;
}

/* Is a GGUF file there, or all of its parts? */
static bool has_gguf(const char *folder, const char *file) {
    char part[sizeof((hub_name *)0)->file];
    int n = hub_gguf_parts(file), i = 1;
    bool there = true;
    for (snprintf(part, sizeof part, "%s", file); there && i <= (n ? n : 1); i++) {
        str path = {0};
        if (n) hub_gguf_part(part, i);
        str_printf(&path, "%s/%s", folder, part);
        there = !path.failed && file_exists(path.data);
        str_free(&path);
    }
    return there;
}

/* LM Studio's folder OWNER/NAME: a whole model or a single GGUF file. */
static int look_in_lmstudio(void *context, const char *models) {
    search *s = context;
    str folder = {0};
    struct dirent **found = NULL;
    hub_gaps gaps = {0};
    if (!strchr(s->name->repo, '/')) return 0; /* LM Studio has an owner for everything */
    str_printf(&folder, "%s/%s", models, s->name->repo);
    int stop = 0, n = 0;
    if (!folder.failed && *s->name->file) {
        stop = has_gguf(folder.data, s->name->file);
        str_printf(&folder, "/%s", s->name->file);
    } else if (!folder.failed && dir_exists(folder.data)) {
        if (!cache_gaps(folder.data, s->need, &gaps) && !gaps.n) stop = 1;
        if (!stop && (n = scandir(folder.data, &found, is_gguf, alphasort)) == 1) {
            str_printf(&folder, "/%s", found[0]->d_name);
            stop = 1;
        }
    }
    if (stop && !folder.failed) str_puts(s->path, folder.data);
    for (int i = 0; i < n; i++) free(found[i]);
    free(found);
    hub_gaps_free(&gaps);
    str_free(&folder);
    return stop;
}

/* ---- the Hugging Face cache ---- */

/* Did the Hub say of the commit that it lacks what is asked for? */
static void look_for_absence(search *s, const char *repo_folder) {
    const char *file = *s->name->file ? s->name->file : s->need == HUB_TOKENIZER ? "tokenizer.json" : NULL;
    if (!file) return;
    cache_commit(repo_folder, s->name, &s->absent);
    if (s->absent.failed || !cache_no_exist(repo_folder, s->absent.data, file)) str_clear(&s->absent);
}

/* True when all that is needed is there. */
static bool look_in_cache(search *s, const char *repo_folder) {
    str folder = {0};
    bool found = cache_snapshot(repo_folder, s->name, &folder);
    if (found && *s->name->file) {
        found = has_gguf(folder.data, s->name->file);
        str_printf(&folder, "/%s", s->name->file);
    } else if (found) {
        found = !cache_gaps(folder.data, s->need, &s->gaps) && !s->gaps.n;
    }
    if (found)
        str_puts(s->path, folder.data);
    else
        look_for_absence(s, repo_folder);
    str_free(&folder);
    return found && !s->path->failed;
}

/* ---- messages ---- */

typedef struct nearest {
    const char *wanted;
    size_t distance;
    str name;
} nearest;

static int compare(void *context, const hub_entry *entry) {
    nearest *n = context;
    size_t distance = edit_distance(n->wanted, entry->name);
    if (distance && distance < n->distance && !entry->missing) {
        n->distance = distance;
        str_clear(&n->name);
        str_puts(&n->name, entry->name);
    }
    return 0;
}

void hub_put_nearest(str *out, const char *name) {
    nearest n = {.wanted = name, .distance = 2 + strlen(name) / 4};
    hub_list(compare, &n);
    if (n.name.length && !n.name.failed) str_printf(out, "; did you mean %s, which is here?", n.name.data);
    str_free(&n.name);
}

/* A commit never changes; a branch may have got the file since. */
static int fail_absent(const search *s, const char *model) {
    bool commit = !strcmp(s->name->revision, s->absent.data);
    fail("%s has no %s: so the Hub said of commit %s%s%s", s->name->repo,
         *s->name->file ? s->name->file : "tokenizer.json", s->absent.data,
         commit ? "" : "; ask it again with: mlxbench pull ", commit ? "" : model);
    return commit ? -1 : HUB_MISSING;
}

static int fail_missing(const search *s, const char *model, const char *cache) {
    const hub_gaps *g = &s->gaps;
    str near = {0}, amounts = {0};
    if (s->absent.length) return fail_absent(s, model);
    hub_put_amounts(&amounts, g);
    if (g->n && g->total)
        fail("%s is here in part: %s (missing: %s); get the rest with: mlxbench pull %s", model,
             amounts.data ? amounts.data : "", g->names.data, model);
    else if (g->n)
        fail("%s is here in part (missing: %s); get the rest with: mlxbench pull %s", model, g->names.data,
             model);
    else {
        hub_put_nearest(&near, s->name->repo);
        fail("model \"%s\" is no folder or file here, and neither in the Hugging Face cache (%s) nor in LM "
             "Studio's folders; get it with: mlxbench pull %s%s",
             model, cache, model, near.data ? near.data : "");
    }
    str_free(&near);
    str_free(&amounts);
    return HUB_MISSING;
}

static int find_by_name(const char *model, const hub_name *name, hub_need need, str *path) {
    search s = {.name = name, .need = need, .path = path};
    str repo_folder = {0}, cache = {0};
    int status = cache_repo(name->repo, &repo_folder) || places_cache(&cache) ? -1 : 0;
    if (!status && !look_in_cache(&s, repo_folder.data)) {
        bool found = !name->revision_given && places_lmstudio(look_in_lmstudio, &s);
        if (!found) status = fail_missing(&s, model, cache.data);
    }
    if (!status && path->failed) status = -1;
    hub_gaps_free(&s.gaps);
    str_free(&s.absent);
    str_free(&repo_folder);
    str_free(&cache);
    return status;
}

int hub_find(const char *model, hub_need need, str *path) {
    bool here = !strncmp(model, "synthetic:", 10) || dir_exists(model) || file_exists(model);
    if (here && !hub_name_is_explicit(model)) {
        str_puts(path, model);
        return path->failed ? -1 : 0;
    }
    hub_name name;
    str endpoint = {0};
    places_endpoint(&endpoint);
    bool named = !endpoint.failed && hub_name_parse(model, endpoint.data, &name);
    str_free(&endpoint);
    if (!named)
        return fail(
            "model \"%s\" not found: it is no folder or file, no synthetic:PRESET, and no name on the "
            "Hub (owner/name, owner/name@revision, owner/name/file.gguf)",
            model);
    return find_by_name(model, &name, need, path);
}
