/* hub.h - model names to files: what the Hugging Face cache on this machine holds.
 * Downloading has its place here too; nothing else in the program knows the cache's layout. */
#ifndef HUB_HUB_H
#define HUB_HUB_H

#include "base/base.h"

/* Appends to path the checkpoint that `model` names: an existing folder or file as it is, "synthetic:..." as
 * it is, otherwise a Hub name "owner/name[@revision]" looked up in the cache (HF_HUB_CACHE, else HF_HOME/hub,
 * else huggingface/hub below XDG_CACHE_HOME or ~/.cache: models--owner--name, refs/REVISION (main),
 * snapshots/COMMIT). -1 with a message that says what to do when it is not there. */
int hub_find(const char *model, str *path);

/* Calls each(context, name, snapshot_folder) for every model in the cache until it returns nonzero. A missing
 * cache is no error: nothing is called. */
int hub_list(int (*each)(void *context, const char *name, const char *folder), void *context);

#endif
