/* test_quality.c - the grade of a run from what the machine did meanwhile, and the counters it
 * follows from, read from recorded /proc and /sys. */
#include "folder.h"
#include "quality/quality.h"

#ifdef __linux__
#include "sys/linux.h"
#endif

/* A second on 4 CPUs, of which this program used 2. */
static sys_state begin(void) {
    return (sys_state){.at_s = 100,
                       .n_cpus = 4,
                       .busy_s = 1000,
                       .steal_s = 10,
                       .own_s = 50,
                       .waited_s = 1,
                       .quota_s = 2,
                       .memory_s = 3,
                       .hot = 7,
                       .swapped = 100,
                       .major_faults = 20,
                       .quota_cpus = 2,
                       .allowed_cpus = 4,
                       .mhz = 3000,
                       .gpu_hot_s = 1,
                       .gpu_power_s = 1,
                       .governor = "performance"};
}

static sys_state end(void) {
    sys_state s = begin();
    s.at_s += 1;
    s.busy_s += 2;
    s.own_s += 2;
    return s;
}

static void check_with(const sys_state *a, const sys_state *b, circumstances c, char grade,
                       const char *reasons) {
    quality q = {0};
    quality_judge(&q, a, b, c);
    const char *found = q.reasons.data ? q.reasons.data : "";
    if (q.grade != grade || strncmp(found, reasons, strlen(reasons)) || (!*reasons && *found))
        fail_msg("%c \"%s\" instead of %c \"%s\"", q.grade, found, grade, reasons);
    str_free(&q.reasons);
}

static void check(const sys_state *b, char grade, const char *reasons) {
    sys_state a = begin();
    check_with(&a, b, (circumstances){0}, grade, reasons);
}

static void test_nothing_disturbs(void **state) {
    (void)state;
    sys_state b = end();
    check(&b, 'A', "");
    sys_state nothing = {.at_s = 1,
                         .busy_s = -1,
                         .steal_s = -1,
                         .own_s = -1,
                         .waited_s = -1,
                         .quota_s = -1,
                         .memory_s = -1,
                         .hot = -1,
                         .swapped = -1,
                         .major_faults = -1,
                         .allowed_cpus = -1,
                         .mhz = -1,
                         .battery = -1,
                         .low_power = -1,
                         .heat = -1,
                         .memory_pressure = -1,
                         .gpu_hot_s = -1,
                         .gpu_power_s = -1,
                         .gpu_others = -1,
                         .gpu_slowed = -1};
    sys_state later = nothing;
    later.at_s = 2;
    check_with(&nothing, &later, (circumstances){0}, 'A', "");
    check_with(&later, &later, (circumstances){0}, 'A', ""); /* no time passed */
}

static void test_other_programs(void **state) {
    (void)state;
    static const struct {
        double seconds;
        char grade;
        const char *reasons;
    } cases[] = {
        {0.05, 'A', ""},
        {0.15, 'B', "other programs used 0.1 of 4 CPUs: close them"},
        {0.5, 'C', "other programs used 0.5 of 4 CPUs: close them"},
        {1, 'D', "other programs used 1.0 of 4 CPUs: close them"},
        {2, 'F', "other programs used 2.0 of 4 CPUs: close them"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sys_state b = end();
        b.busy_s += cases[i].seconds;
        check(&b, cases[i].grade, cases[i].reasons);
    }
}

static void test_each_reason(void **state) {
    (void)state;
    sys_state b = end();
    b.steal_s += 0.4;
    check(&b, 'D', "the hypervisor took 10.0 % of the CPU time: ");
    b = end();
    b.waited_s += 0.5;
    check(&b, 'D', "threads waited for a CPU in 20 % of their time: fewer --threads");
    b = end();
    b.quota_s += 0.25;
    check(&b, 'F', "the container's limit of 2.0 CPUs stopped the program for 25.0 % of the time: ");
    b = end();
    b.hot += 3;
    check(&b, 'D', "CPUs were slowed down 3 times because of their temperature: --delay");
    b = end();
    b.swapped += 10;
    check(&b, 'C', "10 pages were swapped: ");
    b = end();
    b.memory_s += 0.06;
    check(&b, 'D', "programs waited for memory in 6.0 % of the time: ");
    b = end();
    b.major_faults += 5;
    check(&b, 'B', "5 pages were read from the disk: ");
    b = end();
    b.battery = 1;
    check(&b, 'C', "the battery is the power supply: plug it in");
    b = end();
    strcpy(b.governor, "schedutil");
    check(&b, 'B', "the CPUs' frequency follows the governor schedutil: ");
    strcpy(b.governor, "powersave");
    check(&b, 'C', "the CPUs' frequency follows the governor powersave: ");
    sys_state a = begin();
    b = end();
    check_with(&a, &b, (circumstances){.unoptimized = true}, 'F', "this build is not optimized");
    check_with(&a, &b, (circumstances){.not_warm = true}, 'C', "the first runs still");
    check_with(&a, &b, (circumstances){.not_warm = true, .first = true}, 'C', "the first run, ");
}

static void test_what_is_allowed(void **state) {
    (void)state;
    sys_state b = end();
    b.allowed_cpus = 2;
    check(&b, 'D', "the program could use 4 CPUs, and then 2: ");
    b = end();
    b.quota_cpus = -1;
    check(&b, 'D', "the container's limit of CPU time was changed meanwhile: ");
}

static void test_heat_and_power(void **state) {
    (void)state;
    sys_state a = begin(), b = end();
    for (int heat = 0; heat <= SYS_HEAT_SLEEPING; heat++) {
        static const char *const reasons[] = {
            "", "the system's thermal pressure is moderate: ", "the system's thermal pressure is heavy: ",
            "the system's thermal pressure is trapping: ", "the system's thermal pressure is sleeping: "};
        b.heat = heat;
        check(&b, "ACDFF"[heat], reasons[heat]);
    }
    b = end();
    a.heat = SYS_HEAT_HEAVY; /* at the start alone */
    check_with(&a, &b, (circumstances){0}, 'D', "the system's thermal pressure is heavy: ");
    b.low_power = 1;
    check(&b, 'C', "Low Power Mode is on: ");
    b = end();
    b.memory_pressure = SYS_PRESSURE_WARNING;
    check(&b, 'C', "the system is short of memory (warning): ");
    b.memory_pressure = SYS_PRESSURE_CRITICAL;
    check(&b, 'D', "the system is short of memory (critical): ");
}

/* Compared with earlier runs, if there were any. */
static void test_frequency(void **state) {
    (void)state;
    static const struct {
        int mhz;
        char grade;
        const char *reasons;
    } cases[] = {
        {3100, 'A', ""},
        {2900, 'A', ""},
        {2800, 'B', "the CPU's frequency fell from 3000 to 2800 MHz: "},
        {2600, 'C', "the CPU's frequency fell from 3000 to 2600 MHz: "},
        {1200, 'D', "the CPU's frequency fell from 3000 to 1200 MHz: "},
        {-1, 'A', ""},
    };
    sys_state a = begin(), b = end();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        b.mhz = cases[i].mhz;
        check_with(&a, &b, (circumstances){.fastest_mhz = 3000}, cases[i].grade, cases[i].reasons);
        check_with(&a, &b, (circumstances){0}, 'A', "");
    }
}

static void test_gpu(void **state) {
    (void)state;
    sys_state b = end();
    b.gpu_hot_s += 0.1;
    check(&b, 'D', "the GPU was slowed down because of its temperature: ");
    b = end();
    b.gpu_slowed = SYS_GPU_HOT;
    check(&b, 'D', "the GPU was slowed down because of its temperature: ");
    b = end();
    b.gpu_slowed = SYS_GPU_POWER_BRAKE;
    check(&b, 'D', "the GPU was slowed down by its power supply: ");
    b = end();
    b.gpu_slowed = SYS_GPU_POWER_LIMIT; /* the counter of time knows better */
    check(&b, 'A', "");
    b.gpu_power_s += 0.5;
    check(&b, 'B', "the GPU's clock was held down by its power limit: ");
    b.gpu_power_s = -1;
    check(&b, 'B', "the GPU's clock was held down by its power limit: ");
    b = end();
    b.gpu_others = 2;
    check(&b, 'C', "other programs are on the GPU (2): ");
}

/* The worst comes first, and decides. */
static void test_several_reasons(void **state) {
    (void)state;
    sys_state b = end();
    b.major_faults += 5;
    b.busy_s += 1;
    b.battery = 1;
    check(&b, 'D',
          "other programs used 1.0 of 4 CPUs: close them; 5 pages were read from the disk: more unmeasured "
          "runs "
          "(--warmup), or more memory; the battery is the power supply: plug it in");
    assert_true(quality_is_below('C', 'B') && !quality_is_below('B', 'B') && quality_is_below('F', 'D'));
}

/* ---- recorded counters ---- */

#ifdef __linux__

static void put(const char *name, const char *content) {
    make_parents(name + 1);
    write_text(name + 1, content);
}

static sys_state read_tree(void) {
    sys_state s;
    facts_own_state(&s);
    linux_state(folder, 1, &s);
    return s;
}

static void test_linux_counters(void **state) {
    (void)state;
    put("/proc/stat", "cpu  1000 200 300 99999 50 10 20 40 0 0\ncpu0 500 100 150 1 25 5 10 20 0 0\n"
                      "cpu1 500 100 150 1 25 5 10 20 0 0\nintr 5 cpu\n");
    put("/proc/self/task/17/schedstat", "1000000000 250000000 5\n");
    put("/proc/self/task/18/schedstat", "1000000000 500000000 5\n");
    put("/proc/pressure/memory",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0 total=7\n");
    put("/proc/vmstat", "nr_free_pages 1\npswpin 30\npswpout 12\n");
    put("/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "3\n");
    put("/sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", "4\n");
    put("/sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "5\n");
    put("/sys/class/power_supply/AC/type", "Mains\n");
    put("/sys/class/power_supply/AC/online", "0\n");
    put("/sys/class/power_supply/BAT0/type", "Battery\n");
    put("/sys/class/power_supply/BAT0/status", "Discharging\n");
    put("/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver", "acpi-cpufreq\n");
    put("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n");
    put("/sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "2793437\n");
    put("/proc/self/status",
        "Name:\tmlxbench\nCpus_allowed:\tf5\nCpus_allowed_list:\t0,2,4-7\nMems_allowed:\t1\n");
    put("/proc/self/cgroup", "0::/user/box\n");
    put("/sys/fs/cgroup/user/box/cpu.max", "150000 100000\n");
    put("/sys/fs/cgroup/user/box/cpu.stat", "usage_usec 10\nnr_throttled 7\nthrottled_usec 2500000\n");
    sys_state s = read_tree();
    assert_int_equal(s.n_cpus, 2);
    assert_true(s.busy_s == 15.3 && s.steal_s == 0.4);
    assert_true(s.waited_s == 0.75 && s.memory_s == 1.5 && s.quota_s == 2.5 && s.quota_cpus == 1.5);
    assert_int_equal(s.swapped, 42);
    assert_int_equal(s.hot, 12);
    assert_int_equal(s.allowed_cpus, 6);
    assert_int_equal(s.mhz, 2793);
    assert_int_equal(s.battery, 1);
    assert_string_equal(s.governor, "powersave");
    put("/sys/class/power_supply/AC/online", "1\n");
    put("/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver", "intel_pstate\n"); /* chooses itself */
    put("/proc/self/cgroup", "3:cpu,cpuacct:/box\n");
    put("/sys/fs/cgroup/cpu/box/cpu.stat", "nr_periods 1\nthrottled_time 750000000\n");
    s = read_tree();
    assert_int_equal(s.battery, 0);
    assert_string_equal(s.governor, "balanced");
    assert_true(s.quota_s == 0.75 && s.quota_cpus < 0);
}

/* Nothing is there, and nothing that is makes sense. */
static void test_linux_without_counters(void **state) {
    (void)state;
    for (int broken = 0; broken < 2; broken++) {
        sys_state s = read_tree();
        assert_true(s.n_cpus == 0 && s.busy_s < 0 && s.steal_s < 0 && s.waited_s < 0 && s.memory_s < 0);
        assert_true(s.hot < 0 && s.swapped < 0 && s.quota_s < 0 && s.quota_cpus < 0 && !*s.governor);
        assert_int_equal(s.battery, 0);
        assert_true(s.mhz < 0 && s.allowed_cpus <= 0);
        put("/sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "<unknown>\n");
        put("/proc/self/status", "Cpus_allowed_list:\nCpus_allowed_list\n");
        put("/proc/stat", "cpu  one two\n");
        put("/proc/self/task/17/schedstat", "x\n");
        put("/proc/pressure/memory", "some\n");
        put("/proc/vmstat", "pswpin\n");
        put("/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "-5\n");
        put("/proc/self/cgroup", "\n");
    }
}

/* Of 1,000 CPUs some are asked, and their counters' files are all there is. */
static void test_many_cpus(void **state) {
    (void)state;
    str stat = {0};
    str_puts(&stat, "cpu  1 1 1 1 1 1 1 1 0 0\n");
    for (int cpu = 0; cpu < 1000; cpu++) {
        char path[128];
        str_printf(&stat, "cpu%d 1 1 1 1 1 1 1 1 0 0\n", cpu);
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/thermal_throttle/core_throttle_count",
                 cpu);
        put(path, "1\n");
    }
    assert_false(stat.failed);
    put("/proc/stat", stat.data);
    str_free(&stat);
    sys_state s = read_tree();
    assert_int_equal(s.n_cpus, 1000);
    assert_in_range(s.hot, 32, 64);
}

static void test_this_machine(void **state) {
    (void)state;
    sys_state a, b;
    sys_watch(&a, true);
    sys_watch(&b, true);
    assert_true(a.own_s >= 0 && b.own_s >= a.own_s && b.at_s >= a.at_s && b.busy_s >= a.busy_s);
}

#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_disturbs),
        cmocka_unit_test(test_other_programs),
        cmocka_unit_test(test_each_reason),
        cmocka_unit_test(test_what_is_allowed),
        cmocka_unit_test(test_heat_and_power),
        cmocka_unit_test(test_frequency),
        cmocka_unit_test(test_gpu),
        cmocka_unit_test(test_several_reasons),
#ifdef __linux__
        cmocka_unit_test_setup_teardown(test_linux_counters, new_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_linux_without_counters, new_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_many_cpus, new_folder, drop_folder),
        cmocka_unit_test(test_this_machine),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
