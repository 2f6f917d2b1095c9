/* say.c - what goes to stderr, line by line. Each line is one write, so that lines of two programs
 * with one stderr stay whole.
 */
#include "base/base.h"

#include <stdarg.h>
#include <stdio.h>

static bool as_json;

void say_as_json(void) {
    as_json = true;
}

bool says_json(void) {
    return as_json;
}

static void put_line(const str *line) {
    if (!line->failed) fwrite(line->data, 1, line->length, stderr);
    fflush(stderr);
}

void say_event(const char *event, const str *members) {
    str line = {0};
    str_printf(&line, "{\"event\": \"%s\"", event);
    if (members->length) str_append(&line, members->data, members->length);
    str_puts(&line, "}\n");
    line.failed |= members->failed;
    put_line(&line);
    str_free(&line);
}

static void say_text(say_kind kind, const char *text, int exit_code) {
    static const char *const events[] = {"note", "download", "error"};
    str out = {0};
    if (as_json) {
        str_puts(&out, ", \"text\": ");
        json_quote(&out, text);
        if (kind == SAY_ERROR) str_printf(&out, ", \"exit_code\": %d", exit_code);
        say_event(events[kind], &out);
    } else {
        str_printf(&out, "mlxbench: %s%s\n", kind == SAY_NOTE ? "note: " : "", text);
        put_line(&out);
    }
    str_free(&out);
}

void say(say_kind kind, const char *format, ...) {
    char text[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    say_text(kind, text, EXIT_FAILED);
}

void say_error(int exit_code) {
    say_text(SAY_ERROR, error_message(), exit_code);
}
