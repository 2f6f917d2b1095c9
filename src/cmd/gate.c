/* gate.c - --fail-slower: a loss counts when it is sure, larger than the limit, and the machine was
 * quiet. compare and bench --against share it.
 */
#include "cmd/gate.h"
#include "cmd/units.h"

int gate_parse(gate *g) {
    double loss = 0;
    if (parse_percent(g->fail_slower, "--fail-slower", &loss)) return -1;
    g->limit = 1 - loss;
    return 0;
}

void gate_add(gate *g, comparison *c) {
    c->only_quiet = g->fail_slower != NULL;
    c->limit = g->fail_slower ? g->limit : 0;
    for (int64_t i = 0; i < c->n && g->fail_slower; i++) {
        const difference *d = &c->items[i];
        g->n_disturbed += difference_is_disturbed(d);
        if (difference_is_disturbed(d) || !difference_is_sure(d) || d->ratio >= g->limit) continue;
        if (!g->n_slower++ || d->ratio < g->slowest) g->slowest = d->ratio;
    }
}

int gate_result(const gate *g) {
    if (g->n_disturbed)
        say(SAY_NOTE,
            "%d line%s not comparable, since a side's quality is below B: its rows' quality_reasons say why",
            g->n_disturbed, g->n_disturbed > 1 ? "s are" : " is");
    if (!g->n_slower) return 0;
    return fail_gate("%d difference%s beyond --fail-slower %s, the largest %.1f %%", g->n_slower,
                     g->n_slower > 1 ? "s are" : " is", g->fail_slower, 100 * (1 - g->slowest));
}
