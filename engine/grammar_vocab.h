/* grammar_vocab.h: a tokenizer's tokens as grammars see them. Joins text/ and grammar/, which do
 * not know each other. */
#ifndef ENGINE_TOKENIZER_GRAMMAR_VOCAB_H
#define ENGINE_TOKENIZER_GRAMMAR_VOCAB_H

#include "engine/grammar/grammar.h"
#include "engine/text/tokenizer.h"

enum { GRAMMAR_VOCAB_EOG = 64 };

/* n: tokens, at least the tokenizer's (logits may have more). t is read during the call only. Own:
 * caller closes. */
struct eng_grammar_vocab *eng_grammar_vocab_of(const struct eng_tokenizer *t, int32_t n);

#endif
