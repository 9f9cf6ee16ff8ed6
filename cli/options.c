/* options.c: see options.h. */
#include "cli/options.h"

#include "cli/hosts_topo.h"

#include "base/address.h"
#include "base/log.h"
#include "base/rng.h"
#include "cluster/facing.h"
#include "cluster/launch.h"
#include "cluster/same_host.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define M(f) offsetof(struct common_options, model.f)
#define K(f) offsetof(struct common_options, cluster.f)

const struct conf_opt model_option_table[] = {
    {"", CONF_TITLE, 0, NULL, 0, 0, NULL, "the model and its cut"},
    {"tp", CONF_INT, M(tp), "0", 0, 64, "N",
     "not planned: N tensor-parallel ranks per stage, in equal parts; 0: the planner gives each rank what suits it, unless --pp is given",
     "tensor-parallel-size tensor_parallel_size"},
    {"pp", CONF_INT, M(pp), "1", 1, 64, "N",
     "not planned: N stages of equally many layers, of equally many ranks each; 1: the planner chooses, unless --tp is given", "pipeline-parallel-size"},
    {"threads", CONF_INT, M(threads), "0", 0, 512, "N",
     "compute threads per rank; 0: the host's cores divided among its ranks", "threads-batch n-threads nthreads"},
    {"context", CONF_INT, M(context), "0", 0, LIMIT_CONTEXT, "N",
     "longest sequence in tokens; 0: the model's, at most 8192", "max-model-len ctx-size ctx max-seq-len max-input-length max-total-tokens"},
    {"max-seqs", CONF_INT, M(max_seqs), "64", 1, LIMIT_SLOTS, "N", "sequences running at once", "max-num-seqs parallel np"},
    {"max-batch-tokens", CONF_INT, M(max_batch_tokens), "512", 16, LIMIT_STEP_TOKENS, "N",
     "tokens computed in one step", "max-num-batched-tokens batch-size ubatch-size"},
    {"kv-tokens", CONF_INT, M(kv_tokens), "0", 0, 1e9, "N",
     "tokens the KV cache holds; 0: as memory allows, at most 8 contexts", "gpu-memory-utilization num-gpu-blocks-override"},
    {"kv-type", CONF_ENUM, M(kv_type), "f16", 0, 0, KV_TYPE_NAMES, "type of the KV cache", "kv-cache-dtype cache-type-k cache-type-v buffer-float-type"},
    {"activations", CONF_ENUM, M(activations), "q8", 0, 0, "q8|f32", "inputs of quantised matmuls; f32 is the oracle mode"},
    {"exact", CONF_ENUM, M(exact), "on", 0, 0, "on|off",
     "the same bits whatever the cut and the processor; off lets sums travel as fewer bytes between hosts, and products of bf16 and f16 weights, and on cards "
     "the attention of prompts, round more where that is faster"},
    {"experts", CONF_ENUM, M(experts), "auto", 0, 0, EXPERTS_NAMES, EXPERTS_HELP, "enable-expert-parallel expert-parallel-size ep-size"},
    {"prefix-cache", CONF_FLAG, M(prefix_cache), "on", 0, 0, "on|off",
     "reuse the KV blocks of common prefixes", "enable-prefix-caching no-enable-prefix-caching cache-reuse"},
    {"speculate", CONF_INT, M(speculate), "7", 0, LIMIT_RESULT_TOKENS - 1, "N",
     "tokens guessed ahead where a text repeats itself, checked in one step, with the same answers; 0: none", "num-speculative-tokens draft-max draft"},
    {"device", CONF_STR, M(device), "auto", 0, 0, "NAME",
     "where ranks compute: auto (each GPU of a host one rank, the others on its CPU), cpu, cuda (GPUs only, shared if need be), cuda:N",
     "n-gpu-layers gpu-layers ngl main-gpu"},
    {"isa", CONF_STR, M(isa), "auto", 0, 0, "NAME", "kernels: auto, ref, or those of an instruction set: avx2, avxvnni, avx512, amx; neon, dotprod, i8mm"},
    {"wire", CONF_ENUM, M(wire), "auto", 0, 0, "auto|shm|mpi", "how ranks speak: shared memory on one host, else MPI"},
    {"shard-cache", CONF_STR, M(shard_cache), "auto", 0, 0, "DIR",
     "packed weights kept on each rank's disk for the next start: a directory, off, or auto: ~/.cache/tessera where the model lies on another machine"},
    {"shard-cache-size", CONF_SIZE, M(shard_cache_size), "0", 0, 1e15, "BYTES", "its bound on each host; 0: a quarter of the free space"},
    {"wire-type", CONF_ENUM, M(wire_type), "auto", 0, 0, "auto|f32|f16|q8",
     "with --exact off: how sums travel between hosts; auto: what the links make fastest"},
    {"comm-timeout", CONF_FLOAT, M(comm_timeout), "30", 0.1, 3600, "S", "seconds a rank waits for another before it gives up"},
    {0},
};

const struct conf_opt adapter_option_table[] = {
    {"lora", CONF_LIST, M(lora), NULL, 0, 0, "NAME=PATH",
     "a LoRA adapter beside the model (PEFT's directory or a GGUF file), asked for as model NAME; may be given again, for more", "lora-modules adapters lora-adapter lora-paths enable-lora"},
    {0},
};

const struct conf_opt cluster_option_table[] = {
    {"", CONF_TITLE, 0, NULL, 0, 0, NULL, "the workers"},
    {"topo", CONF_STR, K(topo), NULL, 0, 0, "FILE",
     "the machines as measured (tessera doctor --hostfile HOSTS --record FILE), for a placement that knows them"},
    {"hostfile", CONF_STR, K(hostfile), NULL, 0, 0, "FILE",
     "hosts for the workers, one \"NAME slots=N\" per line; slots are ranks: 1 for the processors of a box, or 1 for each of its cards",
     "hosts machinefile workers"},
    {"launch", CONF_ENUM, K(launch), "managed", 0, 0, "managed|external", "start the workers with mpirun, or wait for them to join"},
    {"ranks", CONF_INT, K(ranks), "0", 0, LIMIT_RANKS, "N", "with --launch external: how many ranks will join; 0: any job"},
    {"replicas", CONF_INT, K(replicas), "1", 1, 16, "N",
     "copies of the model behind one gateway, each on its own ranks (--tp, --pp and --ranks are one copy's)", "data-parallel-size dp"},
    {"mpirun-args", CONF_STR, K(mpirun_args), NULL, 0, 0, "ARGS", "more arguments for mpirun"},
    {"listen", CONF_STR, K(listen), NULL, 0, 0, "HOST:PORT",
     "worker plane; default: loopback, or with a hostfile the address of this host that faces those hosts"},
    {"cluster-key-file", CONF_STR, K(key_file), NULL, 0, 0, "FILE", "the cluster key (mode 0600); else TESSERA_CLUSTER_KEY"},
    {"tls-cert", CONF_STR, K(tls_cert), NULL, 0, 0, "FILE", "certificate of the worker plane (PEM)"},
    {"tls-key", CONF_STR, K(tls_key), NULL, 0, 0, "FILE", "its key"},
    {"tls-ca", CONF_STR, K(tls_ca), NULL, 0, 0, "FILE", "CA that the other side's certificate must come from (mTLS)"},
    {"load-timeout", CONF_FLOAT, K(load_timeout), "600", 1, 1e6, "S", "seconds in which no rank joins and no byte is loaded until the start has failed"},
    {"stall-timeout", CONF_FLOAT, K(stall_timeout), "10", 0, 1e6, "S", "seconds without progress of any rank until the replica counts as hung; 0: never"},
    {"recovery-timeout", CONF_FLOAT, K(recovery_timeout), "60", 0, 1e6, "S", "seconds that open answers wait for lost workers to be back; 0: end at once"},
    {"rejoin-timeout", CONF_FLOAT, K(rejoin_timeout), "30", 0, 1e6, "S",
     "workers that join by themselves: the same, for a new job; and how long workers wait for another coordinator (--state-dir)"},
    {"log-level", CONF_STR, K(log_level), "info", 0, 0, "LEVEL", "error, warn, info or debug"},
    {0},
};

enum clu_experts options_experts(int32_t exact, int32_t experts)
{
    return experts == 2 ? CLU_EXPERTS_WHOLE : experts == 0 && exact ? CLU_EXPERTS_AUTO : CLU_EXPERTS_CUT;
}

/* ---- cluster ---- */

enum err options_ranks(const struct common_options *o, int32_t *n)
{
    int64_t pp = o->model.pp, tp = o->model.tp;
    if (o->cluster.ranks) *n = (int32_t)o->cluster.ranks;
    else if (tp) *n = (int32_t)(tp * pp);
    else if (o->cluster.hostfile) {
        int32_t slots = clu_hostfile_slots(o->cluster.hostfile), replicas = (int32_t)o->cluster.replicas;
        if (!slots) return ERR_BAD_CONFIG;
        if (slots < replicas) return err_raise(ERR_BAD_CONFIG, "the hostfile has %d slot(s), --replicas %d need at least one each", slots, replicas);
        *n = slots / replicas;
    } else {
        *n = (int32_t)pp;
    }
    if (*n < 1 || *n > LIMIT_RANKS) return err_raise(ERR_BAD_CONFIG, "%d ranks: 1 to %d are possible", *n, LIMIT_RANKS);
    if (*n % pp || (tp && *n != tp * pp))
        return err_raise(ERR_BAD_CONFIG, "%d ranks are not --tp %lld x --pp %lld", *n, (long long)(tp ? tp : *n / pp), (long long)pp);
    return OK;
}

/* The first IPv4 address of this host, where nothing says which one the workers' hosts see. */
static enum err first_address(char out[CLU_FACING])
{
    char all[CLU_ADDRESSES], *save = NULL;
    int32_t n = 0;
    clu_own_addresses(all, sizeof all);
    char *list = xstrdup(all);
    for (char *a = strtok_r(list, ",", &save); a; a = strtok_r(NULL, ",", &save))
        if (!strchr(a, ':') && !n++) snprintf(out, CLU_FACING, "%s", a);
    free(list);
    if (!n) return err_raise(ERR_BAD_CONFIG, "this host has no network address that workers could reach: name one with --listen HOST:PORT");
    if (n > 1)
        log_warn("plan", "this host has several addresses (%s) and nothing says which one the workers' hosts reach: the first is taken; --listen HOST:PORT "
                 "names another", all);
    return OK;
}

/* hostfile: of the workers' hosts, or NULL. */
static enum err outward(const char *hostfile, char out[CLU_FACING])
{
    enum err rc = ERR_NOT_FOUND;
    struct clu_hostfile *f = xcalloc(1, sizeof *f);
    if (hostfile) {
        rc = clu_hostfile_read(f, hostfile);
        if (!rc) rc = clu_facing(f, out);
    }
    free(f);
    return rc == ERR_NOT_FOUND ? first_address(out) : rc;
}

enum err options_listen(const struct common_options *o, bool local, char out[128])
{
    enum err rc;
    if (o->cluster.listen) {
        struct address a;
        TRY(address_parse(&a, "--listen", o->cluster.listen));
        address_text(out, a.host, MAX(a.port, 0));
        if (a.port + o->cluster.replicas - 1 > 65535)
            rc = err_raise(ERR_BAD_CONFIG, "--listen %s: %lld replicas need a port each, from that one up: 65535 is the last", o->cluster.listen,
                           (long long)o->cluster.replicas);
        return rc;
    }
    if (local) {
        snprintf(out, 128, "127.0.0.1:0");
        return OK;
    }
    char address[CLU_FACING];
    TRY(outward(o->cluster.hostfile, address));
    snprintf(out, 128, "%s:0", address);
    log_info("plan", "the worker plane listens on %s: choose another with --listen", address);
out:
    return rc;
}

void options_program(char out[4096])
{
    ssize_t n = readlink("/proc/self/exe", out, 4095);
    snprintf(out + MAX(n, 0), (size_t)(4096 - MAX(n, 0)), "%s", n > 0 ? "" : "tessera");
}

enum err options_log_level(const char *level)
{
    int n = log_level_parse(level);
    if (n < 0) return err_raise(ERR_BAD_CONFIG, "--log-level: '%s' is none of error, warn, info, debug", level);
    log_set_level((enum log_level)n);
    return OK;
}

enum err options_begin(const struct conf_table *t, int argc, char **argv, struct common_options *o, const char *args[], bool *done)
{
    int n_args;
    enum err rc = conf_parse(t, argc, argv, o, args, &n_args, done);
    if (rc) return rc;
    if (*done) {
        conf_help(t);
        return OK;
    }
    ASSERT(n_args);
    return options_log_level(o->cluster.log_level);
}

/* Slots of the hostfile: each replica's ranks, and spare ones. The planner may also do with fewer; a cut that was asked for cannot. */
static enum err share_hosts(const struct common_options *o, struct core_conf *c)
{
    struct clu_hostfile f;
    enum err rc = clu_hostfile_read(&f, o->cluster.hostfile);
    if (rc) return rc;
    clu_hostfile_warn(&f);
    const int32_t slots = f.n_slots;
    if (slots < c->n_ranks * c->n_replicas)
        return err_raise(ERR_BAD_CONFIG, "the hostfile has %d slot(s); %d replica(s) of %d rank(s) need %d", slots, c->n_replicas, c->n_ranks,
                         c->n_ranks * c->n_replicas);
    c->share_hosts = true;
    c->least_ranks = o->model.tp || o->model.pp > 1 || o->cluster.ranks ? c->n_ranks : 1;
    return OK;
}

/* Workers on other hosts begin elsewhere. Links stay: what they lead to may be replaced. */
static const char *absolute(const char *path, char out[OPTIONS_PATH])
{
    char here[OPTIONS_PATH];
    if (!path || *path == '/' || !getcwd(here, sizeof here) || strlen(here) + strlen(path) + 2 > OPTIONS_PATH) return path;
    stpcpy(stpcpy(stpcpy(out, here), "/"), path);
    return out;
}

enum err options_core(const struct common_options *o, struct placement *p, const char *program, struct core_conf *c)
{
    enum err rc = OK;
    bool external = o->cluster.launch != 0;
    double recovery_s = external ? o->cluster.rejoin_timeout : o->cluster.recovery_timeout;
    *c = (struct core_conf){.model_path = p->model_path, .info = p->info, .launch = external ? LAUNCH_EXTERNAL : LAUNCH_MANAGED,
                            .n_ranks = (int32_t)o->cluster.ranks, .hostfile = o->cluster.hostfile, .mpirun_args = o->cluster.mpirun_args,
                            .adapter_names = p->adapters.n ? p->adapters.names : NULL, .program = program, .device = o->model.device, .log_level = o->cluster.log_level, .key_file = o->cluster.key_file,
                            .tls_cert = absolute(o->cluster.tls_cert, p->tls[0]), .tls_key = absolute(o->cluster.tls_key, p->tls[1]),
                            .tls_ca = absolute(o->cluster.tls_ca, p->tls[2]),
                            .max_waiting = 4096, .max_n = 16, .prefix_cache = o->model.prefix_cache,
                            .max_guesses = (int32_t)o->model.speculate, .inexact = o->model.exact != 0,
                            .load_timeout_us = (int64_t)(o->cluster.load_timeout * 1e6), .stall_us = (int64_t)(o->cluster.stall_timeout * 1e6),
                            .recovery_us = (int64_t)(recovery_s * 1e6), .place = placement_place, .on_change = progress_on_change,
                            .on_pace = placement_pace, .user = p};
    TRY(clu_launch_check(o->cluster.mpirun_args));
    c->n_replicas = (int32_t)o->cluster.replicas;
    if (c->launch == LAUNCH_MANAGED) TRY(options_ranks(o, &c->n_ranks));
    bool better; /* in another order than the hostfile's */
    hosts_order(p, &p->order, &better);
    if (better) {
        c->hosts_order = &p->order;
        c->n_ranks = p->order.n_slots;
    }
    if (c->launch == LAUNCH_MANAGED && o->cluster.hostfile) TRY(share_hosts(o, c));
    int64_t threads = MAX(o->model.threads, 1) * c->n_ranks * c->n_replicas;
    c->oversubscribed = !o->cluster.hostfile && threads > sysconf(_SC_NPROCESSORS_ONLN);
out:
    return rc;
}

/* ---- a cluster of one's own ---- */

enum err own_cluster_open(struct own_cluster *c, const struct common_options *o, const char *model)
{
    enum err rc;
    *c = (struct own_cluster){.core = NULL};
    options_program(c->program);
    TRY(placement_open(&c->place, o, model));
    TRY(options_core(o, &c->place, c->program, &c->core_conf));
    TRY(options_listen(o, c->core_conf.launch == LAUNCH_MANAGED && !c->core_conf.hostfile, c->listen));
    c->core_conf.listen = c->listen;
    c->core_conf.on_change = progress_brief;
out:
    return rc;
}

enum err own_cluster_start(struct own_cluster *c)
{
    enum err rc;
    TRY(crd_core_open(&c->core, &c->core_conf));
    TRY(crd_core_start(c->core));
    TRY(crd_core_await_ready(c->core, options_stop));
out:
    return rc;
}

void own_cluster_close(struct own_cluster *c)
{
    enum { GRACE_US = 3000000 };
    crd_core_close(c->core, GRACE_US);
    c->core = NULL;
    placement_close(&c->place);
}

/* ---- do two starts fit? ---- */

static uint64_t mix_bytes(uint64_t h, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++) h = rng_mix(h ^ ((const uint8_t *)p)[i]);
    return rng_mix(h ^ n);
}

static uint64_t mix_option(uint64_t h, const struct common_options *o, const struct conf_opt *c)
{
    const char *at = (const char *)o + c->offset, *text;
    if (c->type != CONF_TITLE) h = mix_bytes(h, c->name, strlen(c->name));
    switch (c->type) {
    case CONF_FLAG: return mix_bytes(h, at, sizeof(bool));
    case CONF_INT:
    case CONF_SIZE: return mix_bytes(h, at, sizeof(int64_t));
    case CONF_FLOAT: return mix_bytes(h, at, sizeof(double));
    case CONF_ENUM: return mix_bytes(h, at, sizeof(int32_t));
    case CONF_STR:
    case CONF_LIST:
        memcpy(&text, at, sizeof text);
        return text ? mix_bytes(h, text, strlen(text) + 1) : rng_mix(h);
    case CONF_TITLE: break;
    }
    return h;
}

uint64_t options_hash(const struct common_options *o, const char *const names[], uint64_t before)
{
    const struct conf_opt *const tables[] = {model_option_table, cluster_option_table};
    for (size_t t = 0; t < COUNT_OF(tables); t++)
        for (const struct conf_opt *c = tables[t]; c->name; c++)
            for (const char *const *n = names; *n; n++)
                if (!strcmp(*n, c->name)) before = mix_option(before, o, c);
    return before;
}

static uint64_t mix_adapters(uint64_t h, const struct adapters *a)
{
    for (int32_t i = 0; i < a->n; i++) {
        h = mix_bytes(h, a->names[i], strlen(a->names[i]) + 1);
        h = mix_bytes(h, &a->sums[i], sizeof a->sums[i]);
    }
    return h;
}

uint64_t options_fit_load(const struct common_options *o, const struct placement *p)
{
    static const char *const cluster[] = {"topo", "hostfile", "launch", "ranks", "replicas", "mpirun-args", "listen", "tls-cert", "tls-ca", NULL};
    uint64_t h = mix_bytes(p->fingerprint, p->model_path, strlen(p->model_path));
    for (const struct conf_opt *c = model_option_table; c->name; c++) h = mix_option(h, o, c);
    for (int32_t i = 0; i < p->adapters.n; i++) h = mix_bytes(h, p->adapters.paths[i], strlen(p->adapters.paths[i]));
    return options_hash(o, cluster, mix_adapters(h, &p->adapters));
}

uint64_t options_fit_answers(const struct common_options *o, const struct placement *p, const char *chat_template, const char *sampling)
{
    static const char *const names[] = {"kv-type", "activations", "exact", "experts", NULL};
    uint64_t h = options_hash(o, names, p->fingerprint);
    h = mix_adapters(mix_bytes(h, sampling, strlen(sampling)), &p->adapters);
    return chat_template ? mix_bytes(h, chat_template, strlen(chat_template)) : h;
}

/* ---- signals ---- */

static volatile sig_atomic_t signals;

static void on_signal(int sig)
{
    (void)sig;
    if (++signals > 1) _exit(130);
}

/* Kernel and shell both send one when a terminal closes: however many come, nobody meant "at once". */
static void on_hangup(int sig)
{
    (void)sig;
    if (!signals) signals = 1;
}

void options_catch_signals(void)
{
    struct sigaction a = {.sa_handler = on_signal}, hangup = {.sa_handler = on_hangup}, before;
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    if (!sigaction(SIGHUP, NULL, &before) && before.sa_handler != SIG_IGN) sigaction(SIGHUP, &hangup, NULL); /* nohup stays nohup */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of whoever writes it */
}

bool options_stop(void) { return signals > 0; }
