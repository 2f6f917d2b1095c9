/* kept.h - where `bench --history` keeps runs and `history` finds them (private to cmd/).
 */
#ifndef CMD_KEPT_H
#define CMD_KEPT_H

#include "base/base.h"

/* Appends the path of the database: $XDG_DATA_HOME/mlxbench/history.sqlite, or the same below
 * ~/.local/share. -1 with a message when neither is known. */
int kept_path(str *path);

/* Makes the folder of that path, and those above it. */
int kept_make_folder(const char *path);

#endif
