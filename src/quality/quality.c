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

static void judge_heat(quality *q, const span *s) {
    double n = change((double)s->a->hot, (double)s->b->hot);
    add(q, n > 0 ? 'D' : 'A',
        "CPUs were slowed down %.0f times because of their temperature: --delay 30s lets them cool", n);
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
}

static void judge_power(quality *q, const span *s) {
    const char *governor = s->b->governor;
    bool slow = !strcmp(governor, "powersave"), varies = *governor && strcmp(governor, "performance");
    if (s->b->battery > 0) add(q, 'C', "the battery is the power supply: plug it in");
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
    judge_heat(q, &s);
    judge_memory(q, &s);
    judge_power(q, &s);
    if (c.unoptimized) add(q, 'F', "this build is not optimized, or has sanitizers: cmake --preset release");
    if (c.not_warm)
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
