/* columns.c - the columns and the table of parameters, generated from the lists, and values as
 * text. The only place that knows a column's kind.
 */
#include "results/results.h"

#include <stdio.h>

const param param_table[N_PARAMS] = {
#define ENTRY(field_, kind_, option_, short_, metavar_, default_, min_, max_, choices_, help_)               \
    .name = #field_, .kind = KIND_##kind_, .option = option_, .short_option = short_, .metavar = metavar_,   \
    .list_metavar = metavar_ ",...", .default_list = default_, .min = min_, .max = max_,                     \
    .choices = choices_, .help = help_, .offset = offsetof(params, field_)
#define PARAM(...) {ENTRY(__VA_ARGS__)},
#define COMMON(field, kind, option, short_option, metavar, standard, of_generate_, ...)                      \
    {ENTRY(field, kind, option, short_option, metavar, standard, __VA_ARGS__), .of_generate = true,          \
     .generate_default = of_generate_},
#include "results/params.def"
#undef ENTRY
};

/* A list's kind as that of its values. */
enum {
    LISTED_TEXT = VALUE_TEXT,
    LISTED_SETTING = VALUE_TEXT,
    LISTED_NUMBER = VALUE_NUMBER,
    LISTED_OPTIONAL = VALUE_NUMBER,
    LISTED_BOOL = VALUE_BOOL
};

const column column_table[N_COLUMNS] = {
    [COLUMN_run] = {"run", VALUE_NUMBER, 0, SAME},
    [COLUMN_configuration] = {"configuration", VALUE_NUMBER, 0, SAME},
    [COLUMN_repeat] = {"repeat", VALUE_NUMBER, 0, SAME},
#define PARAM(field, kind, ...) [COLUMN_##field] = {#field, (value_kind)LISTED_##kind, 0, SAME},
#include "results/params.def"
#define METRIC(name, decimals, summing, formula) [COLUMN_##name] = {#name, VALUE_REAL, decimals, summing},
#include "results/metrics.def"
#define FACT(field, kind) [COLUMN_##field] = {#field, (value_kind)LISTED_##kind, 0, SAME},
#include "results/facts.def"
};

const llama_column llama_table[N_LLAMA] = {
#define LLAMA(name_, kind_, role_, standard_, short_)                                                        \
    {.name = #name_,                                                                                         \
     .kind = LLAMA_##kind_,                                                                                  \
     .role = LLAMA_##role_,                                                                                  \
     .standard = standard_,                                                                                  \
     .short_name = short_},
#define OLD(name_, kind_, role_, standard_, short_)                                                          \
    {.name = #name_, .kind = LLAMA_##kind_, .role = LLAMA_##role_, .short_name = short_, .old = true},
#include "results/llama_bench.def"
};

int column_find(const char *name) {
    for (int c = 0; c < N_COLUMNS; c++)
        if (!strcmp(column_table[c].name, name)) return c;
    return -1;
}

bool value_equal(value a, value b) {
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case VALUE_NONE:
        return true;
    case VALUE_TEXT:
        return !strcmp(a.text, b.text);
    case VALUE_NUMBER:
    case VALUE_BOOL:
        return a.number == b.number;
    case VALUE_REAL:
        return a.real == b.real;
    }
    return false;
}

void value_put(str *out, value v, int decimals, const char *none) {
    switch (v.kind) {
    case VALUE_NONE:
        str_puts(out, none);
        break;
    case VALUE_TEXT:
        str_puts(out, v.text);
        break;
    case VALUE_NUMBER:
        str_printf(out, "%lld", (long long)v.number);
        break;
    case VALUE_REAL:
        str_printf(out, "%.*f", v.decimals < decimals ? v.decimals : decimals, v.real);
        break;
    case VALUE_BOOL:
        str_puts(out, v.number ? "true" : "false");
        break;
    }
}

int text_width(const char *text) {
    int n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

void sweep_add(sweep *s, int c, value first, value other) {
    str text = {0};
    value_put(&text, other, column_table[c].decimals, "");
    int width = text.data ? text_width(text.data) : 0;
    if (width > s->width[c]) s->width[c] = width;
    s->varies[c] |= !value_equal(first, other);
    str_free(&text);
}
