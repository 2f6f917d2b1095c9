/* progress.c - what is seen meanwhile: the run, its tokens, the time left; on a terminal as a line
 * that is rewritten, or as events for a program (--progress json). The time left follows from the
 * mean time per prompt token and per step of generation so far. */
#include "bench/child.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static const int64_t PAUSE_NS = 200000000; /* between two lines, so that showing them does not slow the run */

void progress_begin(progress *p, const plan *all, const bench_options *o) {
    *p = (progress){.shown = o->progress == PROGRESS_AUTO && isatty(STDERR_FILENO) && !o->verbose,
                    .events = o->progress == PROGRESS_JSON};
    series one = {0};
    series_begin(&one, o);
    for (int64_t i = 0; i < all->n; i++) {
        params c = plan_params(all, i);
        progress_expect(p, &c, one.expected);
    }
}

void progress_start(const progress *p, const plan *all) {
    if (!p->events) return;
    str members = {0};
    str_printf(&members, ", \"mlxbench_version\": \"%s\", \"configurations\": %lld, \"runs\": %lld",
               MLXBENCH_VERSION, (long long)all->n, (long long)p->n_runs);
    say_event("start", &members);
    str_free(&members);
}

void progress_expect(progress *p, const params *c, int64_t n) {
    p->n_runs += n;
    p->prompt_left += n * c->n_prompt * c->batch;
    p->generate_left += n * c->n_generate;
    p->prefilled = p->generated = 0;
}

/* Seconds until all is done; -1 while there is nothing to judge by. */
static double seconds_left(const progress *p) {
    if (!p->prompt_done || !p->generate_done) return -1;
    double prompt_ns = (double)p->prompt_ns / (double)p->prompt_done,
           generate_ns = (double)p->generate_ns / (double)p->generate_done;
    double left = prompt_ns * (double)(p->prompt_left - p->prefilled * p->batch) +
                  generate_ns * (double)(p->generate_left - p->generated);
    return left / 1e9;
}

/* ---- events ---- */

static void put_place(str *out, const progress *p) {
    double left = seconds_left(p);
    str_printf(out, ", \"run\": %lld, \"runs\": %lld", (long long)p->run + 1, (long long)p->n_runs);
    if (left >= 0)
        str_printf(out, ", \"seconds_left\": %.1f", left);
    else
        str_puts(out, ", \"seconds_left\": null");
}

static void tell_run(const progress *p, const series *s) {
    const params *c = &s->params;
    str members = {0};
    put_place(&members, p);
    str_printf(&members,
               ", \"configuration\": %lld, \"measured\": %s, \"model\": ", (long long)s->configuration,
               s->warm ? "true" : "false");
    json_quote(&members, c->model);
    str_puts(&members, ", \"engine\": ");
    json_quote(&members, c->engine);
    str_printf(&members, ", \"n_prompt\": %lld, \"n_generate\": %lld, \"depth\": %lld, \"batch\": %lld",
               (long long)c->n_prompt, (long long)c->n_generate, (long long)c->depth, (long long)c->batch);
    say_event("run", &members);
    str_free(&members);
}

static void tell_tokens(const progress *p) {
    str members = {0};
    int64_t done = p->generated ? p->generated : p->prefilled,
            of = p->generated ? p->run_generate : p->run_prompt;
    put_place(&members, p);
    str_printf(&members, ", \"tokens\": %lld, \"of\": %lld", (long long)(done * p->batch),
               (long long)(of * p->batch));
    say_event(p->generated ? "generate" : "prefill", &members);
    str_free(&members);
}

/* ---- a line ---- */

static void put_line(const progress *p) {
    double left = seconds_left(p);
    fprintf(stderr, "\r\033[Krun %lld of %lld: ", (long long)p->run + 1, (long long)p->n_runs);
    if (p->generated)
        fprintf(stderr, "%lld of %lld tokens generated", (long long)(p->generated * p->batch),
                (long long)(p->run_generate * p->batch));
    else
        fprintf(stderr, "%lld of %lld prompt tokens", (long long)(p->prefilled * p->batch),
                (long long)(p->run_prompt * p->batch));
    if (left >= 0) fprintf(stderr, ", %d:%02d left", (int)(left / 60), (int)left % 60);
    fflush(stderr);
}

static void show(progress *p, int64_t now) {
    if (!(p->shown || p->events) || now - p->told_ns < PAUSE_NS) return;
    p->told_ns = now;
    if (p->channel)
        serve_progress(p);
    else if (p->events)
        tell_tokens(p);
    else
        put_line(p);
}

void progress_run(progress *p, const series *s) {
    p->run_prompt = s->params.n_prompt;
    p->run_generate = s->params.n_generate;
    p->batch = s->params.batch;
    p->prefilled = p->generated = 0;
    if (p->events) tell_run(p, s);
    show(p, clock_ns());
}

void progress_prefill(void *context, int64_t done, int64_t total) {
    progress *p = context;
    (void)total;
    p->prefilled = done;
    show(p, clock_ns());
}

void progress_token(progress *p, int64_t n, int64_t now) {
    p->prefilled = p->run_prompt;
    p->generated = n;
    show(p, now);
}

void progress_run_done(progress *p, const sample *s) {
    p->run++;
    p->prompt_done += s->n_prompt * s->n_sequences;
    p->prompt_ns += s->token_ns[0] - s->start_ns;
    p->generate_done += s->n_tokens;
    p->generate_ns += s->token_ns[s->n_tokens - 1] - s->token_ns[0];
    p->prompt_left -= s->n_prompt * s->n_sequences;
    p->generate_left -= s->n_tokens;
    p->prefilled = p->generated = 0;
}

void progress_clear(const progress *p) {
    if (!p->shown || p->channel) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
}

void progress_end(const progress *p, int64_t n_measured, int64_t n_failed) {
    progress_clear(p);
    if (!p->events) return;
    str members = {0};
    str_printf(&members, ", \"measured\": %lld, \"failed\": %lld", (long long)n_measured,
               (long long)n_failed);
    say_event("done", &members);
    str_free(&members);
}

/* FNV-1a. */
static uint64_t hash_text(const char *text) {
    uint64_t h = 0xcbf29ce484222325u;
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return h;
}

/* Was this note shown before, for another model, engine or configuration? */
static bool is_known(progress *p, const char *text) {
    uint64_t hash = hash_text(text);
    for (int i = 0; i < p->n_said; i++)
        if (p->said[i] == hash) return true;
    if (p->n_said < (int)(sizeof p->said / sizeof *p->said)) p->said[p->n_said++] = hash;
    return false;
}

void progress_note(progress *p, const char *format, ...) {
    char text[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (is_known(p, text)) return;
    if (p->channel) {
        serve_note(p, text);
        return;
    }
    progress_clear(p);
    say(SAY_NOTE, "%s", text);
}

void progress_notes(progress *p, const char *lines) {
    for (size_t n; (n = strcspn(lines, "\n")) > 0; lines += n + (lines[n] == '\n'))
        progress_note(p, "%.*s", (int)n, lines);
}

void progress_text(const char *text, size_t n) {
    fwrite(text, 1, n, stderr);
    fputs("\n", stderr);
}
