/* wordpiece.h: words as the longest pieces from the left, and words as they are. Private to engine/text. Immutable after open. Thr: any.
 *
 * WordPiece: at each place of a word the longest piece that stands there; within the word pieces carry a mark ("##"). A word with a place
 * where none stands, or of too many characters, is unknown, whole. WordLevel: a word is one token, or unknown. */
#ifndef ENGINE_TEXT_WORDPIECE_H
#define ENGINE_TEXT_WORDPIECE_H

#include "engine/text/vocab.h"

struct wordpiece {
    const struct vocab *v;  /* not owned */
    uint8_t *is_piece;      /* [v->n] may a word become this token? */
    bool whole;             /* WordLevel */
    bool same;              /* no mark: pieces within a word are those that begin one */
    int64_t most_chars;     /* of a word */
    struct trie first, inner; /* pieces that begin a word; those within, without their mark */
};

/* By src->rules; src->model is "wordpiece" or "wordlevel". Err BAD_FILE: no unknown token; a piece longer than TRIE_MAX_LEN. */
MUST_USE enum err wordpiece_open(struct wordpiece *w, const struct vocab *v, const struct eng_vocab_src *src);
void wordpiece_close(struct wordpiece *w);

/* Append the ids of one word (any bytes). */
void wordpiece_encode_word(const struct wordpiece *w, const char *p, size_t n, struct eng_tokens *out);

#endif
