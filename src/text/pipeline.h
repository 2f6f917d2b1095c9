/* pipeline.h - the stages of a tokenizer, in the order text passes them:
 * added tokens -> normalizer -> pre-tokenizer -> BPE -> post-processor, and the decoder for the way
 * back. One file per stage, named as in tokenizer.json. Private to text/. */
#ifndef TEXT_PIPELINE_H
#define TEXT_PIPELINE_H

#include "text/text.h"
#include "text/utf8.h"

/* ---- regex.c: PCRE2 with the meaning that tokenizer.json's patterns have in Oniguruma ---- */

typedef struct regex regex;
typedef struct regex_scratch regex_scratch; /* what matching needs; one per call, as a tokenizer is const */

/* name is the file, for messages. NULL on a pattern that is malformed or not supported. */
regex *regex_new(const char *pattern, bool literal, const char *name);
void regex_free(regex *r);
regex_scratch *regex_scratch_new(void);
void regex_scratch_free(regex_scratch *s);

/* The first match at or after byte *start: 1 and its bounds, 0 when there is none, -1 on error (a
 * pattern that backtracks without end on this text). text is valid UTF-8, and so is the match:
 * *start never goes back, *end >= *start, and both lie between characters. */
int regex_find(const regex *r, regex_scratch *s, const char *text, size_t n, size_t *start, size_t *end);

/* A pattern as tokenizer.json spells it: {"String": "..."} or {"Regex": "..."}. */
regex *regex_parse(const json *pattern, const char *name);

/* ---- pieces.c: text cut into pieces, which pre-tokenizing steps cut further ---- */

typedef struct pieces {
    str text;     /* the pieces one after another; text.failed says that memory ran out */
    size_t *ends; /* where each ends in text */
    size_t n, capacity;
} pieces;

void pieces_clear(pieces *p);
void pieces_free(pieces *p);
void pieces_add(pieces *p, const char *text, size_t n); /* an empty one is dropped */
void pieces_close(pieces *p); /* what was appended to text since the last piece becomes one */

/* ---- vocabulary.c: tokens by id and ids by token ---- */

typedef struct token {
    const char *text; /* NULL: this id is not used */
    uint32_t length;
    bool special;
} token;

typedef struct vocabulary {
    arena *arena;
    token *tokens; /* by id */
    int64_t size, capacity;
    int32_t *slots; /* hash table of ids, -1 for empty */
    size_t n_slots, n_indexed;
} vocabulary;

int vocabulary_init(vocabulary *v);
void vocabulary_free(vocabulary *v);

/* Gives id a text (copied). indexed: vocabulary_find is to find it, as for all tokens of the model;
 * added tokens that the model lacks are not. -1 on ids out of range, used or texts seen before. */
int vocabulary_put(vocabulary *v, const char *text, size_t length, double id, bool indexed, const char *name);
int32_t vocabulary_find(const vocabulary *v, const char *text, size_t length);

/* ---- bpe.c: the model ---- */

typedef struct merge {
    int32_t left, right, rank, result; /* rank -1: empty slot */
} merge;

enum { BPE_DIRECT_CHARS = 0x180 }; /* covers the byte-level alphabet */

typedef struct bpe {
    const vocabulary *vocabulary;
    merge *merges; /* hash table by (left, right) */
    size_t n_slots;
    int32_t chars[BPE_DIRECT_CHARS]; /* ids of single characters, -1 for none */
    int32_t bytes[256];              /* ids of "<0x00>" ..., -1 for none */
    int32_t unknown;                 /* -1: unknown characters vanish */
    bool ignore_merges, fuse_unknown, byte_fallback;
} bpe;

typedef struct bpe_scratch {
    struct symbol *symbols;
    struct candidate *heap;
    size_t capacity, heap_n, heap_capacity;
} bpe_scratch;

/* After the vocabulary is complete: room for n merges, and each of them in order of rank. */
int bpe_init(bpe *b, const vocabulary *v, int64_t n_merges);
int bpe_add_merge(bpe *b, int32_t rank, const char *left, size_t n_left, const char *right, size_t n_right,
                  const char *name);
void bpe_free(bpe *b);
int bpe_encode(const bpe *b, bpe_scratch *s, const char *word, size_t n, token_ids *out);
void bpe_scratch_free(bpe_scratch *s);

/* tokenizer.json's "model": fills v and b. */
int bpe_parse(bpe *b, vocabulary *v, const json *model, const char *name);

/* ---- normalizer.c ---- */

enum { MAX_STEPS = 32 };

typedef struct normalizer_step {
    enum { NORMALIZE_FORM, NORMALIZE_REPLACE, NORMALIZE_PREPEND, NORMALIZE_LOWERCASE } kind;
    bool compose, compatible; /* NORMALIZE_FORM: NFC, NFD, NFKC, NFKD */
    regex *pattern;
    const char *content; /* NORMALIZE_REPLACE and _PREPEND */
} normalizer_step;

typedef struct normalizer {
    normalizer_step steps[MAX_STEPS];
    int n;
} normalizer;

int normalizer_parse(normalizer *z, arena *a, const json *spec, const char *name); /* spec NULL: none */
int normalizer_add_nfc(normalizer *z, const char *name);
void normalizer_free(normalizer *z);

/* Normalizes text in place; other is scratch (the two may be swapped). */
int normalizer_run(const normalizer *z, regex_scratch *s, str *text, str *other);

/* ---- pretokenizer.c ---- */

typedef enum split_behavior {
    SPLIT_ISOLATED,
    SPLIT_REMOVED,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS,
} split_behavior;

typedef struct pretokenizer_step {
    enum {
        PRETOKENIZE_SPLIT,
        PRETOKENIZE_PREFIX, /* spaces to the prefix, and one in front of pieces that lack it */
        PRETOKENIZE_BYTES,  /* bytes to the byte-level alphabet */
    } kind;
    regex *pattern;
    split_behavior behavior;
    bool invert;
    const char *prefix;
    enum { PREFIX_NEVER, PREFIX_FIRST, PREFIX_ALWAYS } scheme;
} pretokenizer_step;

typedef struct pretokenizer {
    pretokenizer_step steps[MAX_STEPS];
    int n;
    char alphabet[256][2]; /* PRETOKENIZE_BYTES: the UTF-8 of each byte's character */
} pretokenizer;

int pretokenizer_parse(pretokenizer *p, arena *a, const json *spec, const char *name); /* spec NULL: none */
int pretokenizer_add_split(pretokenizer *p, regex *pattern, split_behavior behavior, bool invert,
                           const char *name); /* takes the regex; NULL is its failure */
typedef struct byte_level_options {
    bool prefix_space; /* a space in front of each piece that has none */
    bool use_regex;    /* cut at GPT-2's pattern first */
} byte_level_options;
int pretokenizer_add_digits(pretokenizer *p, bool individual, const char *name);
int pretokenizer_add_byte_level(pretokenizer *p, byte_level_options o, const char *name);
void pretokenizer_free(pretokenizer *p);

/* Cuts the pieces further; other is scratch (the two may be swapped). at_start: the first piece is
 * where the whole text begins. */
int pretokenizer_run(const pretokenizer *p, regex_scratch *s, bool at_start, pieces *text, pieces *other);

/* ---- added.c: added tokens, found in the text before anything else looks at it ---- */

typedef struct added_token {
    const char *text; /* what to find: the token, normalized when it is matched in normalized text */
    size_t length;
    int32_t id, order;
    bool single_word, lstrip, rstrip;
    bool special;
    bool normalized; /* found in normalized text, as the normalizer leaves the token */
} added_token;

typedef struct added_tokens {
    added_token *items; /* sorted by text */
    size_t n, capacity;
    bool first_bytes[256];
} added_tokens;

typedef struct added_match {
    size_t start, end; /* with the white space it takes along */
    int32_t id;
    size_t resume; /* where to look for the next one */
} added_match;

int added_tokens_add(added_tokens *set, const added_token *item);
void added_tokens_sort(added_tokens *set); /* before the first search */
void added_tokens_free(added_tokens *set);

/* Finds the next match (leftmost, then longest), given the last one or a zeroed match. false: no
 * more. */
bool added_tokens_next(const added_tokens *set, const char *text, size_t n, added_match *m);

/* ---- decoder.c ---- */

typedef struct decoder {
    bool byte_level;    /* tokens are in the byte-level alphabet */
    bool byte_fallback; /* tokens like "<0x41>" are bytes */
    bool spaced;        /* no decoder: tokens are joined by spaces */
    bool drop_first;    /* Metaspace: what replace replaces vanishes from the first token */
    struct {
        const char *from, *to;
    } replace[MAX_STEPS];
    int n_replace;
    const char *strip; /* taken off the beginning of the text, up to n_strip times; NULL: nothing */
    int64_t n_strip;
} decoder;

/* Where a decoding stands; zero-initialise. */
typedef struct decoding {
    str bytes;       /* the text so far, unchecked; the caller may take from its front between tokens */
    str token, swap; /* scratch */
    bool started;    /* a token was seen */
    size_t n_run;    /* bytes at the end that came from byte tokens */
    int64_t n_stripped;
} decoding;

int decoder_parse(decoder *d, arena *a, const json *spec, const char *name); /* spec NULL: none */

/* Appends the bytes of one token, given as n bytes of the vocabulary's spelling. */
void decoder_add(const decoder *d, decoding *state, const char *text, size_t n);
void decoder_finish(decoding *state);
void decoding_free(decoding *state);

/* ---- tokenizer.c ---- */

struct tokenizer {
    arena *arena;
    vocabulary vocabulary;
    bpe bpe;
    normalizer normalizer;
    pretokenizer pretokenizer;
    decoder decoder;
    added_tokens added, added_normalized; /* found in the text as it is, and in normalized text */
    int64_t first_added;                  /* lowest id of an added token that the model lacks */
    token_ids prefix, suffix;             /* what the post-processor adds */
};

tokenizer *tokenizer_new(void);

/* The n bytes of a tokenizer.json (tokenizer_open reads a file); name is for messages. */
tokenizer *tokenizer_parse(const char *text, size_t n, const char *name);

/* An added token. Its id is the vocabulary's when it is there, else the given one. Of item only the
 * flags matter. After the last one, tokenizer_ready. */
int tokenizer_add_token(tokenizer *t, const char *text, double id, added_token item, const char *name);
void tokenizer_ready(tokenizer *t);

#endif
