/* sequence.h: drive one or more sequences through a local_replica by hand-made plans, collecting
 * every row of logits. */
#ifndef TESTS_SUPPORT_SEQUENCE_H
#define TESTS_SUPPORT_SEQUENCE_H

#include "tests/support/local_replica.h"

/* How a sequence is fed. Blocks are taken from `first_block` on; `slot` must be free. */
struct sequence {
    const int32_t *prompt; int32_t n_prompt;
    int32_t n_gen;              /* tokens to generate after the prompt */
    int32_t chunk;              /* prompt tokens per step; 0: all at once */
    struct sampling sampling;
    /* out */
    int32_t *tokens;            /* [n_prompt + n_gen] prompt and what was generated */
    float *logits;              /* [n_prompt + n_gen - 1][n_vocab]; NULL: not wanted */
    struct result_token *chosen; /* [n_gen] */
};

void sequence_free(struct sequence *s);
/* Run n sequences together: in every step each live one has an item (a chunk of its prompt, or its
 * last token), so they are batch neighbours. want_logits: every row. Err as the replica's. */
MUST_USE enum err sequence_run(struct local_replica *r, struct sequence s[], int32_t n, bool want_logits);

#endif
