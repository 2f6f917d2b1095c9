/* linux.h - what the Linux files of sys/ share.
 * Every path is below a root folder ("" for the real system), so that tests give recorded trees. */
#ifndef SYS_LINUX_H
#define SYS_LINUX_H

#include "sys/facts.h"

enum { LINUX_MAX_CPUS = 8192 }; /* the largest NR_CPUS a kernel can be built with on x86 and ARM */

typedef struct cpu_mask {
    bool has[LINUX_MAX_CPUS];
} cpu_mask;

/* The first line of a file, without its end; false (and "") when it can't be read. */
bool linux_line(char *line, size_t size, const char *root, const char *format, ...) PRINTF_LIKE(4, 5);

/* The number at the start of text; -1 when there is none or when it is absurd (safe to multiply by
 * 1024). */
int64_t linux_number(const char *text);

/* The number after "KEY" and an optional colon at the start of a line of a file such as meminfo; -1
 * when there is none. */
int64_t linux_value(const char *root, const char *path, const char *key);

/* The same line's text behind the colon, up to its end, for a larger file; "" and false when there
 * is no such line. */
bool linux_text(char *text, size_t size, const char *root, const char *path, const char *key);

/* A list such as "0-3,8": sets the mask and returns how many CPUs it names. */
int linux_cpus(const char *list, cpu_mask *mask);

/* The CPUs a file lists; returns how many. */
int linux_read_cpus(const char *root, const char *path, cpu_mask *mask);

/* A number that all CPUs of one core share. */
long linux_core_of(const char *root, int cpu);

/* Sets fast to the performance cores' CPUs among those online; false where there is only one kind
 * of core. */
bool linux_fast_cpus(const char *root, const cpu_mask *online, cpu_mask *fast);

/* Physical cores among these CPUs. */
int linux_count_cores(const char *root, const cpu_mask *cpus);

/* All facts but GPUs, kernel and architecture. */
void linux_hardware(const char *root, hardware *h);

/* sys.h's functions for the files below root; allowed is the process's affinity mask. */
int linux_usable_cores(const char *root, const cpu_mask *allowed);
void linux_cores(const char *root, const cpu_mask *allowed, core_list *cores);
int64_t linux_available_memory(const char *root);
int64_t linux_memory_kills(const char *root);

/* Adds to s what the files tell, and the frequency of this CPU; linux_quota is the part of it that
 * comes from control groups. */
void linux_state(const char *root, int cpu, sys_state *s);
void linux_quota(const char *root, sys_state *s);

#endif
