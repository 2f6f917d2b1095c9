/* linux_state.c - what may disturb a measurement on Linux: the kernel's counters and settings, one
 * sensor a function. One that is not there leaves -1, since most containers lack some.
 */
#include "sys/linux.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "cpu USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ STEAL ...", in ticks; a line for each CPU
 * follows. */
static void read_stat(sys_state *s, const char *root) {
    str path = {0};
    char line[512];
    long long t[8] = {0};
    double tick = 1.0 / (double)sysconf(_SC_CLK_TCK);
    str_printf(&path, "%s/proc/stat", root);
    FILE *file = path.failed ? NULL : fopen(path.data, "re");
    str_free(&path);
    while (file && fgets(line, sizeof line, file) && !strncmp(line, "cpu", 3)) {
        if (line[3] != ' ') {
            s->n_cpus++;
        } else if (sscanf(line + 4, "%lld %lld %lld %lld %lld %lld %lld %lld", &t[0], &t[1], &t[2], &t[3],
                          &t[4], &t[5], &t[6], &t[7]) == 8) {
            s->busy_s = tick * (double)(t[0] + t[1] + t[2] + t[5] + t[6]);
            s->steal_s = tick * (double)t[7];
        }
    }
    if (file) fclose(file);
}

/* Of each thread: nanoseconds on a CPU, and waiting for one. */
static void read_waits(sys_state *s, const char *root) {
    str path = {0};
    char line[128];
    long long ran, waited;
    str_printf(&path, "%s/proc/self/task", root);
    DIR *tasks = path.failed ? NULL : opendir(path.data);
    str_free(&path);
    for (struct dirent *entry; tasks && (entry = readdir(tasks));) {
        if (entry->d_name[0] == '.') continue;
        linux_line(line, sizeof line, root, "/proc/self/task/%s/schedstat", entry->d_name);
        if (sscanf(line, "%lld %lld", &ran, &waited) != 2) continue;
        s->waited_s = (s->waited_s < 0 ? 0 : s->waited_s) + (double)waited / 1e9;
    }
    if (tasks) closedir(tasks);
}

/* "some avg10=0.00 ... total=MICROSECONDS". */
static void read_pressure(sys_state *s, const char *root) {
    char line[256];
    linux_line(line, sizeof line, root, "/proc/pressure/memory");
    const char *total = strstr(line, "total=");
    if (!strncmp(line, "some", 4) && total) s->memory_s = strtod(total + strlen("total="), NULL) / 1e6;
}

/* Of large machines not all CPUs are asked, since each takes some ten microseconds. */
static void read_heat(sys_state *s, const char *root) {
    enum { MOST = 64 };
    static const char *const counters[] = {"core", "package"};
    char line[64];
    int step = s->n_cpus > MOST ? (s->n_cpus + MOST - 1) / MOST : 1;
    for (int cpu = 0, found = 1; found && cpu < LINUX_MAX_CPUS; cpu += step) {
        found = 0;
        for (int i = 0; i < 2; i++) {
            linux_line(line, sizeof line, root,
                       "/sys/devices/system/cpu/cpu%d/thermal_throttle/%s_throttle_count", cpu, counters[i]);
            int64_t n = linux_number(line);
            if (n < 0) continue;
            s->hot = (s->hot < 0 ? 0 : s->hot) + n;
            found = 1;
        }
    }
}

static void read_swap(sys_state *s, const char *root) {
    int64_t in = linux_value(root, "/proc/vmstat", "pswpin"),
            out = linux_value(root, "/proc/vmstat", "pswpout");
    if (in >= 0 && out >= 0) s->swapped = in + out;
}

/* A battery that discharges while no mains is online. */
static void read_power(sys_state *s, const char *root) {
    str path = {0};
    char type[64], state[64];
    bool discharging = false, mains = false;
    str_printf(&path, "%s/sys/class/power_supply", root);
    DIR *supplies = path.failed ? NULL : opendir(path.data);
    str_free(&path);
    for (struct dirent *entry; supplies && (entry = readdir(supplies));) {
        if (entry->d_name[0] == '.') continue;
        linux_line(type, sizeof type, root, "/sys/class/power_supply/%s/type", entry->d_name);
        if (!strcmp(type, "Mains") &&
            linux_line(state, sizeof state, root, "/sys/class/power_supply/%s/online", entry->d_name))
            mains |= state[0] == '1';
        if (!strcmp(type, "Battery") &&
            linux_line(state, sizeof state, root, "/sys/class/power_supply/%s/status", entry->d_name))
            discharging |= !strcmp(state, "Discharging");
    }
    if (supplies) closedir(supplies);
    s->battery = discharging && !mains;
}

/* The governor's name; drivers that choose frequencies themselves, whatever the name, are told
 * apart. */
static void read_governor(sys_state *s, const char *root) {
    char driver[64];
    const char *folder = "/sys/devices/system/cpu/cpu0/cpufreq";
    linux_line(driver, sizeof driver, root, "%s/scaling_driver", folder);
    linux_line(s->governor, sizeof s->governor, root, "%s/scaling_governor", folder);
    bool own =
        !strcmp(driver, "intel_pstate") || !strncmp(driver, "amd-pstate-epp", strlen("amd-pstate-epp"));
    if (own && !strcmp(s->governor, "powersave")) facts_copy(s->governor, sizeof s->governor, "balanced");
}

/* Frequency of the CPU that asks. Others may sleep, and asking for theirs can take 10 ms each. */
static void read_frequency(sys_state *s, const char *root, int cpu) {
    char line[64];
    linux_line(line, sizeof line, root, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq", cpu);
    int64_t khz = linux_number(line);
    if (khz > 0 && khz < INT32_MAX) s->mhz = (int)(khz / 1000);
}

/* What affinity and the cpuset of its control group leave. */
static void read_allowed(sys_state *s, const char *root) {
    char list[4096];
    cpu_mask mask = {0};
    if (linux_text(list, sizeof list, root, "/proc/self/status", "Cpus_allowed_list"))
        s->allowed_cpus = linux_cpus(list, &mask);
}

void linux_state(const char *root, int cpu, sys_state *s) {
    read_frequency(s, root, cpu);
    read_stat(s, root);
    read_allowed(s, root);
    read_waits(s, root);
    read_pressure(s, root);
    read_heat(s, root);
    read_swap(s, root);
    read_power(s, root);
    read_governor(s, root);
    linux_quota(root, s);
}
