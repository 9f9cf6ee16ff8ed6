/* step_link_local.c: the link to worker threads of this process. Messages are encoded and decoded
 * as on the wire, so that a test over it meets the same bytes and the same refusals. */
#include "transport/step_link.h"

#include <stdlib.h>
#include <string.h>

struct link_local {
    struct trn_step_link base; /* first: the table's functions cast back */
    int32_t n;
    struct mailbox *ranks[LIMIT_RANKS];
};

static enum err post(struct mailbox *to, const struct control_msg *m)
{
    struct buf b = {0};
    struct control_msg *copy = NULL;
    control_encode(m, &b);
    enum err rc = control_decode(b.data, b.len, &copy);
    if (!rc) mailbox_put(to, copy);
    buf_free(&b);
    return rc;
}

static enum err local_send(struct trn_step_link *l, const void *packed, size_t n)
{
    struct control_msg m = {.type = MSG_STEP_PLAN, .bytes = {packed, n}};
    return post(((struct link_local *)l)->ranks[0], &m);
}

static void local_wake(struct trn_step_link *l)
{
    struct link_local *k = (struct link_local *)l;
    struct control_msg m = {.type = MSG_WAKE};
    for (int32_t i = 0; i < k->n; i++) {
        enum err rc = post(k->ranks[i], &m);
        ASSERT(!rc);
    }
}

static void local_close(struct trn_step_link *l) { free(l); }

static const struct trn_step_link_ops local_ops = {"local", local_send, local_wake, local_close};

struct trn_step_link *trn_step_link_local_open(struct mailbox *const ranks[], int32_t n)
{
    ASSERT(n >= 1 && n <= LIMIT_RANKS);
    struct link_local *k = xcalloc(1, sizeof *k);
    k->base.ops = &local_ops;
    k->n = n;
    memcpy(k->ranks, ranks, (size_t)n * sizeof *ranks);
    return &k->base;
}

void trn_step_link_local_reply(struct mailbox *owner, const struct step_result *r)
{
    struct buf b = {0};
    step_result_pack(r, &b);
    struct control_msg m = {.type = MSG_STEP_RESULT, .bytes = {b.data, b.len}};
    enum err rc = post(owner, &m);
    ASSERT(!rc); /* a fake worker's result is ours, and fits */
    buf_free(&b);
}
