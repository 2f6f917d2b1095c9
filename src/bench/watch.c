/* watch.c - the machine while a run lasts: what changed since before it, and so the run's quality.
 */
#include "bench/internal.h"

#include <stdlib.h>

/* The system counts CPU time in ticks of milliseconds: a shorter run is judged with those just
 * before it. */
static const double SHORTEST = 0.1;

/* Devices of the engine mlx are "cpu", "cuda: NAME" or "metal: NAME". */
static bool is_on_gpu(const bench *b) {
    const char *device = engine_describe(b->loaded.engine).device;
    return !strncmp(device, "cuda", strlen("cuda")) || !strncmp(device, "metal", strlen("metal"));
}

static void read_state(const bench *b, sys_state *s) {
    (b->options->watch ? b->options->watch : sys_watch)(s, is_on_gpu(b));
}

void watch_begin(bench *b) {
    if (!b->watching) read_state(b, &b->before);
    b->watching = true;
}

/* The fastest that the CPU was after a run of this configuration before; takes note of the one
 * after this run. 0: nothing is known, as where a GPU computes and this CPU mostly waits. */
static int fastest_before(bench *b, const series *s, int mhz) {
    if (mhz <= 0 || is_on_gpu(b)) return 0;
    if (!b->fastest_mhz) b->fastest_mhz = calloc((size_t)b->plan->n, sizeof *b->fastest_mhz);
    if (!b->fastest_mhz) return 0;
    int *fastest = &b->fastest_mhz[s->index], before = *fastest;
    if (mhz > before) *fastest = mhz;
    return before;
}

void watch_end(bench *b, const series *s) {
    sys_state now;
    read_state(b, &now);
    circumstances how = {.unoptimized = quality_is_unoptimized(),
                         .first = !s->n_warm && !s->n,
                         .not_warm = !s->settled,
                         .fastest_mhz = fastest_before(b, s, now.mhz)};
    quality_judge(&b->quality, &b->before, &now, how);
    b->watching = now.at_s - b->before.at_s < SHORTEST;
}
