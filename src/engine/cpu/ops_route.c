/* ops_route.c - choosing the experts of each token from a router's logits.
 * There are few of them, so clear loops are fast enough. */
#include "engine/cpu/cpu.h"

#include <math.h>

/* What each expert is chosen by, and what the chosen ones count, in scores[n] and chosen_by[n]. */
static void score_experts(const node *x, const float *logits, float *scores, float *chosen_by) {
    const route_spec *s = &x->route;
    const float *bias = x->w[0] ? cpu_weight_of(x, 0)->floats : NULL;
    int64_t n = tensor_last(x->in[0]);
    float max = logits[0], sum = 0;
    for (int64_t i = 1; i < n; i++) max = logits[i] > max ? logits[i] : max;
    for (int64_t i = 0; i < n; i++) {
        if (s->score == SCORE_SIGMOID) scores[i] = 1 / (1 + expf(-logits[i]));
        if (s->score == SCORE_SOFTMAX) sum += scores[i] = expf(logits[i] - max);
        if (s->score > SCORE_SIGMOID) scores[i] = logits[i];
    }
    for (int64_t i = 0; i < n && s->score == SCORE_SOFTMAX; i++) scores[i] /= sum;
    for (int64_t i = 0; i < n; i++) chosen_by[i] = scores[i] + (bias ? bias[i] : 0);
}

/* What a group is chosen by: its best score, or the sum of its two best. */
static float group_score(const route_spec *s, const float *scores, int64_t n) {
    float best = -INFINITY, second = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        if (scores[i] > best)
            second = best, best = scores[i];
        else if (scores[i] > second)
            second = scores[i];
    }
    return s->group_max ? best : best + second;
}

/* Experts of all groups but the best ones are masked. */
static void mask_groups(const route_spec *s, float *chosen_by, int64_t n) {
    int64_t size = n / s->n_group;
    for (int dropped = 0; dropped < s->n_group - s->topk_group; dropped++) {
        int64_t worst = -1;
        float least = INFINITY;
        for (int64_t g = 0; g < s->n_group; g++) {
            const float *of = chosen_by + g * size;
            float score = of[0] != of[0] ? INFINITY : group_score(s, of, size);
            if (score < least) least = score, worst = g;
        }
        for (int64_t i = 0; i < size && worst >= 0; i++) chosen_by[worst * size + i] = NAN; /* done */
    }
    for (int64_t i = 0; i < n; i++)
        if (chosen_by[i] != chosen_by[i]) chosen_by[i] = s->mask_inf ? -INFINITY : 0;
}

static void choose(const route_spec *s, const float *chosen_by, int64_t n, routed *out) {
    for (int j = 0; j < s->k; j++) {
        int32_t best = -1;
        for (int32_t i = 0; i < n; i++) {
            if (best >= 0 && !(chosen_by[i] > chosen_by[best])) continue;
            bool taken = false;
            for (int t = 0; t < j; t++) taken = taken || out[t].expert == i;
            if (!taken) best = i;
        }
        out[j].expert = best;
    }
}

/* Logits that were chosen are gone for those that are chosen later. */
static void weigh_band(const route_spec *s, float *logits, int64_t n, routed *out) {
    for (int j = 0; j < s->k; j++) {
        float top = logits[out[j].expert], sum = 0;
        for (int64_t i = 0; i < n; i++)
            if (!((top - logits[i]) / fmaxf(fabsf(logits[i]), top) > 2 * s->jitter))
                sum += expf(logits[i] - top);
        out[j].weight = 1 / sum;
        logits[out[j].expert] = -INFINITY;
    }
}

static void weigh(const route_spec *s, const float *scores, const float *expert_scale, routed *out) {
    float sum = 0, max = scores[out[0].expert];
    for (int j = 1; j < s->k; j++) max = scores[out[j].expert] > max ? scores[out[j].expert] : max;
    for (int j = 0; j < s->k; j++) {
        float score = scores[out[j].expert];
        if (s->score == SCORE_TOP_SIGMOID) score = 1 / (1 + expf(-score));
        sum += out[j].weight = s->score == SCORE_TOP_SOFTMAX ? expf(score - max) : score;
    }
    if (s->renormalize) sum = s->eps_is_floor ? fmaxf(sum, s->eps) : sum + s->eps;
    for (int j = 0; j < s->k; j++) {
        if (s->renormalize || s->score == SCORE_TOP_SOFTMAX) out[j].weight /= sum;
        if (s->scale != 0) out[j].weight *= s->scale;
        if (expert_scale) out[j].weight *= expert_scale[out[j].expert];
    }
}

size_t cpu_route_scratch(const cpu *e, const node *x) {
    (void)e;
    return 2 * (size_t)tensor_last(x->in[0]) * sizeof(float);
}

void cpu_route(cpu *e, const node *x, int thread) {
    int64_t n = tensor_last(x->in[0]);
    float *scores = (float *)(void *)e->thread_scratch[thread], *chosen_by = scores + n;
    piece p = {0};
    while (cpu_take(e, x, x->shape[0], 1, &p))
        for (int64_t r = p.first; r < p.end; r++) {
            routed *out = (routed *)(void *)floats_of(e, x, thread) + r * x->route.k;
            score_experts(x, floats_of(e, x->in[0], thread) + r * n, scores, chosen_by);
            if (x->route.n_group > 1) mask_groups(&x->route, chosen_by, n);
            choose(&x->route, chosen_by, n, out);
            if (x->route.score == SCORE_BAND) {
                weigh_band(&x->route, scores, n, out);
                continue;
            }
            weigh(&x->route, scores, x->w[1] ? cpu_weight_of(x, 1)->floats : NULL, out);
            for (int j = 0; j < x->route.k; j++) touch_expert(x, out[j].expert);
        }
}
