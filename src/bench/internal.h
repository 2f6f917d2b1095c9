/* internal.h - what the files of bench/ share (private to bench/).
 * A run is: loaded model, prompt ids, trials; progress is told about each. */
#ifndef BENCH_INTERNAL_H
#define BENCH_INTERNAL_H

#include "bench/bench.h"
#include "sys/sys.h"
#include "text/text.h"

/* ---- load.c: a model on an engine ---- */

typedef struct loaded {
    const char *model_name, *engine_name; /* as in params; NULL: nothing is loaded */
    checkpoint *checkpoint;
    engine *engine;
    model *model;
    tokenizer *tokenizer;  /* NULL: the checkpoint has none, or nothing needed it */
    token_ids prompt_text; /* the ids of the prompt's text */
    token_ids book_text;   /* of the book; none until it is asked for */
    token_ids file_text;   /* and of a file's */
    const char *file_name; /* as in params; NULL: none was read */
    int64_t load_ns;
} loaded;

/* Makes l hold the model and engine of p; nothing to do when it does. A tokenizer is opened when
 * with_text. On error l is empty. loaded_free is harmless on an empty one. */
int loaded_open(loaded *l, const params *p, const bench_options *o, bool with_text);
void loaded_free(loaded *l);

/* The ids that p's prompt is made of; none for a random one. NULL on error: a file can't be read or
 * gives no token, the model has no tokenizer for it. */
const token_ids *loaded_text(loaded *l, const params *p);

/* The book of --prompt-tokens book: UTF-8, share/book.txt, made by cmake/book.cmake. */
extern const unsigned char book_text[];
extern const size_t book_length;

/* --prompt-tokens file:F */
static inline bool is_from_file(const char *prompt_source) {
    return !strncmp(prompt_source, "file:", strlen("file:"));
}

/* One loading does for both. */
static inline bool same_model(const params *a, const params *b) {
    return !strcmp(a->model, b->model) && !strcmp(a->engine, b->engine);
}

/* The session that p's runs have. */
session_spec params_session(const params *p);

/* MLX's variables in the environment, whoever set them, sorted: "MLX_ENABLE_TF32=0
 * MLX_METAL_JIT=1". NULL when there are none. Lives until the next call. */
const char *mlx_env_text(void);

/* ---- prompt.c ---- */

/* The ids of the options' text: l's tokenizer, with the special tokens it adds. -1 when there are
 * none. */
int encode_prompt(const tokenizer *t, const bench_options *o, token_ids *out);

/* Sequences without end: a text's ids again and again, where sequence s starts s tokens later; or,
 * when there is no text, random ones below vocab_size, of each sequence its own. */
typedef struct prompt_source {
    const token_ids *text;
    int64_t vocab_size;
    uint64_t seed;
} prompt_source;

/* Tokens [first, first + n) of each of them: [n_sequences][n]. NULL when out of memory. Free with
 * free(). */
typedef struct prompt_part {
    int64_t n_sequences, first, n;
} prompt_part;
int32_t *make_prompt(const prompt_source *from, prompt_part part);

/* ---- series.c: how many runs a configuration needs ---- */

enum { N_SPEEDS = 2 }; /* of the prompt and of generation */

/* What is known of a configuration while it is measured. */
typedef struct series {
    params params;
    int64_t index;         /* in the plan */
    bool by_program;       /* one of two programs measures it: */
    const char *program;   /* the other one, as given; NULL: this one */
    int64_t configuration; /* its number, from 1 */
    int64_t n_warm, n;     /* unmeasured runs; measured ones */
    bool warm, done;
    bool settled;             /* unmeasured runs no longer changed, or their number was given */
    double last[N_SPEEDS];    /* of the last unmeasured run */
    double change[N_SPEEDS];  /* from the one before it */
    double *speeds[N_SPEEDS]; /* of measured runs; NAN where there is none */
    int64_t capacity;
    int64_t window;        /* of the last measured run, from 1; 0: there are none */
    int64_t n_rows;        /* of runs, and of the error that ended them */
    int64_t spent_ns;      /* by measured runs */
    int64_t refused_ns;    /* by runs of too bad a quality, and waiting after them */
    int64_t expected;      /* runs still to come, as foreseen */
    summary *summary;      /* NULL: nothing was measured yet */
    value experts_touched; /* unset: not noted */
} series;

/* Takes note of a run, and decides: is the configuration warm, is it done? An unmeasured one while
 * !s->warm. ns: what the run took in all. -1 when out of memory. */
int series_add(series *s, const bench_options *o, const sample *run, int64_t ns);

/* A configuration with no warm-up is warm from the start. */
void series_begin(series *s, const bench_options *o);

/* A run that was measured at another time, with its speeds in tokens per second. -1 when out of
 * memory. */
int series_add_earlier(series *s, const bench_options *o, const double speeds[N_SPEEDS], int64_t ns);
void series_free(series *s);

/* Runs that s will still need, as far as can be foreseen; 0: it is done. */
int64_t series_runs_left(const series *s, const bench_options *o);

/* The interval of the median of speed i, relative to the median: high - low, / median. NAN when
 * there is none. */
double series_width(const series *s, int i);

/* ---- finite.c: logits that are no numbers, which a broken checkpoint gives at full speed ---- */

/* Takes further steps, until one has logits, and looks at them (session_check_logits). 1 with an
 * error when one is not finite; -1 when a step failed. */
int check_next_logits(session *s, int64_t n_sequences, int64_t token);

/* ---- progress.c: one line on a terminal, rewritten, or JSON for a program; the only place that
 * writes to stderr ---- */

typedef struct progress {
    int channel;                           /* of a child: what is to be shown goes there; 0: to stderr */
    bool shown;                            /* stderr is a terminal and nothing else is written to it */
    bool events;                           /* --progress json */
    int64_t n_runs, run;                   /* all; finished ones */
    int64_t prompt_left, generate_left;    /* tokens in all runs to come, this one included: of the prompt, of
                                              all sequences; and steps of generation */
    int64_t prompt_done, generate_done;    /* those of finished runs */
    int64_t prompt_ns, generate_ns;        /* and the time they took */
    int64_t run_prompt, run_generate;      /* tokens of this run, of each sequence */
    int64_t batch;                         /* its sequences */
    int64_t prefilled, generated, told_ns; /* of each sequence */
    uint64_t said[64];                     /* hashes of the notes that were shown */
    int n_said;
} progress;

void progress_begin(progress *p, const plan *all, const bench_options *o);
void progress_start(const progress *p, const plan *all);       /* tells a program what will come */
void progress_expect(progress *p, const params *c, int64_t n); /* n runs of c more, or fewer */
void progress_run(progress *p, const series *s);               /* a run begins */
void progress_prefill(void *p, int64_t done, int64_t total);   /* session_on_prefill's callback */
void progress_token(progress *p, int64_t n, int64_t now);      /* n tokens are there */
void progress_run_done(progress *p, const sample *s);
void progress_clear(const progress *p); /* before anything else is printed */
void progress_note(progress *p, const char *format, ...) PRINTF_LIKE(2, 3); /* a second time: nothing */
void progress_notes(progress *p, const char *lines);                        /* one for each line */
void progress_text(const char *text, size_t n);                             /* --verbose */
void progress_end(const progress *p, int64_t n_measured, int64_t n_failed);

/* ---- run.c, trial.c and rows.c: the benchmark ---- */

typedef struct place place;

/* A configuration that ran out of memory. */
typedef struct too_large {
    params params;
    const char *program; /* as in series */
    int64_t configuration;
} too_large;

typedef struct bench {
    const plan *plan;
    const bench_options *options;
    int (*on_row)(void *context, const row *r);
    void *context;
    loaded loaded;
    int n_places; /* where models run, in processes of their own; 0: in this one */
    place *places;
    bool together; /* all engines of a model take turns, each in a process that lasts */
    progress progress;
    uint64_t order;   /* state of the random order */
    sys_state before; /* before this run, and those just before it if it was very short */
    bool watching;    /* b->before is valid */
    int *fastest_mhz; /* [plan->n]: of the CPU after a run of each configuration; NULL, 0: unknown */
    quality quality;  /* of this run */
    char grade[2];    /* the same as a text */
    hardware hardware;
    char hw_model[128], measured_at[32], prompt_hash[HASH_CHARS], ids_hash[HASH_CHARS];
    bool *adopted; /* [options->earlier->n]: runs that belong to configurations of the plan */
    int64_t n_rows, n_measured, n_failed; /* all rows; runs and configurations among them */
    int64_t n_gated;                      /* those whose runs were not good enough */
    int64_t n_refused;                    /* failed ones that the model cannot run as they were asked for */
    int64_t n_equal;                      /* configurations left out, since another one is the same */
    too_large *too_large;                 /* [n_too_large] */
    int64_t n_too_large;
    int64_t n_configurations;    /* those begun */
    int64_t configuration;       /* the last one that was begun, from 1 */
    int64_t load_failures;       /* configurations in turn that found this model not to load */
    bool engine_failed, stopped; /* during a run; a row could not be written */
    bool not_finite;             /* the logits are what failed */
    bool model_refused;          /* no configuration of this model can run */
    char error[2048];            /* of the last configuration that failed */
} bench;

/* One configuration after another, as --order asks, or since one run each is no reason to mix them,
 * or since the machine shall work at one for long. */
static inline bool bench_in_given_order(const bench_options *o) {
    return o->given_order || o->duration_ns || o->repeats == 1;
}

/* watch.c: the first is called before a run, the second after it: b->quality is its. */
void watch_begin(bench *b);
void watch_end(bench *b, const series *s);

/* larger.c: takes note that s ran out of memory, if the recorded error says so; and fails for what
 * would need more than one that did. */
void larger_note(bench *b, const series *s);
int larger_check(const bench *b, const series *s);

/* prepare.c: what must be known of a configuration before its first turn. */
typedef struct prepared {
    bool
        equal; /* an earlier one is the same: a model that chooses its caches has one for every max_kv_size */
    row what;  /* a row without a run: what will run; unset unless there are earlier runs */
} prepared;

/* Loads the model of s, unless it is there, and looks what it can do; first: of this model and
 * engine. -1 when it can't run. */
int prepare(bench *b, const series *s, bool first, prepared *out);

/* The same in this process. */
int prepare_here(bench *b, const series *s, bool first, prepared *out);

/* Opens the model of p on its engine, unless it is there. What failed is not tried again. */
int load_here(bench *b, const params *p);

/* trial.c: a turn of a configuration: runs of it, one after another, with what they share - prompt,
 * filled caches. At most max_runs measured ones; fewer when it is done. Its rows are handed over.
 * -1 on an error, which is the engine's when b->engine_failed. */
int trial_turn(bench *b, series *s, int64_t max_runs);

/* Is a run's row of a worse grade than --require-quality asks for? Then wait_for_quality pauses,
 * longer each time, until the configuration has spent its time: -1. start: of the run. */
bool is_too_bad(const bench *b, const row *r);
int wait_for_quality(bench *b, series *s, const row *r, int64_t start);

/* program.c: the same by the series' program, which is started for it, loads the model and warms
 * up. */
int program_turn(bench *b, series *s, int64_t max_runs);

/* As resume_series. Where there may be earlier runs of s, its program is asked what it will run, by
 * a run of one token. -1 when it fails. */
int program_resume(bench *b, series *s);

/* n runs of a configuration that is done, whose speeds go to out: [N_SPEEDS][n]. */
int trial_again(bench *b, const series *s, int64_t n, double *out);

/* What the runs of a turn begin with. */
typedef struct beginning {
    int32_t *depth, *prompt; /* ids [batch][depth], [batch][n_prompt] */
    session *filled;         /* with the depth in its caches; NULL: each run has a session of its own */
} beginning;

/* A turn in this process. turn_run makes one run: its row, without numbers, and what it took in
 * all. turn_end is harmless on a zeroed one. */
typedef struct turn {
    beginning from;
    sample sample;
    row row;
    int64_t ns;
} turn;
int turn_begin(bench *b, const series *s, turn *t);
int turn_run(bench *b, const series *s, turn *t);
void turn_end(turn *t);

/* --verbose: the text that was generated. */
int show_text(const loaded *l, const sample *s);

/* resume.c: hands on all earlier runs, at the start; gives s those that were measured as its would
 * be (now: what will run), and their number; and hands on the configurations of those that no
 * series took, at the end. */
int resume_runs(bench *b);
int resume_series(bench *b, series *s, const row *now);
int resume_rest(bench *b);

/* What will run, where parameters leave it open: of the loaded model, its engine configured. */
void rows_what_runs(bench *b, const series *s, row *out);

/* Hands a row to whoever asked for the benchmark. */
int rows_hand_on(bench *b, const row *r);

/* The row of a run, without numbers. */
void rows_of_run(bench *b, const series *s, const sample *run, row *out);

/* Gives the row of a run its numbers, and hands it over. */
int rows_run(bench *b, series *s, row *r);

/* Hands over the row of a configuration that failed, with an error that says why. */
int rows_error(bench *b, series *s, const char *error);

/* The row of a configuration, as far as it was measured; none when nothing was. An error stays. */
int rows_summary(bench *b, series *s);

#endif
