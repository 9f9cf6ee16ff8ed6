/* huge.h: memory for weights on huge pages, and the move into it of what was mapped from files.
 *
 * A mapped file is there at once, but in pages of 4 KiB, on which matrix products lose 5 to 7 % of the read bandwidth. So a thread of low
 * priority copies it, piece by piece, to huge pages elsewhere and puts these in its place (mremap): addresses and bytes stay the same, and who
 * reads meanwhile sees either. Nobody may write there until the move has ended. */
#ifndef ENGINE_MODEL_HUGE_H
#define ENGINE_MODEL_HUGE_H

#include "engine/backend/team.h"

enum { ENG_HUGE_PAGE = 2 << 20 };

/* bytes: a multiple of ENG_HUGE_PAGE. Zeroed, of 4 KiB where the system gives no other. NULL: there is none. Own: eng_huge_free. */
void *eng_huge_alloc(int64_t bytes);
void eng_huge_free(void *p, int64_t bytes);

struct eng_span { void *p; int64_t bytes; };
struct eng_huge;
/* spans[n]: mapped parts of memory from eng_huge_alloc; whole huge pages of it are moved, neighbours of a span with it. Where the system gives no
 * huge pages nothing is moved. Err SYSTEM. */
MUST_USE enum err eng_huge_open(struct eng_huge **out, const struct eng_span spans[], int32_t n, const struct eng_team *beside);
void eng_huge_settle(struct eng_huge *h); /* waits until all is moved; NULL-safe */
void eng_huge_close(struct eng_huge *h);  /* ends it after the present piece; NULL-safe */

#endif
