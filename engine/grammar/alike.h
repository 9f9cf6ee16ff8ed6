/* alike.h: states that no token of a vocabulary can tell apart. Private to engine/grammar.
 *
 * Two states behave alike for n bytes if their edges lead to states that do so for n - 1. How many bytes matter:
 * as many as the longest piece of a token that can stand anywhere in a text of the grammar, judged by which byte
 * may follow which. That is far less than the longest token where a grammar takes no runs of spaces or dashes, and so a
 * word repeated up to forty times has few different states, not forty times as many. */
#ifndef ENGINE_GRAMMAR_ALIKE_H
#define ENGINE_GRAMMAR_ALIKE_H

#include "engine/grammar/program.h"
#include "engine/grammar/vocab.h"

enum { ALIKE_LEVELS = 18 };
/* like[l][state]: the first state that it is alike to for tokens of at most depth[l] bytes; the last level is for all
 * tokens, and its depth INT32_MAX. Depths ascend; each level tells more states apart than the one before. */
struct alike {
    int32_t n, depth[ALIKE_LEVELS];
    int32_t *like[ALIKE_LEVELS];
};
void eng_alike_open(struct alike *a, const struct program *p, const struct eng_grammar_vocab *v);
void eng_alike_close(struct alike *a);

#endif
