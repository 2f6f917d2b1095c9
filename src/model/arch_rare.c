/* arch_rare.c - dense architectures with something that no other has: what each changes.
 * mlx-lm: models/, the file of that name. */
#include "model/decoder.h"

/* Attention and MLP side by side; keys and values are repeated as a whole, not head by head. */
void describe_plamo(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    int64_t shared = config_int_or(l, "n_shared_head", 1, MAX_HEADS, 8);
    if (!l->failed && a->n_heads % shared) config_refuse(l, "n_shared_head", "does not divide the heads");
    if (l->failed) return;
    a->head_dim = d->hidden / a->n_heads;
    a->n_kv_heads = a->n_heads / shared;
    a->tiled = true;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 10000,
                                        .traditional = config_bool_or(l, "rope_traditional", false),
                                        .plain = true});
    d->layer.places = PLACES_PARALLEL;
    d->layer.x_first = true;
    d->never_quantized = "attention reads plain caches alone";
    d->names.layers = "model.layers.layers";
    d->names.pre = "norm";
}

/* Keys and values as 8 bits would keep them; the last layers read those of the last one before
 * them. */
void describe_afm7(loader *l, desc *d) {
    static const decoder_keys keys = {"hidden_dim", "num_layers", "num_heads", "num_kv_heads", .width = ""};
    read_decoder_keys(l, d, &keys, &(decoder_defaults){.width = 1, .eps = 1e-5});
    attention_desc *a = &d->layer.attention;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->packing = PACKING_ROWS;
    a->qk_norm = QK_AFTER_ROPE;
    a->qk_eps = 1e-5f;
    a->fake_8bit = true;
    a->rope =
        read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 50000, .traditional = true, .plain = true});
    double factor = config_float_or(l, "hidden_dim_scale_factor", 3.25);
    if (!(factor * (double)d->hidden >= 1 && factor < 1024))
        config_refuse(l, "hidden_dim_scale_factor", "gives an MLP no width that can be");
    d->layer.ffn.width = l->failed ? 1 : (int64_t)((double)d->hidden * factor);
    d->tied = d->own_caches = true;
    d->never_quantized = "the last layers read plain caches alone";
    d->names.embed = "model.embedding";
    d->names.norm = "model.output_norm";
    d->names.o = "self_attn.out_proj";
}

void layer_afm7(loader *l, const desc *d, int64_t i, layer_desc *out) {
    int64_t first = d->n_layers - config_int(l, "num_kv_reuse_layers", 0, MAX_LAYERS);
    if (!l->failed && first < 1) config_refuse(l, "num_kv_reuse_layers", "leaves no layer with keys");
    if (l->failed || i < first) return;
    names *own = load_alloc(l, 1, sizeof *own);
    if (!own) return;
    *own = d->names;
    own->layers = "model.kv_reuse_layers";
    out->names = own;
    out->first = first;
    out->attention.reads = first;
}

/* Llama, twice through all layers. */
void describe_iquestloopcoder(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = a->o_bias = config_bool_or(l, "attention_bias", false);
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 500000});
    d->layer.ffn.bias = config_bool_or(l, "mlp_bias", false);
    d->loops = config_int_or(l, "loop_num", 1, 2, 2);
    if (!l->failed && d->loops != 2) config_refuse(l, "loop_num", "is not 2");
    d->loop_window = config_int_or(l, "loop_window_size", 2, INT32_MAX, 64);
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
    d->own_caches = true;
}
