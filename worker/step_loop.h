/* step_loop.h: spine 3: receive a plan, hand it to the group, step the engine, reply. Private to worker/. */
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
};

/* Until Shutdown: asleep on the mailbox, or awake in the group's rhythm. Err: what broke the replica. */
MUST_USE enum err wrk_step_loop_run(struct wrk_step_loop *l);

#endif
