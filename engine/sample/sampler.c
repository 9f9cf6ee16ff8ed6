/* sampler.c: see sampler.h. */
#include "engine/sample/sampler_impl.h"

#include "base/rng.h"
#include "engine/kernels/math.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct eng_sampler *eng_sampler_open(const struct krn_table *krn, int32_t n_vocab)
{
    struct eng_sampler *s = xcalloc(1, sizeof *s);
    s->krn = krn;
    s->n_vocab = n_vocab;
    s->cands = xmalloc((size_t)n_vocab * sizeof *s->cands);
    s->spare = xmalloc((size_t)n_vocab * sizeof *s->spare);
    s->raw = xmalloc((size_t)n_vocab * sizeof *s->raw);
    s->seen = xcalloc((size_t)n_vocab, sizeof *s->seen);
    s->made = xcalloc((size_t)n_vocab, sizeof *s->made);
    return s;
}

void eng_sampler_close(struct eng_sampler *s)
{
    if (!s) return;
    free(s->cands);
    free(s->spare);
    free(s->raw);
    free(s->seen);
    free(s->made);
    free(s->runs);
    free(s);
}

void eng_sampler_texts(struct eng_sampler *s, struct eng_token_texts t) { s->texts = t; }

static bool bars_stops(const struct sampling *p, const struct eng_history *h)
{
    return p->n_stop_ids && h->n_generated < p->min_tokens;
}

/* Nothing is wanted of the row but a token, and its logits are taken as they are. */
static bool plain(const struct sampling *p, const struct eng_history *h)
{
    return p->n_logprobs < 0 && !p->n_bias && !p->n_allowed && !sampling_needs_history(p) && !bars_stops(p, h);
}

bool eng_sampler_plain_greedy(const struct sampling *p, const struct eng_history *h) { return p->temperature == 0 && plain(p, h); }

/* ---- what changes logits ---- */

static void penalise(struct eng_sampler *s, float *x, const struct sampling *p, const struct eng_history *h)
{
    int32_t from = p->penalty_last_n < 0 ? 0 : MAX(0, h->n - p->penalty_last_n);
    for (int32_t i = from; i < h->n; i++) {
        int32_t t = h->tokens[i];
        if (t < 0 || t >= s->n_vocab) continue;
        s->seen[t]++;
        if (i >= h->n_prompt) s->made[t]++;
    }
    for (int32_t i = from; i < h->n; i++) {
        int32_t t = h->tokens[i];
        if (t < 0 || t >= s->n_vocab || !s->seen[t]) continue; /* each id once */
        x[t] = x[t] > 0 ? x[t] / p->repetition_penalty : x[t] * p->repetition_penalty;
        if (s->made[t]) x[t] -= p->presence_penalty + p->frequency_penalty * (float)s->made[t];
        s->seen[t] = s->made[t] = 0;
    }
}

static void bar(const struct eng_sampler *s, float *x, int32_t id)
{
    if (id >= 0 && id < s->n_vocab) x[id] = -INFINITY;
}

/* The last id of a bad word, where the others were generated just before. */
static void bar_bad_words(const struct eng_sampler *s, float *x, const struct sampling *p, const struct eng_history *h)
{
    for (int32_t i = 0, n; i < p->n_bad; i += n + 1) {
        const int32_t *word = p->bad + i + 1;
        n = p->bad[i];
        if (n - 1 > h->n - h->n_prompt) continue;
        if (n == 1 || !memcmp(word, h->tokens + h->n - (n - 1), (size_t)(n - 1) * sizeof *word)) bar(s, x, word[n - 1]);
    }
}

static void keep_only(struct eng_sampler *s, float *x, const int32_t *ids, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        if (ids[i] >= 0 && ids[i] < s->n_vocab) s->seen[ids[i]] = 1;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        if (!s->seen[i]) x[i] = -INFINITY;
        s->seen[i] = 0;
    }
}

/* Where ids[0..n) stand in tokens[0..m), from `from` on; -1: nowhere. */
static int32_t find(const int32_t *tokens, int32_t from, int32_t m, const int32_t *ids, int32_t n)
{
    for (int32_t i = from; n && i + n <= m; i++)
        if (!memcmp(tokens + i, ids, (size_t)n * sizeof *ids)) return i;
    return -1;
}

/* The id that thoughts beyond their budget must go on with: the next one of their closing mark; -1: any. */
static int32_t end_of_thoughts(const struct sampling *p, const struct eng_history *h)
{
    const int32_t *made = h->tokens + h->n_prompt;
    int32_t n = h->n - h->n_prompt, from = 0, have;
    if (p->think_budget < 0 || !p->n_think_close) return -1;
    if (!p->thinking) {
        from = find(made, 0, n, p->think_open, p->n_think_open);
        if (from < 0) return -1;
        from += p->n_think_open;
    }
    if (n - from < p->think_budget || find(made, from, n, p->think_close, p->n_think_close) >= 0) return -1;
    for (have = MIN(p->n_think_close - 1, n - from); have > 0; have--)
        if (!memcmp(p->think_close, made + n - have, (size_t)have * sizeof *made)) break;
    return p->think_close[have];
}

static bool is_allowed(const uint64_t *allowed, int32_t id) { return !allowed || (allowed[id / 64] >> (id % 64) & 1); }

static void adjust(struct eng_sampler *s, float *x, const struct sampling *p, const struct eng_history *h, const uint64_t *allowed)
{
    if (sampling_penalises(p)) penalise(s, x, p, h);
    if (sampling_dry(p)) eng_dry_apply(s, x, p, h);
    for (int32_t i = 0; i < p->n_bias; i++)
        if (p->bias[i].id >= 0 && p->bias[i].id < s->n_vocab) x[p->bias[i].id] += p->bias[i].bias;
    if (bars_stops(p, h))
        for (int32_t i = 0; i < p->n_stop_ids; i++) bar(s, x, p->stop_ids[i]);
    if (p->n_bad) bar_bad_words(s, x, p, h);
    if (p->n_allowed) keep_only(s, x, p->allowed, p->n_allowed);
    for (int32_t i = 0; allowed && i < s->n_vocab; i++)
        if (!is_allowed(allowed, i)) x[i] = -INFINITY;
    int32_t end = end_of_thoughts(p, h);
    if (end >= 0 && end < s->n_vocab && is_allowed(allowed, end)) {
        if (!(x[end] > -INFINITY)) x[end] = 0; /* barred by others: the budget is kept */
        keep_only(s, x, &end, 1);
    }
}

/* ---- the choice ---- */

static float log_sum(const struct eng_sampler *s, const float *x, float *max)
{
    *max = x[s->krn->argmax(x, s->n_vocab)];
    return *max + krn_log(s->krn->sum_exp(x, s->n_vocab, *max));
}

static int32_t best_logprobs(struct eng_sampler *s, const float *x, int32_t k, float lse, float max, struct result_logprob *top)
{
    int32_t n = k > 0 ? eng_cut_best(s, x, s->n_vocab, max, MIN(k, LIMIT_LOGPROBS)) : 0;
    for (int32_t i = 0; i < n; i++) top[i] = (struct result_logprob){s->cands[i].id, s->cands[i].z - lse};
    return n;
}

/* What the noise of this position is keyed by: rng_at(seed, choice, position, id) is rng_mix(key ^ id). */
static uint64_t key_of(const struct sampling *p, int64_t position)
{
    return rng_mix(rng_mix(rng_mix(p->seed) ^ (uint64_t)p->choice) ^ (uint64_t)position);
}

/* Candidates in any order; logarithms are taken of those that can win. */
static int32_t draw(const struct krn_pick *c, int32_t n, const struct sampling *p, int64_t position)
{
    int32_t id = c[0].id;
    float top = -INFINITY;
    uint64_t key = key_of(p, position);
    for (int32_t i = 0; i < n; i++) {
        uint64_t bits = rng_mix(key ^ (uint64_t)c[i].id);
        if ((float)(uint32_t)(bits >> 32) > krn_gumbel_reach(c[i].z, top)) continue;
        float v = c[i].z + krn_math_gumbel(bits);
        if (v > top || (v == top && c[i].id < id)) top = v, id = c[i].id;
    }
    return id;
}

bool eng_sampler_plain_draw(const struct sampling *p, const struct eng_history *h, int64_t position)
{
    return p->temperature > 0 && plain(p, h) && eng_cut_open(p, position);
}

bool eng_sampler_plain_top(const struct sampling *p, const struct eng_history *h)
{
    return p->temperature > 0 && plain(p, h) && p->top_k > 0 && p->top_k <= KRN_TOP;
}

struct krn_noise eng_sampler_noise(const struct sampling *p, int64_t position)
{
    struct krn_noise h = {.t = p->temperature, .key = key_of(p, position)};
    eng_cut_how(p, position, &h);
    return h;
}

struct krn_pick eng_sampler_draw(struct eng_sampler *s, float *x, int32_t n, int32_t id0, float max, const struct sampling *p, int64_t position)
{
    struct krn_noise h = eng_sampler_noise(p, position);
    s->krn->temper(x, max, h.t, n);
    return s->krn->draw(x, n, h.least, h.key, id0);
}

void eng_sampler_top(struct eng_sampler *s, float *x, int32_t n, int32_t id0, float max, const struct sampling *p, struct krn_pick out[])
{
    s->krn->temper(x, max, p->temperature, n);
    int32_t k = eng_cut_best(s, x, n, 0, MIN(p->top_k, n));
    for (int32_t i = 0; i < p->top_k; i++) out[i] = i < k ? (struct krn_pick){s->cands[i].z, s->cands[i].id + id0} : (struct krn_pick){-INFINITY, -1};
}

int32_t eng_sampler_among(struct eng_sampler *s, const struct krn_pick c[], int32_t n, const struct sampling *p, int64_t position)
{
    int32_t k = 0;
    struct krn_noise how = eng_sampler_noise(p, position);
    for (int32_t i = 0; i < n; i++)
        if (c[i].id >= 0) s->cands[k++] = c[i];
    k = eng_cut_among(s, k, &how);
    return k ? draw(s->cands, k, p, position) : -1;
}

static int32_t first_allowed(const struct eng_sampler *s, const uint64_t *allowed)
{
    for (int32_t i = 0; i < s->n_vocab; i++)
        if (is_allowed(allowed, i)) return i;
    return 0;
}

void eng_sampler_pick(struct eng_sampler *s, float *x, const struct sampling *p, const struct eng_history *h,
                      const uint64_t *allowed, int64_t position, struct result_token *out)
{
    *out = (struct result_token){0};
    float lse = 0, max;
    if (p->n_logprobs >= 0) {
        lse = log_sum(s, x, &max);
        out->n_top = best_logprobs(s, x, p->n_logprobs, lse, max, out->top);
        memcpy(s->raw, x, (size_t)s->n_vocab * sizeof *s->raw);
    }
    adjust(s, x, p, h, allowed);
    int32_t top = s->krn->argmax(x, s->n_vocab);
    if (x[top] == -INFINITY) top = first_allowed(s, allowed);
    out->id = top;
    if (p->temperature > 0 && x[top] > -INFINITY) {
        if (eng_cut_open(p, position)) {
            struct krn_pick best = eng_sampler_draw(s, x, s->n_vocab, 0, x[top], p, position);
            if (best.id >= 0) out->id = best.id; /* none: the logits are no numbers */
        } else {
            s->krn->temper(x, x[top], p->temperature, s->n_vocab); /* the best is 0 at any temperature */
            int32_t n = eng_cut(s, x, p, position);
            if (n) out->id = draw(s->cands, n, p, position);
        }
    }
    if (p->n_logprobs >= 0) out->logprob = s->raw[out->id] - lse;
}

void eng_sampler_score(struct eng_sampler *s, const float *x, int32_t id, int32_t n_top, struct result_logprob *top, struct result_score *out)
{
    float max, lse = log_sum(s, x, &max);
    *out = (struct result_score){.id = id, .logprob = x[id] - lse, .rank = 1, .top = top};
    for (int32_t i = 0; i < s->n_vocab; i++) out->rank += x[i] > x[id] || (x[i] == x[id] && i < id);
    out->n_top = best_logprobs(s, x, n_top, lse, max, top);
}
