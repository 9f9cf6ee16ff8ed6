/* charsmap.h: SentencePiece's map of characters ("precompiled_charsmap"): what texts become before pieces are looked for, as it stands
 * in tokenizer.model, in the step 'Precompiled' of tokenizer.json and in GGUF files. Private to engine/text. Immutable after open. Thr: any.
 *
 * The bytes: a number of 32 bits (little endian), so many bytes of a double array (a trie: Aoe 1989, in the layout of darts-clone), then
 * texts, each ended by a zero byte. A key's value is where its text begins. */
#ifndef ENGINE_TEXT_CHARSMAP_H
#define ENGINE_TEXT_CHARSMAP_H

#include "base/base.h"
#include "engine/text/tokenizer.h"

struct charsmap {
    uint32_t *unit; /* Own */
    size_t n_units;
    char *text;     /* Own: a copy, ended by a zero byte */
    size_t n_text;
};

/* No bytes: an empty map. Err BAD_FILE: lengths that do not fit, a text that is not ended or is longer than any that the publishers' maps have.
 * On failure *m is closed. */
MUST_USE enum err charsmap_open(struct charsmap *m, struct text_span blob);
void charsmap_close(struct charsmap *m);

/* Is a key at the beginning of p[n]? The longest or the shortest one: its length, and the text it becomes (perhaps none). */
bool charsmap_find(const struct charsmap *m, const char *p, size_t n, bool longest, size_t *len, struct text_span *to);

#endif
