/* report.c - `mlxbench report FILE`: rows from a result file to any output, as if they had just
 * been measured. Medians and intervals are computed again from the runs.
 */
#include "report/report.h"
#include "cmd/cmd.h"

#include <stdio.h>

static const option_usage usage = {
    .synopsis = "mlxbench report FILE [options]",
    .about =
        "Shows the results in FILE, which bench wrote as csv, json, jsonl, sql or sqlite, or llama-bench "
        "in any form: a line per configuration with the median of its runs, or any other format.",
    .example = "mlxbench report results.csv -o md -o json:results.json\na table to read, and the same rows "
               "in another format",
};

static int write_row(void *context, const row *r) {
    return reports_row(context, r);
}

static int show(const option_texts *files, const option_texts *outputs, report_options *options) {
    results found = {0};
    if (files->n != 1) return fail_usage("report needs one result file; see mlxbench report --help");
    options->inputs = files->items;
    options->n_inputs = 1;
    options->at_end = true;
    int failed = results_read(&found, files->items[0]);
    reports *to = failed ? NULL : reports_open(outputs, options, &found.sweep);
    if (!to) failed = -1;
    if (to) failed = results_each(&found, write_row, to);
    if (to && reports_close(to)) failed = -1;
    results_free(&found);
    return failed ? -1 : 0;
}

static int print_schema(void) {
    str text = {0};
    report_schema(&text);
    int failed = text.failed ? -1 : 0;
    if (!failed) fwrite(text.data, 1, text.length, stdout);
    str_free(&text);
    return failed;
}

int cmd_report(int argc, char **argv) {
    option_texts files = {0}, outputs = {0};
    bool schema = false;
    report_options how = {0};
    str help = {0};
    report_output_help(&help);
    const option options[] = {
        {.metavar = "FILE",
         .kind = OPTION_TEXTS,
         .value = &files,
         .help = "a result file: csv, json, jsonl, sql or sqlite, or llama-bench's"},
        {.name = "output",
         .short_name = "o",
         .metavar = "FORMAT[:FILE]",
         .kind = OPTION_TEXTS,
         .value = &outputs,
         .help = help.data},
        {.name = "force",
         .kind = OPTION_FLAG,
         .value = &how.force,
         .help = "replace result files that are there"},
        {.name = "schema",
         .kind = OPTION_FLAG,
         .value = &schema,
         .help = "print the JSON Schema of json and jsonl, and of what hwinfo, compare and history print, "
                 "instead"},
    };
    int done =
        help.failed ? -1 : options_parse(options, sizeof options / sizeof *options, &usage, argc, argv);
    if (!done && schema)
        done = print_schema();
    else if (!done)
        done = show(&files, &outputs, &how);
    str_free(&help);
    return done < 0 ? -1 : 0;
}
