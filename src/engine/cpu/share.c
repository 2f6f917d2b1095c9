/* share.c - how the rows that few tokens are multiplied with are shared out among threads.
 * Memory is read fastest in long runs, so each thread has rows of its own, which it reads as a few runs from
 * their beginnings to their ends; only what is left when another thread is done, that one takes.
 */
#include "engine/cpu/cpu.h"

enum {
    LEAST_ROWS = 4,         /* of each run in one part: kernels do some things once for several */
    PART_BYTES = 16 * 1024, /* of rows: smaller parts are mostly waits for memory */
};

static int64_t items_of(const row_share *s, int i) {
    return (s->n_rows[i] + RUNS * s->run_rows - 1) / (RUNS * s->run_rows);
}

row_share cpu_share(cpu *e, int thread, const rows *w, const int64_t *n_rows, int n) {
    row_share s = {.n_rows = n_rows, .n = n, .run_rows = LEAST_ROWS, .round = pool_round(e->pool, thread)};
    for (int i = 0; i < n; i++)
        while (n_rows[i] / (RUNS * s.run_rows) >= POOL_MOST / n) s.run_rows *= 2;
    for (int i = 0; i < n; i++) s.items += items_of(&s, i);
    int64_t bytes = RUNS * s.run_rows * row_bytes_of(w);
    s.least = (PART_BYTES + bytes - 1) / bytes;
    return s;
}

bool cpu_take_rows(cpu *e, int thread, row_share *s, bool others, row_part *part) {
    pool_part *p = &s->taken;
    if (s->at == p->end) {
        if (!pool_take_part(e->pool, thread, s->round, s->items, s->least, others, p)) return false;
        s->at = p->first;
    }
    int64_t start = 0, unit = RUNS * s->run_rows;
    int i = 0;
    while (s->at >= start + items_of(s, i)) start += items_of(s, i++);
    int64_t whole = s->n_rows[i] / unit, first = s->at - start;
    if (first == whole) { /* what is no whole item */
        *part = (row_part){.matrix = i, .base = whole * unit, .rows = {0, s->n_rows[i] - whole * unit, 0}};
        s->at++;
        return true;
    }
    int64_t own_first = p->own_first > start ? p->own_first - start : 0;
    int64_t own_end = p->own_end < start + whole ? p->own_end - start : whole;
    int64_t end = p->end < start + whole ? p->end - start : whole;
    *part = (row_part){.matrix = i,
                       .base = own_first * unit,
                       .rows = {.first = (first - own_first) * s->run_rows,
                                .end = (end - own_first) * s->run_rows,
                                .apart = (own_end - own_first) * s->run_rows}};
    s->at = start + end;
    return true;
}
