/* head_rows.h: the rows of logits that a step wants, a few at a time, and how their tokens are chosen. Private to head*.c.
 *
 *   head.c         which rows, in which way, and what becomes of the tokens
 *   head_left.c    tokens that stay on a device until the step ends
 *   head_slices.c  tokens that are found in slices of the vocabulary: only candidates travel between ranks
 *   head_whole.c   tokens for which a rank must see the whole row, and what else is wanted of one */
#ifndef ENGINE_HEAD_ROWS_H
#define ENGINE_HEAD_ROWS_H

#include "engine/head.h"

enum { HEAD_ROWS = ENG_HEAD_ROWS };

/* A row of logits that somebody wants: which item, and where in it. score: the token to be scored by it, or -1. guess: the input behind it, which counts
 * only if it is what this row chooses, or -1. after: it follows such a guess. */
struct eng_wanted { int32_t row, item, k, score, guess; bool sample, keep, after; };


/* How a row's token comes to be. */
enum eng_choice {
    CHOICE_NONE,   /* no token is wanted, or its sequence has stopped */
    CHOICE_GREEDY, /* the largest logit: each rank looks through its slice */
    CHOICE_DRAW,   /* the same after noise */
    CHOICE_TOP,    /* a draw among a few of the largest */
    CHOICE_WHOLE,  /* a rank must see the whole row */
};

/* Rows [0,n), which have their logits: in hd->slice, on a device there. */
struct eng_rows {
    struct eng_head *hd;
    const struct step_plan *p;
    const struct eng_wanted *w;
    int32_t n;
    void (*fn)(struct eng_rows *r, int32_t i, int32_t thread);
    enum eng_choice how[HEAD_ROWS];
    /* of slices */
    struct krn_pick best[HEAD_ROWS]; /* of this rank's slice, then of all */
    struct krn_pick top[HEAD_ROWS][KRN_TOP]; /* of this rank's slice */
    float max[HEAD_ROWS];
    /* of whole rows */
    const uint64_t *mask[HEAD_ROWS]; /* what the grammar allows; NULL: no grammar, or not looked up yet */
    bool forced[HEAD_ROWS];          /* the grammar allows an end and nothing else */
};

static inline struct eng_slot *eng_rows_slot(const struct eng_rows *r, int32_t i) { return &r->hd->slots->slots[r->p->items[r->w[i].item].slot]; }
static inline const struct sampling *eng_rows_sampling(const struct eng_rows *r, int32_t i) { return &eng_rows_slot(r, i)->sampling; }
/* Where the token that a row chooses will stand: what it is drawn by. */
static inline int64_t eng_rows_position(const struct eng_rows *r, int32_t i) { return r->p->items[r->w[i].item].pos + r->w[i].k + 1; }
static inline struct eng_history eng_rows_history(const struct eng_slot *s)
{
    return (struct eng_history){.tokens = s->history, .n = s->n_history, .n_prompt = s->n_prompt, .n_generated = s->n_generated};
}

/* fn(r, row, thread) for every row, shared by the team. */
void eng_rows_run(struct eng_rows *r, void (*fn)(struct eng_rows *r, int32_t i, int32_t thread));

/* Rows that a step wants, in order: *w in `a`; returns how many. */
int32_t eng_rows_wanted(const struct step_plan *p, struct arena *a, struct eng_wanted **w);
/* How a sequence's token for `position` comes to be; CHOICE_NONE: it has stopped. */
enum eng_choice eng_rows_choice(const struct eng_head *hd, const struct eng_slot *s, int64_t position);
/* The same whether it has stopped or not. */
enum eng_choice eng_rows_way(const struct eng_head *hd, const struct eng_slot *s, int64_t position);
/* The step's result is empty: every item, and room for what is wanted of it. */
void eng_rows_prepare(struct eng_head *hd, const struct step_plan *p, struct arena *a, struct step_result *res);
/* Tokens take their places: ids[i] of row i; NULL: chosen of whole rows. */
void eng_rows_settle(struct eng_rows *r, const int32_t ids[], struct step_result *res);

/* Tokens of rows none of which is CHOICE_WHOLE. Err: the collective's. */
MUST_USE enum err eng_slices_choose(struct eng_rows *r, int32_t ids[]);

/* Whole rows on every rank of the stage, and a token for those that depend on no other row: hd->chosen. Ranks share them out and tell each other. Err: the
 * collective's. */
MUST_USE enum err eng_whole_begin(struct eng_rows *r);
/* Row i's token, once what stands before it is known. */
void eng_whole_choose(struct eng_rows *r, int32_t i, struct result_token *t);
/* What is wanted of rows besides tokens: between the two. */
void eng_whole_report(struct eng_rows *r, struct step_result *res);

#endif
