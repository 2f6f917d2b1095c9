/* pull.c - what to download of a repository: asks the Hub for the commit and its files, and
 * chooses. The calls are those of huggingface_hub's snapshot_download: model_info, list_repo_tree,
 * resolve. */
#include "hub/cache.h"
#include "hub/download.h"
#include "hub/places.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { MOST_PAGES = 50, MOST_ANSWER = 8 << 20, MOST_REDIRECTS = 5, MOST_ATTEMPTS = 4, ANSWER_SECONDS = 120 };

typedef struct pull {
    const hub_pull_options *options;
    const char *model; /* as it was asked for */
    hub_name name;
    str endpoint, token, repo_folder, snapshot;
    char commit[41];
    transport *t;
    listing all, wanted;
    int waits;
} pull;

/* ---- asking the Hub ---- */

static void put_quoted(str *url, const char *text) {
    for (; *text; text++)
        if (isalnum((unsigned char)*text) || strchr("-_.~", *text))
            str_append(url, text, 1);
        else
            str_printf(url, "%%%02X", (unsigned char)*text);
}

static bool take_answer(void *context, const http_answer *answer, const char *data, size_t n) {
    str *body = context;
    if (answer->encoded || body->length + n > MOST_ANSWER) return false;
    str_append(body, data, n);
    return !body->failed;
}

static int pause_for(double seconds) {
    int64_t end = clock_ns() + (int64_t)(seconds * 1e9);
    while (clock_ns() < end) {
        if (interrupted()) return fail_interrupted();
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
    return 0;
}

/* One request, until it has ended. */
static int ask_once(pull *p, const char *url, str *body, http_transfer **out) {
    http_request request = {.url = url,
                            .first = -1,
                            .idle = places_seconds("HF_HUB_ETAG_TIMEOUT", 10),
                            .seconds = ANSWER_SECONDS,
                            .body = take_answer,
                            .context = body};
    str_clear(body);
    *out = transport_start(p->t, &request);
    if (!*out) return -1;
    for (http_transfer *ended = NULL; !ended; ended = transport_step(p->t, 100)) {
        if (!interrupted()) continue;
        transfer_free(p->t, *out);
        *out = NULL;
        return fail_interrupted();
    }
    return 0;
}

static void hand_on_note(pull *p, const char *what) {
    hub_progress progress = {.note = what};
    if (p->options->progress) p->options->progress(p->options->context, &progress);
}

static int fail_unreachable(const pull *p, const char *why) {
    str near = {0}, path = {0};
    bool here = !hub_find(p->model, p->options->need, &path);
    hub_put_nearest(&near, p->name.repo);
    if (here)
        fail("cannot reach %s: %s; %s is here as it was before", p->endpoint.data, why, p->model);
    else
        fail("cannot reach %s: %s; and here is no folder or file %s, nor all of such a model%s",
             p->endpoint.data, why, p->model, near.data ? near.data : "");
    str_free(&near);
    str_free(&path);
    return -1;
}

/* What to do about an answer: 1 it is good, 0 ask again, -1 with a message. url changes with a
 * redirect. */
static int judge(pull *p, const http_transfer *x, str *url, int *attempts, int *redirects) {
    char text[500];
    const http_answer *a = &x->answer;
    if (x->end == HTTP_STOPPED)
        return fail("%s: the answer is %s", p->endpoint.data,
                    a->encoded ? "compressed, which nobody asked for" : "endless");
    bool passes = x->end == HTTP_TRANSIENT || (x->end == HTTP_ANSWERED && status_may_pass(a->status));
    if (x->end == HTTP_FATAL || (x->end == HTTP_TRANSIENT && *attempts + 1 >= MOST_ATTEMPTS))
        return fail_unreachable(p, x->why);
    if (passes && ++*attempts < MOST_ATTEMPTS) {
        snprintf(text, sizeof text, "%s; trying again",
                 x->end == HTTP_TRANSIENT ? x->why : "the Hub has a problem");
        hand_on_note(p, text);
        return pause_for(0.25 * (1 << *attempts));
    }
    if (a->status == 429) {
        long seconds = wait_for_limit(a, &p->waits);
        if (seconds < 0) return -1;
        snprintf(text, sizeof text, "the Hub's rate limit; waiting %ld s", seconds);
        hand_on_note(p, text);
        return pause_for((double)seconds);
    }
    if (a->status >= 300 && a->status < 400 && *a->location) {
        if (++*redirects > MOST_REDIRECTS)
            return fail("%s redirects more than %d times", p->endpoint.data, MOST_REDIRECTS);
        str_clear(url);
        str_puts(url, a->location);
        return url->failed ? -1 : 0;
    }
    if (a->status == 200) return 1;
    return fail_answer(a, p->endpoint.data, p->name.repo, p->name.revision);
}

/* Gets a JSON answer. next, if not NULL, gets the address of the page after it, or becomes
 * empty. */
static int ask(pull *p, const char *address, str *body, str *next) {
    str url = {0};
    int attempts = 0, redirects = 0, good = 0;
    str_puts(&url, address);
    while (!good && !url.failed) {
        http_transfer *x;
        good = ask_once(p, url.data, body, &x) ? -1 : judge(p, x, &url, &attempts, &redirects);
        if (good > 0 && next) {
            str_clear(next);
            str_puts(next, x->answer.next);
        }
        if (x) transfer_free(p->t, x);
    }
    int status = good > 0 && !url.failed && !body->failed ? 0 : -1;
    str_free(&url);
    return status;
}

static int get_commit(pull *p) {
    if (hub_is_hex(p->name.revision, 40)) {
        memcpy(p->commit, p->name.revision, sizeof p->commit);
        return 0;
    }
    str url = {0}, body = {0};
    str_printf(&url, "%s/api/models/%s/revision/", p->endpoint.data, p->name.repo);
    put_quoted(&url, p->name.revision);
    int status = url.failed || ask(p, url.data, &body, NULL) ? -1 : 0;
    if (!status) status = listing_read_commit(body.data ? body.data : "", body.length, p->commit);
    str_free(&url);
    str_free(&body);
    return status;
}

/* All files; those in folders only when one of them is wanted. */
static int get_files(pull *p) {
    str url = {0}, body = {0}, next = {0};
    str_printf(&url, "%s/api/models/%s/tree/%s?recursive=%s", p->endpoint.data, p->name.repo, p->commit,
               strchr(p->name.file, '/') ? "true" : "false");
    int status = url.failed ? -1 : 0, pages = 0;
    while (!status && url.length) {
        if (++pages > MOST_PAGES) status = fail("%s lists files without end", p->endpoint.data);
        if (!status) status = ask(p, url.data, &body, &next);
        if (!status) status = listing_read_tree(&p->all, body.data ? body.data : "", body.length);
        if (!status && next.length && !transport_is_endpoint(p->t, next.data))
            status =
                fail("%s continues its list of files on another host, which is refused", p->endpoint.data);
        str_clear(&url);
        if (next.length) str_puts(&url, next.data);
        if (url.failed || next.failed) status = -1;
    }
    str_free(&url);
    str_free(&body);
    str_free(&next);
    return status;
}

/* ---- choosing ---- */

static int order(const void *a, const void *b) {
    const repo_file *f = a, *g = b;
    int weights = (int)hub_is_weights(f->path) - (int)hub_is_weights(g->path);
    return weights ? weights : strcmp(f->path, g->path);
}

static int want(pull *p, const repo_file *f) {
    for (int i = 0; i < p->wanted.n; i++)
        if (!strcmp(p->wanted.items[i].path, f->path)) return 0;
    return listing_add(&p->wanted, f);
}

/* The repository's GGUF files, for a message. */
static void put_ggufs(const pull *p, str *out) {
    int n = 0;
    for (int i = 0; i < p->all.n; i++) {
        const char *path = p->all.items[i].path;
        size_t length = strlen(path);
        if (length < 5 || strcmp(path + length - 5, ".gguf")) continue;
        if (n++ < 12) str_printf(out, "%s%s", n > 1 ? ", " : "", path);
    }
    if (n > 12) str_printf(out, " and %d more", n - 12);
}

static int fail_unfit(const pull *p) {
    str ggufs = {0};
    put_ggufs(p, &ggufs);
    if (*p->name.file)
        fail("%s has no file %s%s%s", p->name.repo, p->name.file, ggufs.length ? "; its GGUF files: " : "",
             ggufs.data ? ggufs.data : "");
    else if (ggufs.length)
        fail("%s is a collection of GGUF files; name one of them, as in %s/FILE.gguf: %s", p->name.repo,
             p->name.repo, ggufs.data);
    else
        fail("%s has no %s; it is no model that can run here", p->name.repo,
             p->options->need == HUB_TOKENIZER ? "tokenizer.json" : "config.json with model*.safetensors");
    str_free(&ggufs);
    return -1;
}

/* Is a path the GGUF file that was named, or another part of it? */
static bool is_named(const pull *p, const char *path) {
    char first[sizeof p->name.file];
    if (strlen(path) >= sizeof first) return false;
    snprintf(first, sizeof first, "%s", path);
    if (hub_gguf_parts(first)) hub_gguf_part(first, 1);
    return !strcmp(first, p->name.file);
}

static bool is_listed(const pull *p, const char *path) {
    for (int i = 0; i < p->all.n; i++)
        if (!strcmp(p->all.items[i].path, path)) return true;
    return false;
}

/* Keeps in mind what the repository does not have of all that is asked for by name. */
static int note_absent(const pull *p) {
    const char *repo_folder = p->repo_folder.data, *name = p->name.file;
    if (*name) return is_listed(p, name) ? 0 : cache_write_no_exist(repo_folder, p->commit, name);
    for (int i = 0; (name = hub_needed_name(i)); i++)
        if (!is_listed(p, name) && cache_write_no_exist(repo_folder, p->commit, name)) return -1;
    return 0;
}

static int choose(pull *p) {
    bool config = false, weights = false, tokenizer = false, file = *p->name.file;
    int parts = hub_gguf_parts(p->name.file);
    for (int i = 0; i < p->all.n; i++) {
        const repo_file *f = &p->all.items[i];
        if (file ? !is_named(p, f->path) : !hub_is_needed(f->path, p->options->need)) continue;
        config = config || !strcmp(f->path, "config.json");
        weights = weights || hub_is_weights(f->path);
        tokenizer = tokenizer || !strcmp(f->path, "tokenizer.json") || !strcmp(f->path, "tokenizer.model");
        if (want(p, f)) return -1;
    }
    bool fits = file                                ? p->wanted.n == (parts ? parts : 1)
                : p->options->need == HUB_TOKENIZER ? tokenizer
                                                    : config && weights;
    if (note_absent(p)) return -1;
    if (!fits) return fail_unfit(p);
    qsort(p->wanted.items, (size_t)p->wanted.n, sizeof *p->wanted.items, order);
    return 0;
}

/* ---- the cache ---- */

/* Says to programs that make copies of disks that this can be had again (https://bford.info/cachedir). */
static void tag_cache(const char *cache) {
    str path = {0};
    str_printf(&path, "%s/CACHEDIR.TAG", cache);
    FILE *file = path.failed || file_exists(path.data) ? NULL : fopen(path.data, "w");
    if (file) {
        fputs("Signature: 8a477f597d28d172789f06886806bc55\n# Downloaded models.\n", file);
        fclose(file);
    }
    str_free(&path);
}

/* The folders, and with a whole model the list that tells a whole snapshot from a part. */
static int prepare(pull *p) {
    str path = {0}, text = {0};
    int status = -1;
    str_printf(&p->snapshot, "%s/snapshots/%s", p->repo_folder.data, p->commit);
    str_printf(&path, "%s/blobs", p->repo_folder.data);
    if (!p->snapshot.failed && !path.failed && !make_folders(p->snapshot.data))
        status = make_folders(path.data);
    if (!status && p->options->need == HUB_MODEL && !*p->name.file) {
        str_clear(&path);
        cache_listing(&path, p->repo_folder.data, p->commit);
        listing_write_text(&p->wanted, &text);
        if (path.failed || text.failed || cache_write(p->repo_folder.data, path.data, text.data, text.length))
            status = -1;
    }
    str_clear(&path);
    if (!status && !places_cache(&path)) tag_cache(path.data);
    str_free(&path);
    str_free(&text);
    return status;
}

static int get_all(pull *p) {
    download d = {.t = p->t,
                  .endpoint = p->endpoint.data,
                  .repo = p->name.repo,
                  .commit = p->commit,
                  .repo_folder = p->repo_folder.data,
                  .options = p->options,
                  .n = p->wanted.n};
    d.files = calloc((size_t)d.n, sizeof *d.files);
    if (!d.files) return fail("no memory for downloads");
    for (int i = 0; i < d.n; i++) d.files[i].wanted = &p->wanted.items[i];
    int status = download_run(&d);
    free(d.files);
    return status;
}

static int run(pull *p, str *path) {
    if (hash_open() || places_token(&p->token)) return -1;
    p->t = transport_open(p->endpoint.data, p->token.data ? p->token.data : "");
    if (!p->t || cache_repo(p->name.repo, &p->repo_folder)) return -1;
    if (get_commit(p) || get_files(p) || choose(p) || prepare(p) || get_all(p)) return -1;
    /* at the end: a ref then never names a snapshot that is only half there */
    if (cache_write_ref(p->repo_folder.data, p->name.revision, p->commit)) return -1;
    str_puts(path, p->snapshot.data);
    if (*p->name.file) str_printf(path, "/%s", p->name.file);
    return path->failed ? -1 : 0;
}

int hub_pull(const char *model, const hub_pull_options *options, str *path) {
    pull p = {.options = options, .model = model};
    int status = -1;
    places_endpoint(&p.endpoint);
    if (p.endpoint.failed) {
        status = -1;
    } else if (!hub_name_parse(model, p.endpoint.data, &p.name))
        fail_usage("\"%s\" is no name on the Hub (owner/name, owner/name@revision, owner/name/file.gguf)",
                   model);
    else if (places_offline())
        fail("%s can't be downloaded: HF_HUB_OFFLINE switches the network off", model);
    else
        status = run(&p, path);
    transport_close(p.t);
    listing_free(&p.all);
    listing_free(&p.wanted);
    str_free(&p.endpoint);
    str_free(&p.token);
    str_free(&p.repo_folder);
    str_free(&p.snapshot);
    return status;
}
