/* stages.h: what the ranks of different stages say to each other in one step: hidden states forward, sampled tokens back.
 *
 * With several stages the first one computes later steps while the last is still busy: it learns sampled tokens by messages that it reads, in
 * step order, no sooner than a reference needs them. Private to engine/. Thr: the engine's. */
#ifndef ENGINE_STAGES_H
#define ENGINE_STAGES_H

#include "engine/model/shard.h"
#include "engine/slots.h"
#include "transport/coll.h"

struct eng_token_note; /* a step whose sampled tokens were not read yet */

struct eng_stages {
    const struct grid *grid;       /* these four are borrowed and set by the caller */
    const struct eng_shard *shard;
    struct trn_coll *world;        /* all ranks of the replica */
    struct eng_slots *slots;
    int64_t timeout_us;
    struct eng_token_note *inbox;  /* first stage of several */
    int32_t n_inbox, cap_inbox;
    int32_t *tokens;               /* [n_slots] scratch */
};

void eng_stages_open(struct eng_stages *s);
void eng_stages_close(struct eng_stages *s);

/* x[n]: a step's hidden states, n floats. Err: the collective's. */
MUST_USE enum err eng_stages_receive(struct eng_stages *s, float *x, int64_t n);
MUST_USE enum err eng_stages_send(struct eng_stages *s, const float *x, int64_t n);

/* Last stage: tokens[n] of this step, in item order, to every rank of the first one. */
MUST_USE enum err eng_stages_send_tokens(struct eng_stages *s, const int32_t tokens[], int32_t n);
/* First stage of several: this step's tokens are to come. */
MUST_USE enum err eng_stages_expect_tokens(struct eng_stages *s, const struct step_plan *p);
/* First stage of several: read every message of steps so far. */
MUST_USE enum err eng_stages_read_all(struct eng_stages *s);
/* First stage: the token that an input refers to. Err LINK_PROTOCOL: there is none. */
MUST_USE enum err eng_stages_token(struct eng_stages *s, const struct step_in *in, int32_t *id);

#endif
