/* nvml.c - NVIDIA GPUs through the driver's management library.
 * Opened at run time: the program neither needs the library nor its headers to build or run. */
#include "sys/facts.h"

#include <dlfcn.h>
#include <string.h>

/* NVML API Reference: nvmlReturn_t is an int with 0 for success, nvmlDevice_t an opaque pointer,
 * nvmlMemory_t three counts of bytes. */
typedef struct nvml_memory {
    unsigned long long total, free, used;
} nvml_memory;

typedef struct nvml_calls {
    int (*init)(void);
    int (*shutdown)(void);
    int (*count)(unsigned *n);
    int (*device)(unsigned index, void **device);
    int (*name)(void *device, char *name, unsigned length);
    int (*memory)(void *device, nvml_memory *memory);
    int (*driver)(char *version, unsigned length);
} nvml_calls;

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
