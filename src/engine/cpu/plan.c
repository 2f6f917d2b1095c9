/* plan.c - where each value of a graph lives, and where threads must meet.
 * A value's memory is used again once all its readers are done, so a prefill chunk needs a few
 * values' worth.
 */
#include "engine/cpu/cpu.h"

#include <stdlib.h>

enum { UNIT = 64 };

typedef struct free_block {
    size_t offset, size;
} free_block;

typedef struct planner {
    cpu *e;
    graph *g;
    size_t size;       /* of all scratch so far */
    const node *alive; /* values placed and not given back yet */
} planner;

static size_t round_up(size_t n) {
    return (n + UNIT - 1) / UNIT * UNIT;
}

static int reserve_block(cpu *e) {
    if (e->n_free < e->free_capacity) return 0;
    int capacity = e->free_capacity ? 2 * e->free_capacity : 64;
    void *blocks = e->free_blocks;
    if (mem_resize(&blocks, (size_t)capacity, sizeof *e->free_blocks, "a memory plan")) return -1;
    e->free_blocks = blocks;
    e->free_capacity = capacity;
    return 0;
}

/* First fit; grows the scratch when nothing fits. */
static size_t take(planner *p, size_t size) {
    cpu *e = p->e;
    size = round_up(size);
    for (int i = 0; i < e->n_free; i++) {
        free_block *b = &e->free_blocks[i];
        if (b->size < size) continue;
        size_t offset = b->offset;
        b->offset += size;
        b->size -= size;
        if (!b->size) memmove(b, b + 1, (size_t)(--e->n_free - i) * sizeof *b);
        return offset;
    }
    size_t offset = p->size;
    p->size += size;
    return offset;
}

/* Returns a block to the list, sorted by offset and joined with its neighbours. */
static int give(planner *p, size_t offset, size_t size) {
    cpu *e = p->e;
    size = round_up(size);
    int i = 0;
    while (i < e->n_free && e->free_blocks[i].offset < offset) i++;
    free_block *before = i ? &e->free_blocks[i - 1] : NULL;
    if (before && before->offset + before->size == offset) {
        before->size += size;
    } else {
        if (reserve_block(e)) return -1;
        memmove(&e->free_blocks[i + 1], &e->free_blocks[i],
                (size_t)(e->n_free++ - i) * sizeof *e->free_blocks);
        e->free_blocks[i] = (free_block){offset, size};
        before = &e->free_blocks[i++];
    }
    if (i < e->n_free && before->offset + before->size == e->free_blocks[i].offset) {
        before->size += e->free_blocks[i].size;
        memmove(&e->free_blocks[i], &e->free_blocks[i + 1],
                (size_t)(--e->n_free - i) * sizeof *e->free_blocks);
    }
    return 0;
}

static size_t value_bytes(const node *x) {
    size_t element = x->op == OP_ROUTE ? sizeof(routed) : 4;
    return (size_t)tensor_count(x) * element;
}

/* In scratch: of all copies. */
static size_t placed_bytes(const cpu *e, const node *x) {
    size_t own = state_of(e, x)->own;
    return own ? own * (size_t)e->threads : value_bytes(x);
}

/* Gate and up are never whole, and what ends in a sum is never seen. */
static bool has_memory(const cpu *e, const node *x) {
    const node_state *s = state_of(e, x);
    const node *by_ending = s->by ? state_of(e, s->by)->ending : NULL;
    return x->op != OP_KV_WRITE && !s->ending && (!by_ending || by_ending == x);
}

/* Whether x has a value that is computed, by itself or with another node's. */
static bool is_computed(const cpu *e, const node *x) {
    return x->live && !(op_flags[x->op] & (SOURCE | VIEW)) && !state_of(e, x)->skipped;
}

/* The node whose memory a value is in. */
static const node *root(const cpu *e, tensor x) {
    while (op_flags[x->op] & VIEW || state_of(e, x)->skipped) x = x->in[0];
    return x;
}

/* A result to hold an output, from the unused ones if one is large enough. */
static cpu_result *new_result(cpu *e, tensor x) {
    size_t bytes = value_bytes(x);
    cpu_result **at = &e->unused;
    while (*at && (*at)->capacity < bytes) at = &(*at)->next;
    cpu_result *r = *at;
    if (r) {
        *at = r->next;
    } else {
        r = mem_new(1, sizeof *r, "a result");
        if (r) r->data = mem_new(1, bytes, "a result");
        if (!r || !r->data) {
            free(r);
            return NULL;
        }
        r->capacity = bytes;
    }
    r->base = (result){.engine = &e->base, .dtype = x->dtype, .count = tensor_count(x)};
    return r;
}

static int check_ids(const cpu *e, const node *x) {
    const node *from = root(e, x->in[0]);
    const int32_t *ids = state_of(e, from)->data;
    int64_t n = x->in[0]->shape[0], vocabulary = x->w[0]->shape[0];
    if (from->op == OP_ARGMAX) { /* not known yet, but their range is */
        if (tensor_last(from->in[0]) <= vocabulary) return 0;
        return fail("token ids below %lld do not all fit a vocabulary of %lld",
                    (long long)tensor_last(from->in[0]), (long long)vocabulary);
    }
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= vocabulary)
            return fail("token id %d is outside the model's vocabulary of %lld", ids[i],
                        (long long)vocabulary);
    return 0;
}

/* Sets last of every value's root, and data of those that have it already: ids and results. */
static int prepare_node(planner *p, const node *x) {
    const cpu *e = p->e;
    node_state *s = state_of(e, x);
    int at = s->by && s->by->index > x->index ? s->by->index : x->index;
    if (s->own) s->own = round_up(value_bytes(x));
    for (int k = 0; k < NODE_MAX_INPUTS && x->in[k]; k++) {
        node_state *from = state_of(e, root(e, x->in[k]));
        if (from->last < at) from->last = at;
    }
    if (x->op == OP_TOKENS) s->data = p->g->ids + x->first_id;
    if (x->op == OP_TOKEN_RESULT) s->data = ((cpu_result *)x->from)->data;
    if (x->op == OP_EMBED && !x->or_first && check_ids(e, x)) return -1;
    if (x->op != OP_KV_WRITE) return 0;
    return cpu_cache_prepare(p->e, (cpu_cache *)x->cache, x->position, rows_per_sequence(p->g, x));
}

static int prepare(planner *p, int n, const tensor outputs[], result *results[]) {
    const graph *g = p->g;
    for (int i = 0; i < g->n_nodes; i++) {
        const node *x = graph_node(g, i);
        if (x->live && prepare_node(p, x)) return -1;
    }
    for (int i = 0; i < n; i++) {
        cpu_result *r = new_result(p->e, outputs[i]);
        if (!r) return -1;
        results[i] = &r->base;
        node_state *s = state_of(p->e, root(p->e, outputs[i]));
        if (!s->data) s->data = r->data; /* else it is copied from there in the end: cpu_copy_outputs */
        s->last = g->n_nodes;            /* never given back */
    }
    return 0;
}

static size_t workspace_bytes(const cpu *e, const node *x) {
    return cpu_ops[x->op].workspace ? cpu_ops[x->op].workspace(e, x) : 0;
}

/* Gives back the memory of values that no node at or after `before` reads. */
static int release_read(planner *p, int before) {
    for (const node **at = &p->alive; *at;) {
        const node *x = *at;
        node_state *s = state_of(p->e, x);
        if (s->last >= before) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        if (s->placed && give(p, s->offset, placed_bytes(p->e, x))) return -1;
        if (s->workspace_size && give(p, s->workspace_offset, s->workspace_size)) return -1;
    }
    return 0;
}

/* Whether x, computed by node `by`, reads what others may have written since node `first`. */
static bool reads_since(const cpu *e, const node *x, const node *by, int first) {
    for (int k = 0; k < NODE_MAX_INPUTS && x->in[k]; k++) {
        const node *from = root(e, x->in[k]);
        const node_state *s = state_of(e, from);
        if (!(op_flags[from->op] & SOURCE) && !s->own && from != by && s->by != by && from->index >= first)
            return true;
    }
    return false;
}

static bool needs_barrier(const cpu *e, const node *x, int first) {
    const node *ending = state_of(e, x)->ending;
    const node *write = x->op == OP_ATTEND && state_of(e, x->in[1])->by == x ? x->in[1] : NULL;
    return reads_since(e, x, x, first) || (ending && reads_since(e, ending, x, first)) ||
           (write && reads_since(e, write, x, first));
}

/* Places the values in order, reusing memory only across barriers: before one, other threads may
 * still read it. */
static int place(planner *p) {
    const graph *g = p->g;
    int first = 0; /* node after the last barrier */
    for (int i = 0; i < g->n_nodes; i++) {
        const node *x = graph_node(g, i);
        if (!is_computed(p->e, x)) continue;
        node_state *s = state_of(p->e, x);
        s->barrier = !s->by && needs_barrier(p->e, x, first);
        if (s->barrier) {
            first = i;
            if (release_read(p, i)) return -1;
        }
        if (s->last < i) s->last = i;
        s->placed = has_memory(p->e, x) && !s->data;
        if (s->placed) s->offset = take(p, placed_bytes(p->e, x));
        s->workspace_size = s->by ? 0 : workspace_bytes(p->e, x);
        if (s->workspace_size) s->workspace_offset = take(p, s->workspace_size);
        if (s->placed || s->workspace_size) {
            s->next = p->alive;
            p->alive = x;
        }
    }
    return 0;
}

static int grow_scratch(planner *p) {
    cpu *e = p->e;
    size_t thread_size = 0;
    for (int i = 0; i < p->g->n_nodes; i++) {
        const node *x = graph_node(p->g, i);
        size_t need = is_computed(e, x) && !state_of(e, x)->by && cpu_ops[x->op].thread_scratch
                          ? cpu_ops[x->op].thread_scratch(e, x)
                          : 0;
        if (need > thread_size) thread_size = need;
    }
    if (p->size > e->scratch_size) {
        cpu_release(e, e->scratch, e->scratch_size, &e->memory.scratch);
        e->scratch_size = 0;
        e->scratch = cpu_allocate(e, p->size, &e->memory.scratch,
                                  "a step's values; use a smaller --prefill-step-size");
        if (!e->scratch) return -1;
        e->scratch_size = p->size;
    }
    if (thread_size <= e->thread_scratch_size) return 0;
    for (int i = 0; i < e->threads; i++) {
        cpu_release(e, e->thread_scratch[i], e->thread_scratch_size, &e->memory.scratch);
        e->thread_scratch[i] = NULL;
    }
    e->thread_scratch_size = 0;
    for (int i = 0; i < e->threads; i++) {
        e->thread_scratch[i] = cpu_allocate(e, thread_size, &e->memory.scratch, "a thread's tiles");
        if (!e->thread_scratch[i]) {
            while (i--) {
                cpu_release(e, e->thread_scratch[i], thread_size, &e->memory.scratch);
                e->thread_scratch[i] = NULL;
            }
            return -1;
        }
    }
    e->thread_scratch_size = thread_size;
    return 0;
}

static void address(planner *p) {
    char *scratch = p->e->scratch;
    for (int i = 0; i < p->g->n_nodes; i++) {
        const node *x = graph_node(p->g, i);
        if (!x->live) continue;
        node_state *s = state_of(p->e, x);
        if (op_flags[x->op] & VIEW || s->skipped) {
            s->data = state_of(p->e, x->in[0])->data;
            s->own = state_of(p->e, x->in[0])->own;
        }
        if (s->placed) s->data = scratch + s->offset;
        if (s->workspace_size) s->workspace = scratch + s->workspace_offset;
    }
}

static int reset_states(cpu *e, int n) {
    void *states = e->states;
    if (n > e->states_capacity) {
        if (mem_resize(&states, (size_t)n, sizeof *e->states, "a graph")) return -1;
        e->states = states;
        e->states_capacity = n;
    }
    memset(e->states, 0, (size_t)n * sizeof *e->states);
    return 0;
}

int cpu_plan(cpu *e, graph *g, int n, const tensor outputs[], result *results[]) {
    planner p = {.e = e, .g = g};
    e->n_free = 0;
    for (int i = 0; i < n; i++) results[i] = NULL;
    if (reset_states(e, g->n_nodes)) return -1;
    cpu_join(e, g, n, outputs);
    if (!prepare(&p, n, outputs, results) && !place(&p) && !grow_scratch(&p)) {
        address(&p);
        return 0;
    }
    for (int i = 0; i < n; i++) {
        result_free(results[i]);
        results[i] = NULL;
    }
    return -1;
}

void cpu_copy_outputs(const cpu *e, int n, const tensor outputs[], result *const results[]) {
    for (int i = 0; i < n; i++) {
        cpu_result *r = (cpu_result *)results[i];
        const void *from = state_of(e, outputs[i])->data;
        if (from != r->data) memcpy(r->data, from, (size_t)r->base.count * 4);
    }
}
