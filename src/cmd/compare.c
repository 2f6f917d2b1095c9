/* compare.c - `mlxbench compare A B...`: result files against the first one, with what is sure and
 * what may be chance. The statistics are in results/, the tables in report/.
 */
#include "cmd/cmd.h"
#include "cmd/units.h"
#include "report/report.h"

#include <stdio.h>

static const option_usage usage = {
    .synopsis = "mlxbench compare A B... [options]",
    .about =
        "Compares result files (csv, json or jsonl of bench) with the first one: for each configuration that "
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
    const char *form, *fail_slower; /* NULL: not given */
    double limit;                   /* fail_slower as a ratio of speeds */
    int n_slower;                   /* differences beyond it */
    int n_disturbed;                /* that can't be judged */
    double slowest;
    str out;
} command;

static int parse_limit(command *c) {
    double loss = 0;
    if (parse_percent(c->fail_slower, "--fail-slower", &loss)) return -1;
    c->limit = 1 - loss;
    return 0;
}

static void check_limit(command *c, const comparison *found) {
    for (int64_t i = 0; i < found->n && c->fail_slower; i++) {
        const difference *d = &found->items[i];
        c->n_disturbed += difference_is_disturbed(d);
        if (difference_is_disturbed(d) || !difference_is_sure(d) || d->ratio >= c->limit) continue;
        if (!c->n_slower++ || d->ratio < c->slowest) c->slowest = d->ratio;
    }
}

static int compare_all(command *c) {
    results before = {0};
    if (c->files.n < 2)
        return fail_usage("compare needs two or more result files; see mlxbench compare --help");
    if (parse_limit(c)) return -1;
    int failed = results_read(&before, c->files.items[0]);
    for (int i = 1; i < c->files.n && !failed; i++) {
        results after = {0};
        comparison found = {0};
        failed = results_read(&after, c->files.items[i]) || results_compare(&found, &before, &after);
        found.only_quiet = c->fail_slower != NULL;
        failed = failed ||
                 report_comparison(&c->out, c->form, c->files.items[0], c->files.items[i], &found, i == 1);
        if (!failed) check_limit(c, &found);
        comparison_free(&found);
        results_free(&after);
    }
    results_free(&before);
    if (!failed) report_comparison_end(&c->out, c->form);
    if (failed || c->out.failed) return -1;
    fwrite(c->out.data, 1, c->out.length, stdout);
    if (c->n_disturbed)
        fprintf(stderr,
                "mlxbench: note: %d line%s not comparable, since a side's quality is below B: its rows' "
                "quality_reasons say why\n",
                c->n_disturbed, c->n_disturbed > 1 ? "s are" : " is");
    if (!c->n_slower) return 0;
    return fail_gate("%d difference%s beyond --fail-slower %s, the largest %.1f %%", c->n_slower,
                     c->n_slower > 1 ? "s are" : " is", c->fail_slower, 100 * (1 - c->slowest));
}

int cmd_compare(int argc, char **argv) {
    command c = {.form = "text"};
    const option options[] = {
        {.metavar = "A B...",
         .kind = OPTION_TEXTS,
         .value = &c.files,
         .help = "result files: csv, json or jsonl"},
        {.name = "format",
         .short_name = "f",
         .metavar = "FORMAT",
         .kind = OPTION_TEXT,
         .value = &c.form,
         .help = "text, md, csv or json (text)"},
        {.name = "fail-slower",
         .metavar = "PERCENT",
         .kind = OPTION_TEXT,
         .value = &c.fail_slower,
         .help =
             "end with exit code 3 when a speed is lower by more than PERCENT, that is no chance, and both "
             "sides have a quality of A or B"},
    };
    int done = options_parse(options, sizeof options / sizeof *options, &usage, argc, argv);
    if (!done) done = compare_all(&c);
    str_free(&c.out);
    return done < 0 ? -1 : 0;
}
