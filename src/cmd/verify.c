/* verify.c - `mlxbench verify FILE...`: is a result file what was written, and do its hashes and
 * speeds follow from its tokens and times?
 */
#include "cmd/cmd.h"
#include "results/results.h"

#include <stdio.h>

static const option_usage usage = {
    .synopsis = "mlxbench verify FILE...",
    .about =
        "Checks result files: the seal of a file that bench -o share made, and, where a file has the raw "
        "samples (share, jsonl), that ids_hash and all times follow from them. A seal shows changes by "
        "accident; it is no signature. Ends with exit code 3 when something is wrong.",
    .example = "mlxbench verify result.json\nis this file what mlxbench wrote?",
};

static int check_rows(const char *path, const results *r, int64_t *n_raw) {
    str wrong = {0};
    int failed = 0;
    for (int64_t i = 0; i < r->n && !failed; i++) {
        *n_raw += r->runs[i].raw != NULL;
        if (row_check(&r->runs[i], &wrong) && !wrong.failed)
            failed = fail_gate("%s, row %lld: %s: not what follows from its tokens and times", path,
                               (long long)i + 1, wrong.data);
    }
    str_free(&wrong);
    return failed;
}

static int verify(const char *path) {
    results r = {0};
    bool sealed;
    int64_t n_raw = 0;
    int failed = seal_check(path, &sealed) || results_read(&r, path) || check_rows(path, &r, &n_raw) ? -1 : 0;
    if (!failed && !sealed && !n_raw)
        failed =
            fail("%s has no seal and no raw samples, so nothing can be verified; bench -o share and -o jsonl "
                 "write them",
                 path);
    if (!failed)
        printf("%s: %s; %lld of %lld runs have raw samples, from which their hashes and times follow\n", path,
               sealed ? "the seal is intact" : "it has no seal", (long long)n_raw, (long long)r.n);
    results_free(&r);
    return failed;
}

int cmd_verify(int argc, char **argv) {
    option_texts files = {0};
    const option options[] = {
        {.metavar = "FILE",
         .kind = OPTION_TEXTS,
         .value = &files,
         .help = "a result file: share, jsonl or json"},
    };
    int done = options_parse(options, sizeof options / sizeof *options, &usage, argc, argv);
    if (!done && !files.n) done = fail_usage("verify needs a result file; see mlxbench verify --help");
    for (int i = 0; !done && i < files.n; i++) done = verify(files.items[i]);
    return done < 0 ? -1 : 0;
}
