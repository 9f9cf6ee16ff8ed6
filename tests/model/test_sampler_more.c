/* The rest of the sampler against a second one written plainly in double: typical_p, XTC, DRY, bad words, allowed ids, windows of penalties,
 * budgets of thoughts; and scores of prompt tokens. Noise is the only thing they share. */
#include "base/rng.h"
#include "engine/sample/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { SEED = 20261128, N = 300, MOST = 80 };

static uint64_t drawn;
static double unit(void) { return (double)(rng_at(SEED, drawn++, 0, 0) >> 11) * 0x1p-53; }
static int32_t below(int32_t n) { return (int32_t)(unit() * n); }
static double normal(void) { return sqrt(-2 * log(unit() + 1e-300)) * cos(2 * M_PI * unit()); }

/* Token i is a word, some with a breaker in it: "a7", "b\n", "c: ". */
static uint8_t bytes[8 * N];
static uint32_t off[N + 1];
static char texts[N][8];

static void write_texts(void)
{
    for (int32_t i = 0, at = 0; i < N; i++) {
        snprintf(texts[i], sizeof texts[i], i % 11 == 3 ? "%c\n" : i % 11 == 7 ? "%c:" : i % 11 == 8 ? ": %c" : "%c%d", 'a' + i % 26, i % 10);
        off[i] = (uint32_t)at;
        memcpy(bytes + at, texts[i], strlen(texts[i]));
        at += (int32_t)strlen(texts[i]);
        off[i + 1] = (uint32_t)at;
    }
}

/* ---- the other sampler ---- */

struct plain { double z; int32_t id; bool out; };

static void plain_penalties(double *x, const struct sampling *p, const struct eng_history *h)
{
    int32_t from = p->penalty_last_n < 0 ? 0 : MAX(0, h->n - p->penalty_last_n);
    for (int32_t t = 0; t < N; t++) {
        int32_t seen = 0, made = 0;
        for (int32_t i = from; i < h->n; i++) seen += h->tokens[i] == t, made += h->tokens[i] == t && i >= h->n_prompt;
        if (seen) x[t] = x[t] > 0 ? x[t] / (double)p->repetition_penalty : x[t] * (double)p->repetition_penalty;
        if (made) x[t] -= (double)p->presence_penalty + (double)p->frequency_penalty * made;
    }
}

/* Does one of the breakers end inside the last of these tokens? */
static bool plain_break(const struct sampling *p, const int32_t *tokens, int32_t n)
{
    char all[8 * MOST + 1] = "";
    for (int32_t i = 0; i < n; i++) strcat(all, texts[tokens[i]]);
    size_t len = strlen(all), last = strlen(texts[tokens[n - 1]]);
    for (int32_t k = 0, m; k < p->n_breakers; k += m + 1) {
        m = p->breakers[k];
        for (size_t end = len - last + 1; end <= len; end++)
            if (end >= (size_t)m && !memcmp(all + end - m, p->breakers + k + 1, (size_t)m)) return true;
    }
    return false;
}

static void plain_dry(double *x, const struct sampling *p, const struct eng_history *h)
{
    int32_t n = p->dry_last_n < 0 ? h->n : MIN(h->n, p->dry_last_n), most = 0, longest[N] = {0};
    const int32_t *t = h->tokens + h->n - n;
    while (most < n && !plain_break(p, h->tokens, h->n - most)) most++;
    for (int32_t at = 1; at < n; at++) { /* the token at `at` came after t[0..at) */
        int32_t run = 0;
        while (run < at && run < most && t[at - 1 - run] == t[n - 1 - run]) run++;
        longest[t[at]] = MAX(longest[t[at]], run + 1);
    }
    for (int32_t i = 0; i < N; i++) {
        int32_t over = longest[i] - 1 - p->dry_allowed_length;
        if (!longest[i] || over < 0 || plain_break(p, &i, 1)) continue;
        x[i] -= fmin((double)p->dry_multiplier * pow((double)p->dry_base, over), 1e30);
    }
}

static void plain_bars(double *x, const struct sampling *p, const struct eng_history *h)
{
    for (int32_t i = 0, n; i < p->n_bad; i += n + 1) {
        n = p->bad[i];
        bool follows = h->n - h->n_prompt >= n - 1;
        for (int32_t k = 0; follows && k < n - 1; k++) follows = h->tokens[h->n - (n - 1) + k] == p->bad[i + 1 + k];
        if (follows) x[p->bad[i + n]] = -INFINITY;
    }
    for (int32_t t = 0; t < N && p->n_allowed; t++) {
        bool in = false;
        for (int32_t i = 0; i < p->n_allowed; i++) in |= p->allowed[i] == t;
        if (!in) x[t] = -INFINITY;
    }
}

static int by_z(const void *a, const void *b)
{
    const struct plain *x = a, *y = b;
    return x->z != y->z ? (x->z > y->z ? -1 : 1) : (x->id > y->id) - (x->id < y->id);
}

static double around; /* what by_distance is about */
static int by_distance(const void *a, const void *b)
{
    const struct plain *x = a, *y = b;
    double d = fabs(x->z - around) - fabs(y->z - around);
    return d != 0 ? (d < 0 ? -1 : 1) : by_z(a, b);
}

static double mass(const struct plain *c, int32_t n)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += exp(c[i].z);
    return sum;
}

/* The first of them that hold `part` of `total`. */
static int32_t until(const struct plain *c, int32_t n, double part, double total, bool *clear)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        sum += exp(c[i].z);
        if (fabs(sum - part * total) < 1e-6 * total) *clear = false;
        if (sum >= part * total) return i + 1;
    }
    return n;
}

static int32_t plain_typical(struct plain *c, int32_t n, const struct sampling *p, bool *clear)
{
    double total = mass(c, n);
    around = 0;
    for (int32_t i = 0; i < n; i++) around += exp(c[i].z) * c[i].z / total;
    qsort(c, (size_t)n, sizeof *c, by_distance);
    int32_t m = until(c, n, (double)p->typical_p, total, clear);
    if (m < n && fabs(fabs(c[m - 1].z - around) - fabs(c[m].z - around)) < 1e-5) *clear = false;
    qsort(c, (size_t)m, sizeof *c, by_z);
    return m;
}

static int32_t plain_cut(struct plain *c, int32_t n, const struct sampling *p, int64_t position, bool *clear)
{
    if (p->top_k > 0) n = MIN(n, p->top_k);
    if (p->typical_p < 1) n = plain_typical(c, n, p, clear);
    if (p->top_p < 1) n = until(c, n, (double)p->top_p, mass(c, n), clear);
    for (; p->min_p > 0 && n > 1; n--) {
        double d = c[n - 1].z - c[0].z - log((double)p->min_p);
        if (fabs(d) < 1e-5) *clear = false;
        if (d >= 0) break;
    }
    float dice = rng_unit(rng_at(p->seed, (uint64_t)p->choice, (uint64_t)position, UINT64_MAX));
    if (p->xtc_threshold > 0.5f || dice >= p->xtc_probability) return n;
    double total = mass(c, n);
    int32_t above = 0;
    for (int32_t i = 0; i < n; i++) {
        double part = exp(c[i].z) / total;
        if (fabs(part - (double)p->xtc_threshold) < 1e-6) *clear = false;
        above += part >= (double)p->xtc_threshold;
    }
    if (above < 2) return n;
    memmove(c, c + above - 1, (size_t)(n - above + 1) * sizeof *c);
    return n - above + 1;
}

static double noise(const struct sampling *p, int64_t position, int32_t id)
{
    uint64_t bits = rng_at(p->seed, (uint64_t)p->choice, (uint64_t)position, (uint64_t)id);
    return -log(-log1p(-((double)(bits >> 32) + 0.5) * 0x1p-32));
}

static int32_t plain_pick(const float *logits, const struct sampling *p, const struct eng_history *h, int64_t position, bool *clear)
{
    static double x[N];
    static struct plain c[N];
    int32_t n = 0, id;
    double top = -INFINITY, second = -INFINITY;
    for (int32_t i = 0; i < N; i++) x[i] = (double)logits[i];
    plain_penalties(x, p, h);
    if (p->dry_multiplier > 0 && p->dry_last_n) plain_dry(x, p, h);
    plain_bars(x, p, h);
    for (int32_t i = 0; i < N; i++)
        if (x[i] > -INFINITY) c[n++] = (struct plain){x[i] / (p->temperature > 0 ? (double)p->temperature : 1), i, false};
    qsort(c, (size_t)n, sizeof *c, by_z);
    for (int32_t i = n - 1; i >= 0; i--) c[i].z -= c[0].z;
    *clear = true;
    id = c[0].id;
    if (p->temperature == 0) {
        if (n > 1 && c[1].z > -1e-5 && c[1].z < 0) *clear = false;
        return id;
    }
    n = plain_cut(c, n, p, position, clear);
    for (int32_t i = 0; i < n; i++) {
        double v = c[i].z + noise(p, position, c[i].id);
        if (v > top) second = top, top = v, id = c[i].id;
        else second = fmax(second, v);
    }
    if (top - second < 1e-4) *clear = false;
    return id;
}

static int32_t pick(struct eng_sampler *s, const float *logits, const struct sampling *p, const struct eng_history *h,
                    const uint64_t *allowed, int64_t position)
{
    static float row[N];
    struct result_token t;
    memcpy(row, logits, sizeof row);
    eng_sampler_pick(s, row, p, h, allowed, position, &t);
    return t.id;
}

/* ---- claims ---- */

static void everything_agrees_with_the_plain_sampler(void **state)
{
    (void)state;
    enum { ROUNDS = 6000 };
    static float x[N];
    static char breakers[] = "\1\n\2: ";
    int32_t unclear = 0;
    struct eng_sampler *s = eng_sampler_open(&krn_ref, N);
    eng_sampler_texts(s, (struct eng_token_texts){bytes, off, N});
    for (int32_t round = 0; round < ROUNDS; round++) {
        int32_t tokens[MOST], bad[] = {1, below(N), 2, below(4), below(N), 3, below(4), below(4), below(N)}, allowed[40];
        double width = 0.5 + 5 * unit();
        for (int32_t i = 0; i < N; i++) x[i] = (float)(width * normal());
        for (int32_t i = 0; i < MOST; i++) tokens[i] = below(below(3) ? 4 : N);
        for (int32_t i = 0; i < 40; i++) allowed[i] = below(N);
        struct eng_history h = {.tokens = tokens, .n = 1 + below(MOST)};
        h.n_prompt = below(h.n + 1);
        h.n_generated = h.n - h.n_prompt;
        struct sampling p = sampling_default();
        p.seed = rng_at(SEED, drawn++, 1, 1);
        p.temperature = below(8) ? (float)(0.3 + 1.5 * unit()) : 0;
        if (below(3) == 0) p.top_k = 1 + below(60);
        if (below(3) == 0) p.top_p = (float)(0.2 + 0.79 * unit());
        if (below(3) == 0) p.min_p = (float)(0.3 * unit());
        if (below(2)) p.typical_p = (float)(0.1 + 0.89 * unit());
        if (below(2)) p.xtc_probability = (float)unit(), p.xtc_threshold = (float)(0.2 * unit());
        if (below(3) == 0) p.repetition_penalty = 1.3f, p.frequency_penalty = 0.5f, p.penalty_last_n = below(40) - 1;
        if (below(2)) {
            p.dry_multiplier = (float)(3 * unit());
            p.dry_base = (float)(1 + unit());
            p.dry_allowed_length = below(4);
            p.dry_last_n = below(2) ? -1 : below(MOST);
            p.breakers = breakers;
            p.n_breakers = below(2) ? sizeof breakers - 1 : 0;
        }
        if (below(3) == 0) p.bad = bad, p.n_bad = COUNT_OF(bad);
        if (below(4) == 0) p.allowed = allowed, p.n_allowed = COUNT_OF(allowed);
        bool clear;
        int32_t want = plain_pick(x, &p, &h, round, &clear), got = pick(s, x, &p, &h, NULL, round);
        unclear += !clear;
        if (clear && got != want)
            fail_msg("round %d: id %d, expected %d (temperature %g, top_k %d, top_p %g, min_p %g, typical_p %g, xtc %g %g, dry %g)", round, got,
                     want, (double)p.temperature, p.top_k, (double)p.top_p, (double)p.min_p, (double)p.typical_p, (double)p.xtc_probability,
                     (double)p.xtc_threshold, (double)p.dry_multiplier);
    }
    printf("%d choices, %d too close to call\n", ROUNDS, unclear);
    assert_true(unclear < ROUNDS / 20);
    eng_sampler_close(s);
}

/* As llama.cpp's tests have it: after "a b c a b" the repetition would go on with c. */
static void dry_lowers_what_would_repeat(void **state)
{
    (void)state;
    static float x[N];
    struct eng_sampler *s = eng_sampler_open(&krn_ref, N);
    int32_t tokens[] = {1, 2, 4, 5, 1, 2, 4};
    struct eng_history h = {.tokens = tokens, .n = 7, .n_prompt = 4, .n_generated = 3};
    struct sampling p = sampling_default();
    eng_sampler_texts(s, (struct eng_token_texts){bytes, off, N});
    p.temperature = 0;
    p.dry_multiplier = 1;
    p.dry_base = 2;
    p.dry_allowed_length = 2;
    x[5] = 2.5f, x[6] = 1; /* the run 1 2 4 of three: 1 * 2^(3 - 2) = 2 off 5 */
    assert_int_equal(pick(s, x, &p, &h, NULL, 7), 6);
    p.dry_allowed_length = 3; /* 1 off */
    assert_int_equal(pick(s, x, &p, &h, NULL, 7), 5);
    p.dry_allowed_length = 4; /* nothing */
    assert_int_equal(pick(s, x, &p, &h, NULL, 7), 5);
    p.dry_allowed_length = 2;
    p.dry_last_n = 4; /* does not see the first time */
    assert_int_equal(pick(s, x, &p, &h, NULL, 7), 5);
    p.dry_last_n = -1;
    p.breakers = (char[]){2, 'c', '2'}; /* token 2 is "c2": the run is 4 alone */
    p.n_breakers = 3;
    assert_int_equal(pick(s, x, &p, &h, NULL, 7), 5);
    p.breakers = (char[]){3, '2', 'e', '4'}; /* across tokens 2 and 4: no run at all */
    p.n_breakers = 4;
    p.dry_allowed_length = 0;
    x[5] = 1.5f; /* a run of none costs 1 * 2^0 */
    assert_int_equal(pick(s, x, &p, &h, NULL, 7), 6);
    eng_sampler_close(s);
}

static void thoughts_end_with_their_budget(void **state)
{
    (void)state;
    static float x[N];
    struct eng_sampler *s = eng_sampler_open(&krn_ref, N);
    int32_t tokens[32] = {9, 9}, n = 2;
    struct sampling p = sampling_default();
    p.temperature = 0;
    p.think_budget = 3;
    p.n_think_open = 1, p.think_open[0] = 20;
    p.n_think_close = 2, p.think_close[0] = 21, p.think_close[1] = 22;
    const int32_t best[] = {20, 1, 2, 3, 4, 5, 6, 7}, want[] = {20, 1, 2, 3, 21, 22, 6, 7};
    for (int32_t i = 0; i < 8; i++, n++) {
        struct eng_history h = {.tokens = tokens, .n = n, .n_prompt = 2, .n_generated = n - 2};
        memset(x, 0, sizeof x);
        x[best[i]] = 5;
        tokens[n] = pick(s, x, &p, &h, NULL, n);
        assert_int_equal(tokens[n], want[i]);
    }
    /* begun by the prompt; the mark's first half came by itself */
    p.thinking = true;
    p.think_budget = 2;
    const int32_t own[] = {1, 21, 5, 6};
    const int32_t then[] = {1, 21, 22, 6};
    for (int32_t i = 0; i < 4; i++) {
        n = 2 + i;
        struct eng_history h = {.tokens = tokens, .n = n, .n_prompt = 2, .n_generated = i};
        memset(x, 0, sizeof x);
        x[own[i]] = 5;
        tokens[n] = pick(s, x, &p, &h, NULL, n);
        assert_int_equal(tokens[n], then[i]);
    }
    /* what bars the mark does not bar its end; a grammar that has no place for it does */
    int32_t bad[] = {1, 21};
    uint64_t mask[N / 64 + 1] = {1ull << 6};
    struct eng_history h = {.tokens = (int32_t[]){9, 1, 1}, .n = 3, .n_prompt = 1, .n_generated = 2};
    p.bad = bad, p.n_bad = 2;
    assert_int_equal(pick(s, x, &p, &h, NULL, 3), 21);
    assert_int_equal(pick(s, x, &p, &h, mask, 3), 6);
    eng_sampler_close(s);
}

static void where_nothing_is_left_the_grammar_decides(void **state)
{
    (void)state;
    static float x[N];
    struct eng_sampler *s = eng_sampler_open(&krn_ref, N);
    struct sampling p = sampling_default();
    struct eng_history h = {0};
    uint64_t mask[N / 64 + 1] = {0};
    int32_t allowed[] = {7, 8};
    mask[1] = 3; /* 64, 65 */
    p.allowed = allowed, p.n_allowed = 2;
    for (int32_t hot = 0; hot < 2; hot++) {
        p.temperature = (float)hot;
        assert_int_equal(pick(s, x, &p, &h, mask, 0), 64);
        assert_true(pick(s, x, &p, &h, NULL, 0) == 7 || pick(s, x, &p, &h, NULL, 0) == 8);
    }
    eng_sampler_close(s);
}

static void scores_have_logprob_rank_and_the_best(void **state)
{
    (void)state;
    static float x[N];
    struct eng_sampler *s = eng_sampler_open(&krn_ref, N);
    struct result_logprob top[3];
    struct result_score r;
    double sum = 0;
    for (int32_t i = 0; i < N; i++) x[i] = (float)normal();
    x[9] = x[4] = 5, x[200] = 6;
    for (int32_t i = 0; i < N; i++) sum += exp((double)x[i]);
    eng_sampler_score(s, x, 9, 3, top, &r);
    assert_true(r.id == 9 && r.rank == 3 && r.n_top == 3 && r.top == top);
    assert_true(fabs((double)r.logprob - (5 - log(sum))) < 1e-5);
    assert_true(top[0].id == 200 && top[1].id == 4 && top[2].id == 9 && top[2].logprob == r.logprob);
    eng_sampler_score(s, x, 200, 0, NULL, &r);
    assert_true(r.rank == 1 && r.n_top == 0);
    eng_sampler_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_agrees_with_the_plain_sampler), cmocka_unit_test(dry_lowers_what_would_repeat),
        cmocka_unit_test(thoughts_end_with_their_budget),           cmocka_unit_test(where_nothing_is_left_the_grammar_decides),
        cmocka_unit_test(scores_have_logprob_rank_and_the_best),
    };
    write_texts();
    return cmocka_run_group_tests_name("sampler, the rest", tests, NULL, NULL);
}
