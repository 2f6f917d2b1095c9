/* engines.h - the engines of this build and what each of them finds here, for the commands that
 * list them (private to cmd/). */
#ifndef CMD_ENGINES_H
#define CMD_ENGINES_H

/* missing: why it cannot be used ("" when it can); then version and device are "". */
typedef struct engine_facts {
    char name[32], version[64], device[256], missing[1024];
} engine_facts;

/* Opens engine i = 0, 1, ... for a moment and fills *out; 0 when there is no such engine. */
int engine_facts_get(int i, engine_facts *out);

#endif
