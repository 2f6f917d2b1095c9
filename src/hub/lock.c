/* lock.c - flock on a lock file that others may remove with the cache.
 * A lock on a file that was unlinked meanwhile guards nothing, so it is looked at again. */
#include "hub/lock.h"
#include "hub/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int try_path(const char *path, int *fd) {
    struct stat info;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0664);
    if (*fd < 0) return fail("cannot write %s: %s", path, strerror(errno));
    int status = flock(*fd, LOCK_EX | LOCK_NB);
    bool busy = status && (errno == EWOULDBLOCK || errno == EAGAIN || errno == EACCES || errno == EINTR);
    bool gone = !status && (fstat(*fd, &info) || !info.st_nlink);
    if (!busy && !gone) return 1;
    close(*fd);
    *fd = -1;
    return 0;
}

int lock_try(const char *repo_folder, const char *etag, int *fd) {
    const char *name = strrchr(repo_folder, '/');
    str path = {0};
    str_printf(&path, "%.*s/.locks%s", (int)(name - repo_folder), repo_folder, name);
    int status = path.failed ? -1 : make_folders(path.data);
    str_printf(&path, "/%s.lock", etag);
    if (!status) status = path.failed ? -1 : try_path(path.data, fd);
    str_free(&path);
    return status;
}
