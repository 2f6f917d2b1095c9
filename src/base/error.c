/* error.c - the recorded error and the interrupt flag.
 * Kept per thread so that a pool thread can never overwrite the message main will print. */
#include "base/base.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static _Thread_local char message[2048];
static _Thread_local int exit_code;
static _Thread_local bool is_memory;
static volatile sig_atomic_t interrupt_signal;

static void record(int code, const char *format, va_list args) PRINTF_LIKE(2, 0);

static void record(int code, const char *format, va_list args) {
    char text[sizeof message]; /* the arguments may point into message */
    vsnprintf(text, sizeof text, format, args);
    make_printable(text);
    memcpy(message, text, sizeof message);
    exit_code = code;
}

int fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    record(EXIT_FAILED, format, args);
    va_end(args);
    return -1;
}

int fail_usage(const char *format, ...) {
    va_list args;
    va_start(args, format);
    record(EXIT_USAGE, format, args);
    va_end(args);
    return -1;
}

int fail_gate(const char *format, ...) {
    va_list args;
    va_start(args, format);
    record(EXIT_GATE, format, args);
    va_end(args);
    return -1;
}

int fail_memory(const char *format, ...) {
    va_list args;
    va_start(args, format);
    record(EXIT_FAILED, format, args);
    va_end(args);
    is_memory = true;
    return -1;
}

bool error_is_memory(void) {
    return is_memory;
}

void *fail_null(const char *format, ...) {
    va_list args;
    va_start(args, format);
    record(EXIT_FAILED, format, args);
    va_end(args);
    return NULL;
}

const char *error_message(void) {
    return message;
}

int error_exit_code(void) {
    return exit_code;
}

void error_clear(void) {
    message[0] = '\0';
    exit_code = EXIT_OK;
    is_memory = false;
}

static void on_signal(int signal_number) {
    if (interrupt_signal) _exit(EXIT_INTERRUPTED);
    interrupt_signal = signal_number;
}

void interrupt_install(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool interrupted(void) {
    return interrupt_signal != 0;
}

int fail_interrupted(void) {
    fail("interrupted");
    exit_code = EXIT_INTERRUPTED;
    return -1;
}
