/* annotations.c - a comparison as workflow commands of GitHub Actions, which shows them beside a
 * commit: an error for a loss, a warning for what can't be judged, a notice for the rest. Source:
 * docs.github.com, "Workflow commands for GitHub Actions".
 */
#include "report/format.h"

#include <math.h>

/* Text in a command: a line break would end it; in a property, a comma or a colon, too. */
static void put_escaped(str *out, const char *text, bool property) {
    for (; *text; text++) {
        bool special = strchr("%\r\n", *text) || (property && strchr(":,", *text));
        str_printf(out, special ? "%%%02X" : "%c", (unsigned char)*text);
    }
}

static void put_command(str *out, const char *command, const char *title, const str *text) {
    str_printf(out, "::%s title=", command);
    put_escaped(out, title, true);
    str_puts(out, "::");
    put_escaped(out, text->data ? text->data : "", false);
    str_puts(out, "\n");
    out->failed |= text->failed;
}

static void put_difference(str *out, const comparison *c, const difference *d) {
    put_configuration(out, c, d->of);
    str_printf(out, ": %s %+.1f %%, from %.3f to %.3f", column_table[d->column].name, 100 * (d->ratio - 1),
               d->a.median, d->b.median);
    if (isfinite(d->low))
        str_printf(out, " (95 %% %+.1f %% to %+.1f %%)", 100 * (d->low - 1), 100 * (d->high - 1));
    str_printf(out, ", p = %.4f, %lld + %lld runs", d->p_holm, (long long)d->a.n, (long long)d->b.n);
}

void put_annotations(str *out, const char *a, const char *b, const comparison *c) {
    int64_t n_losses = 0, n_skipped = 0, n_sure = 0;
    str text = {0};
    for (int64_t i = 0; i < c->n; i++) {
        const difference *d = &c->items[i];
        bool loss = difference_is_loss(c, d), skipped = c->only_quiet && difference_is_disturbed(d);
        bool sure = difference_is_sure(d) && !skipped;
        n_losses += loss;
        n_skipped += skipped;
        n_sure += sure;
        if (!loss && !skipped && !sure) continue; /* it may be chance */
        str_clear(&text);
        put_difference(&text, c, d);
        if (loss) str_printf(&text, "; the limit is %+.1f %%", 100 * (c->limit - 1));
        if (skipped)
            str_printf(&text, "; quality %c before, %c after", d->grade_a ? d->grade_a : '?',
                       d->grade_b ? d->grade_b : '?');
        put_command(out,
                    loss      ? "error"
                    : skipped ? "warning"
                              : "notice",
                    loss           ? "mlxbench: slower"
                    : skipped      ? "mlxbench: not comparable"
                    : d->ratio < 1 ? "mlxbench: slower, within the limit"
                                   : "mlxbench: faster",
                    &text);
    }
    str_clear(&text);
    str_printf(&text,
               "%lld speeds compared, from %s to %s: %lld beyond the limit, %lld not comparable, %lld "
               "may be chance",
               (long long)c->n, a, b, (long long)n_losses, (long long)n_skipped,
               (long long)(c->n - n_sure - n_skipped));
    put_command(out, "notice", "mlxbench compare", &text);
    str_free(&text);
}
