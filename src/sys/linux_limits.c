/* linux_limits.c - what this process may use: control groups (v1 and v2), affinity, free memory.
 * A container's limits are lower than the machine's, and using more means being throttled or
 * killed. */
#include "sys/linux.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Calls visit with each folder of our control group and its parents, whose limits hold too. A
 * container may see the host's path of its group but have the group itself mounted as the top,
 * which is visited last. */
static void visit_groups(const char *root, const char *controller,
                         void (*visit)(void *context, const char *root, const char *folder), void *context) {
    str path = {0};
    str_printf(&path, "%s/proc/self/cgroup", root);
    FILE *file = path.failed ? NULL : fopen(path.data, "re");
    str_free(&path);
    char line[1024], folder[1200];
    while (file && fgets(line, sizeof line, file)) { /* ID:CONTROLLERS:PATH; v2 has no controllers */
        line[strcspn(line, "\n")] = '\0';
        char *rest = line;
        if (!strsep(&rest, ":") || !rest) continue;
        char *controllers = strsep(&rest, ":"), *name;
        if (!rest) continue;
        bool ours = !*controllers, v2 = ours;
        while ((name = strsep(&controllers, ","))) ours = ours || !strcmp(name, controller);
        if (!ours) continue;
        for (char *end = rest + strlen(rest); end; end = strrchr(rest, '/')) {
            *end = '\0';
            snprintf(folder, sizeof folder, "/sys/fs/cgroup%s%s%s", v2 ? "" : "/", v2 ? "" : controller,
                     rest);
            visit(context, root, folder);
        }
    }
    if (file) fclose(file);
}

static void min_cores(void *context, const char *root, const char *folder) {
    double *cores = context, quota = 0, period = 0;
    char line[128];
    if (linux_line(line, sizeof line, root, "%s/cpu.max", folder)) /* v2: "QUOTA PERIOD" or "max PERIOD" */
        sscanf(line, "%lf %lf", &quota, &period);
    else if (linux_line(line, sizeof line, root, "%s/cpu.cfs_quota_us", folder)) { /* v1: -1 is no limit */
        quota = strtod(line, NULL);
        linux_line(line, sizeof line, root, "%s/cpu.cfs_period_us", folder);
        period = strtod(line, NULL);
    }
    if (quota > 0 && period > 0 && quota / period < *cores) *cores = quota / period;
}

/* How long the group was stopped: microseconds in v2, nanoseconds in v1. A parent's figure may be
 * the larger one. */
static void max_stopped(void *context, const char *root, const char *folder) {
    double *seconds = context;
    str path = {0};
    str_printf(&path, "%s/cpu.stat", folder);
    int64_t v2 = path.failed ? -1 : linux_value(root, path.data, "throttled_usec"),
            v1 = path.failed ? -1 : linux_value(root, path.data, "throttled_time");
    double found = v2 >= 0 ? (double)v2 / 1e6 : v1 >= 0 ? (double)v1 / 1e9 : -1;
    if (found > *seconds) *seconds = found;
    str_free(&path);
}

void linux_quota(const char *root, sys_state *s) {
    double cores = LINUX_MAX_CPUS;
    visit_groups(root, "cpu", min_cores, &cores);
    if (cores < LINUX_MAX_CPUS) s->quota_cpus = cores;
    visit_groups(root, "cpu", max_stopped, &s->quota_s);
}

/* n, or what the control groups leave of it. A share of a core would stall all other threads at the
 * next barrier: rounded down. */
static int limited(const char *root, int n) {
    double quota = LINUX_MAX_CPUS;
    visit_groups(root, "cpu", min_cores, &quota);
    if (quota < n) n = (int)quota;
    return n > 0 ? n : 1;
}

int linux_usable_cores(const char *root, const cpu_mask *allowed) {
    return limited(root, linux_count_cores(root, allowed));
}

/* Appends the first CPU of each core not yet seen, among those that are wanted. */
static void add_cores(const char *root, const cpu_mask *allowed, const cpu_mask *fast, bool want_fast,
                      const cpu_mask *node, cpu_mask *seen, core_list *cores) {
    for (int cpu = 0; cpu < LINUX_MAX_CPUS && cores->n < SYS_MAX_CORES; cpu++) {
        if (!allowed->has[cpu] || fast->has[cpu] != want_fast || (node && !node->has[cpu])) continue;
        long core = linux_core_of(root, cpu);
        if (!seen->has[core]) cores->cpus[cores->n++] = cpu;
        seen->has[core] = true;
    }
}

void linux_cores(const char *root, const cpu_mask *allowed, core_list *cores) {
    cpu_mask fast, seen = {0}, nodes, node;
    char path[64];
    *cores = (core_list){.n = 0};
    bool two_kinds = linux_fast_cpus(root, allowed, &fast);
    linux_read_cpus(root, "/sys/devices/system/node/online", &nodes);
    for (int slow = 0; slow < 2; slow++) {
        if (!two_kinds) fast = slow ? (cpu_mask){0} : *allowed;
        for (int i = 0; i < LINUX_MAX_CPUS; i++) {
            if (!nodes.has[i]) continue;
            snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", i);
            if (linux_read_cpus(root, path, &node))
                add_cores(root, allowed, &fast, !slow, &node, &seen, cores);
        }
        add_cores(root, allowed, &fast, !slow, NULL, &seen, cores); /* those of no node */
        if (!slow) cores->n_fast = cores->n;
    }
    if (!cores->n) cores->n = 1;                    /* nothing is known: CPU 0 */
    int counted = linux_count_cores(root, allowed); /* fewer where only cpuinfo tells of threads per core */
    cores->n = limited(root, counted < cores->n ? counted : cores->n);
    if (!cores->n_fast || cores->n_fast > cores->n) cores->n_fast = cores->n;
}

static int64_t group_number(const char *root, const char *folder, const char *file) {
    char line[128];
    linux_line(line, sizeof line, root, "%s/%s", folder, file);
    return linux_number(line); /* v2 says "max" for no limit, v1 a number near 2^63 */
}

/* The group's use includes cached file pages, mapped checkpoints among them, which go when memory
 * is needed.
 */
static int64_t group_cached(const char *root, const char *folder, const char *inactive, const char *active) {
    str path = {0};
    str_printf(&path, "%s/memory.stat", folder);
    int64_t a = path.failed ? -1 : linux_value(root, path.data, inactive);
    int64_t b = path.failed ? -1 : linux_value(root, path.data, active);
    str_free(&path);
    return (a > 0 ? a : 0) + (b > 0 ? b : 0);
}

static void min_memory(void *context, const char *root, const char *folder) {
    int64_t *available = context;
    int64_t limit = group_number(root, folder, "memory.max"),
            used = group_number(root, folder, "memory.current");
    const char *inactive = "inactive_file", *active = "active_file";
    if (used < 0) {
        limit = group_number(root, folder, "memory.limit_in_bytes");
        used = group_number(root, folder, "memory.usage_in_bytes");
        inactive = "total_inactive_file";
        active = "total_active_file";
    }
    if (limit < 0 || used < 0) return;
    int64_t cached = group_cached(root, folder, inactive, active);
    used = used > cached ? used - cached : 0;
    int64_t left = limit > used ? limit - used : 1; /* 0 would say that it is unknown */
    if (*available <= 0 || left < *available) *available = left;
}

int64_t linux_available_memory(const char *root) {
    int64_t kilobytes = linux_value(root, "/proc/meminfo", "MemAvailable");
    int64_t available = kilobytes > 0 ? kilobytes * 1024 : 0;
    visit_groups(root, "memory", min_memory, &available);
    return available;
}

/* Of the first group that counts: our own one; v2's groups count those of the groups in them,
 * too. */
static void first_kills(void *context, const char *root, const char *folder) {
    int64_t *kills = context;
    str v2 = {0}, v1 = {0};
    str_printf(&v2, "%s/memory.events", folder);
    str_printf(&v1, "%s/memory.oom_control", folder);
    if (*kills < 0 && !v2.failed) *kills = linux_value(root, v2.data, "oom_kill");
    if (*kills < 0 && !v1.failed) *kills = linux_value(root, v1.data, "oom_kill");
    str_free(&v2);
    str_free(&v1);
}

int64_t linux_memory_kills(const char *root) {
    int64_t kills = -1;
    visit_groups(root, "memory", first_kills, &kills);
    return kills >= 0 ? kills : linux_value(root, "/proc/vmstat", "oom_kill");
}
