/* support.h: helpers of the grammar tests. */
#ifndef TESTS_GRAMMAR_SUPPORT_H
#define TESTS_GRAMMAR_SUPPORT_H

#include "engine/grammar/grammar.h"

#include <jansson.h>

struct grammar_source source_of(enum grammar_kind kind, uint32_t flags, const char *text);
/* NULL, with err_text: refused. */
struct eng_grammar *compile(enum grammar_kind kind, uint32_t flags, const char *text,
                            const struct eng_grammar_vocab *v);
/* Does the grammar hold for exactly this text? */
bool holds(struct eng_grammar *g, const char *text, size_t n);
/* compile and holds; fails the test when the grammar is refused. */
bool matches(enum grammar_kind kind, uint32_t flags, const char *grammar, const char *text);

/* $TESSERA_SHARED, else ../shared. */
const char *shared(const char *path);
char *read_file(const char *path, size_t *n); /* NULL: absent. Own: caller */

/* One token per byte, then `n_words` random words of JSON flavour; the last id ends a generation.
 */
struct eng_grammar_vocab *small_vocab(void);
/* A vocabulary of about n tokens: tokenizers/llama3 when it is there, else synthetic. *real says
 * which. */
struct eng_grammar_vocab *large_vocab(int32_t *n, bool *real);

/* Compact JSON, keys in the order in which the schema first names them, the others after them. Own:
 * caller */
char *dump_in_order(const json_t *instance, const json_t *schema, size_t *n);

#endif
