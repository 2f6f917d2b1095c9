/* generate.c - `mlxbench generate`: run a model on a prompt and stream what it says.
 * Not a measurement: the way to see that a model computes what it should, and to compare ids and logits. */
#include "generate/generate.h"
#include "cmd/cmd.h"
#include "cmd/fetch.h"
#include "sys/sys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct command {
    const char *model_name, *engine_name, *graph, *activations, *prompt, *prompt_ids, *follow_ids,
        *logits_file;
    int64_t max_tokens, threads, seed, kv_bits;
    int usable_cores;
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
    .example = "mlxbench generate --model models/SmolLM2-135M-Instruct.Q4_1.gguf --prompt \"The capital of "
               "France is\"\n"
               "the model's own continuation, up to 100 tokens",
};

static int parse_options(command *c, int argc, char **argv) {
    const option options[] = {
        {"model", NULL, "M", "a folder, a GGUF file, synthetic:PRESET or a Hugging Face name", OPTION_TEXT,
         &c->model_name, 0, 0},
        {"prompt", "p", "TEXT", "the prompt", OPTION_TEXT, &c->prompt, 0, 0},
        {"prompt-ids", NULL, "N,...", "the prompt as token ids", OPTION_TEXT, &c->prompt_ids, 0, 0},
        {"follow-ids", NULL, "N,...", "go on with these instead of the chosen ids: a given text's logits",
         OPTION_TEXT, &c->follow_ids, 0, 0},
        {"max-tokens", "n", "N", "tokens to generate (100)", OPTION_NUMBER, &c->max_tokens, 1, INT32_MAX},
        {"ignore-eos", NULL, NULL, "go on after an end-of-sequence token", OPTION_FLAG, &c->ignore_eos, 0, 0},
        {"ids", NULL, NULL, "print token ids on one line instead of text", OPTION_FLAG, &c->ids, 0, 0},
        {"logits", NULL, "FILE.npy", "write the logits of every new token, float32 [n_new, vocab]",
         OPTION_TEXT, &c->logits_file, 0, 0},
        {"engine", NULL, "NAME", "what computes: auto, cpu, mlx (auto)", OPTION_TEXT, &c->engine_name, 0, 0},
        {"threads", "t", "N", "CPU threads (physical cores; of two kinds the fast ones)", OPTION_NUMBER,
         &c->threads, 1, 1024},
        {"graph", NULL, "KIND", "operations of the engine mlx: fused, mlx-lm (fused)", OPTION_TEXT, &c->graph,
         0, 0},
        {"activations", NULL, "KIND", "of the engine cpu: exact, int8 (exact)", OPTION_TEXT, &c->activations,
         0, 0},
        {"seed", NULL, "N", "for synthetic weights (0)", OPTION_NUMBER, &c->seed, 0, INT64_MAX},
        {"prefill-step-size", "pss", "N", "prompt tokens per prefill chunk (2048)", OPTION_NUMBER,
         &c->options.prefill_step_size, 1, 1000000000},
        {"max-kv-size", NULL, "N", "entries of the rotating KV cache (no limit)", OPTION_NUMBER,
         &c->options.max_kv_size, 1, 1000000000},
        {"kv-bits", NULL, "N", "bits of the quantized KV cache: 2, 3, 4, 5, 6 or 8 (not quantized)",
         OPTION_NUMBER, &c->options.kv_bits, 2, 8},
        {"kv-group-size", NULL, "N", "its group size: 32, 64 or 128 (64)", OPTION_NUMBER,
         &c->options.kv_group_size, 32, 128},
        {"quantized-kv-start", NULL, "N", "quantize a cache once it holds this many tokens (0)",
         OPTION_NUMBER, &c->options.quantized_kv_start, 0, 1000000000},
        {"offline", NULL, NULL, OFFLINE_HELP, OPTION_FLAG, &c->offline, 0, 0},
    };
    int status = options_parse(options, sizeof options / sizeof *options, &usage, argc, argv);
    if (status) return status;
    if (!c->model_name) return fail_usage("generate: --model is missing");
    if (!c->prompt == !c->prompt_ids) return fail_usage("generate: give --prompt or --prompt-ids");
    return 0;
}

/* Whether text is the second of the two words that --name knows. */
static int parse_choice(const char *name, const char *text, const char *first, const char *second,
                        bool *is_second) {
    *is_second = !strcmp(text, second);
    if (*is_second || !strcmp(text, first)) return 0;
    return fail_usage("--%s: \"%s\" is not one of %s,%s", name, text, first, second);
}

static int open_engine(command *c) {
    engine_options how = {.threads = (int)c->threads, .cores = c->usable_cores};
    if (parse_choice("graph", c->graph, "fused", "mlx-lm", &how.mlx_lm_graph)) return -1;
    if (parse_choice("activations", c->activations, "exact", "int8", &how.int8_activations)) return -1;
    c->engine = engine_open(c->engine_name, &how);
    return c->engine ? 0 : -1;
}

static int open_model(command *c) {
    str path = {0};
    if (!fetch_model(c->model_name, HUB_MODEL, c->offline, &path) && !path.failed)
        c->checkpoint = checkpoint_open(path.data, (uint64_t)c->seed);
    str_free(&path);
    if (!c->checkpoint || open_engine(c)) return -1;
    c->model = model_load(c->checkpoint, c->engine);
    if (!c->model) return -1;
    for (int i = 0; checkpoint_note(c->checkpoint, i); i++)
        fprintf(stderr, "mlxbench: note: %s\n", checkpoint_note(c->checkpoint, i));
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
    if (c->follow_ids && read_ids(c->follow_ids, "--follow-ids", &c->follow_tokens)) return -1;
    c->options.follow = c->follow_tokens.items;
    c->options.n_follow = c->follow_tokens.n;
    if (c->prompt_ids) return read_ids(c->prompt_ids, "--prompt-ids", &c->prompt_tokens);
    return tokenizer_encode(c->tokenizer, c->prompt, strlen(c->prompt), true, &c->prompt_tokens);
}

enum { NPY_HEADER = 128 };

/* NumPy's format 1.0: magic, version, header length, a Python dictionary, padding. Written twice: rows are
 * counted. */
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
    c->options.keep_logits = true;
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

static int stream(command *c, session *s) {
    str text = {0};
    int32_t id;
    int64_t n = 0, vocab = model_describe(c->model)->vocab_size;
    int status = 0, more = 1;
    while (!status && (more = session_next(s, &id)) > 0) {
        if (c->logits && fwrite(session_logits(s), sizeof(float), (size_t)vocab, c->logits) != (size_t)vocab)
            status = fail("cannot write %s: %s", c->logits_file, strerror(errno));
        bool end = is_end(c, id);
        if (!status && (c->ids || !end)) status = show(c, id, !n, &text);
        n++;
        if (end) break;
    }
    if (more < 0) status = -1;
    str_clear(&text);
    if (!status && c->detokenizer && !c->ids) status = detokenizer_finish(c->detokenizer, &text);
    if (!status) {
        str_puts(&text, "\n");
        status = text.failed ? -1 : put(text.data, text.length);
    }
    str_free(&text);
    return close_logits(c, n) || status ? -1 : 0;
}

static int run(command *c) {
    if (open_model(c) || read_prompt(c)) return -1;
    if (generate_check_memory(c->model, &c->options, c->prompt_tokens.n, c->max_tokens,
                              sys_available_memory()))
        return -1;
    if (open_logits(c)) return -1;
    session *s = session_new(c->model, c->engine, &c->options, c->prompt_tokens.items, c->prompt_tokens.n,
                             c->max_tokens);
    int status = s ? stream(c, s) : -1;
    session_free(s);
    return status;
}

int cmd_generate(int argc, char **argv) {
    core_list cores;
    sys_cores(&cores);
    command c = {.engine_name = "auto",
                 .graph = "fused",
                 .activations = "exact",
                 .max_tokens = 100,
                 .threads = cores.n_fast,
                 .usable_cores = cores.n,
                 .options = {.prefill_step_size = 2048, .kv_group_size = 64}};
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
