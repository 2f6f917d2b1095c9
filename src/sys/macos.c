/* macos.c - fetches a Mac's raw values through sysctlbyname, IOKit and Mach.
 * Nothing is concluded here: see apple.c. */
#include "sys/facts.h"

#include <CoreFoundation/CoreFoundation.h>
#include <IOKit/IOKitLib.h>
#include <mach/mach.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysctl.h>
#include <sys/types.h>

/* A number of the first AGXAccelerator (Apple's GPU driver) or its parents in the registry. */
static bool gpu_number(const char *key, int64_t *value) {
    io_service_t gpu = IOServiceGetMatchingService(MACH_PORT_NULL, IOServiceMatching("AGXAccelerator"));
    if (!gpu) return false;
    CFStringRef name = CFStringCreateWithCString(kCFAllocatorDefault, key, kCFStringEncodingUTF8);
    CFTypeRef property =
        name ? IORegistryEntrySearchCFProperty(gpu, kIOServicePlane, name, kCFAllocatorDefault,
                                               kIORegistryIterateRecursively | kIORegistryIterateParents)
             : NULL;
    bool found = property && CFGetTypeID(property) == CFNumberGetTypeID() &&
                 CFNumberGetValue((CFNumberRef)property, kCFNumberSInt64Type, value);
    if (property) CFRelease(property);
    if (name) CFRelease(name);
    IOObjectRelease(gpu);
    return found;
}

static bool get_number(void *context, const char *key, int64_t *value) {
    (void)context;
    if (!strcmp(key, "gpu-core-count")) return gpu_number(key, value);
    union {
        int32_t four;
        int64_t eight;
    } raw = {.eight = 0};
    size_t size = sizeof raw;
    if (sysctlbyname(key, &raw, &size, NULL, 0)) return false;
    *value = size == sizeof raw.four ? raw.four : raw.eight;
    return size == sizeof raw.four || size == sizeof raw.eight;
}

static bool get_text(void *context, const char *key, char *value, size_t size) {
    (void)context;
    size_t n = size - 1;
    if (sysctlbyname(key, value, &n, NULL, 0)) return false;
    value[n] = '\0';
    return true;
}

void sys_hardware(hardware *h) {
    apple_hardware(h, &(apple_source){.number = get_number, .text = get_text});
    facts_from_uname(h);
}

int64_t sys_peak_rss(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : (int64_t)usage.ru_maxrss; /* bytes on macOS */
}

int64_t sys_available_memory(void) {
    vm_statistics64_data_t vm;
    mach_msg_type_number_t n = HOST_VM_INFO64_COUNT;
    mach_port_t host = mach_host_self();
    kern_return_t status = host_statistics64(host, HOST_VM_INFO64, (host_info64_t)&vm, &n);
    mach_port_deallocate(mach_task_self(), host);
    if (status != KERN_SUCCESS) return 0;
    /* Inactive pages are given up before anything is compressed or swapped. */
    return ((int64_t)vm.free_count + vm.inactive_count) * (int64_t)vm_kernel_page_size;
}

int sys_usable_cores(void) {
    int64_t n;
    return get_number(NULL, "hw.physicalcpu", &n) && n > 0 ? (int)n : 1;
}

void sys_cores(core_list *cores) {
    apple_cores(cores, &(apple_source){.number = get_number, .text = get_text});
}
