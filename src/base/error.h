/* error.h - one recorded error message, printed once by main.
 * Library code never prints: it records what, where and what to do, and returns -1 or NULL. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdbool.h>

#if defined(__GNUC__)
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#else
#define PRINTF_LIKE(f, a)
#endif

/* Exit codes of the program, and the kind of the recorded error. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_GATE = 3, EXIT_INTERRUPTED = 130 };

/* Records a failure (exit code 1) and returns -1. A newer message replaces an older one, and the
 * arguments may quote error_message(), so a caller can add context: return fail("%s: %s", path,
 * error_message()). */
int fail(const char *format, ...) PRINTF_LIKE(1, 2);

/* As fail, for a mistake in the command line or the request (exit code 2). */
int fail_usage(const char *format, ...) PRINTF_LIKE(1, 2);

/* As fail, for a limit that was set and not kept, such as a loss of speed (exit code 3). */
int fail_gate(const char *format, ...) PRINTF_LIKE(1, 2);

/* As fail, for memory that there is not enough of: error_is_memory() from then on, whatever context
 * is added, until error_clear(). */
int fail_memory(const char *format, ...) PRINTF_LIKE(1, 2);
bool error_is_memory(void);

/* As fail, but returns NULL: return fail_null("..."). */
void *fail_null(const char *format, ...) PRINTF_LIKE(1, 2);

/* The recorded message ("" when none) and its exit code (EXIT_OK when none). Per thread. */
const char *error_message(void);
int error_exit_code(void);
void error_clear(void);

/* Ctrl-C. interrupt_install makes SIGINT and SIGTERM set a flag (a second one ends the program at
 * once); long work polls interrupted() and, when true, returns fail_interrupted(). */
void interrupt_install(void);
bool interrupted(void);
int fail_interrupted(void);

#endif
