/* shortest.h: how many tokens the shortest way to a text's end takes. Private to engine/grammar.
 *
 * The way is one of the shortest texts in bytes, always the same from one set, cut into the longest
 * tokens that fit. Its rest, after any of its tokens, is the way from there; so whoever still has
 * that many tokens can always end, one token at a time. There may be a way of fewer tokens. */
#ifndef ENGINE_GRAMMAR_SHORTEST_H
#define ENGINE_GRAMMAR_SHORTEST_H

#include "engine/grammar/machine.h"
#include "engine/grammar/vocab.h"

/* Stacks that a way may look at, those of a byte once for each class of bytes tried: a tenth of a second. */
enum { SHORTEST_WORK = 4 << 20 };

/* INT32_MAX: more than `most`, or the vocabulary lacks a byte, or it takes more than SHORTEST_WORK to find out. A function of the grammar, the
 * vocabulary, where it stands and `most`, never of what was asked before. */
int32_t eng_shortest_tokens(struct machine *m, const struct eng_grammar_vocab *v, int32_t set, int32_t most);

#endif
