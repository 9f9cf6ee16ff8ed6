/* spm.h: SentencePiece by scores, with byte fallback. Private to engine/text. Immutable after open.
 */
#ifndef ENGINE_TEXT_SPM_H
#define ENGINE_TEXT_SPM_H

#include "engine/text/vocab.h"

struct spm {
    const struct vocab *v; /* not owned */
    int32_t byte_id[256];  /* "<0xHH>"; -1: the vocabulary lacks it */
};

void spm_open(struct spm *s, const struct vocab *v);
/* Append the ids of a text (n < 2^28) in which spaces are still spaces; `prefix`: begin with the
 * dummy space. */
void spm_encode(const struct spm *s, const char *p, size_t n, bool prefix, struct eng_tokens *out);
/* Append what a token of that text and type stands for: U+2581 is a space, <0xHH> its byte. */
void spm_decode(struct text_span t, enum token_type type, struct buf *out);

#endif
