/* How sequences end, or go on elsewhere: stops, cancels, preemption, restarts, errors. Every plan
 * runs on the fake replica. */
#include "tests/sched/rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* ---- ends ---- */

static void blocks_come_back_when_the_last_step_has_retired(void **state)
{
    (void)state;
    struct rig *b = rig_setup(rig_plain());
    rig_submit(b, rig_request(1, 5, 50));
    assert_true(rig_step(b));
    assert_true(rig_step(b));
    crd_sched_cancel(b->s, 1, 0);
    crd_sched_check(b->s);
    assert_int_equal(b->last.err, ERR_CANCELLED);
    assert_int_equal(rig_used(b), 1);
    assert_false(crd_sched_idle(b->s));
    rig_answer(b);
    assert_int_equal(rig_used(b), 1);
    rig_answer(b);
    assert_int_equal(rig_used(b), 0);
    assert_int_equal(b->n_tokens, 0); /* what was in flight never surfaces */
    assert_int_equal(b->n_finished, 1);
    assert_true(crd_sched_idle(b->s));
    rig_teardown(b);
}

static void a_slot_is_given_away_only_with_an_end_record(void **state)
{
    (void)state;
    struct sched_conf c = rig_plain();
    c.n_slots = 1;
    struct rig *b = rig_setup(c);
    rig_submit(b, rig_request(1, 5, 50));
    assert_true(rig_step(b));
    crd_sched_cancel(b->s, 1, 0);
    assert_false(rig_step(b)); /* an end by itself is no reason for a step */
    rig_submit(b, rig_request(2, 5, 3));
    assert_true(rig_step(b)); /* the fake replica refuses a start in a slot that was not ended */
    assert_int_equal(b->plan.n_ends, 1);
    assert_int_equal(b->plan.n_starts, 1);
    rig_run_out(b);
    assert_int_equal(b->last.n_generated, 3);
    rig_teardown(b);
}

static void tokens_past_a_stop_are_discarded(void **state)
{
    (void)state;
    struct sched_conf c = rig_plain();
    c.depth = 5;
    struct rig *b = rig_setup(c);
    struct gen_request r = rig_request(1, 5, 100);
    for (int32_t i = 0; i < 25; i++) r.sampling.stop_ids[r.sampling.n_stop_ids++] = 2 * i;
    rig_submit(b, r);
    rig_run_out(b);
    int32_t want[100];
    enum seq_finish finish;
    assert_int_equal(b->last.n_generated, fake_alone(&r, 0, want, &finish));
    assert_int_equal(b->last.finish, FINISH_STOP);
    assert_int_equal(b->n_tokens, b->last.n_generated);
    rig_teardown(b);
}

static void the_first_by_priority_and_arrival_is_never_preempted(void **state)
{
    (void)state;
    struct sched_conf c = rig_plain();
    c.n_blocks = 8;
    struct rig *b = rig_setup(c);
    for (uint64_t id = 1; id <= 4; id++) rig_submit(b, rig_request(id, 10, 100));
    bool short_of_blocks = false;
    while (rig_step(b)) {
        struct sched_stats now;
        rig_answer(b);
        crd_sched_stats(b->s, &now);
        short_of_blocks |= now.n_waiting_blocks > 0;
        assert_true(now.n_waiting_blocks <= now.n_waiting);
    }
    rig_run_out(b);
    assert_true(short_of_blocks);
    assert_int_equal(b->n_finished, 4);
    int32_t preempted = 0;
    for (int32_t i = 0; i < 4; i++) {
        assert_int_equal(b->ends[i].n_generated, 100);
        preempted += b->ends[i].n_preempted;
        if (b->ends[i].request == 1) assert_int_equal(b->ends[i].n_preempted, 0);
    }
    assert_true(preempted > 0);
    struct sched_stats st;
    crd_sched_stats(b->s, &st);
    assert_int_equal(st.n_preemptions, preempted);
    assert_true(st.prompt_recomputed > 0 && st.prompt_recomputed <= (uint64_t)preempted * 10);
    assert_int_equal(st.n_waiting_blocks, 0);
    rig_teardown(b);
}

static void restart(struct rig *b, struct sched_conf c)
{
    fake_replica_close(b->f);
    b->conf = c;
    b->f = fake_replica_open(&b->conf);
    crd_sched_restart(b->s, &b->conf, 0);
    crd_sched_check(b->s);
}

static void a_restart_goes_on_from_the_known_tokens(void **state)
{
    (void)state;
    struct rig *b = rig_setup(rig_plain());
    rig_submit(b, rig_request(1, 20, 40));
    for (int32_t i = 0; i < 10; i++) {
        assert_true(rig_step(b));
        if (i) rig_answer(b);
    }
    assert_int_equal(b->n_tokens, 9);
    struct sched_conf c = rig_plain();
    c.epoch = 2;
    c.n_slots = 3;
    restart(b, c);
    assert_true(rig_step(b));
    assert_int_equal(b->plan.epoch, 2);
    assert_int_equal(b->plan.step, 1);
    assert_int_equal(b->plan.starts[0].n_generated, 9);
    assert_int_equal(b->plan.items[0].n_in, 29);
    rig_run_out(b);
    assert_int_equal(b->n_tokens, 40);
    rig_teardown(b);
}

/* What no replica survives is given up, with a sentence; what gets further in between is not, nor what only waits. */
static void a_request_that_no_replica_survives_is_ended(void **state)
{
    (void)state;
    struct sched_conf c = rig_plain();
    c.max_losses = 3;
    struct rig *b = rig_setup(c);
    rig_submit(b, rig_request(1, 20, 40));
    for (int32_t i = 0; i < 6; i++) { /* a token more each time */
        assert_true(rig_step(b));
        rig_answer(b);
        c.epoch++;
        restart(b, c);
        assert_int_equal(b->n_finished, 0);
    }
    for (int32_t i = 0; i < 2; i++) {
        assert_true(rig_step(b));
        c.epoch++;
        restart(b, c);
        assert_int_equal(b->n_finished, i == 1);
    }
    assert_int_equal(b->last.err, ERR_UNAVAILABLE);
    assert_non_null(strstr(b->text, "lost 3 times"));
    for (int32_t i = 0; i < 4; i++) { /* it had not begun */
        rig_submit(b, rig_request(2 + (uint64_t)i, 20, 3));
        c.epoch++;
        restart(b, c);
    }
    rig_run_out(b);
    assert_int_equal(b->n_finished, 5);
    assert_int_equal(b->last.err, OK);
    rig_teardown(b);
}

/* Five choices: one is over, two had begun (one of them in a second block), two had not. */
static void a_request_that_began_elsewhere_goes_on_behind_what_is_known(void **state)
{
    (void)state;
    struct rig *b = rig_setup(rig_plain());
    struct gen_request r = rig_request(7, 40, 30);
    int32_t begun[5] = {12, 9, 0, 29, 0};
    struct gen_known known[5] = {{.n = 12, .over = true}};
    int32_t want[5][30], n_left = 0;
    enum seq_finish finish;
    r.n = 5;
    for (int32_t i = 0; i < 5; i++) {
        assert_int_equal(fake_alone(&r, i, want[i], &finish), 30);
        if (i) known[i] = (struct gen_known){.n = begun[i], .ids = want[i]};
        if (i) n_left += 30 - begun[i];
    }
    r.known = known;
    assert_int_equal(gen_request_open(&r), 4);
    rig_submit(b, r);
    rig_run_out(b);
    assert_int_equal(b->n_tokens, n_left);
    assert_int_equal(b->n_finished, 4);
    for (int32_t i = 0; i < 4; i++) {
        assert_int_equal(b->ends[i].n_generated, 30);
        assert_int_equal(b->ends[i].finish, FINISH_LENGTH);
    }
    for (int32_t i = 0; i < b->n_tokens; i++) /* the right ids, each choice in its order */
        assert_int_equal(b->tokens[i].id, want[b->tokens[i].choice][begun[b->tokens[i].choice]++]);
    rig_teardown(b);
}

static void what_is_known_must_leave_something_to_do(void **state)
{
    (void)state;
    struct rig *b = rig_setup(rig_plain());
    struct gen_request r = rig_request(7, 10, 3);
    static const int32_t ids[3] = {1, 2, 3};
    struct gen_known known = {.n = 3, .ids = ids};
    r.known = &known;
    assert_int_equal(crd_sched_submit(b->s, &r, 0), ERR_BAD_REQUEST);
    known.over = true;
    assert_int_equal(crd_sched_submit(b->s, &r, 0), ERR_BAD_REQUEST);
    crd_sched_check(b->s);
    assert_true(crd_sched_idle(b->s));
    rig_teardown(b);
}

static void a_smaller_replica_ends_what_no_longer_fits(void **state)
{
    (void)state;
    struct rig *b = rig_setup(rig_plain());
    rig_submit(b, rig_request(1, 40, 40));
    rig_submit(b, rig_request(2, 20, 40));
    assert_true(rig_step(b));
    rig_answer(b);
    struct sched_conf c = rig_plain();
    c.epoch = 2;
    c.n_blocks = 2;
    restart(b, c);
    assert_int_equal(b->n_finished, 1);
    assert_int_equal(b->last.request, 1);
    assert_int_equal(b->last.err, ERR_NO_BLOCKS);
    assert_non_null(strstr(b->text, "41"));
    assert_non_null(strstr(b->text, "32"));
    rig_run_out(b);
    assert_int_equal(b->last.finish, FINISH_LENGTH); /* alone, it fills the pool */
    assert_int_equal(b->last.n_generated, 32 - 20 + 1);
    rig_teardown(b);
}

static void fail_all_ends_everything_once(void **state)
{
    (void)state;
    struct rig *b = rig_setup(rig_plain());
    struct gen_request r = rig_request(1, 40, 40);
    r.n = 3;
    rig_submit(b, r);
    rig_submit(b, rig_request(2, 20, 40));
    assert_true(rig_step(b));
    crd_sched_fail_all(b->s, ERR_UNAVAILABLE, "no plan fits", 0);
    crd_sched_check(b->s);
    assert_int_equal(b->n_finished, 4);
    assert_int_equal(b->last.err, ERR_UNAVAILABLE);
    assert_string_equal(b->text, "no plan fits");
    rig_answer(b);
    assert_true(crd_sched_idle(b->s));
    assert_int_equal(b->n_events, 4);
    rig_teardown(b);
}

static void a_result_that_does_not_belong_changes_nothing(void **state)
{
    (void)state;
    struct rig *b = rig_setup(rig_plain());
    rig_submit(b, rig_request(1, 5, 5));
    struct step_result r = {.epoch = 1, .step = 1};
    assert_int_equal(crd_sched_on_result(b->s, &r, 0), ERR_LINK_PROTOCOL);
    assert_true(rig_step(b));
    const struct step_result good = *fake_replica_deliver(b->f);
    struct result_item item = good.items[0];
    struct step_result bad[6];
    for (int32_t i = 0; i < 6; i++) bad[i] = good;
    bad[0].step = 2;
    bad[1].epoch = 2;
    bad[2].n_items = 0;
    struct result_item wrong[3] = {item, item, item};
    wrong[0].slot++;
    wrong[1].n_tokens = 0;
    wrong[2].tokens[0].id = -1;
    for (int32_t i = 0; i < 3; i++) bad[3 + i].items = &wrong[i];
    for (int32_t i = 0; i < 6; i++) {
        assert_int_equal(crd_sched_on_result(b->s, &bad[i], 0), ERR_LINK_PROTOCOL);
        crd_sched_check(b->s);
    }
    assert_int_equal(b->n_events, 0);
    assert_int_equal(crd_sched_on_result(b->s, &good, 0), OK);
    rig_run_out(b);
    assert_int_equal(b->n_tokens, 5);
    rig_teardown(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_come_back_when_the_last_step_has_retired),
        cmocka_unit_test(a_slot_is_given_away_only_with_an_end_record),
        cmocka_unit_test(tokens_past_a_stop_are_discarded),
        cmocka_unit_test(the_first_by_priority_and_arrival_is_never_preempted),
        cmocka_unit_test(a_restart_goes_on_from_the_known_tokens),
        cmocka_unit_test(a_request_that_no_replica_survives_is_ended),
        cmocka_unit_test(a_request_that_began_elsewhere_goes_on_behind_what_is_known),
        cmocka_unit_test(what_is_known_must_leave_something_to_do),
        cmocka_unit_test(a_smaller_replica_ends_what_no_longer_fits),
        cmocka_unit_test(fail_all_ends_everything_once),
        cmocka_unit_test(a_result_that_does_not_belong_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
