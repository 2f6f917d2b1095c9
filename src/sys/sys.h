/* sys.h - facts about the machine and this process, the same on every platform.
 * One file per platform implements it (linux.c, macos.c); the rules that turn raw values into facts
 * are portable and tested with recorded values. */
#ifndef SYS_SYS_H
#define SYS_SYS_H

#include "base/base.h"

enum { SYS_MAX_GPUS = 16, SYS_MAX_CACHES = 16, SYS_MAX_CORES = 1024 };

typedef struct gpu_facts {
    char name[128];
    int64_t memory_bytes; /* 0: unknown */
    char driver[64];
    int cores; /* Apple GPU cores, NVIDIA 0 */
} gpu_facts;

typedef struct cache_facts {
    int level;
    char type[16]; /* "Data", "Instruction", "Unified" */
    int64_t bytes; /* of one instance */
    int instances;
} cache_facts;

typedef struct hardware {
    char chip[128]; /* "Apple M2 Ultra", or the CPU model name */
    int physical_cores, logical_cores;
    int performance_cores, efficiency_cores; /* 0, 0 where no kind is much slower than the others */
    int numa_nodes;
    int64_t memory_bytes;
    char simd[256]; /* "avx2 fma avx512f ...", space separated */
    int n_caches, n_gpus;
    cache_facts caches[SYS_MAX_CACHES];
    gpu_facts gpus[SYS_MAX_GPUS];
    char os[128], kernel[128], architecture[32];
} hardware;

/* Fills all that can be known; unknown text is "", unknown numbers 0. Never fails. */
void sys_hardware(hardware *h);

/* "M2 Ultra | 192.0GB | 76 GPU cores" ("Intel Xeon ... | 23.5GB | 2 cores" without a GPU) and the
 * short form "m2ultra_192gb_76gpu" of the original. Into text; return text. */
char *sys_hardware_line(char *text, size_t size, const hardware *h);
char *sys_hardware_id(char *text, size_t size, const hardware *h);

/* This process: peak resident bytes so far, and memory that could be allocated now without
 * swapping. 0: unknown. */
int64_t sys_peak_rss(void);
int64_t sys_available_memory(void);

/* Processes that the system has killed because memory ran out: of this control group since it was
 * made, or, where that is not counted, of the whole machine since it started; -1: unknown. A
 * process that died of SIGKILL while this number rose was one of them. */
int64_t sys_memory_kills(void);

/* Physical cores this process may use: affinity and cgroup limits included. At least 1. */
int sys_usable_cores(void);

/* The same cores as places for threads, one CPU of each, the best first: performance cores before
 * efficiency cores, then one memory node after another. A step of a model ends with its slowest
 * thread, so threads run on the n_fast first by default: all cores where there is one kind. cpus[i]
 * is Linux's number, else -1. */
typedef struct core_list {
    int n, n_fast; /* at least 1 */
    int cpus[SYS_MAX_CORES];
} core_list;
void sys_cores(core_list *cores);

/* ---- what may disturb a measurement ---- */

/* Counters and settings that the system keeps, at one moment; -1 where it does not. What happened
 * between two moments is the difference. Reading them takes a millisecond or so, and nothing in
 * between. */
typedef struct sys_state {
    double at_s;          /* of a clock with an arbitrary start */
    int n_cpus;           /* that the next two are summed over */
    double busy_s;        /* CPU time of all programs, this one included */
    double steal_s;       /* that a hypervisor gave to others while this machine wanted it */
    double own_s;         /* CPU time of this process */
    double waited_s;      /* of its threads: ready to run, without a CPU */
    double quota_s;       /* it was stopped because its container's share of CPU time was used up */
    double memory_s;      /* some task waited for memory (PSI) */
    double gpu_hot_s;     /* a GPU was slowed down because of its temperature */
    double gpu_power_s;   /* because of its power limit */
    int64_t hot;          /* times that a CPU was slowed down because of its temperature */
    int64_t swapped;      /* pages written to and read from swap space */
    int64_t major_faults; /* of this process: pages that were read from a disk */
    double quota_cpus;    /* the container's share of CPU time, in CPUs */
    int allowed_cpus;     /* that this process may run on */
    int mhz;              /* of the CPU that asks */
    int battery;          /* 1: it is the power supply */
    int low_power;        /* 1: the system saves energy (macOS's Low Power Mode) */
    int heat;             /* enum sys_heat */
    int memory_pressure;  /* enum sys_pressure */
    int gpu_others;       /* other programs that have something on the GPU */
    int gpu_slowed;       /* SYS_GPU_ reasons, together */
    char governor[32];    /* of the CPUs' frequency; "" where it is unknown */
} sys_state;

/* macOS's levels of thermal pressure, and of memory pressure. */
enum sys_heat { SYS_HEAT_NOMINAL, SYS_HEAT_MODERATE, SYS_HEAT_HEAVY, SYS_HEAT_TRAPPING, SYS_HEAT_SLEEPING };
enum sys_pressure { SYS_PRESSURE_NORMAL, SYS_PRESSURE_WARNING, SYS_PRESSURE_CRITICAL };

/* Why a GPU's clock is lower than it could be, at this moment. */
enum { SYS_GPU_HOT = 1, SYS_GPU_POWER_LIMIT = 2, SYS_GPU_POWER_BRAKE = 4 };

/* gpu: whether the GPU matters, which takes longer the first time (NVIDIA's alone is asked: the
 * first one that programs of this environment see). */
void sys_watch(sys_state *s, bool gpu);

#endif
