/* engines.c - what is known of each engine, by opening it: one that is not here says why.
 * What is missing is no error of the command that lists it. */
#include "cmd/engines.h"
#include "engine/engine.h"

#include <stdio.h>

int engine_facts_get(int i, engine_facts *out) {
    if (!engine_name(i)) return 0;
    *out = (engine_facts){0};
    snprintf(out->name, sizeof out->name, "%s", engine_name(i));
    engine *e = engine_open(engine_name(i), &(engine_options){.threads = 1});
    if (e) {
        engine_info info = engine_describe(e);
        snprintf(out->version, sizeof out->version, "%s", info.version);
        snprintf(out->device, sizeof out->device, "%s", info.device);
    } else {
        snprintf(out->missing, sizeof out->missing, "%s", error_message());
        error_clear();
    }
    engine_close(e);
    return 1;
}
