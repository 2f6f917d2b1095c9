/* tokenize.c - mlxbench tokenize: text to token ids and back, from standard input to standard
 * output. For checking a tokenizer and for making --prompt-ids; of a folder it reads tokenizer.json
 * alone. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/checkpoint.h"
#include "cmd/cmd.h"
#include "cmd/fetch.h"
#include "generate/generate.h"
#include "text/text.h"

/* The tokenizer at path: of a folder, a tokenizer.json, or a file that holds a vocabulary. */
static tokenizer *open_path(const char *path) {
    size_t n = strlen(path);
    if (n >= 5 && !strcmp(path + n - 5, ".json")) return tokenizer_open(path);
    if (dir_exists(path)) {
        str file = {0};
        str_printf(&file, "%s/tokenizer.json", path);
        tokenizer *t = file.failed ? NULL : tokenizer_open(file.data);
        str_free(&file);
        return t;
    }
    checkpoint *c = checkpoint_open(path, 0);
    tokenizer *t = NULL;
    if (c && !open_tokenizer(c, &t) && !t) fail("%s has no tokenizer", path);
    checkpoint_close(c); /* a tokenizer keeps nothing of it */
    return t;
}

static tokenizer *open_model(const char *name, bool offline) {
    str path = {0};
    tokenizer *t =
        fetch_model(name, HUB_TOKENIZER, offline, &path) || path.failed ? NULL : open_path(path.data);
    str_free(&path);
    return t;
}

static int read_input(str *text) {
    char buffer[1 << 16];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, stdin)) > 0;) str_append(text, buffer, n);
    if (interrupted()) return fail_interrupted();
    if (ferror(stdin)) return fail("cannot read standard input: %s", strerror(errno));
    str_append(text, "", 0); /* so that data is a string even when there was nothing */
    return text->failed ? -1 : 0;
}

static int encode(const tokenizer *t, const str *in, bool special, str *out) {
    token_ids ids = {0};
    int status = tokenizer_encode(t, in->data, in->length, special, &ids);
    for (int64_t i = 0; i < ids.n && !status; i++) {
        char number[16];
        int n = snprintf(number, sizeof number, "%s%d", i ? " " : "", ids.items[i]);
        str_append(out, number, (size_t)n);
    }
    if (!status) str_puts(out, "\n");
    free(ids.items);
    return status;
}

static int parse_ids(const str *in, token_ids *ids) {
    const char *space = " \t\r\n", *end = in->data + in->length;
    for (const char *p = in->data + strspn(in->data, space); p < end; p += strspn(p, space)) {
        char *after;
        errno = 0;
        long id = strtol(p, &after, 10);
        if (after == p || errno || id < 0 || id > INT32_MAX || (after < end && !strchr(space, *after)))
            return fail("standard input: \"%.*s\" is not a token id", (int)strcspn(p, space), p);
        if (token_ids_append(ids, (int32_t)id)) return -1;
        p = after;
    }
    return 0;
}

static int decode(const tokenizer *t, const str *in, bool special, str *out) {
    token_ids ids = {0};
    int status = parse_ids(in, &ids) || tokenizer_decode(t, ids.items, ids.n, !special, out) ? -1 : 0;
    free(ids.items);
    return status;
}

int cmd_tokenize(int argc, char **argv) {
    const char *name = NULL;
    bool no_special = false, to_text = false, offline = false;
    const option options[] = {
        {.name = "model",
         .short_name = "m",
         .metavar = "M",
         .kind = OPTION_TEXT,
         .value = &name,
         .help = "a folder with tokenizer.json, that file, a GGUF file, or a Hugging Face name"},
        {.name = "no-special",
         .kind = OPTION_FLAG,
         .value = &no_special,
         .help = "without the tokens added around a text; with --decode, without special tokens"},
        {.name = "decode",
         .kind = OPTION_FLAG,
         .value = &to_text,
         .help = "the other way: ids, separated by white space, to text"},
        {.name = "offline", .kind = OPTION_FLAG, .value = &offline, .help = OFFLINE_HELP},
    };
    const option_usage usage = {
        .synopsis = "mlxbench tokenize --model M [--no-special] [--decode]",
        .about = "Turns all of standard input into token ids on one line, or ids into text.",
        .example =
            "echo -n 'Hello, world' | mlxbench tokenize --model models/SmolLM2-135M-Instruct.Q4_1.gguf",
    };
    int status = options_parse(options, sizeof options / sizeof *options, &usage, argc, argv);
    if (status) return status < 0 ? -1 : 0;
    if (!name) return fail_usage("--model is missing: which tokenizer?");
    tokenizer *t = open_model(name, offline);
    str in = {0}, out = {0};
    status = !t || read_input(&in) || (to_text ? decode : encode)(t, &in, !no_special, &out) || out.failed
                 ? -1
                 : 0;
    if (!status && out.length && fwrite(out.data, 1, out.length, stdout) != out.length)
        status = fail("cannot write standard output: %s", strerror(errno));
    tokenizer_free(t);
    str_free(&in);
    str_free(&out);
    return status;
}
