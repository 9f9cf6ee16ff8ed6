/* route.c: see route.h. */
#include "engine/model/route.h"

#include "engine/kernels/table.h"

#include <math.h>

static void softmax(float *x, int32_t n)
{
    float m = x[0], sum = 0;
    for (int32_t i = 1; i < n; i++) m = x[i] > m ? x[i] : m;
    for (int32_t i = 0; i < n; i++) sum += x[i] = krn_exp(x[i] - m);
    for (int32_t i = 0; i < n; i++) x[i] /= sum;
}

static float sigmoid(float x) { return 1.0f / (1.0f + krn_exp(-x)); }

/* The largest of v[i0,i1) that is not yet taken: -1 when none is. */
static int32_t best(const float *v, int32_t i0, int32_t i1, const bool *taken)
{
    int32_t at = -1;
    for (int32_t i = i0; i < i1; i++)
        if (!taken[i] && (at < 0 || v[i] > v[at])) at = i;
    return at;
}

/* With groups: those of the best scores stay. A group's score is its best expert's, or, with sigmoids, the sum of its two best. */
static void close_groups(const struct eng_experts *x, const float *score, bool two, bool *taken)
{
    float of[LIMIT_EXPERTS];
    bool open[LIMIT_EXPERTS] = {false};
    int32_t each = x->n / x->n_groups;
    for (int32_t g = 0; g < x->n_groups; g++) {
        int32_t a = best(score, g * each, (g + 1) * each, taken), b;
        of[g] = score[a];
        taken[a] = true;
        b = two ? best(score, g * each, (g + 1) * each, taken) : -1;
        if (b >= 0) of[g] += score[b];
        taken[a] = false;
    }
    for (int32_t k = 0; k < x->groups_used; k++) open[best(of, 0, x->n_groups, open)] = true;
    for (int32_t e = 0; e < x->n; e++) taken[e] = !open[e / each];
}

static void choose(const struct eng_experts *x, const float *score, bool two, int32_t ids[])
{
    bool taken[LIMIT_EXPERTS] = {false};
    if (x->n_groups > 1) close_groups(x, score, two, taken);
    for (int32_t k = 0; k < x->used; k++) {
        int32_t e = best(score, 0, x->n, taken), i = k;
        if (e < 0) e = 0; /* fewer open than wanted, or nothing but NaN: any will do, none is out of range */
        taken[e] = true;
        for (; i > 0 && ids[i - 1] > e; i--) ids[i] = ids[i - 1];
        ids[i] = e;
    }
}

void eng_route(const struct eng_experts *x, float *logits, const float *shift, int32_t ids[], float weights[])
{
    float shifted[LIMIT_EXPERTS], sum = 0;
    const float *score = logits;
    if (x->gating == ENG_GATING_SOFTMAX) softmax(logits, x->n);
    for (int32_t e = 0; e < x->n && x->gating == ENG_GATING_SIGMOID; e++) logits[e] = sigmoid(logits[e]);
    for (int32_t e = 0; e < x->n && shift; e++) shifted[e] = logits[e] + shift[e];
    if (shift) score = shifted;
    choose(x, score, x->gating == ENG_GATING_SIGMOID, ids);
    for (int32_t k = 0; k < x->used; k++) weights[k] = logits[ids[k]];
    if (x->gating == ENG_GATING_SOFTMAX_CHOSEN) softmax(weights, x->used);
    for (int32_t k = 0; k < x->used && x->gating == ENG_GATING_SIGMOID_CHOSEN; k++) weights[k] = sigmoid(weights[k]);
    for (int32_t k = 0; k < x->used; k++) sum += weights[k];
    for (int32_t k = 0; k < x->used && x->renorm; k++) weights[k] /= sum;
    for (int32_t k = 0; k < x->used; k++) weights[k] *= x->scale;
}
