/* gate.h - --fail-slower: which differences of a comparison are a loss that ends with exit code 3
 * (private to cmd/). */
#ifndef CMD_GATE_H
#define CMD_GATE_H

#include "results/results.h"

#define FAIL_SLOWER_HELP                                                                                     \
    "end with exit code 3 when a speed is lower by more than PERCENT, that is no chance, and both "          \
    "sides have a quality of A or B"

typedef struct gate {
    const char *fail_slower;   /* as given; NULL: everything passes */
    double limit;              /* as a ratio of speeds */
    int n_slower, n_disturbed; /* differences beyond it; those that can't be judged */
    double slowest;
} gate;

/* Understands what was given: "3%" or "3". -1 with a usage error. */
int gate_parse(gate *g);

/* Judges a comparison, before it is shown. */
void gate_add(gate *g, comparison *c);

/* Says what could not be judged; -1, for exit code 3, when there was a loss. */
int gate_result(const gate *g);

#endif
