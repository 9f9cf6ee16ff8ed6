/* program.h: a grammar as rules over bytes: small automata that may call one another. What every
 * front end compiles to.
 *
 * While being built a program has states, and edges that take a byte, take nothing, or call a rule
 * and go on where it ends. Finished it has no empty edges, no state from which the text cannot be
 * completed, and no left recursion; so a simulation never meets a dead end. Immutable then; any
 * number of machines may run it. */
#ifndef ENGINE_GRAMMAR_PROGRAM_H
#define ENGINE_GRAMMAR_PROGRAM_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum { PROGRAM_MAX_STATES = 2 << 20, PROGRAM_MAX_EDGES = 8 << 20 };

/* ---- building ---- */

enum draft_kind { DRAFT_BYTES, DRAFT_EMPTY, DRAFT_CALL };
struct draft_edge {
    enum draft_kind kind;
    uint8_t lo, hi;
    int32_t rule, to, next;
};
struct draft_state {
    int32_t edge;
    bool accept;
};

/* Zeroed = empty. Beyond the limits `full` is set and nothing more is added. */
struct draft {
    struct draft_state *states;
    struct draft_edge *edges;
    int32_t *rules; /* start states */
    int32_t n_states, cap_states, n_edges, cap_edges, n_rules, cap_rules;
    bool full;
};

int32_t eng_draft_rule(struct draft *d); /* its number; rule 0 is the whole text */
int32_t eng_draft_state(struct draft *d);
void eng_draft_accept(struct draft *d, int32_t state); /* the rule may end here */
void eng_draft_bytes(struct draft *d, int32_t from, uint8_t lo, uint8_t hi, int32_t to);
void eng_draft_empty(struct draft *d, int32_t from, int32_t to);
void eng_draft_call(struct draft *d, int32_t from, int32_t rule, int32_t to);
/* A chain of states over these bytes. */
void eng_draft_text(struct draft *d, int32_t from, const char *p, size_t n, int32_t to);
void eng_draft_free(struct draft *d);

/* ---- finished ---- */

struct prog_edge {
    uint8_t lo, hi;
    int32_t to;
};
struct prog_call {
    int32_t rule, to;
};
struct prog_state {
    int32_t edge, n_edges, call, n_calls;
    int32_t need; /* fewest bytes from here to the end of the rule */
    bool accept;
    bool only_accept; /* nothing else to do here */
};
struct program {
    struct prog_state *states;
    struct prog_edge *edges;
    struct prog_call *calls;
    int32_t *rules; /* [n_rules] start states */
    int32_t n_states, n_edges, n_calls, n_rules;
    uint8_t class_of[256]; /* bytes that no edge tells apart share a class */
    int32_t n_classes;
    uint8_t sample[256]; /* [n_classes] a byte of each */
};

/* Frees the draft in any case. Err UNSUPPORTED (too large, left recursion), BAD_REQUEST (no text
 * satisfies it). Own: caller closes. */
MUST_USE enum err eng_program_finish(struct program **out, struct draft *d);
void eng_program_close(struct program *p);

#endif
