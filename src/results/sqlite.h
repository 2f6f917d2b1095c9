/* sqlite.h - the functions of libsqlite3 that results/ uses, found at run time (private to
 * results/): so it is needed by those alone who ask for a database. Names, types and numbers are
 * those of SQLite's C interface (sqlite.org/c3ref), which it keeps for good; its header is not
 * needed. */
#ifndef RESULTS_SQLITE_H
#define RESULTS_SQLITE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct sqlite3 sqlite3;
typedef struct sqlite3_stmt sqlite3_stmt;

enum {
    SQLITE_OK = 0,
    SQLITE_BUSY = 5,
    SQLITE_INTERRUPT = 9,
    SQLITE_NOTADB = 26,
    SQLITE_ROW = 100,
    SQLITE_DONE = 101,
    SQLITE_INTEGER = 1,
    SQLITE_FLOAT = 2,
    SQLITE_TEXT = 3,
    SQLITE_NULL = 5,
    SQLITE_OPEN_READONLY = 1,
    SQLITE_OPEN_READWRITE = 2,
    SQLITE_OPEN_CREATE = 4,
    SQLITE_LIMIT_LENGTH = 0,
};

/* name, what it returns, what it takes */
#define SQLITE_FUNCTIONS(F)                                                                                  \
    F(open_v2, int, (const char *path, sqlite3 **db, int flags, const char *vfs))                            \
    F(close, int, (sqlite3 * db))                                                                            \
    F(errmsg, const char *, (sqlite3 * db))                                                                  \
    F(errcode, int, (sqlite3 * db))                                                                          \
    F(busy_timeout, int, (sqlite3 * db, int ms))                                                             \
    F(limit, int, (sqlite3 * db, int which, int value))                                                      \
    F(progress_handler, void, (sqlite3 * db, int steps, int (*call)(void *), void *context))                 \
    F(exec, int, (sqlite3 * db, const char *sql, void *on_row, void *context, char **error))                 \
    F(prepare_v2, int, (sqlite3 * db, const char *sql, int n, sqlite3_stmt **out, const char **rest))        \
    F(step, int, (sqlite3_stmt * s))                                                                         \
    F(reset, int, (sqlite3_stmt * s))                                                                        \
    F(finalize, int, (sqlite3_stmt * s))                                                                     \
    F(bind_null, int, (sqlite3_stmt * s, int i))                                                             \
    F(bind_int64, int, (sqlite3_stmt * s, int i, int64_t number))                                            \
    F(bind_double, int, (sqlite3_stmt * s, int i, double real))                                              \
    F(bind_text, int, (sqlite3_stmt * s, int i, const char *text, int n, void (*destroy)(void *)))           \
    F(column_count, int, (sqlite3_stmt * s))                                                                 \
    F(column_type, int, (sqlite3_stmt * s, int i))                                                           \
    F(column_int64, int64_t, (sqlite3_stmt * s, int i))                                                      \
    F(column_double, double, (sqlite3_stmt * s, int i))                                                      \
    F(column_text, const unsigned char *, (sqlite3_stmt * s, int i))                                         \
    F(column_bytes, int, (sqlite3_stmt * s, int i))

typedef struct sqlite {
#define FUNCTION(name, result, arguments) result(*name) arguments;
    SQLITE_FUNCTIONS(FUNCTION)
#undef FUNCTION
} sqlite;

/* The library; NULL with a message that says which package has it. */
const sqlite *sqlite_library(void);

/* A database in the file `path`, which another process may use at the same time: who writes is
 * waited for, up to 30 seconds. Reading trusts nothing that it finds there, and ends with Ctrl-C.
 * NULL with a message. Free with the library's close. */
sqlite3 *sqlite_open(const char *path, int flags);

/* Records SQLite's last error of db, and returns -1. */
int sqlite_fail(sqlite3 *db, const char *path, const char *doing);

/* Runs statements that give no rows. */
int sqlite_exec(sqlite3 *db, const char *path, const char *sql);

/* Is it the beginning of such a file? */
bool is_sqlite(const char *text, uint64_t n);

#endif
