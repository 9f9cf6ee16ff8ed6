/* regex.h: regular expressions (ECMA-262's, without what is not regular) as sets of texts.
 *
 * Understood: alternation, groups (capturing ones too, without captures), * + ? {m,n} with a lazy
 * mark (the set is the same), classes, \d \w \s and their complements, \p{general category}, ^ and
 * $ anywhere, escapes by \x \u \c. Refused, with the place: look-around, back-references, \b,
 * inline flags, possessive marks. '.' is any character but a line end. */
#ifndef ENGINE_GRAMMAR_REGEX_H
#define ENGINE_GRAMMAR_REGEX_H

#include "engine/grammar/dfa.h"

/* whole: the text matches from end to end; else a part of it does (ECMA's test(), what "pattern"
 * means). Err BAD_REQUEST (not a regular expression), UNSUPPORTED; the sentence names the byte. */
MUST_USE enum err eng_regex_compile(struct eng_dfas *s, const char *p, size_t n, bool whole,
                                    const struct dfa **out);

#endif
