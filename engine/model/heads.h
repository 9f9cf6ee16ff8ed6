/* heads.h: a norm over all heads of q, and over all of k, where every rank of a stage has some (OLMo 2, OLMoE). Private to engine/model.
 *
 * Each rank sums the squares of its heads; all ranks gather those sums, and add them head by head. On a device its kernels do both, and the sums
 * go from card to card where those of layers do, else by the host's memory. */
#ifndef ENGINE_MODEL_HEADS_H
#define ENGINE_MODEL_HEADS_H

#include "engine/model/pass.h"

/* Room for the sums, if the model has such norms. */
MUST_USE enum err eng_heads_open(struct eng_model *m);
void eng_heads_close(struct eng_model *m);

/* q and k of tokens [t0,t1) become their norms; by all threads of the team, of which thread 0 speaks to the other ranks. Err: in p->failed. */
void eng_heads_norm(struct eng_pass *p, const struct eng_layer *l, int64_t t0, int64_t t1, int32_t i);

#endif
