/* test_x86_features.c - what CPUID and XGETBV say, by recorded answers and against what Linux found
 * here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifdef __x86_64__
#include "engine/cpu/kernels/x86_features.h"

enum {
    AVX2_ALL = X86_AVX2 | X86_FMA | X86_F16C,
    AVX512_ALL = X86_AVX512F | X86_AVX512DQ | X86_AVX512BW | X86_AVX512VL,
};

/* What a Haswell, an Ice Lake and a Sapphire Rapids answer, put together from the bits in Intel's
 * manual. */
static const x86_answers haswell = {0x7fdafbbf, 0x000027ab, 0, 0, 0x7},
                         ice_lake = {0x7ffafbbf, 0xf2bf27eb, 0x40405f4e, 0xbc000410, 0xe7},
                         sapphire_rapids = {0x7ffefbff, 0xf3bfbfeb, 0xfb417ffe, 0xffdd4432, 0x602e7};

static void recorded(void **state) {
    (void)state;
    assert_int_equal(x86_features_of(&haswell, false), AVX2_ALL);
    unsigned vnni = AVX2_ALL | AVX512_ALL | X86_AVX512VBMI | X86_AVX512VNNI;
    assert_int_equal(x86_features_of(&ice_lake, false), vnni);
    assert_int_equal(x86_features_of(&sapphire_rapids, false), vnni | X86_AMX_TILE | X86_AMX_INT8);
}

/* The processor can, but the system does not save the registers. */
static void unsaved(void **state) {
    (void)state;
    x86_answers a = sapphire_rapids;
    a.xcr0 = 0xe7; /* a Linux without tiles */
    assert_int_equal(x86_features_of(&a, false), x86_features_of(&ice_lake, false));
    a.xcr0 = 0x7; /* no AVX-512 until it is used: macOS; never: others */
    assert_int_equal(x86_features_of(&a, false), AVX2_ALL);
    assert_int_equal(x86_features_of(&a, true), x86_features_of(&ice_lake, false));
    a.xcr0 = 0x3; /* no AVX */
    assert_int_equal(x86_features_of(&a, false), 0);
    assert_int_equal(x86_features_of(&a, true), 0);
    a = haswell;
    a.leaf1_ecx &= ~(UINT32_C(1) << 27); /* nothing is said of what is saved */
    assert_int_equal(x86_features_of(&a, false), 0);
    assert_int_equal(x86_features_of(&(x86_answers){0}, true), 0);
}

/* Linux lists a flag only if it saves the registers. */
static void this_machine(void **state) {
    (void)state;
    static const struct {
        const char *flag;
        unsigned feature;
    } flags[] = {
        {" avx2 ", X86_AVX2},
        {" fma ", X86_FMA},
        {" f16c ", X86_F16C},
        {" avx512f ", X86_AVX512F},
        {" avx512dq ", X86_AVX512DQ},
        {" avx512bw ", X86_AVX512BW},
        {" avx512vl ", X86_AVX512VL},
        {" avx512vbmi ", X86_AVX512VBMI},
        {" avx512_vnni ", X86_AVX512VNNI},
        {" amx_tile ", X86_AMX_TILE},
        {" amx_int8 ", X86_AMX_INT8},
    };
    static char line[16384];
    bool found = false;
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && !found && fgets(line, sizeof line, file)) found = !strncmp(line, "flags", 5);
    if (file) fclose(file);
    if (!found) skip();
    line[strcspn(line, "\n")] = ' ';
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (x86_has(flags[i].feature) != (strstr(line, flags[i].flag) != NULL))
            fail_msg("%s: CPUID and /proc/cpuinfo differ", flags[i].flag);
    assert_true(x86_has(0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded),
        cmocka_unit_test(unsaved),
        cmocka_unit_test(this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void) {
    puts("not run: this is no x86 processor");
    return 0;
}
#endif
