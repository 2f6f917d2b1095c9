/* internal.h - what the files of bench/ share (private to bench/).
 * A run is: loaded model, prompt ids, trials; progress is told about each. */
#ifndef BENCH_INTERNAL_H
#define BENCH_INTERNAL_H

#include "bench/bench.h"
#include "generate/generate.h"
#include "text/text.h"

/* ---- load.c: a model on an engine ---- */

typedef struct loaded {
    const char *model_name, *engine_name; /* as in params; NULL: nothing is loaded */
    checkpoint *checkpoint;
    engine *engine;
    model *model;
    tokenizer *tokenizer;  /* NULL: the checkpoint has none, or nothing needed it */
    token_ids prompt_text; /* the ids of the prompt's text */
    int64_t load_ns;
} loaded;

/* Makes l hold the model and engine of p; nothing to do when it does. A tokenizer is opened when with_text.
 * On error l is empty. loaded_free is harmless on an empty one. */
int loaded_open(loaded *l, const params *p, const bench_options *o, bool with_text);
void loaded_free(loaded *l);

/* The session that p's runs have. */
session_spec params_session(const params *p);

/* MLX's variables in the environment, whoever set them, sorted: "MLX_ENABLE_TF32=0 MLX_METAL_JIT=1". NULL
 * when there are none. Lives until the next call. */
const char *mlx_env_text(void);

/* ---- prompt.c ---- */

/* The ids of the options' text: l's tokenizer, with the special tokens it adds. -1 when there are none. */
int encode_prompt(const tokenizer *t, const bench_options *o, token_ids *out);

/* Sequences without end: a text's ids again and again, where sequence s starts s tokens later; or, when there
 * is no text, random ones below vocab_size, of each sequence its own. */
typedef struct prompt_source {
    const token_ids *text;
    int64_t vocab_size;
    uint64_t seed;
} prompt_source;

/* Tokens [first, first + n) of each of them: [n_sequences][n]. NULL when out of memory. Free with free(). */
typedef struct prompt_part {
    int64_t n_sequences, first, n;
} prompt_part;
int32_t *make_prompt(const prompt_source *from, prompt_part part);

/* A hash of n ids (FNV-1a, 64 bits, over each id's four bytes, the lowest first), in hexadecimal. */
enum { HASH_CHARS = 17 };
void hash_ids(const int32_t *ids, int64_t n, char out[HASH_CHARS]);

/* ---- progress.c: one line on a terminal, rewritten; the only place that writes to stderr ---- */

typedef struct progress {
    bool shown;                         /* stderr is a terminal and nothing else is written to it */
    int64_t n_runs, run;                /* all; finished ones */
    int64_t prompt_left, generate_left; /* tokens in all runs to come, this one included */
    int64_t prompt_done, generate_done; /* tokens of finished runs */
    int64_t prompt_ns, generate_ns;     /* and the time they took */
    int64_t run_prompt, run_generate;   /* tokens of this run */
    int64_t prefilled, generated, told_ns;
    uint64_t said[64]; /* hashes of the notes that were shown */
    int n_said;
} progress;

void progress_begin(progress *p, const plan *all, const bench_options *o);
void progress_run(progress *p, const params *run);           /* a run begins */
void progress_prefill(void *p, int64_t done, int64_t total); /* session_on_prefill's callback */
void progress_token(progress *p, int64_t n, int64_t now);    /* n tokens are there */
void progress_run_done(progress *p, const sample *s);
void progress_skip(progress *p, const params *c, int64_t n); /* n runs of c will not be finished */
void progress_clear(const progress *p);                      /* before anything else is printed */
void progress_note(progress *p, const char *format, ...) PRINTF_LIKE(2, 3); /* a second time: nothing */
void progress_notes(progress *p, const char *lines);                        /* one for each line */
void progress_text(const char *text, size_t n);                             /* --verbose */

#endif
