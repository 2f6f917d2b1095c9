/* seal.c - whether a result file is what was written: its seal, and whether its hashes and metrics
 * follow from its tokens and times.
 */
#include "results/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void hash_ids(const int32_t *ids, int64_t n, char out[HASH_CHARS]) {
    uint64_t hash = 14695981039346656037u;
    for (int64_t i = 0; i < 4 * n; i++) {
        uint8_t byte = (uint8_t)((uint32_t)ids[i / 4] >> (8 * (i % 4)));
        hash = (hash ^ byte) * 1099511628211u;
    }
    snprintf(out, HASH_CHARS, "%016" PRIx64, hash);
}

int seal_of(const json *root, char out[SEAL_CHARS]) {
    str text = {0};
    json_canonical(&text, root, "seal");
    hasher *h = text.failed || hash_open() ? NULL : hash_new(true);
    if (h) {
        hash_add(h, text.data, text.length);
        hash_end(h, out);
    }
    str_free(&text);
    return h ? 0 : -1;
}

int seal_check(const char *path, bool *sealed) {
    char found[SEAL_CHARS];
    file_map map;
    *sealed = false;
    if (file_map_open(&map, path)) return -1;
    json *root = map.size && *map.data == '{' ? json_parse(map.data, map.size, path) : NULL;
    file_map_close(&map);
    if (!root) error_clear(); /* no such file has a seal */
    const json *seal = json_get(root, "seal");
    const char *said = json_string(json_get(seal, "sha256"));
    int failed = 0;
    *sealed = seal != NULL;
    if (seal) failed = seal_of(root, found);
    if (seal && !failed && (!said || strcmp(said, found)))
        failed = fail_gate("%s: the seal is broken: the file was changed after it was written", path);
    json_free(root);
    return failed;
}

/* A metric that the raw sample of a file does not decide. */
static bool is_no_time(int metric) {
    if (COLUMN_FIRST_METRIC + metric == COLUMN_experts_touched) return true;
    const char *name = column_table[COLUMN_FIRST_METRIC + metric].name, *end = strrchr(name, '_');
    return end && !strcmp(end, "_gb");
}

int row_check(const row *r, str *wrong) {
    char hash[HASH_CHARS];
    row again;
    const sample *s = r->raw;
    size_t before = wrong->length;
    if (!s) return 0;
    hash_ids(s->ids, s->n_tokens * s->n_sequences, hash);
    value said = r->cells[COLUMN_ids_hash];
    if (said.kind != VALUE_TEXT || strcmp(said.text, hash)) str_puts(wrong, "ids_hash");
    if (s->n_tokens < 1) return wrong->length > before;
    row_of_run(&again, (run_number){0}, &(params){.model = NULL}, s, &(facts){.model_type = NULL});
    for (int i = 0; i < N_METRICS; i++) {
        int c = COLUMN_FIRST_METRIC + i;
        if (is_no_time(i) || value_equal(again.cells[c], r->cells[c])) continue;
        str_printf(wrong, "%s%s", wrong->length > before ? ", " : "", column_table[c].name);
    }
    return wrong->length > before;
}
