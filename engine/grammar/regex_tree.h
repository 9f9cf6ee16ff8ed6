/* regex_tree.h: a regular expression between its text and its automaton. Private to regex*.c. */
#ifndef ENGINE_GRAMMAR_REGEX_TREE_H
#define ENGINE_GRAMMAR_REGEX_TREE_H

#include "base/err.h"
#include "engine/grammar/charset.h"

#include <stddef.h>

enum regex_kind { REGEX_SET, REGEX_ALL, REGEX_ANY, REGEX_REPEAT, REGEX_BEGIN, REGEX_END };

struct regex_node {
    enum regex_kind kind;
    struct charset set; /* SET: one character of it */
    struct regex_node *first,
        *last;               /* ALL: one after the other; ANY: one of them; REPEAT: first only */
    struct regex_node *next; /* the sibling */
    int32_t min, max;        /* REPEAT; max -1: no end */
};

/* Err as eng_regex_compile. The tree lives in the arena. */
MUST_USE enum err eng_regex_parse(struct arena *a, const char *p, size_t n,
                                  struct regex_node **out);

#endif
