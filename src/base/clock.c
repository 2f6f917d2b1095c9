/* clock.c - CLOCK_MONOTONIC.
 * One line, in one place, so that every timestamp in a result has the same meaning. */
#include "base/base.h"

#include <time.h>

int64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
