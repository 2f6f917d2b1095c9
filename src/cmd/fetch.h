/* fetch.h - what --model names, as a path: found here, or else downloaded.
 * The commands that take --model share it, with the progress that is shown. */
#ifndef CMD_FETCH_H
#define CMD_FETCH_H

#include "hub/hub.h"

#define OFFLINE_HELP "use only what is on this machine (also HF_HUB_OFFLINE=1)"

/* Appends the path of what `model` names. With offline, or HF_HUB_OFFLINE, nothing is downloaded:
 * what is not here is an error. -1 with a message. */
int fetch_model(const char *model, hub_need need, bool offline, str *path);

/* As fetch_model with offline: for who has fetched before. */
int fetch_found(const char *model, str *path);

/* Downloads, or asks the Hub whether what is here is the newest: as hub_pull, with progress on
 * stderr. */
int fetch_pull(const char *model, hub_need need, str *path);

#endif
