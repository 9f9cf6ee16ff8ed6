/* The sampler against a second one written plainly in double: whole sort, whole sums, no thresholds. Noise is the only thing they share. */
#include "base/rng.h"
#include "engine/sample/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { SEED = 20240607, BIG = 128256 };

static const struct eng_history no_history;

/* ---- random inputs ---- */

static uint64_t drawn;
static double unit(void) { return (double)(rng_at(SEED, drawn++, 0, 0) >> 11) * 0x1p-53; }
static int32_t below(int32_t n) { return (int32_t)(unit() * n); }
static double normal(void) { return sqrt(-2 * log(unit() + 1e-300)) * cos(2 * M_PI * unit()); }

static float *bell(int32_t n, double deviation)
{
    float *x = xmalloc((size_t)n * sizeof *x);
    for (int32_t i = 0; i < n; i++) x[i] = (float)(deviation * normal());
    return x;
}

/* ---- the other sampler ---- */

struct choice { double z; int32_t id; };

static int best_first(const void *a, const void *b)
{
    const struct choice *x = a, *y = b;
    return x->z != y->z ? (x->z > y->z ? -1 : 1) : (x->id > y->id) - (x->id < y->id);
}

static void plain_penalties(double *x, int32_t n, const struct sampling *p, const struct eng_history *h)
{
    for (int32_t t = 0; t < n; t++) {
        int32_t seen = 0, made = 0;
        for (int32_t i = 0; i < h->n; i++) seen += h->tokens[i] == t, made += h->tokens[i] == t && i >= h->n_prompt;
        if (seen) x[t] = x[t] > 0 ? x[t] / (double)p->repetition_penalty : x[t] * (double)p->repetition_penalty;
        if (made) x[t] -= (double)p->presence_penalty + (double)p->frequency_penalty * made;
    }
}

/* Everything before the choice, in double; best first. */
static struct choice *plain_order(const float *logits, int32_t n, const struct sampling *p, const struct eng_history *h)
{
    double *x = xmalloc((size_t)n * sizeof *x);
    struct choice *c = xmalloc((size_t)n * sizeof *c);
    for (int32_t i = 0; i < n; i++) x[i] = (double)logits[i];
    if (sampling_needs_history(p)) plain_penalties(x, n, p, h);
    for (int32_t i = 0; i < p->n_bias; i++) x[p->bias[i].id] += (double)p->bias[i].bias;
    for (int32_t i = 0; i < p->n_stop_ids && h->n_generated < p->min_tokens; i++) x[p->stop_ids[i]] = -INFINITY;
    for (int32_t i = 0; i < n; i++) c[i] = (struct choice){p->temperature > 0 ? x[i] / (double)p->temperature : x[i], i};
    qsort(c, (size_t)n, sizeof *c, best_first);
    free(x);
    return c;
}

/* How many of the ordered candidates may be drawn. *clear is false when rounding could move the border. */
static int32_t plain_survivors(const struct choice *c, int32_t n, const struct sampling *p, bool *clear)
{
    int32_t k = p->top_k > 0 ? MIN(p->top_k, n) : n, m = k, least = k;
    double total = 0, sum = 0;
    if (k < n && c[k - 1].z - c[k].z < 1e-5 && c[k - 1].z != c[k].z) *clear = false;
    for (int32_t i = 0; i < k; i++) total += exp(c[i].z - c[0].z);
    for (int32_t i = 0; i < k && p->top_p < 1; i++) {
        sum += exp(c[i].z - c[0].z);
        if (fabs(sum - (double)p->top_p * total) < 5e-7 * total) *clear = false;
        if (sum < (double)p->top_p * total) continue;
        m = i + 1;
        break;
    }
    for (int32_t i = k - 1; i > 0 && p->min_p > 0; i--) {
        if (fabs(c[i].z - c[0].z - log((double)p->min_p)) < 1e-5) *clear = false;
        if (c[i].z - c[0].z < log((double)p->min_p)) least = i;
    }
    return MIN(m, least);
}

static double plain_noise(const struct sampling *p, int64_t position, int32_t id)
{
    uint64_t bits = rng_at(p->seed, (uint64_t)p->choice, (uint64_t)position, (uint64_t)id);
    return -log(-log1p(-((double)(bits >> 32) + 0.5) * 0x1p-32));
}

/* The token, and whether no rounding could have made it another. */
static int32_t plain_pick(const float *logits, int32_t n, const struct sampling *p, const struct eng_history *h, int64_t position,
                          bool *clear)
{
    struct choice *c = plain_order(logits, n, p, h);
    double top = -INFINITY, second = -INFINITY;
    int32_t id = c[0].id;
    *clear = true;
    if (p->temperature == 0) {
        if (n > 1 && c[0].z != c[1].z && c[0].z - c[1].z < 1e-5) *clear = false;
    } else {
        int32_t m = plain_survivors(c, n, p, clear);
        for (int32_t i = 0; i < m; i++) {
            double v = c[i].z + plain_noise(p, position, c[i].id);
            if (v > top) second = top, top = v, id = c[i].id;
            else second = fmax(second, v);
        }
        if (top - second < 1e-4) *clear = false;
    }
    free(c);
    return id;
}

static int32_t pick(struct eng_sampler *s, const float *logits, int32_t n, const struct sampling *p, const struct eng_history *h,
                    int64_t position, struct result_token *out)
{
    static float row[BIG];
    struct result_token t;
    memcpy(row, logits, (size_t)n * sizeof *row);
    eng_sampler_pick(s, row, p, h, NULL, position, out ? out : &t);
    return out ? out->id : t.id;
}

static void same_as_plain(struct eng_sampler *s, const float *x, int32_t n, const struct sampling *p, const struct eng_history *h,
                          int64_t position, int32_t *n_unclear)
{
    bool clear;
    int32_t want = plain_pick(x, n, p, h, position, &clear), got = pick(s, x, n, p, h, position, NULL);
    *n_unclear += !clear;
    if (clear && got != want)
        fail_msg("position %lld: id %d, expected %d (temperature %g, top_k %d, top_p %g, min_p %g, %d tokens)", (long long)position, got,
                 want, (double)p->temperature, p->top_k, (double)p->top_p, (double)p->min_p, n);
}

/* ---- claims ---- */

static void greedy_ties_go_to_the_lowest_id(void **state)
{
    (void)state;
    enum { N = 100 };
    float x[N];
    struct sampling p = sampling_default();
    struct eng_sampler *s = eng_sampler_open(&krn_ref, N);
    p.temperature = 0;
    for (int32_t first = 0; first < N - 1; first++) {
        for (int32_t i = 0; i < N; i++) x[i] = i < first ? -1 : i % 3 == first % 3 ? 2.5f : 2;
        assert_int_equal(pick(s, x, N, &p, &no_history, 7, NULL), first);
    }
    for (int32_t i = 0; i < N; i++) x[i] = -INFINITY;
    x[61] = -1e30f;
    assert_int_equal(pick(s, x, N, &p, &no_history, 0, NULL), 61);
    eng_sampler_close(s);
}

static struct sampling random_sampling(int32_t n)
{
    struct sampling p = sampling_default();
    p.seed = rng_at(SEED, 1, drawn, 0);
    p.choice = below(3);
    p.temperature = (float)(0.3 + 1.5 * unit());
    if (below(2)) p.top_p = (float)(0.05 + 0.95 * unit());
    if (below(2)) p.top_k = 1 + below(below(2) ? 20 : n + 10);
    if (below(3) == 0) p.min_p = (float)pow(10, -4 * unit());
    return p;
}

/* Every survivor is drawn sooner or later, and nothing else ever. */
static void top_k_top_p_and_min_p_keep_exactly_the_right_sets(void **state)
{
    (void)state;
    enum { N = 40, DRAWS = 3000 };
    struct eng_sampler *s = eng_sampler_open(&krn_ref, N);
    int32_t n_small = 0;
    for (int32_t round = 0; round < 80; round++) {
        float x[N];
        bool drawn_set[N] = {0}, clear = true;
        struct sampling p = random_sampling(N);
        p.temperature = 1;
        for (int32_t i = 0; i < N; i++) x[i] = 0.25f * (float)below(9); /* many ties; nobody is below 1/300 */
        struct choice *c = plain_order(x, N, &p, &no_history);
        int32_t m = plain_survivors(c, N, &p, &clear);
        for (int32_t i = 0; i < DRAWS; i++) drawn_set[pick(s, x, N, &p, &no_history, i, NULL)] = true;
        for (int32_t i = 0; i < N && clear; i++)
            if (drawn_set[c[i].id] != (i < m))
                fail_msg("round %d: id %d, number %d of %d survivors, was %sdrawn (top_k %d, top_p %g, min_p %g)", round, c[i].id, i, m,
                         drawn_set[c[i].id] ? "" : "never ", p.top_k, (double)p.top_p, (double)p.min_p);
        n_small += m < N;
        free(c);
    }
    assert_in_range(n_small, 40, 80);
    eng_sampler_close(s);
}

static void draws_are_distributed_as_the_softmax(void **state)
{
    (void)state;
    enum { N = 48, DRAWS = 200000 };
    struct eng_sampler *s = eng_sampler_open(&krn_ref, N);
    for (uint64_t seed = 1; seed <= 2; seed++) {
        float *x = bell(N, 1.2);
        int32_t count[N] = {0};
        double total = 0, chi2 = 0;
        struct sampling p = sampling_default();
        p.seed = seed;
        p.temperature = 0.8f;
        for (int32_t i = 0; i < DRAWS; i++) {
            p.choice = i % 4;
            count[pick(s, x, N, &p, &no_history, i / 4, NULL)]++;
        }
        for (int32_t i = 0; i < N; i++) total += exp((double)x[i] / (double)p.temperature);
        for (int32_t i = 0; i < N; i++) {
            double want = DRAWS * exp((double)x[i] / (double)p.temperature) / total;
            chi2 += (count[i] - want) * (count[i] - want) / want;
        }
        printf("seed %llu: chi-square %.1f, expected %d +- %.1f\n", (unsigned long long)seed, chi2, N - 1, sqrt(2.0 * (N - 1)));
        if (chi2 > N - 1 + 4 * sqrt(2.0 * (N - 1)) || chi2 < N - 1 - 4 * sqrt(2.0 * (N - 1))) fail_msg("the draws are not the softmax's");
        free(x);
    }
    eng_sampler_close(s);
}

/* The noise at its ends: the smallest and the largest draw are finite and on the right side. */
static void extreme_noise_is_ordered(void **state)
{
    (void)state;
    assert_true(rng_unit(0) > 0);
    assert_true(rng_unit(UINT64_MAX) < 1);
    float u = rng_unit(UINT64_MAX);
    assert_true(isfinite(-krn_log(-krn_log(u))) && -krn_log(-krn_log(u)) > 10);
}

static void all_parameters_together_agree_with_the_plain_sampler(void **state)
{
    (void)state;
    enum { N = 500, ROUNDS = 3000 };
    struct eng_sampler *s = eng_sampler_open(&krn_ref, N);
    int32_t unclear = 0;
    for (int32_t round = 0; round < ROUNDS; round++) {
        float *x = bell(N, 0.5 + 5 * unit());
        struct logit_bias bias[3];
        int32_t tokens[60];
        struct eng_history h = {.tokens = tokens, .n = below(60)};
        struct sampling p = random_sampling(N);
        for (int32_t i = 0; i < 60; i++) tokens[i] = below(below(2) ? 8 : N);
        h.n_prompt = below(h.n + 1);
        h.n_generated = h.n - h.n_prompt;
        if (below(4) == 0) p.temperature = 0;
        if (below(2)) p.repetition_penalty = (float)(0.7 + 0.9 * unit());
        if (below(2)) p.presence_penalty = (float)(4 * unit() - 2);
        if (below(2)) p.frequency_penalty = (float)(4 * unit() - 2);
        for (int32_t i = 0; i < 3; i++) bias[i] = (struct logit_bias){below(N), (float)(20 * unit() - 10)};
        p.bias = bias;
        p.n_bias = below(4);
        p.min_tokens = below(40);
        p.n_stop_ids = below(4);
        for (int32_t i = 0; i < p.n_stop_ids; i++) p.stop_ids[i] = below(N);
        same_as_plain(s, x, N, &p, &h, round, &unclear);
        free(x);
    }
    printf("%d choices, %d too close to call\n", ROUNDS, unclear);
    assert_true(unclear < ROUNDS / 50);
    eng_sampler_close(s);
}

static void a_large_vocabulary_agrees_with_the_plain_sampler(void **state)
{
    (void)state;
    enum { ROUNDS = 4 };
    /* equal: coarser noise would tie, and the lowest id win too often */
    static const struct { const char *what; double deviation, peak; } shapes[] = {
        {"peaked", 2.5, 18}, {"flat", 0.02, 0}, {"equal", 0, 0}, {"bell", 3, 0}};
    const struct krn_table *best;
    assert_int_equal(krn_table_pick("auto", &best), OK);
    struct eng_sampler *s = eng_sampler_open(best, BIG);
    int32_t unclear = 0, n = 0;
    for (size_t k = 0; k < COUNT_OF(shapes); k++) {
        float *x = bell(BIG, shapes[k].deviation);
        for (int32_t i = 0; i < 30 && shapes[k].peak > 0; i++) x[below(BIG)] = (float)(shapes[k].peak - 0.3 * i);
        for (int32_t round = 0; round < ROUNDS; round++, n++) {
            struct sampling p = random_sampling(BIG);
            if (round == 0) p.top_k = 0, p.top_p = 1, p.min_p = 0;
            if (round == 1) p.top_k = 40, p.top_p = 0.95f;
            if (round == 2) p.top_k = 0, p.top_p = 0.9f;
            same_as_plain(s, x, BIG, &p, &no_history, 1000 + n, &unclear);
        }
        free(x);
    }
    printf("%d choices, %d too close to call\n", n, unclear);
    assert_in_range(unclear, 0, 3);
    eng_sampler_close(s);
}

static void penalties_count_what_they_say(void **state)
{
    (void)state;
    struct eng_sampler *s = eng_sampler_open(&krn_ref, 4);
    static const int32_t tokens[] = {0, 0, 1, 1, 1, 2};
    struct eng_history h = {.tokens = tokens, .n = 6, .n_prompt = 2, .n_generated = 4};
    struct sampling p = sampling_default();
    p.temperature = 0;
    p.presence_penalty = 1; /* not on 0, which stands in the prompt only */
    assert_int_equal(pick(s, (float[]){1, 1.9f, 1.9f, 0}, 4, &p, &h, 6, NULL), 0);
    assert_int_equal(pick(s, (float[]){1, 2.1f, 2.05f, 0}, 4, &p, &h, 6, NULL), 1);
    p.presence_penalty = 0;
    p.frequency_penalty = 0.5f; /* thrice on 1, once on 2 */
    assert_int_equal(pick(s, (float[]){0, 2.4f, 1.5f, 0}, 4, &p, &h, 6, NULL), 2);
    assert_int_equal(pick(s, (float[]){0, 2.6f, 1.5f, 0}, 4, &p, &h, 6, NULL), 1);
    p.frequency_penalty = 0;
    p.repetition_penalty = 2; /* once, prompt included; away from zero when negative */
    assert_int_equal(pick(s, (float[]){2, 1.5f, 0, 1.01f}, 4, &p, &h, 6, NULL), 3);
    assert_int_equal(pick(s, (float[]){-1, -1, -1, -1.9f}, 4, &p, &h, 6, NULL), 3);
    assert_int_equal(pick(s, (float[]){-1, -1, -1, -2.1f}, 4, &p, &h, 6, NULL), 0);
    eng_sampler_close(s);
}

static void stop_ids_are_barred_until_min_tokens(void **state)
{
    (void)state;
    struct eng_sampler *s = eng_sampler_open(&krn_ref, 8);
    const float x[8] = {0, 9, 1, 8, 2, 7, 3, 4};
    struct sampling p = sampling_default();
    p.n_stop_ids = 2;
    p.stop_ids[0] = 1, p.stop_ids[1] = 3;
    p.min_tokens = 5;
    for (int32_t greedy = 0; greedy < 2; greedy++)
        for (int32_t n = 0; n < 8; n++) {
            struct eng_history h = {.n_generated = n};
            p.temperature = greedy ? 0 : 0.01f;
            assert_int_equal(pick(s, x, 8, &p, &h, n, NULL), n < 5 ? 5 : 1);
            assert_int_equal(eng_sampler_plain_greedy(&p, &h), greedy && n >= 5);
        }
    eng_sampler_close(s);
}

static void bias_decides(void **state)
{
    (void)state;
    struct eng_sampler *s = eng_sampler_open(&krn_ref, 8);
    const float x[8] = {0, 9, 1, 8, 2, 7, 3, 4};
    struct logit_bias bias[] = {{1, -100}, {6, 100}, {99, 100}, {-1, 100}}; /* ids outside the vocabulary are nobody's */
    struct sampling p = sampling_default();
    p.bias = bias;
    for (int32_t i = 0; i < 50; i++) {
        p.n_bias = 4;
        assert_int_equal(pick(s, x, 8, &p, &no_history, i, NULL), 6);
        p.n_bias = 1;
        assert_int_not_equal(pick(s, x, 8, &p, &no_history, i, NULL), 1);
    }
    eng_sampler_close(s);
}

static void any_temperature_is_safe(void **state)
{
    (void)state;
    enum { N = 32 };
    static const float temperatures[] = {1e-42f, 1e-30f, 1e-6f, 1, 1e6f, 3e38f};
    struct eng_sampler *s = eng_sampler_open(&krn_ref, N);
    float x[N];
    struct sampling p = sampling_default();
    for (size_t t = 0; t < COUNT_OF(temperatures); t++)
        for (int32_t k = 0; k < 4; k++) {
            for (int32_t i = 0; i < N; i++) x[i] = (float)(-1e4 * unit() - 10);
            x[17] = -5;
            p.temperature = temperatures[t];
            p.top_k = k & 1 ? 5 : 0;
            p.top_p = k & 2 ? 0.9f : 1;
            int32_t id = pick(s, x, N, &p, &no_history, 3, NULL);
            assert_in_range(id, 0, N - 1);
            if (p.temperature <= 1) assert_int_equal(id, 17); /* the next is five logits or more behind */
        }
    for (int32_t i = 0; i < N; i++) x[i] = NAN;
    assert_in_range(pick(s, x, N, &p, &no_history, 3, NULL), 0, N - 1);
    eng_sampler_close(s);
}

static void check_logprobs(struct eng_sampler *s, const float *x, int32_t n, int32_t n_logprobs, bool greedy)
{
    struct sampling p = sampling_default();
    struct result_token t;
    p.n_logprobs = n_logprobs;
    p.temperature = greedy ? 0 : 1.7f;
    p.frequency_penalty = 2; /* logprobs are of the raw logits */
    struct eng_history h = {.tokens = (int32_t[]){0, 1, 2, 0}, .n = 4, .n_prompt = 1, .n_generated = 3};
    struct sampling plain = sampling_default();
    struct choice *c = plain_order(x, n, &plain, &no_history);
    double total = 0;
    for (int32_t i = n - 1; i >= 0; i--) total += exp(c[i].z - c[0].z);
    double lse = c[0].z + log(total);
    pick(s, x, n, &p, &h, 4, &t);
    assert_true(fabs((double)t.logprob - ((double)x[t.id] - lse)) < 1e-5);
    assert_int_equal(t.n_top, MIN(n_logprobs, n));
    for (int32_t i = 0; i < t.n_top; i++) {
        assert_int_equal(t.top[i].id, c[i].id);
        if (fabs((double)t.top[i].logprob - (c[i].z - lse)) >= 1e-5)
            fail_msg("logprob %d of %d is %.8f, in double %.8f", i, n, (double)t.top[i].logprob, c[i].z - lse);
        if (t.top[i].id == t.id) assert_memory_equal(&t.top[i].logprob, &t.logprob, sizeof t.logprob);
    }
    free(c);
}

static void logprobs_agree_with_double_and_ties_go_by_id(void **state)
{
    (void)state;
    static const int32_t sizes[] = {1, 5, 300, 2049, BIG};
    for (size_t k = 0; k < COUNT_OF(sizes); k++) {
        int32_t n = sizes[k];
        struct eng_sampler *s = eng_sampler_open(&krn_ref, n);
        float *x = bell(n, 4);
        for (int32_t i = 0; i <= 20; i += 5) check_logprobs(s, x, n, i, i % 2);
        for (int32_t i = 0; i < n; i++) x[i] = (float)((i * 7) % 3); /* thirds that tie */
        check_logprobs(s, x, n, 20, false);
        for (int32_t i = 0; i < n; i++) x[i] = i % 4 == 1 ? -INFINITY : (float)(-i % 50000); /* a steep slope with holes */
        if (n > 80) check_logprobs(s, x, n, 20, true);
        free(x);
        eng_sampler_close(s);
    }
}

static void every_kernel_table_gives_the_same_bytes(void **state)
{
    (void)state;
    enum { N = 5001, ROUNDS = 200 };
    const struct krn_table *tables[8];
    int32_t n_tables = krn_table_all(tables, 8);
    struct eng_sampler *s[8];
    for (int32_t t = 0; t < n_tables; t++) s[t] = eng_sampler_open(tables[t], N);
    for (int32_t round = 0; round < ROUNDS; round++) {
        float *x = bell(N, 0.1 + 4 * unit());
        struct sampling p = random_sampling(N);
        struct result_token first, other;
        p.n_logprobs = below(21);
        if (round % 5 == 0) p.temperature = 0;
        for (int32_t i = 0; i < 40; i++) x[below(N)] = -INFINITY;
        pick(s[0], x, N, &p, &no_history, round, &first);
        for (int32_t t = 1; t < n_tables; t++) {
            pick(s[t], x, N, &p, &no_history, round, &other);
            if (memcmp(&first, &other, sizeof first)) fail_msg("round %d: %s differs from %s", round, tables[t]->name, tables[0]->name);
        }
        free(x);
    }
    for (int32_t t = 0; t < n_tables; t++) {
        printf("%s ", tables[t]->name);
        eng_sampler_close(s[t]);
    }
    printf("agree\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_ties_go_to_the_lowest_id),
        cmocka_unit_test(top_k_top_p_and_min_p_keep_exactly_the_right_sets),
        cmocka_unit_test(draws_are_distributed_as_the_softmax),
        cmocka_unit_test(extreme_noise_is_ordered),
        cmocka_unit_test(all_parameters_together_agree_with_the_plain_sampler),
        cmocka_unit_test(a_large_vocabulary_agrees_with_the_plain_sampler),
        cmocka_unit_test(penalties_count_what_they_say),
        cmocka_unit_test(stop_ids_are_barred_until_min_tokens),
        cmocka_unit_test(bias_decides),
        cmocka_unit_test(any_temperature_is_safe),
        cmocka_unit_test(logprobs_agree_with_double_and_ties_go_by_id),
        cmocka_unit_test(every_kernel_table_gives_the_same_bytes),
    };
    printf("seed %d\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
