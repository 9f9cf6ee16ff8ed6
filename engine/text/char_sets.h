/* char_sets.h: sets of characters as the steps of Hugging Face's tokenizers have them. Private to engine/text. Thr: any.
 *
 * Their tables are older than those of utf8proc and PCRE2, and a character that came later is in none of these sets: so they are written
 * out here (made by tests/text/golden/make_char_sets.py). White space is Unicode's. */
#ifndef ENGINE_TEXT_CHAR_SETS_H
#define ENGINE_TEXT_CHAR_SETS_H

#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

enum char_set {
    CHARS_CONTROL,     /* what BertNormalizer's clean_text takes away */
    CHARS_NONSPACING,  /* what its strip_accents takes away of decomposed text */
    CHARS_MARK,        /* what StripAccents takes away */
    CHARS_PUNCTUATION, /* what Punctuation and BertPreTokenizer cut out */
    CHARS_SPACE,
};

bool char_set_has(enum char_set set, uint32_t c);
/* Append the set as a character class of PCRE2, brackets and all. */
void char_set_class(enum char_set set, struct buf *out);

#endif
