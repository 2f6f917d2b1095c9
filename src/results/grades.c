/* grades.c - the quality of a configuration, from those of its runs.
 */
#include "results/internal.h"

static const char letters[N_GRADES + 1] = "ABCDF";

void grades_add(grades *g, value quality) {
    const char *at = quality.kind == VALUE_TEXT && *quality.text ? strchr(letters, *quality.text) : NULL;
    if (at) g->n[at - letters]++;
}

char grades_of(const grades *g) {
    int64_t all = 0, good = 0;
    for (int i = 0; i < N_GRADES; i++) all += g->n[i];
    for (int i = 0; i < N_GRADES; i++) {
        good += g->n[i];
        if (all && 4 * good >= 3 * all) return letters[i];
    }
    return '\0';
}
