/* sampler.c: see sampler.h. Candidates are gathered by falling thresholds, so a large vocabulary is sorted only as deep as it must be. */
#include "engine/sample/sampler.h"

#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct cand { float z; int32_t id; };

struct eng_sampler {
    const struct krn_table *krn;
    int32_t n_vocab;
    struct cand *cands;
    float *raw;             /* [n_vocab] the logits as they came, when logprobs are wanted */
    int32_t *seen, *made;   /* [n_vocab] counts, zero between calls */
};

/* gumbel() for its largest and smallest v (1 - 2^-24 and 2^-33), rounded outwards. */
static const float GUMBEL_MIN = -2.82f, GUMBEL_MAX = 22.88f;

struct eng_sampler *eng_sampler_open(const struct krn_table *krn, int32_t n_vocab)
{
    struct eng_sampler *s = xcalloc(1, sizeof *s);
    s->krn = krn;
    s->n_vocab = n_vocab;
    s->cands = xmalloc((size_t)n_vocab * sizeof *s->cands);
    s->raw = xmalloc((size_t)n_vocab * sizeof *s->raw);
    s->seen = xcalloc((size_t)n_vocab, sizeof *s->seen);
    s->made = xcalloc((size_t)n_vocab, sizeof *s->made);
    return s;
}

void eng_sampler_close(struct eng_sampler *s)
{
    if (!s) return;
    free(s->cands);
    free(s->raw);
    free(s->seen);
    free(s->made);
    free(s);
}

static bool bars_stops(const struct sampling *p, const struct eng_history *h)
{
    return p->n_stop_ids && h->n_generated < p->min_tokens;
}

bool eng_sampler_plain_greedy(const struct sampling *p, const struct eng_history *h)
{
    return p->temperature == 0 && p->n_logprobs < 0 && !p->n_bias && !sampling_needs_history(p) && !bars_stops(p, h);
}

static void penalise(struct eng_sampler *s, float *x, const struct sampling *p, const struct eng_history *h)
{
    for (int32_t i = 0; i < h->n; i++) {
        int32_t t = h->tokens[i];
        if (t < 0 || t >= s->n_vocab) continue;
        s->seen[t]++;
        if (i >= h->n_prompt) s->made[t]++;
    }
    for (int32_t i = 0; i < h->n; i++) {
        int32_t t = h->tokens[i];
        if (t < 0 || t >= s->n_vocab || !s->seen[t]) continue; /* each id once */
        x[t] = x[t] > 0 ? x[t] / p->repetition_penalty : x[t] * p->repetition_penalty;
        if (s->made[t]) x[t] -= p->presence_penalty + p->frequency_penalty * (float)s->made[t];
        s->seen[t] = s->made[t] = 0;
    }
}

static int by_value(const void *a, const void *b)
{
    const struct cand *x = a, *y = b;
    if (x->z != y->z) return x->z > y->z ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* All ids with x >= floor, best first; returns how many. */
static int32_t gather(struct eng_sampler *s, const float *x, float least)
{
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_vocab; i++)
        if (x[i] >= least && x[i] > -INFINITY) s->cands[n++] = (struct cand){x[i], i};
    qsort(s->cands, (size_t)n, sizeof *s->cands, by_value);
    return n;
}

/* The k best ids of x, best first (fewer when there are fewer). */
static int32_t best(struct eng_sampler *s, const float *x, float max, int32_t k)
{
    for (float depth = 2;; depth *= 2) {
        int32_t n = gather(s, x, depth > 1e4f ? -INFINITY : max - depth);
        if (n >= k || depth > 1e4f) return MIN(n, k);
    }
}

static void logprobs(struct eng_sampler *s, const float *x, const struct sampling *p, float lse, float max,
                     struct result_token *out)
{
    if (p->n_logprobs) out->n_top = best(s, x, max, MIN(p->n_logprobs, LIMIT_LOGPROBS));
    for (int32_t i = 0; i < out->n_top; i++)
        out->top[i] = (struct result_logprob){s->cands[i].id, s->cands[i].z - lse};
}

/* How many of the candidates (best first) the nucleus holds; total: sum of exp z over all survivors of top_k. The chain is in double: in
 * float a hundred thousand equal terms would each be rounded the same way. */
static int32_t nucleus(const struct cand *c, int32_t n, double total, float top_p, bool *enough)
{
    double sum = 0, want = (double)top_p * total;
    for (int32_t i = 0; i < n; i++) {
        sum += (double)krn_exp(c[i].z);
        if (sum >= want) {
            *enough = true;
            return i + 1;
        }
    }
    *enough = false;
    return n;
}

/* Survivors of top_k, top_p, min_p into s->cands; returns how many. The largest z is 0. */
static int32_t survivors(struct eng_sampler *s, const float *z, const struct sampling *p)
{
    float least = GUMBEL_MIN - GUMBEL_MAX; /* below it no noise can win */
    if (p->min_p > 0) least = MAX(least, krn_log(p->min_p));
    if (p->top_k <= 0 && p->top_p >= 1) {
        int32_t n = 0;
        for (int32_t i = 0; i < s->n_vocab; i++)
            if (z[i] >= least) s->cands[n++] = (struct cand){z[i], i};
        return n;
    }
    int32_t n = 0;
    bool enough = false;
    if (p->top_k > 0) {
        double total = 0;
        n = best(s, z, 0, MIN(p->top_k, s->n_vocab));
        for (int32_t i = 0; i < n; i++) total += (double)krn_exp(s->cands[i].z);
        if (p->top_p < 1) n = nucleus(s->cands, n, total, p->top_p, &enough);
    } else {
        double total = (double)s->krn->sum_exp(z, s->n_vocab, 0);
        for (float depth = 4; !enough; depth *= 2) {
            bool all = depth > 1e4f;
            n = gather(s, z, all ? -INFINITY : -depth);
            n = nucleus(s->cands, n, total, p->top_p, &enough);
            if (all) break; /* rounding kept the sum below: the whole vocabulary is the nucleus */
        }
    }
    while (n > 1 && s->cands[n - 1].z < least) n--;
    return n;
}

/* -log(-log(1 - v)) with v > 0 of full relative precision: log(1 - v) by Kahan's correction for what 1 - v rounds away. */
static float gumbel(uint64_t bits)
{
    float v = MIN(((float)(uint32_t)(bits >> 32) + 0.5f) * 0x1p-32f, 1 - 0x1p-24f), y = 1 - v;
    return -krn_log(y == 1 ? v : krn_log(y) * (v / (y - 1)));
}

static int32_t draw(const struct cand *c, int32_t n, const struct sampling *p, int64_t position)
{
    int32_t id = c[0].id;
    float top = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        float v = c[i].z + gumbel(rng_at(p->seed, (uint64_t)p->choice, (uint64_t)position, (uint64_t)c[i].id));
        if (v > top || (v == top && c[i].id < id)) top = v, id = c[i].id;
    }
    return id;
}

static void adjust(struct eng_sampler *s, float *x, const struct sampling *p, const struct eng_history *h, const uint64_t *allowed)
{
    if (sampling_needs_history(p)) penalise(s, x, p, h);
    for (int32_t i = 0; i < p->n_bias; i++)
        if (p->bias[i].id >= 0 && p->bias[i].id < s->n_vocab) x[p->bias[i].id] += p->bias[i].bias;
    if (bars_stops(p, h))
        for (int32_t i = 0; i < p->n_stop_ids; i++)
            if (p->stop_ids[i] >= 0 && p->stop_ids[i] < s->n_vocab) x[p->stop_ids[i]] = -INFINITY;
    for (int32_t i = 0; allowed && i < s->n_vocab; i++)
        if (!(allowed[i / 64] >> (i % 64) & 1)) x[i] = -INFINITY;
}

void eng_sampler_pick(struct eng_sampler *s, float *x, const struct sampling *p, const struct eng_history *h,
                      const uint64_t *allowed, int64_t position, struct result_token *out)
{
    *out = (struct result_token){0};
    float lse = 0;
    if (p->n_logprobs >= 0) {
        float max = x[s->krn->argmax(x, s->n_vocab)];
        lse = max + krn_log(s->krn->sum_exp(x, s->n_vocab, max));
        logprobs(s, x, p, lse, max, out);
        memcpy(s->raw, x, (size_t)s->n_vocab * sizeof *s->raw);
    }
    adjust(s, x, p, h, allowed);
    int32_t top = s->krn->argmax(x, s->n_vocab);
    out->id = top;
    if (p->temperature > 0) {
        float max = x[top];
        for (int32_t i = 0; i < s->n_vocab; i++) x[i] = (x[i] - max) / p->temperature; /* the best is 0 at any temperature */
        int32_t n = survivors(s, x, p);
        if (n) out->id = draw(s->cands, n, p, position); /* none: the logits are no numbers */
    }
    if (p->n_logprobs >= 0) out->logprob = s->raw[out->id] - lse;
}
