/* kernels/x86_features.h - which instructions an x86 processor has and the system saves the
 * registers of. Our own reading of CPUID and XGETBV: the compiler's (__builtin_cpu_supports) needs
 * a part of libgcc that not every toolchain has; without it, it finds nothing. */
#ifndef ENGINE_CPU_KERNELS_X86_FEATURES_H
#define ENGINE_CPU_KERNELS_X86_FEATURES_H

#include <stdbool.h>
#include <stdint.h>

/* Bits of a set, under the names of Intel's manual and of Linux's /proc/cpuinfo. */
typedef enum x86_feature {
    X86_AVX2 = 1 << 0,
    X86_FMA = 1 << 1,
    X86_F16C = 1 << 2,
    X86_AVX512F = 1 << 3,
    X86_AVX512DQ = 1 << 4,
    X86_AVX512BW = 1 << 5,
    X86_AVX512VL = 1 << 6,
    X86_AVX512VBMI = 1 << 7,
    X86_AVX512VNNI = 1 << 8,
    X86_AMX_TILE = 1 << 9,
    X86_AMX_INT8 = 1 << 10,
} x86_feature;

/* What the processor says: registers of CPUID's leaves 1 and 7 (0 where it has no such leaf), and
 * XCR0, the registers that the system saves (0 without XGETBV). */
typedef struct x86_answers {
    uint32_t leaf1_ecx, leaf7_ebx, leaf7_ecx, leaf7_edx;
    uint64_t xcr0;
} x86_answers;

/* The set of features in these answers. saves_late: the system enables AVX-512's registers,
 * whatever XCR0 says, when a thread first uses them, as macOS does. Source: Intel's Software
 * Developer's Manual, volume 1, chapters 13 to 15 and 18. */
unsigned x86_features_of(const x86_answers *answers, bool saves_late);

/* Whether this machine has all features of the set. */
bool x86_has(unsigned features);

#endif
