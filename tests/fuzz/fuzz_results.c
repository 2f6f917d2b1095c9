/* fuzz_results.c - a result file, whatever it holds: rows that can be summed up, or an error.
 * What libFuzzer calls with its changes to the files in tests/fuzz/results. */
#include "results/results.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads every value of a row, as a format would. */
static int use(void *context, const row *r) {
    str text = {0};
    for (int c = 0; c < N_COLUMNS; c++) {
        if (r->cells[c].kind != VALUE_NONE && r->cells[c].kind != column_table[c].kind) abort();
        value_put(&text, r->cells[c], 9, "");
    }
    for (int64_t i = 0; r->raw && i < r->raw->n_tokens; i++)
        str_printf(&text, "%d", (int)r->raw->ids[i] + (r->raw->token_ns[i] > 0));
    if ((r->kind == ROW_SUMMARY) != (r->spreads != NULL)) abort();
    *(int64_t *)context += (int64_t)text.length;
    str_free(&text);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    results r = {0};
    int64_t used = 0;
    error_clear();
    int failed = results_parse(&r, (const char *)data, size, "results");
    if (failed && !*error_message()) abort();
    if (!failed && results_each(&r, use, &used)) abort();
    results_free(&r);
    return 0;
}
