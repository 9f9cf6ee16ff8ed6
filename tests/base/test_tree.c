/* test_tree.c: the maximal subtrees of a range are what base/tree.h promises, for every tree up to
 * 130 leaves. */
#include "base/tree.h"

#include "base/base.h"
#include "base/clock.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Is [a,b) a node of tree(n)? */
static int is_node(int32_t n, int32_t a, int32_t b)
{
    int32_t lo = 0, hi = n;
    while (hi - lo > 1 && (lo != a || hi != b)) {
        int32_t m = tree_split(lo, hi);
        if (b <= m)
            hi = m;
        else if (a >= m)
            lo = m;
        else
            return 0;
    }
    return lo == a && hi == b;
}

static void maximal_subtrees_cover_the_range_in_order(void **state)
{
    (void)state;
    for (int32_t n = 1; n <= 130; n++)
        for (int32_t lo = 0; lo <= n; lo++)
            for (int32_t hi = lo; hi <= n; hi++) {
                struct tree_node nodes[TREE_MAX_NODES];
                int32_t k = tree_maximal(n, lo, hi, nodes), at = lo;
                for (int32_t i = 0; i < k; at = nodes[i++].b)
                    if (nodes[i].a != at || !is_node(n, nodes[i].a, nodes[i].b))
                        fail_msg("n %d [%d,%d)", n, lo, hi);
                if (at != hi) fail_msg("n %d [%d,%d): covered up to %d", n, lo, hi, at);
            }
}

/* No larger node fits: the parent of each node reaches out of the range. */
static void maximal_subtrees_are_maximal(void **state)
{
    (void)state;
    for (int32_t n = 1; n <= 130; n++)
        for (int32_t lo = 0; lo < n; lo++)
            for (int32_t hi = lo + 1; hi <= n; hi++) {
                struct tree_node x[TREE_MAX_NODES];
                int32_t k = tree_maximal(n, lo, hi, x);
                for (int32_t i = 0; i + 1 < k; i++)
                    if (is_node(n, x[i].a, x[i + 1].b))
                        fail_msg("n %d [%d,%d): nodes %d and %d are one", n, lo, hi, i, i + 1);
            }
}

static void aligned_ranges_are_one_node(void **state)
{
    (void)state;
    struct tree_node x[TREE_MAX_NODES];
    for (int32_t n = 8; n <= 1024; n *= 2)
        for (int32_t parts = 1; parts <= 8; parts *= 2)
            for (int32_t r = 0; r < parts; r++)
                assert_int_equal(tree_maximal(n, n / parts * r, n / parts * (r + 1), x), 1);
}

static void empty_ranges_have_no_nodes(void **state)
{
    (void)state;
    struct tree_node x[TREE_MAX_NODES];
    assert_int_equal(tree_maximal(16, 5, 5, x), 0);
    assert_int_equal(tree_maximal(16, 7, 3, x), 0);
    assert_int_equal(tree_maximal(1, 0, 1, x), 1);
}

static void node_count_stays_within_the_bound(void **state)
{
    (void)state;
    int32_t most = 0;
    struct tree_node x[TREE_MAX_NODES];
    for (int32_t n = TREE_MAX_LEAF - 3; n <= TREE_MAX_LEAF; n++)
        for (int32_t lo = 0; lo < n; lo += 1 + lo / 8)
            for (int32_t hi = n; hi > lo; hi -= 1 + (n - hi) / 8)
                most = MAX(most, tree_maximal(n, lo, hi, x));
    assert_in_range(most, 10, TREE_MAX_NODES);
}

static float leaf(uint64_t seed, int32_t i)
{
    return rng_unit(rng_at(seed, (uint64_t)i, 0, 0)) * (float)(1 << (i % 13));
}

static float sum(uint64_t seed, int32_t a, int32_t b)
{
    return b - a == 1 ? leaf(seed, a)
                      : sum(seed, a, tree_split(a, b)) + sum(seed, tree_split(a, b), b);
}

/* The rest of the tree over given parts: [a,b) is the next part, or two halves. */
static float merge(const struct tree_node *parts, const float *v, int32_t *next, int32_t a,
                   int32_t b)
{
    if (parts[*next].a == a && parts[*next].b == b) return v[(*next)++];
    float l = merge(parts, v, next, a, tree_split(a, b));
    return l + merge(parts, v, next, tree_split(a, b), b);
}

static void merging_any_cut_gives_the_bits_of_the_whole(void **state)
{
    uint64_t seed = (uint64_t)clock_us();
    (void)state;
    printf("seed %llu\n", (unsigned long long)seed);
    for (int32_t n = 1; n <= 130; n++)
        for (uint64_t k = 0; k < 20; k++) {
            struct tree_node parts[130 + TREE_MAX_NODES];
            float v[COUNT_OF(parts)], whole = sum(seed, 0, n);
            int32_t n_parts = 0, next = 0;
            for (int32_t lo = 0, i = 0; lo < n; i++) {
                int32_t hi = MIN(
                    n, lo + 1 + (int32_t)(rng_at(seed, k, (uint64_t)n, (uint64_t)i) % (uint64_t)n));
                n_parts += tree_maximal(n, lo, hi, parts + n_parts);
                lo = hi;
            }
            for (int32_t i = 0; i < n_parts; i++) v[i] = sum(seed, parts[i].a, parts[i].b);
            float merged = merge(parts, v, &next, 0, n);
            assert_memory_equal(&merged, &whole, sizeof whole);
            assert_int_equal(next, n_parts);
        }
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(maximal_subtrees_cover_the_range_in_order),
        cmocka_unit_test(maximal_subtrees_are_maximal),
        cmocka_unit_test(aligned_ranges_are_one_node),
        cmocka_unit_test(empty_ranges_have_no_nodes),
        cmocka_unit_test(node_count_stays_within_the_bound),
        cmocka_unit_test(merging_any_cut_gives_the_bits_of_the_whole),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("tree", tests, NULL, NULL);
}
