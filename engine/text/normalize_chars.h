/* normalize_chars.h: the steps of a normaliser that go character by character. Private to engine/text. Thr: any. */
#ifndef ENGINE_TEXT_NORMALIZE_CHARS_H
#define ENGINE_TEXT_NORMALIZE_CHARS_H

#include "engine/text/rules.h"

/* Append p[n], valid UTF-8, to *out after a step of kind TEXT_CLEAN, _HAN_APART, _STRIP_NONSPACING, _STRIP_MARKS, _LOWER or _NMT. */
void normalize_chars(enum text_step_kind kind, const char *p, size_t n, struct buf *out);
/* Append each byte of p[n], whatever it is, as the character that byte-level vocabularies write it with. */
void normalize_bytes(const char *p, size_t n, struct buf *out);

#endif
