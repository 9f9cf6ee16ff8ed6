/* vocab.h: the bytes of a model's tokens as a tree of prefixes, laid out in the order of a walk.
 * Immutable. Private to engine/grammar. */
#ifndef ENGINE_GRAMMAR_VOCAB_H
#define ENGINE_GRAMMAR_VOCAB_H

#include "engine/grammar/grammar.h"

enum {
    TOKEN_MAX_BYTES = 1024, /* longer ones are never chosen under a grammar */
    VOCAB_CONTROL = GRAMMAR_CONTROL
};

/* Node 0 is the empty prefix. The subtree of node i is [i, end). */
struct token_node {
    int32_t end, token;
    uint16_t depth;
    uint8_t byte;
};

struct eng_grammar_vocab {
    int32_t n, n_nodes, longest;
    struct token_node *nodes;
    int32_t *same; /* [n] the next token with the same bytes, or -1 */
    uint8_t *bytes;
    uint32_t *off; /* [n + 1] */
    int32_t *eog, n_eog;
    uint64_t *is_eog; /* bits */
};

#endif
