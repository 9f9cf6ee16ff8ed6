/* worker.c: see worker.h. */
#include "worker/worker_impl.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "cluster/same_host.h"
#include "proto/version.h"
#include "worker/bind.h"
#include "worker/links.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define C "worker"

enum { FLUSH_US = 200000, GRACE_US = 3000000, TIMER_SLACK_NS = 1000, TELLING_US = 20 };
static const int64_t LOAD_WAIT_US = INT64_C(7) * 24 * 3600 * 1000000; /* the coordinator's --load-timeout ends it */

/* ---- telling the coordinator ---- */

static void say_hello(struct worker *w, struct rpc_peer *to)
{
    char device[128];
    const struct krn_table *krn;
    struct control_msg m = {.type = MSG_HELLO};
    const struct plugin_device_info *card = &w->card;
    bool gpu = card->total_bytes > 0;
    int64_t total = card->total_bytes, available = card->free_bytes;
    if (!gpu) wrk_bind_memory(&total, &available);
    if (krn_table_pick("auto", &krn)) krn = &krn_ref;
    snprintf(device, sizeof device, "%s %s", w->device, gpu ? card->name : krn->name);
    m.hello = (struct msg_hello){
        .version = TESSERA_VERSION, .job = w->job, .host = w->host, .rank = w->rank, .size = w->size, .host_rank = w->host_rank,
        .host_size = w->host_size, .pid = getpid(), .n_cpus = w->n_cpus, .mem_total = total, .mem_available = available,
        .mem_ranks = w->mem_ranks, .gpu = gpu, .read_bytes_s = card->read_bytes_s, .ops_s = card->ops_s, .device = device,
        .addresses = w->addresses, .n_links = w->n_links, .links = w->links, .loaded_epoch = atomic_load(&w->loaded_epoch)};
    rpc_peer_send(to, &m);
}

static void say_fault(struct worker *w, enum err e)
{
    log_error(C, "%s", err_text());
    if (!w->loop.coordinator) return;
    struct control_msg m = {.type = MSG_FAULT, .fault = {.code = (int32_t)e, .text = err_text()}};
    rpc_peer_send(w->loop.coordinator, &m);
    clock_sleep_us(FLUSH_US);
}

static void say_progress(void *user, int64_t done, int64_t total)
{
    struct worker *w = user;
    int64_t now = clock_us();
    if (done < total && now - w->last_progress_us < 100000) return;
    struct control_msg m = {.type = MSG_LOAD_PROGRESS, .progress = {.bytes_done = done, .bytes_total = total}};
    w->last_progress_us = now;
    rpc_peer_send(w->loop.coordinator, &m);
}

/* The collective that this rank is in, of whichever of its groups: the stage's ranks, their cards, all ranks. waiting_for in the job's numbers. */
static struct trn_coll_now current_collective(struct worker *w)
{
    struct trn_coll *cards = eng_engine_tp_device(w->loop.engine);
    struct trn_coll_now now = trn_coll_now(w->tp);
    if (!now.op && cards) now = trn_coll_now(cards);
    if (!now.op) return trn_coll_now(w->world);
    int32_t first = w->rank - w->tp->rank; /* the ranks of a stage are neighbours */
    if (now.waiting_for >= 0) now.waiting_for += first;
    return now;
}

/* What of this process is in memory, shared pages included; 0: nobody says. */
static int64_t resident_bytes(void)
{
    long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f && fscanf(f, "%*d %lld", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return pages * sysconf(_SC_PAGESIZE);
}

static void telemetry(struct worker *w)
{
    struct trn_coll_now now = current_collective(w);
    struct control_msg m = {.type = MSG_TELEMETRY};
    m.telemetry = (struct msg_telemetry){
        .step = atomic_load(&w->loop.step), .layer = eng_engine_layer(w->loop.engine), .op = now.op ? now.op : "", .op_seq = now.seq,
        .op_waited_us = now.op ? clock_us() - now.since_us : 0, .op_rank = MAX(now.waiting_for, -1), .rss_bytes = resident_bytes(),
        .comm_bytes = atomic_load(&w->loop.comm_bytes),
        .comm_us = atomic_load(&w->loop.comm_us), .comm_ops = atomic_load(&w->loop.comm_ops)};
    rpc_peer_send(w->loop.coordinator, &m);
}

/* Not of an engine and groups that the step thread closes: one of the two sees the other. */
static void say_telemetry(struct worker *w)
{
    atomic_store(&w->telling, true);
    if (!atomic_load(&w->leaving)) telemetry(w);
    atomic_store(&w->telling, false);
}

static void say_ready(struct worker *w)
{
    struct eng_engine_info info;
    eng_engine_info(w->loop.engine, &info);
    telemetry(w); /* the next is said when it works */
    struct control_msg m = {.type = MSG_READY, .ready = {.weight_bytes = info.weight_bytes, .kv_bytes = info.kv_bytes,
                                                         .n_blocks = info.n_blocks, .seconds = info.load_seconds,
                                                         .read_bytes = info.loaded.read, .received_bytes = info.loaded.received,
                                                         .cached_bytes = info.loaded.cached}};
    rpc_peer_send(w->loop.coordinator, &m);
}

/* ---- control thread ---- */

/* A message of the coordinator's, to the step thread or done here. Does not return from Shutdown. */
static void on_message(struct worker *w, struct rpc_event *e)
{
    if (e->msg->type == MSG_ADOPT) { /* parked and whole: nothing for the step thread */
        atomic_store(&w->loaded_epoch, e->msg->adopt.epoch);
        say_ready(w);
        return;
    }
    bool last = e->msg->type == MSG_SHUTDOWN;
    mailbox_put(w->loop.in, e->msg);
    e->msg = NULL; /* the step thread's now */
    if (!last) return;
    atomic_store(&w->leaving, true);
    clock_sleep_us(GRACE_US); /* ended early by the step thread's exit */
    _exit(0);
}

static void *control_main(void *arg)
{
    struct worker *w = arg;
    bool reporting = false; /* from Wake until one report after falling asleep; then this thread sleeps too */
    int64_t due = 0;
    while (!atomic_load(&w->leaving)) {
        struct rpc_event *e = mailbox_get(w->events, reporting ? MAX(due - clock_us(), 0) : -1);
        if (reporting && clock_us() >= due) {
            reporting = atomic_load(&w->loop.awake);
            due = clock_us() + w->telemetry_us;
            say_telemetry(w);
        }
        if (!e) continue;
        if (e->kind == RPC_CLOSED) {
            wrk_rejoin(w, e);
            reporting = false;
            continue;
        }
        if (e->kind == RPC_MESSAGE && e->msg->type == MSG_WAKE && !reporting) {
            reporting = true;
            due = clock_us() + w->telemetry_us;
        }
        if (e->kind == RPC_MESSAGE) on_message(w, e);
        rpc_event_free(e);
    }
    return NULL;
}

/* ---- joining and loading ---- */

static void name_job(struct worker *w)
{
    const char *id = getenv("PMIX_NAMESPACE");
    if (!id) id = getenv("OMPI_MCA_ess_base_jobid");
    uint64_t h = 0;
    for (const char *p = id ? id : "single"; *p; p++) h = rng_mix(h ^ (uint8_t)*p);
    if (!id) h = rng_mix(h ^ (uint64_t)getpid());
    snprintf(w->job, sizeof w->job, "%016llx", (unsigned long long)h);
}

static enum err share_join(struct worker *w)
{
    enum err rc;
    int32_t members[COLL_MAX_RANKS];
    struct trn_coll *c = NULL;
    struct { char join[128]; struct auth_key key; } s = {0};
    for (int32_t i = 0; i < w->size; i++) members[i] = i;
    snprintf(s.join, sizeof s.join, "%s", w->join);
    s.key = w->key;
    TRY(trn_coll_mpi_open(&c, members, w->size, 7));
    TRY(trn_coll_broadcast(c, &s, sizeof s, 0, 30000000));
    snprintf(w->join, sizeof w->join, "%s", s.join);
    w->key = s.key;
out:
    trn_coll_close(c);
    return rc;
}

enum err wrk_join(struct worker *w, int32_t timeout_ms)
{
    enum err rc;
    char who[64];
    snprintf(who, sizeof who, "rank %d@%.40s", w->rank, w->host);
    struct rpc_conf rc_conf = {.address = w->join, .key = &w->key, .identity = who, .keepalive_ms = 5000,
                               .keepalive_timeout_ms = 5000, .tls_cert = w->conf->tls_cert, .tls_key = w->conf->tls_key,
                               .tls_ca = w->conf->tls_ca};
    TRY(rpc_client_open(&w->client, &rc_conf, timeout_ms, w->events));
    struct rpc_event *e = NULL;
    while (!e) e = mailbox_get(w->events, -1);
    if (e->kind == RPC_CONNECTED) {
        w->loop.coordinator = e->peer;
        say_hello(w, e->peer);
    } else {
        rc = err_raise(e->err ? e->err : ERR_LINK_CLOSED, "cannot join the coordinator at %s: %s", w->join, e->text);
    }
    rpc_event_free(e);
out:
    return rc;
}

/* Wait for the plan on the step thread's mailbox; NULL after Shutdown. */
static struct control_msg *await_plan(struct worker *w)
{
    for (;;) {
        struct control_msg *m = mailbox_get(w->loop.in, -1);
        if (!m) continue;
        if (m->type == MSG_LOAD_PLAN) return m;
        bool leave = m->type == MSG_SHUTDOWN;
        control_msg_free(m);
        if (leave) return NULL;
    }
}

/* Processors for the compute threads, n of a rank's own; where ranks of one thread have to share, one that it has with as few others of its stage
 * as can be: a stage's ranks compute at the same time, and left alone the kernel puts two of them on one processor beside an idle one. NULL: any. */
static const int32_t *own_cpus(const struct worker *w, const struct grid *g, int32_t stage, int32_t n)
{
    int32_t hosts[COLL_MAX_RANKS], first = grid_first(g, stage), here = 0;
    if (!w->may_bind) return NULL;
    if (n * w->host_size <= w->n_cpus) return w->cpus + w->host_rank * n;
    if (n > 1 || trn_mpi_env_hosts(hosts)) return NULL;
    for (int32_t r = first; r < first + g->width[stage]; r++) here += hosts[r] == w->host_first;
    return here % w->n_cpus ? NULL : w->cpus + w->host_rank % w->n_cpus;
}

static int32_t n_threads(const struct worker *w, const struct msg_load_plan *p)
{
    if (w->conf->n_threads) return w->conf->n_threads;
    return p->n_threads ? p->n_threads : MAX(1, w->n_cpus / w->host_size);
}

/* The plan's word as the engine takes it: NULL: none, "": where the engine thinks best. */
static const char *cache_dir(const struct msg_load_plan *p)
{
    if (!strcmp(p->shard_cache, "off")) return NULL;
    return strcmp(p->shard_cache, "auto") ? p->shard_cache : "";
}

static enum err load(struct worker *w, const struct msg_load_plan *p)
{
    enum err rc;
    const struct grid *g = &p->grid;
    if (grid_ranks(g) != w->size)
        return err_raise(ERR_BAD_CONFIG, "the plan is for %d ranks, this job has %d", grid_ranks(g), w->size);
    int32_t stage = grid_stage_of(g, w->rank), n = n_threads(w, p);
    TRY(wrk_groups_open(w, p, stage, grid_first(g, stage)));
    struct eng_engine_conf c = {
        .model_path = p->model_path, .fingerprint = p->model_fingerprint, .grid = *g, .rank = w->rank,
        .adapters = {p->n_adapters, p->adapters, p->adapter_fingerprints},
        .tp = w->tp, .tp_device = wrk_groups_device, .tp_user = w, .world = w->world, .timeout_us = p->comm_timeout_us,
        .device = w->device, .isa = p->isa, .n_threads = n, .cpus = own_cpus(w, g, stage, n),
        .context = p->context, .n_blocks = p->n_blocks, .n_slots = p->n_slots, .max_step_tokens = p->max_step_tokens,
        .kv_type = p->kv_type, .oracle = p->oracle, .rounded = !p->exact,
        .cache_dir = cache_dir(p), .cache_bytes = p->shard_cache_bytes, .progress = say_progress, .user = w};
    TRY(eng_engine_open(&w->loop.engine, &c));
    TRY(trn_coll_barrier(w->world, LOAD_WAIT_US)); /* who loads slowly is no dead peer */
    w->loop.world = w->world;
    w->loop.tp = w->tp;
    w->loop.timeout_us = p->comm_timeout_us;
    w->telemetry_us = MAX(p->telemetry_us, 10000);
    struct eng_engine_info info;
    eng_engine_info(w->loop.engine, &info);
    w->loop.depth = g->n_stages + 1;
    atomic_store(&w->loaded_epoch, p->epoch);
    say_ready(w);
    log_debug(C, "holding %.1f MB of weights on %s, kernels %s, %d thread(s)", (double)info.weight_bytes / 1e6, info.device, info.isa, n);
out:
    return rc;
}

/* What --device says to this host. "auto+2,0" has a number for each of the job's hosts (so many of its cards are other replicas'): "auto+0" for
 * the second of them. */
static enum err own_device(const struct worker *w, char out[64])
{
    const char *said = w->conf->device ? w->conf->device : "auto", *sep = strchr(said, '+'); /* what stands before this host's number */
    int32_t hosts[COLL_MAX_RANKS];
    snprintf(out, 64, "%.63s", said);
    if (!sep || !strchr(sep, ',')) return OK;
    enum err e = trn_mpi_env_hosts(hosts);
    for (int32_t r = 0; r < w->host_first && !e; r++) {
        if (hosts[r] != r) continue; /* not the first of its host */
        sep = strchr(sep + 1, ',');
        if (!sep) return err_raise(ERR_BAD_CONFIG, "--device %s has fewer numbers than the job has hosts", said);
    }
    if (!e) snprintf(out, 64, "%.*s+%.*s", (int)MIN(strcspn(said, "+"), 16), said, (int)MIN(strcspn(sep + 1, ","), 16), sep + 1);
    return e;
}

/* Before Hello: what this rank is decides what it is given. Memory is shared by the ranks of this host that chose the same. */
static enum err choose_device(struct worker *w)
{
    char want[64];
    int32_t n, mine;
    enum err e = own_device(w, want);
    if (e) return e;
    e = eng_backend_choose(want, w->host_rank, w->device, &n, &w->card);
    if (e) return e;
    mine = eng_backend_nth(want, w->host_rank, n);
    for (int32_t r = 0; r < w->host_size; r++) w->mem_ranks += eng_backend_nth(want, r, n) == mine;
    return OK;
}

static enum err run(struct worker *w)
{
    enum err rc;
    char who[96];
    pthread_t control;
    (void)prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS); /* a nap of a wait ends when it should, not up to 50 us later */
    if (gethostname(w->host, sizeof w->host)) snprintf(w->host, sizeof w->host, "localhost");
    w->host[sizeof w->host - 1] = 0;
    TRY(trn_mpi_env_init(&w->rank, &w->size));
    TRY(trn_mpi_env_host(&w->host_rank, &w->host_size, &w->host_first));
    snprintf(who, sizeof who, "rank %d", w->rank);
    log_set_who(who);
    name_job(w);
    if (w->conf->share_join) TRY(share_join(w));
    w->n_cpus = wrk_bind_cpus(w->cpus, MAX_CPUS);
    w->may_bind = w->conf->bind && w->n_cpus > 0;
    if (!w->n_cpus) w->n_cpus = (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
    wrk_links_measure(w->rank, w->size, w->links, &w->n_links);
    clu_own_addresses(w->addresses, sizeof w->addresses);
    TRY(choose_device(w));
    TRY(wrk_join(w, w->conf->join_timeout_ms));
    if (w->conf->on_joined) w->conf->on_joined(w->conf->user);
    w->loop.in = mailbox_open();
    if (pthread_create(&control, NULL, control_main, w)) {
        rc = err_raise(ERR_SYSTEM, "cannot start the control thread");
        goto out;
    }
    pthread_detach(control); /* it is never waited for: the process leaves by _exit */
    w->plan = await_plan(w);
    if (!w->plan) goto out;
    TRY(load(w, &w->plan->load_plan));
    TRY(wrk_step_loop_run(&w->loop));
out:
    return rc;
}

int wrk_worker_run(const struct wrk_conf *conf)
{
    struct worker *w = xcalloc(1, sizeof *w);
    w->conf = conf;
    w->key = conf->key;
    snprintf(w->join, sizeof w->join, "%s", conf->join ? conf->join : "");
    w->events = mailbox_open();
    enum err e = run(w);
    if (e) {
        /* peers may hang in a collective with us: no finalize, mpirun ends them when this rank is gone */
        say_fault(w, e);
        _exit(1);
    }
    atomic_store(&w->leaving, true);
    while (atomic_load(&w->telling)) clock_sleep_us(TELLING_US);
    eng_engine_close(w->loop.engine);
    trn_coll_close(w->tp);
    trn_coll_close(w->world);
    trn_mpi_env_finalize();
    control_msg_free(w->plan);
    fflush(NULL);
    _exit(0); /* the control thread and gRPC's hold nothing that outlives the process */
}
