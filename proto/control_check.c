/* control_check.c: see control_check.h. */
#include "proto/control_check.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { SHARE_MAX = 1 << 24 }; /* no model has more of anything; sums fit 32 bits */

enum err control_need(const char *msg, const char *field, int64_t v, int64_t lo, int64_t hi)
{
    if (v >= lo && v <= hi) return OK;
    return err_raise(ERR_LINK_PROTOCOL, "%s: %s is %" PRId64 ", needed %" PRId64 "..%" PRId64, msg,
                     field, v, lo, hi);
}

static enum err need_real(const char *msg, const char *field, double v)
{
    if (isfinite(v) && v >= 0) return OK;
    return err_raise(ERR_LINK_PROTOCOL, "%s: %s is %g, needed a number of at least 0", msg, field,
                     v);
}

static enum err check_hello(const struct control_msg *m)
{
    const struct msg_hello *h = &m->hello;
    enum err rc = OK;
    TRY(control_need("Hello", "size", h->size, 1, LIMIT_RANKS));
    TRY(control_need("Hello", "rank", h->rank, 0, h->size - 1));
    TRY(control_need("Hello", "host_size", h->host_size, 1, h->size));
    TRY(control_need("Hello", "host_rank", h->host_rank, 0, h->host_size - 1));
    TRY(control_need("Hello", "pid", h->pid, 1, INT32_MAX));
    TRY(control_need("Hello", "n_cpus", h->n_cpus, 1, 1 << 20));
    TRY(control_need("Hello", "mem_total", h->mem_total, 0, INT64_MAX));
    TRY(control_need("Hello", "mem_available", h->mem_available, 0, INT64_MAX));
    TRY(control_need("Hello", "mem_ranks", h->mem_ranks, 1, h->host_size));
    if (!(h->read_bytes_s >= 0 && h->read_bytes_s < 1e18 && h->ops_s >= 0 && h->ops_s < 1e21))
        rc = err_raise(ERR_LINK_PROTOCOL, "Hello: rates of %g B/s and %g op/s make no sense", h->read_bytes_s, h->ops_s);
    for (int32_t i = 0; i < h->n_links && !rc; i++) {
        const struct msg_link *l = &h->links[i];
        TRY(control_need("Hello", "link_rank", l->rank, 0, h->size - 1));
        if (!(l->latency_s > 0 && l->latency_s < 60 && l->bytes_s > 0 && l->bytes_s < 1e15))
            rc = err_raise(ERR_LINK_PROTOCOL, "Hello: a link of %g s and %g B/s makes no sense", l->latency_s, l->bytes_s);
    }
out:
    return rc;
}

static enum err check_progress(const struct control_msg *m)
{
    enum err rc = OK;
    TRY(control_need("LoadProgress", "bytes_total", m->progress.bytes_total, 0, INT64_MAX));
    TRY(control_need("LoadProgress", "bytes_done", m->progress.bytes_done, 0,
                     m->progress.bytes_total));
out:
    return rc;
}

static enum err check_ready(const struct control_msg *m)
{
    enum err rc = OK;
    TRY(control_need("Ready", "weight_bytes", m->ready.weight_bytes, 0, INT64_MAX));
    TRY(control_need("Ready", "kv_bytes", m->ready.kv_bytes, 0, INT64_MAX));
    TRY(control_need("Ready", "n_blocks", m->ready.n_blocks, 0, INT32_MAX));
    TRY(need_real("Ready", "seconds", m->ready.seconds));
    TRY(control_need("Ready", "read_bytes", m->ready.read_bytes, 0, INT64_MAX));
    TRY(control_need("Ready", "received_bytes", m->ready.received_bytes, 0, INT64_MAX));
    TRY(control_need("Ready", "cached_bytes", m->ready.cached_bytes, 0, INT64_MAX));
out:
    return rc;
}

static enum err check_telemetry(const struct control_msg *m)
{
    enum err rc = OK;
    TRY(control_need("Telemetry", "layer", m->telemetry.layer, -1, LIMIT_LAYERS));
    TRY(control_need("Telemetry", "op_waited_us", m->telemetry.op_waited_us, 0, INT64_MAX));
    TRY(control_need("Telemetry", "op_rank", m->telemetry.op_rank, -1, LIMIT_RANKS - 1));
    TRY(control_need("Telemetry", "rss_bytes", m->telemetry.rss_bytes, 0, INT64_MAX));
out:
    return rc;
}

static enum err check_fault(const struct control_msg *m)
{
    int32_t code = m->fault.code;
    if (code <= OK || !strcmp(err_name((enum err)code), "UNKNOWN"))
        return err_raise(ERR_LINK_PROTOCOL,
                         "Fault: code %" PRId32 " is not an error of this program", code);
    return OK;
}

static enum err check_grid(const struct grid *g)
{
    enum err rc = OK;
    int32_t ranks = 0;
    TRY(control_need("LoadPlan", "first stage_layers", g->layers[0], 0, 0));
    for (int32_t i = 0; i < g->n_stages; i++) {
        TRY(control_need("LoadPlan", "stage_layers", g->layers[i + 1], g->layers[i] + 1, LIMIT_LAYERS));
        TRY(control_need("LoadPlan", "stage_width", g->width[i], 1, LIMIT_RANKS - ranks));
        ranks += g->width[i];
    }
    for (int32_t r = 0; r < ranks && g->shared; r++) {
        TRY(control_need("LoadPlan", "share_heads", g->share[r].heads, 1, SHARE_MAX));
        TRY(control_need("LoadPlan", "share_ffn", g->share[r].ffn, 1, SHARE_MAX));
        TRY(control_need("LoadPlan", "share_vocab", g->share[r].vocab, 0, SHARE_MAX));
    }
out:
    return rc;
}

static enum err check_load_plan(const struct control_msg *m)
{
    const struct msg_load_plan *p = &m->load_plan;
    enum err rc = OK;
    TRY(check_grid(&p->grid));
    TRY(control_need("LoadPlan", "n_threads", p->n_threads, 0, 4096));
    TRY(control_need("LoadPlan", "context", p->context, 1, LIMIT_CONTEXT));
    TRY(control_need("LoadPlan", "n_blocks", p->n_blocks, 0, INT32_MAX));
    TRY(control_need("LoadPlan", "n_slots", p->n_slots, 1, LIMIT_SLOTS));
    TRY(control_need("LoadPlan", "max_step_tokens", p->max_step_tokens, 1, LIMIT_STEP_TOKENS));
    TRY(control_need("LoadPlan", "comm_timeout_us", p->comm_timeout_us, 1, INT64_MAX));
    TRY(control_need("LoadPlan", "telemetry_us", p->telemetry_us, 0, INT64_MAX));
    TRY(control_need("LoadPlan", "rejoin_us", p->rejoin_us, 0, INT64_MAX));
    if (strcmp(p->wire, "auto") && strcmp(p->wire, "shm") && strcmp(p->wire, "mpi"))
        TRY(err_raise(ERR_LINK_PROTOCOL, "LoadPlan: wire is \"%.32s\", needed auto, shm or mpi",
                      p->wire));
    if (strcmp(p->wire_type, "f32") && strcmp(p->wire_type, "f16") && strcmp(p->wire_type, "q8"))
        TRY(err_raise(ERR_LINK_PROTOCOL, "LoadPlan: wire_type is \"%.32s\", needed f32, f16 or q8", p->wire_type));
    TRY(control_need("LoadPlan", "shard_cache_bytes", p->shard_cache_bytes, 0, INT64_MAX));
out:
    return rc;
}

enum err control_check(const struct control_msg *m)
{
    switch (m->type) {
    case MSG_HELLO: return check_hello(m);
    case MSG_LOAD_PROGRESS: return check_progress(m);
    case MSG_READY: return check_ready(m);
    case MSG_TELEMETRY: return check_telemetry(m);
    case MSG_FAULT: return check_fault(m);
    case MSG_LOAD_PLAN: return check_load_plan(m);
    case MSG_STEP_RESULT:
    case MSG_STEP_PLAN:
    case MSG_WAKE:
    case MSG_DRAIN:
    case MSG_SHUTDOWN: return OK;
    case MSG_ADOPT: return control_need("Adopt", "epoch", m->adopt.epoch, 1, UINT32_MAX);
    }
    return OK;
}
