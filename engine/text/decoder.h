/* decoder.h: what a token adds to a text where tokens are words and parts of words. Private to engine/text. Immutable after open. Thr: any.
 *
 * Each piece is what a token adds in the middle of a text: a space before it (or, DECODE_SUFFIX, behind it) unless it goes on within a
 * word. A text's first piece loses that space, its last one the one behind it. */
#ifndef ENGINE_TEXT_DECODER_H
#define ENGINE_TEXT_DECODER_H

#include "engine/text/rules.h"

struct decoder {
    enum text_decoder how;
    struct buf mark;
    bool tidies;
};

void decoder_open(struct decoder *d, const struct eng_text_rules *rules);
void decoder_close(struct decoder *d);

/* DECODE_WORDS, _SUFFIX and _JOINED: append what token s adds. */
void decoder_put(const struct decoder *d, struct text_span s, struct buf *out);
/* Append the text of an added token where tokens are bytes: its letters are bytes too only where the normaliser made them so. */
void decoder_put_added(const struct decoder *d, struct text_span s, struct buf *out);
/* Do pieces begin with a space that the first one of a text loses? */
bool decoder_spaces_before(const struct decoder *d);
/* Does this token's piece end with a space that the last one of a text loses? */
bool decoder_space_behind(const struct decoder *d, struct text_span s);

#endif
