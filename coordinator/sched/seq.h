/* seq.h: one choice of one request, from submit to its finishing event, and the request whose
 * choices share a prompt. Private to sched/: everything here belongs to the scheduler thread.
 *
 * Tokens of a sequence are numbered by position: [0, n_prompt) the prompt, then what was generated.
 * Of these, n_known have ids that the scheduler knows, n_total exist (sampled by steps in flight
 * included), n_computed are inputs of steps sent. A step in flight with guesses counts as one token
 * until its result says how many there were. */
#ifndef COORDINATOR_SCHED_SEQ_H
#define COORDINATOR_SCHED_SEQ_H

#include "coordinator/sched/fair.h"
#include "coordinator/sched/guess.h"
#include "coordinator/sched/prefix.h"
#include "coordinator/sched/scheduler.h"

/* The table of transitions stands in seq.c. */
enum crd_seq_state {
    SEQ_NEW,        /* being made, or on its way to another scheduler */
    SEQ_HELD,       /* waits for a sibling to compute the prompt they share */
    SEQ_WAITING,    /* in its tenant's line, or in the line of the resumed */
    SEQ_PREFILL,    /* holds a slot and the blocks of all known tokens; some are not computed */
    SEQ_DECODE,     /* one token per step */
    SEQ_LAST,       /* every token it may have is asked for */
    SEQ_PREEMPTING, /* will give slot and blocks back when its steps in flight are known */
    SEQ_DRAINING,   /* has had its finishing event; blocks wait for its steps in flight */
    SEQ_N_STATES
};

struct crd_list {
    struct crd_seq *head, *tail;
    int32_t n;
};

struct crd_seq {
    struct crd_group *group;
    uint64_t id; /* also the order of arrival */
    int32_t choice;
    enum crd_seq_state state;
    bool gone;                   /* nothing refers to it; its group is still there */
    bool started;                /* has had a slot */
    bool resumed;                /* has lost it again: goes ahead of those that have not run */
    struct crd_seq *prev, *next; /* in `list`: of prefills, decodes, or those that leave */
    struct crd_list *list;
    int32_t heap_at; /* in a line of waiting ones, or -1 */

    int32_t *gen; /* [n_gen] known generated tokens */
    int32_t n_gen, cap_gen;
    int32_t n_sampled; /* n_gen and those in flight */
    int32_t n_computed;
    int32_t n_charged; /* positions its tenant has paid for: recomputation is free */
    int32_t rows_sent; /* prompt positions whose logits or scores have been delivered */

    int32_t slot;         /* -1: none */
    uint64_t last_step;   /* that names it, in this epoch; 0: none */
    uint64_t sample_step; /* that samples its newest token */

    /* Its tables: row i has the block of each group for its i-th LIMIT_BLOCK_TOKENS tokens; one
     * reference each, -1: none. */
    int32_t *blocks; /* [n_blocks][groups.n] */
    int32_t n_blocks, cap_blocks;
    int32_t window_from, window_to; /* rows whose windowed blocks it holds */
    int32_t window_told;            /* up to which row the ranks know them */
    struct crd_prefix_hash *hashes; /* [n_hashes] of its full blocks, as far as they were needed */
    int32_t n_hashes, cap_hashes;
    int32_t n_published; /* leading rows of its tables that are nodes of the prefix tree */
    int32_t node;        /* the last of them, which it uses; or PREFIX_NONE */
    bool unpublished;    /* a row of it lost against an equal one: no more nodes below it */

    struct crd_guess guess;
    int64_t submit_us, sched_us, first_us, last_us; /* 0: not yet */
    int32_t n_lost, reached; /* losses of its replica while it ran, since it had come as far as this */
    int32_t n_preempted;
    int32_t n_right, n_wrong; /* guesses */
};

struct crd_group {
    uint64_t request;
    struct crd_group *next_bucket; /* in the table by request */
    struct crd_group *prev, *next; /* of all */
    struct crd_tenant *tenant;
    uint64_t tenant_id; /* what it joins with, also in another scheduler */
    float weight;
    int32_t priority;
    struct sampling sampling; /* of choice 0; Own: its arrays */
    struct grammar_source grammar; /* Own: text */
    bool prompt_logits, sample_logits;
    enum step_pool pool;
    uint64_t salt;
    int32_t adapter;
    int32_t *prompt;
    int32_t n_prompt;
    int32_t *likely; /* [n_likely] what the answers may well say; guess.c */
    int32_t n_likely;
    struct crd_seq *seqs;      /* [n] */
    int32_t n, n_open, n_gone; /* without a finishing event yet; freed for good */
    int32_t n_unstarted;       /* choices that have never had a slot */
    struct crd_seq *leader;    /* computes the prompt while its siblings are held */
    int32_t n_cached;          /* prompt tokens found in the prefix cache */
    int32_t *shared;           /* [n_shared][groups.n] full blocks of the prompt for choices not started */
    int32_t n_shared;
    int32_t n_shared_nodes, shared_node; /* how many of these rows are nodes; the last, which is used */
    struct crd_group *prev_shared, *next_shared; /* of those that keep some */
};

/* Lists of sequences; a sequence is in at most one. */
void crd_list_append(struct crd_list *l, struct crd_seq *s);
void crd_list_prepend(struct crd_list *l, struct crd_seq *s);
void crd_list_remove(struct crd_seq *s); /* from the one it is in, if any */

/* Who goes first among equals of a tenant, and who is preempted last: by priority, then arrival.
 * const void * for heaps. */
bool crd_seq_before(const void *a, const void *b);

static inline int32_t crd_seq_known(const struct crd_seq *s)
{
    return s->group->n_prompt + s->n_gen;
}
static inline int32_t crd_seq_total(const struct crd_seq *s)
{
    return s->group->n_prompt + s->n_sampled;
}
static inline int32_t crd_seq_token(const struct crd_seq *s, int32_t pos)
{
    return pos < s->group->n_prompt ? s->group->prompt[pos] : s->gen[pos - s->group->n_prompt];
}
/* Does something come back of every position of its prompt, log-probabilities or whole rows? */
static inline bool crd_seq_scored(const struct crd_seq *s)
{
    return !s->choice && s->group->sampling.n_prompt_logprobs >= 0;
}
static inline bool crd_seq_wants_prompt(const struct crd_seq *s)
{
    return (crd_seq_scored(s) || (s->group->prompt_logits && !s->choice)) &&
           s->rows_sent < s->group->n_prompt;
}
static inline bool crd_seq_running(const struct crd_seq *s)
{
    return s->state >= SEQ_PREFILL && s->state <= SEQ_PREEMPTING;
}

void crd_seq_move(struct crd_seq *s, enum crd_seq_state to); /* asserts that the table allows it */
void crd_seq_append(struct crd_seq *s, int32_t token);
/* n rows of n_groups blocks. */
void crd_seq_add_blocks(struct crd_seq *s, int32_t n, int32_t n_groups, const int32_t ids[]);
/* Ids of the i-th full block. */
void crd_seq_block_ids(const struct crd_seq *s, int32_t i, int32_t ids[LIMIT_BLOCK_TOKENS]);
/* Hash of its i-th full block; all its tokens must be known. */
struct crd_prefix_hash crd_seq_hash(struct crd_seq *s, const struct crd_prefix *p, int32_t i);
/* Frees what a sequence holds in memory, not the struct (the group's). */
void crd_seq_free(struct crd_seq *s);

/* A request and its choices, in state SEQ_NEW, with ids from first_id on. Those that had begun
 * elsewhere count as started and resumed, those that are over as gone. */
struct crd_group *crd_group_new(const struct gen_request *r, uint64_t first_id, int64_t now_us);
void crd_group_free(struct crd_group *g);

#endif
