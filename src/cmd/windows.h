/* windows.h - the table of `bench --duration`: speeds per window (private to cmd/).
 */
#ifndef CMD_WINDOWS_H
#define CMD_WINDOWS_H

#include "results/results.h"

/* Zeroed: nothing was measured. */
typedef struct windows {
    summary *runs; /* of one window */
    int64_t configuration, window;
    double first[2]; /* medians of the configuration's first window: prompt, generation */
    str lines;
} windows;

/* Takes a row in, if it is a run with a window; runs of a window follow each other. -1 when out of
 * memory. */
int windows_add(windows *w, const row *r);

/* Prints the table; nothing where there were no windows. */
void windows_print(windows *w, FILE *to);

void windows_free(windows *w);

#endif
