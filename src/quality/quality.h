/* quality.h - how far a run can be believed: a grade from A to F, from what else the machine did
 * meanwhile. Counters are read before and after a run; nothing is done while it lasts.
 */
#ifndef QUALITY_QUALITY_H
#define QUALITY_QUALITY_H

#include "sys/sys.h"

/* A: nothing disturbed the run. B: it hardly matters. C: speeds may be lower by some percent. D:
 * they are. F: they mean nothing. */
typedef struct quality {
    char grade;  /* 'A', 'B', 'C', 'D' or 'F' */
    str reasons; /* "WHAT: WHAT TO DO; ...", the worst first; empty for A. Free it. */
} quality;

/* What the counters don't say. */
typedef struct circumstances {
    bool unoptimized; /* the program was built without optimization, or with sanitizers */
    bool first;       /* no run came before */
    bool not_warm;    /* the unmeasured runs did not agree */
    int fastest_mhz;  /* of the CPU, at the end of an earlier run like this; 0: unknown */
} circumstances;

/* Judges what happened from a to b. q is zeroed or was filled before. */
void quality_judge(quality *q, const sys_state *a, const sys_state *b, circumstances c);

/* Is grade worse than limit? */
bool quality_is_below(char grade, char limit);

/* Is this program one to measure with? */
bool quality_is_unoptimized(void);

#endif
