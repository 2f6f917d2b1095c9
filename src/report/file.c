/* file.c - where the text of one output goes: a regular file is written beside its name until its
 * first row is there, so that a command that goes wrong before leaves an earlier file as it was.
 * Then two copies take turns under the name, so that no half of a write is ever seen there.
 * Everything else is written directly.
 */
#include "report/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

static const char *shown(const out_file *f) {
    return f->path ? f->path : "standard output";
}

static void close_fd(int *fd) {
    if (*fd > STDERR_FILENO) close(*fd);
    *fd = -1;
}

static void close_all(out_file *f) {
    close_fd(&f->fd);
    for (int i = 0; i < 2; i++) close_fd(&f->copies[i].fd);
}

/* The first error is the one to print: a closed pipe after Ctrl-C is no news. */
static int fail_write(out_file *f) {
    int why = errno;
    close_all(f);
    if (error_exit_code() != EXIT_OK) return -1;
    if (interrupted()) return fail_interrupted();
    return fail("cannot write %s: %s", shown(f), strerror(why));
}

/* ---- which file it is ---- */

/* The program's own descriptors by name, such as /dev/stdout: never a file to replace, even if they
 * lead to one. */
static bool is_descriptor(const char *path) {
    static const char *const places[] = {"/dev/std", "/dev/fd/", "/proc/self/fd/"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (!strncmp(path, places[i], strlen(places[i]))) return true;
    return false;
}

/* Sets target and folder_info: links are resolved as far as there is something. */
static int resolve(out_file *f) {
    const char *slash = strrchr(f->path, '/'), *name = slash ? slash + 1 : f->path;
    str folder = {0};
    char *real = f->target_info.st_ino ? realpath(f->path, NULL) : NULL;
    if (real) {
        slash = strrchr(real, '/');
        name = slash + 1;
        str_append(&folder, real, slash > real ? (size_t)(slash - real) : 1);
    } else if (slash) {
        str_append(&folder, f->path, slash > f->path ? (size_t)(slash - f->path) : 1);
    } else {
        str_puts(&folder, ".");
    }
    str_printf(&f->target, "%s/%s", folder.failed ? "" : folder.data, name);
    int failed = folder.failed || f->target.failed;
    if (!failed && stat(folder.data, &f->folder_info)) failed = fail_write(f);
    str_free(&folder);
    free(real);
    return failed ? -1 : 0;
}

int out_file_find(out_file *f, const char *path) {
    *f = (out_file){.path = path, .fd = -1, .copies = {{.fd = -1}, {.fd = -1}}, .direct = !path};
    if (!path) return fstat(STDOUT_FILENO, &f->target_info) ? fail_write(f) : 0;
    if (stat(path, &f->target_info)) f->target_info = (struct stat){0};
    bool exists = f->target_info.st_ino != 0;
    f->direct = is_descriptor(path) || (exists && !S_ISREG(f->target_info.st_mode));
    if (exists && S_ISDIR(f->target_info.st_mode)) {
        errno = EISDIR;
        return fail_write(f);
    }
    return f->direct ? 0 : resolve(f);
}

bool out_file_has_content(const out_file *f) {
    return !f->direct && f->target_info.st_ino && f->target_info.st_size;
}

static bool same(const struct stat *a, const struct stat *b) {
    return a->st_ino && a->st_ino == b->st_ino && a->st_dev == b->st_dev;
}

bool out_file_same(const out_file *a, const out_file *b) {
    struct stat null;
    if (same(&a->target_info, &b->target_info)) /* /dev/null takes any number of outputs */
        return stat("/dev/null", &null) || !same(&a->target_info, &null);
    return !a->direct && !b->direct && same(&a->folder_info, &b->folder_info) &&
           !strcmp(strrchr(a->target.data, '/'), strrchr(b->target.data, '/'));
}

bool out_file_is_of(const out_file *f, const char *path) {
    struct stat info;
    if (!f->target_info.st_ino || stat(path, &info)) return false;
    if (!S_ISDIR(info.st_mode)) return same(&f->target_info, &info);
    DIR *folder = opendir(path);
    bool found = false;
    for (struct dirent *entry; folder && !found && (entry = readdir(folder));)
        found = !fstatat(dirfd(folder), entry->d_name, &info, 0) && same(&f->target_info, &info);
    if (folder) closedir(folder);
    return found;
}

/* ---- what killed programs left ---- */

/* Is it NAME.PID.part or NAME.PID.part2 of a program that is gone? Nothing of value is in such a
 * file: its first row did not come, or all its rows are in the file that it would have replaced.
 * The process number may be that of another machine, which has the file locked. */
static bool is_left(const char *name, const char *of, int folder) {
    size_t n = strlen(of);
    char *end;
    if (strncmp(name, of, n) || name[n] != '.') return false;
    long pid = strtol(name + n + 1, &end, 10);
    if (pid <= 0 || (strcmp(end, ".part") && strcmp(end, ".part2")) || !kill((pid_t)pid, 0) || errno != ESRCH)
        return false;
    int fd = openat(folder, name, O_WRONLY | O_CLOEXEC);
    bool left = fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB);
    if (fd >= 0) close(fd);
    return left;
}

static void remove_leftovers(const out_file *f) {
    const char *slash = strrchr(f->target.data, '/');
    char *path = strndup(f->target.data, (size_t)(slash - f->target.data) + 1);
    DIR *folder = path ? opendir(path) : NULL;
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (is_left(entry->d_name, slash + 1, dirfd(folder))) unlinkat(dirfd(folder), entry->d_name, 0);
    if (folder) closedir(folder);
    free(path);
}

/* ---- opening ---- */

/* A new file beside the target, with the rights of what has the target's name. */
static int open_copy(const out_file *f, out_copy *c) {
    struct stat info;
    if (c->fd >= 0) return 0;
    *c = (out_copy){.name = c->name};
    c->fd = open(c->name.data, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (c->fd < 0) return -1;
    c->beside = true;
    flock(c->fd, LOCK_EX); /* where locks work: others see that it is in use */
    if (!stat(f->target.data, &info)) (void)!fchmod(c->fd, info.st_mode & 0777);
    return 0;
}

/* Nothing can be made in this folder, or the longer name is too long. */
static bool is_alone(int why) {
    return why == EACCES || why == EPERM || why == EROFS || why == ENAMETOOLONG;
}

static int open_regular(out_file *f, bool emptied) {
    out_copy *c = &f->copies[0];
    for (int i = 0; i < 2; i++) {
        str *name = &f->copies[i].name;
        str_printf(name, "%s.%ld.part%s", f->target.data, (long)getpid(), i ? "2" : "");
        if (name->failed) return -1;
    }
    remove_leftovers(f);
    if (!open_copy(f, c)) return 0;
    int why = errno;
    f->in_place = f->named = emptied && f->target_info.st_ino && is_alone(why);
    if (f->in_place) c->fd = open(f->target.data, O_RDWR | O_TRUNC | O_CLOEXEC);
    errno = why;
    return c->fd < 0 ? fail_write(f) : 0;
}

int out_file_open(out_file *f, bool emptied) {
    if (f->path && !f->direct) return open_regular(f, emptied);
    f->fd = f->path ? open(f->path, O_WRONLY | O_APPEND | O_CLOEXEC) : STDOUT_FILENO;
    return f->fd < 0 ? fail_write(f) : 0;
}

bool out_file_is_open(const out_file *f) {
    return f->fd >= 0 || f->copies[f->shown].fd >= 0;
}

/* ---- names ---- */

/* Its rows get a name that is not taken for something left over. */
static int keep_beside(out_file *f, out_copy *c, const char *why) {
    str name = {0};
    str_printf(&name, "%s.%ld.rows", f->target.data, (long)getpid());
    bool renamed = !name.failed && !rename(c->name.data, name.data);
    fail("%s %s; the rows are in %s", f->path, why, renamed ? name.data : c->name.data);
    str_free(&name);
    c->beside = false;
    close_all(f);
    return -1;
}

static int keep_what_cannot_replace(out_file *f, out_copy *c) {
    char why[256];
    snprintf(why, sizeof why, "cannot be replaced: %s", strerror(errno));
    return keep_beside(f, c, why);
}

/* A file that is mounted, as containers have it, can't be replaced, but written. */
static int move_into_place(out_file *f, out_copy *c) {
    int why = errno, fd = why == EBUSY ? open(f->target.data, O_RDWR | O_TRUNC | O_CLOEXEC) : -1;
    errno = why;
    if (fd < 0) return keep_what_cannot_replace(f, c);
    if (out_copy_move(c, fd)) {
        why = errno;
        close(fd);
        errno = why;
        return keep_what_cannot_replace(f, c);
    }
    unlink(c->name.data);
    c->beside = false;
    f->in_place = f->named = true;
    return 0;
}

static const char written_meanwhile[] = "was written by someone else meanwhile";

int out_file_keep(out_file *f, bool force) {
    struct stat now;
    out_copy *c = &f->copies[f->shown];
    if (f->direct || f->named) return 0;
    bool there = !stat(f->target.data, &now) && now.st_size,
         as_before = same(&now, &f->target_info) && now.st_size == f->target_info.st_size;
    if (!force && there && !as_before) return keep_beside(f, c, written_meanwhile);
    if (rename(c->name.data, f->target.data)) return move_into_place(f, c);
    c->beside = false;
    f->named = true;
    return 0;
}

/* The copy that was just written gets the target's name at once. The other one goes back to its
 * own, for the next write; where a file can't have two names for a moment, it is lost, and the next
 * copy is a whole one. */
static int take_turns(out_file *f) {
    out_copy *now = &f->copies[f->shown], *next = &f->copies[!f->shown];
    struct stat ours, there;
    if (fstat(now->fd, &ours)) return fail_write(f);
    bool gone = stat(f->target.data, &there) != 0;
    if (!gone && !same(&ours, &there)) return keep_beside(f, next, written_meanwhile);
    now->beside = !gone && !link(f->target.data, now->name.data);
    if (rename(next->name.data, f->target.data)) return keep_what_cannot_replace(f, next);
    if (!now->beside) close_fd(&now->fd);
    next->beside = false;
    f->shown = !f->shown;
    return 0;
}

/* ---- writing ---- */

static int write_directly(out_file *f, const char *text, size_t n) {
    while (n) {
        ssize_t done = write(f->fd, text, n);
        if (done < 0 && errno != EINTR) return fail_write(f);
        if (done <= 0) continue;
        text += done;
        n -= (size_t)done;
    }
    return 0;
}

static bool has_failed(const out_tail *tail) {
    bool failed = tail->closing.failed;
    for (int i = 0; tail->parts && i < MAX_PARTS; i++) failed |= tail->parts[i].failed;
    return failed;
}

int out_file_write(out_file *f, const str *text, const out_tail *tail) {
    out_copy *now = &f->copies[f->shown], *next = &f->copies[!f->shown];
    if (!out_file_is_open(f) || text->failed || has_failed(tail)) return -1;
    if (f->direct) return write_directly(f, text->data, text->length);
    bool only_text = out_tail_is_empty(tail) && now->end == now->length;
    if (!f->named || f->in_place || only_text)
        return out_copy_write(now, NULL, text, tail) ? fail_write(f) : 0;
    if (open_copy(f, next) || out_copy_write(next, now, text, tail)) return fail_write(f);
    return take_turns(f);
}

int out_file_close(out_file *f) {
    int *fds[] = {&f->fd, &f->copies[0].fd, &f->copies[1].fd}, failed = 0;
    for (int i = 0; i < 2; i++) {
        if (f->copies[i].beside) unlink(f->copies[i].name.data);
        str_free(&f->copies[i].name);
    }
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (*fds[i] > STDERR_FILENO && close(*fds[i])) failed = -1;
        *fds[i] = -1;
    }
    if (failed) fail_write(f);
    str_free(&f->target);
    return failed;
}
