/* from_vocabulary.c - a tokenizer from what a GGUF file carries: tokens, types, merges and a name
 * for the rest. The name (tokenizer.ggml.pre) stands for the normalizer and pre-tokenizer that the
 * model's tokenizer.json has; the stages are the same ones. Source of the names: llama.cpp,
 * llama-vocab.cpp. */
#include "text/pipeline.h"

#include <string.h>

enum { TYPE_CONTROL = 3, TYPE_USER = 4, MAX_PATTERNS = 4 };

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORDS        "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define REST         "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

typedef struct pre_kind {
    const char *names; /* each between spaces */
    bool nfc, digits, gpt2, ignore_merges, add_bos;
    const char *patterns[MAX_PATTERNS]; /* splits before ByteLevel */
} pre_kind;

static const pre_kind kinds[] = {
    {.names = " smollm starcoder refact command-r ", .digits = true, .gpt2 = true},
    {.names = " gpt-2 phi-2 mpt olmo jais ", .gpt2 = true},
    {.names = " llama-bpe llama3 llama-v3 ",
     .ignore_merges = true,
     .add_bos = true, /* files of these models may leave add_bos_token out */
     .patterns = {CONTRACTIONS WORDS "\\p{N}{1,3}" REST}},
    {.names = " default ", /* llama.cpp's, where it does not know the model */
     .patterns = {"[\\p{P}\\$\\+<=>\\^~\\|]+",
                  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)", "\\p{N}+",
                  "[0-9][0-9][0-9]"}},
    {.names = " qwen2 ", .nfc = true, .patterns = {CONTRACTIONS WORDS "\\p{N}" REST}},
    {.names = " deepseek-r1-qwen stablelm2 ", .patterns = {CONTRACTIONS WORDS "\\p{N}" REST}},
};

static const pre_kind *find_kind(const gguf_vocabulary *v) {
    str wanted = {0};
    const pre_kind *found = NULL;
    const char *pre = v->pre ? v->pre : "default";
    str_printf(&wanted, " %s ", pre);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && !wanted.failed; i++)
        if (strstr(kinds[i].names, wanted.data) && !strchr(pre, ' ')) found = &kinds[i];
    str_free(&wanted);
    return found ? found : fail_null("%s: pre-tokenizer \"%.80s\" is not supported yet", v->name, pre);
}

static int add_stages(tokenizer *t, const pre_kind *kind, const char *name) {
    if (kind->nfc && normalizer_add_nfc(&t->normalizer, name)) return -1;
    if (kind->digits && pretokenizer_add_digits(&t->pretokenizer, true, name)) return -1;
    for (int i = 0; i < MAX_PATTERNS && kind->patterns[i]; i++)
        if (pretokenizer_add_split(&t->pretokenizer, regex_new(kind->patterns[i], false, name),
                                   SPLIT_ISOLATED, false, name))
            return -1;
    t->decoder.byte_level = true;
    t->bpe.ignore_merges = kind->ignore_merges;
    return pretokenizer_add_byte_level(&t->pretokenizer, (byte_level_options){.use_regex = kind->gpt2}, name);
}

static int add_merges(tokenizer *t, const gguf_vocabulary *v) {
    if (bpe_init(&t->bpe, &t->vocabulary, v->n_merges)) return -1;
    for (int64_t i = 0; i < v->n_merges; i++) {
        /* a token may begin with a space nowhere but in the first place, so that one is no
         * separator */
        const char *left = v->merges[i], *right = *left ? strchr(left + 1, ' ') : NULL;
        if (!right) return fail("%s: merge %lld is not two tokens", v->name, (long long)i);
        if (bpe_add_merge(&t->bpe, (int32_t)i, left, (size_t)(right - left), right + 1, strlen(right + 1),
                          v->name))
            return -1;
    }
    return 0;
}

static int add_tokens(tokenizer *t, const gguf_vocabulary *v) {
    for (int64_t i = 0; i < v->n_tokens; i++)
        if (vocabulary_put(&t->vocabulary, v->tokens[i], strlen(v->tokens[i]), (double)i, true, v->name))
            return -1;
    for (int64_t i = 0; i < v->n_tokens && v->types; i++) {
        bool special = v->types[i] == TYPE_CONTROL;
        if ((special || v->types[i] == TYPE_USER) &&
            tokenizer_add_token(t, v->tokens[i], (double)i, (added_token){.special = special}, v->name))
            return -1;
    }
    return 0;
}

static int build(tokenizer *t, const gguf_vocabulary *v, const pre_kind *kind) {
    if (v->n_tokens <= 0) return fail("%s: the vocabulary is empty", v->name);
    if (add_tokens(t, v) || add_merges(t, v) || add_stages(t, kind, v->name)) return -1;
    tokenizer_ready(t);
    if (!(v->add_bos || kind->add_bos) || v->bos_id < 0) return 0;
    if (v->bos_id >= v->n_tokens)
        return fail("%s: the begin-of-sequence id %d is not in the vocabulary", v->name, v->bos_id);
    return token_ids_append(&t->prefix, v->bos_id);
}

tokenizer *tokenizer_from_vocabulary(const gguf_vocabulary *v) {
    if (!v->model || strcmp(v->model, "gpt2"))
        return fail_null("%s: tokenizer model \"%.80s\" is not supported yet (gpt2, byte-level BPE, is)",
                         v->name, v->model ? v->model : "(none)");
    const pre_kind *kind = find_kind(v);
    tokenizer *t = kind ? tokenizer_new() : NULL;
    if (t && build(t, v, kind)) {
        tokenizer_free(t);
        t = NULL;
    }
    return t;
}
