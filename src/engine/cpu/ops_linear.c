/* ops_linear.c - embedding and matrix products.
 * Few tokens: each row is read once, straight from the checkpoint. Many: a tile of rows is unpacked to F32
 * and stays in cache while all tokens pass. */
#include "engine/cpu/cpu.h"

enum {
    FEW_TOKENS = 4,          /* up to here unpacking does not pay */
    TILE_BYTES = 256 * 1024, /* of unpacked rows: about half of a small L2 cache */
    MIN_TILE_ROWS = 8,
    MAX_TILE_ROWS = 64,
    SMALLEST_GROUP = 32,
};

void cpu_embed(cpu *e, node *x, int thread) {
    (void)thread;
    const cpu_weight *w = cpu_weight_of(x, 0);
    const int32_t *ids = x->in[0]->data;
    int64_t n = x->shape[1], i, end;
    while (pool_take(&x->taken[0], x->shape[0], 1, &i, &end))
        e->kernels->unpack(floats_of(x) + i * n, &w->rows, ids[i]);
}

static int64_t tile_rows(const rows *w) {
    int64_t n = TILE_BYTES / (w->n * (int64_t)sizeof(float));
    return n < MIN_TILE_ROWS ? MIN_TILE_ROWS : n > MAX_TILE_ROWS ? MAX_TILE_ROWS : n;
}

int64_t cpu_tile_floats(const rows *w) {
    return (tile_rows(w) + 1) * w->n;
}

void cpu_multiply(const cpu *e, float *out, int64_t out_stride, const rows *w, int64_t first, int64_t end,
                  const float *x, int64_t x_stride, int64_t n_tokens, float *tile) {
    const kernels *k = e->kernels;
    if (n_tokens <= FEW_TOKENS) {
        for (int64_t t = 0; t < n_tokens; t++) {
            const float *row = x + t * x_stride;
            if (w->bits) k->group_sums(tile, row, w->n, w->group_size);
            k->matvec(out + t * out_stride, w, first, end, row, tile);
        }
        return;
    }
    int64_t step = tile_rows(w);
    bool in_place = !w->bits && w->dtype == DTYPE_F32 && (uintptr_t)w->values % sizeof(float) == 0;
    for (int64_t r = first; r < end; r += step) {
        int64_t n = end - r < step ? end - r : step;
        const float *unpacked = in_place ? (const float *)w->values + r * w->n : tile;
        for (int64_t i = 0; i < n && !in_place; i++) k->unpack(tile + i * w->n, w, r + i);
        k->matmul(out + r, out_stride, x, x_stride, n_tokens, unpacked, n, w->n);
    }
}

int64_t cpu_rows_per_piece(const cpu *e, int64_t n_rows, int64_t n_tokens) {
    int64_t n = n_rows / ((int64_t)e->threads * 8), most = n_tokens > FEW_TOKENS ? MAX_TILE_ROWS : 256;
    if (e->threads == 1) return n_rows; /* nobody to share with */
    n = (n + MIN_TILE_ROWS - 1) / MIN_TILE_ROWS * MIN_TILE_ROWS;
    return n < 2 * MIN_TILE_ROWS ? 2 * MIN_TILE_ROWS : n > most ? most : n;
}

/* ---- BF16 panels: kernels.h ---- */

static bool uses_panels(const cpu *e, const node *x) {
    return e->kernels->pack_rows && x->in[0]->dtype == DTYPE_BF16 && x->shape[0] > FEW_TOKENS;
}

/* Numbers of a panel with n columns, of one row or token. */
static int64_t panel_columns(int64_t n) {
    return (n + 31) / 32 * 32;
}

static int64_t panel_tile_rows(const cpu *e, int64_t n) {
    int64_t fit = TILE_BYTES / (panel_columns(n) * (int64_t)sizeof(uint16_t)),
            least = 2 * e->kernels->panel_rows;
    return fit < least ? least : fit > MAX_TILE_ROWS ? MAX_TILE_ROWS : fit / least * least;
}

static int64_t token_panels(const cpu *e, const node *x) {
    return (x->shape[0] + e->kernels->panel_tokens - 1) / e->kernels->panel_tokens;
}

size_t cpu_linear_workspace(const cpu *e, const node *x) {
    if (!uses_panels(e, x)) return 0;
    return (size_t)(token_panels(e, x) * e->kernels->panel_tokens * panel_columns(x->in[0]->shape[1])) *
           sizeof(uint16_t);
}

size_t cpu_linear_scratch(const cpu *e, const node *x) {
    const rows *w = &cpu_weight_of(x, 0)->rows;
    int64_t floats = x->shape[0] > FEW_TOKENS ? cpu_tile_floats(w) : w->n / SMALLEST_GROUP + 1;
    if (uses_panels(e, x))
        floats = e->kernels->panel_rows * w->n + panel_tile_rows(e, w->n) * panel_columns(w->n) / 2;
    return (size_t)floats * sizeof(float);
}

static void add_bias(const cpu_weight *w, float *out, int64_t n_tokens, int64_t first, int64_t end) {
    for (int64_t t = 0; t < n_tokens && w->bias; t++)
        for (int64_t r = first; r < end; r++) out[t * w->base.shape[0] + r] += w->bias[r];
}

static void linear_panels(cpu *e, node *x, int thread) {
    const cpu_weight *w = cpu_weight_of(x, 0);
    const kernels *k = e->kernels;
    const float *in = floats_of(x->in[0]);
    int64_t n = w->rows.n, width = panel_columns(n), n_tokens = x->shape[0], first, end;
    uint16_t *tokens = x->workspace, *tile = (uint16_t *)(void *)e->thread_scratch[thread];
    float *scratch = (float *)(void *)(tile + panel_tile_rows(e, n) * width);
    while (pool_take(&x->taken[0], token_panels(e, x), 1, &first, &end)) {
        int64_t t = first * k->panel_tokens, rest = n_tokens - t;
        k->pack_tokens(tokens + t * width, in + t * n, n, rest < k->panel_tokens ? rest : k->panel_tokens, n);
    }
    pool_barrier(e->pool, thread);
    while (pool_take(&x->taken[1], x->shape[1], panel_tile_rows(e, n), &first, &end)) {
        for (int64_t r = first; r < end; r += k->panel_rows)
            k->pack_rows(tile + (r - first) * width, &w->rows, r,
                         end - r < k->panel_rows ? end - r : k->panel_rows, scratch);
        k->multiply_panels(floats_of(x) + first, x->shape[1], tokens, n_tokens, tile, end - first, n);
        add_bias(w, floats_of(x), n_tokens, first, end);
    }
}

void cpu_linear(cpu *e, node *x, int thread) {
    const cpu_weight *w = cpu_weight_of(x, 0);
    float *tile = (float *)(void *)e->thread_scratch[thread], *out = floats_of(x);
    int64_t n_tokens = x->shape[0], n_rows = x->shape[1], first, end;
    if (uses_panels(e, x)) {
        linear_panels(e, x, thread);
        return;
    }
    int64_t step = cpu_rows_per_piece(e, n_rows, n_tokens);
    while (pool_take(&x->taken[0], n_rows, step, &first, &end)) {
        cpu_multiply(e, out, n_rows, &w->rows, first, end, floats_of(x->in[0]), w->rows.n, n_tokens, tile);
        add_bias(w, out, n_tokens, first, end);
    }
}
