/* mixers.h - the operations of what stands in place of attention: states that follow a text, and
 * multi-head latent attention. A part of engine.h, which includes it. */
#ifndef ENGINE_MIXERS_H
#define ENGINE_MIXERS_H

/* The gated delta rule: what a head remembers is a matrix S [dv, dk], which follows the text token
 * by token: S = decay S, S += (v - S k) beta k^T, and the result is y = S q. decay is
 * exp(-exp(A_log) softplus(a + dt_bias)), or exp(lower_bound sigmoid(exp(A_log) (a + dt_bias)));
 * beta is sigmoid(b), or twice that. q, k [L, Hk, dk], v [L, Hv, dv], b [L, Hv]; a [L, Hv], or [L,
 * Hv, dk] with a decay for every feature of the key -> [L, Hv, dv]. Value head h uses key head h /
 * (Hv / Hk). The state has rows Hv * dv, cols dk, F32. mlx-lm gated_delta.py. */
typedef struct delta_inputs {
    tensor q, k, v, a, b;
} delta_inputs;
typedef struct delta_spec {
    int slot;                  /* of the cache's states */
    const weight *A_log;       /* [Hv] */
    const weight *dt_bias;     /* of a's shape, flat: [Hv] or [Hv * dk] */
    float lower_bound;         /* 0: none */
    bool negative_eigenvalues; /* beta is twice the sigmoid */
} delta_spec;
/* spec lives as long as the model. */
tensor delta_rule(graph *g, cache *c, const delta_inputs *in, const delta_spec *spec);

/* A selective state space, Mamba's: what a head remembers is a matrix S [hd, N], which follows the
 * text token by token: S = decay S + delta x B^T, and the result is y = S C + D x. delta is
 * softplus(dt + dt_bias), at least dt_min and at most dt_max; decay is exp(-exp(A_log) delta). x
 * [L, H, hd], dt [L, H], B, C [L, G, N] -> [L, H, hd]. Head h uses group h / (H / G). The state has
 * rows H * hd, cols N; F32 for Mamba-2. Mamba-2: A_log is [H]. Mamba-1: A_log is [H * N], a decay
 * for every feature of B, and hd is 1; all is computed in the activations' dtype. mlx-lm ssm.py;
 * mamba.py, jamba.py. */
typedef struct ssm_inputs {
    tensor x, B, C, dt;
} ssm_inputs;
typedef struct ssm_spec {
    int slot;              /* of the cache's states */
    const weight *A_log;   /* [H] or [H * N] */
    const weight *D;       /* [H] */
    const weight *dt_bias; /* [H]; NULL: none */
    float dt_min, dt_max;
    bool narrow_D; /* D is rounded to x's dtype */
} ssm_spec;
/* spec lives as long as the model. */
tensor ssm(graph *g, cache *c, const ssm_inputs *in, const ssm_spec *spec);

/* Linear attention: what a head remembers is a matrix S [dk, dv], which follows the text token by
 * token: S = e^log_decay S + k^T v, and the result is y = scale q S. q, k [L, H, dk], v [L, H, dv]
 * -> [L, H, dv]. The state has rows H * dv, cols dk. mlx-lm bailing_hybrid.py,
 * bailing_moe_linear.py: recurrent_gla. */
typedef struct lightning_spec {
    int slot;                /* of the cache's states */
    const float *log_decays; /* [H] */
    float scale;
    bool f32; /* mlx: the state is F32, and several tokens are computed at once; else it has q's dtype */
} lightning_spec;
/* spec and its log_decays live as long as the model. */
tensor linear_attention(graph *g, cache *c, tensor q, tensor k, tensor v, const lightning_spec *spec);

/* x [L, H, in] times w [H, out, in] transposed, each head with a matrix of its own, plus w's bias
 * [H, out] -> [L, H, out].
 * mlx-lm mla.py: MultiLinear. */
tensor linear_heads(graph *g, tensor x, const weight *w);

/* Multi-head latent attention. A token's entry is a latent [c], of which every head makes its key
 * (embed_q) and value (unembed_out), and a rotated key [r] that all heads share. The scores of head
 * h are scale * (q_nope . (latent embed_q[h]) + q_pe . k_pe), and what is summed up is
 * unembed_out[h] latent. Appends to the cache, which is `latent`, with head_dim c and v_head_dim r.
 * q_nope [L, H, n], q_pe [L, H, r], latent [L, 1, c], k_pe [L, 1, r], embed_q [H, c, n],
 * unembed_out [H, v, c] -> [L, H, v]. One token of a sequence multiplies its query with embed_q and
 * the sum of latents with unembed_out; several make keys and values of all entries. mlx-lm
 * deepseek_v3.py: DeepseekV3Attention. */
typedef struct latent_inputs {
    tensor q_nope, q_pe, latent, k_pe;
    tensor selected; /* of select_entries; NULL: all entries */
} latent_inputs;
typedef struct latent_spec {
    float scale;
    const weight *embed_q, *unembed_out;
    bool whole_keys; /* mlx: of several tokens, keys are [nope, rotated] in one piece (mlx-lm mistral4.py) */
} latent_spec;
tensor attend_latent(graph *g, cache *c, const latent_inputs *in, const latent_spec *spec);

/* The entries that attend_latent is to see, chosen by keys of their own: appends k [L, 1, d] to the
 * cache (one head, v_head_dim 0), and gives each row the topk entries it may see with the largest
 * sums over heads of weights[h] * max(0, q[h] . k); q [L, H, d], weights [L, H] -> [L, topk], for
 * attend_latent alone. NULL while there are no more than topk. mlx-lm deepseek_v32.py: Indexer. */
tensor select_entries(graph *g, cache *c, tensor q, tensor k, tensor weights, int64_t topk);

#endif
