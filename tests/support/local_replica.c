/* local_replica.c: see local_replica.h. */
#include "tests/support/local_replica.h"

#include "base/clock.h"
#include "base/mailbox.h"
#include "transport/coll_open.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rank {
    struct local_replica *r;
    pthread_t thread;
    struct eng_engine_conf conf;
    struct eng_engine *engine;
    struct trn_coll *tp, *world;
    char device[24], why[TRN_NCCL_WHY];
    struct mailbox *in;
    struct buf *kept; /* taken from it while a step was in hand */
    _Atomic(enum err) err; /* read by who receives */
    char text[1024];
};

struct local_replica {
    int32_t n;
    struct rank ranks[COLL_MAX_RANKS];
    struct mailbox *opened, *results; /* struct rank *; struct buf * */
    bool stopped;
};

struct step {
    struct arena a;
    struct step_plan p;
    struct step_result res;
};

static enum err begin(struct rank *k, const struct buf *plan, bool only_ahead, bool *begun, struct step *s)
{
    enum err rc;
    struct step_bounds b = eng_engine_bounds(k->engine);
    *begun = false;
    TRY(step_plan_unpack(&s->p, plan->data, plan->len, &b, &s->a));
    if (only_ahead && !eng_engine_may_begin(k->engine, &s->p)) arena_free(&s->a);
    else {
        TRY(eng_engine_begin(k->engine, &s->p, &s->a, &s->res));
        *begun = true;
    }
out:
    return rc;
}

static void free_plan(struct buf *plan)
{
    if (plan) buf_free(plan);
    free(plan);
}

/* As worker/step_loop.c does it: the first rank, who answers, no longer than it must wait for the device, the others until there is a next plan. */
static enum err begin_ahead(struct rank *k, struct step *s, bool *begun)
{
    enum err rc = OK;
    const bool lead = k == k->r->ranks;
    *begun = false;
    for (bool came = false; eng_engine_overlaps(k->engine) && !k->kept && !(came && lead);) {
        k->kept = mailbox_get(k->in, came ? -1 : 0);
        if (k->kept && k->kept->len) TRY(begin(k, k->kept, true, begun, s));
        if (*begun) {
            free_plan(k->kept);
            k->kept = NULL;
            break;
        }
        if (!came) TRY(eng_engine_came(k->engine, &came));
        if (!came) clock_sleep_us(20);
    }
out:
    return rc;
}

static void answer(struct rank *k, const struct step *s)
{
    struct buf *out = xcalloc(1, sizeof *out);
    if (!k->err) step_result_pack(&s->res, out);
    mailbox_put(k->r->results, out);
}

/* The text first: whoever sees the error reads it. */
static void failed(struct rank *k, enum err e)
{
    strncpy(k->text, err_text(), sizeof k->text - 1);
    k->err = e;
}

static void run_plan(struct rank *k, struct buf *plan)
{
    struct step two[2] = {0};
    int32_t now = 0;
    bool more;
    enum err e = begin(k, plan, false, &more, &two[now]);
    for (; more && !e; now = !now) {
        e = begin_ahead(k, &two[!now], &more);
        if (!e) e = eng_engine_end(k->engine);
        if (!e && eng_engine_answers(k->engine)) answer(k, &two[now]);
        arena_free(&two[now].a);
    }
    if (e) failed(k, e);
    if (e) answer(k, NULL);
    for (int32_t i = 0; i < 2; i++) arena_free(&two[i].a);
}

static void *rank_main(void *arg)
{
    struct rank *k = arg;
    enum err e = eng_engine_open(&k->engine, &k->conf);
    if (e) failed(k, e);
    mailbox_put(k->r->opened, k);
    for (bool live = true; live && !k->err;) {
        struct buf *plan = k->kept ? k->kept : mailbox_get(k->in, -1);
        k->kept = NULL;
        if (!plan) break;
        live = plan->len; /* an empty one is the end */
        if (live) run_plan(k, plan);
        free_plan(plan);
    }
    trn_coll_close(k->tp);
    trn_coll_close(k->world);
    return NULL;
}

/* Where a rank that has no files looks for them. */
static const char *const nowhere[LIMIT_ADAPTERS] = {[0 ... LIMIT_ADAPTERS - 1] = "/nowhere/adapter"};

static enum err sum_by_nccl(void *user, const struct trn_device *d, struct trn_coll **out)
{
    struct rank *k = user;
    struct trn_nccl_conf c = {.host = k->tp, .device = d, .exact = true, .timeout_us = 20000000};
    return trn_coll_nccl_open(out, &c, k->why);
}

static enum err sum_direct(void *user, const struct trn_device *d, struct trn_coll **out)
{
    struct rank *k = user;
    struct trn_direct_conf c = {.host = k->tp, .device = d, .by_peers = true, .timeout_us = 20000000};
    return trn_coll_direct_open(out, &c, k->why);
}

static enum err open_colls(struct local_replica *r, const struct grid *g)
{
    enum err rc;
    struct trn_coll *world[COLL_MAX_RANKS], *tp[COLL_MAX_RANKS];
    int32_t first = 0;
    TRY(trn_coll_local_open(world, r->n));
    for (int32_t s = 0; s < g->n_stages; first += g->width[s++]) {
        TRY(trn_coll_local_open(tp, g->width[s]));
        for (int32_t i = 0; i < g->width[s]; i++) r->ranks[first + i].tp = tp[i];
    }
    for (int32_t i = 0; i < r->n; i++) r->ranks[i].world = world[i];
out:
    return rc;
}

enum err local_replica_open(struct local_replica **out, const struct local_replica_conf *c)
{
    enum err rc;
    struct grid g;
    struct model_info info;
    int32_t context = c->context ? c->context : 512;
    if (c->grid) rc = OK, g = *c->grid;
    else TRY(eng_engine_grid(c->path, c->tp ? c->tp : 1, c->pp ? c->pp : 1, &g));
    g.whole_experts |= c->whole_experts;
    TRY(eng_engine_model_info(c->path, &info));
    int32_t n_tables = c->exact_blocks ? 1 : kv_groups_of_model(&info, context).n;
    struct local_replica *r = xcalloc(1, sizeof *r);
    r->n = grid_ranks(&g);
    r->opened = mailbox_open();
    r->results = mailbox_open();
    TRY(open_colls(r, &g));
    for (int32_t i = 0; i < r->n; i++) {
        struct rank *k = &r->ranks[i];
        k->r = r;
        k->in = mailbox_open();
        snprintf(k->device, sizeof k->device, "cuda:%d", c->nccl || c->direct ? i : 0);
        k->conf = (struct eng_engine_conf){
            .tp_device = c->nccl ? sum_by_nccl : c->direct ? sum_direct : NULL, .tp_user = k,
            .model_path = c->without_file >> i & 1 ? "/nowhere/model.gguf" : c->path, .cache_dir = c->cache_dir, .cache_bytes = c->cache_bytes, .grid = g, .rank = i, .tp = k->tp, .world = k->world, .n_threads = c->n_threads ? c->n_threads : 1,
            .adapters = {c->adapters.n, c->without_file >> i & 1 ? nowhere : c->adapters.paths, c->adapters.sums},
            .context = context, .n_blocks = n_tables * (c->n_blocks ? c->n_blocks : 4 * DIV_UP(context, 16)), .n_slots = c->n_slots ? c->n_slots : 16,
            .max_step_tokens = c->max_step_tokens ? c->max_step_tokens : 512, .kv_type = c->kv_type, .oracle = c->oracle, .rounded = c->rounded,
            .isa = c->isa ? c->isa : "auto", .device = c->on_device >> i & 1 ? k->device : "cpu", .timeout_us = c->timeout_us ? c->timeout_us : 20000000};
        ASSERT(!pthread_create(&k->thread, NULL, rank_main, k));
    }
    for (int32_t i = 0; i < r->n; i++) mailbox_get(r->opened, -1);
    for (int32_t i = 0; i < r->n; i++) /* who lost a peer says least of why */
        if (r->ranks[i].err && (!rc || rc == ERR_PEER_LOST)) rc = err_raise(r->ranks[i].err, "%s", r->ranks[i].text);
    if (rc) local_replica_close(r);
    else *out = r;
out:
    return rc;
}

void local_replica_stop(struct local_replica *r)
{
    for (int32_t i = 0; i < r->n && !r->stopped; i++) mailbox_put(r->ranks[i].in, xcalloc(1, sizeof(struct buf)));
    for (int32_t i = 0; i < r->n && !r->stopped; i++) pthread_join(r->ranks[i].thread, NULL);
    r->stopped = true;
}

void local_replica_close(struct local_replica *r)
{
    if (!r) return;
    local_replica_stop(r);
    for (int32_t i = 0; i < r->n; i++) {
        struct rank *k = &r->ranks[i];
        eng_engine_close(k->engine);
        free_plan(k->kept);
        for (struct buf *b; (b = mailbox_get(k->in, 0));) free_plan(b);
        mailbox_close(k->in);
    }
    for (struct buf *b; (b = mailbox_get(r->results, 0));) {
        buf_free(b);
        free(b);
    }
    mailbox_close(r->opened);
    mailbox_close(r->results);
    free(r);
}

void local_replica_send(struct local_replica *r, const struct step_plan *p)
{
    for (int32_t i = 0; i < r->n; i++) {
        struct buf *b = xcalloc(1, sizeof *b);
        step_plan_pack(p, b);
        mailbox_put(r->ranks[i].in, b);
    }
}

enum err local_replica_recv(struct local_replica *r, struct arena *a, struct step_result *out)
{
    struct buf *b = mailbox_get(r->results, 60000000);
    enum err e = b ? OK : err_raise(ERR_DEADLINE, "no result came");
    for (int32_t i = 0; i < r->n; i++)
        if (r->ranks[i].err) e = err_raise(r->ranks[i].err, "rank %d: %s", i, r->ranks[i].text);
    if (!e) e = step_result_unpack(out, b->data, b->len, a);
    if (b) buf_free(b);
    free(b);
    return e;
}

const char *local_replica_why(struct local_replica *r, int32_t rank) { return r->ranks[rank].text; }

enum err local_replica_step(struct local_replica *r, const struct step_plan *p, struct arena *a, struct step_result *out)
{
    local_replica_send(r, p);
    return local_replica_recv(r, a, out);
}

void local_replica_bounds(struct local_replica *r, struct step_bounds *out) { *out = eng_engine_bounds(r->ranks[0].engine); }

void local_replica_info(struct local_replica *r, int32_t rank, struct eng_engine_info *out) { eng_engine_info(r->ranks[rank].engine, out); }

void local_replica_settle(struct local_replica *r)
{
    for (int32_t i = 0; i < r->n; i++) eng_engine_settle(r->ranks[i].engine);
}

int64_t local_replica_weight_bytes(struct local_replica *r, int32_t rank)
{
    struct eng_engine_info i;
    eng_engine_info(r->ranks[rank].engine, &i);
    return i.weight_bytes;
}

uint64_t local_replica_bytes_sent(struct local_replica *r, int32_t rank) { return r->ranks[rank].tp->stats.bytes_sent; }

const char *local_replica_sums_by(struct local_replica *r, int32_t rank)
{
    struct trn_coll *c = eng_engine_tp_device(r->ranks[rank].engine);
    return c ? c->ops->name : r->ranks[rank].why;
}
