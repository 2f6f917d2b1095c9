/* clock.c - the system's monotonic clock, in nanoseconds.
 * One line, in one place, so that every timestamp in a result has the same meaning. */
#include "base/base.h"

#include <time.h>

#ifdef __APPLE__
#define CLOCK CLOCK_UPTIME_RAW /* Apple's CLOCK_MONOTONIC is cut to microseconds */
#else
#define CLOCK CLOCK_MONOTONIC
#endif

static int64_t scripted_ns; /* 0: the clock is the system's */

int64_t clock_ns(void) {
    struct timespec now;
    if (scripted_ns) return scripted_ns;
    clock_gettime(CLOCK, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void clock_pass(int64_t ns) {
    if (!scripted_ns) scripted_ns = 1000000000;
    scripted_ns += ns;
}

int clock_wait(int64_t ns) {
    const int64_t slice = 50000000; /* a signal may come between the question and the sleep */
    if (scripted_ns) clock_pass(ns);
    for (int64_t end = clock_ns() + (scripted_ns ? 0 : ns), left; (left = end - clock_ns()) > 0;) {
        if (left > slice) left = slice;
        nanosleep(&(struct timespec){.tv_nsec = left}, NULL);
        if (interrupted()) break;
    }
    return interrupted() ? fail_interrupted() : 0;
}
