/* Windows: a sequence holds its window and no more, whatever its length; prefixes are found as far as
 * their last window is still there, and what was lost of them comes back. */
#include "tests/sched/rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { T = LIMIT_BLOCK_TOKENS };

/* One group that sees everything and two that see 40 positions: rows of 3 blocks, 4 rows a window. */
static struct sched_conf windowed(int32_t n_blocks)
{
    struct sched_conf c = rig_plain();
    c.groups = kv_groups_of(1, 2, 40);
    c.n_blocks = n_blocks;
    return c;
}

static void check_answer(const struct rig *b, const struct gen_request *r, int32_t first)
{
    static int32_t want[1024];
    enum seq_finish finish;
    int32_t n = fake_alone(r, 0, want, &finish);
    for (int32_t i = 0; i < n; i++) assert_int_equal(b->tokens[first + i].id, want[i]);
}

/* To its last token, and never above what it needs. */
static void run_alone(struct rig *b, struct gen_request r, int32_t most)
{
    int32_t first = b->n_tokens;
    rig_submit(b, r);
    while (!crd_sched_idle(b->s)) {
        if (!rig_step(b)) rig_answer(b);
        assert_true(rig_used(b) <= most);
    }
    assert_int_equal(b->last.err, OK);
    assert_int_equal(b->last.n_generated, r.sampling.max_tokens);
    check_answer(b, &r, first);
}

static void a_window_is_all_that_is_kept(void **state)
{
    (void)state;
    struct sched_conf c = windowed(0);
    const int32_t need = (int32_t)kv_groups_need(&c.groups, 512);
    assert_int_equal(need, 512 / T + 2 * 4); /* with every layer seeing everything: 3 * 512 / T */
    for (int32_t prompt = 1; prompt < 500; prompt += 83) {
        c.n_blocks = need;
        struct rig *b = rig_setup(c);
        run_alone(b, rig_request(1, prompt, 512 - prompt), need);
        assert_int_equal(rig_used(b), 0);
        rig_teardown(b);
    }
    c.n_blocks = need - 1; /* it is exactly what is needed */
    struct rig *b = rig_setup(c);
    struct gen_request r = rig_request(1, 100, 412);
    assert_int_equal(crd_sched_submit(b->s, &r, 0), ERR_TOO_LONG);
    rig_teardown(b);
}

/* Nothing but windows: no text is too long for a pool that holds one. */
static void a_model_of_windows_alone_needs_no_more_for_a_longer_text(void **state)
{
    (void)state;
    struct sched_conf c = windowed(4);
    c.groups = kv_groups_of(0, 2, 40);
    struct rig *b = rig_setup(c);
    run_alone(b, rig_request(1, 200, 312), 4);
    rig_teardown(b);
}

/* A chunk is bounded by the room beside others, and grows with it. */
static void a_chunk_takes_the_room_that_is_left(void **state)
{
    (void)state;
    struct sched_conf c = windowed(3 * 512 / T);
    c.max_step_tokens = 256;
    struct rig *b = rig_setup(c);
    rig_submit(b, rig_request(1, 400, 4));
    assert_true(rig_step(b));
    assert_int_equal(b->plan.items[0].n_in, 256);
    rig_run_out(b);
    rig_teardown(b);
    c.n_blocks = 25 + 2 * 6; /* the rows of the prompt, and six of windows */
    b = rig_setup(c);
    rig_submit(b, rig_request(1, 400, 1));
    assert_true(rig_step(b));
    assert_in_range(b->plan.items[0].n_in, T, 6 * T);
    rig_run_out(b);
    assert_int_equal(b->last.err, OK);
    rig_teardown(b);
}

static int32_t n_cached_of(struct rig *b, struct gen_request r)
{
    int32_t first = b->n_tokens;
    rig_submit(b, r);
    rig_run_out(b);
    assert_int_equal(b->last.err, OK);
    check_answer(b, &r, first);
    return b->last.n_cached;
}

static void a_prefix_is_found_with_the_window_at_its_end(void **state)
{
    (void)state;
    struct rig *b = rig_setup(windowed(400));
    assert_int_equal(n_cached_of(b, rig_request(1, 200, 8)), 0);
    struct gen_request r = rig_request(1, 200, 8);
    r.id = 2;
    assert_int_equal(n_cached_of(b, r), 192);
    r.id = 3, r.n_prompt = 330; /* more of the same text */
    assert_int_equal(n_cached_of(b, r), 192);
    r.id = 4;
    assert_int_equal(n_cached_of(b, r), 320);
    rig_teardown(b);
}

/* Evict, as if others had needed them, the cached blocks of the windowed groups. */
static void lose_windows(struct rig *b)
{
    struct crd_blocks *k = &b->s->blocks;
    for (int32_t i = 0; i < k->n; i++) {
        int32_t node = b->s->prefix.owner[i];
        if (node != PREFIX_NONE && b->s->prefix.nodes[node].blocks[0] != i) crd_blocks_evict(k, i);
    }
    crd_sched_check(b->s);
}

static void a_prefix_without_its_window_is_computed_and_given_back(void **state)
{
    (void)state;
    struct rig *b = rig_setup(windowed(400));
    struct gen_request r = rig_request(1, 200, 8);
    n_cached_of(b, r);
    lose_windows(b);
    r.id = 2;
    assert_int_equal(n_cached_of(b, r), 0);
    r.id = 3;
    assert_int_equal(n_cached_of(b, r), 192);
    rig_teardown(b);
}

/* Windows at the end of the longer text are gone, those of the shorter one are there: the hit is cut. */
static void a_hit_is_cut_to_where_a_window_is_whole(void **state)
{
    (void)state;
    struct rig *b = rig_setup(windowed(400));
    struct gen_request r = rig_request(1, 330, 4);
    n_cached_of(b, r);
    lose_windows(b);
    r.id = 2, r.n_prompt = 100;
    assert_int_equal(n_cached_of(b, r), 0);
    r.id = 3, r.n_prompt = 330;
    assert_int_equal(n_cached_of(b, r), 96);
    rig_teardown(b);
}

static void choices_share_the_window_of_their_prompt(void **state)
{
    (void)state;
    for (int32_t cache = 0; cache < 2; cache++)
        for (int32_t prompt = 150; prompt < 170; prompt++) {
            struct sched_conf c = windowed(400);
            c.prefix_cache = cache;
            struct rig *b = rig_setup(c);
            struct gen_request r = rig_request(1, prompt, 5);
            r.n = 3;
            r.sample_logits = prompt % 2;
            rig_submit(b, r);
            int32_t computed = 0;
            while (!crd_sched_idle(b->s)) {
                if (!rig_step(b)) rig_answer(b);
                else computed += step_plan_tokens(&b->plan);
            }
            assert_int_equal(b->n_finished, 3);
            assert_true(computed <= prompt + 3 * (5 + T)); /* the prompt once, and each its last row */
            rig_teardown(b);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_window_is_all_that_is_kept),
        cmocka_unit_test(a_model_of_windows_alone_needs_no_more_for_a_longer_text),
        cmocka_unit_test(a_chunk_takes_the_room_that_is_left),
        cmocka_unit_test(a_prefix_is_found_with_the_window_at_its_end),
        cmocka_unit_test(a_prefix_without_its_window_is_computed_and_given_back),
        cmocka_unit_test(a_hit_is_cut_to_where_a_window_is_whole),
        cmocka_unit_test(choices_share_the_window_of_their_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
