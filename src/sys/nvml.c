/* nvml.c - NVIDIA GPUs through the driver's management library: which there are, and what slows the
 * one that is used. Opened at run time: the program neither needs the library nor its headers to
 * build or run. */
#include "sys/facts.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* NVML API Reference: nvmlReturn_t is an int with 0 for success, nvmlDevice_t an opaque pointer,
 * nvmlMemory_t three counts of bytes, nvmlViolationTime_t microseconds of a clock and nanoseconds
 * that the GPU was slowed down, nvmlProcessInfo_v2_t a process. */
typedef struct nvml_memory {
    unsigned long long total, free, used;
} nvml_memory;

typedef struct nvml_violation {
    unsigned long long at_us, ns;
} nvml_violation;

typedef struct nvml_process {
    unsigned pid;
    unsigned long long memory;
    unsigned gpu_instance, compute_instance;
} nvml_process;

typedef struct nvml_calls {
    int (*init)(void);
    int (*shutdown)(void);
    int (*count)(unsigned *n);
    int (*device)(unsigned index, void **device);
    int (*name)(void *device, char *name, unsigned length);
    int (*memory)(void *device, nvml_memory *memory);
    int (*driver)(char *version, unsigned length);
} nvml_calls;

/* What older drivers may lack: NULL then. */
typedef struct nvml_sensors {
    int (*by_uuid)(const char *uuid, void **device);
    int (*reasons)(void *device, unsigned long long *bits);
    int (*violation)(void *device, int policy, nvml_violation *out);
    int (*programs)(void *device, unsigned *n, nvml_process *out);
} nvml_sensors;

/* C has no cast from an object pointer to a function pointer; POSIX says that they have the same
 * form. */
static bool find(void *library, const char *name, void *function) {
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

static bool find_all(void *library, nvml_calls *nvml) {
    return find(library, "nvmlInit_v2", &nvml->init) && find(library, "nvmlShutdown", &nvml->shutdown) &&
           find(library, "nvmlDeviceGetCount_v2", &nvml->count) &&
           find(library, "nvmlDeviceGetHandleByIndex_v2", &nvml->device) &&
           find(library, "nvmlDeviceGetName", &nvml->name) &&
           find(library, "nvmlDeviceGetMemoryInfo", &nvml->memory) &&
           find(library, "nvmlSystemGetDriverVersion", &nvml->driver);
}

static void describe(const nvml_calls *nvml, void *device, gpu_facts *gpu) {
    nvml_memory memory = {0};
    *gpu = (gpu_facts){0};
    if (nvml->name(device, gpu->name, sizeof gpu->name)) gpu->name[0] = '\0';
    if (!nvml->memory(device, &memory)) gpu->memory_bytes = (int64_t)memory.total;
    if (nvml->driver(gpu->driver, sizeof gpu->driver)) gpu->driver[0] = '\0';
    gpu->name[sizeof gpu->name - 1] = gpu->driver[sizeof gpu->driver - 1] = '\0';
}

int nvml_gpus(const char *library, gpu_facts *gpus, int max) {
    void *handle = dlopen(library, RTLD_LAZY | RTLD_LOCAL), *device;
    if (!handle) return 0;
    nvml_calls nvml;
    int found = 0;
    if (find_all(handle, &nvml) && !nvml.init()) {
        unsigned n = 0;
        if (nvml.count(&n)) n = 0;
        for (unsigned i = 0; i < n && found < max; i++)
            if (!nvml.device(i, &device)) describe(&nvml, device, &gpus[found++]);
        nvml.shutdown();
    }
    dlclose(handle);
    return found;
}

/* ---- the GPU that is used ---- */

struct nvml_gpu {
    void *library, *device;
    nvml_calls calls;
    nvml_sensors sensors;
};

/* CUDA_VISIBLE_DEVICES is a list of numbers or names such as GPU-5f... (CUDA C++ Programming
 * Guide). CUDA numbers unequal GPUs by speed, NVML by their place: where they differ this may be
 * another one. */
static int first_visible(const nvml_gpu *n, const char *visible, void **device) {
    char name[128];
    if (!visible) return n->calls.device(0, device);
    facts_copy(name, sizeof name, visible);
    name[strcspn(name, ",")] = '\0';
    if (*name >= '0' && *name <= '9') return n->calls.device((unsigned)strtoul(name, NULL, 10), device);
    return n->sensors.by_uuid ? n->sensors.by_uuid(name, device) : -1;
}

nvml_gpu *nvml_open(const char *library, const char *visible) {
    nvml_gpu *n = calloc(1, sizeof *n);
    if (!n) return NULL;
    n->library = dlopen(library, RTLD_LAZY | RTLD_LOCAL);
    bool ready = n->library && find_all(n->library, &n->calls) && !n->calls.init();
    if (ready) {
        find(n->library, "nvmlDeviceGetHandleByUUID", &n->sensors.by_uuid);
        find(n->library, "nvmlDeviceGetCurrentClocksThrottleReasons", &n->sensors.reasons);
        find(n->library, "nvmlDeviceGetViolationStatus", &n->sensors.violation);
        find(n->library, "nvmlDeviceGetComputeRunningProcesses_v3", &n->sensors.programs);
        if (!first_visible(n, visible, &n->device)) return n;
        n->calls.shutdown();
    }
    if (n->library) dlclose(n->library);
    free(n);
    return NULL;
}

void nvml_close(nvml_gpu *n) {
    if (!n) return;
    n->calls.shutdown();
    dlclose(n->library);
    free(n);
}

/* Seconds so far; -1 where the GPU does not count them. */
static double violated_s(const nvml_gpu *n, int policy) {
    nvml_violation v = {0};
    return n->sensors.violation && !n->sensors.violation(n->device, policy, &v) ? (double)v.ns / 1e9 : -1;
}

/* nvmlClocksThrottleReasons: software's and hardware's slowdown by heat, the power limit, and a
 * brake from the power supply. */
static int slowed_now(const nvml_gpu *n) {
    enum { POWER_LIMIT = 0x4, HOT = 0x20 | 0x40, BRAKE = 0x80 };
    unsigned long long bits = 0;
    if (!n->sensors.reasons || n->sensors.reasons(n->device, &bits)) return -1;
    return (bits & HOT ? SYS_GPU_HOT : 0) | (bits & POWER_LIMIT ? SYS_GPU_POWER_LIMIT : 0) |
           (bits & BRAKE ? SYS_GPU_POWER_BRAKE : 0);
}

/* Processes that are not of our group. In a container the numbers are the host's or nobody's: where
 * our own is not among them, nothing is known. */
static int other_programs(const nvml_gpu *n) {
    enum { MOST = 64 };
    nvml_process list[MOST];
    unsigned found = MOST;
    int others = 0;
    bool known = false;
    if (!n->sensors.programs || n->sensors.programs(n->device, &found, list) || found > MOST) return -1;
    for (unsigned i = 0; i < found; i++) {
        known |= list[i].pid == (unsigned)getpid();
        others += getpgid((pid_t)list[i].pid) != getpgrp();
    }
    return known ? others : -1;
}

void nvml_state(const nvml_gpu *n, sys_state *s) {
    enum { POLICY_POWER = 0, POLICY_THERMAL = 1 };
    if (!n) return;
    s->gpu_hot_s = violated_s(n, POLICY_THERMAL);
    s->gpu_power_s = violated_s(n, POLICY_POWER);
    s->gpu_slowed = slowed_now(n);
    s->gpu_others = other_programs(n);
}
