/* facts.h - the parts of sys/ that are private to it: helpers and each source of facts.
 * Sources take where they look as an argument, so that tests give them recorded machines. */
#ifndef SYS_FACTS_H
#define SYS_FACTS_H

#include "sys/sys.h"

/* Copies what fits, terminated. */
void facts_copy(char *out, size_t size, const char *text);

/* Appends a word after a space; a word that does not fit is left out whole. */
void facts_add_word(char *text, size_t size, const char *word);

/* Adds a cache in order of level, type and size, or counts its instances to an equal one. Nothing
 * for 0 bytes. */
void facts_add_cache(hardware *h, cache_facts cache);

/* kernel and architecture, from uname(2). */
void facts_from_uname(hardware *h);

/* All unknown but the time and what is this process's own. */
void facts_own_state(sys_state *s);

/* The GPUs NVIDIA's management library tells of, up to max; 0 when this library (a name for dlopen)
 * is not there or does not work. Source: NVML API Reference. */
int nvml_gpus(const char *library, gpu_facts *gpus, int max);

/* NVIDIA's library, kept open: opening it takes longer than all that it tells. `visible` is
 * CUDA_VISIBLE_DEVICES (NULL: unset), whose first GPU is the one that nvml_state asks about: its
 * programs and why it is slow. NULL where there is no such library or GPU. Harmless on NULL. */
typedef struct nvml_gpu nvml_gpu;
nvml_gpu *nvml_open(const char *library, const char *visible);
void nvml_state(const nvml_gpu *n, sys_state *s);
void nvml_close(nvml_gpu *n);

/* A Mac's values by their sysctl name ("hw.memsize") or IOKit property ("gpu-core-count"): true
 * when there is such a value. */
typedef struct apple_source {
    bool (*number)(void *context, const char *key, int64_t *value);
    bool (*text)(void *context, const char *key, char *value, size_t size);
    void *context;
} apple_source;

/* Adds to s what a Mac tells of itself as numbers: sysctl's "kern.memorystatus_vm_pressure_level",
 * and the names that macos.c has for "thermal-pressure", "low-power-mode" and "battery-power". */
void apple_state(sys_state *s, const apple_source *source);

/* sys_cores' list for a Mac, where CPUs have no numbers. */
void apple_cores(core_list *list, const apple_source *source);

/* Everything of a Mac but kernel and architecture. Missing keys leave the fact unknown. */
void apple_hardware(hardware *h, const apple_source *source);

#endif
