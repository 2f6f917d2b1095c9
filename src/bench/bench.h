/* bench.h - a benchmark: the plan (a product of parameter lists), the runs, and the record each run gives.
 * Parameters, metrics and facts are lists (params.def, metrics.def, facts.def); nothing names a column twice.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include "engine/engine.h"

/* ---- parameters: one configuration ---- */

#define TYPE_TEXT     const char *
#define TYPE_NUMBER   int64_t
#define TYPE_OPTIONAL int64_t /* 0: unset */
#define TYPE_BOOL     int8_t  /* 1, 0; -1: unset */

typedef struct params {
#define PARAM(field, kind, ...) TYPE_##kind field;
#include "bench/params.def"
} params;

enum {
#define PARAM(field, ...) PARAM_##field,
#include "bench/params.def"
    N_PARAMS
};

typedef enum param_kind { KIND_TEXT, KIND_NUMBER, KIND_OPTIONAL } param_kind;

typedef struct param {
    const char *name; /* of the column and of the member */
    param_kind kind;
    const char *option, *short_option, *metavar, *default_list;
    int64_t min, max;
    const char *choices;
    const char *help; /* with the default */
    size_t offset;    /* of the member */
} param;
extern const param param_table[N_PARAMS];

/* ---- the plan ---- */

typedef union param_value {
    const char *text;
    int64_t number;
} param_value;

/* The values of every parameter. Configuration i takes one of each; all together are the product. */
typedef struct plan {
    arena *memory;
    int n_values[N_PARAMS];
    param_value *values[N_PARAMS];
    int64_t n; /* configurations */
} plan;

/* Reads one comma-separated list per parameter. -1 with a usage error that names the option: an empty
 * element, no number, out of range, not one of the choices. plan_free is harmless on a zeroed plan. */
int plan_parse(plan *p, const char *const lists[N_PARAMS]);
void plan_free(plan *p);

/* Configuration i in [0, p->n): model varies slowest, the last parameter fastest. */
params plan_params(const plan *p, int64_t i);

/* -1 with a usage error when a configuration is wrong for every model. */
int plan_check(const plan *p);

/* MLX reads its own knobs (the parameters mlx_...) from the environment, once per process: sets those that
 * were given. Before any engine is opened. -1 with a usage error when one of them has several values. */
int mlx_knobs_set(const plan *p);

/* ---- results ---- */

/* What one run measured, raw; metrics.def makes all numbers of it. Times are clock_ns(). */
typedef struct sample {
    int64_t n_prompt, n_tokens; /* tokens of the prompt; tokens generated */
    int64_t load_ns;            /* opening the checkpoint and loading the model */
    int64_t start_ns;           /* the prompt is handed over: caches are there and empty */
    int64_t *token_ns;          /* [n_tokens], when each token's id was known to the host */
    int32_t *ids;               /* [n_tokens] */
    engine_memory memory;       /* after the last token; peak since the run began */
    int64_t peak_rss;           /* of the process so far; 0: unknown */
} sample;

typedef struct facts {
#define FACT(field, kind) TYPE_##kind field;
#include "bench/facts.def"
} facts;

/* One row: its number from 1, what was asked for (with what really ran: engine, threads, prompt_source), what
 * was measured, and what it was measured on. With facts.error there is no sample, and all metrics are unset.
 * Strings are borrowed. */
typedef struct record {
    int64_t run;
    params params;
    sample sample;
    facts facts;
} record;

/* ---- columns: run, then all parameters, metrics and facts ---- */

enum {
    COLUMN_run,
#define PARAM(field, ...) COLUMN_##field,
#include "bench/params.def"
#define METRIC(name, ...) COLUMN_##name,
#include "bench/metrics.def"
#define FACT(field, ...) COLUMN_##field,
#include "bench/facts.def"
    N_COLUMNS
};
enum { COLUMN_FIRST_PARAM = COLUMN_run + 1 }; /* parameter i is column COLUMN_FIRST_PARAM + i */

typedef enum value_kind { VALUE_NONE, VALUE_TEXT, VALUE_NUMBER, VALUE_REAL, VALUE_BOOL } value_kind;

typedef struct value {
    value_kind kind;
    union {
        const char *text;
        int64_t number; /* VALUE_BOOL: 0 or 1 */
        struct {
            double real;
            int decimals; /* worth printing */
        };
    };
} value;

const char *column_name(int column);
value record_value(const record *r, int column);

/* ---- running ---- */

typedef struct bench_options {
    const char *prompt; /* text, repeated and cut to n_prompt tokens */
    size_t prompt_length;
    bool prompt_given; /* someone wants this very text: not having a tokenizer for it is an error */
    int64_t repeats;   /* measured runs per configuration */
    int64_t warmup;    /* unmeasured runs before them */
    uint64_t seed;     /* of synthetic weights and random prompts */
    bool verbose;      /* the generated text goes to stderr */
    int (*find_model)(const char *model, str *path); /* where a name's files are */
} bench_options;

/* Runs the plan; each record is handed to on_row as soon as it is measured, and is dead afterwards. Each
 * model is loaded once per engine. A configuration that fails gives a record with facts.error and a note, its
 * repeats are dropped, and the next one follows, with the model loaded again if the engine was at fault; at
 * the end that is an error: -1. Stops at once when on_row returned nonzero, after Ctrl-C, and when the
 * command itself is wrong: all configurations of the first model are checked before anything is measured.
 * Progress and notes go to stderr. */
int bench_run(const plan *p, const bench_options *o, int (*on_row)(void *context, const record *r),
              void *context);

#endif
