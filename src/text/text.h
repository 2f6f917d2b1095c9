/* text.h - text to token ids and back, as Hugging Face tokenizers do it.
 * One interface for every kind of tokenizer; this folder knows nothing of models. */
#ifndef TEXT_TEXT_H
#define TEXT_TEXT_H

#include "base/base.h"

typedef struct tokenizer tokenizer;

/* From a tokenizer.json. NULL with a message that names what is missing or not supported. */
tokenizer *tokenizer_open(const char *tokenizer_json_path);

/* From the vocabulary of a GGUF file; nothing of it is kept. */
tokenizer *tokenizer_from_vocabulary(const gguf_vocabulary *v);

void tokenizer_free(tokenizer *t); /* NULL is harmless */

/* A growable list of ids; zero-initialise, free items with free(). */
typedef struct token_ids {
    int32_t *items;
    int64_t n, capacity;
} token_ids;
int token_ids_append(token_ids *ids, int32_t id);

/* Appends the ids of n bytes of text. add_special: with what the tokenizer's post-processor adds
 * (bos, ...). Added tokens in the text become their ids. Invalid UTF-8 is replaced by U+FFFD. -1 on
 * error. */
int tokenizer_encode(const tokenizer *t, const char *text, size_t n, bool add_special, token_ids *out);

/* Appends the text of n ids to out; skip_special leaves special tokens out. Ids outside the
 * vocabulary are an error. */
int tokenizer_decode(const tokenizer *t, const int32_t *ids, int64_t n, bool skip_special, str *out);

/* Streaming: the text that id adds, appended to out. Bytes of an unfinished character are held back
 * until it is complete (mlx-lm tokenizer_utils.py: BPEStreamingDetokenizer). detokenizer_finish
 * gives what is left. */
typedef struct detokenizer detokenizer;
detokenizer *detokenizer_new(const tokenizer *t);
int detokenizer_add(detokenizer *d, int32_t id, str *out);
int detokenizer_finish(detokenizer *d, str *out);
void detokenizer_free(detokenizer *d);

/* Ids known (vocabulary and added tokens: highest id + 1), and the id of an exact token (-1 when
 * there is none). */
int64_t tokenizer_size(const tokenizer *t);
int32_t tokenizer_id(const tokenizer *t, const char *token);
bool tokenizer_is_special(const tokenizer *t, int32_t id);

#endif
