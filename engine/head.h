/* head.h: the end of a step on the last stage: the rows of logits that somebody wants, a token for each sequence that is to have one, and
 * the step's result. Private to engine/.
 *
 * Tokens that are the largest logit, with noise or without, or drawn among a few of the largest, are found in slices of the vocabulary, and only (value,
 * id) pairs travel. Other rows are
 * gathered; the team's threads share them. Every rank of the stage makes the same choices from the same bits, so none has to tell the others (docs/decisions/0001). */
#ifndef ENGINE_HEAD_H
#define ENGINE_HEAD_H

#include "base/arena.h"
#include "engine/model/forward.h"
#include "engine/sample/sampler.h"
#include "engine/slots.h"

struct eng_head {
    struct eng_model *m;         /* these three are borrowed and set by the caller */
    struct eng_slots *slots;
    struct eng_team *team;       /* of the host */
    struct eng_sampler **samplers; /* one per thread of the team, [n_samplers] */
    int32_t n_samplers;
    float *slice;                /* [rows at once][rows of this rank's head] */
    float *gathered;             /* [rows at once][n_vocab], rank after rank; NULL when this rank holds all rows */
    float *rows;                 /* [n_samplers][n_vocab] */
    struct result_token *chosen; /* [rows at once], then [tp_width][rows at once] of all ranks */
    uint64_t *masks;             /* [rows at once][n_vocab / 64 + 1] what grammars allow */
    struct krn_pick *tops;       /* [rows at once][KRN_TOP] of this rank's slice, and then of every rank's; NULL: one rank */
    int32_t *tokens;             /* [n_slots] chosen in this step, in item order */
    int32_t n_tokens;
    int32_t over;                /* the item whose guesses were right so far no longer, or -1; of the step in hand */
    bool texts_known;            /* the sampler has the tokens' texts */
    uint64_t left_of;            /* the last step that eng_head_leave left tokens of; UINT64_MAX: none */
    struct eng_head_left { uint64_t step; int32_t at; } *left; /* [n_slots] the last step that left one for a slot, and which of that step's it is */
};

void eng_head_open(struct eng_head *h);
void eng_head_close(struct eng_head *h);
/* The model's pass has run: choose, remember, answer. *res is filled where eng_head_answers. Err: the collective's. */
MUST_USE enum err eng_head_step(struct eng_head *h, const struct step_plan *p, struct arena *a, struct step_result *res);
/* The same in two halves, where every token of the step can stay on the device (engine/model/left.h) until the second: nothing waits in the first, and one
 * more step may have its first half before this one's second, on the other of two sides. Both may be asked before that: a yes stays one. */
bool eng_head_leaves(const struct eng_head *h, const struct step_plan *p);
MUST_USE enum err eng_head_leave(struct eng_head *h, const struct step_plan *p, struct arena *a, int32_t side);
MUST_USE enum err eng_head_take(struct eng_head *h, const struct step_plan *p, struct arena *a, int32_t side, struct step_result *res);
/* Is the token that an input names among those that were left last? Then its id, below 0 as in eng_batch; else 0. */
int32_t eng_head_left(const struct eng_head *h, const struct step_in *in);
/* No input will name any of them. */
void eng_head_forget(struct eng_head *h);
/* Does this rank send the results? */
static inline bool eng_head_answers(const struct eng_head *h) { return h->m->shard.tp_rank == 0; }

#endif
