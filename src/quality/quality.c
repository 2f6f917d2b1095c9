/* quality.c - the rules: from how much of a disturbance on a run has which grade, and what to do
 * about it. Each is one function; docs/metrics.md has them as a table.
 */
#include "quality/quality.h"

#include <stdarg.h>
#include <stdio.h>

/* The least of a quantity for B, C, D and F. */
typedef struct limits {
    double b, c, d, f;
} limits;

static char grade_of(double x, limits l) {
    return x >= l.f ? 'F' : x >= l.d ? 'D' : x >= l.c ? 'C' : x >= l.b ? 'B' : 'A';
}

bool quality_is_below(char grade, char limit) {
    return grade > limit; /* letters follow each other */
}

/* Adds a reason, before those of better grades. */
static PRINTF_LIKE(3, 4) void add(quality *q, char grade, const char *format, ...) {
    str text = {0};
    if (grade == 'A') return;
    va_list args;
    va_start(args, format);
    char reason[256];
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    bool first = quality_is_below(grade, q->grade);
    bool any = q->reasons.length > 0;
    str_printf(&text, "%s%s%s", first ? reason : q->reasons.data, any ? "; " : "",
               first ? (any ? q->reasons.data : "") : reason);
    str_free(&q->reasons);
    q->reasons = text;
    if (first) q->grade = grade;
}

/* ---- the rules ---- */

typedef struct span {
    const sys_state *a, *b;
    double seconds; /* of the run */
    double machine; /* CPU seconds that the machine had for it; 0: unknown */
} span;

/* What happened in between; 0 where it is unknown. */
static double change(double a, double b) {
    return a >= 0 && b > a ? b - a : 0;
}

/* Other programs. Ticks are coarse and belong to whoever runs when one comes, so a little is
 * nothing. */
static void judge_others(quality *q, const span *s) {
    const double coarse = 0.03;
    if (s->machine <= 0) return;
    double others = change(s->a->busy_s, s->b->busy_s) - change(s->a->own_s, s->b->own_s) - coarse;
    if (others <= 0) return;
    add(q, grade_of(others / s->machine, (limits){0.02, 0.05, 0.15, 0.40}),
        "other programs used %.1f of %d CPUs: close them", others / s->seconds, s->b->n_cpus);
}

static void judge_steal(quality *q, const span *s) {
    if (s->machine <= 0) return;
    double share = change(s->a->steal_s, s->b->steal_s) / s->machine;
    add(q, grade_of(share, (limits){0.002, 0.01, 0.05, 0.20}),
        "the hypervisor took %.1f %% of the CPU time: measure when the host is quiet, or on a machine of "
        "your own",
        100 * share);
}

/* Threads without a CPU though nobody else had it: there are more of them than CPUs. */
static void judge_waits(quality *q, const span *s) {
    double waited = change(s->a->waited_s, s->b->waited_s), ran = change(s->a->own_s, s->b->own_s);
    if (waited < 0.01) return;
    double share = waited / (waited + ran);
    add(q, grade_of(share, (limits){0.01, 0.03, 0.10, 0.30}),
        "threads waited for a CPU in %.0f %% of their time: fewer --threads, or fewer other programs",
        100 * share);
}

static void judge_quota(quality *q, const span *s) {
    double share = change(s->a->quota_s, s->b->quota_s) / s->seconds;
    add(q, grade_of(share, (limits){1e-9, 1e-3, 0.02, 0.20}),
        "the container's limit of %.1f CPUs stopped the program for %.1f %% of the time: raise it, or use "
        "fewer "
        "--threads",
        s->b->quota_cpus, 100 * share);
}

static void judge_allowed(quality *q, const span *s) {
    int before = s->a->allowed_cpus, after = s->b->allowed_cpus;
    if (before > 0 && after > 0 && before != after)
        add(q, 'D', "the program could use %d CPUs, and then %d: leave its cpuset as it is", before, after);
    if (s->a->quota_cpus != s->b->quota_cpus)
        add(q, 'D', "the container's limit of CPU time was changed meanwhile: leave it as it is");
}

static void judge_heat(quality *q, const span *s) {
    static const char *const levels[] = {"nominal", "moderate", "heavy", "trapping", "sleeping"};
    static const char grades[] = "ACDFF"; /* a letter for each level */
    int heat = s->b->heat > s->a->heat ? s->b->heat : s->a->heat;
    double n = change((double)s->a->hot, (double)s->b->hot);
    add(q, n > 0 ? 'D' : 'A',
        "CPUs were slowed down %.0f times because of their temperature: --delay 30s lets them cool", n);
    if (heat > SYS_HEAT_NOMINAL && heat <= SYS_HEAT_SLEEPING)
        add(q, grades[heat], "the system's thermal pressure is %s: --delay 30s lets it cool", levels[heat]);
}

/* At the end of a run, when the CPU has worked: compared with the same moment of earlier ones. */
static void judge_frequency(quality *q, const span *s, int fastest_mhz) {
    if (fastest_mhz <= 0 || s->b->mhz <= 0) return;
    double fall = 1 - (double)s->b->mhz / fastest_mhz;
    add(q, grade_of(fall, (limits){0.05, 0.10, 0.25, 1}),
        "the CPU's frequency fell from %d to %d MHz: --delay 30s lets it cool; see its limits of power",
        fastest_mhz, s->b->mhz);
}

/* Why a GPU was slow: by its counters of time, else by what it says at the end. */
static void judge_gpu(quality *q, const span *s) {
    int slowed = s->b->gpu_slowed > 0 ? s->b->gpu_slowed : 0;
    double hot = change(s->a->gpu_hot_s, s->b->gpu_hot_s) / s->seconds,
           power = change(s->a->gpu_power_s, s->b->gpu_power_s) / s->seconds;
    if (hot > 1e-3 || (slowed & SYS_GPU_HOT))
        add(q, 'D', "the GPU was slowed down because of its temperature: --delay 30s lets it cool");
    if (slowed & SYS_GPU_POWER_BRAKE)
        add(q, 'D', "the GPU was slowed down by its power supply: see nvidia-smi -q -d PERFORMANCE");
    if (power > 0.01 || (s->b->gpu_power_s < 0 && (slowed & SYS_GPU_POWER_LIMIT)))
        add(q, 'B', "the GPU's clock was held down by its power limit: nvidia-smi -q -d POWER shows it");
    if (s->b->gpu_others > 0)
        add(q, 'C', "other programs are on the GPU (%d): nvidia-smi names them; close them",
            s->b->gpu_others);
}

static void judge_memory(quality *q, const span *s) {
    double pages = change((double)s->a->swapped, (double)s->b->swapped),
           faults = change((double)s->a->major_faults, (double)s->b->major_faults),
           share = change(s->a->memory_s, s->b->memory_s) / s->seconds;
    add(q, grade_of(pages, (limits){1, 10, 1000, 100000}),
        "%.0f pages were swapped: close programs that need memory, or take a smaller model", pages);
    add(q, grade_of(share, (limits){0.005, 0.01, 0.05, 0.30}),
        "programs waited for memory in %.1f %% of the time: close those that need much", 100 * share);
    add(q, grade_of(faults, (limits){1, 20, 1000, 1e9}),
        "%.0f pages were read from the disk: more unmeasured runs (--warmup), or more memory", faults);
    int pressure =
        s->b->memory_pressure > s->a->memory_pressure ? s->b->memory_pressure : s->a->memory_pressure;
    if (pressure > SYS_PRESSURE_NORMAL)
        add(q, pressure == SYS_PRESSURE_WARNING ? 'C' : 'D',
            "the system is short of memory (%s): close programs that need much, or take a smaller model",
            pressure == SYS_PRESSURE_WARNING ? "warning" : "critical");
}

static void judge_power(quality *q, const span *s) {
    const char *governor = s->b->governor;
    bool slow = !strcmp(governor, "powersave"), varies = *governor && strcmp(governor, "performance");
    if (s->b->battery > 0) add(q, 'C', "the battery is the power supply: plug it in");
    if (s->b->low_power > 0)
        add(q, 'C',
            "Low Power Mode is on: switch it off in System Settings, Battery (sudo pmset -a lowpowermode 0)");
    add(q,
        slow     ? 'C'
        : varies ? 'B'
                 : 'A',
        "the CPUs' frequency follows the governor %s: cpupower frequency-set -g performance", governor);
}

void quality_judge(quality *q, const sys_state *a, const sys_state *b, circumstances c) {
    span s = {.a = a, .b = b, .seconds = b->at_s - a->at_s};
    if (s.seconds <= 0) s.seconds = 1e-9;
    s.machine = s.seconds * b->n_cpus;
    str_clear(&q->reasons);
    q->grade = 'A';
    judge_others(q, &s);
    judge_steal(q, &s);
    judge_waits(q, &s);
    judge_quota(q, &s);
    judge_allowed(q, &s);
    judge_heat(q, &s);
    judge_frequency(q, &s, c.fastest_mhz);
    judge_gpu(q, &s);
    judge_memory(q, &s);
    judge_power(q, &s);
    if (c.unoptimized) add(q, 'F', "this build is not optimized, or has sanitizers: cmake --preset release");
    if (c.first)
        add(q, 'C',
            "the first run, with what every program does once: unmeasured runs before it (--warmup 2)");
    else if (c.not_warm)
        add(q, 'C', "the first runs still became faster or slower: more unmeasured runs (--warmup 10)");
}

bool quality_is_unoptimized(void) {
#if !defined __OPTIMIZE__ || defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
    return true;
#elif defined __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
    return true;
#else
    return false;
#endif
#else
    return false;
#endif
}
