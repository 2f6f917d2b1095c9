/* test_linux.c - hardware facts and limits on Linux, from recorded machines and a stand-in for
 * NVIDIA's library. Few of these machines are at hand, so their files are written here. */
#ifdef __linux__
#include "folder.h"
#include "hardware.h"
#include "sys/linux.h"

/* Writes a file of the recorded machine, and its folders. */
static PRINTF_LIKE(2, 3) void put(const char *content, const char *format, ...) {
    char name[256];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    make_parents(name);
    write_text(name, content);
}

/* --- recorded trees --- */

#define CPU "/sys/devices/system/cpu/cpu%d/"

static void put_cache(int cpu, int index, int level, const char *type, const char *size, const char *shared) {
    char number[8];
    snprintf(number, sizeof number, "%d\n", level);
    put(number, CPU "cache/index%d/level", cpu, index);
    put(type, CPU "cache/index%d/type", cpu, index);
    put(size, CPU "cache/index%d/size", cpu, index);
    put(shared, CPU "cache/index%d/shared_cpu_list", cpu, index);
}

static int usable(const char *cpus) {
    cpu_mask allowed = {0};
    linux_cpus(cpus, &allowed);
    return linux_usable_cores(folder, &allowed);
}

/* "CPUS | N_FAST" as sys_cores would list them for the CPUs that are allowed. */
static const char *cores(const char *cpus) {
    static char text[256];
    cpu_mask allowed = {0};
    core_list list;
    linux_cpus(cpus, &allowed);
    linux_cores(folder, &allowed, &list);
    int n = 0;
    for (int i = 0; i < list.n; i++) n += snprintf(text + n, sizeof text - (size_t)n, "%d ", list.cpus[i]);
    snprintf(text + n, sizeof text - (size_t)n, "| %d", list.n_fast);
    return text;
}

static void linux_virtual_machine(void **state) {
    (void)state;
    put("processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Processor @ 2.30GHz\n"
        "siblings\t: 2\ncpu cores\t: 2\n"
        "flags\t\t: fpu sse sse4_1 sse4_2 avx f16c fma fma4x avx2 smep avx512f avx512_bf16 amx_tile "
        "avx_vnni\n\n"
        "processor\t: 1\nmodel name\t: Intel(R) Xeon(R) Processor @ 2.30GHz\nflags\t\t: fpu\n",
        "/proc/cpuinfo");
    put("0-1\n", "/sys/devices/system/cpu/online");
    put("0\n", "/sys/devices/system/node/online");
    put("MemTotal:       24684092 kB\nMemFree:        1 kB\nMemAvailable:   24314412 kB\n", "/proc/meminfo");
    put("NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n", "/etc/os-release");
    for (int cpu = 0; cpu < 2; cpu++) {
        const char *own = cpu ? "1\n" : "0\n";
        put(own, CPU "topology/thread_siblings_list", cpu);
        put_cache(cpu, 0, 1, "Data\n", "48K\n", own);
        put_cache(cpu, 1, 1, "Instruction\n", "32K\n", own);
        put_cache(cpu, 2, 2, "Unified\n", "2048K\n", own);
        put_cache(cpu, 3, 3, "Unified\n", "260M\n", "0-1\n");
    }
    hardware h;
    linux_hardware(folder, &h);
    assert_string_equal(h.chip, "Intel(R) Xeon(R) Processor @ 2.30GHz");
    assert_string_equal(h.simd, "sse4_2 avx f16c fma avx2 avx512f avx512_bf16 amx_tile avx_vnni");
    assert_string_equal(h.os, "Debian GNU/Linux 12 (bookworm)");
    assert_int_equal(h.physical_cores, 2);
    assert_int_equal(h.logical_cores, 2);
    assert_int_equal(h.performance_cores + h.efficiency_cores, 0);
    assert_int_equal(h.numa_nodes, 1);
    assert_int_equal(h.memory_bytes, 24684092 * (int64_t)KIB);
    assert_int_equal(h.n_caches, 4);
    assert_string_equal(h.caches[0].type, "Data"); /* in order */
    assert_cache(&h, 1, "Data", 48 * KIB, 2);
    assert_cache(&h, 1, "Instruction", 32 * KIB, 2);
    assert_cache(&h, 2, "Unified", 2 * MIB, 2);
    assert_cache(&h, 3, "Unified", 260 * MIB, 1);
    assert_names(&h, "Intel Xeon | 23.5GB | 2 cores", "intelxeon_24gb_2cpu");
    assert_int_equal(usable("0-1"), 2);
    assert_int_equal(usable("1"), 1);
    assert_string_equal(cores("0-1"), "0 1 | 2");
    assert_string_equal(cores("1"), "1 | 1");
    assert_int_equal(linux_available_memory(folder), 24314412 * (int64_t)KIB);
}

/* Core i7-1260P: CPUs 0-7 are two threads each of 4 fast cores, 8-15 are 8 slow cores in clusters
 * of 4. */
static void linux_hybrid(void **state) {
    (void)state;
    put("processor\t: 0\nmodel name\t: 12th Gen Intel(R) Core(TM) i7-1260P\nflags\t: avx2 avx_vnni\n",
        "/proc/cpuinfo");
    put("0-15\n", "/sys/devices/system/cpu/online");
    put("0-7\n", "/sys/devices/cpu_core/cpus");
    put("8-15\n", "/sys/devices/cpu_atom/cpus");
    for (int cpu = 0; cpu < 16; cpu++) {
        bool fast = cpu < 8;
        char own[32], cluster[32];
        snprintf(own, sizeof own, fast ? "%d-%d\n" : "%d\n", fast ? cpu / 2 * 2 : cpu, cpu / 2 * 2 + 1);
        snprintf(cluster, sizeof cluster, "%d-%d\n", cpu / 4 * 4, cpu / 4 * 4 + 3);
        put(own, CPU "topology/thread_siblings_list", cpu);
        put_cache(cpu, 0, 1, "Data\n", fast ? "48K\n" : "32K\n", own);
        put_cache(cpu, 1, 1, "Instruction\n", fast ? "32K\n" : "64K\n", own);
        put_cache(cpu, 2, 2, "Unified\n", fast ? "1280K\n" : "2048K\n", fast ? own : cluster);
        put_cache(cpu, 3, 3, "Unified\n", "18432K\n", "0-15\n");
    }
    hardware h;
    linux_hardware(folder, &h);
    assert_int_equal(h.logical_cores, 16);
    assert_int_equal(h.physical_cores, 12);
    assert_int_equal(h.performance_cores, 4);
    assert_int_equal(h.efficiency_cores, 8);
    assert_int_equal(h.n_caches, 7);
    assert_cache(&h, 1, "Data", 48 * KIB, 4);
    assert_cache(&h, 1, "Data", 32 * KIB, 8);
    assert_cache(&h, 1, "Instruction", 64 * KIB, 8);
    assert_cache(&h, 2, "Unified", 1280 * KIB, 4);
    assert_cache(&h, 2, "Unified", 2 * MIB, 2);
    assert_cache(&h, 3, "Unified", 18 * MIB, 1);
    assert_int_equal(usable("0-15"), 12);
    assert_int_equal(usable("0-1"), 1);   /* two threads of one core */
    assert_int_equal(usable("1,3,8"), 3); /* one thread of each */
    assert_string_equal(cores("0-15"), "0 2 4 6 8 9 10 11 12 13 14 15 | 4");
    assert_string_equal(cores("1,3,8"), "1 3 8 | 2");
    assert_string_equal(cores("8-11"), "8 9 10 11 | 4"); /* slow ones only: better than none */
}

/* Two memory nodes whose CPUs are numbered in turns, two threads a core. */
static void linux_nodes(void **state) {
    (void)state;
    put("0-7\n", "/sys/devices/system/cpu/online");
    put("0-1\n", "/sys/devices/system/node/online");
    put("0,2,4,6\n", "/sys/devices/system/node/node0/cpulist");
    put("1,3,5,7\n", "/sys/devices/system/node/node1/cpulist");
    for (int cpu = 0; cpu < 8; cpu++) {
        char own[16];
        snprintf(own, sizeof own, "%d,%d\n", cpu % 4, cpu % 4 + 4);
        put(own, CPU "topology/thread_siblings_list", cpu);
    }
    assert_string_equal(cores("0-7"), "0 2 1 3 | 4");
    assert_string_equal(cores("1,3,5-7"), "6 1 3 | 3");
    put("0::/\n", "/proc/self/cgroup");
    put("200000 100000\n", "/sys/fs/cgroup/cpu.max");
    assert_string_equal(cores("0-7"), "0 2 | 2");
}

static void linux_arm(void **state) {
    (void)state;
    const char *text =
        "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd aes asimdhp asimddp svex sve i8mm bf16\n"
        "CPU implementer\t: 0x41\nCPU part\t: 0xd0c\n\nprocessor\t: 1\nFeatures\t: fp asimd\n"
        "CPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";
    put(text, "/proc/cpuinfo");
    hardware h;
    linux_hardware(folder, &h);
    assert_string_equal(h.chip, "Neoverse-N1");
    assert_string_equal(h.simd,
                        "asimd asimdhp asimddp svex sve i8mm bf16"); /* new SVE parts show up unasked */
    assert_int_equal(h.logical_cores, 2);                            /* from cpuinfo: there is no /sys */
    assert_int_equal(h.physical_cores, 2);
    assert_int_equal(h.performance_cores, 0);

    put("CPU implementer\t: 0x41\nCPU part\t: 0xd05\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n"
        "CPU implementer\t: 0x99\nCPU part\t: 0xabc\n",
        "/proc/cpuinfo");
    put("0-7\n", "/sys/devices/system/cpu/online");
    for (int cpu = 0; cpu < 8; cpu++) put(cpu < 4 ? "530\n" : "1024\n", CPU "cpu_capacity", cpu);
    linux_hardware(folder, &h);
    assert_string_equal(h.chip, "Cortex-A55 + Cortex-A76 + ARM 0x99/0xabc");
    assert_int_equal(h.performance_cores, 4);
    assert_int_equal(h.efficiency_cores, 4);
    assert_string_equal(cores("0-7"), "4 5 6 7 0 1 2 3 | 4");
    put("800\n", CPU "cpu_capacity", 3); /* three kinds: only the slowest are left out */
    assert_string_equal(cores("0-7"), "3 4 5 6 7 0 1 2 | 5");
}

/* Threads of a core where a sandbox hides /sys: four CPUs of two cores. */
static void linux_without_sys(void **state) {
    (void)state;
    put("processor: 0\nsiblings: 4\ncpu cores: 2\nprocessor: 1\nprocessor: 2\nprocessor: 3\n",
        "/proc/cpuinfo");
    hardware h;
    linux_hardware(folder, &h);
    assert_int_equal(h.logical_cores, 4);
    assert_int_equal(h.physical_cores, 2);
    assert_int_equal(usable("0-3"), 2);
    assert_string_equal(cores("0-3"), "0 1 | 2");
}

static void linux_nothing_and_nonsense(void **state) {
    (void)state;
    hardware h;
    linux_hardware(folder, &h);
    assert_string_equal(h.chip, "");
    assert_string_equal(h.os, "Linux");
    assert_int_equal(h.physical_cores + h.logical_cores + h.n_caches + h.n_gpus, 0);
    assert_int_equal(h.memory_bytes, 0);
    assert_int_equal(usable(""), 1);
    assert_string_equal(cores(""), "0 | 1");
    assert_int_equal(usable("0-2"), 3); /* each its own core as far as is known */
    assert_int_equal(linux_available_memory(folder), 0);

    put("no colon here\n:\n:::\nmodel name:\nprocessor:\nCPU part: zzz\nsiblings: -3\ncpu cores: 0\n",
        "/proc/cpuinfo");
    put("MemTotal: 99999999999999999999 kB\nMemAvailable: -5 kB\n", "/proc/meminfo");
    put("8191-99999999999999999999,1-0,x", "/sys/devices/system/cpu/online");
    put("-7\n", CPU "topology/thread_siblings_list", 8191);
    put_cache(8191, 0, -1, "A type that is longer than its place\n", "99999999999999999999M\n", "-\n");
    put_cache(8191, 1, 1, "Data\n", "-4K\n", "0\n");
    put("PRETTY_NAME=\n", "/etc/os-release");
    put("0\n:\n1:2\n::/a/b\n", "/proc/self/cgroup");
    put("max\n", "/sys/fs/cgroup/cpu.max");
    put("-1 0\n", "/sys/fs/cgroup/a/cpu.max");
    linux_hardware(folder, &h);
    assert_int_equal(h.logical_cores, 1);
    assert_int_equal(h.physical_cores, 1);
    assert_int_equal(h.n_caches, 0);
    assert_int_equal(h.memory_bytes, 0);
    assert_int_equal(usable("8191"), 1);
    assert_string_equal(cores("8191"), "8191 | 1");
    assert_int_equal(linux_available_memory(folder), 0);
}

static void linux_groups_v2(void **state) {
    (void)state;
    put("MemAvailable: 8388608 kB\n", "/proc/meminfo");
    put("0::/user.slice/job\n", "/proc/self/cgroup");
    put("max 100000\n", "/sys/fs/cgroup/user.slice/job/cpu.max");
    put("max\n", "/sys/fs/cgroup/user.slice/job/memory.max");
    put("1048576\n", "/sys/fs/cgroup/user.slice/job/memory.current");
    assert_int_equal(usable("0-7"), 8);
    assert_int_equal(linux_available_memory(folder), 8 * GIB);
    put("350000 100000\n", "/sys/fs/cgroup/user.slice/cpu.max"); /* the parent's limit holds too */
    assert_int_equal(usable("0-7"), 3);
    assert_int_equal(usable("0-1"), 2);
    put("50000 100000\n", "/sys/fs/cgroup/user.slice/cpu.max");
    assert_int_equal(usable("0-7"), 1);
    put("4294967296\n", "/sys/fs/cgroup/user.slice/memory.max");
    put("3221225472\n", "/sys/fs/cgroup/user.slice/memory.current");
    assert_int_equal(linux_available_memory(folder), GIB);
    put("anon 1\nfile 9\ninactive_file 1073741824\nactive_file 536870912\n",
        "/sys/fs/cgroup/user.slice/memory.stat");
    assert_int_equal(linux_available_memory(folder), 5 * (GIB / 2)); /* cached pages can go */
    put("4294967297\n", "/sys/fs/cgroup/user.slice/memory.current");
    put("", "/sys/fs/cgroup/user.slice/memory.stat");
    assert_int_equal(linux_available_memory(folder), 1); /* nothing left, which is not "unknown" */
}

/* Those of our own group, whoever else is killed; where groups do not count, all of the
 * machine's. */
static void linux_memory_kills_of_a_group(void **state) {
    (void)state;
    assert_int_equal(linux_memory_kills(folder), -1);
    put("nr_free_pages 1\noom_kill 7\n", "/proc/vmstat");
    assert_int_equal(linux_memory_kills(folder), 7);
    put("0::/user.slice/job\n", "/proc/self/cgroup");
    assert_int_equal(linux_memory_kills(folder), 7);
    put("low 0\noom 4\noom_kill 3\noom_group_kill 0\n", "/sys/fs/cgroup/user.slice/memory.events");
    assert_int_equal(linux_memory_kills(folder), 3); /* the group has no memory controller of its own */
    put("oom 1\noom_kill 0\n", "/sys/fs/cgroup/user.slice/job/memory.events");
    assert_int_equal(linux_memory_kills(folder), 0);
    put("4:memory:/docker/0123\n0::/\n", "/proc/self/cgroup");
    put("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "/sys/fs/cgroup/memory/memory.oom_control");
    assert_int_equal(linux_memory_kills(folder), 2);
    put("oom_kill_disable 0\nunder_oom 0\n",
        "/sys/fs/cgroup/memory/memory.oom_control"); /* before Linux 4.13 */
    assert_int_equal(linux_memory_kills(folder), 7);
}

/* A container sees the host's path of its group, but its group is mounted as the top. */
static void linux_groups_v1(void **state) {
    (void)state;
    put("MemAvailable: 8388608 kB\n", "/proc/meminfo");
    put("5:cpu,cpuacct:/docker/0123\n4:memory:/docker/0123\n3:cpuset:/\n1:name=systemd:/\n0::/\n",
        "/proc/self/cgroup");
    put("-1\n", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    put("100000\n", "/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    put("9223372036854771712\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes");
    put("1048576\n", "/sys/fs/cgroup/memory/memory.usage_in_bytes");
    assert_int_equal(usable("0-3"), 4);
    assert_int_equal(linux_available_memory(folder), 8 * GIB);
    put("200000\n", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    put("2147483648\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes");
    put("1073741824\n", "/sys/fs/cgroup/memory/memory.usage_in_bytes");
    put("total_inactive_file 268435456\ntotal_active_file 268435456\n", "/sys/fs/cgroup/memory/memory.stat");
    assert_int_equal(usable("0-3"), 2);
    assert_int_equal(linux_available_memory(folder), 3 * (GIB / 2));
}

/* --- NVML --- */

static const char fake_nvml[] =
    "#include <string.h>\n"
    "int nvmlInit_v2(void) { return INIT; }\n"
    "int nvmlShutdown(void) { return 0; }\n"
    "int nvmlDeviceGetCount_v2(unsigned *n) { *n = 3; return 0; }\n"
    "int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { static int x[3]; *d = &x[i]; x[i] = i; return "
    "i == 1; }\n"
    "int nvmlDeviceGetName(void *d, char *s, unsigned n) { (void)n; strcpy(s, *(int *)d ? \"NVIDIA T4\" : "
    "\"NVIDIA H100\"); return 0; }\n"
    "int nvmlDeviceGetMemoryInfo(void *d, unsigned long long m[3]) { m[0] = 1ull << 34; m[1] = m[2] = 1; "
    "return *(int *)d ? 3 : 0; }\n"
    "int nvmlSystemGetDriverVersion(char *s, unsigned n) { (void)n; strcpy(s, \"550.54.15\"); return 0; }\n"
    "#include <unistd.h>\n"
    "int nvmlDeviceGetHandleByUUID(const char *s, void **d) { static int x = 7; *d = &x; return strcmp(s, "
    "\"GPU-7\"); }\n"
    "int nvmlDeviceGetCurrentClocksThrottleReasons(void *d, unsigned long long *b) { *b = REASONS; return "
    "*(int *)d == 2 ? 3 : 0; }\n"
    "int nvmlDeviceGetViolationStatus(void *d, int policy, unsigned long long v[2]) { v[0] = 1; v[1] = "
    "policy ? 2500000000 : 500000000; return *(int *)d == 2 ? 3 : 0; }\n"
    "struct process { unsigned pid; unsigned long long memory; unsigned a, b; };\n"
    "int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *n, struct process *p) {\n"
    "    if (*n < 3) return 7;\n"
    "    p[0].pid = 1; p[1].pid = *(int *)d == 7 ? 1 : getpid(); p[2].pid = 4000000; *n = 3; return 0; }\n";

/* Builds the stand-in for the driver's library; false (with the reason printed) where there is no
 * compiler.
 */
static bool build_fake(const char *defines, char *library, size_t size) {
    static int n;
    char command[2048];
    if (system("command -v cc >/dev/null 2>&1")) {
        print_message("no C compiler named cc here: NVML not tested\n");
        return false;
    }
    put(fake_nvml, "/nvml.c");
    snprintf(library, size, "%s/%d.so", folder, n++);
    snprintf(command, sizeof command, "cc -shared -fPIC -w %s -o '%s' '%s/nvml.c'", defines, library, folder);
    assert_int_equal(system(command), 0);
    return true;
}

static void nvml(void **state) {
    (void)state;
    gpu_facts gpus[SYS_MAX_GPUS];
    char library[1024];
    assert_int_equal(nvml_gpus("libmlxbench-no-such-library.so", gpus, SYS_MAX_GPUS), 0);
    if (!build_fake("-DINIT=0 -DREASONS=0", library, sizeof library)) skip();
    assert_int_equal(nvml_gpus(library, gpus, SYS_MAX_GPUS), 2); /* the second of three does not answer */
    assert_string_equal(gpus[0].name, "NVIDIA H100");
    assert_string_equal(gpus[0].driver, "550.54.15");
    assert_int_equal(gpus[0].memory_bytes, 16 * GIB);
    assert_string_equal(gpus[1].name, "NVIDIA T4");
    assert_int_equal(gpus[1].memory_bytes, 0); /* it has no memory to tell of */
    assert_int_equal(nvml_gpus(library, gpus, 1), 1);
    if (!build_fake("-DINIT=9 -DREASONS=0", library, sizeof library)) skip(); /* the driver is not loaded */
    assert_int_equal(nvml_gpus(library, gpus, SYS_MAX_GPUS), 0);
    if (!build_fake("-DINIT=0 -DREASONS=0 -DnvmlShutdown=other", library, sizeof library)) skip();
    assert_int_equal(nvml_gpus(library, gpus, SYS_MAX_GPUS), 0); /* a call is missing */
}

static sys_state gpu_state(const char *library, const char *visible) {
    sys_state s;
    facts_own_state(&s);
    nvml_gpu *n = nvml_open(library, visible);
    nvml_state(n, &s);
    nvml_close(n);
    return s;
}

/* The GPU that programs see first: what slows it, and who else is on it. */
static void nvml_sensors(void **state) {
    (void)state;
    char library[1024];
    assert_null(nvml_open("libmlxbench-no-such-library.so", NULL));
    if (!build_fake("-DINIT=0 -DREASONS=0x25", library, sizeof library)) skip();
    sys_state s = gpu_state(library, NULL);
    assert_true(s.gpu_hot_s == 2.5 && s.gpu_power_s == 0.5);
    assert_int_equal(s.gpu_slowed, SYS_GPU_HOT | SYS_GPU_POWER_LIMIT);
    assert_int_equal(s.gpu_others, 2);
    s = gpu_state(library, "2,0"); /* this one knows nothing of its clocks */
    assert_true(s.gpu_hot_s < 0 && s.gpu_power_s < 0 && s.gpu_slowed < 0);
    assert_int_equal(s.gpu_others, 2);
    s = gpu_state(library, "GPU-7,GPU-8"); /* in a container: our own number is not among them */
    assert_int_equal(s.gpu_others, -1);
    static const char *const none[] = {"1", "", "GPU-8", "-1"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) assert_null(nvml_open(library, none[i]));
    if (!build_fake("-DINIT=0 -DREASONS=0x80", library, sizeof library)) skip();
    assert_int_equal(gpu_state(library, NULL).gpu_slowed, SYS_GPU_POWER_BRAKE);
    if (!build_fake("-DINIT=0 -DREASONS=1 -DnvmlDeviceGetViolationStatus=other", library, sizeof library))
        skip();
    s = gpu_state(library, NULL);
    assert_true(s.gpu_hot_s < 0 && s.gpu_slowed == 0); /* idle is no reason */
    if (!build_fake("-DINIT=9 -DREASONS=0", library, sizeof library)) skip();
    assert_null(nvml_open(library, NULL));
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, new_folder, drop_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(linux_virtual_machine), IN_FOLDER(linux_hybrid),
        IN_FOLDER(linux_nodes),           IN_FOLDER(linux_arm),
        IN_FOLDER(linux_without_sys),     IN_FOLDER(linux_nothing_and_nonsense),
        IN_FOLDER(linux_groups_v2),       IN_FOLDER(linux_memory_kills_of_a_group),
        IN_FOLDER(linux_groups_v1),       IN_FOLDER(nvml),
        IN_FOLDER(nvml_sensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
#include <stdio.h>

int main(void) {
    puts("skipped: this is not Linux, whose files these tests are about");
    return 0;
}
#endif
