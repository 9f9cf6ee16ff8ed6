/* detok.h: tokens in one at a time, whole UTF-8 characters out.
 *
 * Holds back an incomplete UTF-8 sequence until it completes; bytes that can never become valid leave as
 * U+FFFD. One per output choice. Also watches for stop strings: text that may be the beginning of a stop
 * string is held until it is certain. Thr: its owner. */
#ifndef ENGINE_TEXT_DETOK_H
#define ENGINE_TEXT_DETOK_H

#include "engine/text/tokenizer.h"

struct eng_detok;

/* stops[n_stops]: copied; each non-empty. `special`: control tokens are shown as text.
 * Own: caller, eng_detok_close. The tokenizer must outlive it. A stop string that is not UTF-8 never occurs. */
struct eng_detok *eng_detok_open(const struct eng_tokenizer *t, const char *const *stops, int32_t n_stops,
                                 bool include_stop, bool special);
void eng_detok_close(struct eng_detok *d);

/* Before the first push, for an answer that begins a text (chat): drop the leading space of the first piece
 * (eng_tokenizer_drops_space), so that the whole equals eng_tokenizer_decode. Without it (completions) every piece stands as in the middle of a text. */
void eng_detok_drop_first_space(struct eng_detok *d);

/* Feed one id; append what may leave to *out. Returns the index of the stop string that was completed (nothing
 * after it is fed; with include_stop the stop string itself leaves too), else -1. Of several completed by the same
 * byte the longest counts; after one was completed, pushes give its index and no text. */
int32_t eng_detok_push(struct eng_detok *d, int32_t id, struct buf *out);
/* Is anything held back? */
bool eng_detok_holds(const struct eng_detok *d);
/* No more tokens: append all that was held back (an incomplete sequence as U+FFFD). */
void eng_detok_finish(struct eng_detok *d, struct buf *out);

#endif
