/* near.h: which of some words a mistyped one was meant to be. */
#ifndef BASE_NEAR_H
#define BASE_NEAR_H

#include <stddef.h>

/* The distance of two words: letters put in, left out, changed, or two neighbours swapped (optimal
 * string alignment). Of longer words the first 63 bytes are compared. */
int near_distance(const char *a, size_t n_a, const char *b);

/* A search over words as they come: begin with {.word, .n}. */
struct near {
    const char *word;
    size_t n;
    const char *nearest, *begun; /* of those seen: the nearest, and one that begins with the word */
    int distance, n_begun;
};
void near_see(struct near *s, const char *candidate);
/* What was meant: one with one slip; else the only one that begins with the word; else the nearest,
 * if at most a third of the word's letters are wrong, and no more than three; else NULL. */
const char *near_best(const struct near *s);

#endif
