/* plan.c - parameter lists and their product.
 * Configurations are numbered and made when needed, so a sweep costs no memory. */
#include "bench/internal.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_CONFIGURATIONS = 1000000 };

/* A choice "WORD:F" allows any text behind "WORD:". */
static bool is_choice(const char *choices, const char *text) {
    size_t n = strlen(text);
    for (const char *c = choices; *c; c += strcspn(c, ","), c += *c == ',') {
        size_t length = strcspn(c, ","), prefix = strcspn(c, ":,") + 1;
        if (length == n && !strncmp(c, text, n)) return true;
        if (prefix <= length && n > prefix && !strncmp(c, text, prefix)) return true;
    }
    return false;
}

/* Whole seconds: a number, and s, m or h behind it, or nothing. */
static int parse_seconds(const param *p, const char *name, const char *text, int64_t *out) {
    static const struct {
        char name;
        int64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}};
    char number[32];
    size_t n = strspn(text, "0123456789");
    int64_t unit = text[n] ? 0 : 1;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (text[n] == units[i].name && !text[n + 1]) unit = units[i].seconds;
    if (!n || !unit || n >= sizeof number)
        return fail_usage("%s: \"%s\" is no duration of whole seconds such as 10s, 2m or 1h", name, text);
    snprintf(number, sizeof number, "%.*s", (int)n, text);
    if (parse_number(number, name, p->min, p->max / unit, out)) return -1;
    *out *= unit;
    return 0;
}

static int parse_value(const param *p, const char *text, param_value *out) {
    char name[64], number[32];
    snprintf(name, sizeof name, "--%s", p->option);
    if (!*text) return fail_usage("%s: an element of the list is empty", name);
    if (param_is_text(p)) {
        out->text = text;
    } else if (p->kind == KIND_OPTIONAL && !strcmp(text, "none")) {
        out->number = 0;
    } else if (!strcmp(p->metavar, "TIME")) {
        return parse_seconds(p, name, text, &out->number);
    } else {
        if (parse_number(text, name, p->min, p->max, &out->number)) return -1;
        snprintf(number, sizeof number, "%lld", (long long)out->number);
        text = number;
    }
    bool unset = p->kind == KIND_OPTIONAL && out->number == 0;
    if (p->choices && !unset && !is_choice(p->choices, text))
        return fail_usage("%s: \"%s\" is not one of %s", name, text, p->choices);
    return 0;
}

/* The element at *list without the spaces around it; moves *list behind it, or to NULL after the
 * last one. "\," is a comma of the element. */
static char *next_element(arena *memory, const char **list) {
    const char *c = *list + strspn(*list, " ");
    char *text = arena_string(memory, c), *to = text;
    if (!text) return NULL;
    for (; *c && *c != ','; c++) {
        c += c[0] == '\\' && c[1] == ',';
        *to++ = *c;
    }
    *list = *c ? c + 1 : NULL;
    while (to > text && to[-1] == ' ') to--;
    *to = '\0';
    return text;
}

/* A list that grows; its values go to the plan when it is complete. */
typedef struct values {
    param_value *items;
    size_t n, capacity;
} values;

static int add_value(values *to, const param *p, const char *text) {
    if (to->n >= MAX_CONFIGURATIONS) return fail_usage("--%s: the list is too long", p->option);
    if (to->n == to->capacity) {
        to->capacity = to->capacity ? 2 * to->capacity : 16;
        if (mem_resize((void **)&to->items, to->capacity, sizeof *to->items, "a list")) return -1;
    }
    return parse_value(p, text, &to->items[to->n]) ? -1 : (to->n++, 0);
}

/* FIRST-LAST, FIRST-LAST+STEP or FIRST-LAST*FACTOR: 1 if the text has this form. */
static int read_range(const char *text, long long *first, long long *last, char how[2], long long *by) {
    int end = 0, digits = (int)strspn(text, "0123456789");
    strcpy(how, "+");
    *by = 1;
    if (!digits || digits > 15 || text[digits] != '-') return 0;
    if (sscanf(text, "%lld-%15lld%n", first, last, &end) != 2) return 0;
    if (!text[end]) return 1;
    text += end;
    return sscanf(text, "%1[+*]%15lld%n", how, by, &end) == 2 && !text[end];
}

static int add_range(values *to, const param *p, const char *text) {
    long long first, last, by;
    char how[2], number[32];
    if (param_is_text(p) || !read_range(text, &first, &last, how, &by)) return add_value(to, p, text);
    if (last < first || by < (*how == '*' ? 2 : 1) || (*how == '*' && !first))
        return fail_usage(
            "--%s: the range %s has no end; write FIRST-LAST, FIRST-LAST+STEP or FIRST-LAST*FACTOR",
            p->option, text);
    for (long long x = first; x <= last; x = *how == '*' ? x * by : x + by) {
        snprintf(number, sizeof number, "%lld", x);
        if (add_value(to, p, number)) return -1;
        if (*how == '*' && x > last / by) break;
    }
    return 0;
}

static int parse_list(plan *p, int i, const char *list) {
    values found = {0};
    int failed = 0;
    while (list && !failed) {
        char *text = next_element(p->memory, &list);
        failed = !text || add_range(&found, &param_table[i], text);
    }
    if (!failed) failed = !(p->values[i] = arena_alloc(p->memory, found.n * sizeof *found.items));
    if (!failed) {
        memcpy(p->values[i], found.items, found.n * sizeof *found.items);
        p->n_values[i] = (int)found.n;
    }
    free(found.items);
    return failed ? -1 : 0;
}

int plan_parse(plan *p, const char *const lists[N_PARAMS]) {
    *p = (plan){.memory = arena_new(), .n = 1};
    if (!p->memory) return -1;
    for (int i = 0; i < N_PARAMS; i++) {
        if (parse_list(p, i, lists[i])) return -1;
        p->n *= p->n_values[i];
        if (p->n > MAX_CONFIGURATIONS)
            return fail_usage("the lists make more than %d configurations", MAX_CONFIGURATIONS);
    }
    return 0;
}

void plan_free(plan *p) {
    arena_free(p->memory);
    *p = (plan){0};
}

static void set_member(params *out, const param *p, const param_value *v) {
    char *member = (char *)out + p->offset;
    if (param_is_text(p))
        memcpy(member, &v->text, sizeof v->text);
    else
        memcpy(member, &v->number, sizeof v->number);
}

int params_parse(params *out, const char *const texts[N_PARAMS]) {
    *out = (params){0};
    for (int i = 0; i < N_PARAMS; i++) {
        const param *p = &param_table[i];
        const char *text = texts[i] ? texts[i] : p->generate_default;
        param_value v;
        if (!p->of_generate || !text) continue;
        if (parse_value(p, text, &v)) return -1;
        set_member(out, p, &v);
    }
    return 0;
}

params plan_params(const plan *p, int64_t i) {
    params out;
    for (int k = N_PARAMS - 1; k >= 0; k--) {
        const param_value *v = &p->values[k][i % p->n_values[k]];
        set_member(&out, &param_table[k], v);
        i /= p->n_values[k];
    }
    return out;
}

int plan_check(const plan *p) {
    for (int i = 0; i < p->n_values[PARAM_prompt_source]; i++) {
        const char *source = p->values[PARAM_prompt_source][i].text;
        if (is_from_file(source) && !file_exists(source + strlen("file:")))
            return fail_usage("--prompt-tokens: there is no file %s", source + strlen("file:"));
    }
    for (int64_t i = 0; i < p->n; i++) {
        params one = plan_params(p, i);
        generate_options how = params_generate(&one);
        if (generate_check_options(&how)) return -1;
    }
    return 0;
}

static value value_of(int i, const param_value *v) {
    if (param_is_text(&param_table[i])) return (value){.kind = VALUE_TEXT, .text = v->text};
    if (param_table[i].kind == KIND_OPTIONAL && !v->number) return (value){.kind = VALUE_NONE};
    return (value){.kind = VALUE_NUMBER, .number = v->number};
}

/* Columns that say what follows from a parameter vary with it. */
static const struct {
    int column, param;
} followers[] = {
    {COLUMN_quantization, PARAM_model},
    {COLUMN_device, PARAM_engine},
    {COLUMN_kv_gb, PARAM_model},
    {COLUMN_kv_gb, PARAM_n_prompt},
    {COLUMN_kv_gb, PARAM_n_generate},
    {COLUMN_kv_gb, PARAM_depth},
    {COLUMN_kv_gb, PARAM_batch},
    {COLUMN_kv_gb, PARAM_max_kv_size},
    {COLUMN_kv_gb, PARAM_kv_bits},
    {COLUMN_kv_gb, PARAM_kv_group_size},
    {COLUMN_kv_gb, PARAM_quantized_kv_start},
};

sweep plan_sweep(const plan *p, int64_t repeats) {
    sweep s = {.repeats = repeats, .varies[COLUMN_configuration] = p->n > 1};
    for (int i = 0; i < N_PARAMS; i++)
        for (int k = 0; k < p->n_values[i]; k++)
            sweep_add(&s, COLUMN_FIRST_PARAM + i, value_of(i, &p->values[i][0]),
                      value_of(i, &p->values[i][k]));
    for (int k = 0; k < p->n_values[PARAM_batch]; k++)
        if (p->values[PARAM_batch][k].number > s.batch) s.batch = p->values[PARAM_batch][k].number;
    for (size_t i = 0; i < sizeof followers / sizeof *followers; i++)
        s.varies[followers[i].column] |= s.varies[COLUMN_FIRST_PARAM + followers[i].param];
    return s;
}
