/* load.c - a checkpoint's model on an engine, kept while the plan's configurations use the same
 * one. Loading is timed once; it is no part of any run. */
#include "bench/internal.h"
#include "sys/sys.h"

#include <stdlib.h>

generate_options params_generate(const params *p) {
    return (generate_options){.prefill_step_size = p->prefill_step_size,
                              .max_kv_size = p->max_kv_size,
                              .kv_bits = p->kv_bits,
                              .kv_group_size = p->kv_group_size,
                              .quantized_kv_start = p->quantized_kv_start};
}

session_spec params_session(const params *p) {
    return (session_spec){.options = params_generate(p),
                          .n_sequences = (int)p->batch,
                          .capacity = p->depth + p->n_prompt + p->n_generate,
                          .marked = p->depth};
}

engine_options params_engine(const params *p) {
    static core_list cores; /* asked once: later this thread may be kept on one of them */
    if (!cores.n) sys_cores(&cores);
    engine_options o = {
        .threads = p->threads ? (int)p->threads : cores.n_fast, .cores = cores.n, .cpus = cores.cpus};
    for (int i = 0; i < N_PARAMS; i++)
        if (param_table[i].kind == KIND_SETTING) {
            engine_setting *s = &o.settings[o.n_settings++];
            s->name = param_table[i].name;
            memcpy(&s->value, (const char *)p + param_table[i].offset, sizeof s->value);
        }
    return o;
}

void loaded_free(loaded *l) {
    free(l->prompt_text.items);
    free(l->book_text.items);
    free(l->file_text.items);
    tokenizer_free(l->tokenizer);
    model_free(l->model);
    engine_close(l->engine);
    checkpoint_close(l->checkpoint);
    *l = (loaded){0};
}

static int open_all(loaded *l, const params *p, const bench_options *o, bool with_text) {
    str path = {0};
    int failed = o->find_model(p->model, &path);
    int64_t start = clock_ns();
    if (!failed && !path.failed) l->checkpoint = checkpoint_open(path.data, o->seed);
    str_free(&path);
    if (!l->checkpoint) return -1;
    engine_options how = params_engine(p);
    l->engine = engine_open(p->engine, &how);
    if (!l->engine || generate_check_weights(l->checkpoint, l->engine, sys_available_memory())) return -1;
    l->model = model_load(l->checkpoint, l->engine);
    if (!l->model) return -1;
    l->load_ns = clock_ns() - start;
    if (!with_text) return 0;
    if (open_tokenizer(l->checkpoint, &l->tokenizer)) return -1;
    if (l->tokenizer) return encode_prompt(l->tokenizer, o, &l->prompt_text);
    if (o->prompt_given && !checkpoint_is_synthetic(l->checkpoint))
        return fail("%s has no tokenizer.json for --prompt; use --prompt-tokens random", p->model);
    return 0;
}

static int encode_file(loaded *l, const char *path) {
    file_map map;
    if (file_map_open(&map, path)) return -1;
    l->file_text.n = 0;
    int failed = tokenizer_encode(l->tokenizer, map.data, map.size, true, &l->file_text);
    file_map_close(&map);
    if (failed) return fail("%s: %s", path, error_message());
    return l->file_text.n ? 0 : fail("--prompt-tokens: %s gives no token", path);
}

const token_ids *loaded_text(loaded *l, const params *p) {
    static const token_ids none = {0};
    const char *source = p->prompt_source;
    if (!strcmp(source, "random")) return &none;
    if (!strcmp(source, "book") && l->tokenizer) {
        if (!l->book_text.n &&
            tokenizer_encode(l->tokenizer, (const char *)book_text, book_length, true, &l->book_text))
            return NULL;
        return &l->book_text;
    }
    if (!is_from_file(source)) return &l->prompt_text; /* none without a tokenizer */
    if (!l->tokenizer)
        return fail_null("%s has no tokenizer for --prompt-tokens %s; use random ones", p->model, source);
    if (l->file_name && !strcmp(l->file_name, source)) return &l->file_text;
    l->file_name = NULL;
    if (encode_file(l, source + strlen("file:"))) return NULL;
    l->file_name = source;
    return &l->file_text;
}

int loaded_open(loaded *l, const params *p, const bench_options *o, bool with_text) {
    if (l->model_name && !strcmp(l->model_name, p->model) && !strcmp(l->engine_name, p->engine)) return 0;
    loaded_free(l);
    if (open_all(l, p, o, with_text)) {
        loaded_free(l);
        return -1;
    }
    l->model_name = p->model;
    l->engine_name = p->engine;
    return 0;
}
