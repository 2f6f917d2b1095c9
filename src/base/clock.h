/* clock.h - the monotonic clock every measurement uses.
 * Nanoseconds, never wall time: a clock step must not change a result. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

/* Nanoseconds since an arbitrary start, never going back (CLOCK_MONOTONIC). */
int64_t clock_ns(void);

#endif
