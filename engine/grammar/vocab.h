/* vocab.h: the bytes of a model's tokens as a tree of prefixes, laid out in the order of a walk.
 * Immutable. Private to engine/grammar. */
#ifndef ENGINE_GRAMMAR_VOCAB_H
#define ENGINE_GRAMMAR_VOCAB_H

#include "engine/grammar/grammar.h"

enum {
    TOKEN_MAX_BYTES = 1024, /* longer ones are never chosen under a grammar */
    VOCAB_CONTROL = GRAMMAR_CONTROL
};

/* Kinds of bytes that may stand below a node: bit i of a set is group i of vocab.c; two more are about
 * what is not ASCII. */
enum {
    KIND_WIDE = 29,  /* characters of more than one byte, the last one perhaps cut by the token's end */
    KIND_OTHER = 30, /* ASCII of no group */
    KIND_BROKEN = 31 /* no UTF-8: a continuation first, the letters of a control token */
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
    uint32_t *below;   /* [n_nodes] kinds of what follows, read as UTF-8 that begins here */
    uint16_t *deepest; /* [n_nodes] depth of the deepest node below, or its own */
    uint8_t *length; /* [n] bytes of a token, at most 255 */
    int32_t *ranked, *rank; /* tokens in the order of nodes; those of the subtree of i are
                               ranked[rank[i], rank[end]) */
    int32_t *same; /* [n] the next token with the same bytes, or -1 */
    uint8_t *bytes;
    uint32_t *off; /* [n + 1] */
    int32_t *eog, n_eog;
    uint64_t *is_eog; /* bits */
};

/* The group of a byte below 0x80. */
uint8_t eng_vocab_kind(uint8_t byte);

#endif
