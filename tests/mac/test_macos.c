/* test_macos.c - src/sys/macos.c itself, against Macs that fake_mac.c plays from machines/.
 * Each machine file says what it expects, so a new machine is a new file. Then each of its lines is
 * taken away, or made one of another type: whatever a Mac answers, nothing leaks and nothing
 * crashes. */
#include "../unit/hardware.h"
#include "fake_mac.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

static glob_t machines;

static int find_machines(void **state) {
    (void)state;
    return glob(MACHINES "/*.txt", 0, NULL, &machines);
}

static int forget_machines(void **state) {
    (void)state;
    globfree(&machines);
    return 0;
}

static void assert_balanced(void) {
    assert_int_equal(fake.objects, 0);
    assert_int_equal(fake.ports, 0);
}

/* Everything that sys.h asks a Mac. */
static hardware ask(core_list *cores) {
    hardware h;
    sys_hardware(&h);
    assert_balanced();
    sys_cores(cores);
    assert_balanced();
    assert_in_range(sys_usable_cores(), 1, SYS_MAX_CORES);
    assert_true(sys_available_memory() >= 0);
    assert_true(sys_peak_rss() > 0); /* the test's own */
    sys_state s;
    sys_watch(&s, true);
    assert_in_range(s.heat + 1, 0, SYS_HEAT_SLEEPING + 1);
    assert_in_range(s.memory_pressure + 1, 0, SYS_PRESSURE_CRITICAL + 1);
    assert_in_range(s.low_power + 1, 0, 2);
    assert_in_range(s.battery + 1, 0, 2);
    assert_balanced();
    return h;
}

/* ---- what the files expect ---- */

static void check(const hardware *h, const core_list *cores, const char *fact, const char *wanted) {
    char text[512], type[16];
    int level, instances;
    long long bytes;
    if (!strcmp(fact, "line")) {
        assert_string_equal(sys_hardware_line(text, sizeof text, h), wanted);
    } else if (!strcmp(fact, "id")) {
        assert_string_equal(sys_hardware_id(text, sizeof text, h), wanted);
    } else if (!strcmp(fact, "os")) {
        assert_string_equal(h->os, wanted);
    } else if (!strcmp(fact, "simd")) {
        assert_string_equal(h->simd, strcmp(wanted, "none") ? wanted : "");
    } else if (!strcmp(fact, "cores")) { /* physical, logical, performance, efficiency, default threads */
        snprintf(text, sizeof text, "%d %d %d %d %d", h->physical_cores, h->logical_cores,
                 h->performance_cores, h->efficiency_cores, cores->n_fast);
        assert_string_equal(text, wanted);
    } else if (!strcmp(fact, "caches")) {
        assert_int_equal(h->n_caches, atoi(wanted));
    } else if (!strcmp(fact, "busy")) { /* CPUs, seconds of CPU time since the start */
        sys_state s;
        char found[64];
        sys_watch(&s, true);
        snprintf(found, sizeof found, "%d %.0f", s.n_cpus, s.busy_s);
        assert_string_equal(found, wanted);
        assert_true(s.own_s >= 0 && s.steal_s < 0 && s.hot < 0);
    } else if (!strcmp(fact, "state")) { /* heat, memory pressure, Low Power Mode, battery, swapped pages */
        sys_state s;
        sys_watch(&s, true);
        snprintf(text, sizeof text, "%d %d %d %d %lld", s.heat, s.memory_pressure, s.low_power, s.battery,
                 (long long)s.swapped);
        assert_string_equal(text, wanted);
    } else if (!strcmp(fact, "available")) {
        assert_int_equal(sys_available_memory(), strtoll(wanted, NULL, 10));
    } else if (!strcmp(fact, "peak")) {
        assert_int_equal(sys_peak_rss(), strtoll(wanted, NULL, 10));
    } else {
        assert_string_equal(fact, "cache");
        assert_int_equal(sscanf(wanted, "%d %15s %lld %d", &level, type, &bytes, &instances), 4);
        assert_cache(h, level, type, bytes, instances);
    }
}

static void recorded_machines(void **state) {
    (void)state;
    assert_true(machines.gl_pathc >= 12);
    for (size_t i = 0; i < machines.gl_pathc; i++) {
        print_message("%s\n", strrchr(machines.gl_pathv[i], '/') + 1);
        assert_true(fake_load(machines.gl_pathv[i]));
        core_list cores;
        hardware h = ask(&cores);
        FILE *file = fopen(machines.gl_pathv[i], "r");
        assert_non_null(file);
        char line[512], fact[32], wanted[256];
        int n = 0;
        for (; fgets(line, sizeof line, file); n += *line == 'e')
            if (sscanf(line, "expect %31s %255[^\n]", fact, wanted) == 2) check(&h, &cores, fact, wanted);
        fclose(file);
        assert_true(n >= 3);
    }
}

/* ---- answers that no Mac has given yet ---- */

static void each_line_missing(void **state) {
    (void)state;
    for (size_t i = 0; i < machines.gl_pathc; i++) {
        assert_true(fake_load(machines.gl_pathv[i]));
        for (int k = 0; k < fake.n; k++) {
            char saved = fake.entries[k].key[0];
            core_list cores;
            fake.entries[k].key[0] = '!';
            ask(&cores);
            fake.entries[k].key[0] = saved;
        }
    }
}

static void each_line_wrong(void **state) {
    (void)state;
    static const fake_entry wrong[] = {
        {"", "int32", "0"},
        {"", "int32", "-1"},
        {"", "int64", "9223372036854775807"},
        {"", "int64", "-9223372036854775808"},
        {"", "int64", "1048575"},
        {"", "empty", "-"},
        {"", "text", "x"},
        {"", "text", "abc"},
        {"", "text", "sixteen letters."},
        {"", "text",
         "a text that is longer than the place for it, which has 128 bytes at most, and less for a version "
         "or "
         "a kind of core, of which"},
    };
    for (size_t i = 0; i < machines.gl_pathc; i++) {
        assert_true(fake_load(machines.gl_pathv[i]));
        for (int k = 0; k < fake.n; k++)
            for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
                fake_entry saved = fake.entries[k];
                core_list cores;
                strcpy(fake.entries[k].type, wrong[w].type);
                strcpy(fake.entries[k].value, wrong[w].value);
                hardware h = ask(&cores);
                assert_true(h.memory_bytes >= 0 && h.physical_cores >= 0 && cores.n >= 1);
                assert_true(cores.n_fast >= 1 && cores.n_fast <= cores.n);
                fake.entries[k] = saved;
            }
    }
}

/* A number where text belongs is no text. */
static void numbers_are_no_text(void **state) {
    (void)state;
    assert_true(fake_load(MACHINES "/m2ultra.txt"));
    fake_entry *chip = fake_find("machdep.cpu.brand_string");
    strcpy(chip->type, "int64");
    strcpy(chip->value, "24");
    core_list cores;
    assert_string_equal(ask(&cores).chip, "");
}

/* Without the frameworks, or one of their calls, only the GPU's cores are unknown. */
static void frameworks_missing(void **state) {
    (void)state;
    static const char *const symbols[] = {"CFRelease",
                                          "CFGetTypeID",
                                          "CFNumberGetTypeID",
                                          "CFNumberGetValue",
                                          "CFStringCreateWithCString",
                                          "IOServiceMatching",
                                          "IOServiceGetMatchingService",
                                          "IORegistryEntrySearchCFProperty",
                                          "IOObjectRelease"};
    core_list cores;
    assert_true(fake_load(MACHINES "/m2ultra.txt"));
    assert_int_equal(ask(&cores).n_gpus, 1);
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        fake.missing_symbol = symbols[i];
        assert_int_equal(ask(&cores).n_gpus, 0);
    }
    fake.missing_symbol = NULL;
    fake.missing_framework = "IOKit";
    assert_int_equal(ask(&cores).n_gpus, 0);
    fake.missing_framework = "CoreFoundation";
    assert_int_equal(ask(&cores).n_gpus, 0);
    fake.missing_framework = NULL;
    fake.no_strings = true;
    assert_int_equal(ask(&cores).n_gpus, 0);
    strcpy(fake_find("gpu-core-count")->type, "text");
    fake.no_strings = false;
    assert_int_equal(ask(&cores).n_gpus, 0);
    assert_int_equal(cores.n, 24);
}

/* Without a call the state of power, heat or memory is unknown; the rest is not. */
static void state_calls_missing(void **state) {
    (void)state;
    static const struct {
        const char *symbol;
        int heat, low_power, battery;
    } cases[] = {
        {"notify_register_check", -1, 1, 1},
        {"notify_get_state", -1, 1, 1},
        {"notify_cancel", -1, 1, 1},
        {"objc_getClass", 1, -1, 1},
        {"sel_registerName", 1, -1, 1},
        {"class_respondsToSelector", 1, -1, 1},
        {"objc_msgSend", 1, -1, 1},
        {"IOPSCopyPowerSourcesInfo", 1, 1, -1},
        {"IOPSGetProvidingPowerSourceType", 1, 1, -1},
        {"CFEqual", 1, 1, -1},
    };
    assert_true(fake_load(MACHINES "/m4max.txt"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sys_state s;
        fake.missing_symbol = cases[i].symbol;
        sys_watch(&s, false);
        assert_balanced();
        assert_int_equal(s.heat, cases[i].heat);
        assert_int_equal(s.low_power, cases[i].low_power);
        assert_int_equal(s.battery, cases[i].battery);
        assert_int_equal(s.memory_pressure, SYS_PRESSURE_WARNING);
    }
}

/* The peak is the larger of the footprint and what is resident; each may be unknown. */
static void memory(void **state) {
    (void)state;
    struct rusage usage;
    assert_true(fake_load(MACHINES "/m2ultra.txt"));
    assert_int_equal(sys_peak_rss(), strtoll(fake_find("mach.footprint_peak")->value, NULL, 10));
    strcpy(fake_find("mach.footprint_peak")->value, "1");
    assert_false(getrusage(RUSAGE_SELF, &usage));
    assert_true(sys_peak_rss() >= usage.ru_maxrss);
    fake.mach_fails = true;
    assert_true(sys_peak_rss() >= usage.ru_maxrss);
    assert_int_equal(sys_available_memory(), 0);
    assert_balanced();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_machines),   cmocka_unit_test(each_line_missing),
        cmocka_unit_test(each_line_wrong),     cmocka_unit_test(numbers_are_no_text),
        cmocka_unit_test(frameworks_missing),  cmocka_unit_test(memory),
        cmocka_unit_test(state_calls_missing),
    };
    return cmocka_run_group_tests(tests, find_machines, forget_machines);
}
