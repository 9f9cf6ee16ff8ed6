/* trie.h: texts to small numbers, found at the beginning of a text, longest first. Private to
 * engine/text.
 *
 * Its depth is bounded, so that a hostile vocabulary cannot make a search quadratic. */
#ifndef ENGINE_TEXT_TRIE_H
#define ENGINE_TEXT_TRIE_H

#include <stddef.h>
#include <stdint.h>

enum { TRIE_MAX_LEN = 256 };

struct trie_node {
    int32_t child, sibling; /* 0: none (node 0 is the root, nobody's child) */
    int32_t value;          /* of the text that ends here, or -1 */
    uint8_t byte;
};
struct trie {
    struct trie_node *at; /* Own */
    int32_t n, cap;
}; /* zeroed = empty */

/* Remember p[n]; of equal texts the first stays. Texts that are empty or longer than TRIE_MAX_LEN
 * are left out. */
void trie_add(struct trie *t, const char *p, size_t n, int32_t value);
void trie_free(struct trie *t);

/* The next node on the way from node `at` (0: the root), or 0. */
int32_t trie_step(const struct trie *t, int32_t at, uint8_t byte);
/* The value of the longest text that p[n] begins with, and its length; -1 if none. */
int32_t trie_longest(const struct trie *t, const char *p, size_t n, size_t *len);

#endif
