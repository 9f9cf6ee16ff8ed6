/* core.c: see core.h. */
#include "coordinator/core_impl.h"

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/api/api_metrics.h"
#include "coordinator/api/calls_grammar.h"
#include "coordinator/api/text_pool.h"
#include "coordinator/journal/journal.h"
#include "engine/model_sampling.h"
#include "engine/model_text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TEXT_THREADS = 2 /* so that one slow request does not hold up the others */, MOST_TEMPLATE = 4 << 20,
      IDLE_US = 20000 /* without work: then ranks are told to sleep */ };

#define LOG "coordinator"

/* ---- the service the API sees ---- */

static void service_submit(void *self, const struct gen_request *q, token_event_fn fn, void *user)
{
    crd_fleet_submit(((struct crd_core *)self)->fleet, q, fn, user);
}

static void service_cancel(void *self, uint64_t id) { crd_fleet_cancel(((struct crd_core *)self)->fleet, id); }

static const struct crd_service_ops service_ops = {service_submit, service_cancel, crd_report_status, crd_report_engine, crd_report_health, crd_report_metrics};

/* ---- text ---- */

static enum err read_template(const char *path, struct buf *out)
{
    char chunk[65536];
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_raise(ERR_IO, "--chat-template: cannot read %s: %s; built-in ones are %s", path, strerror(errno), eng_template_builtin_names());
    for (size_t n; out->len <= MOST_TEMPLATE && (n = fread(chunk, 1, sizeof chunk, f)) > 0;) buf_put(out, chunk, n);
    int failed = ferror(f) ? errno : 0; /* a directory can be opened, and not read */
    fclose(f);
    if (failed) return err_raise(ERR_IO, "--chat-template: cannot read %s: %s", path, strerror(failed));
    if (out->len > MOST_TEMPLATE) return err_raise(ERR_BAD_CONFIG, "--chat-template: %s has more than %d bytes: it is no template", path, MOST_TEMPLATE);
    return OK;
}

/* What requests draw with that do not say how. */
static void read_sampling(struct crd_core *c, const struct eng_model_file *f)
{
    struct buf changed = {0};
    c->sampling = sampling_default();
    if (!c->conf.plain_sampling) eng_model_sampling(&c->sampling, f);
    eng_model_sampling_say(&c->sampling, true, &changed);
    if (changed.len) log_info(LOG, "the model's own sampling defaults: %s (--generation-config none: without them)", buf_str(&changed));
    buf_free(&changed);
    buf_putc(&c->sampling_text, '{');
    eng_model_sampling_say(&c->sampling, false, &c->sampling_text);
    buf_putc(&c->sampling_text, '}');
}

static enum err open_text(struct crd_core *c)
{
    enum err rc;
    struct eng_model_file *f = NULL;
    struct buf given = {0};
    char *own = NULL;
    TRY(eng_model_file_open(&f, c->conf.model_path));
    TRY(eng_model_tokenizer(&c->tokenizer, f));
    read_sampling(c, f);
    const char *source = NULL;
    if (c->conf.chat_template) {
        source = eng_template_builtin(c->conf.chat_template);
        if (!source) {
            TRY(read_template(c->conf.chat_template, &given));
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

/* ---- replicas ---- */

static enum err open_key(struct crd_core *c)
{
    bool given = c->conf.key_file || getenv("TESSERA_CLUSTER_KEY");
    if (c->conf.key_file && c->conf.launch == LAUNCH_MANAGED)
        return err_raise(ERR_BAD_CONFIG, "--cluster-key-file goes with --launch external: workers that we start ourselves get a fresh key each time");
    if (given && c->conf.launch == LAUNCH_EXTERNAL) return trn_auth_key_load(&c->key, c->conf.key_file);
    if (!given && c->conf.launch == LAUNCH_EXTERNAL)
        return err_raise(ERR_BAD_CONFIG, "workers that join by themselves need a cluster key on both sides: set TESSERA_CLUSTER_KEY, or "
                                         "--cluster-key-file FILE (mode 0600)");
    enum err rc = OK;
    if (!crd_takeover_key(c)) {
        trn_auth_key_generate(c->key_text); /* ours alone: it lives as long as these workers */
        if (c->state) TRY(crd_state_set_key(c->state, c->key_text));
    }
    TRY(trn_auth_key_of_text(&c->key, c->key_text));
out:
    return rc;
}

static void on_change(void *user, enum replica_state state, const struct replica_rank ranks[], int32_t n, const char *text)
{
    struct core_unit *u = user;
    struct crd_core *c = u->core;
    pthread_mutex_lock(&c->lock);
    if (c->conf.on_change) c->conf.on_change(c->conf.user, u->index, state, ranks, n, text);
    struct crd_workers *workers = u->workers;
    pthread_mutex_unlock(&c->lock);
    if (state == REPLICA_READY) crd_takeover_ready(u, ranks, n);
    if (workers) crd_workers_changed(workers, state, ranks, n);
}

static enum err place(void *user, const struct msg_hello hellos[], int32_t n, struct msg_load_plan *plan)
{
    struct core_unit *u = user;
    struct crd_core *c = u->core;
    enum err e = OK;
    pthread_mutex_lock(&c->lock);
    struct crd_workers *workers = u->workers;
    pthread_mutex_unlock(&c->lock);
    if (workers) crd_workers_placed(workers, plan->epoch);
    if (!crd_takeover_place(u, hellos, plan)) {
        pthread_mutex_lock(&c->lock);
        e = c->conf.place(c->conf.user, hellos, n, plan);
        pthread_mutex_unlock(&c->lock);
    }
    if (!e) crd_takeover_placed(u, plan);
    if (!e) atomic_store(&c->kv_type, (int)plan->kv_type);
    return e;
}

static void on_step(void *user, int32_t n_tokens)
{
    const struct core_unit *u = user;
    struct crd_api_stats *stats = u->core->api.stats;
    if (stats) crd_api_stats_step(stats, u->index, n_tokens);
}

static void on_pace(void *user, const struct replica_pace *p)
{
    struct crd_core *c = ((struct core_unit *)user)->core;
    pthread_mutex_lock(&c->lock);
    if (c->conf.on_pace) c->conf.on_pace(c->conf.user, p);
    pthread_mutex_unlock(&c->lock);
}

/* Each replica has a worker plane of its own: a port that was named is the first one's, the next has the next. */
static enum err open_plane(struct core_unit *u)
{
    enum err rc;
    const struct core_conf *conf = &u->core->conf;
    const char *colon = strrchr(conf->listen, ':');
    int n_host = (int)(colon ? (size_t)(colon - conf->listen) : strlen(conf->listen)), port = colon ? atoi(colon + 1) : 0;
    snprintf(u->listen, sizeof u->listen, "%.*s:%d", n_host, conf->listen, port ? port + u->index : 0);
    struct rpc_conf sc = {.address = u->listen, .key = &u->core->key, .identity = "coordinator", .keepalive_ms = 5000, .keepalive_timeout_ms = 5000,
                          .tls_cert = conf->tls_cert, .tls_key = conf->tls_key, .tls_ca = conf->tls_ca, .key_file = conf->key_file};
    if (u->takes_over) { /* its ranks dial where it was */
        sc.address = u->left.listen;
        if (!rpc_server_open(&u->server, &sc, crd_replica_mailbox(u->replica))) {
            snprintf(u->join, sizeof u->join, "%s", u->left.listen);
            return OK;
        }
        log_warn(LOG, "replica %d: %s; its workers are not taken over", u->index, err_text());
        u->takes_over = false;
        sc.address = u->listen;
    }
    TRY(rpc_server_open(&u->server, &sc, crd_replica_mailbox(u->replica)));
    snprintf(u->join, sizeof u->join, "%.*s:%d", n_host, conf->listen, rpc_server_port(u->server));
out:
    return rc;
}

/* Replicas that share this machine share its cards: each counts on from where the one before has ended. (Of a hostfile's hosts: clu_hosts_device.) */
static const char *device_of(struct core_unit *u)
{
    const struct core_conf *conf = &u->core->conf;
    const char *d = conf->device ? conf->device : "auto";
    if (!u->index || conf->hostfile || (strcmp(d, "auto") && strcmp(d, "cuda"))) return conf->device;
    snprintf(u->device, sizeof u->device, "%s+%d", d, u->index * conf->n_ranks);
    return u->device;
}

static void open_workers(struct core_unit *u)
{
    struct crd_core *c = u->core;
    const struct core_conf *conf = &c->conf;
    struct crd_workers_conf wc = {.index = u->index, .replica = u->replica, .hosts = conf->share_hosts ? &c->hosts : NULL,
                                  .least_ranks = conf->least_ranks, .load_timeout_us = conf->load_timeout_us,
                                  .left = u->left, .takes_over = u->takes_over, .on_job = crd_takeover_job, .user = u};
    wc.launch = (struct clu_launch_conf){.program = conf->program, .n_ranks = conf->n_ranks, .hostfile = conf->hostfile, .join = u->join,
                                         .key = c->key_text, .log_level = conf->log_level, .device = device_of(u),
                                         .tls_cert = conf->tls_cert, .tls_key = conf->tls_key, .tls_ca = conf->tls_ca, .yield = conf->oversubscribed,
                                         .unbound = c->n_units > 1 && !conf->hostfile, .extra = c->launch_extra};
    char name[32];
    snprintf(name, sizeof name, "workers-%d.log", u->index);
    if (c->state) wc.launch.output = u->output = crd_state_path(c->state, name); /* a terminal may go; they shall not go with it */
    struct crd_workers *workers = crd_workers_open(&wc);
    pthread_mutex_lock(&c->lock); /* ranks that are taken over may have dialled already */
    u->workers = workers;
    pthread_mutex_unlock(&c->lock);
}

static enum err open_unit(struct crd_core *c, struct core_unit *u)
{
    const struct core_conf *conf = &c->conf;
    bool managed = conf->launch == LAUNCH_MANAGED;
    struct replica_conf rconf = {.index = u->index, .peers = crd_fleet_peers(c->fleet), .n_ranks = conf->n_ranks, .max_waiting = conf->max_waiting,
                                 .model = &conf->info, .prefix_cache = conf->prefix_cache, .max_guesses = conf->max_guesses,
                                 .pulse_us = conf->pulse_us, .relaunched = managed, .idle_us = IDLE_US, .recovery_us = conf->recovery_us,
                                 .stall_us = conf->stall_us, .place = place, .on_change = on_change, .on_step = on_step, .on_pace = on_pace,
                                 .user = u};
    if (u->left.epoch) rconf.first_epoch = u->left.epoch + 1;
    if (u->takes_over) rconf.left_epoch = u->left.epoch, rconf.n_ranks = grid_ranks(&u->left_plan->load_plan.grid);
    if (u->takes_over) u->now = u->left;
    enum err rc;
    TRY(crd_replica_open(&u->replica, &rconf));
    crd_fleet_add(c->fleet, u->replica);
    TRY(open_plane(u));
    if (managed) open_workers(u);
out:
    return rc;
}

static enum err open_hosts(struct crd_core *c)
{
    enum err rc;
    struct clu_hostfile *f = xcalloc(1, sizeof *f);
    if (c->conf.hosts_order) *f = *c->conf.hosts_order, rc = OK;
    else TRY(clu_hostfile_read(f, c->conf.hostfile));
    clu_hosts_init(&c->hosts.hosts, f);
out:
    free(f);
    return rc;
}

/* ---- names ---- */

/* "a,b": served_name, or the file's. A file's own name is one, whatever it holds. */
static enum err open_names(struct crd_core *c)
{
    const char *said = c->conf.served_name;
    int32_t n = 0;
    snprintf(c->name_text, sizeof c->name_text, "%s", said ? said : c->conf.info.name);
    if (!said) c->names[n++] = c->name_text;
    char *rest = c->name_text;
    for (char *name; said && (name = strsep(&rest, ","));) {
        name += strspn(name, " ");
        for (size_t k = strlen(name); k && name[k - 1] == ' ';) name[--k] = 0;
        if (!*name || n == CORE_NAMES || strlen(said) >= sizeof c->name_text)
            return err_raise(ERR_BAD_CONFIG, "--served-model-name '%.200s' is no list of up to %d names, parted by commas", said, CORE_NAMES);
        c->names[n++] = name;
    }
    for (const char *const *adapter = c->conf.adapter_names; adapter && *adapter; adapter++)
        for (int32_t i = 0; i < n; i++)
            if (!strcmp(c->names[i], *adapter))
                return err_raise(ERR_BAD_CONFIG, "--lora: '%s' is what the model itself is called: give the adapter another name, or the model one by "
                                 "--served-model-name", *adapter);
    return OK;
}

/* ---- open, close ---- */

enum err crd_core_open(struct crd_core **out, const struct core_conf *conf)
{
    enum err rc;
    struct crd_core *c = xcalloc(1, sizeof *c);
    c->conf = *conf;
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->hosts.lock, NULL);
    c->fleet = crd_fleet_open();
    /* On one host MPI only starts our ranks; without its shared-memory transport a killed rank leaves no segment behind. */
    c->launch_extra = xasprintf("%s %s", conf->hostfile || conf->mpi_wire ? "" : "--mca btl self,tcp --mca btl_tcp_if_include lo",
                                conf->mpirun_args ? conf->mpirun_args : "");
    c->n_units = MAX(conf->n_replicas, 1);
    for (int32_t i = 0; i < c->n_units; i++) {
        c->units[i].core = c;
        c->units[i].index = i;
    }
    crd_takeover_open(c);
    TRY(open_names(c));
    TRY(open_text(c));
    TRY(open_key(c));
    if (conf->share_hosts) TRY(open_hosts(c));
    c->api = (struct crd_api){.service = {&service_ops, c}, .tokenizer = c->tokenizer, .chat_template = c->chat_template,
                              .template_source = c->template_source, .style = crd_style_of(c->template_source),
                              .grammar_vocab = crd_grammar_vocab_open(c->tokenizer), .model = conf->info,
                              .model_names = c->names, .adapter_names = conf->adapter_names, .max_context = conf->info.context, .max_n = conf->max_n,
                              .defaults = &c->sampling, .defaults_text = buf_str(&c->sampling_text),
                              .pooling = conf->pooling ? conf->pooling : conf->info.pooling,
                              .stats = crd_api_stats_open(conf->info.context, c->n_units), .created_unix = (int64_t)time(NULL)};
    for (int32_t i = 0; i < c->n_units; i++) TRY(open_unit(c, &c->units[i]));
    TRY(crd_text_pool_open(&c->api.pool, TEXT_THREADS));
    *out = c, c = NULL;
out:
    crd_core_close(c, 0);
    return rc;
}

enum err crd_core_start(struct crd_core *c)
{
    enum err rc = OK;
    c->started = true;
    for (int32_t i = 0; i < c->n_units; i++)
        if (c->units[i].workers) TRY(crd_workers_start(c->units[i].workers));
out:
    return rc;
}

static enum err failed(struct core_unit *u, const struct replica_status *s)
{
    enum err e = u->workers ? crd_workers_failed(u->workers) : s->state == REPLICA_LOST ? err_raise(ERR_UNAVAILABLE, "%s", s->text) : OK;
    return e && u->core->n_units > 1 ? err_prefix(e, "replica %d", u->index) : e;
}

enum err crd_core_await_ready(struct crd_core *c, bool (*stop)(void))
{
    int64_t begun = clock_us();
    for (;;) {
        int32_t n_ready = 0;
        for (int32_t i = 0; i < c->n_units; i++) {
            struct replica_status s;
            crd_replica_status(c->units[i].replica, &s);
            bool was = s.load_seconds > 0; /* lost again before the others were ready: that is the keeper's business */
            n_ready += was;
            enum err e = was ? OK : failed(&c->units[i], &s);
            if (e) return e;
            crd_joining_look(&c->units[i], &s, begun);
        }
        if (n_ready == c->n_units) return OK;
        if (stop && stop()) return err_raise(ERR_CANCELLED, "stopped while starting");
        clock_sleep_us(5000);
    }
}

bool crd_core_started(const struct crd_core *c) { return c->started; }
struct crd_api *crd_core_api(struct crd_core *c) { return &c->api; }
struct crd_replica *crd_core_replica(struct crd_core *c, int32_t i) { return i < c->n_units ? c->units[i].replica : NULL; }
struct crd_state *crd_core_state(struct crd_core *c) { return c->state; }
const char *crd_core_join(const struct crd_core *c, int32_t i) { return i < c->n_units ? c->units[i].join : NULL; }

bool crd_core_serves(struct crd_core *c)
{
    struct service_status s;
    crd_report_status(c, &s);
    return s.state == SERVICE_READY;
}

void crd_core_hold(struct crd_core *c, bool hold)
{
    for (int32_t i = 0; i < c->n_units; i++) crd_replica_hold(c->units[i].replica, hold);
}

void crd_core_end(struct crd_core *c)
{
    for (int32_t i = 0; i < c->n_units; i++) crd_replica_end(c->units[i].replica, "the server is shutting down and --drain-timeout has passed");
}

void crd_core_drain(struct crd_core *c)
{
    for (int32_t i = 0; i < c->n_units; i++) crd_replica_drain(c->units[i].replica);
}

void crd_core_close(struct crd_core *c, int64_t grace_us)
{
    if (!c) return;
    for (int32_t i = 0; i < c->n_units; i++)
        if (c->units[i].workers) crd_workers_let_go(c->units[i].workers);
    for (int32_t i = 0; i < c->n_units; i++)
        if (c->units[i].replica) crd_replica_stop(c->units[i].replica, c->units[i].server ? grace_us : 0);
    for (int32_t i = 0; i < c->n_units; i++) {
        crd_workers_close(c->units[i].workers, grace_us);
        rpc_server_close(c->units[i].server);
    }
    for (int32_t i = 0; i < c->n_units; i++) crd_replica_close(c->units[i].replica);
    crd_journal_close(c->api.journal); /* the last events went by way of it */
    crd_fleet_close(c->fleet);
    crd_text_pool_close(c->api.pool);
    crd_api_stats_close(c->api.stats);
    eng_template_close(c->chat_template);
    free(c->template_source);
    buf_free(&c->sampling_text);
    crd_grammar_vocab_close(c->api.grammar_vocab);
    eng_tokenizer_close(c->tokenizer);
    crd_takeover_close(c);
    for (int32_t i = 0; i < c->n_units; i++) free(c->units[i].output);
    free(c->launch_extra);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->hosts.lock);
    free(c);
}
