/* compare.c - `mlxbench compare A B...`: result files against the first one, with what is sure and
 * what may be chance. The statistics are in results/, the tables in report/.
 */
#include "cmd/cmd.h"
#include "cmd/gate.h"
#include "report/report.h"

#include <stdio.h>

static const option_usage usage = {
    .synopsis = "mlxbench compare A B... [options]",
    .about =
        "Compares result files (csv, json, jsonl, sql or sqlite of bench) with the first one: for each "
        "configuration that "
        "both "
        "have, the change of the median speed, its 95 % interval, and \"~\" where the difference may be "
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

static int compare_all(command *c) {
    results before = {0};
    if (c->files.n < 2)
        return fail_usage("compare needs two or more result files; see mlxbench compare --help");
    if (gate_parse(&c->gate)) return -1;
    int failed = results_read(&before, c->files.items[0]);
    for (int i = 1; i < c->files.n && !failed; i++) {
        results after = {0};
        comparison found = {0};
        failed = results_read(&after, c->files.items[i]) || results_compare(&found, &before, &after);
        if (!failed) gate_add(&c->gate, &found);
        failed = failed ||
                 report_comparison(&c->out, c->form, c->files.items[0], c->files.items[i], &found, i == 1);
        comparison_free(&found);
        results_free(&after);
    }
    results_free(&before);
    if (!failed) report_comparison_end(&c->out, c->form);
    if (failed || c->out.failed) return -1;
    fwrite(c->out.data, 1, c->out.length, stdout);
    return gate_result(&c->gate);
}

int cmd_compare(int argc, char **argv) {
    command c = {.form = "text"};
    const option options[] = {
        {.metavar = "A B...",
         .kind = OPTION_TEXTS,
         .value = &c.files,
         .help = "result files: csv, json, jsonl, sql or sqlite"},
        {.name = "format",
         .short_name = "f",
         .metavar = "FORMAT",
         .kind = OPTION_TEXT,
         .value = &c.form,
         .help = "text, md, csv, json or junit (text)"},
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
