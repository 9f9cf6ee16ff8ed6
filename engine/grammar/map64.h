/* map64.h: numbers to numbers: open addressing, no removal. Private to engine/grammar. */
#ifndef ENGINE_GRAMMAR_MAP64_H
#define ENGINE_GRAMMAR_MAP64_H

#include <stdbool.h>
#include <stdint.h>

struct map64_slot {
    uint64_t key;
    int32_t value;
};
struct map64 {
    struct map64_slot *slots;
    uint32_t n, cap;
}; /* zeroed = empty; value < 0 is a free slot */

/* The value of a key, or -1. */
int32_t map64_get(const struct map64 *m, uint64_t key);
/* Set it; value >= 0. */
void map64_put(struct map64 *m, uint64_t key, int32_t value);
void map64_free(struct map64 *m);

#endif
