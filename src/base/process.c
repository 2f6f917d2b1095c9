/* process.c - fork and exec, with what is between them kept to calls that are safe there.
 * What fails in the child before exec comes back through a pipe that exec closes.
 */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

enum { OUT_OF_THE_WAY = 10 }; /* above every descriptor that a child gets */

/* A duplicate of fd that no dup2 below overwrites. */
static int set_aside(int fd) {
    return fcntl(fd, F_DUPFD_CLOEXEC, OUT_OF_THE_WAY);
}

/* In the child: descriptor `to` becomes fd, or /dev/null. */
static bool give(int fd, int to) {
    if (fd < 0) fd = open("/dev/null", to ? O_WRONLY | O_CLOEXEC : O_RDONLY | O_CLOEXEC);
    int aside = fd < 0 ? -1 : set_aside(fd);
    return aside >= 0 && dup2(aside, to) == to;
}

static void become(const process_spec *spec, pid_t parent, int told) {
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    bool ours = getppid() == parent; /* it may have ended before it could be asked for */
    bool given = (spec->channel < 0 || give(spec->channel, PROCESS_CHANNEL)) && give(spec->in, 0) &&
                 give(spec->out, 1) && (spec->err < 0 || give(spec->err, 2));
    if (ours && given) execv(spec->program, (char *const *)spec->arguments);
    int why = errno;
    ssize_t written = write(told, &why, sizeof why);
    _exit(written == sizeof why ? 126 : 127);
}

/* What kept the program from being started; 0: nothing. */
static int read_error(int fd) {
    int why = 0;
    ssize_t n;
    do {
        n = read(fd, &why, sizeof why);
    } while (n < 0 && errno == EINTR);
    return n == sizeof why ? why : 0;
}

pid_t process_start(const process_spec *spec) {
    int told[2];
    pid_t parent = getpid();
    if (pipe(told)) return fail("cannot start %s: %s", spec->program, strerror(errno));
    int end = set_aside(told[1]);
    close(told[1]);
    fcntl(told[0], F_SETFD, FD_CLOEXEC);
    pid_t pid = end < 0 ? -1 : fork();
    int why = errno;
    if (!pid) become(spec, parent, end);
    if (end >= 0) close(end);
    if (pid > 0) why = read_error(told[0]);
    close(told[0]);
    if (pid > 0 && !why) return pid;
    if (pid > 0) process_kill(pid);
    return fail("cannot start %s: %s", spec->program, strerror(why));
}

bool process_ended(pid_t pid, int64_t ns, int *status) {
    const int64_t longest = 50000000; /* seldom, so that waiting disturbs nothing that is measured */
    for (int64_t nap = 1000000;; nap = 2 * nap < longest ? 2 * nap : longest) {
        pid_t found = waitpid(pid, status, WNOHANG);
        if (found == pid) return true;
        if (found < 0 && errno != EINTR) { /* there is nobody to wait for */
            *status = 0;
            return true;
        }
        if (ns <= 0) return false;
        nanosleep(&(struct timespec){.tv_nsec = nap}, NULL);
        ns -= nap;
    }
}

void process_kill(pid_t pid) {
    int status;
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
}

void process_put_reason(str *out, int status) {
    static const struct {
        int number;
        const char *name;
    } names[] = {{SIGSEGV, "SIGSEGV"}, {SIGABRT, "SIGABRT"}, {SIGBUS, "SIGBUS"},   {SIGFPE, "SIGFPE"},
                 {SIGILL, "SIGILL"},   {SIGTRAP, "SIGTRAP"}, {SIGKILL, "SIGKILL"}, {SIGTERM, "SIGTERM"},
                 {SIGHUP, "SIGHUP"},   {SIGINT, "SIGINT"},   {SIGXCPU, "SIGXCPU"}, {SIGSYS, "SIGSYS"}};
    if (!WIFSIGNALED(status)) {
        str_printf(out, "ended with exit code %d", WIFEXITED(status) ? WEXITSTATUS(status) : 0);
        return;
    }
    str_printf(out, "killed by signal %d", WTERMSIG(status));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].number == WTERMSIG(status)) str_printf(out, " (%s)", names[i].name);
}

int process_file(const char *text, size_t n) {
    FILE *file = tmpfile();
    int fd = -1;
    if (file && fwrite(text, 1, n, file) == n && !fflush(file)) fd = set_aside(fileno(file));
    int why = errno;
    if (file) fclose(file);
    if (fd < 0) return fail("cannot make a temporary file: %s", strerror(why));
    lseek(fd, 0, SEEK_SET);
    return fd;
}
