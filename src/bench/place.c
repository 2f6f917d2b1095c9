/* place.c - the parent's side: starts a process for a model, tells it what to do, and takes what
 * comes back. Whatever becomes of the process is an error with a message here.
 */
#include "bench/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const int64_t LAST_WORDS_NS = 5000000000; /* for a process to end, when it was told to */
enum { SLICE_MS = 100, CHUNK = 1 << 16 };        /* a signal may come between a question and a wait */

/* ---- processes ---- */

static void forget(place *p) {
    if (p->fd > 0) close(p->fd);
    p->fd = 0;
    p->pid = 0;
    p->loaded = false;
    p->taken = 0;
    str_clear(&p->input);
}

static void kill_place(place *p) {
    if (p->pid) process_kill(p->pid);
    forget(p);
}

/* Its end of the channel closes, and so it ends. */
static void close_place(place *p) {
    int status;
    if (!p->pid) return;
    shutdown(p->fd, SHUT_RDWR);
    if (process_ended(p->pid, LAST_WORDS_NS, &status)) p->pid = 0;
    kill_place(p);
}

static int start(bench *b, place *p) {
    const bench_options *o = b->options;
    int ends[2], text = -1;
    for (int i = 0; i < b->n_places; i++) /* there may be memory for one only */
        if (!b->together || strcmp(b->places[i].model, p->model)) close_place(&b->places[i]);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) return fail("cannot make a channel: %s", strerror(errno));
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    if (!o->prompt_given || (text = process_file(o->prompt, o->prompt_length)) >= 0) {
        process_spec spec = {.program = o->child->program,
                             .arguments = o->child->arguments,
                             .in = text,
                             .out = -1,
                             .err = -1,
                             .channel = ends[1]};
        p->memory_kills = sys_memory_kills();
        p->pid = process_start(&spec);
    }
    if (text >= 0) close(text);
    close(ends[1]);
    p->fd = ends[0];
    if (p->pid > 0) return 0;
    forget(p);
    return -1;
}

int places_open(bench *b) {
    const plan *p = b->plan;
    int n_engines = p->n_values[PARAM_engine], n = p->n_values[PARAM_model] * n_engines;
    b->places = mem_new((size_t)n, sizeof *b->places, "the processes");
    if (!b->places) return -1;
    b->n_places = n;
    for (int i = 0; i < n; i++)
        b->places[i] = (place){.model = p->values[PARAM_model][i / n_engines].text,
                               .engine = p->values[PARAM_engine][i % n_engines].text};
    for (int i = 0; i < n_engines; i++) b->together |= strchr(b->places[i].engine, '@') != NULL;
    return 0;
}

void places_close(bench *b) {
    for (int i = 0; i < b->n_places; i++) {
        place *p = &b->places[i];
        close_place(p);
        str_free(&p->input);
        str_free(&p->error);
        results_free(&p->about);
        results_free(&p->last);
    }
    free(b->places);
    b->places = NULL;
    b->n_places = 0;
}

static place *place_of(const bench *b, const series *s) {
    for (int i = 0; i < b->n_places; i++) {
        place *p = &b->places[i];
        if (!strcmp(p->model, s->params.model) && !strcmp(p->engine, s->params.engine)) return p;
    }
    return NULL;
}

void place_put_facts(const bench *b, const series *s, row *r) {
    static const int known[] = {COLUMN_model_type, COLUMN_quantization,   COLUMN_parameters,
                                COLUMN_synthetic,  COLUMN_engine_version, COLUMN_mlx_env,
                                COLUMN_device};
    const place *p = place_of(b, s);
    if (!p || !p->about.n) return;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        r->cells[known[i]] = p->about.runs[0].cells[known[i]];
    r->cells[COLUMN_engine] = p->about.runs[0].cells[COLUMN_engine];
}

/* ---- what comes back ---- */

/* The answer to a command. */
typedef struct answer {
    bool failed;
    int64_t number; /* of "done" */
} answer;

static int fail_as(int code, bool memory, const char *text) {
    if (code == EXIT_INTERRUPTED) return fail_interrupted();
    int (*record)(const char *format, ...) = memory               ? fail_memory
                                             : code == EXIT_USAGE ? fail_usage
                                             : code == EXIT_GATE  ? fail_gate
                                                                  : fail;
    return record("%s", text);
}

static void take_failure(bench *b, place *p, const json *o) {
    const char *text = json_string(json_get(o, "error"));
    if (json_number(json_get(o, "load_failed")) != 0) b->load_failures = 1;
    b->model_refused = json_number(json_get(o, "refused")) != 0;
    fail_as((int)json_number(json_get(o, "code")), json_number(json_get(o, "memory")) != 0,
            text ? text : "unknown");
    str_clear(&p->error);
    str_puts(&p->error, error_message());
}

static void take_progress(bench *b, const json *o) {
    int64_t prefilled = (int64_t)json_number(json_get(o, "prefilled")),
            generated = (int64_t)json_number(json_get(o, "generated"));
    if (generated)
        progress_token(&b->progress, generated, clock_ns());
    else
        progress_prefill(&b->progress, prefilled, 0);
}

/* One line: 1 when it is the answer, 0 when more follows, -1 when it makes no sense. */
static int take_line(bench *b, place *p, const char *line, size_t n, answer *out) {
    static const char run[] = "{\"kind\": \"run\"";
    if (n > strlen(run) && !strncmp(line, run, strlen(run))) {
        results_free(&p->last);
        return results_parse(&p->last, line, n, "a row of a child process");
    }
    json *o = json_parse(line, n, "an answer of a child process");
    const char *kind = json_string(json_get(o, "kind")), *text = json_string(json_get(o, "text"));
    bool done = kind && !strcmp(kind, "done");
    out->failed = kind && !strcmp(kind, "failed");
    int status = done || out->failed ? 1 : 0;
    if (!kind)
        status = o ? fail("a child process sent something else than an answer") : -1;
    else if (out->failed)
        take_failure(b, p, o);
    else if (done)
        out->number = (int64_t)json_number(json_next(json_first(o)));
    else if (!strcmp(kind, "note") && text)
        progress_note(&b->progress, "%s", text);
    else if (!strcmp(kind, "progress"))
        take_progress(b, o);
    json_free(o);
    return status;
}

/* The next whole line that has come, without its end; NULL when there is none. */
static const char *next_line(place *p, size_t *n) {
    const char *start = p->input.data ? p->input.data + p->taken : NULL;
    const char *end = start ? memchr(start, '\n', p->input.length - p->taken) : NULL;
    if (end) {
        *n = (size_t)(end - start);
        p->taken += *n + 1;
        return start;
    }
    if (p->taken) { /* what is left of it moves to the front */
        size_t left = p->input.length - p->taken;
        memmove(p->input.data, start, left + 1);
        p->input.length = left;
        p->taken = 0;
    }
    return NULL;
}

/* ---- asking ---- */

int fail_process(int status, int64_t memory_kills) {
    str why = {0};
    bool killed = WIFSIGNALED(status), out_of_memory = killed && WTERMSIG(status) == SIGKILL;
    if (memory_kills >= 0) out_of_memory &= sys_memory_kills() > memory_kills;
    process_put_reason(&why, status);
    (out_of_memory ? fail_memory : fail)("the process %s%s%s", killed ? "was " : "",
                                         why.data ? why.data : "ended",
                                         out_of_memory ? ", as the system does when memory runs out" : "");
    str_free(&why);
    return -1;
}

/* The process is gone: says why. */
static int fail_ended(place *p) {
    int status;
    bool ended = process_ended(p->pid, LAST_WORDS_NS, &status);
    if (ended) p->pid = 0;
    kill_place(p);
    if (!ended) return fail("the process closed its channel, and did not end");
    return fail_process(status, p->memory_kills);
}

/* A child may do nothing for so long, as it was told to. */
static int64_t longest_idle(const bench *b) {
    int64_t longest = 0;
    for (int i = 0; i < b->plan->n_values[PARAM_idle_s]; i++)
        if (b->plan->values[PARAM_idle_s][i].number > longest)
            longest = b->plan->values[PARAM_idle_s][i].number;
    return longest * 1000000000;
}

/* Waits for more. -1 when there will be none: Ctrl-C, its end, the time is up. */
static int wait_for_more(bench *b, place *p, int64_t start_ns) {
    int64_t limit = b->options->child->timeout_ns;
    char chunk[CHUNK];
    for (;;) {
        struct pollfd ready = {.fd = p->fd, .events = POLLIN};
        int found = poll(&ready, 1, SLICE_MS);
        if (interrupted()) {
            kill_place(p);
            return fail_interrupted();
        }
        if (found > 0) break;
        if (!limit || clock_ns() - start_ns < limit + b->options->delay_ns + longest_idle(b)) continue;
        kill_place(p);
        return fail("no end after %.3g s (--timeout); the process was stopped", (double)limit / 1e9);
    }
    ssize_t n = read(p->fd, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) return 0;
    if (n <= 0) return fail_ended(p);
    str_append(&p->input, chunk, (size_t)n);
    return p->input.failed ? -1 : 0;
}

static int send_command(place *p, const char *command) {
    size_t n = strlen(command), sent = 0;
    while (sent < n) {
        ssize_t more = write(p->fd, command + sent, n - sent);
        if (more < 0 && errno == EINTR) continue;
        if (more <= 0) return fail_ended(p);
        sent += (size_t)more;
    }
    return 0;
}

/* Sends a command and takes what comes, until it is answered. -1 with the error there, or of the
 * process. */
static int ask(bench *b, place *p, const char *command, answer *out) {
    int64_t start_ns = clock_ns();
    *out = (answer){0};
    int status = p->pid ? 0 : start(b, p);
    if (!status) status = send_command(p, command);
    while (!status) {
        size_t n;
        const char *line = next_line(p, &n);
        status = line ? take_line(b, p, line, n, out) : wait_for_more(b, p, start_ns);
    }
    if (status > 0) return out->failed ? -1 : 0;
    kill_place(p);
    return -1;
}

/* ---- commands ---- */

/* As load_here: what does not load is not tried again. */
static int ask_to_load(bench *b, place *p, const char *command, answer *out) {
    b->load_failures = p->load_failures;
    if (b->load_failures) {
        p->load_failures = ++b->load_failures;
        return fail("%s", p->error.data);
    }
    bool was_loaded = p->loaded;
    int failed = ask(b, p, command, out);
    if (!failed) p->loaded = true;
    if (failed && !was_loaded && error_exit_code() != EXIT_INTERRUPTED &&
        !p->pid) { /* it ended while it loaded */
        b->load_failures = 1;
        str_clear(&p->error);
        str_puts(&p->error, error_message());
    }
    p->load_failures = b->load_failures;
    return failed;
}

static int ask_to_prepare(bench *b, place *p, int64_t index, int first, answer *out) {
    char command[64];
    snprintf(command, sizeof command, "prepare %lld %d\n", (long long)index, first);
    return ask_to_load(b, p, command, out);
}

int place_prepare(bench *b, const series *s, bool first, prepared *out) {
    place *p = place_of(b, s);
    answer found;
    *out = (prepared){0};
    if (ask_to_prepare(b, p, s->index, first, &found)) return -1;
    out->equal = found.number != 0;
    if (out->equal) return 0;
    if (!p->last.n) return fail("a child process did not say what it will run");
    results_free(&p->about);
    p->about = p->last;
    p->last = (results){0};
    out->what = p->about.runs[0];
    return 0;
}

/* A new process loads the model first: what ends it then is no fault of the configuration. */
int place_begin(bench *b, const series *s) {
    place *p = place_of(b, s);
    char command[64];
    answer found;
    if (!p->loaded && ask_to_prepare(b, p, s->index, false, &found)) return -1;
    snprintf(command, sizeof command, "begin %lld\n", (long long)s->index);
    return ask(b, p, command, &found);
}

int place_run(bench *b, const series *s, turn *out) {
    place *p = place_of(b, s);
    char command[96];
    answer found;
    snprintf(command, sizeof command, "run %lld %lld %d %d\n", (long long)s->n_warm, (long long)s->n, s->warm,
             s->settled);
    progress_run(&b->progress, s);
    results_free(&p->last);
    if (ask(b, p, command, &found)) return -1;
    const sample *run = p->last.n ? p->last.runs[0].raw : NULL;
    if (!run || run->n_tokens < 1) return fail("a child process did not say what it measured");
    out->row = p->last.runs[0];
    out->ns = found.number;
    progress_run_done(&b->progress, run);
    return 0;
}

int place_end(bench *b, const series *s) {
    answer found;
    return ask(b, place_of(b, s), "end\n", &found);
}
