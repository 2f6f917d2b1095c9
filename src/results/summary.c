/* summary.c - the runs of one configuration as one row: what they share, and how each metric lies.
 * Runs are copied as far as they are needed, since they are gone when the next one is measured.
 */
#include "results/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct numbers {
    double *items;
    int64_t n, capacity;
} numbers;

struct summary {
    arena *memory; /* texts */
    bool any;
    row shared;
    numbers of[N_METRICS];
    numbers sorted; /* of one metric */
    spread spreads[N_METRICS];
    grades grades;
    value reasons[N_GRADES]; /* of the first run with each grade */
    char grade[2];
    char measured_at[32]; /* when the last run ended */
};

summary *summary_new(void) {
    summary *s = mem_new(1, sizeof *s, "a summary");
    if (s) s->memory = arena_new();
    if (s && s->memory) return s;
    free(s);
    return NULL;
}

void summary_free(summary *s) {
    if (!s) return;
    for (int i = 0; i < N_METRICS; i++) free(s->of[i].items);
    free(s->sorted.items);
    arena_free(s->memory);
    free(s);
}

void summary_clear(summary *s) {
    for (int i = 0; i < N_METRICS; i++) s->of[i].n = 0;
    s->any = false;
    s->measured_at[0] = '\0';
    s->grades = (grades){0};
    memset(s->reasons, 0, sizeof s->reasons);
}

static int add_number(numbers *to, value v) {
    if (v.kind != VALUE_REAL) return 0;
    if (to->n == to->capacity) {
        int64_t capacity = to->capacity ? 2 * to->capacity : 16;
        if (mem_resize((void **)&to->items, (size_t)capacity, sizeof *to->items, "a summary")) return -1;
        to->capacity = capacity;
    }
    to->items[to->n++] = v.real;
    return 0;
}

/* The row of the first run, with texts of its own. */
static int begin(summary *s, const row *run) {
    arena_free(s->memory);
    s->memory = arena_new();
    if (!s->memory) return -1;
    s->shared = *run;
    s->shared.kind = ROW_SUMMARY;
    s->shared.raw = NULL;
    for (int c = 0; c < N_COLUMNS; c++) {
        value *v = &s->shared.cells[c];
        if (v->kind == VALUE_TEXT && !(v->text = arena_string(s->memory, v->text))) return -1;
    }
    s->shared.cells[COLUMN_run] = s->shared.cells[COLUMN_repeat] = (value){.kind = VALUE_NONE};
    s->any = true;
    return 0;
}

static void share(summary *s, const row *run) {
    for (int c = 0; c < N_COLUMNS; c++) {
        value *v = &s->shared.cells[c], other = run->cells[c];
        if (column_table[c].summing == LARGEST) {
            bool larger = other.kind == VALUE_REAL && (v->kind != VALUE_REAL || other.real > v->real);
            if (larger) *v = other;
        } else if (!value_equal(*v, other)) {
            *v = (value){.kind = VALUE_NONE};
        }
    }
}

static int add_grade(summary *s, const row *run) {
    grades before = s->grades;
    value reasons = run->cells[COLUMN_quality_reasons];
    grades_add(&s->grades, run->cells[COLUMN_quality]);
    for (int i = 0; i < N_GRADES; i++)
        if (s->grades.n[i] > before.n[i] && !before.n[i] && reasons.kind == VALUE_TEXT) {
            reasons.text = arena_string(s->memory, reasons.text);
            s->reasons[i] = reasons;
            if (!reasons.text) return -1;
        }
    return 0;
}

/* The quality of all, and why. */
static void put_grade(summary *s, row *out) {
    value *quality = &out->cells[COLUMN_quality], *reasons = &out->cells[COLUMN_quality_reasons];
    s->grade[0] = grades_of(&s->grades);
    *quality = *reasons = (value){.kind = VALUE_NONE};
    if (!s->grade[0]) return;
    *quality = (value){.kind = VALUE_TEXT, .text = s->grade};
    *reasons = s->reasons[s->grade[0] == 'F' ? N_GRADES - 1 : s->grade[0] - 'A'];
}

int summary_add(summary *s, const row *run) {
    value error = run->cells[COLUMN_error];
    if (!s->any) {
        if (begin(s, run)) return -1;
    } else if (error.kind == VALUE_TEXT) { /* what was measured before it still is */
        error.text = arena_string(s->memory, error.text);
        s->shared.cells[COLUMN_error] = error;
        return error.text ? 0 : -1;
    } else {
        share(s, run);
    }
    if (add_grade(s, run)) return -1;
    value ended = run->cells[COLUMN_measured_at];
    if (ended.kind == VALUE_TEXT) snprintf(s->measured_at, sizeof s->measured_at, "%s", ended.text);
    for (int i = 0; i < N_METRICS; i++)
        if (add_number(&s->of[i], run->cells[COLUMN_FIRST_METRIC + i])) return -1;
    return 0;
}

/* Their spread; they keep their order. */
static spread spread_in_order(summary *s, const numbers *of) {
    s->sorted.n = 0;
    for (int64_t i = 0; i < of->n; i++)
        if (add_number(&s->sorted, (value){.kind = VALUE_REAL, .real = of->items[i]})) break;
    spread found = spread_of(s->sorted.items, s->sorted.n);
    found.in_order = of->items;
    return found;
}

int summary_shared(summary *s, row *out) {
    if (!s->any) return -1;
    *out = s->shared;
    put_grade(s, out);
    if (s->measured_at[0])
        out->cells[COLUMN_measured_at] = (value){.kind = VALUE_TEXT, .text = s->measured_at};
    return 0;
}

int summary_row(summary *s, row *out) {
    if (summary_shared(s, out)) return -1;
    for (int i = 0; i < N_METRICS; i++) {
        const column *about = &column_table[COLUMN_FIRST_METRIC + i];
        s->spreads[i] = spread_in_order(s, &s->of[i]);
        if (about->summing == MEDIAN)
            out->cells[COLUMN_FIRST_METRIC + i] = value_of_real(s->spreads[i].median, about->decimals);
    }
    out->spreads = s->spreads;
    return 0;
}
