/* step_link_rpc.c: plans to the lead's session, Wake to all of them. */
#include "transport/step_link.h"

#include <stdlib.h>
#include <string.h>

struct link_rpc {
    struct trn_step_link base; /* first: the table's functions cast back */
    int32_t n;
    struct rpc_peer *ranks[LIMIT_RANKS];
};

static enum err rpc_send(struct trn_step_link *l, const void *packed, size_t n)
{
    struct control_msg m = {.type = MSG_STEP_PLAN, .bytes = {packed, n}};
    rpc_peer_send(((struct link_rpc *)l)->ranks[0], &m);
    return OK;
}

static void rpc_wake(struct trn_step_link *l)
{
    struct link_rpc *r = (struct link_rpc *)l;
    struct control_msg m = {.type = MSG_WAKE};
    for (int32_t i = 0; i < r->n; i++) rpc_peer_send(r->ranks[i], &m);
}

static void rpc_close(struct trn_step_link *l) { free(l); }

static const struct trn_step_link_ops rpc_ops = {"rpc", rpc_send, rpc_wake, rpc_close};

struct trn_step_link *trn_step_link_rpc_open(struct rpc_peer *const ranks[], int32_t n)
{
    ASSERT(n >= 1 && n <= LIMIT_RANKS);
    struct link_rpc *r = xcalloc(1, sizeof *r);
    r->base.ops = &rpc_ops;
    r->n = n;
    memcpy(r->ranks, ranks, (size_t)n * sizeof *ranks);
    return &r->base;
}
