/* share.c - how the rows that few tokens are multiplied with are shared out among threads.
 * Memory is read fastest in long runs, so each thread has rows of its own, which it reads as a few
 * runs from their beginnings to their ends; only what is left when another thread is done, that one
 * takes.
 */
#include "engine/cpu/cpu.h"

enum {
    LOG2_ROWS = 4,          /* of an item, 4 of each run: kernels do some things once for several */
    PART_BYTES = 16 * 1024, /* of rows: smaller parts are mostly waits for memory */
};

static int64_t items_of(const row_share *s, int i) {
    return (s->n_rows[i] + (1 << s->log2_rows) - 1) >> s->log2_rows;
}

row_share cpu_share(const cpu *e, int thread, const rows *w, const int64_t *n_rows, int n) {
    row_share s = {.n_rows = n_rows, .n = n, .log2_rows = LOG2_ROWS, .round = pool_round(e->pool, thread)};
    for (int i = 0, most = POOL_MOST / n; i < n; i++)
        while (items_of(&s, i) > most) s.log2_rows++;
    for (int i = 0; i < n; i++) s.items += items_of(&s, i);
    int64_t bytes = row_bytes_of(w) << s.log2_rows;
    s.least = bytes < PART_BYTES ? (PART_BYTES + (unsigned)bytes - 1) / (unsigned)bytes : 1;
    return s;
}

bool cpu_take_rows(const cpu *e, int thread, row_share *s, row_part *part) {
    pool_part *p = &s->taken;
    if (s->at == p->end) {
        while (!pool_take_part(e->pool, thread, s->round, s->items, s->least, s->others, p)) {
            if (s->others) return false;
            s->others = true;
        }
        s->at = p->first;
    }
    int64_t start = 0;
    int i = 0, log2_run = s->log2_rows - LOG2_RUNS;
    while (s->at >= start + items_of(s, i)) start += items_of(s, i++);
    int64_t whole = s->n_rows[i] >> s->log2_rows, first = s->at - start, base = whole << s->log2_rows;
    if (first == whole) { /* what is no whole item */
        *part = (row_part){.matrix = i, .base = base, .rows = {0, s->n_rows[i] - base, 0}};
        s->at++;
        return true;
    }
    int64_t own_first = p->own_first > start ? p->own_first - start : 0;
    int64_t own_end = p->own_end < start + whole ? p->own_end - start : whole;
    int64_t end = p->end < start + whole ? p->end - start : whole;
    *part = (row_part){.matrix = i,
                       .base = own_first << s->log2_rows,
                       .rows = {.first = (first - own_first) << log2_run,
                                .end = (end - own_first) << log2_run,
                                .apart = (own_end - own_first) << log2_run}};
    s->at = start + end;
    return true;
}
