/* kernels.c - the kernel tables of this build, and the choice among them.
 * A new instruction set is one file with its table, and one line here. */
#include "engine/cpu/kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>

static const kernels *const tables[] = {
/* the best first */
#if defined(__x86_64__)
    &kernels_avx512amx, &kernels_avx512vnni, &kernels_avx512, &kernels_avx2,
#elif defined(__aarch64__)
    &kernels_neon_i8mm,
    &kernels_neon_dotprod,
    &kernels_neon,
#endif
    &kernels_scalar,
};

enum { N_TABLES = sizeof tables / sizeof tables[0] };

static void complete_matrix(matrix_kernels *all, const matrix_kernels *b) {
    if (!all->matvec) all->matvec = b->matvec;
    if (!all->unpack) all->unpack = b->unpack;
    if (!all->f32) all->f32 = b->f32;
    if (!all->bf16) all->bf16 = b->bf16;
    if (!all->int16 && !all->f32)
        all->int16 = b->int16; /* wider floats are faster than the base's integers */
    if (!all->int8) all->int8 = b->int8;
}

kernels kernels_complete(const kernels *t) {
    kernels all = *t;
#define TAKE(member)                                                                                         \
    if (!all.member) all.member = b->member
    for (const kernels *b = t->base; b; b = b->base) {
        TAKE(group_sums);
        TAKE(matmul);
        TAKE(mix);
        TAKE(to_f32);
        TAKE(from_f32);
        TAKE(rms_norm);
        TAKE(layer_norm);
        TAKE(gated);
        TAKE(max);
        TAKE(exp_sum);
        TAKE(scan);
        TAKE(convolve);
        TAKE(attention);
        for (int i = 0; i < N_MATRIX_KINDS; i++) complete_matrix(&all.of[i], &b->of[i]);
    }
#undef TAKE
    for (int i = 0; i < N_MATRIX_KINDS; i++) complete_matrix(&all.of[i], &kernels_scalar.of[i]);
    return all;
}

/* The completed form of one table: made once, and the same whoever asks. */
static const kernels *completed(int i) {
    static kernels complete[N_TABLES];
    if (!complete[i].name) complete[i] = kernels_complete(tables[i]);
    return &complete[i];
}

const kernels *kernels_choose(void) {
    const char *wanted = getenv("MLXBENCH_CPU");
    if (!wanted || !*wanted) {
        int best = 0;
        while (!tables[best]->supported()) best++; /* ends: scalar always is */
        return completed(best);
    }
    char known[64] = "";
    for (int i = 0; i < N_TABLES; i++) {
        if (!strcmp(tables[i]->name, wanted)) {
            if (tables[i]->supported()) return completed(i);
            fail_usage("MLXBENCH_CPU=%s: this processor cannot run these instructions", wanted);
            return NULL;
        }
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", tables[i]->name);
    }
    fail_usage("MLXBENCH_CPU=%s is not known; this build has %s", wanted, known);
    return NULL;
}
