/* fake_model.h: a model whose every next token depends on every token before it, on the sampling
 * parameters and on nothing else: what a sequence must come to, however it was scheduled. */
#ifndef TESTS_SCHED_FAKE_MODEL_H
#define TESTS_SCHED_FAKE_MODEL_H

#include "coordinator/sched/scheduler.h"

enum { FAKE_VOCAB = 50, FAKE_ROW = 2, FAKE_POOLED = 4, FAKE_PERIOD = 7 };

/* The state after one more token; the state before the first is 0. Stands for the KV of a position.
 */
uint64_t fake_state(uint64_t before, int32_t token);
/* The token after `state`, as generated token number n_generated. history[n_history]: all tokens so
 * far, if the penalties need them. */
int32_t fake_next(uint64_t state, const struct sampling *p, int32_t n_generated,
                  const int32_t *history, int32_t n_history);
/* Does it say the same FAKE_PERIOD tokens over and over, but for one in eight? */
static inline bool fake_repeats(const struct sampling *p) { return p->seed % 3 == 1; }
bool fake_stops(const struct sampling *p, int32_t token);
/* The logits row of a position. */
void fake_row(uint64_t state, int32_t pos, float row[FAKE_ROW]);

/* The pooled vector of a prompt: of its last state, or of the sum of all. */
void fake_pooled(uint64_t state, float v[FAKE_POOLED]);
uint64_t fake_pool_alone(const struct gen_request *r);

/* What a choice generates when nobody else is there: out[max_tokens]; returns how many, *finish why
 * it ended. */
int32_t fake_alone(const struct gen_request *r, int32_t choice, int32_t *out,
                   enum seq_finish *finish);

#endif
