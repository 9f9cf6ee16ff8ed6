/* grammar.h: text kept to a grammar: JSON Schema, JSON, regular expression, choice, GBNF, all
 * compiled to one byte-level automaton.
 *
 * A grammar is compiled from its source; a state follows one text through it, byte by byte or token
 * by token, and says which tokens may come next. A text that a state has accepted so far can always
 * be completed: there are no dead ends. What a front end cannot honour is refused by name and
 * place, never ignored. A leaf: of the vocabulary it sees only the tokens' bytes.
 *
 * JSON from a schema has its declared keys in the order of the schema, others after them; between
 * tokens of JSON at most a few characters of white space (none with GRAMMAR_COMPACT).
 * docs/models.md lists keywords. Thr: a grammar and its states have one owner; a vocabulary is
 * immutable and any thread's. */
#ifndef ENGINE_GRAMMAR_GRAMMAR_H
#define ENGINE_GRAMMAR_GRAMMAR_H

#include "base/buf.h"
#include "base/err.h"
#include "proto/grammar.h"

#include <stdbool.h>
#include <stdint.h>

/* ---- the vocabulary ---- */

struct eng_grammar_vocab;
/* Before the letters of a control token: no text has this byte, so only a grammar that names the
 * token takes it. */
enum { GRAMMAR_CONTROL = 0xFF };
/* Appends the bytes of a token as they stand in the middle of a text; of a control token
 * GRAMMAR_CONTROL and its letters. */
typedef void (*eng_token_bytes_fn)(void *user, int32_t id, struct buf *out);
/* n tokens; eog: ids that end a generation, whatever their bytes. `bytes` is called during open
 * only. Own: caller closes. */
void eng_grammar_vocab_open(struct eng_grammar_vocab **out, int32_t n, eng_token_bytes_fn bytes,
                            void *user, const int32_t *eog, int32_t n_eog);
void eng_grammar_vocab_close(struct eng_grammar_vocab *v);
/* Its bytes: those of token i are bytes[off[i], off[i + 1]); of end-of-generation ids there are
 * none. Borrowed. */
void eng_grammar_vocab_bytes(const struct eng_grammar_vocab *v, const uint8_t **bytes,
                             const uint32_t **off);

/* ---- a grammar ---- */

struct eng_grammar;
/* vocab may be NULL (to check a source, or to follow bytes only); else borrowed until close.
 * Err BAD_REQUEST: not a valid source, or no text satisfies it. UNSUPPORTED: valid, but not
 * honoured here; the sentence names the keyword and its JSON pointer, or the byte. Own: caller
 * closes, after its states. */
MUST_USE enum err eng_grammar_compile(struct eng_grammar **out, const struct grammar_source *src,
                                      const struct eng_grammar_vocab *vocab);
void eng_grammar_close(struct eng_grammar *g);
struct grammar_size {
    int32_t n_states, n_edges, n_rules, n_sets, n_frames;
};
void eng_grammar_size(const struct eng_grammar *g, struct grammar_size *out);

/* ---- one text ---- */

struct eng_grammar_state;
struct eng_grammar_state *
eng_grammar_state_open(struct eng_grammar *g); /* before the first byte. Own: caller closes */
struct eng_grammar_state *eng_grammar_state_copy(const struct eng_grammar_state *s);
void eng_grammar_state_close(struct eng_grammar_state *s);

/* Bytes taken: n, or the index of the first refused one, before which the state then stands. */
size_t eng_grammar_advance(struct eng_grammar_state *s, const void *bytes, size_t n);
/* false, and nothing changes: the token is not allowed here. An end-of-generation id ends the text,
 * after which nothing is allowed. */
bool eng_grammar_advance_token(struct eng_grammar_state *s, int32_t id);
bool eng_grammar_accepts(const struct eng_grammar_state *s); /* the text may end here */
bool eng_grammar_ended(const struct eng_grammar_state *s);   /* an end-of-generation id was taken */
/* Fewest bytes from here to an end: at most as many tokens in a vocabulary that has every byte. */
int32_t eng_grammar_need(const struct eng_grammar_state *s);

/* [n/64 + 1] words, bit i: token i may come next; end-of-generation ids exactly when the state
 * accepts. Borrowed until the next call on any state of this grammar. Deterministic: a function of
 * source, vocabulary and text alone. */
const uint64_t *eng_grammar_mask(struct eng_grammar_state *s);
/* Is it among the last ones computed? */
bool eng_grammar_mask_known(const struct eng_grammar_state *s);
/* Tokens of vocabulary v that suffice from here to an end: whoever has that many left, and keeps to
 * eng_grammar_mask_within, ends in time. INT32_MAX: more than `most`, or the vocabulary lacks a
 * byte, or it would take long to find out. */
int32_t eng_grammar_need_tokens(struct eng_grammar_state *s, const struct eng_grammar_vocab *v,
                                int32_t most);
/* The mask without tokens after which more than n_tokens more would be needed. May be empty.
 * Slower. */
const uint64_t *eng_grammar_mask_within(struct eng_grammar_state *s, int32_t n_tokens);

/* What may come next, for people: `'a'..'z', '"', the end of the text`. */
void eng_grammar_explain(struct eng_grammar_state *s, struct buf *out);

#endif
