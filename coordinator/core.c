/* core.c: see core.h. */
#include "coordinator/core.h"

#include "base/clock.h"
#include "base/log.h"
#include "cluster/launch.h"
#include "coordinator/api/api_metrics.h"
#include "coordinator/api/calls_grammar.h"
#include "coordinator/api/json_out.h"
#include "coordinator/api/text_pool.h"
#include "engine/model_text.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOG "coordinator"

struct crd_core {
    struct core_conf conf;
    char key_text[65], join[160];
    struct auth_key key;
    struct eng_tokenizer *tokenizer;
    struct eng_template *chat_template;
    char *template_source;
    struct rpc_server *server;
    struct crd_replica *replica;
    struct clu_launch workers;       /* main thread until READY, then the fleet thread, then main again */
    pid_t local_pids[LIMIT_RANKS];   /* workers of this host: written by sched at READY, read by fleet after a loss and by main at the end */
    _Atomic int32_t n_local;
    _Atomic uint32_t first_epoch, last_epoch; /* of the jobs that were told to load */
    struct mailbox *fleet_mail;      /* poked when a replica changes state */
    pthread_t fleet;
    bool fleet_runs;
    _Atomic bool stopping;
    struct crd_api api;
    const char *names[2];
    char name[128];
};

/* ---- the service the API sees ---- */

static void service_submit(void *self, const struct gen_request *q, token_event_fn fn, void *user)
{
    crd_replica_submit(((struct crd_core *)self)->replica, q, fn, user);
}

static void service_cancel(void *self, uint64_t id) { crd_replica_cancel(((struct crd_core *)self)->replica, id); }

static void service_status(void *self, struct service_status *out)
{
    static const enum service_state states[] = {SERVICE_LOADING, SERVICE_LOADING, SERVICE_READY, SERVICE_DEGRADED, SERVICE_DRAINING};
    struct replica_status s;
    crd_replica_status(((struct crd_core *)self)->replica, &s);
    *out = (struct service_status){.state = s.draining ? SERVICE_DRAINING : states[s.state], .sched = s.sched, .max_context = s.context};
    /* a replica that was lost and waits for its next job is degraded, not loading */
    if (out->state == SERVICE_LOADING && s.load_seconds > 0) out->state = SERVICE_DEGRADED;
    snprintf(out->text, sizeof out->text, "%s", s.draining ? "the server is shutting down" : s.text);
}

static void service_health(void *self, struct buf *out)
{
    static const char *const names[] = {"gathering", "loading", "ready", "lost", "stopped"};
    struct crd_core *c = self;
    struct replica_status s;
    struct replica_rank ranks[LIMIT_RANKS];
    crd_replica_status(c->replica, &s);
    int32_t n = crd_replica_ranks(c->replica, ranks);
    buf_printf(out, "{\"exact\":true,\"replicas\":[{\"state\":\"%s\",\"epoch\":%u,\"stages\":%d,\"reason\":", names[s.state], s.epoch, s.n_stages);
    json_out_str(out, s.text);
    buf_puts(out, ",\"ranks\":[");
    for (int32_t i = 0; i < n; i++) {
        buf_printf(out, "%s{\"rank\":%d,\"joined\":%s,\"ready\":%s,\"pid\":%d,\"weight_bytes\":%lld,\"kv_bytes\":%lld,\"read_bytes\":%lld,\"received_bytes\":%lld,\"cached_bytes\":%lld,\"host\":", i ? "," : "", i,
                   ranks[i].joined ? "true" : "false", ranks[i].ready ? "true" : "false", ranks[i].pid, (long long)ranks[i].weight_bytes,
                   (long long)ranks[i].kv_bytes, (long long)ranks[i].read_bytes, (long long)ranks[i].received_bytes, (long long)ranks[i].cached_bytes);
        json_out_str(out, ranks[i].host);
        buf_puts(out, ",\"device\":");
        json_out_str(out, ranks[i].device);
        buf_putc(out, '}');
    }
    buf_puts(out, "]}]}");
}

static void rank_line(struct buf *out, const char *name, int32_t rank, double v)
{
    buf_printf(out, "tessera:%s{replica=\"0\",rank=\"%d\"} %.17g\n", name, rank, v);
}

static void service_metrics(void *self, struct buf *out)
{
    static const struct { const char *name, *kind, *help; } heads[] = {
        {"rank_weight_bytes", "gauge", "Bytes of packed weights a rank holds."},
        {"rank_kv_bytes", "gauge", "Bytes of KV cache a rank holds."},
        {"rank_comm_bytes_total", "counter", "Bytes a rank sent in collectives."},
        {"rank_comm_wait_seconds_total", "counter", "Seconds a rank waited in collectives."},
        {"rank_comm_ops_total", "counter", "Collectives a rank took part in."},
    };
    struct crd_core *c = self;
    struct replica_rank ranks[LIMIT_RANKS];
    int32_t n = crd_replica_ranks(c->replica, ranks);
    for (size_t h = 0; h < COUNT_OF(heads); h++) {
        buf_printf(out, "# HELP tessera:%s %s\n# TYPE tessera:%s %s\n", heads[h].name, heads[h].help, heads[h].name, heads[h].kind);
        for (int32_t i = 0; i < n; i++) {
            const double v[] = {(double)ranks[i].weight_bytes, (double)ranks[i].kv_bytes, (double)ranks[i].comm_bytes,
                                (double)ranks[i].comm_us / 1e6, (double)ranks[i].comm_ops};
            rank_line(out, heads[h].name, i, v[h]);
        }
    }
    struct replica_status s;
    crd_replica_status(c->replica, &s);
    buf_printf(out, "# HELP tessera:kv_blocks KV blocks of the pool by use.\n# TYPE tessera:kv_blocks gauge\n"
                    "tessera:kv_blocks{state=\"all\"} %d\ntessera:kv_blocks{state=\"used\"} %d\ntessera:kv_blocks{state=\"cached\"} %d\n",
               s.sched.n_blocks, s.sched.n_blocks_used, s.sched.n_blocks_cached);
    buf_printf(out, "# HELP tessera:recoveries_total Times the replica came back after a loss.\n# TYPE tessera:recoveries_total counter\n"
                    "tessera:recoveries_total %u\n", s.n_recoveries);
    buf_printf(out, "# HELP tessera:steps_total Steps answered.\n# TYPE tessera:steps_total counter\ntessera:steps_total %llu\n"
                    "# HELP tessera:step_compute_seconds_total Seconds in these steps on the rank that answers.\n"
                    "# TYPE tessera:step_compute_seconds_total counter\ntessera:step_compute_seconds_total %.6f\n",
               (unsigned long long)s.n_results, s.compute_seconds);
}

static const struct crd_service_ops service_ops = {service_submit, service_cancel, service_status, service_health, service_metrics};

/* ---- text ---- */

static enum err read_file(const char *path, struct buf *out)
{
    char chunk[65536];
    FILE *f = fopen(path, "rb");
    if (!f) return err_raise(ERR_IO, "cannot read %s", path);
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0 && out->len < 4 << 20;) buf_put(out, chunk, n);
    fclose(f);
    return OK;
}

static enum err open_text(struct crd_core *c)
{
    enum err rc;
    struct eng_model_file *f = NULL;
    struct buf given = {0};
    char *own = NULL;
    TRY(eng_model_file_open(&f, c->conf.model_path));
    TRY(eng_model_tokenizer(&c->tokenizer, f));
    const char *source = NULL;
    if (c->conf.chat_template) {
        source = eng_template_builtin(c->conf.chat_template);
        if (!source) {
            TRY(read_file(c->conf.chat_template, &given));
            source = buf_str(&given);
        }
    } else {
        TRY(eng_model_template(&own, f));
        source = own;
    }
    if (source) {
        enum err e = eng_template_compile(&c->chat_template, source, strlen(source));
        c->template_source = xstrdup(source);
        if (e && c->conf.chat_template) rc = err_prefix(e, "--chat-template");
        /* a model whose template we cannot read still serves completions */
        else if (e) log_warn(LOG, "the model's chat template is not usable (%s): /v1/chat/completions will be refused", err_text());
    }
out:
    free(own);
    buf_free(&given);
    eng_model_file_close(f);
    return rc;
}

/* ---- open, close ---- */

static enum err open_key(struct crd_core *c)
{
    bool given = c->conf.key_file || getenv("TESSERA_CLUSTER_KEY");
    if (c->conf.key_file && c->conf.launch == LAUNCH_MANAGED)
        return err_raise(ERR_BAD_CONFIG, "--cluster-key-file goes with --launch external: workers that we start ourselves get a fresh key each time");
    if (given && c->conf.launch == LAUNCH_EXTERNAL) return trn_auth_key_load(&c->key, c->conf.key_file);
    if (!given && c->conf.launch == LAUNCH_EXTERNAL)
        return err_raise(ERR_BAD_CONFIG, "workers that join by themselves need a cluster key on both sides: set TESSERA_CLUSTER_KEY, or "
                                         "--cluster-key-file FILE (mode 0600)");
    trn_auth_key_generate(c->key_text); /* ours alone: it lives as long as this start */
    return trn_auth_key_of_text(&c->key, c->key_text);
}

static void note_local(struct crd_core *c, const struct replica_rank ranks[], int32_t n)
{
    char host[64] = "";
    int32_t k = 0;
    if (gethostname(host, sizeof host - 1)) return;
    for (int32_t i = 0; i < n; i++)
        if (!strcmp(ranks[i].host, host)) c->local_pids[k++] = ranks[i].pid;
    atomic_store(&c->n_local, k);
}

/* What is left of a job: mpirun, and ranks of this host that cannot leave by themselves. */
static void clear_away(struct crd_core *c, int64_t grace_us)
{
    clu_launch_stop(&c->workers, grace_us);
    clu_launch_reap_local(c->local_pids, atomic_exchange(&c->n_local, 0));
    if (atomic_load(&c->first_epoch)) clu_launch_reap_shm(atomic_load(&c->first_epoch), atomic_load(&c->last_epoch));
}

/* On the replica's thread: pass it on, and wake the fleet. */
static void on_change(void *user, enum replica_state state, const struct replica_rank ranks[], int32_t n, const char *text)
{
    struct crd_core *c = user;
    if (c->conf.on_change) c->conf.on_change(c->conf.user, state, ranks, n, text);
    if (state == REPLICA_READY) note_local(c, ranks, n);
    if (state == REPLICA_LOST) mailbox_poke(c->fleet_mail);
}

static enum err place(void *user, const struct msg_hello hellos[], int32_t n, struct msg_load_plan *plan)
{
    struct crd_core *c = user;
    if (!atomic_load(&c->first_epoch)) atomic_store(&c->first_epoch, plan->epoch);
    atomic_store(&c->last_epoch, plan->epoch);
    return c->conf.place(c->conf.user, hellos, n, plan);
}

static void on_step(void *user, int32_t n_tokens)
{
    struct crd_api_stats *stats = ((struct crd_core *)user)->api.stats;
    if (stats) crd_api_stats_step(stats, n_tokens);
}

static enum err open_control(struct crd_core *c)
{
    enum err rc;
    struct replica_conf rconf = {.n_ranks = c->conf.n_ranks, .max_waiting = c->conf.max_waiting, .n_vocab = c->conf.info.n_vocab, .prefix_cache = c->conf.prefix_cache, .relaunched = c->conf.launch == LAUNCH_MANAGED,
                                 .idle_us = 20000, .recovery_us = c->conf.recovery_us, .stall_us = c->conf.stall_us, .place = place, .on_change = on_change, .on_step = on_step, .user = c};
    c->fleet_mail = mailbox_open();
    c->replica = crd_replica_open(&rconf);
    struct rpc_conf sc = {.address = c->conf.listen, .key = &c->key, .identity = "coordinator", .keepalive_ms = 5000,
                          .keepalive_timeout_ms = 5000, .tls_cert = c->conf.tls_cert, .tls_key = c->conf.tls_key, .tls_ca = c->conf.tls_ca};
    TRY(rpc_server_open(&c->server, &sc, crd_replica_mailbox(c->replica)));
    const char *colon = strrchr(c->conf.listen, ':');
    snprintf(c->join, sizeof c->join, "%.*s:%d", (int)(colon ? colon - c->conf.listen : 0), c->conf.listen, rpc_server_port(c->server));
out:
    return rc;
}

static enum err start_workers(struct crd_core *c)
{
    /* On one host MPI only starts our ranks; without its shared-memory transport a killed rank leaves no segment behind. */
    char *extra = xasprintf("%s %s", c->conf.hostfile || c->conf.mpi_wire ? "" : "--mca btl self,tcp --mca btl_tcp_if_include lo",
                            c->conf.mpirun_args ? c->conf.mpirun_args : "");
    struct clu_launch_conf lc = {.program = c->conf.program, .n_ranks = c->conf.n_ranks, .hostfile = c->conf.hostfile, .join = c->join,
                                 .key = c->key_text, .log_level = c->conf.log_level, .yield = c->conf.oversubscribed, .extra = extra};
    enum err e = c->conf.launch == LAUNCH_MANAGED ? clu_launch_start(&c->workers, &lc) : OK;
    free(extra);
    return e;
}

enum err crd_core_open(struct crd_core **out, const struct core_conf *conf)
{
    enum err rc;
    struct crd_core *c = xcalloc(1, sizeof *c);
    c->conf = *conf;
    snprintf(c->name, sizeof c->name, "%s", conf->served_name ? conf->served_name : conf->info.name);
    c->names[0] = c->name;
    TRY(open_text(c));
    TRY(open_key(c));
    TRY(open_control(c));
    c->api = (struct crd_api){.service = {&service_ops, c}, .tokenizer = c->tokenizer, .chat_template = c->chat_template,
                              .template_source = c->template_source, .style = crd_style_of(c->template_source),
                              .grammar_vocab = crd_grammar_vocab_open(c->tokenizer), .model = conf->info,
                              .model_names = c->names, .max_context = conf->info.context, .max_n = conf->max_n,
                              .pooling = conf->pooling ? conf->pooling : conf->info.pooling,
                              .stats = crd_api_stats_open(conf->info.context), .created_unix = (int64_t)time(NULL)};
    TRY(crd_text_pool_open(&c->api.pool, 1));
    *out = c, c = NULL;
out:
    crd_core_close(c, 0);
    return rc;
}

/* ---- the fleet thread: starts lost workers again ---- */

enum { FLEET_POLL_US = 50000, PAUSE_MIN_US = 200000, PAUSE_MAX_US = 10000000 };

/* Start the workers until the replica is whole; also after open requests had to be given up, so that the server comes back when its cause is gone. */
static void bring_back(struct crd_core *c)
{
    struct replica_status s;
    int64_t pause = PAUSE_MIN_US;
    for (bool first = true; !atomic_load(&c->stopping); first = false) {
        int status;
        clear_away(c, 0); /* the old job holds memory and hosts */
        if (!first) {
            mailbox_get(c->fleet_mail, pause);
            pause = MIN(2 * pause, (int64_t)PAUSE_MAX_US);
        }
        if (atomic_load(&c->stopping)) return;
        crd_replica_status(c->replica, &s);
        uint32_t epoch = s.epoch; /* the next loss changes it */
        if (start_workers(c)) log_error(LOG, "%s", err_text());
        do {
            mailbox_get(c->fleet_mail, FLEET_POLL_US);
            crd_replica_status(c->replica, &s);
            if (s.state == REPLICA_READY || atomic_load(&c->stopping)) return;
        } while (s.epoch == epoch && !clu_launch_ended(&c->workers, &status));
    }
}

static void *fleet_main(void *arg)
{
    struct crd_core *c = arg;
    while (!atomic_load(&c->stopping)) {
        struct replica_status s;
        mailbox_get(c->fleet_mail, -1);
        crd_replica_status(c->replica, &s);
        if (s.state == REPLICA_LOST && s.recovering) bring_back(c);
        else if (s.state == REPLICA_LOST && !atomic_load(&c->stopping)) log_error(LOG, "the workers are gone and are not started again; /health says 503");
    }
    return NULL;
}

enum err crd_core_await_ready(struct crd_core *c, bool (*stop)(void))
{
    int64_t until = clock_us() + c->conf.load_timeout_us;
    int status;
    for (;;) {
        struct replica_status s;
        crd_replica_status(c->replica, &s);
        if (s.state == REPLICA_READY) {
            c->fleet_runs = c->conf.launch == LAUNCH_MANAGED && !pthread_create(&c->fleet, NULL, fleet_main, c);
            return OK;
        }
        if (s.state == REPLICA_LOST) return err_raise(ERR_UNAVAILABLE, "%s", s.text);
        if (stop && stop()) return err_raise(ERR_CANCELLED, "stopped while starting");
        if (c->conf.launch == LAUNCH_MANAGED && clu_launch_ended(&c->workers, &status))
            return err_raise(ERR_UNAVAILABLE, "mpirun ended before the workers were ready (%s)", s.text);
        if (c->conf.launch == LAUNCH_MANAGED && clock_us() > until)
            return err_raise(ERR_DEADLINE, "not ready after %.0f s: %s (--load-timeout)", (double)c->conf.load_timeout_us / 1e6, s.text);
        clock_sleep_us(5000);
    }
}

struct crd_api *crd_core_api(struct crd_core *c) { return &c->api; }
struct crd_replica *crd_core_replica(struct crd_core *c) { return c->replica; }
int32_t crd_core_port(const struct crd_core *c) { return rpc_server_port(c->server); }
enum err crd_core_start(struct crd_core *c) { return start_workers(c); }
void crd_core_end(struct crd_core *c) { crd_replica_end(c->replica, "the server is shutting down and --drain-timeout has passed"); }
void crd_core_drain(struct crd_core *c) { crd_replica_drain(c->replica); }

void crd_core_close(struct crd_core *c, int64_t grace_us)
{
    if (!c) return;
    atomic_store(&c->stopping, true);
    if (c->fleet_runs) {
        mailbox_poke(c->fleet_mail);
        pthread_join(c->fleet, NULL);
    }
    if (c->replica) crd_replica_stop(c->replica, c->server ? grace_us : 0);
    if (c->conf.launch == LAUNCH_MANAGED) clear_away(c, grace_us);
    rpc_server_close(c->server);
    crd_replica_close(c->replica);
    mailbox_close(c->fleet_mail);
    crd_text_pool_close(c->api.pool);
    crd_api_stats_close(c->api.stats);
    eng_template_close(c->chat_template);
    free(c->template_source);
    crd_grammar_vocab_close(c->api.grammar_vocab);
    eng_tokenizer_close(c->tokenizer);
    free(c);
}
