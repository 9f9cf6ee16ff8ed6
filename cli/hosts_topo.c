/* hosts_topo.c: see hosts_topo.h. */
#include "cli/hosts_topo.h"

#include "base/log.h"
#include "cluster/place.h"
#include "cluster/same_host.h"
#include "coordinator/core.h"
#include "engine/backend/backend.h"
#include "engine/bench/limits.h"
#include "engine/engine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double READ_PER_CARD = 400e9, OPS_PER_CARD = 40e12; /* where a card does not say; as in topo_ranks.c */

enum err hosts_this_machine(struct clu_topo *t)
{
    enum err rc;
    struct bench_limits limits;
    const struct krn_table *krn;
    TRY(clu_topo_discover(t, true));
    struct clu_device *d = &t->devices[0];
    TRY(krn_table_pick("auto", &krn));
    if (!bench_limits_measure(&limits, krn->name, d->cores, NULL)) {
        d->read_bytes_s = limits.read_bytes_s;
        d->ops_s = limits.dot_ops_s;
    }
out:
    return rc;
}

/* Cards as the ranks of a job will say them (topo_ranks.c). */
static void add_cards(struct clu_topo *t)
{
    char name[24];
    struct plugin_device_info info;
    int32_t n = 0;
    for (int32_t i = 0; (!i || i < n) && t->n_devices < LIMIT_RANKS; i++) {
        if (eng_backend_choose("auto", i, name, &n, &info) || i >= n) return;
        struct clu_device *d = &t->devices[t->n_devices++];
        *d = (struct clu_device){.kind = CLU_GPU, .mem_bytes = info.free_bytes / 100 * 92,
                                 .read_bytes_s = info.read_bytes_s > 0 ? info.read_bytes_s : READ_PER_CARD,
                                 .ops_s = info.ops_s > 0 ? info.ops_s : OPS_PER_CARD};
        snprintf(d->name, sizeof d->name, "card%d", i);
    }
}

enum err hosts_this_machine_and_cards(struct clu_topo *t)
{
    enum err e = hosts_this_machine(t);
    if (!e) add_cards(t);
    return e;
}

enum err hosts_record(const struct clu_topo *t, const char *path)
{
    struct buf b = {0};
    clu_topo_write(t, &b);
    FILE *f = fopen(path, "wb");
    bool whole = f && fwrite(b.data, 1, b.len, f) == b.len;
    if (f && fclose(f)) whole = false;
    enum err rc = whole ? OK : err_raise(ERR_IO, "cannot write %s: %s", path, strerror(errno));
    buf_free(&b);
    return rc;
}

/* What a host's slots run on under --device auto: a card each, the others share its processors. */
static enum err deal_slots(struct clu_topo *one, int32_t slots)
{
    enum err rc;
    struct clu_topo *all = xmalloc(sizeof *all);
    int32_t cards = 0;
    *all = *one;
    one->n_devices = 0;
    for (int32_t i = 0; i < all->n_devices; i++)
        if (all->devices[i].kind == CLU_GPU && cards < slots) one->devices[one->n_devices++] = all->devices[i], cards++;
    for (int32_t i = 0; i < all->n_devices && cards < slots; i++)
        if (all->devices[i].kind == CLU_CPU) one->devices[one->n_devices++] = all->devices[i];
    rc = slots - cards > 1 ? clu_topo_split(one, slots - cards) : OK;
    free(all);
    return rc;
}

/* The host of this name, or that this name means; n_hosts: none. */
static int32_t host_named(const struct clu_topo *t, const char *name)
{
    int32_t h = 0;
    while (h < t->n_hosts && strcmp(t->hosts[h].name, name)) h++;
    for (int32_t k = 0; h == t->n_hosts && k < t->n_hosts; k++)
        if (clu_same_name(t->hosts[k].name, name)) return k;
    return h;
}

/* One host of `from` with its devices; NULL name: the first. */
static bool pick_host(const struct clu_topo *from, const char *name, struct clu_topo *out)
{
    int32_t h = 0;
    if (name) h = host_named(from, name);
    if (h == from->n_hosts) return false;
    clu_topo_init(out);
    out->hosts[out->n_hosts++] = from->hosts[h];
    for (int32_t i = 0; i < from->n_devices; i++)
        if (from->devices[i].host == h) {
            out->devices[out->n_devices] = from->devices[i];
            out->devices[out->n_devices++].host = 0;
        }
    return out->n_devices > 0;
}

/* A link of the topology's between the hosts of the hostfile's lines, of which host index[line] of the topology is each. Two lines may name the
 * same host. */
static enum err copy_link(struct clu_topo *to, const struct clu_link *l, const int32_t index[], int32_t n_lines)
{
    for (int32_t a = 0; a < n_lines; a++)
        for (int32_t b = 0; b < n_lines; b++) {
            if (a == b || l->a != index[a] || l->b != index[b]) continue;
            if (to->n_links == CLU_MAX_LINKS)
                return err_raise(ERR_BAD_CONFIG, "the hosts of the hostfile have more than %d links in the topology", CLU_MAX_LINKS);
            to->links[to->n_links++] = (struct clu_link){a, b, l->wire};
        }
    return OK;
}

enum err hosts_topo(struct clu_topo *t, const char *path, bool known)
{
    enum err rc;
    struct clu_hostfile f;
    struct clu_topo *all = xmalloc(sizeof *all), *one = xmalloc(sizeof *one);
    int32_t index[LIMIT_RANKS];
    clu_topo_init(all);
    all->wire = t->wire;
    all->wire_said = t->wire_said;
    TRY(clu_hostfile_read(&f, path));
    for (int32_t i = 0; i < f.n; i++) {
        if (!pick_host(t, known ? f.hosts[i].name : NULL, one))
            TRY(err_raise(ERR_BAD_CONFIG, "the hostfile %s, line %d: the topology has no host %s",
                          path, f.hosts[i].line, f.hosts[i].name));
        TRY(deal_slots(one, f.hosts[i].slots));
        TRY(clu_topo_add(all, one, f.hosts[i].name));
        index[i] = known ? host_named(t, f.hosts[i].name) : 0;
    }
    for (int32_t i = 0; i < t->n_links && known; i++) TRY(copy_link(all, &t->links[i], index, f.n));
    *t = *all;
out:
    free(all);
    free(one);
    return rc;
}

/* ---- their best order ---- */

/* The planner's two answers; kept together, they are large. */
struct two_plans {
    struct model_weights weights;
    struct clu_topo topo;
    struct clu_place as_written, best;
};

/* The hosts of a placement, one line each, or false: a host's ranks do not stand side by side. */
static bool order_of(const struct clu_place *p, const struct clu_topo *t, struct clu_hostfile *out)
{
    *out = (struct clu_hostfile){.n = 0};
    for (int32_t r = 0; r < p->n_ranks; r++) {
        const char *name = t->hosts[t->devices[p->layout.device[r]].host].name;
        int32_t last = out->n - 1;
        if (last >= 0 && !strcmp(out->hosts[last].name, name)) {
            out->hosts[last].slots++;
        } else {
            for (int32_t i = 0; i < out->n; i++)
                if (!strcmp(out->hosts[i].name, name)) return false;
            snprintf(out->hosts[out->n].name, sizeof out->hosts[0].name, "%s", name);
            out->hosts[out->n++].slots = 1;
        }
        out->n_slots++;
    }
    return true;
}

static enum err plan_twice(const struct placement *p, struct two_plans *x)
{
    enum err rc;
    const struct model_options *m = &p->o->model;
    TRY(clu_topo_read(&x->topo, p->o->cluster.topo));
    TRY(hosts_topo(&x->topo, p->o->cluster.hostfile, true));
    const struct eng_adapters adapters = adapters_of(&p->adapters);
    TRY(eng_engine_weights(p->model_path, &x->weights));
    TRY(eng_engine_adapters_weigh(p->model_path, &adapters, &x->weights));
    struct clu_work w = {.info = &p->info,
                         .weights = &x->weights,
                         .rates = &clu_rates_default,
                         .context = p->context,
                         .depth = MIN(p->context / 2, 512),
                         .max_step_tokens = (int32_t)m->max_batch_tokens,
                         .n_slots = (int32_t)m->max_seqs,
                         .kv_type = (enum kv_type)m->kv_type};
    struct clu_want want = {.users = 8, .need_tokens = m->kv_tokens, .kv_tokens = m->kv_tokens, .experts = options_experts(m->exact, m->experts),
                            .fixed_order = true};
    bool chosen;
    w.wire = options_wire(m->exact, m->wire_type, &chosen);
    if (clu_place_find(&x->as_written, &w, &x->topo, &want)) x->as_written.judged.tok_s = 0; /* as written it does not even fit */
    want.fixed_order = false;
    TRY(clu_place_find(&x->best, &w, &x->topo, &want));
out:
    return rc;
}

void hosts_order(const struct placement *p, struct clu_hostfile *out, bool *better)
{
    const struct cluster_options *c = &p->o->cluster;
    *better = false;
    if (!c->topo || !c->hostfile || c->launch != LAUNCH_MANAGED || c->replicas > 1 || c->ranks || p->o->model.tp || p->o->model.pp > 1) return;
    struct two_plans *x = xcalloc(1, sizeof *x);
    if (plan_twice(p, x)) {
        log_info("plan", "the hostfile's order is kept: %s", err_text());
    } else if (x->best.judged.tok_s > 1.02 * x->as_written.judged.tok_s && order_of(&x->best, &x->topo, out)) {
        struct buf b = {0};
        for (int32_t i = 0; i < out->n; i++) buf_printf(&b, "%s %s:%d", i ? "," : "", out->hosts[i].name, out->hosts[i].slots);
        log_info("plan", "the hosts are taken in another order than the hostfile's:%s (%.1f tok/s predicted for 8 users instead of %.1f)", buf_str(&b),
                 x->best.judged.tok_s, x->as_written.judged.tok_s);
        buf_free(&b);
        *better = true;
    }
    free(x);
}
