/* cmd_serve.c: `tessera serve`: the coordinator with its gateway; managed, under mpirun, or with workers that join by themselves. */
#include "cli/commands.h"
#include "cli/process.h"
#include "cli/serving.h"
#include "cli/under_mpirun.h"

#include "base/address.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/api/access.h"
#include "coordinator/api/admin_http.h"
#include "coordinator/api/api.h"
#include "coordinator/api/ledger.h"
#include "coordinator/api/replay.h"
#include "coordinator/state_dir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    struct common_options c; /* first: the shared tables' offsets */
    const char *host, *served_model_name, *chat_template;
    int64_t port, max_waiting, max_n, max_connections, max_body;
    const char *api_keys, *api_key_env, *https_cert, *https_key, *cors_origins;
    int64_t limit_rpm, limit_tpm, limit_concurrency, header_timeout, idle_timeout;
    bool public_metrics;
    double drain_timeout, replay_seconds;
    int64_t replay_memory, journal_bytes;
    const char *state_dir;
    bool journal;
    double journal_sync;
    int32_t pooling, generation_config;
    const char *usage_log;
    double port_timeout, log_stats;
    const char *admin_socket, *admin_keys;
};

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"", CONF_TITLE, 0, NULL, 0, 0, NULL, "where it listens"},
    {"host", CONF_STR, O(host), "127.0.0.1", 0, 0, "ADDRESS", "where the gateway listens; 0.0.0.0 for everybody"},
    {"port", CONF_INT, O(port), "8000", 0, 65535, "N", "its port; 0: choose one"},
    {"port-timeout", CONF_FLOAT, O(port_timeout), "0", 0, 1e6, "S", "seconds to wait for the port while another server ends there; 0: refuse at once"},
    {"max-connections", CONF_INT, O(max_connections), "4096", 1, 1e6, "N", "open connections"},
    {"header-timeout", CONF_INT, O(header_timeout), "10", 1, 3600, "S", "seconds that the headers of a request may take"},
    {"idle-timeout", CONF_INT, O(idle_timeout), "75", 1, 86400, "S", "seconds a kept connection may be silent"},
    {"max-body", CONF_SIZE, O(max_body), "4M", 1024, 1e10, "BYTES", "largest request body"},
    {"cors-origins", CONF_STR, O(cors_origins), NULL, 0, 0, "LIST|*", "web pages of these origins may use the API; default: none", "allowed-origins"},
    {"https-cert", CONF_STR, O(https_cert), NULL, 0, 0, "FILE", "serve HTTPS with this certificate chain (PEM)", "ssl-certfile ssl-cert-file"},
    {"https-key", CONF_STR, O(https_key), NULL, 0, 0, "FILE", "and this key", "ssl-keyfile ssl-key-file"},
    {"", CONF_TITLE, 0, NULL, 0, 0, NULL, "what the API shows"},
    {"served-model-name", CONF_STR, O(served_model_name), NULL, 0, 0, "NAME,...",
     "what the API calls the model, and other names by which it may be asked for; default: the file's name for it", "alias model-name"},
    {"chat-template", CONF_STR, O(chat_template), NULL, 0, 0, "FILE|NAME", "instead of the model's own", "chat-template-file"},
    {"pooling", CONF_ENUM, O(pooling), "auto", 0, 0, "auto|last|mean",
     "what embeddings are: the last token's state or the mean; auto: as the model's files say, else last"},
    {"generation-config", CONF_ENUM, O(generation_config), "auto", 0, 0, GENERATION_CONFIG_NAMES,
     "sampling of requests that do not say: auto: as the model's generation_config.json (or GGUF) says; none: temperature 1 and nothing else"},
    {"", CONF_TITLE, 0, NULL, 0, 0, NULL, "who may ask, and how much"},
    {"api-keys", CONF_STR, O(api_keys), NULL, 0, 0, "FILE",
     "who may ask: lines NAME SECRET [weight=W] [rpm=N] [tpm=N] [concurrency=N]; read again when it changes", "api-key api-key-file"},
    {"api-key-env", CONF_STR, O(api_key_env), NULL, 0, 0, "VARIABLE", "one API key, in this environment variable"},
    {"public-metrics", CONF_FLAG, O(public_metrics), NULL, 0, 0, "on|off", "/metrics needs no key"},
    {"limit-rpm", CONF_INT, O(limit_rpm), "0", 0, 1e9, "N", "requests per minute of a key whose line does not say; 0: any number"},
    {"limit-tpm", CONF_INT, O(limit_tpm), "0", 0, 1e9, "N", "tokens per minute, likewise"},
    {"limit-concurrency", CONF_INT, O(limit_concurrency), "0", 0, 1e6, "N", "requests at once, likewise"},
    {"max-waiting", CONF_INT, O(max_waiting), "4096", 1, 1e6, "N", "queued requests before 503", "max-queue-size"},
    {"max-n", CONF_INT, O(max_n), "16", 1, 128, "N", "choices of one request"},
    {"log-stats", CONF_FLOAT, O(log_stats), "10", 0, 1e6, "S", "seconds between two lines of the log that say how busy the server is, while it is; 0: none"},
    {"usage-log", CONF_STR, O(usage_log), NULL, 0, 0, "FILE",
     "append a line of JSON for every answer, and for every request turned away: who, where, status, tokens, seconds", "access-log"},
    {"", CONF_TITLE, 0, NULL, 0, 0, NULL, "orders, ends and restarts"},
    {"admin-socket", CONF_STR, O(admin_socket), NULL, 0, 0, "PATH|none", "where `tessera drain` and `tessera reload` reach this server; default: by its port"},
    {"admin-keys", CONF_STR, O(admin_keys), NULL, 0, 0, "FILE", "who may POST /admin/drain and /admin/reload: lines as of --api-keys; default: nobody"},
    {"drain-timeout", CONF_FLOAT, O(drain_timeout), "30", 0, 1e6, "S", "seconds that running answers may take after SIGTERM", "shutdown-timeout"},
    {"replay-seconds", CONF_FLOAT, O(replay_seconds), "60", 0, 86400, "S",
     "seconds that an answer can be read again after its end, by GET /v1/requests/ID/events"},
    {"replay-memory", CONF_SIZE, O(replay_memory), "64M", 0, 1e12, "BYTES", "most memory that answers kept for it may take"},
    {"state-dir", CONF_STR, O(state_dir), NULL, 0, 0, "DIR",
     "a directory (0700) for what a coordinator after this one needs to take over the workers, should this one be killed"},
    {"journal", CONF_FLAG, O(journal), NULL, 0, 0, "on|off", "keep accepted requests and what was answered there too, so that they go on; it holds prompts"},
    {"journal-bytes", CONF_SIZE, O(journal_bytes), "256M", 1 << 20, 1e12, "BYTES", "most that the journal may take on disk; half of it in memory"},
    {"journal-sync", CONF_FLOAT, O(journal_sync), "1", 0, 3600, "S",
     "seconds after which it survives a crash of the machine (of the process: at once); 0: before anything is answered"},
    {0},
};
static const struct conf_opt *const groups[] = {table, adapter_option_table, model_option_table, cluster_option_table, NULL};
static const struct conf_table conf = {
    "serve", "serve MODEL [options]",
    "Serve a model (GGUF file, checkpoint directory, or ORG/NAME as pulled) through the OpenAI API, cut over one or more\n"
    "worker processes.\n"
    "  tessera serve model.gguf --tp 2                        two workers on this machine\n"
    "  tessera serve model.gguf --hostfile hosts              mpirun starts workers on these hosts\n"
    "  mpirun -n 4 --hostfile hosts tessera serve model.gguf  the same under your own mpirun\n"
    "  tessera serve model.gguf --launch external --listen 10.0.0.1:7000   workers join by themselves", groups, 1, 1};

static bool is_loopback(const char *host) { return !strncmp(host, "127.", 4) || !strcmp(host, "localhost") || !strcmp(host, "::1"); }

static void say_ready(const struct options *o, struct crd_core *core, const char *name, int32_t port)
{
    struct replica_status s;
    crd_replica_status(crd_core_replica(core, 0), &s);
    long tokens = (long)s.kv_tokens, replicas = 0;
    while (crd_core_replica(core, (int32_t)replicas)) replicas++;
    if (replicas > 1) log_info("serve", "%ld replicas, each:", replicas);
    char took[32] = "";
    if (s.load_seconds >= 0.05) snprintf(took, sizeof took, ", loaded in %.1f s", s.load_seconds);
    log_info("serve", "%s on %d rank(s)%s; KV cache: %ld tokens = %ld user(s) of %d tokens each", name, s.n_ranks, took, tokens, tokens / s.context, s.context);
    if (!is_loopback(o->host) && !o->api_keys && !o->api_key_env)
        log_warn("serve", "no API key is set and the gateway listens on %s: whoever reaches it may use it; --api-keys FILE asks for keys", o->host);
    if (o->admin_keys && !o->https_cert && !is_loopback(o->host))
        log_warn("serve", "--admin-keys: admin keys cross the network in clear: give --https-cert and --https-key, or let a proxy do it");
    char address[ADDRESS_TEXT];
    log_info("serve", "ready: %s://%s/v1 (stop with Ctrl-C)", o->https_cert ? "https" : "http", address_text(address, o->host, port));
}

/* By the socket or with an admin key. False: nothing was asked for, for a tenth of a second. */
static bool asked(struct serving *v, struct crd_admin *admin, struct crd_admin_request *ask, bool *by_key)
{
    *by_key = crd_admin_door_take(v->conf.door, ask);
    return *by_key || crd_admin_wait(admin, 100000, ask);
}

/* Until a signal or `tessera drain`; under mpirun also until a lost job was not replaced in time. */
static void stand_by(const struct options *o, struct serving *v, struct crd_admin *admin)
{
    int64_t lost_us = 0;
    struct crd_admin_request ask;
    bool by_key;
    while (!process_stop()) {
        if (crd_core_serves(v->now->core)) lost_us = 0;
        else if (!lost_us) lost_us = clock_us();
        if (lost_us && getenv("TESSERA_ANNOUNCE_FD") && clock_us() - lost_us > (int64_t)(o->c.cluster.rejoin_timeout * 1e6)) {
            log_error("serve", "no new job joined within --rejoin-timeout %.0f s: leaving", o->c.cluster.rejoin_timeout);
            return;
        }
        if (!asked(v, admin, &ask, &by_key)) continue;
        if (ask.verb == ADMIN_DRAIN) { /* by the socket, the asker is told when it is over; an answer of the gateway's leaves before it closes */
            if (by_key) crd_admin_door_done(v->conf.door, OK);
            return;
        }
        const char *model = ask.model;
        enum err e = cmd_model_named(&model);
        if (!e) e = serving_reload(v, model, by_key ? NULL : admin);
        if (e && e != ERR_CANCELLED) log_error("serve", "reload: %s", err_text());
        if (by_key) crd_admin_door_done(v->conf.door, e);
        else crd_admin_done(admin, e);
    }
}

static void drain(const struct options *o, struct serving *v, struct crd_admin *admin)
{
    struct gw *gw = v->gw;
    crd_admin_door_shut(v->conf.door);
    int64_t until = clock_us() + (int64_t)(o->drain_timeout * 1e6);
    int32_t n = gw_active(gw);
    if (n) log_info("serve", "stopping: %d request(s) may finish within %.0f s (Ctrl-C again to end at once)", n, o->drain_timeout);
    else log_info("serve", "stopping: no request is open");
    if (n) crd_admin_say(admin, "%d request(s) may finish within %.0f s", n, o->drain_timeout);
    else crd_admin_say(admin, "no request is open: the server ends");
    gw_quiesce(gw);
    crd_core_drain(v->now->core);
    while (gw_active(gw) && clock_us() < until) clock_sleep_us(20000);
    if (!gw_active(gw)) return;
    crd_core_end(v->now->core); /* each open stream says why it ends */
    crd_admin_say(admin, "the time is over: %d request(s) end with an error", gw_active(gw));
    for (until = clock_us() + 2000000; gw_active(gw) && clock_us() < until;) clock_sleep_us(20000);
}

/* A server that is ending may still hold the port. */
static enum err open_gateway(const struct options *o, struct serving *v)
{
    const struct gw_conf gc = {.host = o->host, .port = (int32_t)o->port, .max_body = o->max_body, .header_timeout_s = (int32_t)o->header_timeout,
                               .idle_timeout_s = (int32_t)o->idle_timeout, .ping_ms = 5000, .max_connections = (int32_t)o->max_connections,
                               .tls_cert = o->https_cert, .tls_key = o->https_key, .cors_origins = o->cors_origins, .alarm = crd_api_alarm};
    for (int64_t until = clock_us() + (int64_t)(o->port_timeout * 1e6);;) {
        enum err e = gw_open(&v->gw, &gc, crd_api_routes, crd_api_n_routes, crd_api_fallback, crd_access_gate, crd_core_api(v->now->core));
        if (e != ERR_SYSTEM || clock_us() >= until || process_stop()) return e;
        clock_sleep_us(50000);
    }
}

static enum err open_admin(const struct options *o, int32_t port, struct crd_admin **out)
{
    char path[ADMIN_PATH];
    if (o->admin_socket && !strcmp(o->admin_socket, "none")) return OK;
    if (o->admin_socket) return crd_admin_open(out, o->admin_socket);
    crd_admin_path(path, port);
    if (crd_admin_open(out, path)) log_warn("serve", "no `tessera drain` and `reload` here: %s", err_text());
    return OK;
}

/* NULL when nothing was asked for. */
static enum err open_keys(const struct options *o, struct crd_keys **out)
{
    struct crd_keys_conf kc = {.path = o->api_keys, .public_metrics = o->public_metrics,
                               .limits = {(int32_t)o->limit_rpm, (int32_t)o->limit_tpm, (int32_t)o->limit_concurrency}};
    if (o->api_key_env) {
        kc.secret = getenv(o->api_key_env);
        if (!kc.secret || !*kc.secret)
            return err_raise(ERR_BAD_CONFIG, "--api-key-env: the environment variable %s is not set", o->api_key_env);
    }
    if (!kc.path && !kc.secret && !kc.limits.rpm && !kc.limits.tpm && !kc.limits.concurrency) return OK;
    return crd_keys_open(out, &kc, clock_us());
}

static enum err check_state(const struct options *o)
{
    if (o->state_dir && getenv("TESSERA_ANNOUNCE_FD"))
        return err_raise(ERR_BAD_CONFIG, "--state-dir: under mpirun the coordinator goes with rank 0; start it by itself, with --launch external or managed");
    if (!o->journal) return OK;
    if (!o->state_dir) return err_raise(ERR_BAD_CONFIG, "--journal on needs --state-dir DIR: it lies there");
    if (o->replay_seconds <= 0) return err_raise(ERR_BAD_CONFIG, "--journal on needs --replay-seconds above 0: what goes on is read at /v1/requests/ID/events");
    return OK;
}

static void say_starting(const struct served *s)
{
    const struct model_info *m = &s->place.info;
    const struct core_conf *cc = &s->core_conf;
    bool managed = cc->launch == LAUNCH_MANAGED;
    double mb = (double)m->weight_bytes / 1e6;
    if (managed) log_info("serve", "%s: %.1f MB, %d layers; starting %d worker(s)", m->name, mb, m->n_layers, cc->n_ranks * cc->n_replicas);
    else log_info("serve", "%s: %.1f MB, %d layers; workers join at %s", m->name, mb, m->n_layers, crd_core_join(s->core, 0));
    for (int32_t i = 1; !managed && crd_core_join(s->core, i); i++) log_info("serve", "those of replica %d at %s", i, crd_core_join(s->core, i));
}

/* What outlives a model that is replaced; into v->conf. Own: close_lasting, also after an error. */
static enum err open_lasting(const struct options *o, const char *program, struct serving_conf *lasting)
{
    enum err rc;
    *lasting = (struct serving_conf){.c = &o->c, .served_name = o->served_model_name, .chat_template = o->chat_template, .program = program,
                                     .pulse_us = (int64_t)(o->log_stats * 1e6), .max_waiting = (int32_t)o->max_waiting, .max_n = (int32_t)o->max_n,
                                     .pooling = (enum step_pool)o->pooling, .plain_sampling = o->generation_config == GENERATION_CONFIG_NONE,
                                     .drain_timeout = o->drain_timeout, .journal = o->journal, .journal_bytes = o->journal_bytes,
                                     .journal_sync_us = (int64_t)(o->journal_sync * 1e6), .keep_us = (int64_t)(o->replay_seconds * 1e6)};
    TRY(check_state(o));
    if (o->state_dir) TRY(crd_state_open(&lasting->state, o->state_dir));
    TRY(open_keys(o, &lasting->keys));
    if (o->admin_keys) TRY(crd_admin_door_open(&lasting->door, o->admin_keys));
    if (o->usage_log) TRY(crd_ledger_open(&lasting->ledger, o->usage_log));
    lasting->replay = crd_replay_open(&(struct crd_replay_conf){.keep_us = lasting->keep_us, .max_bytes = o->replay_memory});
out:
    return rc;
}

/* With the models that use them, and behind the gateway: requests first, while the service still answers their cancellations. */
static void close_lasting(struct serving *v)
{
    struct serving_conf *lasting = &v->conf;
    if (v->gw) gw_close(v->gw);
    crd_replay_close(lasting->replay);
    crd_ledger_close(lasting->ledger);
    serving_close(v);
    crd_state_close(lasting->state);
    crd_keys_close(lasting->keys);
    crd_admin_door_close(lasting->door);
}

static enum err serve(const struct options *o, const char *model)
{
    enum err rc;
    struct serving v = {.gw = NULL};
    struct crd_admin *admin = NULL;
    char program[4096];
    process_program(program);
    TRY(open_lasting(o, program, &v.conf));
    TRY(serving_open(&v, model));
    /* the gateway opens before the model is loaded, so that /health can say what is going on */
    TRY(open_gateway(o, &v));
    TRY(open_admin(o, gw_port(v.gw), &admin));
    under_mpirun_announce(crd_core_join(v.now->core, 0));
    say_starting(v.now);
    TRY(crd_core_start(v.now->core));
    TRY(crd_core_await_ready(v.now->core, process_stop));
    if (o->journal) crd_replay_go(crd_core_api(v.now->core), v.gw);
    say_ready(o, v.now->core, crd_core_api(v.now->core)->model_names[0], gw_port(v.gw));
    stand_by(o, &v, admin);
    drain(o, &v, admin);
out:
    if (rc == ERR_CANCELLED) rc = OK;
    close_lasting(&v);
    crd_admin_done(admin, OK); /* nothing of this server is left */
    crd_admin_close(admin);
    return rc;
}

int cmd_serve(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    const char *args[1];
    char host[ADDRESS_HOST];
    bool done;
    int32_t rank, size;
    TRY(options_begin(&conf, argc, argv, &o.c, args, &done));
    if (done) return 0;
    TRY(address_host(host, "--host", o.host));
    o.host = host;
    if (under_mpirun(&rank, &size)) return under_mpirun_run(argc, argv, rank, size, &o.c);
    process_catch_signals();
    TRY(cmd_model(&args[0]));
    TRY(serve(&o, args[0]));
    log_info("serve", "stopped");
    return 0;
out:
    return cmd_fail(rc);
}
