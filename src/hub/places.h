/* places.h - where things of the Hub are on this machine, as the environment says.
 * Each variable means what it means to huggingface_hub (its constants.py and docs "Environment
 * variables").
 */
#ifndef HUB_PLACES_H
#define HUB_PLACES_H

#include "base/base.h"

/* Appends the cache of downloads: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub,
 * XDG_CACHE_HOME/huggingface/hub or ~/.cache/huggingface/hub; "~" and $VARIABLES in them are
 * expanded. -1 when no home folder is known. */
int places_cache(str *path);

/* Appends the Hub's address without a slash at its end: HF_ENDPOINT or https://huggingface.co. */
void places_endpoint(str *url);

/* Appends the access token: HF_TOKEN, HUGGING_FACE_HUB_TOKEN, or what is in HF_TOKEN_PATH or
 * HF_HOME/token; nothing when there is none, or HF_HUB_DISABLE_IMPLICIT_TOKEN is set. -1 when it is
 * no token (a line break would end up in a request). */
int places_token(str *token);

/* Is network access switched off: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE? */
bool places_offline(void);

/* Is an environment variable "1", "on", "yes" or "true"? */
bool places_true(const char *variable);

/* Seconds from an environment variable, or the default. */
long places_seconds(const char *variable, long standard);

/* The folders in which LM Studio keeps OWNER/NAME: that of its settings (downloadsFolder), and
 * models/ in each of its homes. Calls each() with every one that exists, until it returns nonzero;
 * returns that. */
int places_lmstudio(int (*each)(void *context, const char *folder), void *context);

#endif
