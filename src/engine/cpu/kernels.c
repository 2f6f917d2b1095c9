/* kernels.c - the kernel tables of this build, and the choice among them.
 * A new instruction set is one file with its table, and one line here. */
#include "engine/cpu/kernels.h"

#include <stdio.h>
#include <stdlib.h>

static const kernels *const tables[] = {
/* the best first */
#if defined(__x86_64__)
    &kernels_avx2,
#endif
    &kernels_scalar,
};

enum { N_TABLES = sizeof tables / sizeof tables[0] };

const kernels *kernels_choose(void) {
    const char *wanted = getenv("MLXBENCH_CPU");
    if (!wanted || !*wanted) {
        int best = 0;
        while (!tables[best]->supported()) best++; /* ends: scalar always is */
        return tables[best];
    }
    char known[64] = "";
    for (int i = 0; i < N_TABLES; i++) {
        if (!strcmp(tables[i]->name, wanted)) {
            if (tables[i]->supported()) return tables[i];
            fail_usage("MLXBENCH_CPU=%s: this processor cannot run these instructions", wanted);
            return NULL;
        }
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", tables[i]->name);
    }
    fail_usage("MLXBENCH_CPU=%s is not known; this build has %s", wanted, known);
    return NULL;
}
