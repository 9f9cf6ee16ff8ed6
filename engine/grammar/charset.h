/* charset.h: sets of code points as ranges: classes of regular expressions and GBNF. Private to
 * engine/grammar. */
#ifndef ENGINE_GRAMMAR_CHARSET_H
#define ENGINE_GRAMMAR_CHARSET_H

#include "base/arena.h"

#include <stdbool.h>
#include <stdint.h>

struct char_range {
    uint32_t lo, hi;
};
struct charset {
    struct char_range *r;
    int32_t n, cap;
}; /* zeroed = empty; memory: the arena's */

/* lo..hi without the surrogates among them. */
void eng_charset_add(struct charset *s, struct arena *a, uint32_t lo, uint32_t hi);
void eng_charset_add_all(struct charset *s, struct arena *a, const struct charset *other);
/* Ascending, disjoint, apart. */
void eng_charset_tidy(struct charset *s);
/* Everything else; leaves it tidy. */
void eng_charset_negate(struct charset *s, struct arena *a);
bool eng_charset_has(const struct charset *s, uint32_t cp); /* of a tidy one */
/* A Unicode general category ("L", "Lu", "Letter" ...); false: unknown. */
bool eng_charset_category(struct charset *s, struct arena *a, const char *name, int32_t n);

#endif
