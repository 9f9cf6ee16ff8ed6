/* The parts of the scheduler by themselves: blocks, prefix tree, heap, fairness. */
#include "base/rng.h"
#include "coordinator/sched/blocks.h"
#include "coordinator/sched/fair.h"
#include "coordinator/sched/seq.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { T = LIMIT_BLOCK_TOKENS };

static const uint64_t KEY[2] = {11, 22};

/* ---- blocks ---- */

static int32_t evicted[16], n_evicted;
static void note_eviction(void *user, int32_t id)
{
    (void)user;
    evicted[n_evicted++] = id;
}

static void blocks_take_is_all_or_nothing(void **state)
{
    (void)state;
    struct crd_blocks b;
    int32_t ids[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
    crd_blocks_open(&b, 5, note_eviction, NULL);
    assert_int_equal(crd_blocks_take(&b, 6, ids), ERR_NO_BLOCKS);
    assert_int_equal(ids[0], -1);
    assert_int_equal(crd_blocks_room(&b), 5);
    assert_int_equal(crd_blocks_take(&b, 3, ids), OK);
    assert_int_equal(crd_blocks_take(&b, 3, ids + 3), ERR_NO_BLOCKS);
    assert_int_equal(ids[3], -1);
    assert_int_equal(crd_blocks_take(&b, 2, ids + 3), OK);
    for (int32_t i = 0; i < 5; i++)
        for (int32_t k = 0; k < i; k++) assert_int_not_equal(ids[i], ids[k]);
    crd_blocks_drop(&b, 5, ids);
    assert_int_equal(b.n_free, 5);
    crd_blocks_close(&b);
}

static void blocks_are_evicted_in_the_order_they_were_dropped(void **state)
{
    (void)state;
    struct crd_blocks b;
    int32_t ids[4], more[4];
    n_evicted = 0;
    crd_blocks_open(&b, 4, note_eviction, NULL);
    assert_int_equal(crd_blocks_take(&b, 4, ids), OK);
    for (int32_t i = 0; i < 4; i++) crd_blocks_cache(&b, ids[i]);
    crd_blocks_drop(&b, 1, &ids[2]);
    crd_blocks_drop(&b, 2, &ids[0]); /* the last of the array goes first */
    assert_int_equal(crd_blocks_take(&b, 2, more), OK);
    assert_int_equal(n_evicted, 2);
    assert_int_equal(evicted[0], ids[2]);
    assert_int_equal(evicted[1], ids[1]);
    crd_blocks_close(&b);
}

static void blocks_held_again_are_not_evicted(void **state)
{
    (void)state;
    struct crd_blocks b;
    int32_t ids[2], more[2];
    n_evicted = 0;
    crd_blocks_open(&b, 2, note_eviction, NULL);
    assert_int_equal(crd_blocks_take(&b, 2, ids), OK);
    crd_blocks_cache(&b, ids[0]);
    crd_blocks_cache(&b, ids[1]);
    crd_blocks_drop(&b, 2, ids);
    crd_blocks_hold(&b, ids[1]);
    assert_int_equal(crd_blocks_take(&b, 2, more), ERR_NO_BLOCKS);
    assert_int_equal(crd_blocks_take(&b, 1, more), OK);
    assert_int_equal(more[0], ids[0]);
    assert_int_equal(n_evicted, 1);
    crd_blocks_close(&b);
}

/* ---- prefix ---- */

static void fill(int32_t ids[T], int32_t from)
{
    for (int32_t i = 0; i < T; i++) ids[i] = from + i;
}

static void prefix_hit_is_confirmed_by_ids(void **state)
{
    (void)state;
    struct crd_prefix p;
    int32_t a[T], b[T];
    fill(a, 0);
    fill(b, 5);
    crd_prefix_open(&p, 8, 8, KEY);
    struct crd_prefix_hash h = crd_prefix_chain(crd_prefix_root(&p, 0), a);
    int32_t node = crd_prefix_enter(&p, PREFIX_NONE, 0, h, a);
    crd_prefix_name(&p, node, 0, 3);
    assert_int_equal(crd_prefix_find(&p, PREFIX_NONE, 0, h, a), node);
    assert_int_equal(p.nodes[node].blocks[0], 3);
    assert_int_equal(crd_prefix_find(&p, PREFIX_NONE, 0, h, b),
                     PREFIX_NONE); /* as if the hash had collided */
    assert_int_equal(crd_prefix_find(&p, node, 0, h, a), PREFIX_NONE);
    assert_int_equal(crd_prefix_find(&p, PREFIX_NONE, 1, h, a), PREFIX_NONE);
    crd_prefix_close(&p);
}

static void prefix_has_one_node_per_run_of_tokens(void **state)
{
    (void)state;
    struct crd_prefix p;
    int32_t a[T];
    fill(a, 0);
    crd_prefix_open(&p, 8, 8, KEY);
    struct crd_prefix_hash h = crd_prefix_chain(crd_prefix_root(&p, 0), a);
    int32_t node = crd_prefix_enter(&p, PREFIX_NONE, 0, h, a);
    crd_prefix_name(&p, node, 0, 3);
    assert_int_equal(crd_prefix_enter(&p, PREFIX_NONE, 0, h, a), node);
    crd_prefix_forget(&p, 3);
    assert_int_equal(crd_prefix_find(&p, PREFIX_NONE, 0, h, a), PREFIX_NONE);
    assert_int_equal(p.n_free, 8);
    crd_prefix_close(&p);
}

static void prefix_node_lasts_while_it_has_a_block_a_child_or_a_user(void **state)
{
    (void)state;
    struct crd_prefix p;
    int32_t a[T];
    fill(a, 0);
    crd_prefix_open(&p, 3, 8, KEY);
    struct crd_prefix_hash h = crd_prefix_chain(crd_prefix_root(&p, 0), a), k = crd_prefix_chain(h, a);
    int32_t node = crd_prefix_enter(&p, PREFIX_NONE, 0, h, a);
    crd_prefix_name(&p, node, 0, 1);
    crd_prefix_name(&p, node, 2, 5);
    int32_t child = crd_prefix_enter(&p, node, 0, k, a);
    crd_prefix_name(&p, child, 1, 2);
    crd_prefix_forget(&p, 1);
    crd_prefix_forget(&p, 5); /* what is left of it says what came before its child */
    assert_int_equal(crd_prefix_find(&p, PREFIX_NONE, 0, h, a), node);
    assert_int_equal(crd_prefix_find(&p, node, 0, k, a), child);
    crd_prefix_use(&p, child);
    crd_prefix_forget(&p, 2);
    assert_int_equal(p.n_free, 1);
    int32_t other = crd_prefix_enter(&p, PREFIX_NONE, 1, h, a);
    crd_prefix_name(&p, other, 0, 7);
    assert_int_equal(crd_prefix_enter(&p, PREFIX_NONE, 2, h, a), PREFIX_NONE); /* no node is free */
    crd_prefix_unuse(&p, child);
    assert_int_equal(p.n_free, 2);
    assert_int_equal(crd_prefix_find(&p, PREFIX_NONE, 0, h, a), PREFIX_NONE);
    crd_prefix_close(&p);
}

static void prefix_hash_depends_on_key_salt_and_everything_before(void **state)
{
    (void)state;
    struct crd_prefix p, q;
    const uint64_t other[2] = {11, 23};
    int32_t a[T], b[T];
    fill(a, 0);
    fill(b, 1);
    crd_prefix_open(&p, 4, 4, KEY);
    crd_prefix_open(&q, 4, 4, other);
    struct crd_prefix_hash h[] = {crd_prefix_root(&p, 0),
                                  crd_prefix_root(&p, 1),
                                  crd_prefix_root(&q, 0),
                                  crd_prefix_chain(crd_prefix_root(&p, 0), a),
                                  crd_prefix_chain(crd_prefix_root(&p, 0), b),
                                  crd_prefix_chain(crd_prefix_chain(crd_prefix_root(&p, 0), a), a),
                                  crd_prefix_chain(crd_prefix_chain(crd_prefix_root(&p, 0), b), a)};
    for (size_t i = 0; i < COUNT_OF(h); i++)
        for (size_t k = 0; k < i; k++) assert_true(h[i].lo != h[k].lo && h[i].hi != h[k].hi);
    crd_prefix_close(&p);
    crd_prefix_close(&q);
}

static void prefix_survives_crowded_buckets(void **state)
{
    (void)state;
    struct crd_prefix p;
    int32_t ids[64][T], at[64];
    crd_prefix_open(&p, 64, 64, KEY);
    const struct crd_prefix_hash same = {7, 7};
    for (int32_t i = 0; i < 64; i++) {
        fill(ids[i], i);
        at[i] = crd_prefix_enter(&p, PREFIX_NONE, 0, same, ids[i]);
        crd_prefix_name(&p, at[i], 0, i);
    }
    for (int32_t i = 0; i < 64; i += 2) crd_prefix_forget(&p, i);
    for (int32_t i = 0; i < 64; i++)
        assert_int_equal(crd_prefix_find(&p, PREFIX_NONE, 0, same, ids[i]),
                         i % 2 ? at[i] : PREFIX_NONE);
    crd_prefix_close(&p);
}

/* ---- heap ---- */

struct thing {
    int32_t key, at;
};
static bool lower(const void *a, const void *b)
{
    return ((const struct thing *)a)->key < ((const struct thing *)b)->key;
}

static void heap_gives_the_first_whatever_moves_or_leaves(void **state)
{
    (void)state;
    struct thing things[200];
    struct crd_heap h = {.before = lower, .at_offset = offsetof(struct thing, at)};
    for (int32_t i = 0; i < 200; i++) things[i] = (struct thing){.at = -1};
    for (uint64_t k = 0; k < 20000; k++) {
        struct thing *t = &things[rng_at(5, k, 0, 0) % 200];
        t->key = (int32_t)(rng_at(5, k, 1, 0) % 1000);
        if (t->at < 0)
            crd_heap_push(&h, t);
        else if (rng_at(5, k, 2, 0) % 2)
            crd_heap_remove(&h, t);
        else
            crd_heap_moved(&h, t);
        const struct thing *first = crd_heap_top(&h);
        for (int32_t i = 0; i < 200; i++)
            assert_true(things[i].at < 0 || first->key <= things[i].key);
    }
    while (h.n) crd_heap_remove(&h, crd_heap_top(&h));
    assert_int_equal(h.cap, 16);
    crd_heap_free(&h);
}

/* ---- fairness ---- */

static struct crd_group group_of_priority_0;

static struct crd_tenant *one_waits(struct crd_fair *f, struct crd_seq *s, uint64_t id,
                                    float weight)
{
    static uint64_t next = 1;
    struct crd_tenant *t = crd_fair_join(f, id, weight);
    *s = (struct crd_seq){.group = &group_of_priority_0, .id = next++, .heap_at = -1};
    crd_fair_wait(f, t, s);
    return t;
}

static void fair_the_least_served_is_first_and_weight_divides(void **state)
{
    (void)state;
    struct crd_fair f;
    struct crd_seq a, b;
    crd_fair_open(&f);
    struct crd_tenant *light = one_waits(&f, &a, 1, 1), *heavy = one_waits(&f, &b, 2, 4);
    assert_ptr_equal(crd_fair_first(&f), &a); /* arrival breaks the tie */
    crd_fair_charge(&f, light, 100);
    assert_ptr_equal(crd_fair_first(&f), &b);
    crd_fair_charge(&f, heavy, 399);
    assert_ptr_equal(crd_fair_first(&f), &b);
    crd_fair_charge(&f, heavy, 2);
    assert_ptr_equal(crd_fair_first(&f), &a);
    crd_fair_close(&f);
}

static void fair_a_new_tenant_starts_at_the_least_of_the_waiting(void **state)
{
    (void)state;
    struct crd_fair f;
    struct crd_seq a, b, c;
    crd_fair_open(&f);
    struct crd_tenant *t1 = one_waits(&f, &a, 1, 1), *t2 = one_waits(&f, &b, 2, 1);
    crd_fair_charge(&f, t1, 500);
    crd_fair_charge(&f, t2, 700);
    struct crd_tenant *t3 = one_waits(&f, &c, 3, 1);
    assert_true(t3->served == 500);
    crd_fair_close(&f);
}

static void fair_idling_saves_no_credit_and_forgives_no_debt(void **state)
{
    (void)state;
    struct crd_fair f;
    struct crd_seq a, b;
    crd_fair_open(&f);
    struct crd_tenant *t1 = one_waits(&f, &a, 1, 1), *t2 = one_waits(&f, &b, 2, 1);
    crd_fair_charge(&f, t1, 1000);
    crd_fair_unwait(&f, t1, &a);
    crd_fair_leave(&f, t1);
    crd_fair_charge(&f, t2, 300);
    t1 = one_waits(&f, &a, 1, 1);
    assert_true(t1->served == 1000); /* a debt is remembered while the others are behind */
    crd_fair_unwait(&f, t1, &a);
    crd_fair_leave(&f, t1);
    crd_fair_charge(&f, t2, 5000);
    assert_int_equal(f.n_tenants, 1); /* and forgotten when they have caught up */
    t1 = one_waits(&f, &a, 1, 1);
    assert_true(t1->served == 5300);
    crd_fair_close(&f);
}

static void fair_remembers_a_bounded_number_of_tenants(void **state)
{
    (void)state;
    struct crd_fair f;
    struct crd_seq a, b;
    crd_fair_open(&f);
    one_waits(&f, &a, 1, 1);
    for (uint64_t id = 2; id < 3 * FAIR_MAX_IDLE; id++) {
        struct crd_tenant *t = one_waits(&f, &b, id, 1);
        crd_fair_charge(&f, t, 10);
        crd_fair_unwait(&f, t, &b);
        crd_fair_leave(&f, t);
    }
    assert_true(f.n_tenants <= FAIR_MAX_IDLE + 1);
    crd_fair_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_take_is_all_or_nothing),
        cmocka_unit_test(blocks_are_evicted_in_the_order_they_were_dropped),
        cmocka_unit_test(blocks_held_again_are_not_evicted),
        cmocka_unit_test(prefix_hit_is_confirmed_by_ids),
        cmocka_unit_test(prefix_has_one_node_per_run_of_tokens),
        cmocka_unit_test(prefix_node_lasts_while_it_has_a_block_a_child_or_a_user),
        cmocka_unit_test(prefix_hash_depends_on_key_salt_and_everything_before),
        cmocka_unit_test(prefix_survives_crowded_buckets),
        cmocka_unit_test(heap_gives_the_first_whatever_moves_or_leaves),
        cmocka_unit_test(fair_the_least_served_is_first_and_weight_divides),
        cmocka_unit_test(fair_a_new_tenant_starts_at_the_least_of_the_waiting),
        cmocka_unit_test(fair_idling_saves_no_credit_and_forgives_no_debt),
        cmocka_unit_test(fair_remembers_a_bounded_number_of_tenants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
