/* ops_experts.c - running the experts that ops_route.c chose.
 * Tokens are grouped by expert, so that each chosen expert's weights are read once per block of
 * tokens. */
#include "engine/cpu/cpu.h"

enum { BLOCK_TOKENS = 512 }; /* bounds the workspace of a long prefill chunk */

/* A block's (token, choice) pairs, ordered by expert: pair order[j] belongs to token order[j] /
 * k. */
typedef struct block {
    int64_t first_token, n_tokens, n_pairs;
    int32_t *start;          /* of each expert's pairs in order, n_experts + 1 of them */
    int32_t *order, *place;  /* [n_pairs]; place is its inverse, -1: the expert has no matrices */
    int32_t *used;           /* [1 + n_experts]: how many experts have pairs, and which */
    float *in;               /* [n_pairs, D] inputs, gathered; then the down products */
    float *gate, *up;        /* [n_pairs, I] */
    char *prepared, *panels; /* the inputs as cpu_prepare and cpu_pack_tokens make them */
    size_t prepared_bytes;   /* of one pair */
    atomic_long *taken;      /* work sharing: PHASES counters */
} block;

/* Experts without a gate have their only other matrix in its place, and no UP. */
enum { GATE, UP, DOWN, WEIGHTS, PHASES = 2 * WEIGHTS + 1 };

static int64_t count_blocks(const node *x) {
    return (x->shape[0] + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
}

static const products *products_of(const cpu *e, const node *x, int which) {
    return cpu_products(e, &cpu_weight_of(x, which)->rows, x->in[0]->dtype, which == DOWN);
}

/* One preparation of an input serves both. */
static bool same_kind(const node *x, int a, int b) {
    const rows *v = &cpu_weight_of(x, a)->rows, *w = &cpu_weight_of(x, b)->rows;
    return v->kind == w->kind && v->bits == w->bits && v->group_size == w->group_size && v->dtype == w->dtype;
}

/* Panels of an expert begin where they would if all pairs before it filled whole ones, and one more
 * each. */
static int64_t first_panel(const products *p, const block *b, int64_t expert) {
    return p ? b->start[expert] / p->panel_tokens + expert : 0;
}

static void *carve(char **at, size_t n) {
    char *start = *at;
    *at += (n + 63) / 64 * 64;
    return start;
}

static size_t lay_out(const cpu *e, const node *x, char *base, block *b) {
    int64_t tokens = x->shape[0] < BLOCK_TOKENS ? x->shape[0] : BLOCK_TOKENS, k = x->in[1]->shape[1];
    int64_t n_experts = x->w[0]->shape[0];
    size_t pairs = (size_t)(tokens * k), width = (size_t)x->w[0]->shape[1], d = (size_t)x->shape[1],
           panels = 0;
    b->prepared_bytes = 0;
    for (int i = 0; i < WEIGHTS; i++) {
        if (!x->w[i]) continue;
        const products *p = products_of(e, x, i);
        const rows *w = &cpu_weight_of(x, i)->rows;
        size_t one = cpu_prepared_bytes(p, w);
        b->prepared_bytes = one > b->prepared_bytes ? one : b->prepared_bytes;
        size_t all = p && !cpu_are_few(p, w, (int64_t)pairs)
                         ? (size_t)(cpu_token_panels(p, (int64_t)pairs) + n_experts) * p->token_panel_bytes(w)
                         : 0;
        panels = all > panels ? all : panels;
    }
    char *at = base;
    b->taken = carve(&at, PHASES * (size_t)count_blocks(x) * sizeof *b->taken);
    b->in = carve(&at, pairs * d * sizeof(float));
    b->gate = carve(&at, pairs * width * sizeof(float));
    b->up = carve(&at, pairs * width * sizeof(float));
    b->prepared = carve(&at, pairs * b->prepared_bytes);
    b->panels = carve(&at, panels);
    b->start = carve(&at, (size_t)(n_experts + 1) * sizeof(int32_t));
    b->used = carve(&at, (size_t)(n_experts + 1) * sizeof(int32_t));
    b->order = carve(&at, pairs * sizeof(int32_t));
    b->place = carve(&at, pairs * sizeof(int32_t));
    return (size_t)(at - base);
}

/* Counting sort of the block's pairs by expert. By one thread. */
static void sort_pairs(const cpu *e, const node *x, block *b) {
    int64_t k = x->in[1]->shape[1], n_experts = x->w[0]->shape[0];
    const routed *routing = (const routed *)state_of(e, x->in[1])->data + b->first_token * k;
    memset(b->start, 0, (size_t)(n_experts + 1) * sizeof *b->start);
    for (int64_t i = 0; i < b->n_pairs; i++)
        if (routing[i].expert < n_experts) b->start[routing[i].expert + 1]++;
    b->used[0] = 0;
    for (int32_t i = 0; i < n_experts; i++) {
        if (b->start[i + 1]) b->used[++b->used[0]] = i;
        b->start[i + 1] += b->start[i];
    }
    for (int64_t i = 0; i < b->n_pairs; i++) {
        b->place[i] = routing[i].expert < n_experts ? b->start[routing[i].expert]++ : -1;
        if (b->place[i] >= 0) b->order[b->place[i]] = (int32_t)i;
    }
    memmove(b->start + 1, b->start, (size_t)n_experts * sizeof *b->start);
    b->start[0] = 0;
}

/* Brings an expert's inputs [.., n] into the form its weight is multiplied with. */
static void prepare_expert(const cpu *e, const node *x, int which, const block *b, int64_t expert,
                           const float *in) {
    const products *p = products_of(e, x, which);
    const rows *w = &cpu_weight_of(x, which)->rows;
    int64_t start = b->start[expert], n_pairs = b->start[expert + 1] - start;
    bool few = cpu_are_few(p, w, n_pairs);
    in += start * w->n;
    for (int64_t j = 0; j < n_pairs && few; j++)
        cpu_prepare(e, p, b->prepared + (size_t)(start + j) * b->prepared_bytes, w, in + j * w->n);
    if (few || !p) return;
    char *panels = b->panels + (size_t)first_panel(p, b, expert) * p->token_panel_bytes(w);
    for (int64_t i = 0; i < cpu_token_panels(p, n_pairs); i++) cpu_pack_tokens(p, panels, w, i, in, n_pairs);
}

/* An expert's input is x's, or that times its weight. */
static void take_input(const node *x, float *to, const float *from, const routed *by) {
    float factor = x->in[1]->route.on_input ? by->weight : 1;
    for (int64_t i = 0; i < x->shape[1]; i++) to[i] = from[i] * factor;
}

/* What an expert's result is multiplied with. */
static float weight_of_result(const node *x, const routed *by) {
    return x->in[1]->route.on_input ? 1 : by->weight;
}

/* The block's inputs, gathered by expert and prepared. */
static void take_inputs(const cpu *e, const node *x, const block *b, atomic_long *taken) {
    int64_t k = x->in[1]->shape[1], d = x->shape[1], i, end;
    const float *in = (const float *)state_of(e, x->in[0])->data + b->first_token * d;
    const routed *routing = (const routed *)state_of(e, x->in[1])->data + b->first_token * k;
    while (pool_take(taken, b->used[0], 1, &i, &end)) {
        int32_t expert = b->used[1 + i];
        for (int64_t j = b->start[expert]; j < b->start[expert + 1]; j++)
            take_input(x, b->in + j * d, in + b->order[j] / k * d, &routing[b->order[j]]);
        prepare_expert(e, x, GATE, b, expert, b->in);
    }
}

static void prepare_again(const cpu *e, const node *x, int which, const block *b, atomic_long *taken) {
    int64_t i, end;
    while (pool_take(taken, b->used[0], 1, &i, &end)) prepare_expert(e, x, which, b, b->used[1 + i], b->in);
}

/* gate = act(gate) * up, prepared for the down products. */
static void activate_pairs(const cpu *e, const node *x, const block *b, atomic_long *taken) {
    int64_t width = x->w[0]->shape[1], i, end;
    while (pool_take(taken, b->used[0], 1, &i, &end)) {
        int32_t expert = b->used[1 + i];
        int64_t at = b->start[expert] * width, n = b->start[expert + 1] * width - at;
        cpu_gate(e, x->act, b->gate + at, b->gate + at, x->w[UP] ? b->up + at : NULL, n);
        prepare_expert(e, x, DOWN, b, expert, b->gate);
    }
}

/* Rows first .. end of an expert's product, out[0] the first of all. */
static void add_bias(const cpu_weight *w, int64_t expert, float *out, int64_t first, int64_t end) {
    const float *bias = w->bias + expert * w->base.shape[1];
    for (int64_t r = first; r < end; r++) out[r] += bias[r];
}

/* out[pair] = in[pair] times its expert's weight, for all experts that have pairs; work is (expert,
 * rows). */
static void multiply_pairs(const cpu *e, const node *x, int which, const block *b, const float *in,
                           float *out, atomic_long *taken, void *tile) {
    const cpu_weight *w = cpu_weight_of(x, which);
    const products *p = products_of(e, x, which);
    int64_t n_rows = w->base.shape[1], n = w->base.shape[2], i, end;
    int64_t step = cpu_rows_per_piece(e, p, &w->rows, n_rows, b->n_pairs),
            pieces = (n_rows + step - 1) / step;
    while (pool_take(taken, b->used[0] * pieces, 1, &i, &end)) {
        int64_t expert = b->used[1 + i / pieces], first = i % pieces * step, start = b->start[expert];
        int64_t n_pairs = b->start[expert + 1] - start, last = first + step < n_rows ? first + step : n_rows;
        rows r = cpu_rows_from(&w->rows, expert * n_rows + first);
        runs all = {0, last - first, 0};
        bool few = cpu_are_few(p, &r, n_pairs);
        for (int64_t j = start; j < start + n_pairs && few; j++)
            cpu_matvec(e, p, out + j * n_rows + first, &r, all, in + j * n,
                       b->prepared + (size_t)j * b->prepared_bytes);
        const char *panels =
            p ? b->panels + (size_t)first_panel(p, b, expert) * p->token_panel_bytes(&r) : NULL;
        if (!few)
            cpu_multiply(e, p, out + start * n_rows + first, n_rows, &r, last - first, in + start * n,
                         n_pairs, panels, tile);
        for (int64_t j = start; j < start + n_pairs && w->bias; j++)
            add_bias(w, expert, out + j * n_rows, first, last);
    }
}

/* Where x's sums go, and what is added to them: both with x's shape. */
static float *sums_of(const cpu *e, const node *x, int thread, const float **other) {
    const node *sum = state_of(e, x)->ending;
    *other = sum ? floats_of(e, sum->in[0] == x ? sum->in[1] : sum->in[0], thread) : NULL;
    return sum ? state_of(e, sum)->data : state_of(e, x)->data;
}

/* out[token] = sum of its experts' products, in the order of the routing. */
static void combine(const cpu *e, const node *x, const block *b, atomic_long *taken, int thread) {
    int64_t k = x->in[1]->shape[1], d = x->shape[1], t, end;
    const routed *routing = (const routed *)state_of(e, x->in[1])->data + b->first_token * k;
    const float *other, *in = (const float *)state_of(e, x->in[0])->data + b->first_token * d;
    float *out = sums_of(e, x, thread, &other);
    while (pool_take(taken, b->n_tokens, 1, &t, &end)) {
        int64_t at = (b->first_token + t) * d;
        float *row = out + at;
        memset(row, 0, (size_t)d * sizeof *row);
        for (int64_t i = t * k; i < (t + 1) * k; i++) {
            const float *product = b->place[i] < 0 ? in + t * d : b->in + b->place[i] * d;
            float factor = weight_of_result(x, &routing[i]);
            for (int64_t c = 0; c < d; c++) row[c] += factor * product[c];
        }
        for (int64_t c = 0; c < d && other; c++) row[c] += other[at + c];
    }
}

static void run_block(cpu *e, const node *x, block *b, atomic_long *taken, int thread) {
    char *tile = e->thread_scratch[thread];
    if (thread == 0) {
        for (int i = 0; i < PHASES; i++) atomic_store(&taken[i], 0);
        sort_pairs(e, x, b);
    }
    pool_barrier(e->pool, thread);
    take_inputs(e, x, b, &taken[0]);
    pool_barrier(e->pool, thread);
    multiply_pairs(e, x, GATE, b, b->in, b->gate, &taken[1], tile);
    if (x->w[UP] && !same_kind(x, GATE, UP)) {
        pool_barrier(e->pool, thread);
        prepare_again(e, x, UP, b, &taken[2]);
        pool_barrier(e->pool, thread);
    }
    if (x->w[UP]) multiply_pairs(e, x, UP, b, b->in, b->up, &taken[3], tile);
    pool_barrier(e->pool, thread);
    activate_pairs(e, x, b, &taken[4]);
    pool_barrier(e->pool, thread);
    multiply_pairs(e, x, DOWN, b, b->gate, b->in, &taken[5], tile);
    pool_barrier(e->pool, thread);
    combine(e, x, b, &taken[6], thread);
}

/* ---- one token ---- */

static bool has_matrices(const node *x, const routed *choice) {
    return choice->expert < x->w[0]->shape[0];
}

/* A thread's memory for one token: prepared inputs, the rows of a product, each choice's width, the
 * input where it is weighed. */
typedef struct one {
    char *prepared;
    float *rows, *in;
    int64_t *widths;
} one;

static size_t lay_out_one(const cpu *e, const node *x, char *base, one *o) {
    char *at = base;
    size_t bytes = 0, n_rows = 0;
    for (int i = 0; i < WEIGHTS; i++) {
        if (!x->w[i]) continue;
        size_t n = cpu_prepared_bytes(products_of(e, x, i), &cpu_weight_of(x, i)->rows);
        n *= i == DOWN ? (size_t)x->in[1]->shape[1] : 1;
        bytes = n > bytes ? n : bytes;
        n = (size_t)x->w[i]->shape[1];
        n_rows = n > n_rows ? n : n_rows;
    }
    o->prepared = carve(&at, bytes);
    o->rows = carve(&at, n_rows * sizeof(float));
    o->widths = carve(&at, (size_t)x->in[1]->shape[1] * sizeof *o->widths);
    o->in = carve(&at, x->in[1]->route.on_input ? (size_t)x->shape[1] * sizeof *o->in : 0);
    return (size_t)(at - base);
}

/* out[r] = row r of an expert's weight, times the prepared input, for the rows of the part. */
static void multiply_one(const cpu *e, const node *x, int which, int64_t expert, const row_part *part,
                         const float *in, const void *prepared, float *out) {
    const cpu_weight *w = cpu_weight_of(x, which);
    rows r = cpu_rows_from(&w->rows, expert * w->base.shape[1] + part->base);
    cpu_matvec(e, products_of(e, x, which), out + part->base, &r, part->rows, in, prepared);
    for (int i = 0; i < count_runs(part->rows) && w->bias; i++) {
        runs run = one_run(part->rows, i);
        add_bias(w, expert, out, part->base + run.first, part->base + run.end);
    }
}

/* The rows of the part of gate and up of an expert: out = act(gate) * up. */
static void gate_part(const cpu *e, const node *x, int64_t expert, const row_part *part, const one *o,
                      const float *in, float *out) {
    runs rs = part->rows;
    bool gated = x->w[UP], same = !gated || same_kind(x, GATE, UP);
    for (int which = GATE; which <= (gated ? UP : GATE); which++) {
        if (!same) cpu_prepare(e, products_of(e, x, which), o->prepared, &cpu_weight_of(x, which)->rows, in);
        multiply_one(e, x, which, expert, part, in, o->prepared, which == GATE ? out : o->rows);
    }
    for (int k = 0; k < count_runs(rs); k++) {
        int64_t r = part->base + one_run(rs, k).first;
        cpu_gate(e, x->act, out + r, out + r, gated ? o->rows + r : NULL, rs.end - rs.first);
    }
}

/* hidden[choice] = act(gate) * up of each chosen expert. */
static void gate_one(cpu *e, const node *x, const routed *chosen, const one *o, float *hidden, int thread) {
    int64_t k = x->in[1]->shape[1], width = x->w[GATE]->shape[1];
    const float *in = floats_of(e, x->in[0], thread);
    const rows *w = &cpu_weight_of(x, GATE)->rows;
    if (x->in[1]->route.on_input) {
        take_input(x, o->in, in, chosen);
        in = o->in;
    }
    for (int64_t j = 0; j < k; j++) o->widths[j] = has_matrices(x, &chosen[j]) ? width : 0;
    cpu_prepare(e, products_of(e, x, GATE), o->prepared, w, in);
    row_share s = cpu_share(e, thread, w, o->widths, (int)k);
    row_part part;
    while (cpu_take_rows(e, thread, &s, &part))
        gate_part(e, x, chosen[part.matrix].expert, &part, o, in, hidden + part.matrix * width);
}

/* out[r] = factor * from[r], for the rows of the part; with `more`, added to what is there. */
static void add_rows(const row_part *part, float factor, const float *from, bool more, float *out) {
    for (int i = 0; i < count_runs(part->rows); i++) {
        runs run = one_run(part->rows, i);
        for (int64_t r = part->base + run.first; r < part->base + run.end; r++)
            out[r] = factor * from[r] + (more ? out[r] : 0);
    }
}

/* The rows of the part of the sum over the chosen experts of their weight times down times
 * hidden. in: what an expert without matrices gives. */
static void down_part(const cpu *e, const node *x, const routed *chosen, const row_part *part, const one *o,
                      const float *hidden, const float *in, float *out, const float *other) {
    int64_t k = x->in[1]->shape[1], width = x->w[GATE]->shape[1];
    size_t bytes = cpu_prepared_bytes(products_of(e, x, DOWN), &cpu_weight_of(x, DOWN)->rows);
    for (int64_t j = 0; j < k; j++) {
        bool computed = has_matrices(x, &chosen[j]);
        if (computed)
            multiply_one(e, x, DOWN, chosen[j].expert, part, hidden + j * width,
                         o->prepared + (size_t)j * bytes, o->rows);
        add_rows(part, weight_of_result(x, &chosen[j]), computed ? o->rows : in, j, out);
    }
    if (other) add_rows(part, 1, other, true, out);
}

/* The sum over the chosen experts of their weight times down times hidden. */
static void down_one(cpu *e, const node *x, const routed *chosen, const one *o, const float *hidden,
                     int thread) {
    int64_t k = x->in[1]->shape[1], width = x->w[GATE]->shape[1];
    const products *p = products_of(e, x, DOWN);
    const rows *w = &cpu_weight_of(x, DOWN)->rows;
    size_t bytes = cpu_prepared_bytes(p, w);
    const float *other, *in = floats_of(e, x->in[0], thread);
    float *out = sums_of(e, x, thread, &other);
    for (int64_t j = 0; j < k; j++) cpu_prepare(e, p, o->prepared + (size_t)j * bytes, w, hidden + j * width);
    row_share s = cpu_share(e, thread, w, &x->shape[1], 1);
    row_part part;
    while (cpu_take_rows(e, thread, &s, &part)) down_part(e, x, chosen, &part, o, hidden, in, out, other);
}

static void one_token(cpu *e, const node *x, int thread) {
    const routed *chosen = (const routed *)(const void *)floats_of(e, x->in[1], thread);
    one o;
    lay_out_one(e, x, e->thread_scratch[thread], &o);
    gate_one(e, x, chosen, &o, state_of(e, x)->workspace, thread);
    pool_barrier(e->pool, thread);
    down_one(e, x, chosen, &o, state_of(e, x)->workspace, thread);
}

/* ---- the operation ---- */

size_t cpu_experts_workspace(const cpu *e, const node *x) {
    block b;
    if (x->shape[0] == 1) return (size_t)(x->in[1]->shape[1] * x->w[GATE]->shape[1]) * sizeof(float);
    return lay_out(e, x, NULL, &b);
}

size_t cpu_experts_scratch(const cpu *e, const node *x) {
    one o;
    size_t most = 0;
    if (x->shape[0] == 1) return lay_out_one(e, x, NULL, &o);
    for (int i = 0; i < WEIGHTS; i++) {
        if (!x->w[i]) continue;
        size_t n = cpu_tile_bytes(products_of(e, x, i), &cpu_weight_of(x, i)->rows);
        most = n > most ? n : most;
    }
    return most;
}

void cpu_experts(cpu *e, const node *x, int thread) {
    block b;
    if (x->shape[0] == 1) {
        one_token(e, x, thread);
        return;
    }
    lay_out(e, x, state_of(e, x)->workspace, &b);
    for (int64_t i = 0; i < count_blocks(x); i++) {
        if (i) pool_barrier(e->pool, thread); /* the next block's sums go where this one's are read */
        b.first_token = i * BLOCK_TOKENS;
        b.n_tokens = x->shape[0] - b.first_token < BLOCK_TOKENS ? x->shape[0] - b.first_token : BLOCK_TOKENS;
        b.n_pairs = b.n_tokens * x->in[1]->shape[1];
        run_block(e, x, &b, b.taken + PHASES * i, thread);
    }
}
