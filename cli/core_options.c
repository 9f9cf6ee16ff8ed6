/* core_options.c: see core_options.h. */
#include "cli/core_options.h"

#include "cli/hosts_topo.h"
#include "cli/progress.h"

#include "base/address.h"
#include "base/log.h"
#include "cluster/facing.h"
#include "cluster/launch.h"
#include "cluster/same_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

enum err core_options_listen(const struct common_options *o, bool local, char out[128])
{
    enum err rc;
    if (o->cluster.listen) {
        struct address a;
        TRY(address_parse(&a, "--listen", o->cluster.listen));
        address_text(out, a.host, MAX(a.port, 0));
        if (a.port + o->cluster.replicas - 1 > 65535)
            rc = err_raise(ERR_BAD_CONFIG, "--listen %s: %lld replicas need a port each, from that one up: 65535 is the last",
                           o->cluster.listen, (long long)o->cluster.replicas);
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
static const char *absolute(const char *path, char out[PLACEMENT_PATH])
{
    char here[PLACEMENT_PATH];
    if (!path || *path == '/' || !getcwd(here, sizeof here) || strlen(here) + strlen(path) + 2 > PLACEMENT_PATH) return path;
    stpcpy(stpcpy(stpcpy(out, here), "/"), path);
    return out;
}

enum err core_options_fill(const struct common_options *o, struct placement *p, const char *program, struct core_conf *c)
{
    enum err rc = OK;
    bool external = o->cluster.launch != LAUNCH_MANAGED;
    double recovery_s = external ? o->cluster.rejoin_timeout : o->cluster.recovery_timeout;
    *c = (struct core_conf){.model_path = p->model_path, .info = p->info, .launch = external ? LAUNCH_EXTERNAL : LAUNCH_MANAGED,
                            .n_ranks = (int32_t)o->cluster.ranks, .hostfile = o->cluster.hostfile, .mpirun_args = o->cluster.mpirun_args,
                            .adapter_names = p->adapters.n ? p->adapters.names : NULL,
                            .program = program, .device = o->model.device, .log_level = o->cluster.log_level, .key_file = o->cluster.key_file,
                            .tls_cert = absolute(o->cluster.tls_cert, p->tls[0]), .tls_key = absolute(o->cluster.tls_key, p->tls[1]),
                            .tls_ca = absolute(o->cluster.tls_ca, p->tls[2]),
                            .max_waiting = 4096, .max_n = 16, .prefix_cache = o->model.prefix_cache,
                            .max_guesses = (int32_t)o->model.speculate, .inexact = o->model.exact == EXACT_OFF,
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
