/* normalize.h: carries out the steps that turn a text into the one whose pieces are looked for. Private to engine/text. Immutable after
 * open. Thr: any.
 *
 * Bytes that are not UTF-8 pass through every step unchanged. */
#ifndef ENGINE_TEXT_NORMALIZE_H
#define ENGINE_TEXT_NORMALIZE_H

#include "engine/text/rules.h"
#include "engine/text/vocab.h"

struct normalizer;

/* Everything in steps is copied. v: user-defined tokens, which TEXT_SENTENCEPIECE leaves as they are; not kept.
 * Err BAD_FILE (a map of characters that is none), UNSUPPORTED (an expression that does not compile). */
MUST_USE enum err normalizer_open(struct normalizer **out, const struct text_step *steps, int32_t n, const struct vocab *v);
void normalizer_close(struct normalizer *m);

/* Replace *out. Any bytes. */
void normalizer_run(const struct normalizer *m, const char *text, size_t n, struct buf *out);

/* Append p[n] to *out with each `from` as `to`. */
void normalizer_replace(const char *p, size_t n, struct text_span from, struct text_span to, struct buf *out);

#endif
