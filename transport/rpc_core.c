/* rpc_core.c: one completion queue, one thread, and the clocks it looks at. See rpc_core.h. */
#include "transport/rpc_core.h"

#include "base/clock.h"

#include <grpc/support/time.h>

#include <stdio.h>
#include <string.h>

static gpr_timespec when(int64_t at_us, int64_t now_us)
{
    if (at_us == INT64_MAX) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                        gpr_time_from_micros(MAX(at_us - now_us, 0), GPR_TIMESPAN));
}

static void *loop(void *arg)
{
    struct rpc_core *c = arg;
    for (;;) {
        int64_t now = clock_us();
        int64_t at = c->role->tick(c, now);
        grpc_event ev = grpc_completion_queue_next(c->cq, when(at, now), NULL);
        if (ev.type == GRPC_QUEUE_SHUTDOWN) return NULL;
        if (ev.type != GRPC_OP_COMPLETE) continue;
        struct rpc_tag *t = ev.tag;
        t->fn(t, ev.success);
    }
}

void rpc_core_open(struct rpc_core *c, const struct rpc_role *role, const struct rpc_conf *conf,
                   struct mailbox *events)
{
    pthread_condattr_t a;
    rpc_quiet();
    grpc_init();
    c->role = role;
    c->key = *conf->key;
    snprintf(c->identity, sizeof c->identity, "%s", conf->identity);
    snprintf(c->address, sizeof c->address, "%s", conf->address);
    c->keepalive_ms = conf->keepalive_ms;
    c->keepalive_timeout_ms = conf->keepalive_timeout_ms;
    c->events = events;
    c->cq = grpc_completion_queue_create_for_next(NULL);
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&c->fewer, &a);
    pthread_condattr_destroy(&a);
}

enum err rpc_core_start(struct rpc_core *c)
{
    int e = pthread_create(&c->thread, NULL, loop, c);
    return e ? err_raise(ERR_SYSTEM, "cannot start the rpc thread: %s", strerror(e)) : OK;
}

bool rpc_core_wait(struct rpc_core *c, int64_t timeout_us)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + timeout_us % 1000000 * 1000;
    until.tv_sec += timeout_us / 1000000 + ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    pthread_mutex_lock(&c->lock);
    while (c->n_peers && !pthread_cond_timedwait(&c->fewer, &c->lock, &until)) continue;
    bool none = !c->n_peers;
    pthread_mutex_unlock(&c->lock);
    return none;
}

void rpc_core_join(struct rpc_core *c) { pthread_join(c->thread, NULL); }

void rpc_core_close(struct rpc_core *c)
{
    grpc_completion_queue_destroy(c->cq);
    pthread_cond_destroy(&c->fewer);
    pthread_mutex_destroy(&c->lock);
    grpc_shutdown();
}
