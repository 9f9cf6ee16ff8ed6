/* constraint.h: sequences kept to grammars on one rank: compiled grammars by source, a state per
 * sequence, the tokens it may choose. Private to engine/; on ranks of the last stage. Thr: the
 * engine's.
 *
 * The vocabulary's bytes are read from the model file when the first grammar comes. Every rank of
 * the stage computes the same masks. */
#ifndef ENGINE_CONSTRAINT_H
#define ENGINE_CONSTRAINT_H

#include "base/err.h"
#include "engine/file/model_file.h"
#include "proto/grammar.h"
#include "proto/sampling.h"

struct eng_constraints; /* a rank's */
struct eng_constraint;  /* a sequence's */

/* f is borrowed. n_vocab: rows of logits. */
struct eng_constraints *eng_constraints_open(const struct eng_model_file *f, int32_t n_vocab);
void eng_constraints_close(struct eng_constraints *c); /* after its sequences' */

/* The bytes of the tokens, as in grammar.h. Borrowed until close. Err as eng_model_tokenizer. */
MUST_USE enum err eng_constraints_texts(struct eng_constraints *c, const uint8_t **bytes,
                                        const uint32_t **off);

/* A sequence that has generated tokens[n] so far. Err LINK_PROTOCOL: the grammar does not compile,
 * or these tokens are not of it; BAD_FILE as eng_model_tokenizer. Own: caller closes. */
MUST_USE enum err eng_constraint_open(struct eng_constraint **out, struct eng_constraints *c,
                                      const struct grammar_source *g, const int32_t *tokens,
                                      int32_t n);
struct eng_constraint *eng_constraint_copy(const struct eng_constraint *s);
void eng_constraint_close(struct eng_constraint *s);

/* The tokens that may come next, a bit per id: those of the grammar; a stop id exactly where the
 * text may end. With ignore_eos the text ends only when nothing else may come. *forced: nothing but
 * an end may come, min_tokens or not. Borrowed until the next call. */
const uint64_t *eng_constraint_mask(struct eng_constraint *s, const struct sampling *p,
                                    bool *forced);
/* Is the mask of where it stands known, so that asking for it costs next to nothing? */
bool eng_constraint_ready(const struct eng_constraint *s);
void eng_constraint_prepare(struct eng_constraint *s); /* it is then */
/* After choosing `token`, can the text still end within n_left more tokens, the one that ends it
 * included? Asked only where it could before: where even the shortest text is too long nothing is
 * gained by hurrying. */
bool eng_constraint_fits(const struct eng_constraint *s, int32_t token, int32_t n_left);
/* The mask without tokens that do not fit; NULL: none does. */
const uint64_t *eng_constraint_mask_within(struct eng_constraint *s, const struct sampling *p,
                                           int32_t n_left);

/* Go on by one token. true: it ends the text (an end-of-generation id). */
bool eng_constraint_take(struct eng_constraint *s, int32_t token);

#endif
