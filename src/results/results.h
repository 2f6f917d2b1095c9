/* results.h - what was measured, as rows: columns, spreads over repeats, and rows read back from
 * files. The columns are three lists (params.def, metrics.def, facts.def); nothing names one twice.
 * Knows no engine and no model: rows come from the benchmark or from a file, and are the same.
 */
#ifndef RESULTS_RESULTS_H
#define RESULTS_RESULTS_H

#include "base/base.h"

/* ---- what the lists are made of ---- */

#define TYPE_TEXT     const char *
#define TYPE_SETTING  const char * /* NULL: means nothing to the engine */
#define TYPE_NUMBER   int64_t
#define TYPE_OPTIONAL int64_t /* 0: unset */
#define TYPE_BOOL     int8_t  /* 1, 0; -1: unset */

/* One configuration: a member for each line of params.def. */
typedef struct params {
#define PARAM(field, kind, ...) TYPE_##kind field;
#include "results/params.def"
} params;

enum {
#define PARAM(field, ...) PARAM_##field,
#include "results/params.def"
    N_PARAMS
};

typedef enum param_kind { KIND_TEXT, KIND_SETTING, KIND_NUMBER, KIND_OPTIONAL } param_kind;

typedef struct param {
    const char *name; /* of the column and of the member */
    param_kind kind;
    const char *option, *short_option, *metavar, *list_metavar, *default_list; /* "N", "N,..." */
    bool of_generate;             /* `mlxbench generate` has it, too */
    const char *generate_default; /* there; NULL: none */
    int64_t min, max;
    const char *choices;
    const char *help;
    size_t offset; /* of the member */
} param;
extern const param param_table[N_PARAMS];

static inline bool param_is_text(const param *p) {
    return p->kind == KIND_TEXT || p->kind == KIND_SETTING;
}

/* The model, the engine, the machine, and what is needed to run it again. Strings are borrowed. */
typedef struct facts {
#define FACT(field, kind) TYPE_##kind field;
#include "results/facts.def"
} facts;

/* What one run measured, raw; metrics.def makes all numbers of it. Times are clock_ns(), memory is
 * in bytes.
 */
typedef struct sample {
    int64_t n_sequences;        /* decoded together */
    int64_t depth;              /* tokens in the cache of each before the prompt */
    int64_t n_prompt, n_tokens; /* of each: tokens of the prompt; tokens generated */
    int64_t load_ns;            /* opening the checkpoint and loading the model */
    int64_t start_ns;           /* the prompt is handed over: caches are there and empty */
    int64_t *token_ns;          /* [n_tokens], when the ids of each step were known to the host */
    int32_t *ids;               /* [n_tokens][n_sequences] */
    struct {
        int64_t weights, kv, scratch, peak;
    } memory;               /* after the last token; peak since the run began */
    int64_t peak_rss;       /* of the process so far; 0: unknown */
    double experts_touched; /* distinct ones, the mean over layers that have some; 0: none, or unknown */
} sample;

/* ---- columns: the run's numbers, then all parameters, metrics and facts ---- */

enum {
    COLUMN_run,
    COLUMN_configuration,
    COLUMN_repeat,
#define PARAM(field, ...) COLUMN_##field,
#include "results/params.def"
#define METRIC(name, ...) COLUMN_##name,
#include "results/metrics.def"
#define FACT(field, ...) COLUMN_##field,
#include "results/facts.def"
    N_COLUMNS
};
enum {
#define METRIC(name, ...) METRIC_##name,
#include "results/metrics.def"
    N_METRICS
};
enum { COLUMN_FIRST_PARAM = COLUMN_repeat + 1 }; /* parameter i is column COLUMN_FIRST_PARAM + i */
enum { COLUMN_FIRST_METRIC = COLUMN_FIRST_PARAM + N_PARAMS };
enum { COLUMN_FIRST_FACT = COLUMN_FIRST_METRIC + N_METRICS };

typedef enum value_kind { VALUE_NONE, VALUE_TEXT, VALUE_NUMBER, VALUE_REAL, VALUE_BOOL } value_kind;

typedef struct value {
    value_kind kind;
    union {
        const char *text;
        int64_t number; /* VALUE_BOOL: 0 or 1 */
        struct {
            double real;
            int decimals; /* real is rounded to so many */
        };
    };
} value;

bool value_equal(value a, value b);

/* The value as plain text; `none` where it is unset. decimals: at most so many. */
void value_put(str *out, value v, int decimals, const char *none);

/* Characters of a text, for alignment: bytes that begin one in UTF-8. */
int text_width(const char *text);

/* How a metric of several runs becomes one value. */
typedef enum summing { MEDIAN, SAME, LARGEST } summing;

typedef struct column {
    const char *name;
    value_kind kind;
    int decimals;    /* VALUE_REAL */
    summing summing; /* of a metric */
} column;
extern const column column_table[N_COLUMNS];

/* The column of that name; -1 when there is none. */
int column_find(const char *name);

/* ---- rows ---- */

/* How n numbers lie. Unset is NAN: low and high below 6 numbers, mean and what follows without one,
 * sd below 2. */
typedef struct spread {
    int64_t n;
    double median;
    double low, high; /* 95 % interval of the median, by order statistics: exact for every distribution */
    double mean, sd;  /* sd: of a sample, with n - 1 */
    double min, max;
    int64_t outliers;       /* modified z-score above 3.5 (Iglewicz and Hoaglin 1993) */
    const double *in_order; /* the numbers, a run after another; of a summary, valid as long as its row */
} spread;

typedef enum row_kind { ROW_RUN, ROW_SUMMARY } row_kind;

/* One line of any output: a run, or a configuration (then cells are its runs' medians and what they
 * share). A run that failed has an error and no metrics. Borrowed: texts, spreads, raw. */
typedef struct row {
    row_kind kind;
    value cells[N_COLUMNS];
    const spread *spreads; /* [N_METRICS] of a summary. NULL of a run */
    const sample *raw;     /* of a run; NULL when it failed, or was read from a file that has none */
} row;

typedef struct run_number {
    int64_t run, configuration, repeat; /* all from 1 */
} run_number;

/* The row of a run; s is NULL when it failed. */
void row_of_run(row *out, run_number number, const params *p, const sample *s, const facts *f);

/* What is known of all rows before the first one is written, for those who lay out a table. */
typedef struct sweep {
    bool varies[N_COLUMNS]; /* has more than one value */
    int width[N_COLUMNS];   /* characters of the longest one; 0: unknown */
    int64_t repeats;        /* the most runs of a configuration */
    int64_t batch;          /* the most sequences of one */
} sweep;

/* Tells s of another value of column c, `first` being an earlier one. */
void sweep_add(sweep *s, int c, value first, value other);

/* ---- summaries ---- */

/* Of n >= 0 numbers, in any order; numbers is sorted. */
spread spread_of(double *numbers, int64_t n);

/* Collects the runs of one configuration. */
typedef struct summary summary;
summary *summary_new(void);
void summary_free(summary *s);

/* -1 when out of memory. What the row points to may change afterwards. */
int summary_add(summary *s, const row *run);

/* The configuration's row, valid until the next call with s; -1 when nothing was added since
 * summary_clear.
 */
int summary_row(summary *s, row *out);

/* The same without medians and spreads, which take as long as there are runs. */
int summary_shared(summary *s, row *out);
void summary_clear(summary *s);

/* ---- two groups of numbers ---- */

/* Probability of ranks at least as uneven if both groups come from the same distribution:
 * Mann-Whitney's test, two-sided. Exact with up to 100 numbers, ties included. NAN when a group is
 * empty or memory is out.
 */
double mann_whitney(const double *a, int64_t n_a, const double *b, int64_t n_b);

/* How much larger b is than a (Hodges and Lehmann 1963): the median of all differences, and the 95
 * % interval that belongs to the test above. Unset is NAN: the interval below 4 numbers each, or
 * so; all when memory is out. */
typedef struct shift {
    double estimate, low, high;
} shift;
shift shift_of(const double *a, int64_t n_a, const double *b, int64_t n_b);

/* Adjusts n probabilities, of which NAN is none, so that all together err with what one alone would
 * (Holm 1979). */
int holm(double *p, int64_t n);
double geometric_mean(const double *x, int64_t n);

/* ---- files ---- */

enum { RESULTS_SCHEMA = 1 }; /* of json: a reader refuses others */

/* Runs read from a file. Zero-initialise; results_free is harmless then. */
typedef struct results {
    arena *memory;
    int64_t n;
    row *runs;
    sweep sweep;
    bool other_columns; /* it lacks some of ours, or has some that we don't know */
} results;

/* Reads a file that one of our formats json, jsonl, csv, sql or sqlite wrote, or llama-bench in any
 * of its five forms (or we in them), of any length; a text may end in the middle of its last line,
 * as a killed program leaves it. A test of llama-bench becomes a run for each of its samples, or
 * one with its mean. -1 with a message that names the file and the line, when it is none.
 * results_parse knows no databases. */
int results_read(results *r, const char *path);
int results_parse(results *r, const char *text, size_t n, const char *name);
void results_free(results *r);

/* Adds a run that was just measured to r, which begins zeroed; its sample is left out.
 * results_complete follows the last one, before anything else is asked of r. -1 when out of
 * memory. */
int results_add(results *r, const row *run);
int results_complete(results *r);

/* The largest numbers of a run and of a configuration; 0 where there is none. */
void results_last(const results *r, int64_t *run, int64_t *number_of_configuration);

/* Calls on_row for every run in order, and for each configuration once it and all before it are
 * complete, until it returns nonzero: that. */
int results_each(const results *r, int (*on_row)(void *context, const row *r), void *context);

/* A hash of n ids (FNV-1a, 64 bits, over each id's four bytes, the lowest first), in
 * hexadecimal. */
enum { HASH_CHARS = 17 };
void hash_ids(const int32_t *ids, int64_t n, char out[HASH_CHARS]);

/* Do ids_hash and the times of a run follow from its raw sample? Those that do not are appended to
 * wrong, and it is 1; else 0, as without a sample. */
int row_check(const row *r, str *wrong);

/* The seal of a document: SHA-256 of its canonical form without the member "seal", in hexadecimal.
 * -1 with a message. */
enum { SEAL_CHARS = 65 };
int seal_of(const json *root, char out[SEAL_CHARS]);

/* Is the seal of the file right? *sealed: it has one. -1 when it is broken (EXIT_GATE), or the file
 * can't be read. */
int seal_check(const char *path, bool *sealed);

/* A table "runs" in an SQLite file, with a column for each of ours: BIGINT, DOUBLE PRECISION,
 * BOOLEAN or TEXT. Several programs may add to one at the same time. */
typedef struct run_table run_table;

typedef struct table_options {
    bool replace; /* the runs that are there go, in the same moment as the first new one comes */
    int64_t last_configuration; /* numbers of configurations up to it mean those in the table; larger ones
                                   are counted from what is there */
} table_options;

/* Finds out whether runs can be added to the file `path` (borrowed), which is made with the first
 * one. Columns that an earlier table lacks are added then. NULL with a message. */
run_table *table_open(const char *path, const table_options *how);

/* Adds a run, in a transaction of its own: afterwards it is there, whatever happens to the program.
 * Its `run` becomes the next number in the table. -1 with a message. */
int table_add(run_table *t, const row *run);
void table_close(run_table *t); /* harmless on NULL */

/* The statement that makes such a table, without a semicolon, appended to out. */
void put_create_table(str *out);

/* ---- llama-bench's table, which we write and read ---- */

typedef enum llama_kind { LLAMA_TEXT, LLAMA_INTEGER, LLAMA_BOOL, LLAMA_REAL } llama_kind;

typedef enum llama_role { LLAMA_FACT, LLAMA_TEST, LLAMA_SETTING } llama_role;

typedef struct llama_column {
    const char *name;
    llama_kind kind;
    llama_role role;
    const char *standard;   /* what is written where we have nothing of the kind; NULL: it is computed */
    const char *short_name; /* in md */
    bool old;               /* of other versions: read, not written */
} llama_column;

enum {
#define LLAMA(name, ...) LLAMA_##name,
#include "results/llama_bench.def"
    N_LLAMA
};
extern const llama_column llama_table[N_LLAMA];

/* ---- two files side by side ---- */

enum { N_COMPARED = 2 }; /* metrics: prompt_tps, generation_tps */

/* A metric of one configuration, from a to b: ratios of speeds, with the interval of the shift of
 * their logarithms. */
typedef struct difference {
    const row *of; /* a run of a's file */
    int column;    /* the metric */
    spread a, b;
    double ratio, low, high; /* of the medians; 95 % interval (Hodges-Lehmann) */
    double p, p_holm;        /* Mann-Whitney; over the whole comparison */
    char grade_a, grade_b;   /* quality of the runs; 0: unknown */
} difference;

typedef struct mean_change {
    int column;
    int64_t n;    /* configurations */
    double ratio; /* the geometric mean of theirs */
} mean_change;

typedef struct comparison {
    bool varies[N_COLUMNS]; /* in one of the files: it tells configurations apart */
    int64_t n;
    difference *items;
    mean_change means[N_COMPARED];
    bool only_quiet; /* what was measured with a quality below B gets no verdict; set by the caller */
    double limit;    /* a ratio below it is a loss; 0: none is. Set by the caller */
} comparison;

/* Compares the configurations that a and b have in common: equal in all parameters that vary within
 * a file. What varies in neither may differ between them. -1 when there are none. a and b must
 * outlive c. */
int results_compare(comparison *c, const results *a, const results *b);
void comparison_free(comparison *c);

/* Is it more than chance, at 5 % for all of the comparison together? */
bool difference_is_sure(const difference *d);

/* Is it lower than the limit allows, surely, and not the machine's doing? */
bool difference_is_loss(const comparison *c, const difference *d);

/* Has either side a quality below B? Then the machine may have made the difference. */
bool difference_is_disturbed(const difference *d);

/* ---- one configuration over time ---- */

/* How likely it is that n numbers in the order of time fall apart at some place as clearly as they
 * do, if their order means nothing; *at is the place: numbers from there on are of the new level.
 * The largest of Mann and Whitney's statistics over all places (Hawkins and Deng 2010), its
 * distribution by 9,999 random orders. NAN below 4 numbers, and when out of memory. */
double change_test(const double *x, int64_t n, int64_t *at);

/* What was measured of a configuration in one go: rows with one number of configuration. */
typedef struct measurement {
    const row *first, *last; /* of its runs that succeeded */
    int64_t n;
    spread speeds[N_COMPARED];
    char grade; /* quality of the runs; 0: unknown */
} measurement;

/* From measurement `at` on, the speed is `ratio` of that before it, back to the change before. */
typedef struct level_change {
    int column;
    int64_t at;
    double ratio, p; /* p: adjusted for all that was asked of all configurations */
} level_change;

typedef struct trend {
    int64_t n, n_changes;
    measurement *items;    /* in the order of time */
    level_change *changes; /* by metric, then in the order of time */
} trend;

typedef struct trends {
    int64_t n;
    trend *items;
    measurement *measurements; /* of all */
} trends;

/* The column of compared metric k. */
int compared_column(int k);

/* The measurements in r, by what is the same in them: parameters, weights, machine and what else
 * sets the speed, but versions; and where each speed changed. Those of quality D and F are shown,
 * and not asked about changes. r must outlive t. -1 when out of memory. */
int results_trends(trends *t, const results *r);
void trends_free(trends *t);

/* Has quality D or F? */
bool measurement_is_disturbed(const measurement *m);

#endif
