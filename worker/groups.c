/* groups.c: whom this rank speaks with, and how: the ranks of its stage and all ranks of the job, over shared memory inside a
 * host, MPI between hosts, and both where a group has several ranks on several hosts. */
#include "worker/worker_impl.h"

#include "base/log.h"
#include "transport/coll_open.h"

#include <stdio.h>
#include <string.h>

#define C "worker"

enum { GROUP_TAGS = 100 }; /* more than there are groups: the tag of a group's first ranks */

/* The group of members[size] (ranks of the job, this one among them). Sums between hosts travel as `type`. */
static enum err open_group(struct worker *w, const struct msg_load_plan *p, const char *name, const int32_t members[], int32_t size, int32_t tag,
                           enum trn_wire_type type, struct trn_coll **out)
{
    enum err rc = OK;
    char text[128];
    int32_t host_of_rank[COLL_MAX_RANKS], hosts[COLL_MAX_RANKS], leaders[COLL_MAX_RANKS], n_hosts = 0, me = 0, first = 0, here = 0;
    struct trn_coll *local = NULL, *across = NULL, *flat = NULL;
    bool together = true; /* each host's ranks stand side by side */
    if (size == 1) return trn_coll_self_open(out);
    TRY(trn_mpi_env_hosts(host_of_rank));
    for (int32_t i = 0; i < size; i++) {
        int32_t h = host_of_rank[members[i]];
        if (members[i] == w->rank) me = i;
        if (!i || h != host_of_rank[members[i - 1]]) {
            for (int32_t k = 0; k < n_hosts; k++) together &= host_of_rank[leaders[k]] != h;
            leaders[n_hosts++] = members[i];
        }
        hosts[i] = n_hosts - 1;
    }
    for (int32_t i = size - 1; i >= 0; i--)
        if (hosts[i] == hosts[me]) first = i, here++;
    if (n_hosts == 1 && strcmp(p->wire, "mpi")) return trn_coll_shm_open(out, name, me, size, p->comm_timeout_us);
    TRY(trn_coll_mpi_open(&flat, members, size, tag));
    bool layers = together && n_hosts > 1 && n_hosts < size && strcmp(p->wire, "mpi");
    if (!layers) {
        *out = flat, flat = NULL;
    } else {
        snprintf(text, sizeof text, "%s-h%d", name, first);
        if (here > 1) TRY(trn_coll_shm_open(&local, text, me - first, here, p->comm_timeout_us));
        if (me == first) TRY(trn_coll_mpi_open(&across, leaders, n_hosts, tag + GROUP_TAGS));
        if (across && type) TRY(trn_coll_packed_open(&across, across, type));
        TRY(trn_coll_hier_open(out, me, size, hosts, local, across, flat));
        local = across = flat = NULL;
    }
    if (!layers && type) TRY(trn_coll_packed_open(out, *out, type));
out:
    trn_coll_close(local);
    trn_coll_close(across);
    trn_coll_close(flat);
    return rc;
}

/* Sums between the cards of this host's ranks of the stage, where each has one; else by the host, said once. */
enum err wrk_groups_device(void *user, const struct trn_device *d, struct trn_coll **out)
{
    enum err rc;
    struct worker *w = user;
    char how[TRN_NCCL_WHY];
    const struct msg_load_plan *p = &w->plan->load_plan;
    struct trn_coll *near = trn_coll_hier_local(w->tp), *cards = NULL;
    bool alone = near == NULL; /* the whole stage is on this host */
    if (alone) near = w->tp;
    if (!trn_coll_board(near)) return OK; /* no shared memory between us: not one host, or --wire mpi */
    struct trn_cards_conf c = {.host = near, .device = d, .exact = p->exact, .timeout_us = p->comm_timeout_us};
    TRY(trn_coll_cards_open(&cards, &c, how));
    if (!near->rank && d) log_info(C, "the cards of this host sum %s%s", how, p->exact && cards ? ", exactly" : "");
    if (alone || !cards) *out = cards;
    else TRY(trn_coll_hier_cards_open(out, w->tp, cards, d, 0));
out:
    return rc;
}

enum err wrk_groups_open(struct worker *w, const struct msg_load_plan *p, int32_t stage, int32_t first)
{
    enum err rc;
    int32_t members[COLL_MAX_RANKS];
    char name[96];
    enum trn_wire_type type = TRN_WIRE_F32;
    while (type + 1 < TRN_WIRE_TYPES && strcmp(p->wire_type, trn_wire_name[type])) type++;
    for (int32_t i = 0; i < w->size; i++) members[i] = i;
    snprintf(name, sizeof name, "%s-%u-world", w->job, p->epoch);
    TRY(open_group(w, p, name, members, w->size, 1, TRN_WIRE_F32, &w->world));
    snprintf(name, sizeof name, "%s-%u-s%d", w->job, p->epoch, stage);
    TRY(open_group(w, p, name, members + first, p->grid.width[stage], 2 + stage, type, &w->tp));
    log_debug(C, "speaking by %s, in the stage by %s", w->world->ops->name, w->tp->ops->name);
out:
    return rc;
}
