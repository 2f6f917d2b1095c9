/* compare.c - `mlxbench compare A B...`: result files against the first one, with what is sure and
 * what may be chance. The statistics are in results/, the tables in report/.
 */
#include "cmd/cmd.h"
#include "cmd/gate.h"
#include "report/report.h"

#include <stdio.h>
#include <stdlib.h>

static const option_usage usage = {
    .synopsis = "mlxbench compare A B... [options]",
    .about =
        "Compares result files (csv, json, jsonl, sql or sqlite of bench, or llama-bench's in any form) with "
        "the first one: for each configuration that both have, the change of the median speed, its 95 % "
        "interval, and \"~\" where the difference may be "
        "chance. A "
        "parameter with one value in each file may differ between them. With fewer than 5 runs each, every "
        "difference may be chance; with more configurations it takes more.",
    .example = "mlxbench compare before.csv after.csv\nwhat changed between two series of runs of the same "
               "configurations",
};

typedef struct command {
    option_texts files;
    const char *form;
    gate gate;
    str out;
} command;

/* Each file with the first one. */
static int compare_files(command *c, const results *files) {
    const char *const *names = c->files.items;
    for (int i = 1; i < c->files.n; i++) {
        comparison found = {0};
        int failed = results_compare(&found, &files[0], &files[i]);
        if (!failed) gate_add(&c->gate, &found);
        failed = failed || report_comparison(&c->out, c->form, names[0], names[i], &found, i == 1);
        comparison_free(&found);
        if (failed) return -1;
    }
    if (!strcmp(c->form, "benchfmt")) report_benchfmt(&c->out, names, files, c->files.n);
    report_comparison_end(&c->out, c->form);
    return c->out.failed ? -1 : 0;
}

static int compare_all(command *c) {
    if (c->files.n < 2)
        return fail_usage("compare needs two or more result files; see mlxbench compare --help");
    if (gate_parse(&c->gate)) return -1;
    results *files = mem_new((size_t)c->files.n, sizeof *files, "the results");
    int failed = !files;
    for (int i = 0; i < c->files.n && !failed; i++) failed = results_read(&files[i], c->files.items[i]);
    if (!failed) failed = compare_files(c, files);
    for (int i = 0; i < c->files.n && files; i++) results_free(&files[i]);
    free(files);
    if (failed) return -1;
    fwrite(c->out.data, 1, c->out.length, stdout);
    return gate_result(&c->gate);
}

int cmd_compare(int argc, char **argv) {
    command c = {.form = "text"};
    const option options[] = {
        {.metavar = "A B...",
         .kind = OPTION_TEXTS,
         .value = &c.files,
         .help = "result files: csv, json, jsonl, sql or sqlite, or llama-bench's"},
        {.name = "format",
         .short_name = "f",
         .metavar = "FORMAT",
         .kind = OPTION_TEXT,
         .value = &c.form,
         .help = "text, md, csv, json, junit, annotations (GitHub) or benchfmt (Go's benchstat) (text)"},
        {.name = "fail-slower",
         .metavar = "PERCENT",
         .kind = OPTION_TEXT,
         .value = &c.gate.fail_slower,
         .help = FAIL_SLOWER_HELP},
    };
    int done = options_parse(options, sizeof options / sizeof *options, &usage, argc, argv);
    if (!done) done = compare_all(&c);
    str_free(&c.out);
    return done < 0 ? -1 : 0;
}
