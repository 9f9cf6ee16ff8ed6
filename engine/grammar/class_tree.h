/* class_tree.h: a vocabulary as one grammar sees it: tokens by classes of bytes. Private to engine/grammar.
 *
 * Bytes that no edge of a program tells apart (program.h) are one letter here, so all words of five small letters are one
 * node of [a-z]+, and a walk is as long as the grammar is fine. A node is looked into the first time it is asked what is
 * below it; what no text of the grammar reaches is never looked into. Thr: its owner. */
#ifndef ENGINE_GRAMMAR_CLASS_TREE_H
#define ENGINE_GRAMMAR_CLASS_TREE_H

#include "engine/grammar/program.h"
#include "engine/grammar/vocab.h"

/* Node 0 is the empty prefix. */
struct class_node {
    int32_t members, n_members; /* nodes of the vocabulary that it stands for */
    int32_t child, n_children;  /* -1: not looked into */
    int32_t tokens, n_tokens;   /* those that end here; many: as bits */
    uint64_t *bits;
    uint32_t below;   /* kinds (vocab.h) of what follows in any of the members */
    int32_t all;      /* tokens below, at least these many */
    uint16_t depth, deepest;
    uint8_t class;
};
struct class_tree {
    const struct eng_grammar_vocab *v;
    const struct program *p;
    struct class_node *nodes; /* moves as it grows */
    int32_t n_nodes, cap_nodes;
    int32_t *members, n_members, cap_members;
    int32_t *tokens, n_tokens, cap_tokens;
    int32_t count[256], child_of[256]; /* scratch of look; counts are zero between */
};

void eng_class_tree_open(struct class_tree *t, const struct program *p, const struct eng_grammar_vocab *v);
void eng_class_tree_close(struct class_tree *t);
/* Look into a node: its children are nodes [child, child + n_children), the node of a class once. */
void eng_class_tree_look(struct class_tree *t, int32_t node);
/* Set the bits of the tokens that end at a node; of all tokens below it. */
void eng_class_tree_put(const struct class_tree *t, int32_t node, uint64_t *bits);
void eng_class_tree_put_below(const struct class_tree *t, int32_t node, uint64_t *bits);

#endif
