/* schema.c - the JSON Schema of what the formats json and jsonl write, made from the lists of
 * columns: so it can't fall behind them. JSON Schema 2020-12 (json-schema.org).
 */
#include "report/format.h"

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

static void put_columns(str *out, int first, int last) {
    for (int c = first; c <= last; c++)
        str_printf(out, "%s\"%s\": {\"type\": [\"%s\", \"null\"]}", c > first ? ", " : "",
                   column_table[c].name, type_of(c));
}

static void put_names(str *out, int first, int last) {
    for (int c = first; c <= last; c++)
        str_printf(out, "%s\"%s\"", c > first ? ", " : "", column_table[c].name);
}

/* "NAME": an object of the columns first to last; more: further members, with a comma before
 * them. */
static void put_object(str *out, const char *name, const char *more, const char *required) {
    str_printf(out, ",\n\"%s\": {\"type\": \"object\", \"additionalProperties\": false,\n \"properties\": {",
               name);
    put_columns(out, 0, N_COLUMNS - 1);
    str_printf(out, "%s},\n \"required\": [", more);
    put_names(out, 0, N_COLUMNS - 1);
    str_printf(out, "%s]}", required);
}

static void put_spreads(str *out) {
    static const char *const members[] = {"median", "low", "high", "mean", "sd", "min", "max"};
    enum { N = sizeof members / sizeof *members };
    str_puts(out, "\"spread\": {\"type\": \"object\", \"additionalProperties\": false, \"properties\": "
                  "{\"n\": {\"type\": "
                  "\"integer\", \"minimum\": 0}, \"outliers\": {\"type\": \"integer\", \"minimum\": 0}");
    for (int i = 0; i < N; i++) str_printf(out, ", \"%s\": {\"type\": [\"number\", \"null\"]}", members[i]);
    str_puts(out, "}, \"required\": [\"n\", \"outliers\"");
    for (int i = 0; i < N; i++) str_printf(out, ", \"%s\"", members[i]);
    str_puts(
        out,
        "]},\n\"spreads\": {\"type\": \"object\", \"additionalProperties\": {\"$ref\": \"#/$defs/spread\"}, "
        "\"required\": [");
    const char *before = "";
    for (int c = COLUMN_FIRST_METRIC; c < COLUMN_FIRST_FACT; c++) {
        if (column_table[c].summing != MEDIAN) continue;
        str_printf(out, "%s\"%s\"", before, column_table[c].name);
        before = ", ";
    }
    str_puts(out, "]}");
}

#define RAW                                                                                                  \
    ", \"load_ns\": {\"type\": \"integer\"}, \"start_ns\": {\"type\": \"integer\"}, \"token_ns\": "          \
    "{\"type\": "                                                                                            \
    "\"array\", \"items\": {\"type\": \"integer\"}}, \"token_ids\": {\"type\": \"array\", \"items\": "       \
    "{\"type\": \"integer\"}}"
#define SPREADS ", \"spreads\": {\"$ref\": \"#/$defs/spreads\"}"

void report_schema(str *out) {
    str_printf(
        out,
        "{\"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n"
        "\"title\": \"Results of mlxbench, schema %d\",\n"
        "\"description\": \"The format json; a line of jsonl is #/$defs/line. docs/metrics.md explains each "
        "column; an unset one is null.\",\n"
        "\"type\": \"object\", \"additionalProperties\": false,\n"
        "\"properties\": {\"schema\": {\"const\": %d}, \"machine\": {\"$ref\": \"#/$defs/machine\"}, "
        "\"runs\": "
        "{\"type\": \"array\", \"items\": {\"$ref\": \"#/$defs/run\"}}, \"summaries\": {\"type\": \"array\", "
        "\"items\": {\"$ref\": \"#/$defs/summary\"}}, "
        "\"publishable\": {\"type\": \"boolean\"}, \"reasons\": {\"type\": \"array\", \"items\": "
        "{\"type\": \"string\"}}, \"seal\": {\"type\": \"object\", \"additionalProperties\": false, "
        "\"properties\": {\"sha256\": {\"type\": \"string\"}}, \"required\": [\"sha256\"]}},\n"
        "\"required\": [\"schema\", \"machine\", \"runs\", \"summaries\"],\n\"$defs\": {\n",
        RESULTS_SCHEMA, RESULTS_SCHEMA);
    put_spreads(out);
    str_puts(out, ",\n\"machine\": {\"type\": [\"object\", \"null\"], \"additionalProperties\": false, "
                  "\"properties\": {");
    put_columns(out, COLUMN_hw_model, COLUMN_os);
    str_puts(out, "}, \"required\": [");
    put_names(out, COLUMN_hw_model, COLUMN_os);
    str_puts(out, "]}");
    put_object(out, "run", RAW, "");
    put_object(out, "summary", SPREADS, ", \"spreads\"");
    put_object(out, "run_line", ", \"kind\": {\"const\": \"run\"}" RAW, ", \"kind\"");
    put_object(out, "summary_line", ", \"kind\": {\"const\": \"summary\"}" SPREADS,
               ", \"kind\", \"spreads\"");
    str_puts(out, ",\n\"line\": {\"anyOf\": [{\"$ref\": \"#/$defs/run_line\"}, {\"$ref\": "
                  "\"#/$defs/summary_line\"}]}\n}}\n");
}
