/* guess.h: what a sequence will say next, guessed from what it has said: where its last tokens stood before, what followed there may follow here.
 * Code that is edited, a text that is summed up or quoted, tables and lists repeat themselves. What the client says it expects is searched too.
 *
 * A step that computes some positions more costs little where memory bounds it, and each right guess saves a step. Guesses never show: the ranks choose
 * every token as they would have without (proto/step_plan.h: OUT_DRAFT). Who waits to know its newest token before its next step loses a little (the way
 * to the coordinator and back), so a sequence does that only while its guesses come true.
 *
 * Source: Saxena, "Prompt Lookup Decoding" (2023); vLLM and llama.cpp call it n-gram speculation. Private to sched/. */
#ifndef COORDINATOR_SCHED_GUESS_H
#define COORDINATOR_SCHED_GUESS_H

#include "proto/limits.h"

#include <stdbool.h>
#include <stdint.h>

struct crd_seq;

enum { GUESS_MOST = LIMIT_RESULT_TOKENS - 1, GUESS_NOT_ASKED = -1 };

struct crd_guess {
    int32_t *at;       /* [mask + 1] by hash of GUESS_GRAM tokens: the place behind their latest occurrence, 0: none. Own. */
    int32_t mask;
    int32_t n_read;    /* places [0,n_read) are in the table: of what the client expects, then of the sequence */
    int32_t from;      /* the token at this place may be the next one; 0: no idea */
    int32_t n_right;   /* tokens in a row that were foreseen, while not `on` */
    int32_t n_wrong;   /* steps in a row without a right guess, while on */
    int32_t most;      /* guesses a step, now; while on */
    int32_t n_sent;    /* guesses in its last step; or NOT_ASKED, it was not on */
    bool on;           /* it waits for its results, and guesses */
};

/* Its newest known token has just been appended; `most`: guesses a step that are allowed, 0: none ever. */
void crd_guess_learn(struct crd_seq *q, int32_t most);
/* At most n guesses at what follows the known tokens, into out[]; returns how many. */
int32_t crd_guess_make(const struct crd_seq *q, int32_t n, int32_t out[GUESS_MOST]);
/* The result of a step is known in which n_right of n_sent guesses were right; `most` as above. */
void crd_guess_judge(struct crd_guess *g, int32_t n_right, int32_t most);
void crd_guess_free(struct crd_guess *g);

#endif
