/* linux.c - sys.h on Linux: the real system, and reading the kernel's small text files.
 * What the files mean is in linux_cpu.c and linux_limits.c. */
#include "sys/linux.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

bool linux_line(char *line, size_t size, const char *root, const char *format, ...) {
    str path = {0};
    char relative[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(relative, sizeof relative, format, args);
    va_end(args);
    str_printf(&path, "%s%s", root, relative);
    FILE *file = path.failed ? NULL : fopen(path.data, "re");
    bool found = file && fgets(line, (int)size, file);
    if (!found) line[0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    if (file) fclose(file);
    str_free(&path);
    return found;
}

int64_t linux_number(const char *text) {
    int64_t value = *text >= '0' && *text <= '9' ? strtoll(text, NULL, 10) : -1;
    return value < INT64_MAX / 2048 ? value : -1;
}

bool linux_text(char *text, size_t size, const char *root, const char *path, const char *key) {
    str full = {0};
    str_printf(&full, "%s%s", root, path);
    FILE *file = full.failed ? NULL : fopen(full.data, "re");
    str_free(&full);
    char line[4096];
    size_t n = strlen(key);
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, n) != 0 || !line[n] || !strchr(": \t", line[n])) continue;
        line[strcspn(line, "\n")] = '\0';
        facts_copy(text, size, line + n + strspn(line + n, ": \t"));
        found = true;
    }
    if (file) fclose(file);
    if (!found) text[0] = '\0';
    return found;
}

int64_t linux_value(const char *root, const char *path, const char *key) {
    char text[64];
    return linux_text(text, sizeof text, root, path, key) ? linux_number(text) : -1;
}

void sys_hardware(hardware *h) {
    linux_hardware("", h);
    facts_from_uname(h);
    long n = sysconf(_SC_NPROCESSORS_ONLN), pages = sysconf(_SC_PHYS_PAGES);
    if (!h->logical_cores && n > 0) h->logical_cores = h->physical_cores = (int)n;
    if (!h->memory_bytes && pages > 0) h->memory_bytes = (int64_t)pages * sysconf(_SC_PAGESIZE);
    h->n_gpus = nvml_gpus("libnvidia-ml.so.1", h->gpus, SYS_MAX_GPUS);
    if (!h->n_gpus) h->n_gpus = nvml_gpus("libnvidia-ml.so", h->gpus, SYS_MAX_GPUS);
}

int64_t sys_peak_rss(void) {
    /* Not getrusage's figure where it can be had: that one starts at the size of the process that
     * forked us.
     */
    int64_t kilobytes = linux_value("", "/proc/self/status", "VmHWM");
    struct rusage usage;
    if (kilobytes < 0) kilobytes = getrusage(RUSAGE_SELF, &usage) ? 0 : usage.ru_maxrss;
    return kilobytes * 1024;
}

int64_t sys_available_memory(void) {
    return linux_available_memory("");
}

int64_t sys_memory_kills(void) {
    return linux_memory_kills("");
}

/* The CPUs this process may run on. */
static cpu_mask affinity(void) {
    cpu_mask allowed = {0};
    cpu_set_t *set = CPU_ALLOC(LINUX_MAX_CPUS);
    size_t size = CPU_ALLOC_SIZE(LINUX_MAX_CPUS);
    if (set) CPU_ZERO_S(size, set);
    bool known = set && !sched_getaffinity(0, size, set);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    for (int c = 0; c < LINUX_MAX_CPUS; c++)
        allowed.has[c] = known ? CPU_ISSET_S((size_t)c, size, set) : c < online;
    if (set) CPU_FREE(set);
    return allowed;
}

int sys_usable_cores(void) {
    cpu_mask allowed = affinity();
    return linux_usable_cores("", &allowed);
}

void sys_cores(core_list *cores) {
    cpu_mask allowed = affinity();
    linux_cores("", &allowed, cores);
}

void sys_watch(sys_state *s, bool gpu) {
    static nvml_gpu *library;
    static bool asked;
    if (gpu && !asked) {
        const char *visible = getenv("CUDA_VISIBLE_DEVICES");
        asked = true;
        library = nvml_open("libnvidia-ml.so.1", visible);
        if (!library) library = nvml_open("libnvidia-ml.so", visible);
    }
    facts_own_state(s);
    linux_state("", sched_getcpu(), s);
    if (gpu) nvml_state(library, s);
}
