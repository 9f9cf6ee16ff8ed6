/* topo_ranks.c: see topo_ranks.h. */
#include "cluster/topo_ranks.h"

#include "base/log.h"
#include "cluster/same_host.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double READ_PER_CARD = 400e9, OPS_PER_CARD = 40e12; /* where nothing was measured */

/* ---- hosts ---- */

static int32_t index_of(const struct clu_topo *t, const char *name)
{
    for (int32_t i = 0; i < t->n_hosts; i++)
        if (!strcmp(t->hosts[i].name, name)) return i;
    return -1;
}

/* The recorded host that this rank's is; -1: none. By name first, so that nothing is resolved where names are the same. */
static int32_t recorded(const struct clu_topo *known, const struct msg_hello *y)
{
    int32_t i = known ? index_of(known, y->host) : -1;
    for (int32_t k = 0; known && i < 0 && k < known->n_hosts; k++)
        if (clu_same_host(known->hosts[k].name, y->host, y->addresses ? y->addresses : "")) i = k;
    return i;
}

static int32_t host_of(struct clu_topo *t, const char *name)
{
    int32_t i = index_of(t, name);
    if (i >= 0) return i;
    struct clu_host *h = &t->hosts[t->n_hosts];
    *h = (struct clu_host){.packages = 1, .cores = 1, .threads = 1, .numa = 1, .disk_bytes_s = 1e9, .local = {2e-6, 8e9}};
    snprintf(h->name, sizeof h->name, "%s", name);
    return t->n_hosts++;
}

/* ---- devices ---- */

/* The processors of recorded host h, shared by `of` ranks. */
static bool recorded_speed(const struct clu_topo *known, int32_t h, int32_t of, struct clu_device *d)
{
    double read = 0, ops = 0;
    for (int32_t k = 0; h >= 0 && k < known->n_devices; k++)
        if (known->devices[k].host == h && known->devices[k].kind == CLU_CPU) read += known->devices[k].read_bytes_s, ops += known->devices[k].ops_s;
    if (read <= 0) return false;
    d->read_bytes_s = read / of;
    d->ops_s = ops / of;
    return true;
}

static void guessed_speed(const struct msg_hello *y, int32_t n, int32_t n_threads, const struct clu_guess *g, struct clu_device *d)
{
    struct clu_crowd *c = &d->crowd;
    *c = (struct clu_crowd){.ranks = g->machine ? n : MAX(y->host_size, 1), .processors = g->machine ? g->machine : MAX(y->n_cpus, 1),
                            .most = n_threads ? n_threads : MAX(y->n_cpus, 1), .moves = y->n_cpus >= g->machine,
                            .read_bytes_s = g->read_bytes_s, .ops_s = g->ops_s,
                            .all_read_bytes_s = g->host_read_bytes_s};
    clu_crowd_speed(c, c->ranks, false, &d->read_bytes_s, &d->ops_s);
}

static bool add_rank(struct clu_topo *t, const struct msg_hello *y, int32_t n_ranks, const struct clu_topo *known, int32_t in_known, int32_t n_threads,
                     const struct clu_guess *guess)
{
    int32_t of = MAX(y->host_size, 1), shared = MAX(y->mem_ranks, 1), n = t->n_devices;
    struct clu_device *d = &t->devices[t->n_devices++];
    *d = (struct clu_device){.kind = y->gpu ? CLU_GPU : CLU_CPU, .host = host_of(t, y->host), .cores = MAX(1, y->n_cpus / of),
                             .mem_bytes = y->mem_available / shared / 100 * 92};
    snprintf(d->name, sizeof d->name, "rank%d", n);
    if (y->gpu) {
        d->read_bytes_s = (y->read_bytes_s > 0 ? y->read_bytes_s : READ_PER_CARD) / shared;
        d->ops_s = (y->ops_s > 0 ? y->ops_s : OPS_PER_CARD) / shared;
        return y->read_bytes_s > 0 && y->ops_s > 0;
    }
    if (recorded_speed(known, in_known, of, d)) return true;
    guessed_speed(y, n_ranks, n_threads, guess, d);
    return guess->measured;
}

/* ---- links ---- */

/* To steps of a tenth: what jitters between two starts should not move a cut. */
static double rounded(double v) { return exp2(round(log2(v) * 8) / 8); }

/* What the ranks of hosts a and b measured: the slower of both directions. */
static bool measured_wire(const struct clu_topo *t, const struct msg_hello hellos[], int32_t n, int32_t a, int32_t b, struct clu_wire *out)
{
    bool any = false;
    for (int32_t r = 0; r < n; r++)
        for (int32_t i = 0; i < hellos[r].n_links; i++) {
            const struct msg_link *l = &hellos[r].links[i];
            if (l->rank >= n) continue;
            int32_t x = t->devices[r].host, y = t->devices[l->rank].host;
            if (!((x == a && y == b) || (x == b && y == a))) continue;
            *out = any ? (struct clu_wire){MAX(out->latency_s, l->latency_s), MIN(out->bytes_s, l->bytes_s)} : (struct clu_wire){l->latency_s, l->bytes_s};
            any = true;
        }
    if (any) *out = (struct clu_wire){rounded(out->latency_s), rounded(out->bytes_s)};
    return any;
}

/* What the hosts say of all at once: the slowest of them. Only where every host has measured it. */
static void measured_together(struct clu_topo *t, const struct msg_hello hellos[], int32_t n)
{
    struct clu_wire w = {0, 0};
    int32_t found = 0;
    for (int32_t r = 0; r < n; r++)
        for (int32_t i = 0; i < hellos[r].n_links; i++) {
            const struct msg_link *l = &hellos[r].links[i];
            if (l->rank != hellos[r].rank) continue;
            w = found++ ? (struct clu_wire){MAX(w.latency_s, l->latency_s), MIN(w.bytes_s, l->bytes_s)} : (struct clu_wire){l->latency_s, l->bytes_s};
        }
    if (found == t->n_hosts) t->together = (struct clu_wire){rounded(w.latency_s), rounded(w.bytes_s)};
}

static bool recorded_wire(const struct clu_topo *known, int32_t a, int32_t b, struct clu_wire *out)
{
    if (!known || a < 0 || b < 0 || a == b) return false;
    *out = clu_topo_wire(known, a, b);
    for (int32_t i = 0; i < known->n_links; i++)
        if ((known->links[i].a == a && known->links[i].b == b) || (known->links[i].a == b && known->links[i].b == a)) return true;
    return known->wire_said;
}

static bool apart(double a, double b) { return a > 2 * b || b > 2 * a; }

static void compare(const struct clu_topo *t, int32_t a, int32_t b, const struct clu_wire *said, const struct clu_wire *seen)
{
    if (!apart(said->latency_s, seen->latency_s) && !apart(said->bytes_s, seen->bytes_s)) return;
    log_warn("plan", "the topology says %.0f us and %.2f Gbit/s between %s and %s, measured are %.0f us and %.2f Gbit/s: the plan goes by the file; record "
             "the machines again, or leave its links out", said->latency_s * 1e6, said->bytes_s * 8e-9, t->hosts[a].name, t->hosts[b].name,
             seen->latency_s * 1e6, seen->bytes_s * 8e-9);
}

/* True: known, by file or measurement. */
static bool add_link(struct clu_topo *t, const struct msg_hello hellos[], int32_t n, const struct clu_topo *known, const int32_t in_known[], int32_t a,
                     int32_t b)
{
    struct clu_wire said = {0, 0}, seen = {0, 0};
    bool file = recorded_wire(known, in_known[a], in_known[b], &said), here = measured_wire(t, hellos, n, a, b, &seen);
    if (file && here) compare(t, a, b, &said, &seen);
    if (file || here) t->links[t->n_links++] = (struct clu_link){a, b, file ? said : seen};
    return file || here;
}

void clu_topo_ranks(struct clu_topo *t, const struct msg_hello hellos[], int32_t n, const struct clu_topo *known, int32_t n_threads,
                    const struct clu_guess *guess, struct clu_ranks_known *what)
{
    int32_t in_known[CLU_MAX_HOSTS];
    *what = (struct clu_ranks_known){true, true};
    clu_topo_init(t);
    if (known) t->wire = known->wire;
    for (int32_t r = 0; r < n; r++) {
        int32_t before = t->n_hosts, h = host_of(t, hellos[r].host);
        if (t->n_hosts > before) {
            in_known[h] = recorded(known, &hellos[r]);
            if (in_known[h] >= 0) t->hosts[h] = known->hosts[in_known[h]];
            snprintf(t->hosts[h].name, sizeof t->hosts[h].name, "%s", hellos[r].host);
        }
        what->speed &= add_rank(t, &hellos[r], n, known, in_known[h], n_threads, guess);
    }
    for (int32_t a = 0; a < t->n_hosts; a++)
        for (int32_t b = a + 1; b < t->n_hosts; b++) what->links &= add_link(t, hellos, n, known, in_known, a, b);
    if (t->n_hosts > 2) measured_together(t, hellos, n);
}
