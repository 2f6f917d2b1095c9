/* clock.h - the monotonic clock every measurement uses.
 * Nanoseconds, never wall time: a clock step must not change a result. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

/* Nanoseconds since an arbitrary start, never going back (CLOCK_MONOTONIC). */
int64_t clock_ns(void);

/* Waits, though not beyond Ctrl-C: then -1, and the error is recorded. */
int clock_wait(int64_t ns);

/* For tests of what follows from measured times. After the first call with a time, the clock stands
 * still, but for these calls and for clock_wait, which is over at once. */
void clock_pass(int64_t ns);

#endif
