/* history.c - `mlxbench history`: what `bench --history` has kept, how it went over time, and where
 * it changed. The statistics are in results/, the tables in report/.
 */
#include "cmd/cmd.h"
#include "cmd/kept.h"
#include "report/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static const option_usage usage = {
    .synopsis = "mlxbench history [COLUMN=VALUE...] [options]",
    .about =
        "Shows the runs that bench --history has kept: a line for each configuration with its last speeds "
        "and how they differ from those before. Below it stands where a speed changed for good. "
        "COLUMN=VALUE shows only rows with that value; of a text, a part is enough.",
    .example = "mlxbench history model=SmolLM2 n_prompt=512 --each\nhow the speed of a model went over time",
};

int kept_path(str *path) {
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (data && *data == '/')
        str_printf(path, "%s/mlxbench/history.sqlite", data);
    else if (home && *home)
        str_printf(path, "%s/.local/share/mlxbench/history.sqlite", home);
    else
        return fail("there is no place for a history: neither XDG_DATA_HOME nor HOME is set");
    return path->failed ? -1 : 0;
}

int kept_make_folder(const char *path) {
    str folder = {0};
    int failed = 0;
    for (const char *slash = strchr(path + 1, '/'); slash && !failed; slash = strchr(slash + 1, '/')) {
        str_clear(&folder);
        str_append(&folder, path, (size_t)(slash - path));
        if (folder.failed)
            failed = -1;
        else if (mkdir(folder.data, 0777) && errno != EEXIST && !dir_exists(folder.data))
            failed = fail("cannot make the folder %s: %s", folder.data, strerror(errno));
    }
    str_free(&folder);
    return failed;
}

static bool is_wanted(const row *r, int c, const char *wanted) {
    str text = {0};
    value_put(&text, r->cells[c], 9, "none");
    bool same = text.data && (r->cells[c].kind == VALUE_TEXT ? strstr(text.data, wanted) != NULL
                                                             : !strcmp(text.data, wanted));
    str_free(&text);
    return same;
}

/* Keeps the rows that have the value. */
static int filter(results *r, const char *text) {
    const char *equals = strchr(text, '=');
    char name[64];
    if (!equals || (size_t)(equals - text) >= sizeof name)
        return fail_usage("history: \"%s\" is not COLUMN=VALUE", text);
    memcpy(name, text, (size_t)(equals - text));
    name[equals - text] = '\0';
    int c = column_find(name);
    if (c < 0) return fail_usage("history: there is no column \"%s\"; docs/metrics.md lists them", name);
    int64_t n = 0;
    for (int64_t i = 0; i < r->n; i++)
        if (is_wanted(&r->runs[i], c, equals + 1)) r->runs[n++] = r->runs[i];
    r->n = n;
    return 0;
}

typedef struct command {
    option_texts filters;
    const char *db, *form;
    bool each;
    results kept;
    trends trends;
    str path, out;
} command;

static int show(command *c) {
    if (strcmp(c->form, "text") && strcmp(c->form, "json"))
        return fail_usage("--format: \"%s\" is not one of text,json", c->form);
    if (c->db) str_puts(&c->path, c->db);
    if (c->path.failed || (!c->db && kept_path(&c->path))) return -1;
    if (!file_exists(c->path.data))
        return fail("there is no history yet in %s; mlxbench bench --history begins one", c->path.data);
    if (results_read(&c->kept, c->path.data)) return -1;
    for (int i = 0; i < c->filters.n; i++)
        if (filter(&c->kept, c->filters.items[i])) return -1;
    if (results_trends(&c->trends, &c->kept)) return -1;
    if (!c->trends.n && !strcmp(c->form, "text"))
        return fail("%s has no successful run%s", c->path.data, c->filters.n ? " with these values" : "");
    if (report_history(&c->out, c->form, &c->trends, c->each)) return -1;
    fwrite(c->out.data, 1, c->out.length, stdout);
    return 0;
}

int cmd_history(int argc, char **argv) {
    command c = {.form = "text"};
    const option options[] = {
        {.metavar = "COLUMN=VALUE",
         .kind = OPTION_TEXTS,
         .value = &c.filters,
         .help = "only rows with this value"},
        {.name = "db",
         .metavar = "FILE",
         .kind = OPTION_TEXT,
         .value = &c.db,
         .help = "another database, or any result file (XDG_DATA_HOME/mlxbench/history.sqlite)"},
        {.name = "each",
         .kind = OPTION_FLAG,
         .value = &c.each,
         .help = "a line for each time that a configuration was measured"},
        {.name = "format",
         .short_name = "f",
         .metavar = "FORMAT",
         .kind = OPTION_TEXT,
         .value = &c.form,
         .help = "text or json (text)"},
    };
    int done = options_parse(options, sizeof options / sizeof *options, &usage, argc, argv);
    if (!done) done = show(&c);
    trends_free(&c.trends);
    results_free(&c.kept);
    str_free(&c.path);
    str_free(&c.out);
    return done < 0 ? -1 : 0;
}
