/* step_loop.h: spine 3: receive a plan, hand it to the group, step the engine, reply. Private to worker/.
 *
 * A rank whose step was left to a device looks for the next plan while it waits for that, and tells it the next step before it has heard of this one: where
 * the engine allows it (eng_engine_may_begin). Answers go out in order, each as soon as its step has ended. The lead, who answers, waits for no plan; the
 * others, for whose ends nobody waits, end a step when they have heard of the next.
 *
 * When the coordinator is lost the group parks: no rank begins a step that was not handed out before, the lead ends the group's rhythm with a
 * message of its own, and every rank is left after the same step with no sequences, ready for the next coordinator. */
#ifndef WORKER_STEP_LOOP_H
#define WORKER_STEP_LOOP_H

#include "base/mailbox.h"
#include "engine/engine.h"
#include "proto/control.h"
#include "transport/rpc.h"

struct wrk_step_loop {
    struct eng_engine *engine;
    struct trn_coll *world;       /* rank 0 is the lead */
    struct rpc_peer *coordinator;
    struct mailbox *in;           /* struct control_msg: STEP_PLAN (lead), WAKE, DRAIN, SHUTDOWN; from the control thread */
    int64_t timeout_us;
    _Atomic bool awake;           /* [any] between Wake and a plan with STEP_SLEEP */
    _Atomic uint64_t step;        /* [any] last step begun */
    struct trn_coll *tp;          /* this stage's ranks */
    _Atomic uint64_t comm_ops, comm_bytes, comm_us; /* [any] of tp, as of the last step */
    int32_t depth;                /* steps that may be in flight */
    /* Losses of the coordinator: seen by [control], parked after and read in the mailbox by [step], who alone writes the latter two. */
    _Atomic uint32_t n_lost, n_parked;
    uint32_t n_read;
    struct control_msg *kept;     /* [step] taken from `in` while a step was in hand, and not yet looked at; or NULL. Own */
    struct wrk_heard {            /* [step] of other ranks: what the lead said, while a step was in hand and not yet done; or not there */
        bool there;
        uint64_t len;             /* as it comes: a plan's bytes, or that they shall park */
        struct buf plan;
    } heard;
    int32_t n_after;              /* steps taken part in since the stream was lost and before parking */
};

/* [control] The coordinator is gone; once n_parked says as many as n_lost, the step thread uses `coordinator` no more until a message comes. */
void wrk_step_loop_lost(struct wrk_step_loop *l);

/* Until Shutdown: asleep on the mailbox, or awake in the group's rhythm. Err: what broke the replica. */
MUST_USE enum err wrk_step_loop_run(struct wrk_step_loop *l);

#endif
