/* Groups of layers: every layer has a place of its own, the shapes of known models waste little, and what a pool is said to hold, it
 * holds. */
#include "base/base.h"
#include "proto/kv_groups.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { T = LIMIT_BLOCK_TOKENS };

static uint32_t seed = 7;
static int32_t draw(int32_t from, int32_t to)
{
    seed = seed * 1664525u + 1013904223u;
    return from + (int32_t)((uint64_t)(seed >> 8) % (uint64_t)(to - from + 1));
}

/* `of` layers, of which every period-th sees everything; period 0: none does, 1: all do. */
static void pattern(bool w[LIMIT_LAYERS], int32_t n, int32_t period)
{
    for (int32_t l = 0; l < n; l++) w[l] = !period || l % period != period - 1;
}

static void known_models_fall_into_few_groups(void **state)
{
    static const struct {
        const char *what;
        int32_t layers, period, window, n, n_full, planes;
    } models[] = {
        {"Llama", 32, 1, 0, 1, 1, 32},          {"Gemma 2 9B", 42, 2, 4096, 2, 1, 21},
        {"Gemma 3 4B", 34, 6, 1024, 7, 1, 5},   {"Gemma 3 12B", 48, 6, 1024, 6, 1, 8},
        {"Gemma 3 27B", 62, 6, 1024, 7, 1, 10}, {"gpt-oss 20B", 24, 2, 128, 2, 1, 12},
        {"Command R7B", 32, 4, 4096, 4, 1, 8},  {"Mistral 7B 0.1", 32, 0, 4096, 1, 0, 32},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(models); i++) {
        bool w[LIMIT_LAYERS];
        pattern(w, models[i].layers, models[i].period);
        struct kv_groups k = kv_groups_of_layers(w, models[i].layers, models[i].window, 32768);
        if (k.n != models[i].n || k.n_full != models[i].n_full || kv_groups_planes(&k, w, 0, models[i].layers) != models[i].planes)
            fail_msg("%s: %d groups (%d full) of %d planes", models[i].what, k.n, k.n_full, kv_groups_planes(&k, w, 0, models[i].layers));
        k = kv_groups_of_layers(w, models[i].layers, models[i].window, MAX(models[i].window, 16)); /* no text is longer */
        assert_true(k.n == 1 && k.n_full == 1 && k.window == 0);
    }
}

/* On every stage, whatever the pattern: no two layers share a plane of a group. */
static void every_layer_has_a_place_of_its_own(void **state)
{
    (void)state;
    for (int32_t round = 0; round < 2000; round++) {
        bool w[LIMIT_LAYERS], taken[LIMIT_GROUPS][LIMIT_LAYERS] = {{false}};
        int32_t n = draw(1, 80), a = draw(0, n - 1), b = draw(a + 1, n);
        for (int32_t l = 0, odds = draw(0, 10); l < n; l++) w[l] = draw(1, 10) <= odds;
        struct kv_groups k = kv_groups_of_layers(w, n, 20, 1000);
        int32_t planes = kv_groups_planes(&k, w, a, b);
        assert_in_range(k.n, 1, LIMIT_GROUPS);
        for (int32_t l = a; l < b; l++) {
            int32_t g, p;
            kv_groups_place(&k, w, a, b, l, &g, &p);
            assert_in_range(g, 0, k.n - 1);
            assert_in_range(p, 0, planes - 1);
            assert_false(taken[g][p]);
            taken[g][p] = true;
            assert_int_equal(g >= k.n_full, k.window && w[l]);
        }
    }
}

/* Written plainly: which rows does a position at a block's beginning read? */
static void a_window_begins_in_the_row_of_its_first_key(void **state)
{
    (void)state;
    for (int32_t window = 1; window < 100; window++) {
        struct kv_groups k = kv_groups_of(1, 1, window);
        for (int32_t i = 0; i < 40; i++) {
            int32_t key = i * T - window + 1;
            assert_int_equal(kv_groups_first(&k, i), key < 0 ? 0 : key / T);
            assert_true(i - kv_groups_first(&k, i) + 1 <= kv_groups_kept(&k)); /* and its own row */
        }
    }
}

static void a_pool_holds_what_it_says(void **state)
{
    (void)state;
    for (int32_t round = 0; round < 5000; round++) {
        struct kv_groups k = kv_groups_of(draw(0, 3), draw(0, 9) + (round % 7 == 0), draw(1, 300));
        if (round % 7) k = kv_groups_of(draw(1, 3), draw(0, 9), draw(1, 300));
        int32_t context = draw(1, 2000), step = draw(1, 600);
        int64_t n = draw(1, 5000), longest = kv_groups_longest(&k, n);
        assert_true(kv_groups_need(&k, longest) <= n);
        if (longest < INT32_MAX) assert_true(kv_groups_need(&k, longest + 1) > n);
        int64_t tokens = kv_groups_room(&k, n, context, step);
        if (tokens >= context) assert_true(kv_groups_hold(&k, tokens / context * context, context, step) <= n);
        assert_true(kv_groups_room(&k, kv_groups_hold(&k, (int64_t)context * 3, context, step), context, step) >= (int64_t)context * 3);
        if (k.window) continue;
        assert_int_equal(tokens, n * T); /* as it was without groups */
        assert_int_equal(kv_groups_hold(&k, n, context, step), DIV_UP(n, T));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_models_fall_into_few_groups),
        cmocka_unit_test(every_layer_has_a_place_of_its_own),
        cmocka_unit_test(a_window_begins_in_the_row_of_its_first_key),
        cmocka_unit_test(a_pool_holds_what_it_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
