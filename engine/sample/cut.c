/* cut.c: which tokens may be drawn. Candidates are gathered by falling thresholds, so a large vocabulary is sorted only as deep as it must be.
 *
 * Sums over candidates are chains in double, in the order in which the candidates stand: in float a hundred thousand equal terms would each be
 * rounded the same way. */
#include "engine/sample/sampler_impl.h"

#include "base/rng.h"
#include "engine/kernels/few.h"
#include "engine/kernels/math.h"

#include <math.h>
#include <stdlib.h>

static int by_value(const void *a, const void *b)
{
    const struct krn_pick *x = a, *y = b;
    if (x->z != y->z) return x->z > y->z ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static void sort(struct krn_pick *c, int32_t n) { qsort(c, (size_t)n, sizeof *c, by_value); }

/* The larger z, the smaller; both zeros are one number. */
static uint32_t order_of(float z)
{
    uint32_t u = krn_math_bits(z + 0.0f);
    return u >> 31 ? u : u ^ 0x7fffffff;
}

/* s->cands[0..n), which stand by rising id, best first: where there are many, by three digits of their values, each pass leaving equal ones as
 * they were. A flat row of 100,000 is sorted in a tenth of the time. */
static void sort_by_digits(struct eng_sampler *s, int32_t n)
{
    enum { BITS = 11, DIGITS = 3, FEW = 1000 };
    if (n < FEW) {
        sort(s->cands, n);
        return;
    }
    uint32_t at[DIGITS][1 << BITS] = {{0}};
    for (int32_t i = 0; i < n; i++)
        for (uint32_t d = 0, u = order_of(s->cands[i].z); d < DIGITS; d++, u >>= BITS) at[d][u & ((1 << BITS) - 1)]++;
    for (int32_t d = 0; d < DIGITS; d++) {
        uint32_t next = 0;
        for (int32_t k = 0; k < 1 << BITS; k++) {
            uint32_t here = at[d][k];
            at[d][k] = next;
            next += here;
        }
        for (int32_t i = 0; i < n; i++) s->spare[at[d][order_of(s->cands[i].z) >> (d * BITS) & ((1 << BITS) - 1)]++] = s->cands[i];
        struct krn_pick *swap = s->cands;
        s->cands = s->spare;
        s->spare = swap;
    }
}

int32_t eng_cut_gather(struct eng_sampler *s, const float *x, int32_t n, float least)
{
    n = s->krn->at_least(x, n, least, s->cands);
    sort_by_digits(s, n);
    return n;
}

int32_t eng_cut_best(struct eng_sampler *s, const float *x, int32_t n_x, float max, int32_t k)
{
    for (float depth = 2;; depth *= 2) {
        int32_t n = eng_cut_gather(s, x, n_x, depth > 1e4f ? -INFINITY : max - depth);
        if (n >= k || depth > 1e4f) return MIN(n, k);
    }
}

static double sum_of(const struct krn_pick *c, int32_t n)
{
    double total = 0;
    for (int32_t i = 0; i < n; i++) total += (double)krn_exp(c[i].z);
    return total;
}

/* How many of the candidates, in their order, hold `part` of the total. */
static int32_t prefix(const struct krn_pick *c, int32_t n, double total, float part, bool *enough)
{
    double sum = 0, want = (double)part * total;
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

/* ---- typical_p ---- */

/* Mean of z over the distribution: a token is typical when its z is near it (Meister et al. 2023: its surprise near the entropy). */
static float mean_of(const struct eng_sampler *s, const float *z, int32_t n, double total)
{
    double sum = 0;
    if (z) {
        for (int32_t i = 0; i < s->n_vocab; i++)
            if (z[i] > -100) sum += (double)krn_exp(z[i]) * (double)z[i];
    } else {
        for (int32_t i = 0; i < n; i++) sum += (double)krn_exp(s->cands[i].z) * (double)s->cands[i].z;
    }
    return (float)(sum / total);
}

struct typical { float off, z; int32_t id; };

static int by_distance(const void *a, const void *b)
{
    const struct typical *x = a, *y = b;
    if (x->off != y->off) return x->off < y->off ? -1 : 1;
    if (x->z != y->z) return x->z > y->z ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* The most typical of s->cands[0..n) until they hold typical_p, best first again. */
static int32_t most_typical(struct eng_sampler *s, int32_t n, float mean, double total, float part, bool *enough)
{
    struct typical *t = xmalloc((size_t)n * sizeof *t + 1);
    for (int32_t i = 0; i < n; i++) t[i] = (struct typical){fabsf(s->cands[i].z - mean), s->cands[i].z, s->cands[i].id};
    qsort(t, (size_t)n, sizeof *t, by_distance);
    for (int32_t i = 0; i < n; i++) s->cands[i] = (struct krn_pick){t[i].z, t[i].id};
    free(t);
    n = prefix(s->cands, n, total, part, enough);
    sort(s->cands, n);
    return n;
}

/* The same over the whole vocabulary: those within a distance of the mean, until they hold enough. */
static int32_t typical_of_all(struct eng_sampler *s, const float *z, const struct sampling *p, double total)
{
    float mean = mean_of(s, z, 0, total);
    for (float off = 1;; off *= 2) {
        bool all = off > 1e4f, enough;
        int32_t n = 0;
        for (int32_t i = 0; i < s->n_vocab; i++)
            if (z[i] > -INFINITY && (all || fabsf(z[i] - mean) <= off)) s->cands[n++] = (struct krn_pick){z[i], i};
        n = most_typical(s, n, mean, total, p->typical_p, &enough);
        if (enough || all) return n;
    }
}

/* ---- XTC ---- */

/* Of the tokens whose probability reaches the threshold only the least likely stays (p-e-w, text-generation-webui 2024). */
static int32_t exclude_top(struct eng_sampler *s, int32_t n, double total, const struct sampling *p)
{
    struct krn_pick *c = s->cands, least = {0};
    double want = (double)p->xtc_threshold * total;
    int32_t above = 0, kept = 0;
    for (int32_t i = 0; i < n; i++) {
        if ((double)krn_exp(c[i].z) < want) continue;
        if (!above++ || by_value(&c[i], &least) > 0) least = c[i];
    }
    if (above < 2) return n;
    for (int32_t i = 0; i < n; i++)
        if (by_value(&c[i], &least) >= 0) c[kept++] = c[i];
    return kept;
}

static bool xtc_happens(const struct sampling *p, int64_t position)
{
    if (p->xtc_probability <= 0 || p->xtc_threshold > 0.5f) return false;
    return rng_unit(rng_at(p->seed, (uint64_t)p->choice, (uint64_t)position, UINT64_MAX)) < p->xtc_probability;
}

/* ---- all of it ---- */

/* After top_k and typical_p: s->cands[0..n), best first, or the whole of z (n < 0). *total: the sum of exp z over what is left before top_p. */
static int32_t top_p(struct eng_sampler *s, const float *z, int32_t n, const struct sampling *p, double total)
{
    bool enough = false;
    if (n >= 0) return p->top_p < 1 ? prefix(s->cands, n, total, p->top_p, &enough) : n;
    for (float depth = 4;; depth *= 2) {
        bool all = depth > 1e4f;
        n = eng_cut_gather(s, z, s->n_vocab, all ? -INFINITY : -depth);
        n = prefix(s->cands, n, total, p->top_p, &enough);
        if (enough || all) return n; /* rounding may keep the sum below: then the whole vocabulary is the nucleus */
    }
}

/* Below it no noise can win, or min_p bars. */
static float least_of(const struct sampling *p)
{
    float least = GUMBEL_MIN - GUMBEL_MAX;
    return p->min_p > 0 ? MAX(least, krn_log(p->min_p)) : least;
}

bool eng_cut_open(const struct sampling *p, int64_t position)
{
    return p->top_k <= 0 && p->top_p >= 1 && p->typical_p >= 1 && !xtc_happens(p, position);
}

void eng_cut_how(const struct sampling *p, int64_t position, struct krn_noise *how)
{
    how->least = least_of(p);
    how->top = CLAMP(p->top_k, 0, KRN_TOP);
    how->top_p = p->top_p;
    how->typical_p = p->typical_p;
    how->xtc_threshold = p->xtc_threshold;
    how->xtc = xtc_happens(p, position);
}

/* After top_k, of s->cands[0..n), best first; or of the whole of z (n < 0). */
static int32_t narrow(struct eng_sampler *s, const float *z, int32_t n, const struct sampling *p, int64_t position)
{
    const bool xtc = xtc_happens(p, position), typical = p->typical_p < 1;
    float least = least_of(p);
    double total = 0;
    if (n >= 0) {
        total = sum_of(s->cands, n);
    } else if (p->top_p < 1 || typical) {
        total = (double)s->krn->sum_exp(z, s->n_vocab, 0);
    }
    if (typical) {
        bool enough;
        n = n < 0 ? typical_of_all(s, z, p, total) : most_typical(s, n, mean_of(s, NULL, n, total), total, p->typical_p, &enough);
        total = sum_of(s->cands, n);
    }
    if (n < 0 && p->top_p >= 1) {
        n = s->krn->at_least(z, s->n_vocab, least, s->cands);
    } else {
        n = top_p(s, z, n, p, total);
        if (typical && n) least += s->cands[0].z; /* the best may be gone */
        while (n > 1 && s->cands[n - 1].z < least) n--;
    }
    return xtc ? exclude_top(s, n, sum_of(s->cands, n), p) : n;
}

int32_t eng_cut(struct eng_sampler *s, const float *z, const struct sampling *p, int64_t position)
{
    return narrow(s, z, p->top_k > 0 ? eng_cut_best(s, z, s->n_vocab, 0, MIN(p->top_k, s->n_vocab)) : -1, p, position);
}

int32_t eng_cut_among(struct eng_sampler *s, int32_t n, const struct krn_noise *how)
{
    struct krn_few f = {.n = MIN(n, how->top)};
    sort(s->cands, n);
    for (int32_t i = 0; i < f.n; i++) f.c[i] = s->cands[i], f.e[i] = krn_exp(f.c[i].z);
    krn_few_narrow(&f, how);
    for (int32_t i = 0; i < f.n; i++) s->cands[i] = f.c[i];
    return f.n;
}
