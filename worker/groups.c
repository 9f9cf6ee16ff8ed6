/* groups.c: whom this rank speaks with, and how: the ranks of its stage and all ranks of the job, over shared memory inside a
 * host, MPI between hosts, and both where a group has several ranks on several hosts. */
#include "worker/worker_impl.h"

#include "base/log.h"
#include "transport/coll_open.h"

#include <stdio.h>
#include <string.h>

#define C "worker"

enum { GROUP_TAGS = 100 }; /* more than there are groups: the tag of a group's first ranks */

/* How the members of a group lie over hosts. A run: neighbours in the group that are of one host. */
struct spread {
    int32_t run_of[COLL_MAX_RANKS];  /* [size] of each member */
    int32_t leaders[COLL_MAX_RANKS]; /* [n_runs] the first of each, as a rank of the job */
    int32_t n_runs;
    int32_t me, first, here; /* this rank in the group; the first member of its run, and how many it has */
    bool together;           /* each host's members are one run */
};

static enum err spread_of(struct spread *s, int32_t rank, const int32_t members[], int32_t size)
{
    enum err rc;
    int32_t host_of[COLL_MAX_RANKS]; /* by rank of the job */
    *s = (struct spread){.together = true};
    TRY(trn_mpi_env_hosts(host_of));
    for (int32_t i = 0; i < size; i++) {
        int32_t host = host_of[members[i]];
        if (members[i] == rank) s->me = i;
        if (!i || host != host_of[members[i - 1]]) {
            for (int32_t k = 0; k < s->n_runs; k++) s->together &= host_of[s->leaders[k]] != host;
            s->leaders[s->n_runs++] = members[i];
        }
        s->run_of[i] = s->n_runs - 1;
    }
    for (int32_t i = size - 1; i >= 0; i--)
        if (s->run_of[i] == s->run_of[s->me]) s->first = i, s->here++;
out:
    return rc;
}

/* Of several hosts, some with several ranks: a group inside this host, one of the hosts' first ranks, and `flat`, of all, for messages. On success
 * *out owns flat. */
static enum err open_layers(const struct spread *s, int32_t size, const char *name, int64_t timeout_us, int32_t tag, enum trn_wire_type type,
                            struct trn_coll *flat, struct trn_coll **out)
{
    enum err rc = OK;
    char text[128];
    struct trn_coll *local = NULL, *across = NULL;
    snprintf(text, sizeof text, "%s-h%d", name, s->first);
    if (s->here > 1) TRY(trn_coll_shm_open(&local, text, s->me - s->first, s->here, timeout_us));
    if (s->me == s->first) TRY(trn_coll_mpi_open(&across, s->leaders, s->n_runs, tag + GROUP_TAGS));
    if (across && type) TRY(trn_coll_packed_open(&across, across, type));
    TRY(trn_coll_hier_open(out, s->me, size, s->run_of, local, across, flat));
    local = across = NULL;
out:
    trn_coll_close(local);
    trn_coll_close(across);
    return rc;
}

/* The group of members[size] (ranks of the job, this one among them). Sums between hosts travel as `type`. */
static enum err open_group(struct worker *w, const struct msg_load_plan *p, const char *name, const int32_t members[], int32_t size, int32_t tag,
                           enum trn_wire_type type, struct trn_coll **out)
{
    enum err rc;
    struct spread s;
    struct trn_coll *flat = NULL;
    bool mpi_alone = !strcmp(p->wire, "mpi");
    if (size == 1) return trn_coll_self_open(out);
    TRY(spread_of(&s, w->rank, members, size));
    if (s.n_runs == 1 && !mpi_alone) return trn_coll_shm_open(out, name, s.me, size, p->comm_timeout_us);
    TRY(trn_coll_mpi_open(&flat, members, size, tag));
    if (s.together && s.n_runs > 1 && s.n_runs < size && !mpi_alone) {
        TRY(open_layers(&s, size, name, p->comm_timeout_us, tag, type, flat, out));
    } else if (type) {
        TRY(trn_coll_packed_open(out, flat, type));
    } else {
        *out = flat;
    }
    flat = NULL;
out:
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
