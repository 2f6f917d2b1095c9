/* apple.c - a Mac's raw values to facts.
 * Portable: macos.c fetches the values, this file knows what they mean, and tests feed it recorded
 * machines.
 */
#include "sys/facts.h"

#include <stdio.h>
#include <string.h>

static int64_t number(const apple_source *s, const char *key) {
    int64_t value = 0;
    return s->number(s->context, key, &value) && value > 0 ? value : 0;
}

enum { MOST_COUNT = 1 << 20 }; /* an absurd count is no count */

static int small_number(const apple_source *s, const char *key) {
    int64_t value = number(s, key);
    return value < MOST_COUNT ? (int)value : 0;
}

/* Kinds of core, the fastest first: "Performance" and "Efficiency" until M4, "Super" and
 * "Efficiency" on the M5, "Super" and "Performance" on its Pro and Max, all three on the M6.
 * Sources: hw.perflevelN in published listings; Apple, "Determining system capabilities". */
enum { MAX_LEVELS = 4 };

static int n_levels(const apple_source *s) {
    int n = small_number(s, "hw.nperflevels");
    return !n ? 2 : n < MAX_LEVELS ? n : MAX_LEVELS;
}

/* Whether cores of this kind hold up the others, which share a step's work with them. */
static bool is_slow(const apple_source *s, int level) {
    char key[64], name[32];
    snprintf(key, sizeof key, "hw.perflevel%d.name", level);
    return s->text(s->context, key, name, sizeof name) ? !strcmp(name, "Efficiency") : level > 0;
}

/* hw.perflevelN.KEY */
static int64_t level_number(const apple_source *s, int level, const char *key) {
    char name[64];
    snprintf(name, sizeof name, "hw.perflevel%d.%s", level, key);
    return number(s, name);
}

static int level_count(const apple_source *s, int level, const char *key) {
    int64_t n = level_number(s, level, key);
    return n < MOST_COUNT ? (int)n : 0;
}

static void add_cache(hardware *h, int level, const char *type, int64_t bytes, int64_t instances) {
    cache_facts cache = {.level = level, .bytes = bytes, .instances = (int)instances};
    facts_copy(cache.type, sizeof cache.type, type);
    facts_add_cache(h, cache);
}

/* L1 is per core; an L2 serves a cluster of cpusperl2 cores. */
static void level_caches(hardware *h, const apple_source *s, int level) {
    int cores = level_count(s, level, "physicalcpu"), sharing = level_count(s, level, "cpusperl2");
    if (!cores) return;
    add_cache(h, 1, "Data", level_number(s, level, "l1dcachesize"), cores);
    add_cache(h, 1, "Instruction", level_number(s, level, "l1icachesize"), cores);
    add_cache(h, 2, "Unified", level_number(s, level, "l2cachesize"),
              sharing ? (cores + sharing - 1) / sharing : 1);
}

/* Macs with one kind of core and no performance levels: Intel's L2 is per core, its L3 per package.
 * Apple's chips are left out, because there these keys tell of the efficiency cores only. */
static void intel_caches(hardware *h, const apple_source *s) {
    int packages = small_number(s, "hw.packages");
    add_cache(h, 1, "Data", number(s, "hw.l1dcachesize"), h->physical_cores);
    add_cache(h, 1, "Instruction", number(s, "hw.l1icachesize"), h->physical_cores);
    add_cache(h, 2, "Unified", number(s, "hw.l2cachesize"), h->physical_cores);
    add_cache(h, 3, "Unified", number(s, "hw.l3cachesize"), packages ? packages : 1);
}

/* Instruction sets under the names Linux gives them. macOS renamed the ARM keys over time: both are
 * asked. */
static void simd(hardware *h, const apple_source *s) {
    static const struct {
        const char *name, *key, *older_key;
    } sets[] = {
        {"asimd", "hw.optional.AdvSIMD", "hw.optional.neon"},
        {"asimdhp", "hw.optional.arm.FEAT_FP16", "hw.optional.neon_fp16"},
        {"asimdfhm", "hw.optional.arm.FEAT_FHM", "hw.optional.armv8_2_fhm"},
        {"asimddp", "hw.optional.arm.FEAT_DotProd", NULL},
        {"bf16", "hw.optional.arm.FEAT_BF16", NULL},
        {"i8mm", "hw.optional.arm.FEAT_I8MM", NULL},
        {"sme", "hw.optional.arm.FEAT_SME", NULL},
        {"sme2", "hw.optional.arm.FEAT_SME2", NULL},
        {"sse4_2", "hw.optional.sse4_2", NULL},
        {"avx", "hw.optional.avx1_0", NULL},
        {"f16c", "hw.optional.f16c", NULL},
        {"fma", "hw.optional.fma", NULL},
        {"avx2", "hw.optional.avx2_0", NULL},
        {"avx512f", "hw.optional.avx512f", NULL},
        {"avx512bw", "hw.optional.avx512bw", NULL},
        {"avx512dq", "hw.optional.avx512dq", NULL},
        {"avx512vl", "hw.optional.avx512vl", NULL},
    };
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (number(s, sets[i].key) || (sets[i].older_key && number(s, sets[i].older_key)))
            facts_add_word(h->simd, sizeof h->simd, sets[i].name);
}

static void cores(hardware *h, const apple_source *s) {
    h->physical_cores = small_number(s, "hw.physicalcpu");
    h->logical_cores = small_number(s, "hw.logicalcpu");
    int fast = 0, slow = 0;
    for (int level = 0; level < n_levels(s); level++) {
        int n = level_count(s, level, "physicalcpu");
        if (is_slow(s, level))
            slow += n;
        else
            fast += n;
    }
    if (!h->physical_cores) h->physical_cores = fast + slow;
    if (!h->logical_cores) h->logical_cores = h->physical_cores;
    if (fast && slow) {
        h->performance_cores = fast;
        h->efficiency_cores = slow;
    }
}

void apple_cores(core_list *list, const apple_source *s) {
    hardware h = {0};
    cores(&h, s);
    int n = h.physical_cores < SYS_MAX_CORES ? h.physical_cores : SYS_MAX_CORES;
    *list = (core_list){.n = n > 0 ? n : 1, .n_fast = h.performance_cores};
    if (!list->n_fast || list->n_fast > list->n) list->n_fast = list->n;
    for (int i = 0; i < list->n; i++) list->cpus[i] = -1;
}

void apple_hardware(hardware *h, const apple_source *s) {
    *h = (hardware){0};
    if (!s->text(s->context, "machdep.cpu.brand_string", h->chip, sizeof h->chip)) h->chip[0] = '\0';
    h->memory_bytes = number(s, "hw.memsize");
    cores(h, s);
    for (int level = 0; level < n_levels(s); level++) level_caches(h, s, level);
    if (!h->n_caches && strncmp(h->chip, "Apple", 5) != 0) intel_caches(h, s);
    simd(h, s);
    char version[64];
    if (!s->text(s->context, "kern.osproductversion", version, sizeof version)) version[0] = '\0';
    snprintf(h->os, sizeof h->os, "macOS%s%s", *version ? " " : "", version);
    int gpu_cores = small_number(s, "gpu-core-count");
    if (gpu_cores) { /* it has no memory of its own */
        h->n_gpus = 1;
        h->gpus[0].cores = gpu_cores;
        facts_copy(h->gpus[0].name, sizeof h->gpus[0].name, h->chip);
    }
}

/* A number within [0, most]; -1 where there is none. */
static int level(const apple_source *s, const char *key, int64_t most) {
    int64_t value = 0;
    return s->number(s->context, key, &value) && value >= 0 && value <= most ? (int)value : -1;
}

/* The levels of memory pressure are 1, 2 and 4 (xnu: kVMPressureNormal and its like); those of
 * thermal pressure have sys_heat's order (OSThermalNotification.h). */
void apple_state(sys_state *s, const apple_source *source) {
    int pressure = level(source, "kern.memorystatus_vm_pressure_level", 4);
    if (pressure >= 1)
        s->memory_pressure = pressure >= 4   ? SYS_PRESSURE_CRITICAL
                             : pressure >= 2 ? SYS_PRESSURE_WARNING
                                             : SYS_PRESSURE_NORMAL;
    s->heat = level(source, "thermal-pressure", SYS_HEAT_SLEEPING);
    s->low_power = level(source, "low-power-mode", 1);
    s->battery = level(source, "battery-power", 1);
}
