/* mlx_env.c - MLX's own settings: variables of the environment, which MLX reads once per process.
 * There are dozens, and they change with MLX: no list of them is kept here. A row shows all that
 * are set. */
#include "bench/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define PREFIX "MLX_"
enum { MOST_VARIABLES = 256 };

int mlx_env_set(const option_texts *given) {
    for (int i = 0; i < given->n; i++) {
        const char *text = given->items[i], *equals = strchr(text, '=');
        size_t n = equals ? (size_t)(equals - text) : 0;
        char name[128];
        if (n <= strlen(PREFIX) || n >= sizeof name || strncmp(text, PREFIX, strlen(PREFIX)) || !equals[1])
            return fail_usage("--mlx-env: \"%s\" is not " PREFIX "NAME=VALUE", text);
        memcpy(name, text, n);
        name[n] = '\0';
        if (setenv(name, equals + 1, 1)) return fail("--mlx-env: cannot set %s: %s", name, strerror(errno));
    }
    return 0;
}

static int compare(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

const char *mlx_env_text(void) {
    extern char **environ;
    static char text[4096];
    const char *found[MOST_VARIABLES];
    size_t n = 0, used = 0;
    for (char **e = environ; *e && n < MOST_VARIABLES; e++)
        if (!strncmp(*e, PREFIX, strlen(PREFIX))) found[n++] = *e;
    qsort(found, n, sizeof *found, compare);
    for (size_t i = 0; i < n; i++) {
        int length = snprintf(text + used, sizeof text - used, "%s%s", i ? " " : "", found[i]);
        if (length < 0 || (size_t)length >= sizeof text - used) break; /* as much as fits */
        used += (size_t)length;
    }
    return used ? text : NULL;
}
