/* clock.c - the system's monotonic clock, in nanoseconds.
 * One line, in one place, so that every timestamp in a result has the same meaning. */
#include "base/base.h"

#include <time.h>

#ifdef __APPLE__
#define CLOCK CLOCK_UPTIME_RAW /* Apple's CLOCK_MONOTONIC is cut to microseconds */
#else
#define CLOCK CLOCK_MONOTONIC
#endif

int64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
