/* kernels/x86_features.c - CPUID and XGETBV.
 * A feature counts only if the system saves its registers, too: else they change under a
 * program. */
#include "engine/cpu/kernels/x86_features.h"

#include <cpuid.h>
#include <stddef.h>

enum { OSXSAVE = 1 << 27 }; /* of leaf 1's ECX: there is XGETBV */

/* Bits of XCR0: SSE and AVX; AVX-512's masks, upper halves and upper registers; tiles. */
enum { AVX_STATE = 0x6, AVX512_STATE = 0xe0, TILE_STATE = 0x60000 };

unsigned x86_features_of(const x86_answers *a, bool saves_late) {
    const struct {
        unsigned feature;
        uint32_t answer;
        int bit;
        uint64_t state;
    } known[] = {
        {X86_FMA, a->leaf1_ecx, 12, AVX_STATE},
        {X86_F16C, a->leaf1_ecx, 29, AVX_STATE},
        {X86_AVX2, a->leaf7_ebx, 5, AVX_STATE},
        {X86_AVX512F, a->leaf7_ebx, 16, AVX_STATE | AVX512_STATE},
        {X86_AVX512DQ, a->leaf7_ebx, 17, AVX_STATE | AVX512_STATE},
        {X86_AVX512BW, a->leaf7_ebx, 30, AVX_STATE | AVX512_STATE},
        {X86_AVX512VL, a->leaf7_ebx, 31, AVX_STATE | AVX512_STATE},
        {X86_AVX512VBMI, a->leaf7_ecx, 1, AVX_STATE | AVX512_STATE},
        {X86_AVX512VNNI, a->leaf7_ecx, 11, AVX_STATE | AVX512_STATE},
        {X86_AMX_TILE, a->leaf7_edx, 24, TILE_STATE},
        {X86_AMX_INT8, a->leaf7_edx, 25, TILE_STATE},
    };
    if (!(a->leaf1_ecx & OSXSAVE)) return 0;
    uint64_t saved = a->xcr0 | (saves_late ? AVX512_STATE : 0);
    unsigned features = 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].answer >> known[i].bit & 1 && (saved & known[i].state) == known[i].state)
            features |= known[i].feature;
    return features;
}

bool x86_has(unsigned features) {
#ifdef __APPLE__
    const bool saves_late = true;
#else
    const bool saves_late = false;
#endif
    x86_answers a = {0};
    uint32_t eax, ebx, ecx, edx;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx)) a.leaf1_ecx = ecx;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        a.leaf7_ebx = ebx, a.leaf7_ecx = ecx, a.leaf7_edx = edx;
    if (a.leaf1_ecx & OSXSAVE) {
        __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
        a.xcr0 = (uint64_t)edx << 32 | eax;
    }
    return (x86_features_of(&a, saves_late) & features) == features;
}
