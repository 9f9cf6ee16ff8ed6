/* What single steps look like: admission, budget, order, references, sharing. Every plan runs on
 * the fake replica. */
#include "tests/sched/rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* ---- admission ---- */

static void queue_is_bounded(void **state)
{
    (void)state;
    struct sched_conf c = rig_plain();
    c.max_waiting = 3;
    struct rig *b = rig_setup(c);
    struct gen_request r;
    for (uint64_t id = 1; id <= 3; id++) rig_submit(b, rig_request(id, 4, 4));
    r = rig_request(4, 4, 4);
    assert_int_equal(crd_sched_submit(b->s, &r, 0), ERR_QUEUE_FULL);
    assert_true(rig_step(b));
    rig_submit(b, r);
    r = rig_request(5, 4, 4);
    r.n = 3;
    assert_int_equal(crd_sched_submit(b->s, &r, 0), ERR_QUEUE_FULL);
    rig_run_out(b);
    assert_int_equal(b->n_finished, 4);
    rig_teardown(b);
}

static void too_long_is_refused_with_the_numbers(void **state)
{
    (void)state;
    struct sched_conf c = rig_plain();
    c.n_blocks = 8;
    struct rig *b = rig_setup(c);
    struct gen_request r = rig_request(1, 100, 413);
    assert_int_equal(crd_sched_submit(b->s, &r, 0), ERR_TOO_LONG);
    assert_non_null(strstr(err_text(), "513"));
    assert_non_null(strstr(err_text(), "512"));
    r = rig_request(1, 100, 29);
    assert_int_equal(crd_sched_submit(b->s, &r, 0), ERR_TOO_LONG);
    assert_non_null(strstr(err_text(), "128"));
    r = rig_request(1, 100, INT32_MAX);
    assert_int_equal(crd_sched_submit(b->s, &r, 0), ERR_TOO_LONG);
    rig_submit(b, rig_request(1, 100, 28));
    rig_run_out(b);
    assert_int_equal(b->last.finish, FINISH_LENGTH);
    assert_int_equal(b->last.n_generated, 28);
    rig_teardown(b);
}

static void senseless_requests_are_refused(void **state)
{
    (void)state;
    struct rig *b = rig_setup(rig_plain());
    struct gen_request r[] = {rig_request(1, 0, 4), rig_request(1, 4, 0), rig_request(1, 4, 4),
                              rig_request(1, 4, 4), rig_request(9, 4, 4)};
    r[2].n = 0;
    r[3].weight = 0;
    rig_submit(b, rig_request(9, 4, 4));
    for (size_t i = 0; i < COUNT_OF(r); i++)
        assert_int_equal(crd_sched_submit(b->s, &r[i], 0), ERR_BAD_REQUEST);
    rig_run_out(b);
    rig_teardown(b);
}

static void a_pooled_prompt_may_fill_the_context_and_has_one_choice(void **state)
{
    (void)state;
    struct sched_conf c = rig_plain();
    c.n_blocks = 32;
    struct rig *b = rig_setup(c);
    struct gen_request r = rig_request(1, c.context, 1);
    assert_int_equal(crd_sched_submit(b->s, &r, 0), ERR_TOO_LONG);
    r.pool = POOL_MEAN;
    rig_submit(b, r);
    rig_run_out(b);
    assert_int_equal(b->last.finish, FINISH_STOP);
    assert_int_equal(b->last.n_generated, 0);
    r = rig_request(2, 4, 1);
    r.pool = POOL_LAST;
    r.n = 2;
    assert_int_equal(crd_sched_submit(b->s, &r, 0), ERR_BAD_REQUEST);
    rig_teardown(b);
}

/* The last token's state is the same with what was before it in the cache; a mean needs it all. */
static void a_mean_reads_no_prefix(void **state)
{
    (void)state;
    struct rig *b = rig_setup(rig_plain());
    struct gen_request r = rig_request(1, 60, 1);
    rig_submit(b, r);
    rig_run_out(b);
    const enum step_pool pools[] = {POOL_LAST, POOL_MEAN};
    for (size_t i = 0; i < COUNT_OF(pools); i++) {
        r.id = 10 + i;
        r.pool = pools[i];
        rig_submit(b, r);
        assert_true(rig_step(b));
        assert_int_equal(b->plan.items[0].out, OUT_POOL);
        assert_int_equal(b->plan.items[0].pos, pools[i] == POOL_LAST ? 48 : 0);
        rig_run_out(b);
        assert_int_equal(b->last.n_cached, pools[i] == POOL_LAST ? 48 : 0);
    }
    rig_teardown(b);
}

/* ---- the shape of steps ---- */

static void decodes_come_first_and_prefill_takes_the_rest(void **state)
{
    (void)state;
    struct sched_conf c = rig_plain();
    c.max_step_tokens = 20;
    struct rig *b = rig_setup(c);
    rig_submit(b, rig_request(1, 5, 50));
    assert_true(rig_step(b));
    assert_int_equal(b->plan.items[0].out, OUT_SAMPLE);
    rig_submit(b, rig_request(2, 50, 4));
    const int32_t chunks[] = {19, 19, 12};
    for (int32_t i = 0; i < 3; i++) {
        rig_answer(b);
        assert_true(rig_step(b));
        assert_int_equal(b->plan.n_items, 2);
        assert_int_equal(b->plan.items[0].n_in, 1);
        assert_int_equal(b->plan.items[1].n_in, chunks[i]);
        assert_int_equal(b->plan.items[1].out, i < 2 ? OUT_NONE : OUT_SAMPLE);
    }
    rig_run_out(b);
    rig_teardown(b);
}

static void an_input_may_be_the_output_of_a_step_in_flight(void **state)
{
    (void)state;
    struct rig *b = rig_setup(rig_plain());
    rig_submit(b, rig_request(1, 5, 50));
    assert_true(rig_step(b));
    assert_true(rig_step(b));
    assert_int_equal(b->plan.items[0].in[0].id, -1);
    assert_int_equal(b->plan.items[0].in[0].ref_step, 1);
    assert_false(rig_step(b)); /* depth 2 */
    rig_answer(b);
    assert_true(rig_step(b));
    assert_int_equal(b->plan.items[0].in[0].ref_step, 2);
    rig_answer(b);
    rig_answer(b);
    assert_true(rig_step(b));
    assert_true(b->plan.items[0].in[0].id >= 0);
    rig_run_out(b);
    rig_teardown(b);
}

static void stages_are_kept_busy_by_equal_micro_batches(void **state)
{
    (void)state;
    struct sched_conf c = rig_plain();
    c.n_stages = 2;
    c.depth = 3;
    struct rig *b = rig_setup(c);
    for (uint64_t id = 1; id <= 5; id++) rig_submit(b, rig_request(id, 4, 100));
    assert_true(rig_step(b));
    assert_false(rig_step(b)); /* everybody waits for step 1 */
    rig_answer(b);
    for (int32_t i = 0; i < 30; i++) {
        int32_t last = b->plan.n_items;
        assert_true(rig_step(b));
        if (i) assert_int_equal(b->plan.n_items + last, 5);
        assert_true(b->plan.n_items <= 3);
        if (fake_replica_in_flight(b->f) == 2) rig_answer(b);
    }
    rig_run_out(b);
    rig_teardown(b);
}

static void a_prompt_cut_in_chunks_waits_for_no_stage(void **state)
{
    (void)state;
    struct sched_conf c = rig_plain();
    c.n_stages = 3;
    c.depth = 4;
    c.max_step_tokens = 10;
    struct rig *b = rig_setup(c);
    rig_submit(b, rig_request(1, 40, 4));
    for (int32_t i = 0; i < 4; i++) assert_true(rig_step(b));
    rig_run_out(b);
    rig_teardown(b);
}

static void penalties_get_the_history_others_none(void **state)
{
    (void)state;
    struct rig *b = rig_setup(rig_plain());
    struct gen_request r = rig_request(1, 30, 4);
    rig_submit(b, r);
    assert_true(rig_step(b));
    assert_int_equal(b->plan.starts[0].n_history, 0);
    r = rig_request(2, 30, 4);
    r.sampling.repetition_penalty = 1.1f;
    rig_submit(b, r);
    assert_true(rig_step(b));
    assert_int_equal(b->plan.starts[0].n_history, 30);
    rig_run_out(b);
    rig_teardown(b);
}

static void priority_goes_before_arrival(void **state)
{
    (void)state;
    struct sched_conf c = rig_plain();
    c.n_slots = 1;
    struct rig *b = rig_setup(c);
    for (uint64_t id = 1; id <= 3; id++) {
        struct gen_request r = rig_request(id, 4, 2);
        r.priority = id == 3 ? -1 : 0;
        rig_submit(b, r);
    }
    rig_run_out(b);
    assert_int_equal(b->ends[0].request, 3);
    assert_int_equal(b->ends[1].request, 1);
    assert_int_equal(b->ends[2].request, 2);
    rig_teardown(b);
}

/* ---- sharing ---- */

static void a_prefix_is_found_once_its_step_was_sent(void **state)
{
    (void)state;
    struct sched_conf c = rig_plain();
    c.max_step_tokens = 512;
    c.depth = 3;
    struct rig *b = rig_setup(c);
    struct gen_request r = rig_request(1, 48, 40);
    rig_submit(b, r);
    r.id = 2;
    rig_submit(b, r);
    assert_true(rig_step(b)); /* both in one step: nothing to share yet */
    assert_int_equal(b->plan.items[1].n_in, 48);
    r.id = 3;
    rig_submit(b, r);
    assert_true(rig_step(b));
    assert_int_equal(b->plan.items[2].pos,
                     32); /* at least one position is computed: 2 of 3 blocks */
    assert_int_equal(b->plan.items[2].n_in, 16);
    r.id = 4;
    r.cache_salt = 1;
    rig_submit(b, r);
    assert_true(rig_step(b));
    assert_int_equal(b->plan.items[3].pos, 0);
    rig_run_out(b);
    for (int32_t i = 0; i < 4; i++)
        assert_int_equal(b->ends[i].n_cached, b->ends[i].request == 3 ? 32 : 0);
    rig_teardown(b);
}

/* The same prompt for the model alone, an adapter, another one, and the first again, which alone finds anything. */
static void adapters_share_no_prefixes_and_are_told_to_the_ranks(void **state)
{
    static const int32_t uses[] = {0, 1, 2, 1};
    (void)state;
    struct rig *b = rig_setup(rig_plain());
    for (int32_t i = 0; i < 4; i++) {
        struct gen_request r = rig_request(1, 48, 2);
        r.id = (uint64_t)i + 1;
        r.adapter = uses[i];
        rig_submit(b, r);
        assert_true(rig_step(b));
        assert_int_equal(b->plan.n_starts, 1);
        assert_int_equal(b->plan.starts[0].adapter, uses[i]);
        assert_int_equal(b->plan.items[0].pos, i == 3 ? 32 : 0);
        struct sched_stats st;
        crd_sched_stats(b->s, &st);
        assert_int_equal(st.adapters_running, uses[i] ? 1 << (uses[i] - 1) : 0);
        rig_run_out(b);
        crd_sched_stats(b->s, &st);
        assert_int_equal(st.adapters_running | st.adapters_waiting, 0);
    }
    rig_teardown(b);
}

static void generated_tokens_are_found_by_the_next_turn(void **state)
{
    (void)state;
    struct rig *b = rig_setup(rig_plain());
    struct gen_request r = rig_request(1, 20, 30);
    int32_t turn[60];
    enum seq_finish finish;
    memcpy(turn, r.prompt, 20 * sizeof *turn);
    assert_int_equal(fake_alone(&r, 0, turn + 20, &finish), 30);
    rig_submit(b, r);
    rig_run_out(b);
    for (int32_t i = 50; i < 60; i++) turn[i] = i % FAKE_VOCAB;
    r.id = 2;
    r.prompt = turn;
    r.n_prompt = 60;
    rig_submit(b, r);
    rig_run_out(b);
    assert_int_equal(b->last.n_cached, 48);
    struct sched_stats st;
    crd_sched_stats(b->s, &st);
    assert_int_equal(st.prefix_queries, 80);
    assert_int_equal(st.prefix_hits, 48);
    rig_teardown(b);
}

static void choices_share_the_prompt_without_a_prefix_cache(void **state)
{
    (void)state;
    struct sched_conf c = rig_plain();
    c.prefix_cache = false;
    struct rig *b = rig_setup(c);
    struct gen_request r = rig_request(1, 60, 20);
    r.n = 4;
    rig_submit(b, r);
    assert_true(rig_step(b));
    assert_int_equal(b->plan.n_items, 1);
    assert_int_equal(rig_used(b), 4);
    assert_true(rig_step(b));
    assert_int_equal(b->plan.n_starts, 3);
    assert_int_equal(rig_used(b), 3 + 4);
    for (int32_t i = 1; i < 4; i++) {
        assert_int_equal(b->plan.items[i].pos, 48);
        assert_int_equal(b->plan.starts[i - 1].sampling.choice, i);
    }
    rig_run_out(b);
    assert_int_equal(b->n_finished, 4);
    assert_int_equal(rig_used(b), 0);
    struct sched_stats st;
    crd_sched_stats(b->s, &st);
    assert_int_equal(st.prompt_tokens, 60);
    rig_teardown(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_is_bounded),
        cmocka_unit_test(too_long_is_refused_with_the_numbers),
        cmocka_unit_test(senseless_requests_are_refused),
        cmocka_unit_test(a_pooled_prompt_may_fill_the_context_and_has_one_choice),
        cmocka_unit_test(a_mean_reads_no_prefix),
        cmocka_unit_test(adapters_share_no_prefixes_and_are_told_to_the_ranks),
        cmocka_unit_test(decodes_come_first_and_prefill_takes_the_rest),
        cmocka_unit_test(an_input_may_be_the_output_of_a_step_in_flight),
        cmocka_unit_test(stages_are_kept_busy_by_equal_micro_batches),
        cmocka_unit_test(a_prompt_cut_in_chunks_waits_for_no_stage),
        cmocka_unit_test(penalties_get_the_history_others_none),
        cmocka_unit_test(priority_goes_before_arrival),
        cmocka_unit_test(a_prefix_is_found_once_its_step_was_sent),
        cmocka_unit_test(generated_tokens_are_found_by_the_next_turn),
        cmocka_unit_test(choices_share_the_prompt_without_a_prefix_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
