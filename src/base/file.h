/* file.h - memory-mapped and whole files.
 * Checkpoints are mapped, never read: opening a gigabyte takes milliseconds. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

/* A read-only mapping of a whole file. Zero-length files map to data "" and size 0. */
typedef struct file_map {
    const char *data;
    size_t size;
} file_map;

/* Maps path; -1 with a message that names it (not found, a folder, unreadable). */
int file_map_open(file_map *map, const char *path);
void file_map_close(file_map *map); /* harmless on a zeroed map */

/* Tells the system that these bytes of a mapping are no longer needed, so that their pages can
 * go. */
void file_map_release(const void *data, size_t size);

/* Appends the path of the running program; -1 when it can't be known. */
int program_path(str *path);

/* Appends the folder of the running program; -1 when it can't be known. */
int program_folder(str *path);

/* Appends the path of a data file of ours ("presets", "presets/x.json"): below $MLXBENCH_SHARE, or
 * PROGRAM/../share/mlxbench (installed), or PROGRAM/../share (a build tree). -1 naming the places
 * that were tried. */
int share_find(const char *relative, str *path);

bool file_exists(const char *path);
bool dir_exists(const char *path);

#endif
