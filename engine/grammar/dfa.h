/* dfa.h: regular sets of texts over code points, as deterministic automata: what strings, keys and
 * numbers of a schema are made of.
 *
 * State 0 is the start; a code point without an edge leads nowhere; every state but the start of
 * the empty set reaches an accepting one. Automata live in the arena of one compilation and never
 * change. Surrogates are no code points. Thr: its owner. */
#ifndef ENGINE_GRAMMAR_DFA_H
#define ENGINE_GRAMMAR_DFA_H

#include "base/arena.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum { LAST_CODE_POINT = 0x10FFFF };

struct dfa_edge {
    uint32_t lo, hi;
    int32_t to;
};
struct dfa_state {
    int32_t first, n;
    bool accept;
}; /* its edges, ascending and disjoint */
struct dfa {
    int32_t n_states, n_edges;
    const struct dfa_state *states;
    const struct dfa_edge *edges;
};

/* Everything made during one compilation, and what is left of its budget. */
struct eng_dfas {
    struct arena *a;
    int64_t budget;         /* states and edges that may still be made */
    const struct dfa *all;  /* every text */
    const struct dfa *none; /* no text; an empty result is always this very pointer */
};
void eng_dfas_open(struct eng_dfas *s, struct arena *a);

/* A set being written down: states in order, each followed by its edges. */
struct dfa_draft {
    struct dfa_state *states;
    struct dfa_edge *edges;
    int32_t n_states, cap_states, n_edges, cap_edges;
};
void eng_dfa_draft_state(struct dfa_draft *d, bool accept);
/* An edge of the newest state; lo above the earlier ones; touching edges to the same state become
 * one. */
void eng_dfa_draft_edge(struct dfa_draft *d, uint32_t lo, uint32_t hi, int32_t to);
/* Drops what reaches no accepting state; frees the draft in any case. Err UNSUPPORTED: the budget
 * is spent. */
MUST_USE enum err eng_dfa_finish(struct eng_dfas *s, struct dfa_draft *d, const struct dfa **out);

enum dfa_op { DFA_AND, DFA_OR, DFA_MINUS };
/* Err UNSUPPORTED: the budget is spent. */
MUST_USE enum err eng_dfa_op(struct eng_dfas *s, enum dfa_op op, const struct dfa *a,
                             const struct dfa *b, const struct dfa **out);
/* Texts of min..max code points; max < 0: no end. */
MUST_USE enum err eng_dfa_length(struct eng_dfas *s, int64_t min, int64_t max,
                                 const struct dfa **out);
struct dfa_word {
    const char *p;
    size_t n;
};
/* Exactly these texts (UTF-8). */
MUST_USE enum err eng_dfa_words(struct eng_dfas *s, const struct dfa_word *w, int32_t n,
                                const struct dfa **out);
/* Every text in which `mark` (UTF-8, not empty) does not stand. */
MUST_USE enum err eng_dfa_without(struct eng_dfas *s, struct dfa_word mark, const struct dfa **out);
/* What a step function reaches from `start` over the characters of `alphabet`; step gives -1 for
 * nowhere. */
MUST_USE enum err eng_dfa_explore(struct eng_dfas *s, const char *alphabet, int64_t start,
                                  int64_t (*step)(const void *, int64_t, char),
                                  bool (*accept)(const void *, int64_t), const void *user,
                                  const struct dfa **out);

/* Does the set hold this text? Text that is not UTF-8 is in no set. */
bool eng_dfa_holds(const struct dfa *d, const char *p, size_t n);

/* The code point at p, its length in *len; -1: not UTF-8. */
int32_t eng_utf8_next(const char *p, size_t n, size_t *len);
/* Writes cp to p[4]; returns its length. */
size_t eng_utf8_write(char p[4], uint32_t cp);

#endif
