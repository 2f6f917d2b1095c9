/* watch.c - the machine while a run lasts: what changed since before it, and so the run's quality.
 */
#include "bench/internal.h"

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

void watch_end(bench *b, series *s) {
    sys_state now;
    bool on_gpu = is_on_gpu(b); /* then this CPU mostly waits, and its frequency says nothing */
    read_state(b, &now);
    circumstances how = {.unoptimized = quality_is_unoptimized(),
                         .first = !s->n_warm && !s->n,
                         .not_warm = !s->settled,
                         .fastest_mhz = on_gpu ? 0 : s->fastest_mhz};
    quality_judge(&b->quality, &b->before, &now, how);
    if (now.mhz > s->fastest_mhz) s->fastest_mhz = now.mhz;
    b->watching = now.at_s - b->before.at_s < SHORTEST;
}
