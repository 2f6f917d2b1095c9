/* windows.c - the table of `bench --duration`: the speeds of each window, and how far they lie from
 * those of the first one. A window is summed up as a configuration is.
 */
#include "cmd/windows.h"

#include <math.h>

enum { N_SPEEDS = 2 };

static const int speeds[N_SPEEDS] = {COLUMN_prompt_tps, COLUMN_generation_tps};

static int64_t number(const row *r, int c) {
    return r->cells[c].kind == VALUE_NUMBER ? r->cells[c].number : 0;
}

/* A line for the window that is over. */
static void end_window(windows *w) {
    row r;
    if (!w->window || summary_row(w->runs, &r)) return;
    value quality = r.cells[COLUMN_quality];
    str_printf(&w->lines, "| %13lld | %6lld | %4lld ", (long long)w->configuration, (long long)w->window,
               (long long)r.spreads[METRIC_prompt_tps].n);
    for (int i = 0; i < N_SPEEDS; i++) {
        value v = r.cells[speeds[i]];
        double speed = v.kind == VALUE_REAL ? v.real : NAN;
        if (isnan(w->first[i])) w->first[i] = speed;
        double change = 100 * (speed / w->first[i] - 1);
        if (isfinite(change))
            str_printf(&w->lines, "| %14.3f | %+7.1f %% ", speed, change);
        else
            str_printf(&w->lines, "| %14s | %9s ", "", "");
    }
    str_printf(&w->lines, "| %-7s |\n", quality.kind == VALUE_TEXT ? quality.text : "");
    summary_clear(w->runs);
}

int windows_add(windows *w, const row *r) {
    int64_t window = number(r, COLUMN_window), configuration = number(r, COLUMN_configuration);
    if (r->kind != ROW_RUN || !window) return 0;
    if (!w->runs && !(w->runs = summary_new())) return -1;
    bool other = configuration != w->configuration;
    if (other || window != w->window) end_window(w);
    for (int i = 0; i < N_SPEEDS && other; i++) w->first[i] = NAN;
    w->configuration = configuration;
    w->window = window;
    return summary_add(w->runs, r);
}

void windows_print(windows *w, FILE *to) {
    if (!w->window) return;
    end_window(w);
    if (w->lines.failed) return;
    fputs("\n| configuration | window | runs |     prompt_tps |    change | generation_tps |    change | "
          "quality |\n"
          "|--------------:|-------:|-----:|---------------:|----------:|---------------:|----------:|-------"
          "--|\n",
          to);
    fputs(w->lines.data, to);
}

void windows_free(windows *w) {
    summary_free(w->runs);
    str_free(&w->lines);
    *w = (windows){0};
}
