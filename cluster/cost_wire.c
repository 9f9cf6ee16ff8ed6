/* cost_wire.c: seconds between ranks: collectives inside a stage, and sending on to the next. */
#include "cluster/cost_impl.h"

enum {
    CONSENT_BYTES = 1 << 20, /* a larger message waits until the receiver has said that it may come (transport/mpi_post.c) */
    ONE_SHOT_BYTES = 65536
}; /* all parts of an all_reduce together; above, each rank reduces a slice (transport/coll_mpi.c)
    */

bool clu_cost_same_host(const struct clu_topo *t, int32_t a, int32_t b)
{
    return t->devices[a].host == t->devices[b].host;
}

/* Of the way from what two hosts alone take to what all take at once: how far so many are. */
static double crowding(const struct clu_topo *t, int32_t n_hosts)
{
    return t->together.latency_s > 0 && n_hosts > 2 ? MIN(1, (n_hosts - 2.0) / (t->n_hosts - 2)) : 0;
}

static int32_t hosts_of(const struct clu_topo *t, const int32_t device[], int32_t n)
{
    int32_t hosts = 0;
    for (int32_t i = 0, k; i < n; i++) {
        for (k = 0; k < i && !clu_cost_same_host(t, device[i], device[k]); k++) {}
        hosts += k == i;
    }
    return hosts;
}

/* The slowest rank's time to receive bytes[j] from every other; ranks of a host share its wire. */
static double gather_s(const struct clu_work *w, const struct clu_topo *t, const int32_t device[], int32_t n,
                       const double bytes[])
{
    double worst = 0, latency = 0, all = crowding(t, hosts_of(t, device, n));
    for (int32_t i = 0; i < n; i++) {
        double near = 0, far = 0, far_bytes = 0;
        int32_t here = 0, messages = 0;
        for (int32_t j = 0; j < n; j++) {
            struct clu_wire x =
                clu_topo_wire(t, t->devices[device[i]].host, t->devices[device[j]].host);
            bool same = clu_cost_same_host(t, device[i], device[j]);
            here += same;
            if (i == j) continue;
            messages += !same;
            latency = MAX(latency, !same && bytes[j] > CONSENT_BYTES ? 3 * x.latency_s : x.latency_s);
            if (same)
                near += bytes[j] / x.bytes_s;
            else
                far += bytes[j] / x.bytes_s, far_bytes += bytes[j];
        }
        /* all at once: as measured, if that is more than the sum of the pairs */
        if (all > 0) far += all * MAX(far_bytes / t->together.bytes_s - far, 0);
        worst = MAX(worst, near + far * here + w->rates->message_s * MAX(messages - 1, 0));
    }
    double pairs = latency + w->rates->message_s * MAX(n - 2, 0), more = all > 0 ? all * MAX(t->together.latency_s - pairs, 0) : 0;
    return latency + worst + more;
}

/* Everybody gives all its bytes to everybody, or each a slice to each and its sum to all: as transport/coll_mpi.c does. */
static double exchange_s(const struct clu_work *w, const struct clu_topo *t, const int32_t device[], int32_t n, double bytes[], double vector)
{
    double all = 0;
    for (int32_t i = 0; i < n; i++) all += bytes[i];
    if (all <= ONE_SHOT_BYTES || (n == 2 && all <= 2 * vector)) return gather_s(w, t, device, n, bytes);
    for (int32_t i = 0; i < n; i++) bytes[i] /= n;
    double s = gather_s(w, t, device, n, bytes);
    for (int32_t i = 0; i < n; i++) bytes[i] = vector / n;
    return s + gather_s(w, t, device, n, bytes);
}

double clu_cost_reduce(const struct clu_work *w, const struct clu_topo *t, const int32_t device[],
                       int32_t n, const int32_t parts[], int32_t rows)
{
    static const double shrink[CLU_WIRE_TYPES] = {1, 0.5, 36.0 / 128};
    double vector = 4.0 * w->info->d_model * rows, bytes[LIMIT_RANKS], near = 0;
    int32_t first[LIMIT_RANKS], n_hosts = 0;
    if (n == 1) return 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t h = t->devices[device[i]].host, k = 0;
        while (k < n_hosts && t->devices[first[k]].host != h) k++;
        if (k == n_hosts) {
            first[n_hosts++] = device[i];
            bytes[k] = 0;
        } else {
            struct clu_wire x = clu_topo_wire(t, h, h);
            near = MAX(near, 2 * x.latency_s + (bytes[k] + (parts[i] + 1) * vector) / x.bytes_s);
        }
        /* neighbours' subtrees grow together: a host sends about as many as its most ragged rank */
        bytes[k] = MAX(bytes[k], parts[i] * vector);
    }
    if (n_hosts == 1) {
        for (int32_t i = 0; i < n; i++) bytes[i] = parts[i] * vector;
        return exchange_s(w, t, device, n, bytes, vector);
    }
    double small = shrink[w->wire];
    for (int32_t i = 0; i < n_hosts; i++) bytes[i] = w->wire ? vector * small : bytes[i];
    return near + exchange_s(w, t, first, n_hosts, bytes, vector * small);
}

double clu_cost_gather_rows(const struct clu_work *w, const struct clu_topo *t, const int32_t device[], int32_t n,
                            const struct grid_share share[], double row_bytes, int32_t rows,
                            int32_t tiles)
{
    double bytes[LIMIT_RANKS];
    if (n == 1 || !rows) return 0;
    for (int32_t i = 0; i < n; i++) bytes[i] = row_bytes * rows * share[i].vocab / tiles;
    return gather_s(w, t, device, n, bytes);
}

double clu_cost_hop(const struct clu_work *w, const struct clu_topo *t, const struct clu_layout *l,
                    int32_t stage, int32_t rows)
{
    const struct grid *g = &l->grid;
    if (stage == g->n_stages - 1) return 0;
    int32_t from = grid_first(g, stage), to = from + g->width[stage];
    double bytes = 4.0 * w->info->d_model * rows, far = 0, near = 0;
    for (int32_t j = 0; j < g->width[stage + 1]; j++) {
        int32_t a = l->device[from + j % g->width[stage]], b = l->device[to + j];
        struct clu_wire x = clu_topo_wire(t, t->devices[a].host, t->devices[b].host);
        double s = x.latency_s + bytes / x.bytes_s;
        if (clu_cost_same_host(t, a, b))
            near = MAX(near, s);
        else
            far += far > 0 ? bytes / x.bytes_s : s; /* copies of the same rows over the same wire */
    }
    return MAX(near, far);
}
