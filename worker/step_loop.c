/* step_loop.c: see step_loop.h.
 *
 * Asleep, a rank waits on its control stream and never inside MPI. Wake makes every rank enter the group's rhythm: the lead takes
 * each plan from its control stream and sends it to the others, until a plan says STEP_SLEEP. Wake and sleep are paired by the
 * coordinator, and each stream is in order, so no rank can miss one. */
#include "worker/step_loop.h"

#include <stdlib.h>
#include <string.h>

enum { LEAD = 0 };

/* The lead's packed plan, to every other rank: length, then bytes. */
static enum err hand_over(struct wrk_step_loop *l, const void *data, size_t n)
{
    enum err rc = OK;
    uint64_t len = n;
    for (int32_t r = 1; r < l->world->size; r++) {
        TRY(trn_coll_send(l->world, r, &len, sizeof len, l->timeout_us));
        TRY(trn_coll_send(l->world, r, data, (int64_t)n, l->timeout_us));
    }
out:
    return rc;
}

static enum err take_over(struct wrk_step_loop *l, struct buf *plan)
{
    enum err rc;
    uint64_t len;
    TRY(trn_coll_recv(l->world, LEAD, &len, sizeof len, l->timeout_us));
    if (len > LIMIT_STEP_BYTES) {
        rc = err_raise(ERR_LINK_PROTOCOL, "the lead rank announces a step plan of %llu bytes; the limit is %d",
                       (unsigned long long)len, LIMIT_STEP_BYTES);
        goto out;
    }
    buf_clear(plan);
    buf_reserve(plan, len);
    TRY(trn_coll_recv(l->world, LEAD, plan->data, (int64_t)len, l->timeout_us));
    plan->len = len;
out:
    return rc;
}

static void reply(struct wrk_step_loop *l, const struct step_result *r, struct buf *out)
{
    buf_clear(out);
    step_result_pack(r, out);
    struct control_msg m = {.type = MSG_STEP_RESULT, .bytes = {out->data, out->len}};
    rpc_peer_send(l->coordinator, &m);
}

static enum err one_step(struct wrk_step_loop *l, const void *data, size_t n, struct buf *scratch, uint32_t *flags)
{
    enum err rc;
    struct arena a = {0};
    struct step_plan p;
    struct step_result r;
    struct step_bounds bounds = eng_engine_bounds(l->engine);
    TRY(step_plan_unpack(&p, data, n, &bounds, &a));
    atomic_store_explicit(&l->step, p.step, memory_order_relaxed);
    *flags = p.flags;
    if (p.n_items + p.n_ends + p.n_starts + p.n_forks + p.n_tables + p.n_copies) {
        TRY(eng_engine_step(l->engine, &p, &a, &r));
        if (eng_engine_answers(l->engine)) reply(l, &r, scratch);
        atomic_store_explicit(&l->comm_ops, l->tp->stats.n_ops, memory_order_relaxed);
        atomic_store_explicit(&l->comm_bytes, l->tp->stats.bytes_sent, memory_order_relaxed);
        atomic_store_explicit(&l->comm_us, l->tp->stats.wait_us, memory_order_relaxed);
    }
out:
    arena_free(&a);
    return rc;
}

/* The lead's next plan: NULL when it should leave instead (Shutdown). */
static struct control_msg *next_plan(struct wrk_step_loop *l)
{
    for (;;) {
        struct control_msg *m = mailbox_get(l->in, -1);
        if (!m) continue;
        if (m->type == MSG_STEP_PLAN) return m;
        /* Wake while awake and Drain change nothing here: sequences end by the plans that are still to come */
        bool leave = m->type == MSG_SHUTDOWN;
        control_msg_free(m);
        if (leave) return NULL;
    }
}

static enum err rhythm(struct wrk_step_loop *l, bool *leave)
{
    enum err rc = OK;
    struct buf plan = {0}, scratch = {0};
    uint32_t flags = 0;
    while (!(flags & (STEP_SLEEP | STEP_SHUTDOWN))) {
        if (l->world->rank == LEAD) {
            struct control_msg *m = next_plan(l);
            if (!m) {
                *leave = true; /* the others wait for a plan: they leave by their own Shutdown and its grace */
                break;
            }
            rc = hand_over(l, m->bytes.data, m->bytes.n);
            if (!rc) rc = one_step(l, m->bytes.data, m->bytes.n, &scratch, &flags);
            control_msg_free(m);
            if (rc) break;
        } else {
            TRY(take_over(l, &plan));
            TRY(one_step(l, plan.data, plan.len, &scratch, &flags));
        }
    }
    if (flags & STEP_SHUTDOWN) *leave = true;
out:
    buf_free(&plan);
    buf_free(&scratch);
    return rc;
}

enum err wrk_step_loop_run(struct wrk_step_loop *l)
{
    bool leave = false;
    enum err rc = OK;
    while (!leave && !rc) {
        struct control_msg *m = mailbox_get(l->in, -1);
        if (!m) continue;
        enum control_type type = m->type;
        control_msg_free(m);
        if (type == MSG_SHUTDOWN) break;
        if (type != MSG_WAKE) continue;
        atomic_store(&l->awake, true);
        rc = rhythm(l, &leave);
        atomic_store(&l->awake, false);
    }
    return rc;
}
