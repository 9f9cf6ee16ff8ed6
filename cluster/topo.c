/* topo.c: see topo.h. */
#include "cluster/topo.h"

#include <stdio.h>
#include <string.h>

void clu_topo_init(struct clu_topo *t)
{
    memset(t, 0, sizeof *t);
    t->wire = (struct clu_wire){60e-6, 117e6}; /* gigabit Ethernet */
}

/* Of n that compute alike parts and wait for each other, as many at once as there are processors until all have: the last, if alone, has the
 * memory to itself. */
static double read_in_turns(const struct clu_crowd *c, int32_t n, double all)
{
    double seconds = 0;
    for (int32_t left = n; left > 0; left -= c->processors) seconds += 1 / MIN(MIN(c->most, 1) * c->read_bytes_s, all / MIN(left, c->processors));
    return 1 / seconds;
}

void clu_crowd_speed(const struct clu_crowd *c, int32_t active, bool even, double *read_bytes_s, double *ops_s)
{
    int32_t n = MAX(active, 1);
    bool mean = n <= c->processors || (even && c->moves);
    double share = mean ? (double)c->processors / n : 1.0 / DIV_UP(n, c->processors), cpus = MIN(c->most, share);
    double all = c->all_read_bytes_s > 0 ? c->all_read_bytes_s : c->read_bytes_s * c->processors;
    *read_bytes_s = mean ? MIN(cpus * c->read_bytes_s, all / n) : read_in_turns(c, n, all);
    *ops_s = cpus * c->ops_s;
}

struct clu_wire clu_topo_wire(const struct clu_topo *t, int32_t a, int32_t b)
{
    if (a == b) return t->hosts[a].local;
    for (int32_t i = 0; i < t->n_links; i++) {
        const struct clu_link *l = &t->links[i];
        if ((l->a == a && l->b == b) || (l->a == b && l->b == a)) return l->wire;
    }
    return t->wire;
}

enum err clu_topo_split(struct clu_topo *t, int32_t ranks)
{
    struct clu_topo s = *t;
    int32_t n = 0;
    for (int32_t i = 0; i < t->n_devices; i++) {
        const struct clu_device *d = &t->devices[i];
        int32_t k = d->kind == CLU_CPU ? ranks : 1;
        if (k < 1 || n + k > LIMIT_RANKS)
            return err_raise(ERR_BAD_CONFIG,
                             "%d ranks on each of %d devices are outside 1..%d ranks", ranks,
                             t->n_devices, LIMIT_RANKS);
        for (int32_t r = 0; r < k; r++) {
            struct clu_device *o = &s.devices[n++];
            *o = *d;
            if (k > 1) snprintf(o->name, sizeof o->name, "%.50s/%d", d->name, r);
            o->cores = d->cores * (r + 1) / k - d->cores * r / k;
            o->mem_bytes = d->mem_bytes / k;
            o->read_bytes_s = d->read_bytes_s / k;
            o->ops_s = d->ops_s / k;
        }
    }
    s.n_devices = n;
    *t = s;
    return OK;
}

static bool taken(const struct clu_topo *t, const char *name)
{
    for (int32_t i = 0; i < t->n_hosts; i++)
        if (!strcmp(t->hosts[i].name, name)) return true;
    return false;
}

enum err clu_topo_add(struct clu_topo *t, const struct clu_topo *more, const char *name)
{
    if (t->n_hosts + more->n_hosts > CLU_MAX_HOSTS || t->n_devices + more->n_devices > LIMIT_RANKS)
        return err_raise(ERR_BAD_CONFIG, "%d hosts with %d devices: at most %d and %d are possible",
                         t->n_hosts + more->n_hosts, t->n_devices + more->n_devices, CLU_MAX_HOSTS,
                         LIMIT_RANKS);
    int32_t base = t->n_hosts;
    for (int32_t i = 0; i < more->n_hosts; i++) {
        struct clu_host h = more->hosts[i];
        if (name) snprintf(h.name, sizeof h.name, "%s", name);
        for (int32_t k = 2; taken(t, h.name); k++)
            snprintf(h.name, sizeof h.name, "%.48s-%d", more->hosts[i].name, k);
        t->hosts[t->n_hosts++] = h;
    }
    for (int32_t i = 0; i < more->n_devices; i++) {
        t->devices[t->n_devices] = more->devices[i];
        t->devices[t->n_devices++].host += base;
    }
    return OK;
}
