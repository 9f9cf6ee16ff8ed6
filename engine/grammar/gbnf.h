/* gbnf.h: GBNF, llama.cpp's notation of grammars, as rules of a draft. Private to engine/grammar.
 *
 * name ::= alternatives of sequences of "literals", [classes], ., names and (groups), each with * +
 * ? {n} {n,} {n,m}; # comments; a rule goes on over lines inside parentheses and behind ::= and |.
 * The text is the rule root. */
#ifndef ENGINE_GRAMMAR_GBNF_H
#define ENGINE_GRAMMAR_GBNF_H

#include "engine/grammar/encode.h"

/* Rule 0 of the draft becomes root. Err BAD_REQUEST, UNSUPPORTED; the sentence names the line. */
MUST_USE enum err eng_gbnf_build(struct encoder *e, const char *p, size_t n);

#endif
