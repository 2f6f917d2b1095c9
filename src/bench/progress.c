/* progress.c - what a person at the terminal sees meanwhile: the run, its tokens, the time left.
 * The time left follows from the mean time per prompt token and per generated token so far. */
#include "bench/child.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static const int64_t PAUSE_NS = 200000000; /* between two lines, so that showing them does not slow the run */

void progress_begin(progress *p, const plan *all, const bench_options *o) {
    *p = (progress){.shown = isatty(STDERR_FILENO) && !o->verbose};
    series one = {0};
    series_begin(&one, o);
    for (int64_t i = 0; i < all->n; i++) {
        params c = plan_params(all, i);
        progress_expect(p, &c, one.expected);
    }
}

void progress_expect(progress *p, const params *c, int64_t n) {
    p->n_runs += n;
    p->prompt_left += n * c->n_prompt;
    p->generate_left += n * c->n_generate;
    p->prefilled = p->generated = 0;
}

/* Seconds until all is done; -1 while there is nothing to judge by. */
static double seconds_left(const progress *p) {
    if (!p->prompt_done || !p->generate_done) return -1;
    double prompt_ns = (double)p->prompt_ns / (double)p->prompt_done,
           generate_ns = (double)p->generate_ns / (double)p->generate_done;
    double left = prompt_ns * (double)(p->prompt_left - p->prefilled) +
                  generate_ns * (double)(p->generate_left - p->generated);
    return left / 1e9;
}

static void show(progress *p, int64_t now) {
    if (!p->shown || now - p->told_ns < PAUSE_NS) return;
    p->told_ns = now;
    if (p->channel) {
        serve_progress(p);
        return;
    }
    double left = seconds_left(p);
    fprintf(stderr, "\r\033[Krun %lld of %lld: ", (long long)p->run + 1, (long long)p->n_runs);
    if (p->generated)
        fprintf(stderr, "%lld of %lld tokens generated", (long long)p->generated, (long long)p->run_generate);
    else
        fprintf(stderr, "%lld of %lld prompt tokens", (long long)p->prefilled, (long long)p->run_prompt);
    if (left >= 0) fprintf(stderr, ", %d:%02d left", (int)(left / 60), (int)left % 60);
    fflush(stderr);
}

void progress_run(progress *p, const params *run) {
    p->run_prompt = run->n_prompt;
    p->run_generate = run->n_generate;
    p->prefilled = p->generated = 0;
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
    p->prompt_done += s->n_prompt;
    p->prompt_ns += s->token_ns[0] - s->start_ns;
    p->generate_done += s->n_tokens;
    p->generate_ns += s->token_ns[s->n_tokens - 1] - s->token_ns[0];
    p->prompt_left -= s->n_prompt;
    p->generate_left -= s->n_tokens;
    p->prefilled = p->generated = 0;
}

void progress_clear(const progress *p) {
    if (!p->shown || p->channel) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
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
    fprintf(stderr, "mlxbench: note: %s\n", text);
}

void progress_notes(progress *p, const char *lines) {
    for (size_t n; (n = strcspn(lines, "\n")) > 0; lines += n + (lines[n] == '\n'))
        progress_note(p, "%.*s", (int)n, lines);
}

void progress_text(const char *text, size_t n) {
    fwrite(text, 1, n, stderr);
    fputs("\n", stderr);
}
