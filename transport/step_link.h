/* step_link.h: how a scheduler's owner hands plans to its replica, whatever carries them.
 *
 * rpc: gRPC sessions of real workers. local: mailboxes of worker threads in this process (tests,
 * simulator). A link only sends. Results come back into the owner's own mailbox as struct
 * control_msg of type MSG_STEP_RESULT: for local the worker puts them there
 * (trn_step_link_local_reply), for rpc whoever reads the server's events moves e->msg over. Thr:
 * one, the owner's. Nothing here blocks. */
#ifndef TRANSPORT_STEP_LINK_H
#define TRANSPORT_STEP_LINK_H

#include "base/mailbox.h"
#include "proto/step_plan.h"
#include "proto/step_result.h"
#include "transport/rpc.h"

struct trn_step_link;

struct trn_step_link_ops {
    const char *name; /* "rpc" | "local" */
    /* all required */
    enum err (*send)(struct trn_step_link *l, const void *packed, size_t n); /* to the lead rank */
    void (*wake)(struct trn_step_link *l);                                     /* to every rank */
    void (*close)(struct trn_step_link *l);
};

struct trn_step_link {
    const struct trn_step_link_ops *ops;
    struct buf packed;        /* reused from step to step */
};

/* Pack a plan and send it to the lead rank, in order. Err LINK_PROTOCOL: longer than
 * LIMIT_STEP_BYTES; nothing was sent. That a rank is lost is told by its session's events, not
 * here. */
MUST_USE enum err trn_step_link_send(struct trn_step_link *l, const struct step_plan *p);
/* Before the first plan and after each plan with STEP_SLEEP: every rank leaves its sleep and enters
 * the group's rhythm. */
void trn_step_link_wake(struct trn_step_link *l);
/* NULL-safe; the peers and mailboxes stay with their owner. */
void trn_step_link_close(struct trn_step_link *l);

/* ranks[0] is the lead. The peers must outlive the link: close it when the first of them is
 * lost. */
struct trn_step_link *trn_step_link_rpc_open(struct rpc_peer *const ranks[], int32_t n);

/* ranks[i] receives control_msg: MSG_WAKE, and for ranks[0] MSG_STEP_PLAN. Own: the receiver,
 * control_msg_free. */
struct trn_step_link *trn_step_link_local_open(struct mailbox *const ranks[], int32_t n);
/* What a local worker answers with: a result as a control_msg, into the mailbox of the scheduler's
 * owner. */
void trn_step_link_local_reply(struct mailbox *owner, const struct step_result *r);

#endif
