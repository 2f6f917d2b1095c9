/* test_hardware.c - how hardware is named, what macOS's keys mean, and the machine at hand.
 * No Mac is needed: their values were recorded. */
#include "hardware.h"

#include <stdio.h>
#include <stdlib.h>

/* --- names --- */

static void names(void **state) {
    (void)state;
    static const struct {
        const char *chip;
        double gib;
        int cores, n_gpus, gpu_cores;
        const char *gpu, *line, *id;
    } cases[] = {
        {"Apple M2 Ultra", 192, 24, 1, 76, "Apple M2 Ultra", "M2 Ultra | 192.0GB | 76 GPU cores",
         "m2ultra_192gb_76gpu"},
        {"Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz", 15.53, 6, 0, 0, "",
         "Intel Core i7-8700K | 15.5GB | 6 cores", "intelcorei78700k_16gb_6cpu"},
        {"AMD EPYC 7763 64-Core Processor", 503.4, 64, 0, 0, "", "AMD EPYC 7763 64-Core | 503.4GB | 64 cores",
         "amdepyc776364core_503gb_64cpu"},
        {"AMD Ryzen 7 7840U w/ Radeon  780M Graphics", 30, 8, 0, 0, "",
         "AMD Ryzen 7 7840U | 30.0GB | 8 cores", "amdryzen77840u_30gb_8cpu"},
        {"Intel(R) Xeon(R) Platinum 8480C", 2015.5, 112, 8, 0, "NVIDIA H100 80GB HBM3",
         "Intel Xeon Platinum 8480C | 2015.5GB | 8x NVIDIA H100 80GB HBM3",
         "intelxeonplatinum8480c_2016gb_8xnvidiah10080gbhbm3"},
        {"Neoverse-V2", 480, 72, 1, 0, "", "Neoverse-V2 | 480.0GB | GPU", "neoversev2_480gb_gpu"},
        {"", 0, 0, 0, 0, "", "unknown | 0.0GB | 0 cores", "unknown_0gb_0cpu"},
        {"CPU @ 2.0GHz", 1, 1, 0, 0, "", "unknown | 1.0GB | 1 cores", "unknown_1gb_1cpu"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hardware h = {.physical_cores = cases[i].cores, .n_gpus = cases[i].n_gpus};
        h.memory_bytes = (int64_t)(cases[i].gib * (double)GIB);
        facts_copy(h.chip, sizeof h.chip, cases[i].chip);
        for (int g = 0; g < h.n_gpus; g++) {
            facts_copy(h.gpus[g].name, sizeof h.gpus[g].name, cases[i].gpu);
            h.gpus[g].cores = cases[i].gpu_cores;
        }
        assert_names(&h, cases[i].line, cases[i].id);
    }
    hardware mixed = {.chip = "X", .memory_bytes = GIB, .n_gpus = 3};
    facts_copy(mixed.gpus[0].name, sizeof mixed.gpus[0].name, "A");
    facts_copy(mixed.gpus[1].name, sizeof mixed.gpus[1].name, "A");
    facts_copy(mixed.gpus[2].name, sizeof mixed.gpus[2].name, "B");
    assert_names(&mixed, "X | 1.0GB | 2x A + B", "x_1gb_2xab");
    char tiny[4]; /* cut, but terminated */
    assert_string_equal(sys_hardware_line(tiny, sizeof tiny, &mixed), "X |");
}

/* --- macOS --- */

/* context: "key: value" lines, as sysctl prints them. */
static bool recorded_text(void *context, const char *key, char *value, size_t size) {
    size_t n = strlen(key);
    for (const char *line = context; line && *line; line = strchr(line, '\n'), line += line != NULL) {
        if (strncmp(line, key, n) != 0 || strncmp(line + n, ": ", 2) != 0) continue;
        snprintf(value, size, "%.*s", (int)strcspn(line + n + 2, "\n"), line + n + 2);
        return true;
    }
    return false;
}

static bool recorded_number(void *context, const char *key, int64_t *value) {
    char text[64];
    if (!recorded_text(context, key, text, sizeof text)) return false;
    *value = strtoll(text, NULL, 10);
    return true;
}

#define LEVEL(n, cores, l1i, l1d, l2, sharing)                                                               \
    "hw.perflevel" #n ".physicalcpu: " #cores "\nhw.perflevel" #n ".l1icachesize: " #l1i "\nhw.perflevel" #n \
    ".l1dcachesize: " #l1d "\nhw.perflevel" #n ".l2cachesize: " #l2 "\nhw.perflevel" #n                      \
    ".cpusperl2: " #sharing "\n"
#define MAC(chip, cores, memory, gpu, os)                                                                    \
    "machdep.cpu.brand_string: " chip "\nhw.physicalcpu: " #cores "\nhw.logicalcpu: " #cores                 \
    "\nhw.memsize: " #memory "\ngpu-core-count: " #gpu "\nkern.osproductversion: " os "\n"

/* The cores and caches are from published listings of sysctl on such machines, but for the M1 Max,
 * the M2 Ultra and the M4 Max: those are Apple's specifications under the keys of their sister
 * chips. */
static const struct {
    const char *recorded, *line, *id;
    int performance, efficiency, p_l2, e_l2;
    int64_t p_l2_bytes;
} macs[] = {
    {MAC("Apple M1", 8, 8589934592, 8, "13.6") LEVEL(0, 4, 196608, 131072, 12582912, 4)
         LEVEL(1, 4, 131072, 65536, 4194304, 4),
     "M1 | 8.0GB | 8 GPU cores", "m1_8gb_8gpu", 4, 4, 1, 1, 12 * MIB},
    {MAC("Apple M1 Pro", 10, 17179869184, 16, "12.6") LEVEL(0, 8, 196608, 131072, 12582912, 4)
         LEVEL(1, 2, 131072, 65536, 4194304, 2),
     "M1 Pro | 16.0GB | 16 GPU cores", "m1pro_16gb_16gpu", 8, 2, 2, 1, 12 * MIB},
    {MAC("Apple M1 Max", 10, 68719476736, 32, "14.2") LEVEL(0, 8, 196608, 131072, 12582912, 4)
         LEVEL(1, 2, 131072, 65536, 4194304, 2),
     "M1 Max | 64.0GB | 32 GPU cores", "m1max_64gb_32gpu", 8, 2, 2, 1, 12 * MIB},
    {MAC("Apple M2 Ultra", 24, 206158430208, 76, "14.4") LEVEL(0, 16, 196608, 131072, 16777216, 4)
         LEVEL(1, 8, 131072, 65536, 4194304, 4),
     "M2 Ultra | 192.0GB | 76 GPU cores", "m2ultra_192gb_76gpu", 16, 8, 4, 2, 16 * MIB},
    {MAC("Apple M3 Max", 16, 137438953472, 40, "14.4") LEVEL(0, 12, 196608, 131072, 16777216, 6)
         LEVEL(1, 4, 131072, 65536, 4194304, 4),
     "M3 Max | 128.0GB | 40 GPU cores", "m3max_128gb_40gpu", 12, 4, 2, 1, 16 * MIB},
    {MAC("Apple M3 Ultra", 28, 103079215104, 60, "15.5") LEVEL(0, 20, 196608, 131072, 16777216, 5)
         LEVEL(1, 8, 131072, 65536, 4194304, 4),
     "M3 Ultra | 96.0GB | 60 GPU cores", "m3ultra_96gb_60gpu", 20, 8, 4, 2, 16 * MIB},
    {MAC("Apple M4 Pro", 14, 68719476736, 20, "15.1") LEVEL(0, 10, 196608, 131072, 16777216, 5)
         LEVEL(1, 4, 131072, 65536, 4194304, 4),
     "M4 Pro | 64.0GB | 20 GPU cores", "m4pro_64gb_20gpu", 10, 4, 2, 1, 16 * MIB},
    {MAC("Apple M4 Max", 16, 137438953472, 40, "15.3") LEVEL(0, 12, 196608, 131072, 16777216, 6)
         LEVEL(1, 4, 131072, 65536, 4194304, 4),
     "M4 Max | 128.0GB | 40 GPU cores", "m4max_128gb_40gpu", 12, 4, 2, 1, 16 * MIB},
};

static hardware mac(const char *recorded) {
    hardware h;
    apple_hardware(&h, &(apple_source){recorded_number, recorded_text, (void *)recorded});
    return h;
}

static void apple_chips(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof macs / sizeof *macs; i++) {
        hardware h = mac(macs[i].recorded);
        assert_names(&h, macs[i].line, macs[i].id);
        assert_int_equal(h.performance_cores, macs[i].performance);
        assert_int_equal(h.efficiency_cores, macs[i].efficiency);
        assert_int_equal(h.physical_cores, macs[i].performance + macs[i].efficiency);
        assert_int_equal(h.logical_cores, h.physical_cores);
        core_list cores;
        apple_cores(&cores, &(apple_source){recorded_number, recorded_text, (void *)macs[i].recorded});
        assert_int_equal(cores.n, h.physical_cores);
        assert_int_equal(cores.n_fast, macs[i].performance);
        assert_int_equal(cores.cpus[0], -1);
        assert_int_equal(h.n_caches, 6);
        assert_cache(&h, 1, "Data", 128 * KIB, macs[i].performance);
        assert_cache(&h, 1, "Instruction", 128 * KIB, macs[i].efficiency);
        assert_cache(&h, 2, "Unified", macs[i].p_l2_bytes, macs[i].p_l2);
        assert_cache(&h, 2, "Unified", 4 * MIB, macs[i].e_l2);
        assert_int_equal(h.n_gpus, 1);
        assert_string_equal(h.gpus[0].name, h.chip);
        assert_memory_equal(h.os, "macOS 1", 7);
    }
    hardware m4 =
        mac("hw.optional.neon: 1\nhw.optional.AdvSIMD: 1\nhw.optional.arm.FEAT_FP16: 1\n"
            "hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_BF16: 1\nhw.optional.arm.FEAT_I8MM: 1\n"
            "hw.optional.arm.FEAT_SME: 1\nhw.optional.arm.FEAT_SME2: 0\n");
    assert_string_equal(m4.simd, "asimd asimdhp asimddp bf16 i8mm sme");
}

#define KIND(n, name, cores) "hw.perflevel" #n ".name: " name "\nhw.perflevel" #n ".physicalcpu: " #cores "\n"

/* Since the M5 the fastest kind is called Super, and Performance may be the second. Cores:
 * published listings of an M5, an M5 Pro (5 and 10), an M5 Max (6 and 12) and an M6. */
static void apple_kinds_of_core(void **state) {
    (void)state;
    static const struct {
        const char *recorded;
        int cores, performance, efficiency, fast;
    } cases[] = {
        {"hw.physicalcpu: 10\nhw.nperflevels: 2\n" KIND(0, "Performance", 4) KIND(1, "Efficiency", 6), 10, 4,
         6, 4},
        {"hw.physicalcpu: 10\nhw.nperflevels: 2\n" KIND(0, "Super", 4) KIND(1, "Efficiency", 6), 10, 4, 6, 4},
        {"hw.physicalcpu: 15\nhw.nperflevels: 2\n" KIND(0, "Super", 5) KIND(1, "Performance", 10), 15, 0, 0,
         15},
        {"hw.physicalcpu: 18\nhw.nperflevels: 2\n" KIND(0, "Super", 6) KIND(1, "Performance", 12), 18, 0, 0,
         18},
        {"hw.physicalcpu: 12\nhw.nperflevels: 3\n" KIND(0, "Super", 2) KIND(1, "Performance", 4)
             KIND(2, "Efficiency", 6),
         12, 6, 6, 6},
        {"hw.physicalcpu: 3\nhw.nperflevels: 1\n" KIND(0, "Performance", 3) KIND(1, "Efficiency", 9), 3, 0, 0,
         3},
        {"hw.physicalcpu: 4\nhw.nperflevels: 99999\n" KIND(0, "Performance", 4), 4, 0, 0, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hardware h = mac(cases[i].recorded);
        assert_int_equal(h.physical_cores, cases[i].cores);
        assert_int_equal(h.performance_cores, cases[i].performance);
        assert_int_equal(h.efficiency_cores, cases[i].efficiency);
        core_list cores;
        apple_cores(&cores, &(apple_source){recorded_number, recorded_text, (void *)cases[i].recorded});
        assert_int_equal(cores.n, cases[i].cores);
        assert_int_equal(cores.n_fast, cases[i].fast);
    }
}

static void apple_missing_keys(void **state) {
    (void)state;
    /* macOS 11 on an M1: no performance levels, and cache keys that tell of the slow cores only. */
    hardware h =
        mac("machdep.cpu.brand_string: Apple M1\nhw.memsize: 17179869184\nhw.physicalcpu: 8\n"
            "hw.l1dcachesize: 65536\nhw.l2cachesize: 4194304\nhw.optional.neon: 1\nhw.optional.neon_fp16: 1\n"
            "gpu-core-count: 7\n");
    assert_names(&h, "M1 | 16.0GB | 7 GPU cores", "m1_16gb_7gpu");
    assert_int_equal(h.performance_cores + h.efficiency_cores + h.n_caches, 0);
    assert_int_equal(h.logical_cores, 8);
    assert_string_equal(h.simd, "asimd asimdhp");
    assert_string_equal(h.os, "macOS");

    /* A virtual machine: one level of cores, a paravirtual GPU without a count. */
    h = mac("machdep.cpu.brand_string: Apple M1 (Virtual)\nhw.memsize: 7516192768\nhw.physicalcpu: "
            "3\nhw.logicalcpu: 3\n"
            "hw.nperflevels: 1\nhw.perflevel0.physicalcpu: 3\nhw.perflevel0.l1dcachesize: 131072\n"
            "hw.perflevel0.l2cachesize: 12582912\n");
    assert_names(&h, "M1 (Virtual) | 7.0GB | 3 cores", "m1virtual_7gb_3cpu");
    assert_int_equal(h.performance_cores + h.efficiency_cores + h.n_gpus, 0);
    assert_int_equal(h.n_caches, 2);
    assert_cache(&h, 2, "Unified", 12 * MIB, 1); /* sharing unknown: one */

    h = mac("machdep.cpu.brand_string: Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz\nhw.memsize: 17179869184\n"
            "hw.physicalcpu: 6\nhw.logicalcpu: 12\nhw.packages: 1\nhw.l1dcachesize: 32768\nhw.l1icachesize: "
            "32768\n"
            "hw.l2cachesize: 262144\nhw.l3cachesize: 12582912\nhw.optional.avx1_0: 1\nhw.optional.avx2_0: 1\n"
            "hw.optional.avx512f: 0\nkern.osproductversion: 13.7\n");
    assert_names(&h, "Intel Core i7-9750H | 16.0GB | 6 cores", "intelcorei79750h_16gb_6cpu");
    assert_int_equal(h.logical_cores, 12);
    assert_int_equal(h.n_caches, 4);
    assert_cache(&h, 2, "Unified", 256 * KIB, 6);
    assert_cache(&h, 3, "Unified", 12 * MIB, 1);
    assert_string_equal(h.simd, "avx avx2");
    assert_string_equal(h.os, "macOS 13.7");

    h = mac("");
    assert_names(&h, "unknown | 0.0GB | 0 cores", "unknown_0gb_0cpu");
    assert_int_equal(h.n_caches, 0);
    h = mac("hw.physicalcpu: 99999999999\nhw.memsize: -1\ngpu-core-count: -4\n");
    assert_int_equal(h.physical_cores + h.n_gpus, 0);
    assert_int_equal(h.memory_bytes, 0);
}

/* --- the machine at hand --- */

static void this_machine(void **state) {
    (void)state;
    hardware h;
    sys_hardware(&h);
    assert_true(h.logical_cores >= 1 && h.physical_cores >= 1 && h.physical_cores <= h.logical_cores);
    assert_true(h.memory_bytes > 0);
    assert_true(*h.os && *h.kernel && *h.architecture);
    assert_in_range(sys_usable_cores(), 1, h.physical_cores);
    int64_t before = sys_peak_rss(), available = sys_available_memory();
    assert_true(before > 0);
    assert_true(available > 0 && available <= h.memory_bytes);
    /* More than the peak so far, which may lie above what is in use now. */
    size_t size = (size_t)before + 16 * MIB;
    volatile char *touched = malloc(size); /* volatile, or the compiler leaves it all out */
    assert_non_null(touched);
    for (size_t i = 0; i < size; i += 1024) touched[i] = 1;
    int64_t after = sys_peak_rss();
    assert_true(after >= (int64_t)size && after < h.memory_bytes);
    free((void *)touched);
    /* Still the peak, but for the pages that the kernel had not counted when the memory went. */
    assert_true(sys_peak_rss() >= after - 8 * MIB);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(apple_chips),
        cmocka_unit_test(apple_kinds_of_core),
        cmocka_unit_test(apple_missing_keys),
        cmocka_unit_test(this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
