/* name.h - a model's name on the Hub, as people write it.
 * Nothing of a name may lead out of the cache: every part is checked here, and nowhere else. */
#ifndef HUB_NAME_H
#define HUB_NAME_H

#include "base/base.h"

typedef struct hub_name {
    char repo[200];     /* "owner/name"; "name" alone for the Hub's oldest models */
    char revision[200]; /* a branch, a tag or a commit; "main" when none was given */
    bool revision_given;
    char file[512]; /* a GGUF file of the repository, its first one of several; "": all that a run needs */
} hub_name;

/* Reads "owner/name", "owner/name@revision", "owner/name/file.gguf", "owner/name@revision/file.gguf",
 * "owner/name/file.gguf@revision", "name", "name@revision", each with "hf:" or "hf://" before it or not, and
 * the address of a model's or a file's page (huggingface.co, hf.co, or the endpoint that is in use). False
 * when text is none of these.
 */
bool hub_name_parse(const char *text, const char *endpoint, hub_name *name);

/* Does text begin with "hf:", or is it a web address? Then it can't be a path. */
bool hub_name_is_explicit(const char *text);

/* Can a file of this name, from a repository, be written below a folder? Relative, without "." and
 * "..", backslashes and control characters, each part of at most 255 bytes. */
bool hub_path_is_safe(const char *path);

/* The parts of a model in several GGUF files, NAME-00001-of-00003.gguf and so on: how many a file's
 * name says that there are, 0 when it is no part's; and the name of part i, counted from 1, in
 * place. */
int hub_gguf_parts(const char *file);
void hub_gguf_part(char *file, int i);

/* n lower-case hexadecimal digits and nothing else. */
bool hub_is_hex(const char *text, size_t n);

#endif
