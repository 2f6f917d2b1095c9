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

/* A Mac's values by their sysctl name ("hw.memsize") or IOKit property ("gpu-core-count"): true
 * when there is such a value. */
typedef struct apple_source {
    bool (*number)(void *context, const char *key, int64_t *value);
    bool (*text)(void *context, const char *key, char *value, size_t size);
    void *context;
} apple_source;

/* sys_cores' list for a Mac, where CPUs have no numbers. */
void apple_cores(core_list *list, const apple_source *source);

/* Everything of a Mac but kernel and architecture. Missing keys leave the fact unknown. */
void apple_hardware(hardware *h, const apple_source *source);

#endif
