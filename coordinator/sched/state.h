/* state.h: the scheduler as its own files see it. Private to sched/; one thread.
 *
 * Who is where: waiting ones in fair.waiting or `resumed`; those with a slot in `prefills`,
 * `decodes` or `leaving`; those that only wait for their steps in flight in `leaving` as well. */
#ifndef COORDINATOR_SCHED_STATE_H
#define COORDINATOR_SCHED_STATE_H

#include "coordinator/sched/blocks.h"
#include "coordinator/sched/seq.h"

/* What a step in flight asked of whom: enough to understand its result. */
struct crd_step_item {
    struct crd_seq *seq;
    int32_t slot, pos, n_in, n_draft;
    uint32_t out;
};
struct crd_step_rec {
    uint64_t step;
    int32_t n;
    struct crd_step_item *items;
};

/* The plan being built; arrays are boot memory, the finished plan gets copies. */
struct crd_batch {
    struct arena *a;
    uint64_t step;
    int32_t max_items, tokens_left, rows_left, guesses_left;
    struct kv_groups groups;
    int64_t start_bytes; /* that the start records will take on the wire, about */
    int32_t n_ends, n_starts, n_tables, n_items;
    struct step_end *ends;     /* [n_slots] */
    struct step_start *starts; /* [n_slots] */
    struct step_table *tables; /* [n_slots * groups.n] */
    struct step_item *items;   /* [max_items] */
    struct crd_step_rec *rec;
};

struct crd_sched {
    struct sched_conf conf;
    token_event_fn on_event;
    void *user;
    int64_t now_us; /* of the call in progress */

    struct crd_blocks blocks;
    struct crd_prefix prefix;
    struct crd_fair fair;
    struct crd_heap resumed;           /* preempted, or their replica was lost: by crd_seq_before */
    struct crd_list prefills, decodes; /* decodes: by last step, oldest first */
    struct crd_list leaving;           /* LAST, PREEMPTING, DRAINING: need no more steps */
    int32_t n_new; /* HELD and WAITING ones that have not run: what max_waiting bounds */

    struct crd_seq **slots; /* [n_slots] NULL: free, or its end record is still to be sent */
    int32_t *free_slots, n_free_slots; /* [n_slots] */
    int32_t *ends, n_ends; /* [n_slots] slots whose end record goes into the next plan */

    struct crd_group *groups;      /* all */
    int32_t of_adapter[LIMIT_ADAPTERS + 1]; /* how many of them use it */
    struct crd_group **by_request; /* [n_buckets] those with open choices */
    int32_t n_buckets;
    struct crd_group *shared; /* those that keep prompt blocks for choices that have not started */

    struct crd_batch batch;
    struct crd_step_rec *recs; /* [depth] a ring */
    int32_t first_rec, n_in_flight;
    uint64_t step, retired; /* last sent, last answered, in this epoch */
    uint64_t next_id;
    int32_t longest;               /* sequence that there is room for */
    int32_t *scratch_ids;          /* [rows of a longest sequence][groups.n] */
    int32_t *scratch_new;          /* the same */
    const struct crd_seq *stalled; /* found no room; will not before somebody drops blocks */
    uint64_t stalled_at;           /* blocks.n_drops then */
    struct sched_stats stats;      /* the counters */
};

static inline int32_t crd_sched_n_running(const struct crd_sched *s)
{
    return s->conf.n_slots - s->n_free_slots - s->n_ends;
}
/* Is there a step in flight that names it? */
static inline bool crd_sched_in_flight(const struct crd_sched *s, const struct crd_seq *q)
{
    return q->last_step > s->retired;
}

/* check.c: every invariant of this folder, asserted; O(everything), for tests. */
void crd_sched_check(const struct crd_sched *s);

#endif
