/* fetch.c - finding or downloading a model for a command, and the progress on stderr.
 * On a terminal some lines are rewritten; elsewhere there is a line now and then. */
#include "cmd/fetch.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SECOND 1000000000LL
enum { RATE_SAMPLES = 16, PLAIN_SECONDS = 15 };

typedef struct display {
    bool bar, lines; /* rows that are rewritten, or lines now and then */
    int rows;        /* on the screen, to be rewritten */
    int64_t start, next_line;
    struct {
        int64_t at, received;
    } samples[RATE_SAMPLES]; /* a ring over the last seconds */
    int n_samples;
} display;

/* Bytes per second over the last samples, which are half a second apart. */
static double rate(display *s, int64_t received) {
    int64_t now = clock_ns();
    int last = (s->n_samples + RATE_SAMPLES - 1) % RATE_SAMPLES;
    if (!s->n_samples || now - s->samples[last].at > SECOND / 2) {
        last = s->n_samples++ % RATE_SAMPLES;
        s->samples[last].at = now;
        s->samples[last].received = received;
    }
    int first = s->n_samples > RATE_SAMPLES ? s->n_samples % RATE_SAMPLES : 0;
    double seconds = (double)(now - s->samples[first].at) / 1e9;
    return seconds > 0.2 ? (double)(received - s->samples[first].received) / seconds : 0;
}

static void put_size(str *out, double bytes) {
    if (bytes >= 1e9)
        str_printf(out, "%.2f GB", bytes / 1e9);
    else
        str_printf(out, "%.1f MB", bytes / 1e6);
}

static void put_duration(str *out, double seconds) {
    if (seconds >= 3600)
        str_printf(out, "%.0f h %02.0f min", seconds / 3600, (double)((long)seconds % 3600 / 60));
    else
        str_printf(out, "%ld:%02ld", (long)seconds / 60, (long)seconds % 60);
}

static double percent(int64_t have, int64_t total) {
    return total ? 100.0 * (double)have / (double)total : 100.0;
}

/* "42 %, 2.70 GB of 6.40 GB, 85.1 MB/s, 0:43 left, 3 of 9 files" */
static void put_total(str *out, display *s, const hub_progress *p) {
    double speed = rate(s, p->received);
    str_printf(out, "%.0f %%, ", percent(p->have, p->total));
    put_size(out, (double)p->have);
    str_puts(out, " of ");
    put_size(out, (double)p->total);
    if (speed > 0) {
        str_puts(out, ", ");
        put_size(out, speed);
        str_puts(out, "/s, ");
        put_duration(out, (double)(p->total - p->have) / speed);
        str_puts(out, " left");
    }
    str_printf(out, ", %d of %d files", p->files_done, p->files);
}

/* "  61 % of 4.97 GB  model-00001-of-00002.safetensors" */
static void put_file(str *out, const hub_file_progress *f) {
    str_printf(out, "%4.0f %% of ", percent(f->have, f->size));
    put_size(out, (double)f->size);
    str_puts(out, "  ");
    str_put_printable(out, f->path);
}

/* ---- on a terminal: a line for each file, and one for all of them, which are rewritten ---- */

static void add_row(display *s, str *screen, str *line, size_t width) {
    if (line->failed) return;
    if (line->length > width) line->data[width] = '\0';
    make_printable(line->data); /* half a character at the end */
    str_printf(screen, "%s%s\033[K", s->rows ? "\n" : "", line->data);
    str_clear(line);
    s->rows++;
}

/* To the first row; what is written next takes the place of all that was there. */
static void put_return(display *s, str *screen) {
    if (s->rows > 1) str_printf(screen, "\033[%dA", s->rows - 1);
    str_puts(screen, "\r");
    s->rows = 0;
}

static void draw(display *s, const hub_progress *p) {
    struct winsize size;
    bool known = !ioctl(STDERR_FILENO, TIOCGWINSZ, &size) && size.ws_col > 20 && size.ws_row > 2;
    int most = known ? size.ws_row - 2 : 8;
    size_t width = (known ? size.ws_col : 80) - 1;
    str screen = {0}, line = {0};
    put_return(s, &screen);
    for (int i = 0; i < p->n_active && i < most; i++) {
        put_file(&line, &p->active[i]);
        add_row(s, &screen, &line, width);
    }
    put_total(&line, s, p);
    add_row(s, &screen, &line, width);
    str_puts(&screen, "\033[J");
    if (!screen.failed) fwrite(screen.data, 1, screen.length, stderr);
    fflush(stderr);
    str_free(&screen);
    str_free(&line);
}

static void wipe(display *s) {
    str screen = {0};
    bool shown = s->rows > 0;
    put_return(s, &screen);
    if (shown && !screen.failed) fprintf(stderr, "%s\033[J", screen.data);
    str_free(&screen);
}

static void show(void *context, const hub_progress *p) {
    display *s = context;
    str line = {0};
    if (p->note && (s->bar || s->lines)) {
        wipe(s);
        str_put_printable(&line, p->note);
        if (!line.failed) say(SAY_DOWNLOAD, "%s", line.data);
        str_clear(&line);
    }
    if (p->total && s->bar) draw(s, p);
    if (p->total && s->lines && clock_ns() >= s->next_line) {
        put_total(&line, s, p);
        if (p->n_active) str_puts(&line, ",");
        if (p->n_active) put_file(&line, &p->active[0]);
        if (!line.failed && s->next_line) /* the first of them would say that nothing has come */
            say(SAY_DOWNLOAD, "%s", line.data);
        s->next_line = clock_ns() + PLAIN_SECONDS * SECOND;
    }
    str_free(&line);
}

/* HF_HUB_DISABLE_PROGRESS_BARS: neither a bar nor lines; begin and end are told all the same. */
static bool wants_progress(void) {
    const char *value = getenv("HF_HUB_DISABLE_PROGRESS_BARS"), *const yes[] = {"1", "on", "yes", "true"};
    for (size_t i = 0; value && i < sizeof yes / sizeof *yes; i++)
        if (!strcasecmp(value, yes[i])) return false;
    return true;
}

/* begin: the line before it. */
static int pull(const char *begin, const char *model, hub_need need, str *path) {
    const char *kind = getenv("TERM"); /* a dumb one can't go back */
    bool progress = wants_progress(),
         terminal = !says_json() && isatty(STDERR_FILENO) && !(kind && !strcmp(kind, "dumb"));
    display s = {.bar = progress && terminal, .lines = progress && !terminal, .start = clock_ns()};
    hub_pull_options options = {.need = need, .progress = show, .context = &s};
    str name = {0};
    str_put_printable(&name, model);
    if (name.failed) return -1;
    say(SAY_DOWNLOAD, "%s %s", begin, name.data);
    int status = hub_pull(model, &options, path);
    wipe(&s);
    if (!status)
        say(SAY_DOWNLOAD, "%s is complete (%.1f s)", name.data, (double)(clock_ns() - s.start) / 1e9);
    str_free(&name);
    return status;
}

int fetch_pull(const char *model, hub_need need, str *path) {
    return pull("downloading", model, need, path);
}

int fetch_found(const char *model, str *path) {
    return hub_find(model, HUB_MODEL, path) ? -1 : 0;
}

int fetch_model(const char *model, hub_need need, bool offline, str *path) {
    int status = hub_find(model, need, path);
    if (status != HUB_MISSING || path->failed) return status ? -1 : 0;
    if (offline || hub_offline())
        return fail("%s; nothing is downloaded now: %s", error_message(),
                    offline ? "--offline" : "HF_HUB_OFFLINE is set");
    error_clear();
    return pull("not here, or not all of it; downloading", model, need, path);
}
