/* kernels.c - how fast one thread multiplies tokens with weights of each kind: [MB [tokens [int8]]]
 * -> a line per kind. Bytes per second of weights with their scales, and their share of affine
 * 4-bit's; then the multiply-accumulates per second. Kinds take turns, and the best of some short
 * runs counts, by the thread's own processor time. MB: of each matrix; small ones stay in a cache.
 * Without a number of tokens: one. int8: activations of 8 bits. MLXBENCH_CPU chooses the kernels,
 * as in the program. Built by the target bench_kernels. */
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
    char *prepared; /* the token, or panels of tokens */
    void *tile;
} candidate;

typedef struct batch {
    int64_t n;
    float *x, *y; /* [n][N], [n][the most rows] */
    int64_t most;
} batch;

static candidate candidates[] = {
    {.name = "affine 4-bit g64", .kind = MATRIX_AFFINE, .bits = 4, .group_size = 64},
    {.name = "affine 4-bit g32", .kind = MATRIX_AFFINE, .bits = 4, .group_size = 32},
    {.name = "affine 8-bit g64", .kind = MATRIX_AFFINE, .bits = 8, .group_size = 64},
    {.name = "affine 6-bit g64", .kind = MATRIX_AFFINE, .bits = 6, .group_size = 64},
    {.name = "affine 5-bit g64", .kind = MATRIX_AFFINE, .bits = 5, .group_size = 64},
    {.name = "affine 3-bit g64", .kind = MATRIX_AFFINE, .bits = 3, .group_size = 64},
    {.name = "affine 2-bit g64", .kind = MATRIX_AFFINE, .bits = 2, .group_size = 64},
    {.name = "affine 1-bit g64", .kind = MATRIX_AFFINE, .bits = 1, .group_size = 64},
    {.name = "affine 1-bit g128", .kind = MATRIX_AFFINE, .bits = 1, .group_size = 128},
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
    bool e8m0 = c->kind == MATRIX_MXFP4 || c->kind == MATRIX_MXFP8;
    c->w.scales = random_bytes(groups * each, e8m0 ? 0x07 : 0x3b);
    for (size_t i = 0; e8m0 && i < groups; i++) ((uint8_t *)(uintptr_t)c->w.scales)[i] += 0x78; /* near 1 */
    c->w.biases = random_bytes(groups * each, 0x3b);
}

static double processor_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void prepare(const cpu *e, candidate *c, const batch *t) {
    const products *p = c->products = cpu_products(e, &c->w, DTYPE_BF16, false);
    int64_t panels = cpu_token_panels(p, t->n);
    if (t->n == 1) {
        c->prepared = random_bytes(cpu_prepared_bytes(p, &c->w) + 64, 0);
        cpu_prepare(e, p, c->prepared, &c->w, t->x);
        return;
    }
    c->tile = random_bytes(cpu_tile_bytes(p, &c->w), 0);
    if (p) c->prepared = random_bytes((size_t)panels * p->token_panel_bytes(&c->w), 0);
    for (int64_t i = 0; i < panels; i++) cpu_pack_tokens(p, c->prepared, &c->w, i, t->x, t->n);
}

static void run(const cpu *e, candidate *c, const batch *t) {
    int repeats = (int)(RUN_BYTES / c->bytes / (double)t->n) + 1;
    runs rs = {0, c->n_rows / RUNS, c->n_rows / RUNS};
    double start = processor_time();
    for (int i = 0; i < repeats; i++)
        if (t->n == 1)
            cpu_matvec(e, c->products, t->y, &c->w, rs, t->x, c->prepared);
        else
            cpu_multiply(e, c->products, t->y, t->most, &c->w, c->n_rows, t->x, t->n, c->prepared, c->tile);
    double seconds = (processor_time() - start) / repeats;
    if (c->seconds == 0 || seconds < c->seconds) c->seconds = seconds;
}

static double rate(const candidate *c) {
    return c->bytes / c->seconds * 1e-9;
}

int main(int argc, char **argv) {
    double size = (argc > 1 ? atof(argv[1]) : 64) * 1e6;
    batch t = {.n = argc > 2 ? atoi(argv[2]) : 1};
    const kernels *chosen = kernels_choose();
    if (!chosen || size <= 0 || t.n < 1) return 2;
    kernels all = kernels_complete(chosen);
    cpu e = {.kernels = &all, .int8_activations = argc > 3};
    t.x = random_bytes((size_t)t.n * N * sizeof *t.x, 0);
    for (int64_t i = 0; i < t.n * N; i++) t.x[i] = (float)(i * 37 % 101) / 50 - 1;
    for (int i = 0; i < N_CANDIDATES; i++) {
        make(&candidates[i], size);
        prepare(&e, &candidates[i], &t);
        t.most = candidates[i].n_rows > t.most ? candidates[i].n_rows : t.most;
    }
    t.y = random_bytes((size_t)(t.n * t.most) * sizeof *t.y, 0);
    for (int r = 0; r < ROUNDS; r++)
        for (int i = 0; i < N_CANDIDATES; i++) run(&e, &candidates[i], &t);
    for (int i = 0; i < N_CANDIDATES; i++) {
        const candidate *c = &candidates[i];
        printf("%-18s %6.2f GB/s  %4.0f %%  %6.1f GMAC/s\n", c->name, rate(c),
               100 * rate(c) / rate(&candidates[0]), (double)(t.n * c->n_rows * N) / c->seconds * 1e-9);
    }
    return 0;
}
