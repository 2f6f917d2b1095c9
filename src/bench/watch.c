/* watch.c - the machine while a run lasts: what changed since before it, and so the run's quality.
 */
#include "bench/internal.h"

/* The system counts CPU time in ticks of milliseconds: a shorter run is judged with those just
 * before it. */
static const double SHORTEST = 0.1;

static void read_state(const bench *b, sys_state *s) {
    (b->options->watch ? b->options->watch : sys_watch)(s);
}

void watch_begin(bench *b) {
    if (!b->watching) read_state(b, &b->before);
    b->watching = true;
}

void watch_end(bench *b, const series *s) {
    sys_state now;
    read_state(b, &now);
    circumstances how = {.unoptimized = quality_is_unoptimized(), .not_warm = !s->settled};
    quality_judge(&b->quality, &b->before, &now, how);
    b->watching = now.at_s - b->before.at_s < SHORTEST;
}
