/* test_step_link.c: the link to worker threads of this process (the one over gRPC is in
 * test_rpc.c). */
#include "proto/control.h"
#include "transport/step_link.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct control_msg *take(struct mailbox *m, enum control_type type)
{
    struct control_msg *msg = mailbox_get(m, 0);
    assert_non_null(msg);
    assert_int_equal(msg->type, type);
    return msg;
}

static void plans_go_to_the_lead_and_wake_to_all(void **state)
{
    (void)state;
    struct mailbox *ranks[3];
    for (int i = 0; i < 3; i++) ranks[i] = mailbox_open();
    struct trn_step_link *l = trn_step_link_local_open(ranks, 3);
    assert_string_equal(l->ops->name, "local");
    trn_step_link_wake(l);
    for (int i = 0; i < 3; i++) control_msg_free(take(ranks[i], MSG_WAKE));
    for (uint64_t step = 1; step <= 3; step++)
        assert_int_equal(trn_step_link_send(l, &(struct step_plan){.epoch = 2, .step = step}), OK);
    for (uint64_t step = 1; step <= 3; step++) {
        struct control_msg *m = take(ranks[0], MSG_STEP_PLAN);
        struct step_bounds b = {1, 1, 1, 1, 16};
        struct step_plan p;
        struct arena a = {0};
        assert_int_equal(step_plan_unpack(&p, m->bytes.data, m->bytes.n, &b, &a), OK);
        assert_true(p.step == step && p.epoch == 2);
        arena_free(&a);
        control_msg_free(m);
    }
    trn_step_link_close(l);
    trn_step_link_close(NULL);
    for (int i = 0; i < 3; i++) {
        assert_null(mailbox_get(ranks[i], 0));
        mailbox_close(ranks[i]);
    }
}

static void results_come_back_as_messages(void **state)
{
    (void)state;
    struct mailbox *owner = mailbox_open();
    struct result_item item = {.slot = 3, .n_tokens = 1, .tokens[0].id = 42, .finish = FINISH_STOP};
    trn_step_link_local_reply(
        owner, &(struct step_result){.epoch = 2, .step = 9, .n_items = 1, .items = &item});
    struct control_msg *m = take(owner, MSG_STEP_RESULT);
    struct step_result r;
    struct arena a = {0};
    assert_int_equal(step_result_unpack(&r, m->bytes.data, m->bytes.n, &a), OK);
    assert_true(r.step == 9 && r.n_items == 1 && r.items[0].tokens[0].id == 42 &&
                r.items[0].finish == FINISH_STOP);
    arena_free(&a);
    control_msg_free(m);
    mailbox_close(owner);
}

static void a_plan_over_the_limit_is_not_sent(void **state)
{
    (void)state;
    enum { N = 5 << 20 };
    struct mailbox *lead = mailbox_open();
    struct trn_step_link *l = trn_step_link_local_open(&lead, 1);
    int32_t *ids = calloc(N, sizeof *ids);
    struct step_table t = {.n = N, .ids = ids};
    assert_int_equal(
        trn_step_link_send(l, &(struct step_plan){.step = 1, .n_tables = 1, .tables = &t}),
        ERR_LINK_PROTOCOL);
    assert_non_null(strstr(err_text(), "at most 16777216 are allowed"));
    assert_null(mailbox_get(lead, 0));
    free(ids);
    trn_step_link_close(l);
    mailbox_close(lead);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_go_to_the_lead_and_wake_to_all),
        cmocka_unit_test(results_come_back_as_messages),
        cmocka_unit_test(a_plan_over_the_limit_is_not_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
