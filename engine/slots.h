/* slots.h: the state of sequences on one rank: what a plan's records change. Private to engine/. */
#ifndef ENGINE_SLOTS_H
#define ENGINE_SLOTS_H

#include "engine/constraint.h"
#include "proto/kv_groups.h"
#include "proto/step_plan.h"
#include "proto/step_result.h"

struct eng_slot {
    bool used, stopped;        /* stopped: a stop id or max_tokens was reached; later items give nothing */
    uint64_t seq_id;
    int32_t adapter;           /* number of the LoRA adapter that it uses, 0: none */
    struct sampling sampling;  /* Own: its arrays */
    int32_t n_prompt, n_generated;
    int32_t *table[LIMIT_GROUPS]; /* [n_groups][max_blocks] block ids */
    int32_t n_table[LIMIT_GROUPS];
    int32_t *history;          /* tokens so far, only when the penalties need them; Own */
    int32_t n_history, cap_history;
    struct eng_constraint *constraint; /* the grammar it keeps to, on the last stage; NULL: none. Own */
    enum step_pool pool;
    float *pool_sum;           /* [pool_dim] POOL_MEAN: of the first n_pooled positions, where the answer is made; Own */
    int32_t n_pooled;
    int32_t last_token;        /* sampled by last_step; -1: none */
    uint64_t last_step;
};

struct eng_slots {
    struct eng_slot *slots;    /* [n_slots] */
    int32_t n_slots, max_blocks;
    struct kv_groups groups;
    struct eng_constraints *constraints; /* last stage; borrowed */
    int32_t pool_dim;          /* d_model on the rank that answers, else 0 */
    int32_t *tables;           /* memory of all tables */
};

void eng_slots_open(struct eng_slots *s, int32_t n_slots, int32_t context, const struct kv_groups *groups);
void eng_slots_close(struct eng_slots *s);
/* Every slot is free. */
void eng_slots_clear(struct eng_slots *s);
/* Ends, starts, forks, tables of a plan, in that order. Err LINK_PROTOCOL naming slot and contradiction. */
MUST_USE enum err eng_slots_apply(struct eng_slots *s, const struct step_plan *p);
/* The slot of an item, with its tables long enough for the item's positions. */
MUST_USE enum err eng_slots_of_item(struct eng_slots *s, const struct step_item *it, struct eng_slot **out);
/* A token was chosen for the slot in `step`: history, count, stop. Returns why it stopped, if it did. */
enum seq_finish eng_slots_sampled(struct eng_slot *s, uint64_t step, int32_t token);

#endif
