/* schema.c - the JSON Schema of all JSON that the program writes: results, made from the lists of
 * columns, so that it can't fall behind them, and what hwinfo, compare and history print. JSON
 * Schema 2020-12 (json-schema.org).
 */
#include "report/format.h"

#include <stdio.h>

#define TYPE(type)      "{\"type\": \"" type "\"}"
#define OR_NULL(type)   "{\"type\": [\"" type "\", \"null\"]}"
#define COUNT           "{\"type\": \"integer\", \"minimum\": 0}"
#define LIST(of)        "{\"type\": \"array\", \"items\": " of "}"
#define REFERENCE(name) "{\"$ref\": \"#/$defs/" name "\"}"
#define GRADE           "{\"enum\": [\"A\", \"B\", \"C\", \"D\", \"F\", null]}"

/* A member of an object, and the schema of its value. */
typedef struct member {
    const char *name, *schema;
    bool optional;
} member;

static const member spread_members[] = {
    {"n", COUNT, false},
    {"outliers", COUNT, false},
    {"median", OR_NULL("number"), false},
    {"low", OR_NULL("number"), false},
    {"high", OR_NULL("number"), false},
    {"mean", OR_NULL("number"), false},
    {"sd", OR_NULL("number"), false},
    {"min", OR_NULL("number"), false},
    {"max", OR_NULL("number"), false},
};

static const member seal_members[] = {{"sha256", TYPE("string"), false}};

static const member cache_members[] = {
    {"level", COUNT, false},
    {"type", TYPE("string"), false},
    {"bytes", COUNT, false},
    {"instances", COUNT, false},
};

static const member gpu_members[] = {
    {"name", TYPE("string"), false},
    {"cores", COUNT, false},
    {"memory_bytes", COUNT, false},
    {"driver", TYPE("string"), false},
};

static const member engine_members[] = {
    {"name", TYPE("string"), false},
    {"version", TYPE("string"), false},
    {"device", TYPE("string"), false},
    {"missing", TYPE("string"), true},
};

static const member hwinfo_members[] = {
    {"line", TYPE("string"), false},
    {"id", TYPE("string"), false},
    {"chip", TYPE("string"), false},
    {"physical_cores", COUNT, false},
    {"logical_cores", COUNT, false},
    {"performance_cores", COUNT, false},
    {"efficiency_cores", COUNT, false},
    {"usable_cores", COUNT, false},
    {"numa_nodes", COUNT, false},
    {"memory_bytes", COUNT, false},
    {"available_memory_bytes", COUNT, false},
    {"simd", LIST(TYPE("string")), false},
    {"caches", LIST(REFERENCE("cache")), false},
    {"gpus", LIST(REFERENCE("gpu")), false},
    {"os", TYPE("string"), false},
    {"kernel", TYPE("string"), false},
    {"architecture", TYPE("string"), false},
    {"engines", LIST(REFERENCE("engine")), false},
};

static const member difference_members[] = {
    {"before", TYPE("string"), false},
    {"after", TYPE("string"), false},
    {"configuration", TYPE("string"), false},
    {"metric", REFERENCE("compared"), false},
    {"n_before", COUNT, false},
    {"n_after", COUNT, false},
    {"median_before", OR_NULL("number"), false},
    {"median_after", OR_NULL("number"), false},
    {"ratio", OR_NULL("number"), false},
    {"low", OR_NULL("number"), false},
    {"high", OR_NULL("number"), false},
    {"p", OR_NULL("number"), false},
    {"p_holm", OR_NULL("number"), false},
    {"verdict", "{\"enum\": [\"~\", \"faster\", \"slower\", \"not comparable\"]}", false},
    {"quality_before", GRADE, false},
    {"quality_after", GRADE, false},
};

static const member change_members[] = {
    {"metric", REFERENCE("compared"), false},
    {"measurement", "{\"type\": \"integer\", \"minimum\": 2}", false},
    {"ratio", TYPE("number"), false},
    {"p", TYPE("number"), false},
};

static const char *type_of(int c) {
    switch (column_table[c].kind) {
    case VALUE_NUMBER:
        return "integer";
    case VALUE_REAL:
        return "number";
    case VALUE_BOOL:
        return "boolean";
    default:
        return "string";
    }
}

/* ---- objects: columns, then other members ---- */

/* The members of an object so far, and the names of those that it must have. */
typedef struct object {
    str properties, required;
} object;

static void add_member(object *o, const char *name, const char *schema, bool optional) {
    str_printf(&o->properties, "%s\"%s\": %s", o->properties.length ? ", " : "", name, schema);
    if (!optional) str_printf(&o->required, "%s\"%s\"", o->required.length ? ", " : "", name);
}

static void add_members(object *o, const member *m, size_t n) {
    for (size_t i = 0; i < n; i++) add_member(o, m[i].name, m[i].schema, m[i].optional);
}

static void add_columns(object *o, int first, int last) {
    char schema[64];
    for (int c = first; c <= last; c++) {
        snprintf(schema, sizeof schema, OR_NULL("%s"), type_of(c));
        add_member(o, column_table[c].name, schema, false);
    }
}

static void add_raw(object *o) {
    add_member(o, "load_ns", TYPE("integer"), true);
    add_member(o, "start_ns", TYPE("integer"), true);
    add_member(o, "token_ns", LIST(TYPE("integer")), true);
    add_member(o, "token_ids", LIST(TYPE("integer")), true);
}

/* The object's schema; o is empty afterwards. type: "object", or what else it may be. */
static void put_object(str *out, object *o, const char *type) {
    str_printf(
        out, "{\"type\": %s, \"additionalProperties\": false,\n \"properties\": {%s},\n \"required\": [%s]}",
        type, o->properties.data, o->required.data);
    out->failed |= o->properties.failed || o->required.failed;
    str_free(&o->properties);
    str_free(&o->required);
}

static void define(str *out, const char *name) {
    str_printf(out, ",\n\"%s\": ", name);
}

static void define_object(str *out, const char *name, object *o) {
    define(out, name);
    put_object(out, o, "\"object\"");
}

#define DEFINE_MEMBERS(out, name, members)                                                                   \
    do {                                                                                                     \
        object all = {0};                                                                                    \
        add_members(&all, members, sizeof(members) / sizeof *(members));                                     \
        define_object(out, name, &all);                                                                      \
    } while (0)

/* ---- what there is ---- */

static void define_spreads(str *out) {
    object o = {0};
    DEFINE_MEMBERS(out, "spread", spread_members);
    for (int c = COLUMN_FIRST_METRIC; c < COLUMN_FIRST_FACT; c++)
        if (column_table[c].summing == MEDIAN)
            add_member(&o, column_table[c].name, REFERENCE("spread"), false);
    define_object(out, "spreads", &o);
}

static void define_rows(str *out) {
    object o = {0};
    add_columns(&o, COLUMN_hw_model, COLUMN_os);
    define(out, "machine");
    put_object(out, &o, "[\"object\", \"null\"]");
    for (int line = 0; line < 2; line++) { /* one of jsonl says what it is */
        add_columns(&o, 0, N_COLUMNS - 1);
        if (line) add_member(&o, "kind", "{\"const\": \"run\"}", false);
        add_raw(&o);
        define_object(out, line ? "run_line" : "run", &o);
        add_columns(&o, 0, N_COLUMNS - 1);
        if (line) add_member(&o, "kind", "{\"const\": \"summary\"}", false);
        add_member(&o, "spreads", REFERENCE("spreads"), false);
        define_object(out, line ? "summary_line" : "summary", &o);
    }
    define(out, "line");
    str_puts(out, "{\"anyOf\": [" REFERENCE("run_line") ", " REFERENCE("summary_line") "]}");
}

static void define_hwinfo(str *out) {
    DEFINE_MEMBERS(out, "cache", cache_members);
    DEFINE_MEMBERS(out, "gpu", gpu_members);
    DEFINE_MEMBERS(out, "engine", engine_members);
    DEFINE_MEMBERS(out, "hwinfo", hwinfo_members);
}

static void define_comparison(str *out) {
    define(out, "compared");
    str_puts(out, "{\"enum\": [");
    for (int k = 0; k < N_COMPARED; k++)
        str_printf(out, "%s\"%s\"", k ? ", " : "", column_table[compared_column(k)].name);
    str_puts(out, "]}");
    DEFINE_MEMBERS(out, "difference", difference_members);
    define(out, "comparison");
    str_puts(out, LIST(REFERENCE("difference")));
}

static void define_history(str *out) {
    object o = {0};
    add_columns(&o, COLUMN_FIRST_FACT, N_COLUMNS - 1);
    add_member(&o, "runs", COUNT, false);
    for (int k = 0; k < N_COMPARED; k++) add_columns(&o, compared_column(k), compared_column(k));
    define_object(out, "measurement", &o);
    DEFINE_MEMBERS(out, "change", change_members);
    add_columns(&o, COLUMN_FIRST_PARAM, COLUMN_FIRST_METRIC - 1);
    add_member(&o, "measurements", LIST(REFERENCE("measurement")), false);
    add_member(&o, "changes", LIST(REFERENCE("change")), false);
    define_object(out, "trend", &o);
    define(out, "history");
    str_puts(out, LIST(REFERENCE("trend")));
}

static void put_results(str *out) {
    str_printf(out,
               "\"type\": \"object\", \"additionalProperties\": false,\n\"properties\": {\"schema\": "
               "{\"const\": %d}, \"machine\": %s, \"runs\": %s, \"summaries\": %s,\n \"publishable\": %s, "
               "\"reasons\": %s, \"seal\": %s},\n\"required\": [\"schema\", \"machine\", \"runs\", "
               "\"summaries\"]",
               RESULTS_SCHEMA, REFERENCE("machine"), LIST(REFERENCE("run")), LIST(REFERENCE("summary")),
               TYPE("boolean"), LIST(TYPE("string")), REFERENCE("seal"));
}

void report_schema(str *out) {
    object seal = {0};
    str_printf(out,
               "{\"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n\"title\": \"Results of "
               "mlxbench, schema %d\",\n\"description\": \"The format json. A line of jsonl is #/$defs/line; "
               "what hwinfo, compare and history print as JSON is #/$defs/hwinfo, #/$defs/comparison and "
               "#/$defs/history. docs/metrics.md explains each column; an unset one is null.\",\n",
               RESULTS_SCHEMA);
    put_results(out);
    str_puts(out, ",\n\"$defs\": {\n\"seal\": ");
    add_members(&seal, seal_members, 1);
    put_object(out, &seal, "\"object\"");
    define_spreads(out);
    define_rows(out);
    define_hwinfo(out);
    define_comparison(out);
    define_history(out);
    str_puts(out, "\n}}\n");
}
