/* fake_mac.c - the calls of macos.c, answered from the machine `fake`.
 * Objects are allocated and counted one by one, so that the sanitizers see a use after release, and
 * tests a leak. */
#include "fake_mac.h"

#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <mach/mach.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysctl.h>

fake_mac fake;

bool fake_load(const char *path) {
    fake = (fake_mac){0};
    FILE *file = fopen(path, "r");
    char line[512];
    bool good = file != NULL;
    while (good && fgets(line, sizeof line, file)) {
        if (*line == '#' || *line == '\n' || !strncmp(line, "expect ", 7)) continue;
        fake_entry *e = &fake.entries[fake.n];
        good = fake.n < FAKE_MOST && sscanf(line, "%63s %7s %127[^\n]", e->key, e->type, e->value) == 3;
        fake.n += good;
    }
    if (file) fclose(file);
    return good;
}

fake_entry *fake_find(const char *key) {
    for (int i = 0; i < fake.n; i++)
        if (!strcmp(fake.entries[i].key, key)) return &fake.entries[i];
    return NULL;
}

/* Ends the test: macOS would not take this call. */
static void require(bool right, const char *what) {
    if (right) return;
    fprintf(stderr, "fake Mac: %s\n", what);
    abort();
}

static int64_t number_of(const char *key) {
    const fake_entry *e = fake_find(key);
    return e ? strtoll(e->value, NULL, 10) : 0;
}

/* ---- sysctl: copies what there is, or says that it does not fit ---- */

int sysctlbyname(const char *name, void *old, size_t *old_size, void *new_value, size_t new_size) {
    require(old && old_size && !new_value && !new_size, "sysctlbyname is given a new value");
    const fake_entry *e = fake_find(name);
    errno = ENOENT;
    if (!e) return -1;
    int64_t wide = strtoll(e->value, NULL, 10);
    int32_t narrow = (int32_t)wide;
    const void *from = e->value;
    size_t n = strlen(e->value) + 1;
    if (!strcmp(e->type, "int32")) from = &narrow, n = sizeof narrow;
    if (!strcmp(e->type, "int64")) from = &wide, n = sizeof wide;
    if (!strcmp(e->type, "empty")) n = 0;
    errno = ENOMEM;
    if (n > *old_size) return -1;
    memcpy(old, from, n);
    *old_size = n;
    return 0;
}

/* ---- CoreFoundation: objects with a kind and a content ---- */

enum { STRING = 7, DICTIONARY = 18, NUMBER = 22 };

typedef struct object {
    unsigned long kind;
    char text[128];
    int64_t number;
} object;

static object *new_object(unsigned long kind, const char *text) {
    object *o = calloc(1, sizeof *o);
    require(o, "no memory");
    o->kind = kind;
    snprintf(o->text, sizeof o->text, "%s", text);
    fake.objects++;
    return o;
}

static void release(const void *o) {
    require(o, "CFRelease(NULL)");
    fake.objects--;
    free((void *)o);
}

static unsigned long type_of(const void *o) {
    require(o, "CFGetTypeID(NULL)");
    return ((const object *)o)->kind;
}

static unsigned long number_type(void) {
    return NUMBER;
}

static unsigned char number_value(const void *o, long type, void *value) {
    require(type_of(o) == NUMBER && type == 4, "CFNumberGetValue of no number, or into no SInt64");
    memcpy(value, &((const object *)o)->number, sizeof(int64_t));
    return 1;
}

static const void *new_string(const void *allocator, const char *text, uint32_t encoding) {
    require(!allocator && encoding == 0x08000100, "CFStringCreateWithCString: allocator or encoding");
    return fake.no_strings ? NULL : new_object(STRING, text);
}

/* ---- IOKit: one service ---- */

enum { GPU_PORT = 77, HOST_PORT = 11, TASK_PORT = 12 };

static void *matching(const char *class_name) {
    return new_object(DICTIONARY, class_name);
}

/* It releases what it is given, as documented. */
static mach_port_t first_service(mach_port_t port, const void *dictionary) {
    require(!port && type_of(dictionary) == DICTIONARY, "IOServiceGetMatchingService");
    bool found = fake_find(((const object *)dictionary)->text);
    release(dictionary);
    fake.ports += found;
    return found ? GPU_PORT : MACH_PORT_NULL;
}

static const void *property(mach_port_t entry, const char *plane, const void *key, const void *allocator,
                            uint32_t options) {
    require(entry == GPU_PORT && !strcmp(plane, "IOService") && type_of(key) == STRING && !allocator &&
                options == 3,
            "IORegistryEntrySearchCFProperty");
    const char *name = ((const object *)key)->text;
    const fake_entry *e = fake_find(name);
    if (!e) return NULL;
    object *o = new_object(strcmp(e->type, "text") ? NUMBER : STRING, e->value);
    o->number = number_of(name);
    return o;
}

static kern_return_t release_entry(mach_port_t entry) {
    require(entry == GPU_PORT && fake.ports > 0, "IOObjectRelease of what is no object");
    fake.ports--;
    return KERN_SUCCESS;
}

/* ---- IOKit's power sources ---- */

static const void *power_sources(void) {
    return fake.no_strings ? NULL : new_object(DICTIONARY, "power");
}

/* Not released by who asks. */
static const void *providing(const void *sources) {
    static object type = {.kind = STRING};
    require(type_of(sources) == DICTIONARY, "IOPSGetProvidingPowerSourceType");
    const fake_entry *e = fake_find("power.providing");
    if (e) snprintf(type.text, sizeof type.text, "%s", e->value);
    return e ? &type : NULL;
}

static unsigned char equal(const void *a, const void *b) {
    require(a && b, "CFEqual(NULL)");
    return !strcmp(((const object *)a)->text, ((const object *)b)->text);
}

/* ---- notify: the state of one name ---- */

enum { TOKEN = 5 };

static uint32_t register_check(const char *name, int *token) {
    require(!strcmp(name, "com.apple.system.thermalpressurelevel"), "notify_register_check");
    if (!fake_find("notify.thermal")) return 1;
    fake.ports++;
    *token = TOKEN;
    return 0;
}

static uint32_t get_state(int token, uint64_t *state) {
    require(token == TOKEN, "notify_get_state");
    *state = (uint64_t)number_of("notify.thermal");
    return 0;
}

static uint32_t cancel(int token) {
    require(token == TOKEN && fake.ports > 0, "notify_cancel");
    fake.ports--;
    return 0;
}

/* ---- Objective-C: NSProcessInfo's two methods ---- */

static char process_class[] = "NSProcessInfo", process_info[] = "an NSProcessInfo";

static void *get_class(const char *name) {
    require(fake.foundation, "Foundation is not open");
    return strcmp(name, process_class) ? NULL : process_class;
}

static void *register_name(const char *name) {
    return (void *)name;
}

static bool responds(void *class, void *selector) {
    require(class == process_class, "class_respondsToSelector");
    return !strcmp(selector, "isLowPowerModeEnabled") && fake_find("power.low");
}

static void *send(void *to, void *selector) {
    if (to == process_class && !strcmp(selector, "processInfo")) return process_info;
    require(to == process_info && !strcmp(selector, "isLowPowerModeEnabled"), "objc_msgSend");
    return (void *)(uintptr_t)(number_of("power.low") & 1);
}

/* ---- frameworks ---- */

void *fake_dlopen(const char *path, int mode) {
    require(mode == RTLD_LAZY && !strncmp(path, "/System/Library/Frameworks/", 27), "dlopen");
    if (fake.missing_framework && strstr(path, fake.missing_framework)) return NULL;
    if (strstr(path, "Foundation.framework/Foundation")) {
        fake.foundation = !strstr(path, "Core");
        if (fake.foundation) return (void *)"NS";
    }
    return (void *)(strstr(path, "IOKit") ? "IO" : "CF");
}

void *fake_dlsym(void *library, const char *symbol) {
    static const struct {
        const char *name;
        void (*function)(void);
    } symbols[] = {
        {"CFRelease", (void (*)(void))release},
        {"CFGetTypeID", (void (*)(void))type_of},
        {"CFNumberGetTypeID", (void (*)(void))number_type},
        {"CFNumberGetValue", (void (*)(void))number_value},
        {"CFStringCreateWithCString", (void (*)(void))new_string},
        {"IOServiceMatching", (void (*)(void))matching},
        {"IOServiceGetMatchingService", (void (*)(void))first_service},
        {"IORegistryEntrySearchCFProperty", (void (*)(void))property},
        {"IOObjectRelease", (void (*)(void))release_entry},
        {"IOPSCopyPowerSourcesInfo", (void (*)(void))power_sources},
        {"IOPSGetProvidingPowerSourceType", (void (*)(void))providing},
        {"CFEqual", (void (*)(void))equal},
        {"notify_register_check", (void (*)(void))register_check},
        {"notify_get_state", (void (*)(void))get_state},
        {"notify_cancel", (void (*)(void))cancel},
        {"objc_getClass", (void (*)(void))get_class},
        {"sel_registerName", (void (*)(void))register_name},
        {"class_respondsToSelector", (void (*)(void))responds},
        {"objc_msgSend", (void (*)(void))send},
    };
    if (fake.missing_symbol && !strcmp(symbol, fake.missing_symbol)) return NULL;
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *address;
        memcpy(&address, &symbols[i].function, sizeof address);
        bool of_all = islower((unsigned char)*symbol); /* C's and Objective-C's, not a framework's */
        if (strcmp(symbols[i].name, symbol)) continue;
        if (of_all ? library == RTLD_DEFAULT : library != RTLD_DEFAULT && !strncmp(symbol, library, 2))
            return address;
    }
    return NULL; /* of another framework */
}

/* ---- Mach ---- */

vm_size_t vm_kernel_page_size = 16384;

mach_port_t mach_host_self(void) {
    fake.ports++;
    return HOST_PORT;
}

mach_port_t mach_task_self(void) {
    return TASK_PORT;
}

kern_return_t mach_port_deallocate(mach_port_t task, mach_port_t port) {
    require(task == TASK_PORT && port == HOST_PORT, "mach_port_deallocate");
    fake.ports--;
    return KERN_SUCCESS;
}

kern_return_t host_statistics(mach_port_t host, host_flavor_t flavor, host_info_t info,
                              mach_msg_type_number_t *count) {
    require(host == HOST_PORT && flavor == HOST_CPU_LOAD_INFO && *count >= HOST_CPU_LOAD_INFO_COUNT,
            "host_statistics");
    if (fake.mach_fails) return 5;
    host_cpu_load_info_data_t load = {{0}};
    load.cpu_ticks[CPU_STATE_USER] = (natural_t)number_of("mach.user_ticks");
    load.cpu_ticks[CPU_STATE_SYSTEM] = (natural_t)number_of("mach.system_ticks");
    load.cpu_ticks[CPU_STATE_IDLE] = 123456;
    memcpy(info, &load, sizeof load);
    return KERN_SUCCESS;
}

kern_return_t host_statistics64(mach_port_t host, host_flavor_t flavor, host_info64_t info,
                                mach_msg_type_number_t *count) {
    require(host == HOST_PORT && flavor == HOST_VM_INFO64 && *count >= HOST_VM_INFO64_COUNT,
            "host_statistics64");
    if (fake.mach_fails) return 5;
    vm_statistics64_data_t vm = {.free_count = (natural_t)number_of("mach.free_count"),
                                 .inactive_count = (natural_t)number_of("mach.inactive_count"),
                                 .swapins = (uint64_t)number_of("mach.swapins"),
                                 .swapouts = (uint64_t)number_of("mach.swapouts")};
    memcpy(info, &vm, sizeof vm);
    return KERN_SUCCESS;
}

kern_return_t task_info(mach_port_t task, task_flavor_t flavor, task_info_t info,
                        mach_msg_type_number_t *count) {
    require(task == TASK_PORT && flavor == TASK_VM_INFO && *count <= TASK_VM_INFO_COUNT, "task_info");
    if (fake.mach_fails) return 5;
    task_vm_info_data_t vm = {.ledger_phys_footprint_peak = number_of("mach.footprint_peak")};
    /* a system that is older than the figure fills less */
    *count = fake_find("mach.footprint_peak") ? TASK_VM_INFO_REV3_COUNT : 4;
    memcpy(info, &vm, *count * sizeof(integer_t));
    return KERN_SUCCESS;
}
