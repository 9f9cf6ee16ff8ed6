/* format.h: values of the keyword "format" as sets of texts. Private to engine/grammar. */
#ifndef ENGINE_GRAMMAR_FORMAT_H
#define ENGINE_GRAMMAR_FORMAT_H

#include "engine/grammar/dfa.h"

/* Err UNSUPPORTED: not known here, with the list of those that are. */
MUST_USE enum err eng_format_find(struct eng_dfas *s, const char *name, const struct dfa **out);

#endif
