/* arena.h: memory freed all at once (a request's, a step's). Not for growing arrays: see buf.h. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/base.h"

struct arena { struct arena_chunk *head; };

void *arena_alloc(struct arena *a, size_t n);   /* zeroed, aligned to 16; ends the process when memory is out */
char *arena_strndup(struct arena *a, const char *s, size_t n);
void arena_free(struct arena *a);               /* everything; the arena is empty and usable again */

#endif
