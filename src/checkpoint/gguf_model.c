/* gguf_model.c - a GGUF file as if it were a Hugging Face folder: config.json, tensor names,
 * vocabulary. Source of the names: llama.cpp's conversion (gguf-py constants.py and
 * tensor_mapping.py). */
#include "checkpoint/gguf.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *architecture, *model_type;
    bool rows_permuted; /* the conversion reorders the rows of q and k */
} architectures[] = {
    {"llama", "llama", true},
    {"qwen2", "qwen2", false},
    {"qwen3", "qwen3", false},
    {"qwen3moe", "qwen3_moe", false},
};
enum { N_ARCHITECTURES = sizeof architectures / sizeof *architectures };

/* ---- tensor names ---- */

static const struct {
    const char *gguf, *name;
} top_names[] =
    {
        {"token_embd.", "model.embed_tokens."},
        {"output_norm.", "model.norm."},
        {"output.", "lm_head."},
},
  block_names[] = {
      {"attn_norm.", "input_layernorm."},
      {"attn_q.", "self_attn.q_proj."},
      {"attn_k.", "self_attn.k_proj."},
      {"attn_v.", "self_attn.v_proj."},
      {"attn_output.", "self_attn.o_proj."},
      {"attn_q_norm.", "self_attn.q_norm."},
      {"attn_k_norm.", "self_attn.k_norm."},
      {"ffn_norm.", "post_attention_layernorm."},
      {"ffn_gate.", "mlp.gate_proj."},
      {"ffn_up.", "mlp.up_proj."},
      {"ffn_down.", "mlp.down_proj."},
      {"ffn_gate_inp.", "mlp.gate."},
      {"ffn_gate_exps.", "mlp.switch_mlp.gate_proj."},
      {"ffn_up_exps.", "mlp.switch_mlp.up_proj."},
      {"ffn_down_exps.", "mlp.switch_mlp.down_proj."},
};

/* mlx-lm's name of a tensor; a name without one stays, and shows up as surplus. NULL when out of
 * memory. */
static const char *model_name(arena *a, const char *name) {
    if (strncmp(name, "blk.", 4)) {
        for (size_t i = 0; i < sizeof top_names / sizeof *top_names; i++) {
            size_t n = strlen(top_names[i].gguf);
            if (!strncmp(name, top_names[i].gguf, n))
                return arena_printf(a, "%s%s", top_names[i].name, name + n);
        }
        return name;
    }
    const char *number = name + 4, *part = number + strspn(number, "0123456789");
    if (part == number || *part++ != '.') return name;
    for (size_t i = 0; i < sizeof block_names / sizeof *block_names; i++) {
        size_t n = strlen(block_names[i].gguf);
        if (!strncmp(part, block_names[i].gguf, n))
            return arena_printf(a, "model.layers.%.*s%s%s", (int)(part - number), number, block_names[i].name,
                                part + n);
    }
    return name;
}

static const stored *find_tensor(const gguf *g, const char *name) {
    for (size_t i = 0; i < g->n_tensors; i++)
        if (!strcmp(g->tensors[i].name, name)) return &g->tensors[i];
    return NULL;
}

/* ---- config.json ---- */

/* Metadata keys that begin with the architecture's name. */
typedef struct reader {
    const gguf *g;
    const char *architecture;
    char key[128];
} reader;

static const char *key(reader *r, const char *name) {
    snprintf(r->key, sizeof r->key, "%s.%s", r->architecture, name);
    return r->key;
}

/* Appends "field": value for an integer of the metadata; nothing when it is absent and not
 * required. */
static int put_int(reader *r, str *config, const char *name, bool required, const char *field) {
    int64_t n = 0;
    if (gguf_int(r->g, key(r, name), required, 1, INT32_MAX, &n)) return -1;
    if (n) str_printf(config, ", \"%s\": %lld", field, (long long)n);
    return 0;
}

static int put_float(reader *r, str *config, const char *name, bool required, const char *field) {
    double d = 0;
    if (gguf_float(r->g, key(r, name), required, &d)) return -1;
    if (gguf_find(r->g, r->key)) str_printf(config, ", \"%s\": %.9g", field, d);
    return 0;
}

static int put_rope_scaling(reader *r, str *config) {
    gguf_text type = {"none", 4};
    double factor = 1;
    if (find_tensor(r->g, "rope_freqs.weight")) { /* Llama 3's scaling, as a factor per frequency */
        str_puts(config, ", \"rope_scaling\": {\"rope_type\": \"gguf_factors\"}");
        return 0;
    }
    if (gguf_string(r->g, key(r, "rope.scaling.type"), false, &type)) return -1;
    if (gguf_text_is(type, "none")) return 0;
    if (!gguf_text_is(type, "linear"))
        return fail("%s: RoPE scaling \"%.*s\" is not supported for GGUF files (linear is)", r->g->path,
                    (int)(type.n < 64 ? type.n : 64), type.data);
    if (gguf_float(r->g, key(r, "rope.scaling.factor"), true, &factor)) return -1;
    str_printf(config, ", \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": %.9g}", factor);
    return 0;
}

static int put_attention(reader *r, str *config, int64_t hidden) {
    int64_t heads, head_dim = 0, rotated = 0;
    if (gguf_int(r->g, key(r, "attention.head_count"), true, 1, INT32_MAX, &heads)) return -1;
    str_printf(config, ", \"num_attention_heads\": %lld", (long long)heads);
    if (put_int(r, config, "attention.head_count_kv", false, "num_key_value_heads") ||
        put_int(r, config, "attention.key_length", false, "head_dim"))
        return -1;
    head_dim = hidden / heads;
    if (gguf_int(r->g, key(r, "attention.key_length"), false, 1, INT32_MAX, &head_dim)) return -1;
    rotated = head_dim;
    if (gguf_int(r->g, key(r, "rope.dimension_count"), false, 1, INT32_MAX, &rotated)) return -1;
    if (rotated != head_dim)
        return fail("%s: RoPE on %lld of %lld values per head is not supported for GGUF files", r->g->path,
                    (long long)rotated, (long long)head_dim);
    if (!strcmp(r->architecture, "llama") && find_tensor(r->g, "blk.0.attn_q.bias"))
        str_puts(config, ", \"attention_bias\": true");
    if (!strcmp(r->architecture, "llama") && find_tensor(r->g, "blk.0.ffn_gate.bias"))
        str_puts(config, ", \"mlp_bias\": true");
    return 0;
}

static int put_experts(reader *r, str *config) {
    if (strcmp(r->architecture, "qwen3moe")) return 0;
    str_puts(config, ", \"decoder_sparse_step\": 1, \"mlp_only_layers\": [], \"norm_topk_prob\": true");
    return put_int(r, config, "expert_count", true, "num_experts") ||
                   put_int(r, config, "expert_used_count", true, "num_experts_per_tok") ||
                   put_int(r, config, "expert_feed_forward_length", true, "moe_intermediate_size")
               ? -1
               : 0;
}

static int put_special_ids(const gguf *g, str *config) {
    int64_t bos = -1, eos = -1;
    if (gguf_int(g, "tokenizer.ggml.bos_token_id", false, 0, INT32_MAX, &bos) ||
        gguf_int(g, "tokenizer.ggml.eos_token_id", false, 0, INT32_MAX, &eos))
        return -1;
    if (bos >= 0) str_printf(config, ", \"bos_token_id\": %lld", (long long)bos);
    if (eos >= 0) str_printf(config, ", \"eos_token_id\": %lld", (long long)eos);
    return 0;
}

/* Writes the metadata under config.json's names, so that one code reads both. */
static int write_config(reader *r, const char *model_type, str *config) {
    const gguf *g = r->g;
    const stored *embedding = find_tensor(g, "token_embd.weight");
    int64_t hidden;
    if (!embedding || embedding->data.rank != 2)
        return fail("%s: tensor \"token_embd.weight\" is missing or no matrix", g->path);
    if (gguf_int(g, key(r, "embedding_length"), true, 1, INT32_MAX, &hidden)) return -1;
    str_printf(config, "{\"model_type\": \"%s\", \"hidden_size\": %lld, \"vocab_size\": %lld", model_type,
               (long long)hidden, (long long)embedding->data.shape[0]);
    str_printf(config, ", \"tie_word_embeddings\": %s", find_tensor(g, "output.weight") ? "false" : "true");
    if (put_int(r, config, "block_count", true, "num_hidden_layers") ||
        put_int(r, config, "feed_forward_length", true, "intermediate_size") ||
        put_int(r, config, "context_length", false, "max_position_embeddings") ||
        put_float(r, config, "attention.layer_norm_rms_epsilon", true, "rms_norm_eps") ||
        put_float(r, config, "rope.freq_base", false, "rope_theta") || put_attention(r, config, hidden) ||
        put_rope_scaling(r, config) || put_experts(r, config) || put_special_ids(g, config))
        return -1;
    str_puts(config, "}");
    return config->failed ? -1 : 0;
}

/* ---- vocabulary ---- */

static int32_t *read_types(checkpoint *c, const gguf *g, int64_t n_tokens) {
    const gguf_value *v = gguf_find(g, "tokenizer.ggml.token_type");
    if (v->type != GGUF_ARRAY || (v->element != GGUF_I32 && v->element != GGUF_U32) ||
        v->n != (uint64_t)n_tokens)
        return fail_null("%s: tokenizer.ggml.token_type is no list of one integer per token", g->path);
    int32_t *types = arena_alloc(c->arena, v->size);
    if (types) memcpy(types, v->data, v->size);
    return types;
}

static int read_text(checkpoint *c, const gguf *g, const char *name, bool required, const char **out) {
    gguf_text text = {0};
    *out = NULL;
    if (gguf_string(g, name, required, &text)) return -1;
    if (!text.data) return 0;
    return (*out = arena_string_n(c->arena, text.data, text.n)) ? 0 : -1;
}

static int read_vocabulary(checkpoint *c, const gguf *g) {
    if (!gguf_find(g, "tokenizer.ggml.tokens")) return 0;
    gguf_vocabulary *v = arena_alloc(c->arena, sizeof *v);
    if (!v) return -1;
    v->name = c->config_name;
    if (read_text(c, g, "tokenizer.ggml.model", true, &v->model) ||
        read_text(c, g, "tokenizer.ggml.pre", false, &v->pre) ||
        gguf_strings(c, g, "tokenizer.ggml.tokens", &v->tokens, &v->n_tokens) ||
        gguf_strings(c, g, "tokenizer.ggml.merges", &v->merges, &v->n_merges))
        return -1;
    if (v->n_tokens > INT32_MAX) return fail("%s: %lld tokens", g->path, (long long)v->n_tokens);
    if (gguf_find(g, "tokenizer.ggml.token_type") && !(v->types = read_types(c, g, v->n_tokens))) return -1;
    int64_t bos = -1, eos = -1;
    if (gguf_int(g, "tokenizer.ggml.bos_token_id", false, 0, v->n_tokens - 1, &bos) ||
        gguf_int(g, "tokenizer.ggml.eos_token_id", false, 0, v->n_tokens - 1, &eos))
        return -1;
    v->bos_id = (int32_t)bos;
    v->eos_id = (int32_t)eos;
    /* llama.cpp's defaults where the file does not say */
    v->add_bos = !strcmp(v->model, "llama") || (v->pre && !strcmp(v->pre, "llama-bpe"));
    if (gguf_bool(g, "tokenizer.ggml.add_bos_token", &v->add_bos)) return -1;
    if (!v->pre && !strcmp(v->model, "gpt2") &&
        checkpoint_add_note(
            c,
            "%s does not say how text is split into words (tokenizer.ggml.pre): llama.cpp's default is used",
            g->path))
        return -1;
    c->vocabulary = v;
    return 0;
}

/* ---- opening ---- */

/* Gives the tensors mlx-lm's names, and marks those whose rows are to be put back in order. */
static int adapt_tensors(checkpoint *c, const gguf *g, bool rows_permuted) {
    int64_t heads = 1, kv_heads;
    if (json_get_int(c->config, g->path, "num_attention_heads", true, 1, INT32_MAX, &heads)) return -1;
    kv_heads = heads;
    if (json_get_int(c->config, g->path, "num_key_value_heads", false, 1, INT32_MAX, &kv_heads)) return -1;
    for (size_t i = 0; i < g->n_tensors; i++) {
        stored *t = &g->tensors[i];
        t->file = arena_printf(c->arena, "%s (%s)", t->file, t->name);
        if (!t->file || !(t->name = model_name(c->arena, t->name))) return -1;
        if (rows_permuted && strstr(t->name, ".self_attn.q_proj.")) t->heads = heads;
        if (rows_permuted && strstr(t->name, ".self_attn.k_proj.")) t->heads = kv_heads;
    }
    return check_overlaps(c, c->n_tensors - g->n_tensors);
}

static int find_architecture(const gguf *g) {
    gguf_text name;
    if (gguf_string(g, "general.architecture", true, &name)) return -1;
    for (int i = 0; i < N_ARCHITECTURES; i++)
        if (gguf_text_is(name, architectures[i].architecture)) return i;
    return fail("%s: GGUF architecture \"%.*s\" is not supported (llama, qwen2, qwen3 and qwen3moe are)",
                g->path, (int)(name.n < 64 ? name.n : 64), name.data);
}

/* ---- split files: NAME-00001-of-00003.gguf and so on; the first has the metadata ---- */

enum { MAX_PARTS = 4096 };

/* The path of part i of n, from the first one's: NULL, with an error, when that has no such
 * name. */
static const char *part_path(checkpoint *c, const char *first, int i, int n) {
    char end[64];
    snprintf(end, sizeof end, "-00001-of-%05d.gguf", n);
    size_t length = strlen(first), tail = strlen(end);
    if (length < tail || strcmp(first + length - tail, end))
        return fail_null("%s: the first of %d files, whose name should end in %s", first, n, end);
    return arena_printf(c->arena, "%.*s-%05d-of-%05d.gguf", (int)(length - tail), first, i, n);
}

static int open_file(checkpoint *c, const char *path, gguf *g) {
    file_map *map = &c->files[c->n_files];
    if (!path || file_map_open(map, path)) return -1;
    c->n_files++;
    if (check_is_model(path, map->data, map->size)) return -1;
    *g = (gguf){.path = path, .data = map->data, .size = map->size};
    return gguf_parse(c, g);
}

/* How many files the model has; g is one of them and must be the first. -1 on error. */
static int count_parts(const gguf *g) {
    int64_t n = 1, which = 0;
    if (gguf_int(g, "split.count", false, 0, MAX_PARTS, &n) ||
        gguf_int(g, "split.no", false, 0, MAX_PARTS, &which))
        return -1;
    if (which)
        return fail("%s: part %lld of a model in %lld files; give the first, which has the metadata", g->path,
                    (long long)which + 1, (long long)n);
    return n > 1 ? (int)n : 1;
}

/* Opens the other files. Afterwards g has the tensors of all. */
static int open_parts(checkpoint *c, gguf *g) {
    int n = count_parts(g);
    if (n < 0) return -1;
    file_map *files = arena_alloc(c->arena, (size_t)n * sizeof *files);
    if (!files) return -1;
    files[0] = c->files[0];
    c->files = files;
    for (int i = 2; i <= n; i++) {
        gguf part;
        int64_t count = 0, which = 0;
        const char *path = part_path(c, g->path, i, n);
        if (!path || open_file(c, path, &part) ||
            gguf_int(&part, "split.count", true, 1, MAX_PARTS, &count) ||
            gguf_int(&part, "split.no", true, 0, MAX_PARTS, &which))
            return -1;
        if (count != n || which != i - 1)
            return fail("%s: says it is part %lld of %lld, not %d of %d", path, (long long)which + 1,
                        (long long)count, i, n);
    }
    g->tensors = c->tensors;
    g->n_tensors = c->n_tensors;
    return 0;
}

int gguf_open(checkpoint *c, const char *path) {
    if (!(c->files = arena_alloc(c->arena, sizeof *c->files))) return -1;
    gguf g;
    if (!(c->config_name = arena_string(c->arena, path)) || open_file(c, c->config_name, &g) ||
        open_parts(c, &g))
        return -1;
    int which = find_architecture(&g);
    if (which < 0) return -1;
    reader r = {.g = &g, .architecture = architectures[which].architecture};
    str config = {0};
    if (!write_config(&r, architectures[which].model_type, &config))
        c->config = json_parse(config.data, config.length, path);
    str_free(&config);
    if (!c->config) return -1;
    return read_vocabulary(c, &g) || adapt_tensors(c, &g, architectures[which].rows_permuted) ? -1 : 0;
}
