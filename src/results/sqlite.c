/* sqlite.c - libsqlite3 through dlopen, as libcurl and libcrypto are opened: the program starts
 * without it, and a package needs no copy of it.
 */
#include "results/sqlite.h"
#include "base/base.h"

#include <dlfcn.h>
#include <stdlib.h>

enum { BUSY_MS = 30000, STEPS_BETWEEN_LOOKS = 100000, LONGEST_VALUE = 64 << 20 };

static int find_functions(void *library, sqlite *out) {
    const struct {
        const char *name;
        void *place;
    } wanted[] = {
#define FUNCTION(name, result, arguments) {"sqlite3_" #name, &out->name},
        SQLITE_FUNCTIONS(FUNCTION)
#undef FUNCTION
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *symbol = dlsym(library, wanted[i].name);
        if (!symbol) return fail("libsqlite3 is too old: it lacks %s", wanted[i].name);
        memcpy(wanted[i].place, &symbol, sizeof symbol); /* POSIX: pointers to functions look the same */
    }
    return 0;
}

const sqlite *sqlite_library(void) {
#ifdef __APPLE__
    static const char *const names[] = {"/usr/lib/libsqlite3.dylib", "libsqlite3.0.dylib"};
#else
    static const char *const names[] = {"libsqlite3.so.0", "libsqlite3.so"};
#endif
    static sqlite functions;
    static void *library;
    if (library) return &functions;
    const char *fixed = getenv("MLXBENCH_LIBSQLITE3");
    void *found = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !found; i++)
        found = dlopen(fixed ? fixed : names[i], RTLD_NOW | RTLD_LOCAL);
    if (!found)
        return fail_null(
            "a database needs SQLite's library, which is not installed (%s); Debian and Ubuntu have "
            "it in the package libsqlite3-0",
            dlerror());
    if (find_functions(found, &functions)) return NULL;
    library = found; /* stays open */
    return &functions;
}

static int stop_when_interrupted(void *context) {
    (void)context;
    return interrupted();
}

int sqlite_fail(sqlite3 *db, const char *path, const char *doing) {
    const sqlite *s = sqlite_library();
    if (interrupted()) return fail_interrupted();
    if (s && s->errcode(db) == SQLITE_BUSY)
        return fail("cannot %s %s: another program has written there for %d seconds", doing, path,
                    BUSY_MS / 1000);
    return fail("cannot %s %s: %s", doing, path, s && db ? s->errmsg(db) : "no memory");
}

sqlite3 *sqlite_open(const char *path, int flags) {
    const sqlite *s = sqlite_library();
    sqlite3 *db = NULL;
    if (!s) return NULL;
    if (s->open_v2(path, &db, flags, NULL) != SQLITE_OK) {
        sqlite_fail(db, path, "open");
        s->close(db);
        return NULL;
    }
    s->busy_timeout(db, BUSY_MS);
    s->limit(db, SQLITE_LIMIT_LENGTH, LONGEST_VALUE);
    s->progress_handler(db, STEPS_BETWEEN_LOOKS, stop_when_interrupted, NULL);
    if (!sqlite_exec(db, path, "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON")) return db;
    s->close(db);
    return NULL;
}

int sqlite_exec(sqlite3 *db, const char *path, const char *sql) {
    return sqlite_library()->exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : sqlite_fail(db, path, "use");
}

bool is_sqlite(const char *text, uint64_t n) {
    static const char begins[] = "SQLite format 3"; /* its terminating zero belongs to it */
    return n >= sizeof begins && !memcmp(text, begins, sizeof begins);
}
