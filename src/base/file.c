/* file.c - mmap with messages a user can act on.
 * Only whole pages inside a released range are given back, since neighbours share the others. */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __APPLE__
#include <mach-o/dyld.h>
#endif

int file_map_open(file_map *map, const char *path) {
    *map = (file_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail("cannot open %s: %s", path, strerror(errno));
    struct stat info;
    if (fstat(fd, &info)) {
        int why = errno;
        close(fd);
        return fail("cannot read %s: %s", path, strerror(why));
    }
    if (!S_ISREG(info.st_mode)) {
        close(fd);
        return fail("cannot read %s: it is not a regular file", path);
    }
    map->size = (size_t)info.st_size;
    map->data = "";
    void *data = map->size ? mmap(NULL, map->size, PROT_READ, MAP_PRIVATE, fd, 0) : (void *)map->data;
    int why = errno;
    close(fd);
    if (data == MAP_FAILED) {
        *map = (file_map){0};
        return fail("cannot map %s (%zu bytes): %s", path, (size_t)info.st_size, strerror(why));
    }
    map->data = data;
    return 0;
}

void file_map_close(file_map *map) {
    if (map->size) munmap((void *)map->data, map->size);
    *map = (file_map){0};
}

void file_map_release(const void *data, size_t size) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = ((uintptr_t)data + page - 1) / page * page,
              end = ((uintptr_t)data + size) / page * page;
    if (end <= start) return;
#ifdef MADV_FREE_REUSABLE
    /* macOS, where MADV_DONTNEED frees no memory that is not a file's (XNU: vm_map_willneed and
     * vm_map_reusable_pages). Of a file's mapping it is refused, and MADV_DONTNEED does. */
    if (!madvise((void *)start, end - start, MADV_FREE_REUSABLE)) return;
#endif
    madvise((void *)start, end - start, MADV_DONTNEED);
}

bool file_exists(const char *path) {
    struct stat info;
    return !stat(path, &info) && S_ISREG(info.st_mode);
}

bool dir_exists(const char *path) {
    struct stat info;
    return !stat(path, &info) && S_ISDIR(info.st_mode);
}

int program_path(str *path) {
    char raw[PATH_MAX], real[PATH_MAX];
#ifdef __APPLE__
    uint32_t size = sizeof raw;
    if (_NSGetExecutablePath(raw, &size)) return fail("the path of the running program is too long");
#else
    ssize_t n = readlink("/proc/self/exe", raw, sizeof raw - 1);
    if (n < 0) return fail("cannot find the running program: %s", strerror(errno));
    raw[n] = '\0';
#endif
    if (!realpath(raw, real)) return fail("cannot find the running program: %s", strerror(errno));
    str_puts(path, real);
    return path->failed ? -1 : 0;
}

int program_folder(str *path) {
    str program = {0};
    int status = program_path(&program);
    if (!status) str_append(path, program.data, (size_t)(strrchr(program.data, '/') - program.data));
    str_free(&program);
    return status || path->failed ? -1 : 0;
}

int share_find(const char *relative, str *path) {
    size_t start = path->length;
    const char *fixed = getenv("MLXBENCH_SHARE"), *const below[] = {"/../share/mlxbench", "/../share"};
    str folder = {0};
    int status = -1;
    for (int i = fixed ? -1 : 0; i < (fixed ? 0 : 2) && status; i++) {
        str_clear(&folder);
        if (fixed)
            str_puts(&folder, fixed);
        else if (program_folder(&folder))
            break;
        else
            str_puts(&folder, below[i]);
        path->length = start;
        str_printf(path, "%s/%s", folder.data ? folder.data : "", relative);
        if (!path->failed && (file_exists(path->data) || dir_exists(path->data))) status = 0;
    }
    if (status)
        fail("cannot find the data file share/%s (looked below %s); set MLXBENCH_SHARE", relative,
             fixed ? fixed : "the program's ../share/mlxbench and ../share");
    str_free(&folder);
    return status;
}
