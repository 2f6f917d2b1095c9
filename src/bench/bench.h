/* bench.h - a benchmark: the plan (a product of parameter lists) and its runs, each of which gives
 * a row. What a row is, and which columns it has, is in results/.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include "generate/generate.h"
#include "quality/quality.h"
#include "results/results.h"

/* ---- the plan ---- */

typedef union param_value {
    const char *text;
    int64_t number;
} param_value;

/* The values of every parameter. Configuration i takes one of each; all together are the
 * product. */
typedef struct plan {
    arena *memory;
    int n_values[N_PARAMS];
    param_value *values[N_PARAMS];
    int64_t n; /* configurations */
} plan;

/* Reads one comma-separated list per parameter. -1 with a usage error that names the option: an
 * empty element, no number, out of range, not one of the choices. plan_free is harmless on a zeroed
 * plan. */
int plan_parse(plan *p, const char *const lists[N_PARAMS]);
void plan_free(plan *p);

/* Configuration i in [0, p->n): model varies slowest, the last parameter fastest. */
params plan_params(const plan *p, int64_t i);

/* -1 with a usage error when a configuration is wrong for every model. */
int plan_check(const plan *p);

/* What the plan's rows will have, with that many repeats. */
sweep plan_sweep(const plan *p, int64_t repeats);

/* One configuration, of the parameters that `mlxbench generate` has: a value each (no lists; NULL:
 * its default there), borrowed. The others are zero. -1 with a usage error, as plan_parse. */
int params_parse(params *out, const char *const texts[N_PARAMS]);

/* The parameters as their users want them; unset threads become the cores there are. A member of
 * the engine's settings is borrowed from p. */
generate_options params_generate(const params *p);
engine_options params_engine(const params *p);

/* What a configuration runs with. */
typedef struct loaded_model {
    const checkpoint *checkpoint;
    const engine *engine;
    const model *model;
} loaded_model;

/* Appends what a user should know of a run of n_tokens in all, though it is possible, a line each:
 * more threads than cores, more tokens than the model was made for, kv_bits without effect. */
void params_notes(const params *p, const loaded_model *m, int64_t n_tokens, str *out);

/* MLX reads variables of its own from the environment, once per process. Sets those that were given
 * as NAME=VALUE, before any engine is opened; -1 with a usage error when one is no such pair. */
int mlx_env_set(const option_texts *given);

/* ---- running ---- */

enum { WARMUP_MOST = 5, REPEATS_LEAST = 6, REPEATS_MOST = 10000 }; /* of `auto` */
enum { WINDOWS = 10 }; /* of duration_ns: equal parts, each with a speed of its own */

/* How each model gets a process of its own: this program, with a command that leads to bench_serve
 * of the same plan and options, but for `earlier`. */
typedef struct bench_child {
    const char *program;
    const char *const *arguments; /* NULL last. --prompt - : the text comes from standard input */
    int64_t timeout_ns;           /* for loading a model, and for a run; 0: none */
} bench_child;

/* Two programs that measure the same in turn: this one, and another mlxbench. */
typedef struct bench_programs {
    const char *own, *other; /* paths */
    const char *other_name;  /* as given, for the rows */
    bool given[N_PARAMS];    /* parameters that someone gave a value to; the others are each program's own */
    int n;
    const char *const *arguments; /* [n] other options that both get */
    int64_t timeout_ns;           /* for a turn; 0: none */
} bench_programs;

typedef struct bench_options {
    const char *prompt; /* text, repeated and cut to n_prompt tokens */
    size_t prompt_length;
    const char *command; /* for the rows: how this was asked for; or NULL */
    bool prompt_given;   /* someone wants this very text: not having a tokenizer for it is an error */
    int64_t repeats; /* measured runs per configuration; 0: until `precision` or `time_limit_ns` is reached */
    int64_t warmup;  /* unmeasured runs before them; -1: until speeds level off, at most WARMUP_MOST */
    double precision; /* width of the 95 % interval of the median of both speeds, relative to the median */
    int64_t time_limit_ns; /* of a configuration's measured runs */
    int64_t duration_ns;   /* runs of a configuration until they have taken so long; 0: see repeats */
    int64_t delay_ns;      /* before each run */
    char require_quality;  /* runs of a worse grade are measured again, within time_limit_ns; 0: none is */
    void (*watch)(sys_state *s, bool gpu); /* sys_watch; another one in tests */
    const results *earlier; /* runs that need not be measured again: they are handed on first; or NULL */
    int64_t last_run, last_configuration; /* numbers that are taken already */
    bool given_order;                     /* of configurations; false: at random, in turn */
    uint64_t seed;                        /* of synthetic weights, random prompts and the random order */
    bool verbose;                         /* the generated text goes to stderr */
    enum { PROGRESS_AUTO, PROGRESS_NONE, PROGRESS_JSON } progress; /* AUTO: a line, on a terminal */
    int (*find_model)(const char *model, str *path);               /* where a name's files are */
    const bench_child *child;                                      /* NULL: models run in this process */
    const bench_programs *programs;                                /* NULL: this process measures */
    void (*put_row)(str *out, const row *r); /* of bench_serve: as a line that results_parse reads */
} bench_options;

/* Runs the plan; each run's row is handed to on_row as soon as it is measured, and a
 * configuration's once it and all before it are done; rows are dead afterwards. Each model is
 * loaded once per engine, and its configurations take turns in random order where they have more
 * than one run. A configuration that fails gives a run with an error and a note, its repeats are
 * dropped, and the next one follows, with the model loaded again if the engine was at fault; at the
 * end that is an error: -1. Stops at once when on_row returned nonzero, after Ctrl-C, and when the
 * only model can run nothing that was asked for. Progress and notes go to stderr. */
int bench_run(const plan *p, const bench_options *o, int (*on_row)(void *context, const row *r),
              void *context);

/* In the process of a model: does what the process of bench_run says through the channel
 * (PROCESS_CHANNEL), until that closes. */
int bench_serve(const plan *p, const bench_options *o);

#endif
