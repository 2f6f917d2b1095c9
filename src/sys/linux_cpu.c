/* linux_cpu.c - processor, caches, memory size and system name from /proc, /sys and /etc.
 * Sources: proc(5), the kernel's sysfs-devices-system-cpu and os-release(5). */
#include "sys/linux.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CPU "/sys/devices/system/cpu"

/* --- sets of CPUs --- */

int linux_cpus(const char *list, cpu_mask *mask) {
    int n = 0;
    for (const char *c = list; *c >= '0' && *c <= '9';) {
        char *end;
        long first = strtol(c, &end, 10), last = first;
        if (*end == '-') last = strtol(end + 1, &end, 10);
        for (long cpu = first; cpu <= last && cpu < LINUX_MAX_CPUS; cpu++) {
            n += !mask->has[cpu];
            mask->has[cpu] = true;
        }
        c = end + (*end == ',');
    }
    return n;
}

int linux_read_cpus(const char *root, const char *path, cpu_mask *mask) {
    char line[4096];
    *mask = (cpu_mask){0};
    return linux_line(line, sizeof line, root, "%s", path) ? linux_cpus(line, mask) : 0;
}

/* The first CPU of a list file that all CPUs sharing something show alike; cpu itself where there
 * is none. */
static long first_sharing(const char *root, int cpu, const char *file) {
    char line[4096];
    if (!linux_line(line, sizeof line, root, CPU "/cpu%d/%s", cpu, file)) return cpu;
    int64_t first = linux_number(line);
    return first >= 0 && first < LINUX_MAX_CPUS ? (long)first : cpu;
}

/* Without /sys, cpuinfo's first package tells how many threads a core has. */
static int threads_per_core(const char *root) {
    char line[16];
    int64_t siblings = linux_value(root, "/proc/cpuinfo", "siblings"),
            cores = linux_value(root, "/proc/cpuinfo", "cpu cores");
    if (linux_line(line, sizeof line, root, CPU "/cpu0/topology/thread_siblings_list")) return 1;
    return cores > 0 && siblings > cores && siblings < LINUX_MAX_CPUS ? (int)(siblings / cores) : 1;
}

long linux_core_of(const char *root, int cpu) {
    return first_sharing(root, cpu, "topology/thread_siblings_list");
}

int linux_count_cores(const char *root, const cpu_mask *cpus) {
    cpu_mask seen = {0};
    int cores = 0, threads = threads_per_core(root);
    for (int cpu = 0; cpu < LINUX_MAX_CPUS; cpu++) {
        if (!cpus->has[cpu]) continue;
        long core = linux_core_of(root, cpu);
        cores += !seen.has[core];
        seen.has[core] = true;
    }
    return (cores + threads - 1) / threads;
}

/* --- /proc/cpuinfo --- */

/* ARM's main ID register: who designed the core, and which one it is. */
static void arm_core_name(char *name, size_t size, long implementer, long part) {
    static const struct {
        long implementer, part;
        const char *name;
    } cores[] = {
        {0x41, 0xd03, "Cortex-A53"},
        {0x41, 0xd04, "Cortex-A35"},
        {0x41, 0xd05, "Cortex-A55"},
        {0x41, 0xd07, "Cortex-A57"},
        {0x41, 0xd08, "Cortex-A72"},
        {0x41, 0xd09, "Cortex-A73"},
        {0x41, 0xd0a, "Cortex-A75"},
        {0x41, 0xd0b, "Cortex-A76"},
        {0x41, 0xd0c, "Neoverse-N1"},
        {0x41, 0xd0d, "Cortex-A77"},
        {0x41, 0xd40, "Neoverse-V1"},
        {0x41, 0xd41, "Cortex-A78"},
        {0x41, 0xd44, "Cortex-X1"},
        {0x41, 0xd46, "Cortex-A510"},
        {0x41, 0xd47, "Cortex-A710"},
        {0x41, 0xd48, "Cortex-X2"},
        {0x41, 0xd49, "Neoverse-N2"},
        {0x41, 0xd4d, "Cortex-A715"},
        {0x41, 0xd4e, "Cortex-X3"},
        {0x41, 0xd4f, "Neoverse-V2"},
        {0x41, 0xd80, "Cortex-A520"},
        {0x41, 0xd81, "Cortex-A720"},
        {0x41, 0xd82, "Cortex-X4"},
        {0x41, 0xd84, "Neoverse-V3"},
        {0x41, 0xd85, "Cortex-X925"},
        {0x41, 0xd87, "Cortex-A725"},
        {0x41, 0xd8e, "Neoverse-N3"},
        {0x43, 0x0af, "ThunderX2"},
        {0x46, 0x001, "A64FX"},
        {0x48, 0xd01, "Kunpeng 920"},
        {0x4e, 0x004, "Carmel"},
        {0x51, 0x001, "Oryon"},
        {0x61, 0x022, "Apple M1 Icestorm"},
        {0x61, 0x023, "Apple M1 Firestorm"},
        {0x61, 0x032, "Apple M2 Blizzard"},
        {0x61, 0x033, "Apple M2 Avalanche"},
        {0xc0, 0xac3, "AmpereOne"},
        {0xc0, 0xac4, "AmpereOne A"},
    };
    snprintf(name, size, "ARM 0x%02lx/0x%03lx", implementer & 0xff, part & 0xfff);
    for (size_t i = 0; i < sizeof cores / sizeof *cores; i++)
        if (cores[i].implementer == implementer && cores[i].part == part)
            facts_copy(name, size, cores[i].name);
}

/* Keeps the instruction sets that matter to matrix products; a name ending in * stands for all it
 * begins. */
static void add_simd(hardware *h, char *flags) {
    static const char *const wanted[] = {"sse4_2",  "avx",      "avx2", "fma",  "f16c",  "avx_vnni*",
                                         "avx512*", "avx10*",   "amx*", "neon", "asimd", "asimdhp",
                                         "asimddp", "asimdfhm", "i8mm", "bf16", "sve*",  "sme",
                                         "sme2",    "vsx",      "lsx",  "lasx"};
    for (char *word; (word = strsep(&flags, " \t\n"));)
        for (size_t i = 0; *word && i < sizeof wanted / sizeof *wanted; i++) {
            size_t n = strcspn(wanted[i], "*");
            if (!strncmp(word, wanted[i], n) && (wanted[i][n] || !word[n]))
                facts_add_word(h->simd, sizeof h->simd, word);
        }
}

/* Different cores of one ARM chip are each named once: "Cortex-A76 + Cortex-A55". */
static void add_core_name(hardware *h, long implementer, long part) {
    char name[64];
    arm_core_name(name, sizeof name, implementer, part);
    if (strstr(h->chip, name)) return;
    if (*h->chip) facts_add_word(h->chip, sizeof h->chip, "+");
    facts_add_word(h->chip, sizeof h->chip, name);
}

/* Chip and SIMD, and how many processors there are. "KEY<tab>: value" lines, a group for each. */
static int read_cpuinfo(const char *root, hardware *h) {
    str path = {0};
    str_printf(&path, "%s/proc/cpuinfo", root);
    FILE *file = path.failed ? NULL : fopen(path.data, "re");
    str_free(&path);
    char *line = NULL;
    size_t capacity = 0;
    int processors = 0;
    long implementer = 0;
    while (file && getline(&line, &capacity, file) >= 0) {
        char *colon = strchr(line, ':');
        if (!colon) continue;
        char *key_end = colon, *value = colon + 1 + strspn(colon + 1, " \t");
        while (key_end > line && strchr(" \t", key_end[-1])) key_end--;
        *key_end = '\0';
        value[strcspn(value, "\n")] = '\0';
        if (!strcmp(line, "processor")) processors++;
        if (!*h->chip && (!strcmp(line, "model name") || !strcmp(line, "cpu") || !strcmp(line, "uarch")))
            facts_copy(h->chip, sizeof h->chip, value);
        if (!strcmp(line, "CPU implementer")) implementer = strtol(value, NULL, 16);
        if (!strcmp(line, "CPU part") && implementer) add_core_name(h, implementer, strtol(value, NULL, 16));
        if (!*h->simd && (!strcmp(line, "flags") || !strcmp(line, "Features"))) add_simd(h, value);
    }
    free(line);
    if (file) fclose(file);
    return processors;
}

/* --- /sys --- */

/* An instance of a cache is counted once, for the first of the CPUs that share it. */
static void add_caches(const char *root, int cpu, hardware *h) {
    char line[4096], *unit;
    for (int i = 0; i < 16; i++) {
        cache_facts cache = {.instances = 1};
        if (!linux_line(line, sizeof line, root, CPU "/cpu%d/cache/index%d/size", cpu, i)) return;
        cache.bytes = strtol(line, &unit, 10);
        cache.bytes = cache.bytes < 0 || cache.bytes > INT32_MAX ? 0 : cache.bytes;
        cache.bytes *= *unit == 'K' ? 1 << 10 : *unit == 'M' ? 1 << 20 : 1;
        linux_line(line, sizeof line, root, CPU "/cpu%d/cache/index%d/type", cpu, i);
        facts_copy(cache.type, sizeof cache.type, line);
        linux_line(line, sizeof line, root, CPU "/cpu%d/cache/index%d/level", cpu, i);
        cache.level = atoi(line);
        snprintf(line, sizeof line, "cache/index%d/shared_cpu_list", i);
        if (first_sharing(root, cpu, line) == cpu) facts_add_cache(h, cache);
    }
}

/* ARM's CPUs tell their capacity; those of the lowest count as efficiency cores. */
static bool by_capacity(const char *root, const cpu_mask *online, cpu_mask *fast) {
    int64_t capacities[LINUX_MAX_CPUS], lowest = INT64_MAX, highest = 0;
    char line[32];
    for (int cpu = 0; cpu < LINUX_MAX_CPUS; cpu++) {
        if (!online->has[cpu]) continue;
        linux_line(line, sizeof line, root, CPU "/cpu%d/cpu_capacity", cpu);
        int64_t capacity = capacities[cpu] = linux_number(line);
        if (capacity < 0) return false;
        if (capacity < lowest) lowest = capacity;
        if (capacity > highest) highest = capacity;
    }
    for (int cpu = 0; cpu < LINUX_MAX_CPUS; cpu++)
        fast->has[cpu] = online->has[cpu] && capacities[cpu] > lowest;
    return lowest < highest;
}

/* Intel's hybrid chips list their fast and slow cores. */
bool linux_fast_cpus(const char *root, const cpu_mask *online, cpu_mask *fast) {
    cpu_mask slow;
    *fast = (cpu_mask){0};
    if (linux_read_cpus(root, "/sys/devices/cpu_core/cpus", fast) &&
        (linux_read_cpus(root, "/sys/devices/cpu_atom/cpus", &slow) ||
         linux_read_cpus(root, "/sys/devices/cpu_lowpower/cpus", &slow)))
        return true;
    return by_capacity(root, online, fast);
}

static void core_kinds(const char *root, hardware *h, const cpu_mask *online) {
    cpu_mask fast;
    if (!linux_fast_cpus(root, online, &fast)) return;
    h->performance_cores = linux_count_cores(root, &fast);
    h->efficiency_cores = h->physical_cores - h->performance_cores;
}

/* os-release(5): NAME=value, NAME='value' or NAME="value". */
static void os_name(const char *root, hardware *h) {
    static const char *const paths[] = {"/etc/os-release", "/usr/lib/os-release"};
    char line[256];
    for (int i = 0; i < 2 && !*h->os; i++) {
        str path = {0};
        str_printf(&path, "%s%s", root, paths[i]);
        FILE *file = path.failed ? NULL : fopen(path.data, "re");
        str_free(&path);
        while (file && fgets(line, sizeof line, file)) {
            if (strncmp(line, "PRETTY_NAME=", 12) != 0) continue;
            char *value = line + 12 + strspn(line + 12, "\"'");
            value[strcspn(value, "\"'\n")] = '\0';
            facts_copy(h->os, sizeof h->os, value);
        }
        if (file) fclose(file);
    }
    if (!*h->os) facts_copy(h->os, sizeof h->os, "Linux");
}

void linux_hardware(const char *root, hardware *h) {
    cpu_mask online, nodes;
    *h = (hardware){0};
    int processors = read_cpuinfo(root, h);
    if (!linux_read_cpus(root, CPU "/online", &online))
        for (int cpu = 0; cpu < processors && cpu < LINUX_MAX_CPUS; cpu++) online.has[cpu] = true;
    for (int cpu = 0; cpu < LINUX_MAX_CPUS; cpu++) {
        if (!online.has[cpu]) continue;
        h->logical_cores++;
        add_caches(root, cpu, h);
    }
    h->physical_cores = linux_count_cores(root, &online);
    core_kinds(root, h, &online);
    h->numa_nodes = linux_read_cpus(root, "/sys/devices/system/node/online", &nodes);
    int64_t kilobytes = linux_value(root, "/proc/meminfo", "MemTotal");
    if (kilobytes > 0) h->memory_bytes = kilobytes * 1024;
    os_name(root, h);
}
