/* watch: what moves its layer counter is slow, what does not hangs; who hangs is named with where it was. The clock is real, so time-outs are short
 * beside the loops here; the replica has no thread and no processes. */
#include "coordinator/replica/state.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { STALL_US = 1000000, N = 2 };

static void on_event(void *user, const struct token_event *e)
{
    if (e->kind == EVENT_FINISH) snprintf(user, 600, "%s", e->text);
}

/* Two ranks with one sequence in flight. */
static struct crd_replica *replica(char said[600])
{
    struct crd_replica *r = xcalloc(1, sizeof *r);
    struct sched_conf c = {.epoch = 1, .n_blocks = 8, .n_slots = 4, .n_stages = 1, .depth = 2, .max_step_tokens = 64, .context = 64, .max_waiting = 4};
    int32_t prompt[3] = {1, 2, 3};
    struct gen_request q = {.id = 7, .weight = 1, .n_prompt = 3, .prompt = prompt, .n = 1, .sampling = {.max_tokens = 4, .n_prompt_logprobs = -1}};
    pthread_mutex_init(&r->lock, NULL);
    r->conf = (struct replica_conf){.stall_us = STALL_US};
    r->state = REPLICA_READY;
    r->awake = true;
    r->n_ranks = N;
    r->culprit = -1;
    r->sched = crd_sched_open(&c, on_event, said);
    assert_int_equal(crd_sched_submit(r->sched, &q, clock_us()), OK);
    for (int i = 0; i < N; i++) {
        snprintf(r->ranks[i].info.host, sizeof r->ranks[i].info.host, "host-%c", 'a' + i);
        snprintf(r->ranks[i].info.device, sizeof r->ranks[i].info.device, "cpu");
        r->ranks[i].info.pid = 100 + i;
        crd_reach_end(&r->ranks[i].reach);
    }
    crd_watch_start(r);
    return r;
}

static void free_replica(struct crd_replica *r)
{
    crd_ranks_forget(r);
    crd_sched_close(r->sched);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static void beat(struct crd_replica *r, int i, const struct msg_telemetry *t)
{
    r->ranks[i].info.seen_us = clock_us();
    crd_watch_heartbeat(r, &r->ranks[i], t);
}

/* One step that takes two and a half times as long as a hang may, layer after layer. */
static void a_slow_step_is_no_hang(void **state)
{
    char said[600] = "";
    struct crd_replica *r = replica(said);
    (void)state;
    int64_t begin = clock_us();
    for (int32_t layer = 0; clock_us() - begin < 5 * STALL_US / 2; layer++) {
        for (int i = 0; i < N; i++) beat(r, i, &(struct msg_telemetry){.step = 5, .layer = layer, .op = "", .op_rank = -1});
        crd_watch_check(r);
        clock_sleep_us(STALL_US / 20);
    }
    assert_int_equal(r->state, REPLICA_READY);
    assert_string_equal(said, "");
    free_replica(r);
}

/* As slow, but rank 1 never comes to the collective that rank 0 waits in. */
static void without_progress_the_one_that_is_waited_for_is_named(void **state)
{
    char said[600] = "";
    struct crd_replica *r = replica(said);
    (void)state;
    int64_t begin = clock_us();
    for (int n = 0; r->state == REPLICA_READY && clock_us() - begin < 20 * STALL_US; n++) {
        beat(r, 0, &(struct msg_telemetry){.step = 5, .layer = 3, .op = "all_reduce", .op_seq = 47, .op_waited_us = n, .op_rank = 1});
        beat(r, 1, &(struct msg_telemetry){.step = 5, .layer = 2, .op = "", .op_rank = -1});
        crd_watch_check(r);
        clock_sleep_us(STALL_US / 20);
    }
    assert_true(clock_us() - begin >= STALL_US);
    assert_int_equal(r->state, REPLICA_LOST);
    assert_int_equal(r->culprit, 1);
    assert_non_null(strstr(said, "rank 1 (host-b, cpu, pid 101) stalls: no progress past step 5, layer 2"));
    assert_non_null(strstr(said, "rank 0 waits for it in all_reduce #47 (layer 3)"));
    free_replica(r);
}

static void with_nothing_to_do_nobody_hangs(void **state)
{
    char said[600] = "";
    struct crd_replica *r = replica(said);
    (void)state;
    crd_sched_cancel(r->sched, 7, clock_us());
    said[0] = 0;
    for (int i = 0; i < N; i++) r->ranks[i].moved_us = r->ranks[i].info.seen_us = clock_us() - 10 * STALL_US;
    assert_false(crd_watch_due(r));
    crd_watch_check(r);
    assert_int_equal(r->state, REPLICA_READY);
    free_replica(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_step_is_no_hang),
        cmocka_unit_test(without_progress_the_one_that_is_waited_for_is_named),
        cmocka_unit_test(with_nothing_to_do_nobody_hangs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
