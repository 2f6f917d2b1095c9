/* compare.c - `mlxbench compare A B...`: result files against the first one, with what is sure and what may
 * be chance. The statistics are in results/, the tables in report/.
 */
#include "cmd/cmd.h"
#include "report/report.h"

#include <stdio.h>

static const option_usage usage = {
    .synopsis = "mlxbench compare A B... [options]",
    .about =
        "Compares result files (csv, json or jsonl of bench) with the first one: for each configuration that "
        "both have, the "
        "change of the median speed, its 95 % interval, and \"~\" where the difference may be chance. A "
        "parameter "
        "with one value in each file may differ between them. At least 4 runs each are needed for a verdict.",
    .example = "mlxbench compare before.csv after.csv\nwhat changed between two series of runs of the same "
               "configurations",
};

static int compare_all(const option_texts *files, const char *form, str *out) {
    results before = {0};
    if (files->n < 2)
        return fail_usage("compare needs two or more result files; see mlxbench compare --help");
    int failed = results_read(&before, files->items[0]);
    for (int i = 1; i < files->n && !failed; i++) {
        results after = {0};
        comparison c = {0};
        failed = results_read(&after, files->items[i]) || results_compare(&c, &before, &after) ||
                 report_comparison(out, form, files->items[0], files->items[i], &c, i == 1);
        comparison_free(&c);
        results_free(&after);
    }
    results_free(&before);
    if (!failed) report_comparison_end(out, form);
    return failed || out->failed ? -1 : 0;
}

int cmd_compare(int argc, char **argv) {
    option_texts files = {0};
    const char *form = "text";
    str out = {0};
    const option options[] = {
        {.metavar = "A B...",
         .kind = OPTION_TEXTS,
         .value = &files,
         .help = "result files: csv, json or jsonl"},
        {.name = "format",
         .short_name = "f",
         .metavar = "FORMAT",
         .kind = OPTION_TEXT,
         .value = &form,
         .help = "text, md, csv or json (text)"},
    };
    int done = options_parse(options, sizeof options / sizeof *options, &usage, argc, argv);
    if (!done) done = compare_all(&files, form, &out);
    if (!done && out.length) fwrite(out.data, 1, out.length, stdout);
    str_free(&out);
    return done < 0 ? -1 : 0;
}
