/* serve.c - the child's side: one model in this process, which does what the parent says.
 * When the parent is gone, so is the reason to go on.
 */
#include "bench/child.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- answers ---- */

/* Sends a text and empties it. Without a parent the process ends. */
static void send_text(int fd, str *text) {
    size_t sent = 0;
    while (!text->failed && sent < text->length) {
        ssize_t n = write(fd, text->data + sent, text->length - sent);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        sent += (size_t)n;
    }
    if (text->failed || sent < text->length) _exit(EXIT_FAILED);
    str_free(text);
}

void serve_note(const progress *p, const char *text) {
    str out = {0};
    str_puts(&out, "{\"kind\": \"note\", \"text\": ");
    json_quote(&out, text);
    str_puts(&out, "}\n");
    send_text(p->channel, &out);
}

void serve_progress(const progress *p) {
    str out = {0};
    str_printf(&out, "{\"kind\": \"progress\", \"prefilled\": %lld, \"generated\": %lld}\n",
               (long long)p->prefilled, (long long)p->generated);
    send_text(p->channel, &out);
}

static void send_row(const bench *b, const row *r) {
    str out = {0};
    b->options->put_row(&out, r);
    send_text(b->progress.channel, &out);
}

static void send_done(const bench *b, const char *name, int64_t number) {
    str out = {0};
    str_printf(&out, "{\"kind\": \"done\", \"%s\": %lld}\n", name, (long long)number);
    send_text(b->progress.channel, &out);
}

static void send_failed(const bench *b) {
    str out = {0};
    str_puts(&out, "{\"kind\": \"failed\", \"error\": ");
    json_quote(&out, error_message());
    str_printf(&out, ", \"code\": %d, \"memory\": %d, \"load_failed\": %d, \"refused\": %d}\n",
               error_exit_code(), error_is_memory(), b->load_failures != 0, b->model_refused);
    send_text(b->progress.channel, &out);
}

/* ---- commands ---- */

typedef struct server {
    bench b;
    series series;
    turn turn;
    bool in_turn;
} server;

static series series_at(const server *v, int64_t index) {
    return (series){.params = plan_params(v->b.plan, index), .index = index, .configuration = index + 1};
}

static int do_prepare(server *v, int64_t index, bool first) {
    series s = series_at(v, index);
    prepared found;
    if (prepare_here(&v->b, &s, first, &found)) return -1;
    if (!found.equal) send_row(&v->b, &found.what);
    send_done(&v->b, "equal", found.equal);
    return 0;
}

static void end_turn(server *v) {
    if (v->in_turn) turn_end(&v->turn);
    v->in_turn = false;
}

static int do_begin(server *v, int64_t index) {
    end_turn(v);
    v->series = series_at(v, index);
    v->in_turn = true;
    if (turn_begin(&v->b, &v->series, &v->turn)) return -1;
    send_done(&v->b, "begun", index);
    return 0;
}

static int do_run(server *v) {
    if (!v->in_turn) return fail("no turn was begun");
    if (turn_run(&v->b, &v->series, &v->turn)) return -1;
    send_row(&v->b, &v->turn.row);
    if (v->b.options->verbose && v->series.warm && show_text(&v->b.loaded, &v->turn.sample)) return -1;
    send_done(&v->b, "ns", v->turn.ns);
    return 0;
}

/* Turns a line into a call. */
static int obey(server *v, const char *line) {
    long long index, n_warm, n;
    int first, warm, settled;
    if (sscanf(line, "prepare %lld %d", &index, &first) == 2 && index >= 0 && index < v->b.plan->n)
        return do_prepare(v, index, first);
    if (sscanf(line, "begin %lld", &index) == 1 && index >= 0 && index < v->b.plan->n)
        return do_begin(v, index);
    if (sscanf(line, "run %lld %lld %d %d", &n_warm, &n, &warm, &settled) == 4) {
        v->series.n_warm = n_warm;
        v->series.n = n;
        v->series.warm = warm;
        v->series.settled = settled;
        return do_run(v);
    }
    if (strcmp(line, "end")) return fail("unknown command \"%s\"", line);
    end_turn(v);
    send_done(&v->b, "ended", 1);
    return 0;
}

static void serve(server *v, const char *line) {
    v->b.load_failures = v->b.model_refused = 0;
    v->b.engine_failed = v->b.not_finite = false;
    error_clear();
    if (!obey(v, line)) return;
    end_turn(v);
    if (v->b.engine_failed) loaded_free(&v->b.loaded);
    send_failed(&v->b);
}

int bench_serve(const plan *p, const bench_options *o) {
    server v = {.b = {.plan = p, .options = o}};
    char line[256];
    FILE *commands = fdopen(PROCESS_CHANNEL, "r");
    if (!commands) return fail("this command is for processes that mlxbench starts itself");
    signal(SIGINT, SIG_IGN); /* a terminal's Ctrl-C is the parent's to answer */
    signal(SIGTERM, SIG_DFL);
    sys_hardware(&v.b.hardware);
    sys_hardware_id(v.b.hw_model, sizeof v.b.hw_model, &v.b.hardware);
    progress_begin(&v.b.progress, p, o);
    v.b.progress.shown |= v.b.progress.events; /* the parent tells it */
    v.b.progress.events = false;
    v.b.progress.channel = PROCESS_CHANNEL;
    while (fgets(line, sizeof line, commands)) {
        line[strcspn(line, "\n")] = '\0';
        serve(&v, line);
    }
    end_turn(&v);
    loaded_free(&v.b.loaded);
    str_free(&v.b.quality.reasons);
    free(v.b.fastest_mhz);
    fclose(commands);
    return 0;
}
