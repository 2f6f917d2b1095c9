/* macos.c - fetches a Mac's raw values through sysctlbyname, Mach, IOKit and what else has them.
 * Nothing is concluded here: see apple.c. tests/mac runs this very file on Linux, against recorded
 * Macs. */
#include "sys/facts.h"

#include <dlfcn.h>
#include <mach/mach.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysctl.h>

/* ---- IOKit ---- */

/* IOKit and CoreFoundation are opened when they are asked for the first time, so the program links
 * to neither and starts without them. Their calls, as Apple's documentation declares them; types
 * are opaque. */
#define FRAMEWORK(name) "/System/Library/Frameworks/" name ".framework/" name
enum { CF_NUMBER_SINT64 = 4, CF_STRING_UTF8 = 0x08000100, IO_RECURSIVELY = 1, IO_PARENTS = 2 };

typedef struct registry {
    void (*release)(const void *object);
    unsigned long (*type_of)(const void *object);
    unsigned long (*number_type)(void);
    unsigned char (*number_value)(const void *number, long type, void *value);
    const void *(*new_string)(const void *allocator, const char *text, uint32_t encoding);
    void *(*matching)(const char *class_name);
    mach_port_t (*first_service)(mach_port_t port, const void *matching); /* releases `matching` */
    const void *(*property)(mach_port_t entry, const char *plane, const void *key, const void *allocator,
                            uint32_t options);
    kern_return_t (*release_entry)(mach_port_t entry);
} registry;

/* The library's symbol, into a pointer to a function. */
static bool find(void *library, const char *symbol, void *function) {
    void *address = library ? dlsym(library, symbol) : NULL;
    memcpy(function, &address, sizeof address);
    return address != NULL;
}

/* False where there is no such framework, or one that lacks a call. They stay open. */
static bool open_registry(registry *r) {
    void *cf = dlopen(FRAMEWORK("CoreFoundation"), RTLD_LAZY), *io = dlopen(FRAMEWORK("IOKit"), RTLD_LAZY);
    return find(cf, "CFRelease", &r->release) && find(cf, "CFGetTypeID", &r->type_of) &&
           find(cf, "CFNumberGetTypeID", &r->number_type) && find(cf, "CFNumberGetValue", &r->number_value) &&
           find(cf, "CFStringCreateWithCString", &r->new_string) &&
           find(io, "IOServiceMatching", &r->matching) &&
           find(io, "IOServiceGetMatchingService", &r->first_service) &&
           find(io, "IORegistryEntrySearchCFProperty", &r->property) &&
           find(io, "IOObjectRelease", &r->release_entry);
}

/* A number of the first AGXAccelerator (Apple's GPU driver) or its parents in the registry. */
static bool gpu_number(const char *key, int64_t *value) {
    registry r;
    if (!open_registry(&r)) return false;
    void *matching = r.matching("AGXAccelerator");
    mach_port_t gpu = matching ? r.first_service(MACH_PORT_NULL, matching) : MACH_PORT_NULL;
    if (!gpu) return false;
    const void *name = r.new_string(NULL, key, CF_STRING_UTF8);
    const void *property =
        name ? r.property(gpu, "IOService", name, NULL, IO_RECURSIVELY | IO_PARENTS) : NULL;
    bool found = property && r.type_of(property) == r.number_type() &&
                 r.number_value(property, CF_NUMBER_SINT64, value);
    if (property) r.release(property);
    if (name) r.release(name);
    r.release_entry(gpu);
    return found;
}

/* ---- notify, NSProcessInfo and IOKit's power sources ---- */

/* The system posts its thermal pressure as the state of a notification; notify(3) is part of what
 * every program links to. */
static bool thermal_pressure(int64_t *value) {
    uint32_t (*check)(const char *name, int *token);
    uint32_t (*state)(int token, uint64_t *out);
    uint32_t (*cancel)(int token);
    int token;
    uint64_t level = 0;
    if (!find(RTLD_DEFAULT, "notify_register_check", &check) ||
        !find(RTLD_DEFAULT, "notify_get_state", &state) || !find(RTLD_DEFAULT, "notify_cancel", &cancel) ||
        check("com.apple.system.thermalpressurelevel", &token))
        return false;
    bool found = !state(token, &level) && level <= INT64_MAX;
    cancel(token);
    *value = (int64_t)level;
    return found;
}

/* [[NSProcessInfo processInfo] isLowPowerModeEnabled], which macOS 12 and later have. */
static bool low_power_mode(int64_t *value) {
    void *library = dlopen(FRAMEWORK("Foundation"), RTLD_LAZY);
    void *(*class_named)(const char *name);
    void *(*selector)(const char *name);
    bool (*responds)(void *class, void *selector);
    void *(*send)(void *to, void *selector);
    bool (*ask)(void *to, void *selector);
    if (!library || !find(RTLD_DEFAULT, "objc_getClass", &class_named) ||
        !find(RTLD_DEFAULT, "sel_registerName", &selector) ||
        !find(RTLD_DEFAULT, "class_respondsToSelector", &responds) ||
        !find(RTLD_DEFAULT, "objc_msgSend", &send) || !find(RTLD_DEFAULT, "objc_msgSend", &ask))
        return false;
    void *class = class_named("NSProcessInfo");
    if (!class || !responds(class, selector("isLowPowerModeEnabled"))) return false;
    void *process = send(class, selector("processInfo")); /* of the program: never released */
    *value = process && ask(process, selector("isLowPowerModeEnabled"));
    return process != NULL;
}

/* IOPSKeys.h: what provides the power is "AC Power", "Battery Power" or "UPS Power". */
static bool battery_power(int64_t *value) {
    registry r;
    void *io = dlopen(FRAMEWORK("IOKit"), RTLD_LAZY), *cf = dlopen(FRAMEWORK("CoreFoundation"), RTLD_LAZY);
    const void *(*sources)(void);
    const void *(*providing)(const void *sources); /* belongs to the system */
    unsigned char (*equal)(const void *a, const void *b);
    if (!open_registry(&r) || !find(io, "IOPSCopyPowerSourcesInfo", &sources) ||
        !find(io, "IOPSGetProvidingPowerSourceType", &providing) || !find(cf, "CFEqual", &equal))
        return false;
    const void *all = sources(), *battery = r.new_string(NULL, "Battery Power", CF_STRING_UTF8),
               *type = all ? providing(all) : NULL;
    bool found = type && battery;
    *value = found && equal(type, battery);
    if (battery) r.release(battery);
    if (all) r.release(all);
    return found;
}

/* ---- sysctl ---- */

static bool get_number(void *context, const char *key, int64_t *value) {
    (void)context;
    if (!strcmp(key, "gpu-core-count")) return gpu_number(key, value);
    if (!strcmp(key, "thermal-pressure")) return thermal_pressure(value);
    if (!strcmp(key, "low-power-mode")) return low_power_mode(value);
    if (!strcmp(key, "battery-power")) return battery_power(value);
    union {
        int32_t four;
        int64_t eight;
    } raw = {.eight = 0};
    size_t size = sizeof raw;
    if (sysctlbyname(key, &raw, &size, NULL, 0)) return false;
    *value = size == sizeof raw.four ? raw.four : raw.eight;
    return size == sizeof raw.four || size == sizeof raw.eight;
}

/* A number's bytes are no text: they hold a zero before their end, or none. */
static bool get_text(void *context, const char *key, char *value, size_t size) {
    (void)context;
    size_t n = size - 1;
    if (sysctlbyname(key, value, &n, NULL, 0) || n >= size) return false;
    value[n] = '\0';
    size_t length = strlen(value);
    return length > 0 && (length + 1 == n || n > sizeof(int64_t));
}

static const apple_source this_mac = {.number = get_number, .text = get_text};

void sys_hardware(hardware *h) {
    apple_hardware(h, &this_mac);
    facts_from_uname(h);
}

int sys_usable_cores(void) {
    int64_t n;
    return get_number(NULL, "hw.physicalcpu", &n) && n > 0 && n <= SYS_MAX_CORES ? (int)n : 1;
}

void sys_cores(core_list *cores) {
    apple_cores(cores, &this_mac);
}

/* ---- memory ---- */

/* The larger of two: resident memory counts a mapped checkpoint's pages, the footprint what Metal
 * has. */
int64_t sys_peak_rss(void) {
    struct rusage usage;
    int64_t resident = getrusage(RUSAGE_SELF, &usage) ? 0 : (int64_t)usage.ru_maxrss; /* in bytes here */
    task_vm_info_data_t vm;
    mach_msg_type_number_t n = TASK_VM_INFO_COUNT;
    bool known = task_info(mach_task_self(), TASK_VM_INFO, (task_info_t)&vm, &n) == KERN_SUCCESS &&
                 n >= TASK_VM_INFO_REV3_COUNT; /* the first with this figure */
    int64_t footprint = known ? (int64_t)vm.ledger_phys_footprint_peak : 0;
    return footprint > resident ? footprint : resident;
}

int64_t sys_memory_kills(void) {
    return -1;
}

static bool read_memory(vm_statistics64_data_t *vm) {
    mach_msg_type_number_t n = HOST_VM_INFO64_COUNT;
    mach_port_t host = mach_host_self();
    kern_return_t status = host_statistics64(host, HOST_VM_INFO64, (host_info64_t)vm, &n);
    mach_port_deallocate(mach_task_self(), host);
    return status == KERN_SUCCESS;
}

int64_t sys_available_memory(void) {
    vm_statistics64_data_t vm;
    if (!read_memory(&vm)) return 0;
    /* Inactive pages are given up before anything is compressed or swapped. */
    return ((int64_t)vm.free_count + vm.inactive_count) * (int64_t)vm_kernel_page_size;
}

/* ---- what may disturb a measurement ---- */

/* CPU time of all programs; a tick is a hundredth of a second. */
static void read_load(sys_state *s) {
    host_cpu_load_info_data_t load;
    mach_msg_type_number_t n = HOST_CPU_LOAD_INFO_COUNT;
    mach_port_t host = mach_host_self();
    kern_return_t status = host_statistics(host, HOST_CPU_LOAD_INFO, (host_info_t)&load, &n);
    int64_t cpus;
    mach_port_deallocate(mach_task_self(), host);
    if (status != KERN_SUCCESS || !get_number(NULL, "hw.logicalcpu", &cpus)) return;
    s->n_cpus = (int)cpus;
    s->busy_s = ((double)load.cpu_ticks[CPU_STATE_USER] + load.cpu_ticks[CPU_STATE_SYSTEM] +
                 load.cpu_ticks[CPU_STATE_NICE]) /
                100;
}

/* Pages that were swapped, of all programs; what is only compressed is not among them. */
static void read_swap(sys_state *s) {
    vm_statistics64_data_t vm;
    if (read_memory(&vm)) s->swapped = (int64_t)(vm.swapins + vm.swapouts);
}

void sys_watch(sys_state *s, bool gpu) {
    (void)gpu; /* it shares heat, power and memory with the CPU */
    facts_own_state(s);
    read_load(s);
    read_swap(s);
    apple_state(s, &this_mac);
}
