/* table.c - runs in a table of a database, a transaction each: a run is there for good once
 * table_add has returned, whoever else writes to the same file.
 */
#include "results/internal.h"
#include "results/sqlite.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct number_pair {
    int64_t given, stored;
} number_pair;

struct run_table {
    sqlite3 *db;
    sqlite3_stmt *insert;
    const char *path;
    table_options how;
    bool other_file;      /* what is there is no database, and is to be replaced */
    bool ready;           /* the table is there, with our columns */
    number_pair *numbers; /* of configurations: ours, and those in the table */
    int64_t n, capacity, offset;
};

/* TEXT and the others are types that other databases know as well; SQLite takes them for its
 * own. */
static const char *type_of(value_kind kind) {
    switch (kind) {
    case VALUE_NUMBER:
        return "BIGINT";
    case VALUE_REAL:
        return "DOUBLE PRECISION";
    case VALUE_BOOL:
        return "BOOLEAN";
    default:
        return "TEXT";
    }
}

void put_create_table(str *out) {
    str_puts(out, "CREATE TABLE IF NOT EXISTS \"runs\" (");
    for (int c = 0; c < N_COLUMNS; c++)
        str_printf(out, "%s\"%s\" %s", c ? ", " : "", column_table[c].name, type_of(column_table[c].kind));
    str_puts(out, ")");
}

/* ---- what is there ---- */

int table_columns(sqlite3 *db, const char *path, bool has[N_COLUMNS], bool *others) {
    const sqlite *s = sqlite_library();
    sqlite3_stmt *names = NULL;
    int n = 0, status;
    memset(has, 0, N_COLUMNS * sizeof *has);
    *others = false;
    /* a view, or a table that a program makes up, is no result file */
    static const char sql[] = "SELECT name FROM pragma_table_info('runs') WHERE EXISTS (SELECT 1 FROM "
                              "sqlite_master WHERE type = 'table' AND name = 'runs' AND rootpage > 0)";
    if (s->prepare_v2(db, sql, -1, &names, NULL) != SQLITE_OK) return sqlite_fail(db, path, "read");
    while ((status = s->step(names)) == SQLITE_ROW) {
        const char *name = (const char *)s->column_text(names, 0);
        int c = name ? column_find(name) : -1;
        if (c >= 0)
            has[c] = true;
        else
            *others = true;
        n++;
    }
    if (status != SQLITE_DONE) n = sqlite_fail(db, path, "read");
    s->finalize(names);
    return n;
}

/* The largest number in a column. */
static int largest(run_table *t, int c, int64_t *out) {
    const sqlite *s = sqlite_library();
    sqlite3_stmt *ask = NULL;
    char sql[128];
    snprintf(sql, sizeof sql, "SELECT max(\"%s\") FROM \"runs\"", column_table[c].name);
    *out = 0;
    if (s->prepare_v2(t->db, sql, -1, &ask, NULL) != SQLITE_OK) return sqlite_fail(t->db, t->path, "read");
    int status = s->step(ask);
    if (status == SQLITE_ROW) *out = s->column_int64(ask, 0);
    int failed = status == SQLITE_ROW ? 0 : sqlite_fail(t->db, t->path, "read");
    s->finalize(ask);
    return failed;
}

/* ---- opening ---- */

/* Opens the file, unless it is open, and begins a transaction. */
static int begin(run_table *t) {
    if (!t->db && (!(t->db = sqlite_open(t->path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)) ||
                   sqlite_exec(t->db, t->path, "PRAGMA synchronous = NORMAL")))
        return -1;
    return sqlite_exec(t->db, t->path, "BEGIN IMMEDIATE");
}

static int is_other_file(const char *path, bool *other) {
    file_map map;
    if (file_map_open(&map, path)) return -1;
    *other = map.size && !is_sqlite(map.data, map.size);
    file_map_close(&map);
    return 0;
}

/* Can runs be added? Nothing is changed by asking. */
static int look_into(run_table *t) {
    bool has[N_COLUMNS], others;
    if (!file_exists(t->path)) return 0;
    if (is_other_file(t->path, &t->other_file)) return -1;
    if (t->other_file && t->how.replace) return 0;
    if (t->other_file) return fail_usage("%s is no SQLite database", t->path);
    if (begin(t)) return -1;
    int n = table_columns(t->db, t->path, has, &others);
    if (n < 0 || sqlite_exec(t->db, t->path, "ROLLBACK")) return -1;
    if (n && !t->how.replace && (!has[COLUMN_run] || !has[COLUMN_configuration]))
        return fail_usage("%s has a table \"runs\" that is none of ours", t->path);
    return 0;
}

run_table *table_open(const char *path, const table_options *how) {
    run_table *t = sqlite_library() ? mem_new(1, sizeof *t, "a database") : NULL;
    if (!t) return NULL;
    t->path = path;
    t->how = *how;
    if (!look_into(t)) return t;
    table_close(t);
    return NULL;
}

/* Looked up with each new row: without an index all rows would be read for it. */
static const int indexed[] = {COLUMN_run, COLUMN_configuration};

/* The table with our columns, within a transaction. */
static int make_table(run_table *t) {
    bool has[N_COLUMNS], others;
    str sql = {0};
    if (t->how.replace) str_puts(&sql, "DROP TABLE IF EXISTS \"runs\";");
    put_create_table(&sql);
    for (size_t i = 0; i < sizeof indexed / sizeof *indexed; i++) {
        const char *name = column_table[indexed[i]].name;
        str_printf(&sql, "; CREATE INDEX IF NOT EXISTS \"runs_by_%s\" ON \"runs\" (\"%s\")", name, name);
    }
    str_printf(&sql, "; PRAGMA user_version = %d", RESULTS_SCHEMA);
    int failed = sql.failed || sqlite_exec(t->db, t->path, sql.data) ||
                 table_columns(t->db, t->path, has, &others) < 0;
    for (int c = 0; c < N_COLUMNS && !failed; c++) { /* rows of an earlier version lack some */
        str_clear(&sql);
        str_printf(&sql, "ALTER TABLE \"runs\" ADD COLUMN \"%s\" %s", column_table[c].name,
                   type_of(column_table[c].kind));
        if (!has[c]) failed = sql.failed || sqlite_exec(t->db, t->path, sql.data);
    }
    str_free(&sql);
    return failed ? -1 : 0;
}

static int prepare(run_table *t) {
    const sqlite *s = sqlite_library();
    str sql = {0};
    str_puts(&sql, "INSERT INTO \"runs\" (");
    for (int c = 0; c < N_COLUMNS; c++) str_printf(&sql, "%s\"%s\"", c ? ", " : "", column_table[c].name);
    str_puts(&sql, ") VALUES (");
    for (int c = 0; c < N_COLUMNS; c++) str_puts(&sql, c ? ", ?" : "?");
    str_puts(&sql, ")");
    int failed = sql.failed ? -1 : 0;
    if (!failed && s->prepare_v2(t->db, sql.data, -1, &t->insert, NULL) != SQLITE_OK)
        failed = sqlite_fail(t->db, t->path, "write");
    str_free(&sql);
    return failed;
}

/* ---- adding ---- */

/* Is the number of a configuration taken? -1 on an error. */
static int is_taken(run_table *t, int64_t configuration) {
    const sqlite *s = sqlite_library();
    sqlite3_stmt *ask = NULL;
    static const char sql[] = "SELECT 1 FROM \"runs\" WHERE \"configuration\" = ? LIMIT 1";
    if (s->prepare_v2(t->db, sql, -1, &ask, NULL) != SQLITE_OK) return sqlite_fail(t->db, t->path, "read");
    s->bind_int64(ask, 1, configuration);
    int status = s->step(ask);
    if (status != SQLITE_ROW && status != SQLITE_DONE) status = sqlite_fail(t->db, t->path, "read");
    s->finalize(ask);
    return status == SQLITE_ROW ? 1 : status == SQLITE_DONE ? 0 : -1;
}

/* The number that a configuration has in the table: its own while it is one of those that were
 * there. Else it is counted from what was there with our first row, unless another program has
 * taken that number meanwhile. */
static int number_in_table(run_table *t, int64_t given, int64_t *out) {
    int64_t last;
    *out = given;
    if (given <= t->how.last_configuration) return 0;
    for (int64_t i = 0; i < t->n; i++)
        if (t->numbers[i].given == given) {
            *out = t->numbers[i].stored;
            return 0;
        }
    if (largest(t, COLUMN_configuration, &last)) return -1;
    if (!t->n && !t->how.last_configuration) t->offset = last;
    *out += t->offset;
    int taken = is_taken(t, *out);
    if (taken < 0) return -1;
    if (taken) *out = last + 1;
    if (t->n == t->capacity) {
        int64_t capacity = t->capacity ? 2 * t->capacity : 16;
        if (mem_resize((void **)&t->numbers, (size_t)capacity, sizeof *t->numbers, "a database")) return -1;
        t->capacity = capacity;
    }
    t->numbers[t->n++] = (number_pair){given, *out};
    return 0;
}

static int bind(run_table *t, int i, value v) {
    const sqlite *s = sqlite_library();
    switch (v.kind) {
    case VALUE_TEXT:
        return s->bind_text(t->insert, i, v.text, -1, NULL);
    case VALUE_NUMBER:
    case VALUE_BOOL:
        return s->bind_int64(t->insert, i, v.number);
    case VALUE_REAL:
        return s->bind_double(t->insert, i, v.real);
    case VALUE_NONE:
        break;
    }
    return s->bind_null(t->insert, i);
}

static int insert(run_table *t, const row *r) {
    const sqlite *s = sqlite_library();
    int64_t last_run, configuration;
    if (!t->insert && prepare(t)) return -1;
    if (largest(t, COLUMN_run, &last_run) ||
        number_in_table(t, r->cells[COLUMN_configuration].number, &configuration))
        return -1;
    int status = SQLITE_OK;
    for (int c = 0; c < N_COLUMNS && status == SQLITE_OK; c++) {
        value v = r->cells[c];
        if (c == COLUMN_run) v.number = last_run + 1;
        if (c == COLUMN_configuration) v.number = configuration;
        status = bind(t, c + 1, v);
    }
    if (status == SQLITE_OK) status = s->step(t->insert);
    int failed = status == SQLITE_DONE ? 0 : sqlite_fail(t->db, t->path, "write");
    s->reset(t->insert);
    return failed;
}

int table_add(run_table *t, const row *run) {
    int64_t n = t->n;
    if (t->other_file && remove(t->path)) return fail("cannot replace %s: %s", t->path, strerror(errno));
    t->other_file = false;
    if (begin(t)) return -1;
    int failed = (!t->ready && make_table(t)) || insert(t, run) || sqlite_exec(t->db, t->path, "COMMIT");
    t->ready = t->ready || !failed;
    if (failed) {
        t->n = n;
        sqlite_library()->exec(t->db, "ROLLBACK", NULL, NULL, NULL);
    }
    return failed ? -1 : 0;
}

void table_close(run_table *t) {
    if (!t) return;
    const sqlite *s = sqlite_library();
    if (t->insert) s->finalize(t->insert);
    if (t->db) s->close(t->db);
    free(t->numbers);
    free(t);
}
