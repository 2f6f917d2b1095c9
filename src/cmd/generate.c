/* generate.c - `mlxbench generate`: run a model on a prompt and stream what it says.
 * Not a measurement: the way to see that a model computes what it should, and to compare ids and
 * logits. */
#include "cmd/cmd.h"
#include "cmd/common.h"
#include "cmd/fetch.h"
#include "sys/sys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct command {
    const char *values[N_PARAMS]; /* of the options of benchmark parameters; NULL: not given */
    params params;
    option_texts mlx_env;
    const char *prompt, *prompt_ids, *follow_ids, *logits_file;
    int64_t max_tokens, seed;
    bool ignore_eos, ids, offline;
    generate_options options;
    checkpoint *checkpoint;
    engine *engine;
    model *model;
    tokenizer *tokenizer; /* NULL with --prompt-ids and --ids */
    detokenizer *detokenizer;
    token_ids prompt_tokens, follow_tokens;
    FILE *logits;
} command;

static const option_usage usage = {
    .synopsis = "mlxbench generate --model M (--prompt TEXT | --prompt-ids 1,2,3) [options]",
    .about = "Generates greedily and streams the text. With --prompt-ids and --ids no tokenizer is needed.",
    .example = "mlxbench generate -m models/SmolLM2-135M-Instruct.Q4_1.gguf -p \"The capital of France is\"\n"
               "the model's own continuation, up to 100 tokens",
    .command = "generate",
};

static int parse_options(command *c, int argc, char **argv) {
    const option other[] = {
        {.name = "prompt",
         .short_name = "p",
         .metavar = "TEXT",
         .kind = OPTION_TEXT,
         .value = &c->prompt,
         .help = "the prompt" PROMPT_HELP},
        {.name = "prompt-ids",
         .metavar = "N,...",
         .kind = OPTION_TEXT,
         .value = &c->prompt_ids,
         .help = "the prompt as token ids"},
        {.name = "follow-ids",
         .metavar = "N,...",
         .kind = OPTION_TEXT,
         .value = &c->follow_ids,
         .rare = true,
         .help = "go on with these instead of the chosen ids: a given text's logits"},
        {.name = "max-tokens",
         .short_name = "n",
         .metavar = "N",
         .kind = OPTION_NUMBER,
         .value = &c->max_tokens,
         .min = 1,
         .max = INT32_MAX,
         .standard = "100",
         .help = "tokens to generate"},
        {.name = "ignore-eos",
         .kind = OPTION_FLAG,
         .value = &c->ignore_eos,
         .help = "go on after an end-of-sequence token"},
        {.name = "ids",
         .kind = OPTION_FLAG,
         .value = &c->ids,
         .help = "print token ids on one line instead of text"},
        {.name = "logits",
         .metavar = "FILE.npy",
         .kind = OPTION_TEXT,
         .value = &c->logits_file,
         .rare = true,
         .help = "write the logits of every new token, float32 [n_new, vocab]"},
        {.name = "seed",
         .metavar = "N",
         .kind = OPTION_NUMBER,
         .value = &c->seed,
         .max = INT64_MAX,
         .standard = "0",
         .rare = true,
         .help = "for synthetic weights"},
        mlx_env_option(&c->mlx_env),
        {.name = "offline", .kind = OPTION_FLAG, .value = &c->offline, .rare = true, .help = OFFLINE_HELP},
    };
    enum { N_OTHER = sizeof other / sizeof *other };
    option options[N_PARAMS + N_OTHER];
    size_t n = 0;
    for (int i = 0; i < N_PARAMS; i++) {
        if (!param_table[i].of_generate) continue;
        options[n] = param_option(i);
        options[n].kind = OPTION_TEXT;
        options[n].value = &c->values[i];
        options[n++].standard = param_table[i].generate_default;
    }
    memcpy(options + n, other, sizeof other);
    int status = options_parse(options, n + N_OTHER, &usage, argc, argv);
    if (status) return status;
    if (!c->values[PARAM_model]) return fail_usage("generate: --model is missing");
    if (!c->prompt == !c->prompt_ids) return fail_usage("generate: give --prompt or --prompt-ids");
    return params_parse(&c->params, c->values) || mlx_env_set(&c->mlx_env) ? -1 : 0;
}

static int open_engine(command *c) {
    engine_options how = params_engine(&c->params);
    c->engine = engine_open(c->params.engine, &how);
    return c->engine ? 0 : -1;
}

static int open_model(command *c) {
    str path = {0};
    if (!fetch_model(c->params.model, HUB_MODEL, c->offline, &path) && !path.failed)
        c->checkpoint = checkpoint_open(path.data, (uint64_t)c->seed);
    str_free(&path);
    if (!c->checkpoint || open_engine(c) ||
        generate_check_weights(c->checkpoint, c->engine, sys_available_memory()))
        return -1;
    c->model = model_load(c->checkpoint, c->engine);
    if (!c->model) return -1;
    for (int i = 0; checkpoint_note(c->checkpoint, i); i++)
        say(SAY_NOTE, "%s", checkpoint_note(c->checkpoint, i));
    if (c->prompt_ids && c->ids) return 0;
    if (open_tokenizer(c->checkpoint, &c->tokenizer)) return -1;
    if (!c->tokenizer)
        return fail("%s: no tokenizer.json beside it; use --prompt-ids and --ids",
                    checkpoint_config_name(c->checkpoint));
    c->detokenizer = detokenizer_new(c->tokenizer);
    return c->detokenizer ? 0 : -1;
}

static int read_ids(const char *text, const char *name, token_ids *out) {
    for (const char *at = text;; at++) {
        char number[24] = "";
        size_t n = strcspn(at, ",");
        int64_t id;
        if (!n || n >= sizeof number) return fail_usage("%s: an element is empty or no token id", name);
        memcpy(number, at, n);
        if (parse_number(number, name, 0, INT32_MAX, &id)) return -1;
        if (token_ids_append(out, (int32_t)id)) return -1;
        at += n;
        if (!*at) return 0;
    }
}

static int read_prompt(command *c) {
    c->options = params_generate(&c->params);
    if (c->follow_ids && read_ids(c->follow_ids, "--follow-ids", &c->follow_tokens)) return -1;
    if (c->prompt_ids) return read_ids(c->prompt_ids, "--prompt-ids", &c->prompt_tokens);
    str text = {0};
    int failed = read_prompt_text(c->prompt, &text) ||
                 tokenizer_encode(c->tokenizer, text.data, text.length, true, &c->prompt_tokens);
    str_free(&text);
    return failed ? -1 : 0;
}

enum { NPY_HEADER = 128 };

/* NumPy's format 1.0: magic, version, header length, a Python dictionary, padding. Written twice:
 * rows are counted. */
static int write_npy_header(command *c, int64_t n_rows) {
    char header[NPY_HEADER] = "\x93NUMPY\x01";
    int n = snprintf(header + 10, NPY_HEADER - 10,
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (%lld, %lld), }", (long long)n_rows,
                     (long long)model_describe(c->model)->vocab_size);
    header[8] = NPY_HEADER - 10;
    memset(header + 10 + n, ' ', (size_t)(NPY_HEADER - 10 - n));
    header[NPY_HEADER - 1] = '\n';
    bool written = !fseek(c->logits, 0, SEEK_SET) && fwrite(header, 1, NPY_HEADER, c->logits) == NPY_HEADER;
    return written ? 0 : fail("cannot write %s: %s", c->logits_file, strerror(errno));
}

static int open_logits(command *c) {
    if (!c->logits_file) return 0;
    c->logits = fopen(c->logits_file, "wb");
    if (!c->logits) return fail("cannot write %s: %s", c->logits_file, strerror(errno));
    return write_npy_header(c, 0);
}

static int close_logits(command *c, int64_t n_rows) {
    if (!c->logits) return 0;
    int status = write_npy_header(c, n_rows);
    if (fclose(c->logits) && !status) status = fail("cannot write %s: %s", c->logits_file, strerror(errno));
    c->logits = NULL;
    return status;
}

static bool is_end(const command *c, int32_t id) {
    int32_t ends[16];
    int n = checkpoint_eos_ids(c->checkpoint, ends, 16);
    for (int i = 0; i < n && !c->ignore_eos; i++)
        if (ends[i] == id) return true;
    return false;
}

static int put(const char *text, size_t n) {
    if (fwrite(text, 1, n, stdout) != n || fflush(stdout))
        return fail("cannot write the output: %s", strerror(errno));
    return 0;
}

static int show(command *c, int32_t id, bool first, str *text) {
    str_clear(text);
    if (c->ids)
        str_printf(text, first ? "%d" : " %d", id);
    else if (detokenizer_add(c->detokenizer, id, text))
        return -1;
    return text->failed ? -1 : put(text->data ? text->data : "", text->length);
}

static void note(const char *text) {
    say(SAY_NOTE, "%s", text);
}

/* What is possible and probably not meant. */
static void note_all(const command *c) {
    str lines = {0};
    loaded_model m = {c->checkpoint, c->engine, c->model};
    params_notes(&c->params, &m, c->prompt_tokens.n + c->max_tokens, &lines);
    for (char *rest = lines.data, *line; rest && (line = strsep(&rest, "\n")) && *line;) note(line);
    str_free(&lines);
}

static int stream(command *c, session *s) {
    str text = {0};
    int32_t id;
    bool at_once = false;
    int64_t n = 0, vocab = model_describe(c->model)->vocab_size;
    int status = 0;
    while (!status && n < c->max_tokens) {
        if (session_step(s, &id)) {
            status = -1;
            break;
        }
        if (session_check_logits(s, n + 1)) {
            if (n) put("\n", 1); /* the error is a line of its own */
            status = -1;
            break;
        }
        if (c->logits && fwrite(session_logits(s), sizeof(float), (size_t)vocab, c->logits) != (size_t)vocab)
            status = fail("cannot write %s: %s", c->logits_file, strerror(errno));
        bool end = is_end(c, id);
        if (!status && (c->ids || !end)) status = show(c, id, !n, &text);
        at_once = end && !n;
        n++;
        if (end) break;
    }
    str_clear(&text);
    if (!status && c->detokenizer && !c->ids) status = detokenizer_finish(c->detokenizer, &text);
    if (!status) {
        str_puts(&text, "\n");
        status = text.failed ? -1 : put(text.data, text.length);
    }
    if (!status && at_once)
        note("the model ended at once, with its end-of-sequence token. A model made for chats expects its "
             "chat's "
             "format around the prompt; --ignore-eos goes on.");
    str_free(&text);
    return close_logits(c, n) || status ? -1 : 0;
}

static int prefill(command *c, session *s) {
    const token_ids *follow = &c->follow_tokens;
    if (follow->n && session_force(s, follow->items, follow->n)) return -1;
    return session_prefill(s, c->prompt_tokens.items, c->prompt_tokens.n);
}

static int run(command *c) {
    if (open_model(c) || read_prompt(c)) return -1;
    if (c->follow_tokens.n && c->max_tokens > c->follow_tokens.n + 1) c->max_tokens = c->follow_tokens.n + 1;
    session_spec spec = {
        .options = c->options, .capacity = c->prompt_tokens.n + c->max_tokens, .keep_logits = true};
    if (session_check_memory(c->model, &spec, sys_available_memory())) return -1;
    if (open_logits(c)) return -1;
    note_all(c);
    session *s = session_new(c->model, c->engine, &spec);
    int status = s ? prefill(c, s) : -1;
    if (!status) status = stream(c, s);
    session_free(s);
    return status;
}

int cmd_generate(int argc, char **argv) {
    command c = {.max_tokens = 100};
    int status = parse_options(&c, argc, argv);
    if (!status) status = run(&c);
    if (c.logits) fclose(c.logits);
    free(c.prompt_tokens.items);
    free(c.follow_tokens.items);
    detokenizer_free(c.detokenizer);
    tokenizer_free(c.tokenizer);
    model_free(c.model);
    engine_close(c.engine);
    checkpoint_close(c.checkpoint);
    return status < 0 ? -1 : 0;
}
