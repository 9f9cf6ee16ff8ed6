/* rpc_client.c: a worker's side: one channel, one session. See rpc_core.h.
 *
 * Before the session is CONNECTED, a call that fails because nobody listens yet is tried again
 * every RETRY_US until the time is over: workers and coordinator start in any order. A refusal
 * (wrong key, other version) is final. After CONNECTED nothing is tried again: what a lost session
 * means is for the owner to decide. */
#include "transport/rpc_core.h"

#include "base/clock.h"
#include "base/log.h"

#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_US = 200000 };

struct rpc_client {
    struct rpc_core core;
    grpc_channel *channel;
    int64_t timeout_us;
    /* [rpc] */
    struct rpc_peer *peer;           /* NULL once retired */
    int64_t deadline_us;             /* INT64_MAX once connected */
    int64_t retry_us;                /* INT64_MAX: a call is under way */
    char last[200];                  /* what the last failed call said */
    const char *why;                 /* the same of TLS, in our words; NULL: it was not that */
    bool tls;                        /* [init] */
};

/* ---- the role ---- */

static void name_end(struct rpc_peer *p, struct rpc_client *c)
{
    const char *at = c->core.address;
    p->orderly = p->connected && p->status == GRPC_STATUS_OK;
    if (p->orderly)
        rpc_peer_reason(p, ERR_LINK_CLOSED, "%s at %s closed the connection", rpc_peer_name(p), at);
    else if (p->connected)
        rpc_peer_reason(p, ERR_LINK_CLOSED, "the connection to %s at %s was lost: %s",
                        rpc_peer_name(p), at, c->last);
    else if (p->status == GRPC_STATUS_UNAUTHENTICATED)
        rpc_peer_reason(p, ERR_LINK_AUTH, "%s refused this side: %s", at, c->last);
    else if (p->status == GRPC_STATUS_INVALID_ARGUMENT)
        rpc_peer_reason(p, ERR_LINK_PROTOCOL, "%s refused this side: %s", at, c->last);
    else if (p->status == GRPC_STATUS_UNIMPLEMENTED)
        rpc_peer_reason(p, ERR_LINK_PROTOCOL, "%s is no tessera coordinator: %s", at, c->last);
}

/* It is tried again, since files may be replaced; but nobody has to wait for the end of that to learn of it. */
static void tls_end(struct rpc_peer *p, struct rpc_client *c)
{
    const char *why = p->connected || p->status != GRPC_STATUS_UNAVAILABLE ? NULL : rpc_tls_client_why(c->last, c->tls);
    if (why && why != c->why) log_warn("rpc", "no session with %s yet: %s", c->core.address, why);
    c->why = why;
}

static void on_status(struct rpc_tag *t, bool ok)
{
    struct rpc_peer *p = t->owner;
    struct rpc_client *c = p->core->owner;
    (void)ok;
    rpc_printable(c->last, sizeof c->last, (const char *)GRPC_SLICE_START_PTR(p->details),
                  GRPC_SLICE_LENGTH(p->details));
    grpc_slice_unref(p->details);
    tls_end(p, c);
    name_end(p, c);
    pthread_mutex_lock(&p->lock);
    p->ended = true;
    pthread_mutex_unlock(&p->lock);
    rpc_peer_done(p);
}

/* The server's initial metadata: with hello 2, or none when the call has failed and its status says
 * why. */
static void on_hello(struct rpc_tag *t, bool ok)
{
    struct rpc_peer *p = t->owner;
    const grpc_slice *hello = ok ? rpc_find_hello(&p->initial_md) : NULL;
    if (hello) {
        rpc_peer_hello(p, GRPC_SLICE_START_PTR(*hello), GRPC_SLICE_LENGTH(*hello));
        if (p->connected) rpc_peer_read(p);
    }
    rpc_peer_done(p);
}

static void client_begin(struct rpc_peer *p)
{
    grpc_op end = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT},
            start = {.op = GRPC_OP_SEND_INITIAL_METADATA};
    grpc_op hello = {.op = GRPC_OP_RECV_INITIAL_METADATA};
    grpc_metadata_array_init(&p->initial_md);
    grpc_metadata_array_init(&p->trailing_md);
    end.data.recv_status_on_client.trailing_metadata = &p->trailing_md;
    end.data.recv_status_on_client.status = &p->status;
    end.data.recv_status_on_client.status_details = &p->details;
    start.data.send_initial_metadata.count = 1;
    start.data.send_initial_metadata.metadata = &p->hello;
    hello.data.recv_initial_metadata.recv_initial_metadata = &p->initial_md;
    p->t_end = (struct rpc_tag){on_status, p};
    p->t_hello = (struct rpc_tag){on_hello, p};
    rpc_peer_batch(p, &end, 1, &p->t_end);
    rpc_peer_batch(p, &start, 1, &p->t_start);
    rpc_peer_batch(p, &hello, 1, &p->t_hello);
}

static void client_finish(struct rpc_peer *p)
{
    grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
    rpc_peer_batch(p, &op, 1, &p->t_finish);
}

static bool is_final(struct rpc_peer *p)
{
    pthread_mutex_lock(&p->lock);
    bool final = p->connected || p->err;
    pthread_mutex_unlock(&p->lock);
    return final;
}

static void retire(struct rpc_client *c)
{
    struct rpc_peer *p = c->peer;
    c->peer = NULL;
    rpc_peer_retire(p, true);
    grpc_completion_queue_shutdown(c->core.cq);
}

static void client_over(struct rpc_peer *p)
{
    struct rpc_client *c = p->core->owner;
    grpc_metadata_array_destroy(&p->initial_md);
    grpc_metadata_array_destroy(&p->trailing_md);
    if (is_final(p))
        retire(c);
    else
        c->retry_us = clock_us() + RETRY_US;
}

static void try_call(struct rpc_client *c)
{
    c->retry_us = INT64_MAX;
    grpc_call *call = grpc_channel_create_call(
        c->channel, NULL, GRPC_PROPAGATE_DEFAULTS, c->core.cq,
        grpc_slice_from_static_string(RPC_METHOD), NULL, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    enum err rc = rpc_peer_begin(c->peer, call, NULL, 0);
    ASSERT(!rc);
}

static void time_out(struct rpc_client *c)
{
    c->deadline_us = INT64_MAX;
    rpc_peer_reason(c->peer, ERR_LINK_CLOSED, "no session with %s within %.1f s: %s",
                    c->core.address, (double)c->timeout_us / 1e6,
                    c->why ? c->why : *c->last ? c->last : "it did not answer");
    rpc_peer_cancel(c->peer, GRPC_STATUS_CANCELLED, "too late");
}

static int64_t client_tick(struct rpc_core *core, int64_t now)
{
    struct rpc_client *c = core->owner;
    if (!c->peer) return INT64_MAX;
    if (c->peer->connected) c->deadline_us = INT64_MAX;
    if (now >= c->deadline_us) time_out(c);
    bool waiting = c->retry_us != INT64_MAX;
    if (waiting && is_final(c->peer)) {
        retire(c);
        return INT64_MAX;
    }
    if (now >= c->retry_us) try_call(c);
    return MIN(c->deadline_us, c->retry_us);
}

static const struct rpc_role client_role = {.server = false,
                                            .begin = client_begin,
                                            .finish = client_finish,
                                            .over = client_over,
                                            .tick = client_tick};

/* ---- open, close ---- */

enum err rpc_client_open(struct rpc_client **out, const struct rpc_conf *conf, int32_t timeout_ms,
                         struct mailbox *events)
{
    enum err rc = OK;
    struct rpc_args args;
    grpc_channel_credentials *creds = NULL;
    struct rpc_client *c = xcalloc(1, sizeof *c);
    c->core.owner = c;
    rpc_core_open(&c->core, &client_role, conf, events);
    rpc_args_client(&args, conf);
    TRY(rpc_creds_client(conf, &creds));
    c->tls = conf->tls_ca || conf->tls_cert;
    c->channel = grpc_channel_create(conf->address, creds, &args.all);
    c->timeout_us = (int64_t)timeout_ms * 1000;
    c->deadline_us = clock_us() + c->timeout_us;
    c->peer = rpc_peer_new(&c->core, conf->address);
    c->retry_us = 0;
    rc = rpc_core_start(&c->core);
    ASSERT(!rc);
    *out = c;
    c = NULL;
out:
    if (creds) grpc_channel_credentials_release(creds);
    if (c) {
        grpc_completion_queue_shutdown(c->core.cq);
        rpc_core_close(&c->core);
        free(c);
    }
    return rc;
}

void rpc_client_close(struct rpc_client *c)
{
    if (!c) return;
    pthread_mutex_lock(&c->core.lock);
    for (struct rpc_peer *p = c->core.peers; p; p = p->next) rpc_peer_close(p);
    pthread_mutex_unlock(&c->core.lock);
    if (!rpc_core_wait(&c->core, RPC_FLUSH_US)) {
        pthread_mutex_lock(&c->core.lock);
        for (struct rpc_peer *p = c->core.peers; p; p = p->next)
            rpc_peer_cancel(p, GRPC_STATUS_CANCELLED, "closed");
        pthread_mutex_unlock(&c->core.lock);
    }
    rpc_core_join(&c->core);
    grpc_channel_destroy(c->channel);
    rpc_core_close(&c->core);
    free(c);
}
