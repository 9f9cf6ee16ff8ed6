/* exchange.h: one exchange between the cards of ranks, as one kernel on each does it: put what this rank has where the others read it, wait
 * until theirs is there, and take it: added in the tree, or side by side. No host, and nothing but memory that both sides reach.
 *
 * In one shot every rank adds everything: one way across the bus, size - 1 times the bytes. In two shots each adds a slice of what a block moves
 * and gives its sum to all: two ways, and about twice the bytes however many ranks there are. The additions are the same.
 *
 * A room is memory that one rank fills and others read: a flag for each block of the kernel, then two regions for each. In its nth turn a
 * block fills region n % 2 and then raises its flag to n. Two are enough: who fills one again has seen every flag of the turn between, and
 * a rank raises that only after it has read the turn before. Turns are counted on the card, so a graph may be told again and again. */
#ifndef BASE_EXCHANGE_H
#define BASE_EXCHANGE_H

#include "base/base.h"

#include <stdint.h>

enum {
    EXCHANGE_RANKS = 8,
    EXCHANGE_BLOCKS = 64,          /* few enough to be on a card all at once: they wait for others' */
    EXCHANGE_FLAG = 64,            /* bytes: a line each */
    EXCHANGE_REGION = 16 << 10,    /* bytes */
    EXCHANGE_VALUES = 1024,        /* of each part that a block moves in a turn, at most */
    EXCHANGE_OPS = 2 * 256,
    EXCHANGE_ROOM = EXCHANGE_BLOCKS * (EXCHANGE_FLAG + 2 * EXCHANGE_REGION), /* bytes */
};

/* Pointers are the card's. A sum: every rank has parts first[r] .. first[r + 1] - 1 of n values each, `mine` this one's; out[n] is the program's value
 * over them (engine/kernels/tree_sum.h). n_ops 0, a gathering: rank r has len[r] values, of which n is the largest; out is all of them, rank by rank.
 * What out and mine share lies at the same place in both. */
struct exchange {
    int32_t rank, size;
    int32_t n_to;
    uint8_t *to[EXCHANGE_RANKS];         /* rooms that this rank fills */
    int32_t reader[EXCHANGE_RANKS];      /* who reads to[k]; -1: all the others */
    const uint8_t *from[EXCHANGE_RANKS]; /* the room where rank r's is read here; of this rank: anything */
    uint32_t *turns;                     /* [EXCHANGE_BLOCKS] of this rank alone; zeroed once */
    const uint32_t *stop;                /* not 0: the others do not come, leave; out is anything then */
    const float *mine;
    float *out;
    int64_t n;
    int32_t two_shots;                   /* a sum: in two */
    int32_t n_ops;
    const int16_t *ops;                  /* the host's */
    int32_t first[EXCHANGE_RANKS + 1];
    int64_t len[EXCHANGE_RANKS];
};

/* The values of each part that a block moves in a turn: the same on every rank. */
static inline int64_t exchange_each(const struct exchange *x)
{
    int32_t most = 1;
    for (int32_t r = 0; r < x->size && x->n_ops; r++)
        if (x->first[r + 1] - x->first[r] > most) most = x->first[r + 1] - x->first[r];
    int64_t fit = EXCHANGE_REGION / (int64_t)sizeof(float) / most / 4 * 4;
    return fit < (int64_t)EXCHANGE_VALUES ? fit : (int64_t)EXCHANGE_VALUES;
}

/* Values [slice * rank, slice * (rank + 1)) of n are rank's to add. */
ON_DEVICE static inline int64_t exchange_slice(int64_t n, int32_t size) { return ((n + size - 1) / size + 3) / 4 * 4; }

#endif
