/* file.c - where the text of one output goes: a regular file is written beside its name until its
 * first row is there, so that a command that goes wrong before leaves an earlier file as it was.
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

enum { MAX_GAP = 1 << 30 }; /* bytes */

static const char *shown(const out_file *f) {
    return f->path ? f->path : "standard output";
}

static void close_fd(out_file *f) {
    if (f->fd > STDERR_FILENO) close(f->fd);
    f->fd = -1;
}

/* The first error is the one to print: a closed pipe after Ctrl-C is no news. */
static int fail_write(out_file *f) {
    int why = errno;
    close_fd(f);
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
    *f = (out_file){.path = path, .fd = -1, .direct = !path};
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

/* Is it NAME.PID.part of a program that is gone? Nothing of value is in such a file: its first row
 * did not come, or all its rows are in the file that it would have replaced. The process number may
 * be that of another machine, which has the file locked. */
static bool is_left(const char *name, const char *of, int folder) {
    size_t n = strlen(of);
    char *end;
    if (strncmp(name, of, n) || name[n] != '.') return false;
    long pid = strtol(name + n + 1, &end, 10);
    if (pid <= 0 || strcmp(end, ".part") || !kill((pid_t)pid, 0) || errno != ESRCH) return false;
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

/* ---- writing ---- */

int out_file_open(out_file *f) {
    if (!f->path) {
        f->fd = STDOUT_FILENO;
    } else if (f->direct) {
        f->fd = open(f->path, O_WRONLY | O_APPEND | O_CLOEXEC);
    } else {
        str_printf(&f->part, "%s.%ld.part", f->target.data, (long)getpid());
        if (f->part.failed) return -1;
        remove_leftovers(f);
        f->fd = open(f->part.data, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (f->fd < 0) str_free(&f->part);     /* whoever made it, it is not ours */
        if (f->fd >= 0) flock(f->fd, LOCK_EX); /* where locks work: others see that it is in use */
    }
    return f->fd < 0 ? fail_write(f) : 0;
}

static int write_all(out_file *f, const char *text, size_t n, int64_t at) {
    while (n) {
        ssize_t done = f->direct ? write(f->fd, text, n) : pwrite(f->fd, text, n, at);
        if (done < 0 && errno != EINTR) return fail_write(f);
        if (done <= 0) continue;
        at += done;
        text += done;
        n -= (size_t)done;
    }
    return 0;
}

static void append(str *out, const str *text, size_t first) {
    if (text->length > first) str_append(out, text->data + first, text->length - first);
}

/* Writes text into the gap, and behind it what is new of the tail. */
static int write_in_gap(out_file *f, const str *text, const out_tail *tail) {
    str after = {0};
    append(&after, &tail->text, f->tail);
    append(&after, &tail->closing, 0);
    int failed = after.failed || write_all(f, text->data, text->length, f->length) ||
                 write_all(f, after.data, after.length, f->tail_at + (int64_t)f->tail);
    str_free(&after);
    return failed ? -1 : 0;
}

/* Writes text, and moves the tail behind it. The gap is as long as the tail: so the tail is not
 * moved again before as much text has come, and all moves together write no more than the text
 * does. */
static int write_all_of_it(out_file *f, const str *text, const out_tail *tail) {
    str all = {0};
    append(&all, text, 0);
    size_t gap = tail->last ? 0 : tail->text.length < MAX_GAP ? tail->text.length : MAX_GAP;
    str_printf(&all, "%*s", (int)gap, "");
    f->tail_at = f->length + (int64_t)all.length;
    append(&all, &tail->text, 0);
    append(&all, &tail->closing, 0);
    int failed = all.failed || write_all(f, all.data, all.length, f->length);
    str_free(&all);
    return failed ? -1 : 0;
}

int out_file_write(out_file *f, const str *text, const out_tail *tail) {
    if (f->fd < 0 || text->failed || tail->text.failed || tail->closing.failed) return -1;
    if (f->direct) return write_all(f, text->data, text->length, 0);
    bool fits = f->length + (int64_t)text->length <= f->tail_at && !tail->last;
    if (fits ? write_in_gap(f, text, tail) : write_all_of_it(f, text, tail)) return -1;
    f->length += (int64_t)text->length;
    f->tail = tail->text.length;
    int64_t end = f->tail_at + (int64_t)(tail->text.length + tail->closing.length), before = f->end;
    f->end = end;
    return end < before && ftruncate(f->fd, end) ? fail_write(f) : 0;
}

/* Under a name that is not taken for something left over. */
static int keep_beside(out_file *f) {
    str name = {0};
    str_printf(&name, "%s.%ld.rows", f->target.data, (long)getpid());
    bool renamed = !name.failed && !rename(f->part.data, name.data);
    fail("%s was written by someone else meanwhile; the rows are in %s", f->path,
         renamed ? name.data : f->part.data);
    str_free(&name);
    str_free(&f->part);
    close_fd(f);
    return -1;
}

int out_file_keep(out_file *f, bool force) {
    struct stat now;
    if (!f->part.length) return 0;
    bool there = !stat(f->target.data, &now) && now.st_size,
         as_before = same(&now, &f->target_info) && now.st_size == f->target_info.st_size;
    if (!force && there && !as_before) return keep_beside(f);
    if (rename(f->part.data, f->target.data)) return fail_write(f);
    str_free(&f->part);
    return 0;
}

int out_file_close(out_file *f) {
    int failed = 0;
    if (f->part.length) unlink(f->part.data);
    if (f->fd > STDERR_FILENO && close(f->fd)) {
        f->fd = -1;
        failed = fail_write(f);
    }
    f->fd = -1;
    str_free(&f->part);
    str_free(&f->target);
    return failed;
}
