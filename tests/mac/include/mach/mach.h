/* mach/mach.h - the calls and types of macOS's header that macos.c uses, answered by fake_mac.c.
 * Structures have the fields that are read, between others that must be skipped; counts are in
 * words of four bytes, as there. */
#ifndef FAKE_MACH_MACH_H
#define FAKE_MACH_MACH_H

#include <stdint.h>

typedef unsigned mach_port_t, mach_msg_type_number_t, natural_t, task_flavor_t;
typedef int kern_return_t, integer_t, host_flavor_t;
typedef integer_t *host_info_t, *host_info64_t, *task_info_t;
typedef uintptr_t vm_size_t;

typedef struct vm_statistics64 {
    natural_t free_count, active_count, inactive_count, wire_count;
    uint64_t others[9];
    natural_t purgeable_count, speculative_count;
    uint64_t decompressions, compressions, swapins, swapouts;
    natural_t newer[4];
} vm_statistics64_data_t;

typedef struct host_cpu_load_info {
    natural_t cpu_ticks[4];
} host_cpu_load_info_data_t;

typedef struct task_vm_info {
    uint64_t virtual_size, others[20], phys_footprint;
    int64_t ledger_phys_footprint_peak;
    uint64_t newer[8];
} task_vm_info_data_t;

#define MACH_PORT_NULL           0
#define KERN_SUCCESS             0
#define HOST_VM_INFO64           4
#define HOST_VM_INFO64_COUNT     (sizeof(vm_statistics64_data_t) / sizeof(integer_t))
#define HOST_CPU_LOAD_INFO       3
#define HOST_CPU_LOAD_INFO_COUNT (sizeof(host_cpu_load_info_data_t) / sizeof(integer_t))
#define CPU_STATE_USER           0
#define CPU_STATE_SYSTEM         1
#define CPU_STATE_IDLE           2
#define CPU_STATE_NICE           3
#define TASK_VM_INFO             22
#define TASK_VM_INFO_COUNT       (sizeof(task_vm_info_data_t) / sizeof(integer_t))
#define TASK_VM_INFO_REV3_COUNT                                                                              \
    ((sizeof(task_vm_info_data_t) - sizeof((task_vm_info_data_t *)0)->newer) / sizeof(integer_t))

extern vm_size_t vm_kernel_page_size;
mach_port_t mach_host_self(void);
mach_port_t mach_task_self(void);
kern_return_t mach_port_deallocate(mach_port_t task, mach_port_t port);
kern_return_t host_statistics(mach_port_t host, host_flavor_t flavor, host_info_t info,
                              mach_msg_type_number_t *count);
kern_return_t host_statistics64(mach_port_t host, host_flavor_t flavor, host_info64_t info,
                                mach_msg_type_number_t *count);
kern_return_t task_info(mach_port_t task, task_flavor_t flavor, task_info_t info,
                        mach_msg_type_number_t *count);

#endif
