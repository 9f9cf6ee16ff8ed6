/* step_loop.c: see step_loop.h.
 *
 * Asleep, a rank waits on its control stream and never inside MPI. Wake makes every rank enter the group's rhythm: the lead takes
 * each plan from its control stream and sends it to the others, until a plan says STEP_SLEEP. Wake and sleep are paired by the
 * coordinator, and each stream is in order, so no rank can miss one.
 *
 * When the coordinator is lost, ranks learn of it at different moments, some awake, some asleep, some with messages that others never got.
 * So the lead, once it knows, drops the plans it has not begun and sends every other rank PARK, exactly once; every other rank, once it knows,
 * does what the lead says until PARK, awake or not. What is in a mailbox before the mark of a loss is from before it, and dropped. */
#include "worker/step_loop.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

enum { PUSH_US = 100 }; /* between two looks at what is on its way to the next stage */
enum { SPIN_US = 20000, SLEEP_US = 50 }; /* looks at a device's step: it is shorter than the first */
enum { LEAD = 0, LOST = 0 /* no control_type: the mark of a loss in the mailbox */ };
static const uint64_t PARK = UINT64_MAX; /* in place of a plan's length */

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

static bool is_stale(struct wrk_step_loop *l)
{
    uint32_t n = MAX(atomic_load(&l->n_lost), atomic_load(&l->n_parked));
    return l->n_read < n;
}

static enum err park(struct wrk_step_loop *l)
{
    enum err rc = OK;
    for (int32_t r = 1; r < l->world->size && l->world->rank == LEAD; r++)
        TRY(trn_coll_send(l->world, r, &PARK, sizeof PARK, l->timeout_us));
    TRY(eng_engine_reset(l->engine));
    l->n_after = 0;
    atomic_fetch_add(&l->n_parked, 1);
out:
    return rc;
}

/* What the lead says next. */
static enum err hear(struct wrk_step_loop *l)
{
    enum err rc;
    struct wrk_heard *h = &l->heard;
    TRY(trn_coll_recv(l->world, LEAD, &h->len, sizeof h->len, l->timeout_us));
    h->there = true;
    if (h->len == PARK) return OK;
    if (atomic_load(&l->n_lost) > atomic_load(&l->n_parked) && l->n_after++ > l->depth) {
        rc = err_raise(ERR_LINK_CLOSED, "the coordinator's stream was lost here, the lead rank goes on: no further step");
        goto out;
    }
    if (h->len > LIMIT_STEP_BYTES) {
        rc = err_raise(ERR_LINK_PROTOCOL, "the lead rank announces a step plan of %llu bytes; the limit is %d",
                       (unsigned long long)h->len, LIMIT_STEP_BYTES);
        goto out;
    }
    buf_clear(&h->plan);
    buf_reserve(&h->plan, h->len);
    TRY(trn_coll_recv(l->world, LEAD, h->plan.data, (int64_t)h->len, l->timeout_us));
    h->plan.len = h->len;
out:
    return rc;
}

/* *parked: the lead says so, and it is done. Else l->heard.plan is to be done. */
static enum err take_over(struct wrk_step_loop *l, bool *parked)
{
    enum err rc = OK;
    if (!l->heard.there) TRY(hear(l));
    l->heard.there = false;
    *parked = l->heard.len == PARK;
    if (*parked) rc = park(l);
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

/* A plan, and what becomes of it until it is answered. */
struct step {
    struct arena a;
    struct step_plan p;
    struct step_result r;
};

static enum err read_plan(struct wrk_step_loop *l, const void *data, size_t n, struct step *s)
{
    struct step_bounds bounds = eng_engine_bounds(l->engine);
    return step_plan_unpack(&s->p, data, n, &bounds, &s->a);
}

static enum err begin(struct wrk_step_loop *l, struct step *s)
{
    atomic_store_explicit(&l->step, s->p.step, memory_order_relaxed);
    return eng_engine_begin(l->engine, &s->p, &s->a, &s->r);
}

static enum err end(struct wrk_step_loop *l, struct step *s, struct buf *scratch)
{
    enum err rc;
    struct coll_stats comm;
    TRY(eng_engine_end(l->engine));
    if (eng_engine_answers(l->engine)) reply(l, &s->r, scratch);
    eng_engine_comm(l->engine, &comm);
    atomic_store_explicit(&l->comm_ops, comm.n_ops, memory_order_relaxed);
    atomic_store_explicit(&l->comm_bytes, comm.bytes_sent, memory_order_relaxed);
    atomic_store_explicit(&l->comm_us, comm.wait_us, memory_order_relaxed);
out:
    arena_free(&s->a);
    return rc;
}

static void rest(int64_t since_us)
{
    if (clock_us() - since_us > SPIN_US) clock_sleep_us(SLEEP_US);
}

static bool may_begin(struct wrk_step_loop *l, const void *data, size_t n, struct step *s)
{
    return !read_plan(l, data, n, s) && eng_engine_may_begin(l->engine, &s->p);
}

/* While the lead waits for its device: the next plan, if it comes meanwhile and may be begun. One that may not is kept for next_plan, and is understood
 * again, or refused, when this step has been answered; so is whatever else has come. */
static enum err lead_ahead(struct wrk_step_loop *l, struct step *s, bool *begun)
{
    enum err rc = OK;
    const int64_t since = clock_us();
    for (bool came = false; !l->kept && !came && !*begun;) {
        l->kept = mailbox_get(l->in, 0);
        if (l->kept && l->kept->type == MSG_STEP_PLAN && !is_stale(l)) *begun = may_begin(l, l->kept->bytes.data, l->kept->bytes.n, s);
        if (*begun) TRY(hand_over(l, l->kept->bytes.data, l->kept->bytes.n));
        else TRY(eng_engine_came(l->engine, &came));
        if (!*begun && !came) rest(since);
    }
    if (!*begun) goto out;
    control_msg_free(l->kept);
    l->kept = NULL;
    rc = begin(l, s);
out:
    return rc;
}

/* The others: what the lead says next, be it after the device is done; until then they look at both. */
static enum err follow_ahead(struct wrk_step_loop *l, struct step *s, bool *begun)
{
    enum err rc = OK;
    const int64_t since = clock_us();
    for (bool came = false; !l->heard.there;) {
        if (came || trn_coll_has(l->world, LEAD)) TRY(hear(l));
        else TRY(eng_engine_came(l->engine, &came));
        if (!l->heard.there && !came) rest(since);
    }
    *begun = l->heard.len != PARK && may_begin(l, l->heard.plan.data, l->heard.plan.len, s);
    if (!*begun) goto out;
    l->heard.there = false;
    rc = begin(l, s);
out:
    return rc;
}

static enum err begin_ahead(struct wrk_step_loop *l, struct step *s, bool *begun)
{
    enum err rc = OK;
    *begun = false;
    if (eng_engine_overlaps(l->engine)) rc = l->world->rank == LEAD ? lead_ahead(l, s, begun) : follow_ahead(l, s, begun);
    if (!*begun) arena_free(&s->a);
    return rc;
}

/* A plan is done and answered, and with it those that were begun on the way. */
static enum err one_step(struct wrk_step_loop *l, const void *data, size_t n, struct buf *scratch, uint32_t *flags)
{
    enum err rc;
    struct step two[2] = {0};
    int32_t now = 0;
    TRY(read_plan(l, data, n, &two[now]));
    const struct step_plan *p = &two[now].p;
    *flags = p->flags;
    bool more = p->n_items + p->n_ends + p->n_starts + p->n_forks + p->n_tables + p->n_copies;
    if (more) TRY(begin(l, &two[now]));
    else atomic_store_explicit(&l->step, p->step, memory_order_relaxed);
    for (; more; now = !now) {
        more = false;
        if (!*flags) TRY(begin_ahead(l, &two[!now], &more));
        TRY(end(l, &two[now], scratch));
    }
out:
    for (int32_t i = 0; i < 2; i++) arena_free(&two[i].a);
    return rc;
}

/* The lead's next plan: NULL when it should leave (Shutdown) or park instead. */
static struct control_msg *next_plan(struct wrk_step_loop *l, bool *lost)
{
    for (;;) {
        struct control_msg *m = l->kept ? l->kept : mailbox_get(l->in, trn_coll_push(l->world) ? PUSH_US : -1);
        l->kept = NULL;
        if (!m) continue;
        if (m->type == MSG_STEP_PLAN && !is_stale(l)) return m;
        /* Wake while awake and Drain change nothing here: sequences end by the plans that are still to come */
        bool leave = m->type == MSG_SHUTDOWN;
        *lost = m->type == (enum control_type)LOST;
        control_msg_free(m);
        if (leave || *lost) return NULL;
    }
}

static enum err rhythm(struct wrk_step_loop *l, bool *leave)
{
    enum err rc = OK;
    struct buf scratch = {0};
    uint32_t flags = 0;
    bool parked = false;
    while (!(flags & (STEP_SLEEP | STEP_SHUTDOWN))) {
        if (l->world->rank == LEAD) {
            struct control_msg *m = next_plan(l, &parked);
            if (parked) {
                l->n_read++;
                rc = park(l);
                break;
            }
            if (!m) {
                *leave = true; /* the others wait for a plan: they leave by their own Shutdown and its grace */
                break;
            }
            rc = hand_over(l, m->bytes.data, m->bytes.n);
            if (!rc) rc = one_step(l, m->bytes.data, m->bytes.n, &scratch, &flags);
            control_msg_free(m);
            if (rc) break;
        } else {
            TRY(take_over(l, &parked));
            if (parked) break;
            TRY(one_step(l, l->heard.plan.data, l->heard.plan.len, &scratch, &flags));
        }
    }
    if (flags & STEP_SHUTDOWN) *leave = true;
out:
    buf_free(&scratch);
    return rc;
}

/* A loss while asleep: the lead parks the others, they do what it says until then. */
static enum err park_asleep(struct wrk_step_loop *l, bool *leave)
{
    l->n_read++;
    enum err rc = OK;
    /* not below: the lead was first, and this rank awake. More than one rhythm: a Wake had not come here */
    while (!rc && !*leave && atomic_load(&l->n_parked) < l->n_read)
        rc = l->world->rank == LEAD ? park(l) : rhythm(l, leave);
    return rc;
}

void wrk_step_loop_lost(struct wrk_step_loop *l)
{
    struct control_msg *m = xcalloc(1, sizeof *m);
    m->type = (enum control_type)LOST;
    atomic_fetch_add(&l->n_lost, 1);
    mailbox_put(l->in, m);
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
        if (type == (enum control_type)LOST) rc = park_asleep(l, &leave);
        if (type != MSG_WAKE || is_stale(l)) continue;
        atomic_store(&l->awake, true);
        rc = rhythm(l, &leave);
        atomic_store(&l->awake, false);
    }
    control_msg_free(l->kept);
    l->kept = NULL;
    buf_free(&l->heard.plan);
    return rc;
}
