/* step_plan.h: one step of a replica: the only way a sequence changes.
 *
 * Built by the scheduler, packed once, sent to the lead rank, handed by it to all ranks, unpacked by each.
 * Records are applied in this order: ends, starts, forks, table deltas, copies, then the items are computed.
 * A plan is a view: arrays belong to whoever built it (the scheduler's step arena, or step_plan_unpack's buffer).
 * Packed form: little-endian, lengths first, every index checked by unpack; no pointers on the wire. */
#ifndef PROTO_STEP_PLAN_H
#define PROTO_STEP_PLAN_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "proto/grammar.h"
#include "proto/pooling.h"
#include "proto/sampling.h"

enum {
    STEP_SLEEP = 1,          /* after this step every rank sleeps on its control stream until Wake */
    STEP_SHUTDOWN = 2,       /* after this step leave the loop for good */
};
enum step_out {
    OUT_NONE = 0,            /* a prefill chunk that is not the last */
    OUT_SAMPLE = 1,          /* choose the next token from the item's last position */
    OUT_LOGITS = 2,          /* return the logits rows of all n_in positions (f32; generate --logits, tests) */
    OUT_PROMPT = 4,          /* log-probabilities of what follows each of its positions: the next input, and `next` after the last */
    OUT_POOL = 8,            /* these positions go into the sequence's pooled hidden state; returned with the prompt's last */
    OUT_DRAFT = 16,          /* with OUT_SAMPLE: the last n_draft inputs are guesses at what will be chosen */
};

struct step_end { int32_t slot; };

struct step_start {
    int32_t slot;
    uint64_t seq_id;
    struct sampling sampling;
    int32_t n_generated;         /* tokens already generated before (resumed after preemption or recovery) */
    int32_t n_prompt;            /* prompt length, for penalties and positions */
    int32_t adapter;             /* which LoRA adapter of the load plan, counted from 1; 0: the model alone */
    enum step_pool pool;         /* not NONE: nothing is sampled; POOL_MEAN: all of the prompt is computed, from position 0 on */
    /* Known tokens sent along: all of them if sampling_needs_history, else the n_generated ones if
     * there is a grammar, else none. */
    int32_t n_history;
    const int32_t *history;      /* [n_history] */
    struct grammar_source grammar;   /* kind GRAMMAR_NONE: any text */
};

/* dst becomes a copy of src's sampling state with another choice index (n > 1); blocks are shared by table deltas. */
struct step_fork { int32_t src, dst; uint64_t seq_id; int32_t choice; };

struct step_copy { int32_t group, src, dst; };               /* whole blocks, in the KV pool */

/* Blocks appended to a sequence's table of one group, starting at table index `first`. */
struct step_table { int32_t slot, group, first, n; const int32_t *ids; };

/* An input position: a literal token (id >= 0), or the output of an earlier step for a slot (id < 0: use ref). */
struct step_in { int32_t id; uint64_t ref_step; int32_t ref_slot; };

struct step_item {
    int32_t slot;                /* no other item of the plan has it */
    int32_t pos;                 /* absolute position of the first input */
    int32_t n_in;
    uint32_t out;                /* enum step_out flags */
    int32_t next;                /* OUT_PROMPT: the prompt's token behind the last input; -1: the prompt ends here */
    /* OUT_DRAFT: a token is chosen after the last input that is no guess, and after each guess that was right: 1 to 1 + n_draft tokens, the same
     * as without guesses. What stands in the KV cache behind the last right guess is written again by the next item. 1 to LIMIT_RESULT_TOKENS - 1. */
    int32_t n_draft;
    const struct step_in *in;    /* [n_in] OUT_PROMPT, OUT_DRAFT: all of them literal */
};

struct step_plan {
    uint32_t epoch;
    uint16_t replica, model;
    uint64_t step;               /* 1, 2, 3, ... within an epoch; 0: no step, only flags */
    uint32_t flags;
    int32_t n_ends, n_starts, n_forks, n_tables, n_copies, n_items;
    struct step_end *ends;
    struct step_start *starts;
    struct step_fork *forks;
    struct step_table *tables;
    struct step_copy *copies;
    struct step_item *items;
};

/* What a plan may refer to; unpack refuses anything outside. n_slots: at most LIMIT_SLOTS. */
struct step_bounds { int32_t n_slots, n_groups, n_blocks, n_vocab, context, n_adapters; };

void step_plan_pack(const struct step_plan *p, struct buf *out);   /* appends */
/* Arrays are allocated in `a` and live as long as it. Err LINK_PROTOCOL naming the record and the value. */
MUST_USE enum err step_plan_unpack(struct step_plan *p, const void *data, size_t n, const struct step_bounds *b,
                                   struct arena *a);
int32_t step_plan_tokens(const struct step_plan *p);               /* sum of n_in */

#endif
