/* What single steps look like: budget, order, references, sharing, ends, errors. Every plan runs on the fake replica. */
#include "coordinator/sched/state.h"
#include "tests/sched/fake_replica.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MOST = 32 };

struct bench {
    struct sched_conf conf;
    struct crd_sched *s;
    struct fake_replica *f;
    struct arena a;
    struct step_plan plan;                      /* the last one sent */
    int32_t n_tokens, n_finished, n_events;
    struct token_event last;                    /* EVENT_FINISH */
    char text[256];
    struct token_event ends[MOST];
};

static void on_event(void *user, const struct token_event *e)
{
    struct bench *b = user;
    b->n_events++;
    b->n_tokens += e->kind == EVENT_TOKEN;
    if (e->kind != EVENT_FINISH) return;
    b->ends[b->n_finished++ % MOST] = b->last = *e;
    strncpy(b->text, e->text, sizeof b->text - 1);
}

static struct sched_conf plain(void)
{
    return (struct sched_conf){.epoch = 1, .n_blocks = 64, .n_slots = 8, .n_stages = 1, .depth = 2, .max_step_tokens = 64,
                               .context = 512, .max_waiting = 16, .prefix_cache = true, .prefix_key = {1, 2}};
}

static struct bench *setup(struct sched_conf conf)
{
    struct bench *b = xcalloc(1, sizeof *b);
    b->conf = conf;
    b->s = crd_sched_open(&b->conf, on_event, b);
    b->f = fake_replica_open(&b->conf);
    return b;
}

static void teardown(struct bench *b)
{
    fake_replica_close(b->f);
    crd_sched_close(b->s);
    arena_free(&b->a);
    free(b);
}

static struct gen_request request(uint64_t id, int32_t n_prompt, int32_t max_tokens)
{
    static int32_t prompt[1024];
    for (int32_t i = 0; i < n_prompt; i++) prompt[i] = (int32_t)((id * 7 + (uint64_t)i) % FAKE_VOCAB);
    struct gen_request r = {.id = id, .weight = 1, .n_prompt = n_prompt, .prompt = prompt, .n = 1, .sampling = sampling_default()};
    r.sampling.max_tokens = max_tokens;
    return r;
}

static void submit(struct bench *b, struct gen_request r)
{
    if (crd_sched_submit(b->s, &r, 0)) fail_msg("%s", err_text());
    crd_sched_check(b->s);
}

static bool step(struct bench *b)
{
    arena_free(&b->a);
    bool sent = crd_sched_step(b->s, 0, &b->a, &b->plan);
    if (sent) fake_replica_send(b->f, &b->plan);
    crd_sched_check(b->s);
    return sent;
}

static void answer(struct bench *b)
{
    const struct step_result *r = fake_replica_deliver(b->f);
    assert_non_null(r);
    if (crd_sched_on_result(b->s, r, 0)) fail_msg("%s", err_text());
    crd_sched_check(b->s);
}

static void run_out(struct bench *b)
{
    while (!crd_sched_idle(b->s))
        if (!step(b)) answer(b);
}

static int32_t used(const struct bench *b)
{
    struct sched_stats st;
    crd_sched_stats(b->s, &st);
    return st.n_blocks_used;
}

/* ---- admission ---- */

static void queue_is_bounded(void **state)
{
    (void)state;
    struct sched_conf c = plain();
    c.max_waiting = 3;
    struct bench *b = setup(c);
    struct gen_request r;
    for (uint64_t id = 1; id <= 3; id++) submit(b, request(id, 4, 4));
    r = request(4, 4, 4);
    assert_int_equal(crd_sched_submit(b->s, &r, 0), ERR_QUEUE_FULL);
    assert_true(step(b));
    submit(b, r);
    r = request(5, 4, 4);
    r.n = 3;
    assert_int_equal(crd_sched_submit(b->s, &r, 0), ERR_QUEUE_FULL);
    run_out(b);
    assert_int_equal(b->n_finished, 4);
    teardown(b);
}

static void too_long_is_refused_with_the_numbers(void **state)
{
    (void)state;
    struct sched_conf c = plain();
    c.n_blocks = 8;
    struct bench *b = setup(c);
    struct gen_request r = request(1, 100, 413);
    assert_int_equal(crd_sched_submit(b->s, &r, 0), ERR_TOO_LONG);
    assert_non_null(strstr(err_text(), "513"));
    assert_non_null(strstr(err_text(), "512"));
    r = request(1, 100, 29);
    assert_int_equal(crd_sched_submit(b->s, &r, 0), ERR_TOO_LONG);
    assert_non_null(strstr(err_text(), "128"));
    r = request(1, 100, INT32_MAX);
    assert_int_equal(crd_sched_submit(b->s, &r, 0), ERR_TOO_LONG);
    submit(b, request(1, 100, 28));
    run_out(b);
    assert_int_equal(b->last.finish, FINISH_LENGTH);
    assert_int_equal(b->last.n_generated, 28);
    teardown(b);
}

static void senseless_requests_are_refused(void **state)
{
    (void)state;
    struct bench *b = setup(plain());
    struct gen_request r[] = {request(1, 0, 4), request(1, 4, 0), request(1, 4, 4), request(1, 4, 4), request(9, 4, 4)};
    r[2].n = 0;
    r[3].weight = 0;
    submit(b, request(9, 4, 4));
    for (size_t i = 0; i < COUNT_OF(r); i++) assert_int_equal(crd_sched_submit(b->s, &r[i], 0), ERR_BAD_REQUEST);
    run_out(b);
    teardown(b);
}

/* ---- the shape of steps ---- */

static void decodes_come_first_and_prefill_takes_the_rest(void **state)
{
    (void)state;
    struct sched_conf c = plain();
    c.max_step_tokens = 20;
    struct bench *b = setup(c);
    submit(b, request(1, 5, 50));
    assert_true(step(b));
    assert_int_equal(b->plan.items[0].out, OUT_SAMPLE);
    submit(b, request(2, 50, 4));
    const int32_t chunks[] = {19, 19, 12};
    for (int32_t i = 0; i < 3; i++) {
        answer(b);
        assert_true(step(b));
        assert_int_equal(b->plan.n_items, 2);
        assert_int_equal(b->plan.items[0].n_in, 1);
        assert_int_equal(b->plan.items[1].n_in, chunks[i]);
        assert_int_equal(b->plan.items[1].out, i < 2 ? OUT_NONE : OUT_SAMPLE);
    }
    run_out(b);
    teardown(b);
}

static void an_input_may_be_the_output_of_a_step_in_flight(void **state)
{
    (void)state;
    struct bench *b = setup(plain());
    submit(b, request(1, 5, 50));
    assert_true(step(b));
    assert_true(step(b));
    assert_int_equal(b->plan.items[0].in[0].id, -1);
    assert_int_equal(b->plan.items[0].in[0].ref_step, 1);
    assert_false(step(b));   /* depth 2 */
    answer(b);
    assert_true(step(b));
    assert_int_equal(b->plan.items[0].in[0].ref_step, 2);
    answer(b);
    answer(b);
    assert_true(step(b));
    assert_true(b->plan.items[0].in[0].id >= 0);
    run_out(b);
    teardown(b);
}

static void stages_are_kept_busy_by_equal_micro_batches(void **state)
{
    (void)state;
    struct sched_conf c = plain();
    c.n_stages = 2;
    c.depth = 3;
    struct bench *b = setup(c);
    for (uint64_t id = 1; id <= 5; id++) submit(b, request(id, 4, 100));
    assert_true(step(b));
    assert_false(step(b));   /* everybody waits for step 1 */
    answer(b);
    for (int32_t i = 0; i < 30; i++) {
        int32_t last = b->plan.n_items;
        assert_true(step(b));
        if (i) assert_int_equal(b->plan.n_items + last, 5);
        assert_true(b->plan.n_items <= 3);
        if (fake_replica_in_flight(b->f) == 2) answer(b);
    }
    run_out(b);
    teardown(b);
}

static void a_prompt_cut_in_chunks_waits_for_no_stage(void **state)
{
    (void)state;
    struct sched_conf c = plain();
    c.n_stages = 3;
    c.depth = 4;
    c.max_step_tokens = 10;
    struct bench *b = setup(c);
    submit(b, request(1, 40, 4));
    for (int32_t i = 0; i < 4; i++) assert_true(step(b));
    run_out(b);
    teardown(b);
}

static void penalties_get_the_history_others_none(void **state)
{
    (void)state;
    struct bench *b = setup(plain());
    struct gen_request r = request(1, 30, 4);
    submit(b, r);
    assert_true(step(b));
    assert_int_equal(b->plan.starts[0].n_history, 0);
    r = request(2, 30, 4);
    r.sampling.repetition_penalty = 1.1f;
    submit(b, r);
    assert_true(step(b));
    assert_int_equal(b->plan.starts[0].n_history, 30);
    run_out(b);
    teardown(b);
}

static void priority_goes_before_arrival(void **state)
{
    (void)state;
    struct sched_conf c = plain();
    c.n_slots = 1;
    struct bench *b = setup(c);
    for (uint64_t id = 1; id <= 3; id++) {
        struct gen_request r = request(id, 4, 2);
        r.priority = id == 3 ? -1 : 0;
        submit(b, r);
    }
    run_out(b);
    assert_int_equal(b->ends[0].request, 3);
    assert_int_equal(b->ends[1].request, 1);
    assert_int_equal(b->ends[2].request, 2);
    teardown(b);
}

/* ---- sharing ---- */

static void a_prefix_is_found_once_its_step_was_sent(void **state)
{
    (void)state;
    struct sched_conf c = plain();
    c.max_step_tokens = 512;
    c.depth = 3;
    struct bench *b = setup(c);
    struct gen_request r = request(1, 48, 40);
    submit(b, r);
    r.id = 2;
    submit(b, r);
    assert_true(step(b));                                /* both in one step: nothing to share yet */
    assert_int_equal(b->plan.items[1].n_in, 48);
    r.id = 3;
    submit(b, r);
    assert_true(step(b));
    assert_int_equal(b->plan.items[2].pos, 32);          /* at least one position is computed: 2 of 3 blocks */
    assert_int_equal(b->plan.items[2].n_in, 16);
    r.id = 4;
    r.cache_salt = 1;
    submit(b, r);
    assert_true(step(b));
    assert_int_equal(b->plan.items[3].pos, 0);
    run_out(b);
    for (int32_t i = 0; i < 4; i++) assert_int_equal(b->ends[i].n_cached, b->ends[i].request == 3 ? 32 : 0);
    teardown(b);
}

static void generated_tokens_are_found_by_the_next_turn(void **state)
{
    (void)state;
    struct bench *b = setup(plain());
    struct gen_request r = request(1, 20, 30);
    int32_t turn[60];
    enum seq_finish finish;
    memcpy(turn, r.prompt, 20 * sizeof *turn);
    assert_int_equal(fake_alone(&r, 0, turn + 20, &finish), 30);
    submit(b, r);
    run_out(b);
    for (int32_t i = 50; i < 60; i++) turn[i] = i % FAKE_VOCAB;
    r.id = 2;
    r.prompt = turn;
    r.n_prompt = 60;
    submit(b, r);
    run_out(b);
    assert_int_equal(b->last.n_cached, 48);
    struct sched_stats st;
    crd_sched_stats(b->s, &st);
    assert_int_equal(st.prefix_queries, 80);
    assert_int_equal(st.prefix_hits, 48);
    teardown(b);
}

static void choices_share_the_prompt_without_a_prefix_cache(void **state)
{
    (void)state;
    struct sched_conf c = plain();
    c.prefix_cache = false;
    struct bench *b = setup(c);
    struct gen_request r = request(1, 60, 20);
    r.n = 4;
    submit(b, r);
    assert_true(step(b));
    assert_int_equal(b->plan.n_items, 1);
    assert_int_equal(used(b), 4);
    assert_true(step(b));
    assert_int_equal(b->plan.n_starts, 3);
    assert_int_equal(used(b), 3 + 4);
    for (int32_t i = 1; i < 4; i++) {
        assert_int_equal(b->plan.items[i].pos, 48);
        assert_int_equal(b->plan.starts[i - 1].sampling.choice, i);
    }
    run_out(b);
    assert_int_equal(b->n_finished, 4);
    assert_int_equal(used(b), 0);
    struct sched_stats st;
    crd_sched_stats(b->s, &st);
    assert_int_equal(st.prompt_tokens, 60);
    teardown(b);
}

/* ---- ends ---- */

static void blocks_come_back_when_the_last_step_has_retired(void **state)
{
    (void)state;
    struct bench *b = setup(plain());
    submit(b, request(1, 5, 50));
    assert_true(step(b));
    assert_true(step(b));
    crd_sched_cancel(b->s, 1, 0);
    crd_sched_check(b->s);
    assert_int_equal(b->last.err, ERR_CANCELLED);
    assert_int_equal(used(b), 1);
    assert_false(crd_sched_idle(b->s));
    answer(b);
    assert_int_equal(used(b), 1);
    answer(b);
    assert_int_equal(used(b), 0);
    assert_int_equal(b->n_tokens, 0);    /* what was in flight never surfaces */
    assert_int_equal(b->n_finished, 1);
    assert_true(crd_sched_idle(b->s));
    teardown(b);
}

static void a_slot_is_given_away_only_with_an_end_record(void **state)
{
    (void)state;
    struct sched_conf c = plain();
    c.n_slots = 1;
    struct bench *b = setup(c);
    submit(b, request(1, 5, 50));
    assert_true(step(b));
    crd_sched_cancel(b->s, 1, 0);
    assert_false(step(b));               /* an end by itself is no reason for a step */
    submit(b, request(2, 5, 3));
    assert_true(step(b));                /* the fake replica refuses a start in a slot that was not ended */
    assert_int_equal(b->plan.n_ends, 1);
    assert_int_equal(b->plan.n_starts, 1);
    run_out(b);
    assert_int_equal(b->last.n_generated, 3);
    teardown(b);
}

static void tokens_past_a_stop_are_discarded(void **state)
{
    (void)state;
    struct sched_conf c = plain();
    c.depth = 5;
    struct bench *b = setup(c);
    struct gen_request r = request(1, 5, 100);
    for (int32_t i = 0; i < 25; i++) r.sampling.stop_ids[r.sampling.n_stop_ids++] = 2 * i;
    submit(b, r);
    run_out(b);
    int32_t want[100];
    enum seq_finish finish;
    assert_int_equal(b->last.n_generated, fake_alone(&r, 0, want, &finish));
    assert_int_equal(b->last.finish, FINISH_STOP);
    assert_int_equal(b->n_tokens, b->last.n_generated);
    teardown(b);
}

static void the_first_by_priority_and_arrival_is_never_preempted(void **state)
{
    (void)state;
    struct sched_conf c = plain();
    c.n_blocks = 8;
    struct bench *b = setup(c);
    for (uint64_t id = 1; id <= 4; id++) submit(b, request(id, 10, 100));
    run_out(b);
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
    teardown(b);
}

static void restart(struct bench *b, struct sched_conf c)
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
    struct bench *b = setup(plain());
    submit(b, request(1, 20, 40));
    for (int32_t i = 0; i < 10; i++) {
        assert_true(step(b));
        if (i) answer(b);
    }
    assert_int_equal(b->n_tokens, 9);
    struct sched_conf c = plain();
    c.epoch = 2;
    c.n_slots = 3;
    restart(b, c);
    assert_true(step(b));
    assert_int_equal(b->plan.epoch, 2);
    assert_int_equal(b->plan.step, 1);
    assert_int_equal(b->plan.starts[0].n_generated, 9);
    assert_int_equal(b->plan.items[0].n_in, 29);
    run_out(b);
    assert_int_equal(b->n_tokens, 40);
    teardown(b);
}

static void a_smaller_replica_ends_what_no_longer_fits(void **state)
{
    (void)state;
    struct bench *b = setup(plain());
    submit(b, request(1, 40, 40));
    submit(b, request(2, 20, 40));
    assert_true(step(b));
    answer(b);
    struct sched_conf c = plain();
    c.epoch = 2;
    c.n_blocks = 2;
    restart(b, c);
    assert_int_equal(b->n_finished, 1);
    assert_int_equal(b->last.request, 1);
    assert_int_equal(b->last.err, ERR_NO_BLOCKS);
    assert_non_null(strstr(b->text, "41"));
    assert_non_null(strstr(b->text, "32"));
    run_out(b);
    assert_int_equal(b->last.finish, FINISH_LENGTH);      /* alone, it fills the pool */
    assert_int_equal(b->last.n_generated, 32 - 20 + 1);
    teardown(b);
}

static void fail_all_ends_everything_once(void **state)
{
    (void)state;
    struct bench *b = setup(plain());
    struct gen_request r = request(1, 40, 40);
    r.n = 3;
    submit(b, r);
    submit(b, request(2, 20, 40));
    assert_true(step(b));
    crd_sched_fail_all(b->s, ERR_UNAVAILABLE, "no plan fits", 0);
    crd_sched_check(b->s);
    assert_int_equal(b->n_finished, 4);
    assert_int_equal(b->last.err, ERR_UNAVAILABLE);
    assert_string_equal(b->text, "no plan fits");
    answer(b);
    assert_true(crd_sched_idle(b->s));
    assert_int_equal(b->n_events, 4);
    teardown(b);
}

static void a_result_that_does_not_belong_changes_nothing(void **state)
{
    (void)state;
    struct bench *b = setup(plain());
    submit(b, request(1, 5, 5));
    struct step_result r = {.epoch = 1, .step = 1};
    assert_int_equal(crd_sched_on_result(b->s, &r, 0), ERR_LINK_PROTOCOL);
    assert_true(step(b));
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
    run_out(b);
    assert_int_equal(b->n_tokens, 5);
    teardown(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_is_bounded),
        cmocka_unit_test(too_long_is_refused_with_the_numbers),
        cmocka_unit_test(senseless_requests_are_refused),
        cmocka_unit_test(decodes_come_first_and_prefill_takes_the_rest),
        cmocka_unit_test(an_input_may_be_the_output_of_a_step_in_flight),
        cmocka_unit_test(stages_are_kept_busy_by_equal_micro_batches),
        cmocka_unit_test(a_prompt_cut_in_chunks_waits_for_no_stage),
        cmocka_unit_test(penalties_get_the_history_others_none),
        cmocka_unit_test(priority_goes_before_arrival),
        cmocka_unit_test(a_prefix_is_found_once_its_step_was_sent),
        cmocka_unit_test(generated_tokens_are_found_by_the_next_turn),
        cmocka_unit_test(choices_share_the_prompt_without_a_prefix_cache),
        cmocka_unit_test(blocks_come_back_when_the_last_step_has_retired),
        cmocka_unit_test(a_slot_is_given_away_only_with_an_end_record),
        cmocka_unit_test(tokens_past_a_stop_are_discarded),
        cmocka_unit_test(the_first_by_priority_and_arrival_is_never_preempted),
        cmocka_unit_test(a_restart_goes_on_from_the_known_tokens),
        cmocka_unit_test(a_smaller_replica_ends_what_no_longer_fits),
        cmocka_unit_test(fail_all_ends_everything_once),
        cmocka_unit_test(a_result_that_does_not_belong_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
