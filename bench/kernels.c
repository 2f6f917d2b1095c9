/* kernels.c - how fast one thread multiplies one token with weights of each kind: [MB] -> a line
 * per kind. Bytes per second of weights with their scales, and their share of affine 4-bit's. Kinds
 * take turns, and the best of some short runs counts, by the thread's own processor time. MB: of
 * each matrix; small ones stay in a cache. MLXBENCH_CPU chooses the kernels, as in the program.
 * Built by the target bench_kernels. */
#include "engine/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { N = 4096, ROUNDS = 21, RUN_BYTES = 64000000 };

typedef struct candidate {
    const char *name;
    matrix_kind kind;
    int bits, group_size;
    rows w;
    int64_t n_rows;
    double bytes, seconds;
    const products *products;
    void *prepared;
} candidate;

static candidate candidates[] = {
    {.name = "affine 4-bit g64", .kind = MATRIX_AFFINE, .bits = 4, .group_size = 64},
    {.name = "affine 4-bit g32", .kind = MATRIX_AFFINE, .bits = 4, .group_size = 32},
    {.name = "affine 8-bit g64", .kind = MATRIX_AFFINE, .bits = 8, .group_size = 64},
    {.name = "affine 2-bit g64", .kind = MATRIX_AFFINE, .bits = 2, .group_size = 64},
    {.name = "affine 1-bit g64", .kind = MATRIX_AFFINE, .bits = 1, .group_size = 64},
    {.name = "mxfp4", .kind = MATRIX_MXFP4, .bits = 4, .group_size = 32},
    {.name = "mxfp8", .kind = MATRIX_MXFP8, .bits = 8, .group_size = 32},
    {.name = "nvfp4", .kind = MATRIX_NVFP4, .bits = 4, .group_size = 16},
};
enum { N_CANDIDATES = sizeof candidates / sizeof *candidates };

static void *random_bytes(size_t n, uint8_t mask) {
    uint8_t *bytes = aligned_alloc(64, (n + 63) / 64 * 64);
    static uint64_t state = 1;
    if (!bytes) abort();
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        bytes[i] = (uint8_t)(state >> 56) & mask;
    }
    return bytes;
}

/* As much as `size` bytes hold; BF16 scales, or bytes that are no NaN. */
static void make(candidate *c, double size) {
    double row = N * c->bits / 8.0 + (double)(N / c->group_size) * (c->kind == MATRIX_AFFINE ? 4 : 1);
    c->n_rows = (int64_t)(size / row) / 32 * 32;
    if (c->n_rows < 32) c->n_rows = 32;
    c->bytes = row * (double)c->n_rows;
    size_t groups = (size_t)(c->n_rows * N / c->group_size), each = c->kind == MATRIX_AFFINE ? 2 : 1;
    c->w = (rows){.kind = c->kind, .n = N, .dtype = DTYPE_BF16, .bits = c->bits, .group_size = c->group_size};
    c->w.values = random_bytes((size_t)(c->n_rows * N * c->bits / 8), c->bits == 8 ? 0xbf : 0xff);
    c->w.scales = random_bytes(groups * each, 0x3b);
    c->w.biases = random_bytes(groups * each, 0x3b);
}

static double processor_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void run(const cpu *e, candidate *c, float *y, const float *x) {
    int repeats = (int)(RUN_BYTES / c->bytes) + 1;
    runs rs = {0, c->n_rows / RUNS, c->n_rows / RUNS};
    double start = processor_time();
    for (int i = 0; i < repeats; i++) cpu_matvec(e, c->products, y, &c->w, rs, x, c->prepared);
    double seconds = (processor_time() - start) / repeats;
    if (c->seconds == 0 || seconds < c->seconds) c->seconds = seconds;
}

static double rate(const candidate *c) {
    return c->bytes / c->seconds * 1e-9;
}

int main(int argc, char **argv) {
    double size = (argc > 1 ? atof(argv[1]) : 64) * 1e6;
    const kernels *chosen = kernels_choose();
    if (!chosen || size <= 0) return 2;
    kernels all = kernels_complete(chosen);
    cpu e = {.kernels = &all};
    float *y = NULL, x[N];
    int64_t most = 0;
    for (int i = 0; i < N; i++) x[i] = (float)(i * 37 % 101) / 50 - 1;
    for (int i = 0; i < N_CANDIDATES; i++) {
        candidate *c = &candidates[i];
        make(c, size);
        c->products = cpu_products(&e, &c->w, DTYPE_BF16, false);
        c->prepared = random_bytes(cpu_prepared_bytes(c->products, &c->w) + 64, 0);
        cpu_prepare(&e, c->products, c->prepared, &c->w, x);
        most = c->n_rows > most ? c->n_rows : most;
    }
    if (!(y = malloc((size_t)most * sizeof *y))) return 1;
    for (int r = 0; r < ROUNDS; r++)
        for (int i = 0; i < N_CANDIDATES; i++) run(&e, &candidates[i], y, x);
    for (int i = 0; i < N_CANDIDATES; i++)
        printf("%-18s %6.2f GB/s  %4.0f %%\n", candidates[i].name, rate(&candidates[i]),
               100 * rate(&candidates[i]) / rate(&candidates[0]));
    return 0;
}
