/* process.h - child processes: started with what they read and write, and why they ended.
 * A child never outlives this process: on Linux the system ends it, elsewhere its channel closes.
 */
#ifndef BASE_PROCESS_H
#define BASE_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/str.h"

enum { PROCESS_CHANNEL = 3 }; /* the descriptor that a child has its channel at */

typedef struct process_spec {
    const char *program;          /* a path; it is not searched for */
    const char *const *arguments; /* the program's name first, NULL last */
    int in, out;                  /* descriptors it gets; -1: /dev/null */
    int err;                      /* -1: ours */
    int channel;                  /* a socket that both sides use; -1: none */
} process_spec;

/* Starts a program; its number. -1 with a message when it cannot be started. */
pid_t process_start(const process_spec *spec);

/* Has it ended? Then *status is waitpid's, and its number is free again. Waits for at most ns. */
bool process_ended(pid_t pid, int64_t ns, int *status);

/* Ends it at once, and waits until it is gone. */
void process_kill(pid_t pid);

/* Appends why it ended: "killed by signal 11 (SIGSEGV)", "ended with exit code 3". */
void process_put_reason(str *out, int status);

/* A file without a name, at its start, that holds n bytes; its descriptor, which the caller closes.
 * -1 with a message. */
int process_file(const char *text, size_t n);

#endif
