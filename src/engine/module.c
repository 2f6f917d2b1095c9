/* module.c - engines that are loaded when they are asked for: the program starts without them and
 * their libraries. A module is found where NAME@PATH says, beside the program, in
 * PROGRAM/../lib/mlxbench, or where MLXBENCH_ENGINE_PATH says. */
#include "engine/graph.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>

#ifdef __APPLE__
#define SUFFIX ".dylib"
#else
#define SUFFIX ".so"
#endif

/* The module of NAME@PATH: a file, or one in that folder. */
static int find_given(const char *name, str *path) {
    const char *at = strchr(name, '@');
    int length = (int)(at - name);
    str_printf(path, dir_exists(at + 1) ? "%s/mlxbench-%.*s" SUFFIX : "%s", at + 1, length, name);
    if (path->failed) return -1;
    return file_exists(path->data) ? 0 : fail("engine %s: there is no module %s", name, path->data);
}

/* The path of module NAME; -1 naming the places that were tried. */
static int find_module(const char *name, str *path) {
    const char *fixed = getenv("MLXBENCH_ENGINE_PATH"), *const below[] = {"", "/../lib/mlxbench"};
    if (fixed) {
        str_printf(path, dir_exists(fixed) ? "%s/mlxbench-%s" SUFFIX : "%s", fixed, name);
        if (!path->failed && file_exists(path->data)) return 0;
        return fail("engine %s: there is no %s (set by MLXBENCH_ENGINE_PATH)", name, path->data);
    }
    str folder = {0};
    int status = program_folder(&folder), found = -1;
    for (int i = 0; i < 2 && !status && found; i++) {
        str_clear(path);
        str_printf(path, "%s%s/mlxbench-%s" SUFFIX, folder.data, below[i], name);
        if (!path->failed && file_exists(path->data)) found = 0;
    }
    if (!status && found)
        fail("engine %s: mlxbench-%s" SUFFIX " is neither in %s nor in %s/../lib/mlxbench; build with MLX "
             "installed, or set MLXBENCH_ENGINE_PATH",
             name, name, folder.data, folder.data);
    str_free(&folder);
    return found;
}

static const engine_class *load(const char *name, const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return fail_null("engine %s: %s (was it built against a library of another version or device?)", name,
                         dlerror());
    engine_module_get *get;
    *(void **)&get = dlsym(library, ENGINE_MODULE_SYMBOL); /* POSIX's way around ISO C */
    const engine_module *m = get ? get() : NULL;
    if (!m) return fail_null("engine %s: %s is no engine of mlxbench", name, path);
    if (m->abi != ENGINE_ABI)
        return fail_null("engine %s: %s (%s) was built with another mlxbench; build both together", name,
                         path, m->built);
    return m->type; /* never unloaded: libraries with threads of their own do not survive it */
}

const engine_class *engine_module_load(const char *name) {
    static const engine_class *loaded; /* all such engines bring a library of one name: a process has one */
    static char loaded_name[PATH_MAX];
    str path = {0};
    if (loaded && strcmp(loaded_name, name))
        return fail_null("engine %s: this process has the engine %s already", name, loaded_name);
    if (!loaded && !(strchr(name, '@') ? find_given : find_module)(name, &path))
        loaded = load(name, path.data);
    snprintf(loaded_name, sizeof loaded_name, "%s", name);
    str_free(&path);
    return loaded;
}
