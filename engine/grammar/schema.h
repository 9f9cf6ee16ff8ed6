/* schema.h: JSON Schema (draft 2020-12) as rules of a draft. Private to engine/grammar.
 *
 * Idea: what may stand at one place is a conjunction of literals: schemas of the document, or their
 * negations. A conjunction is a "formula"; each formula becomes one rule, so recursion of schemas
 * is recursion of rules. A literal is evaluated one level deep into a "value set": the scalars as
 * regular sets, arrays and objects as alternatives of shapes whose children are formulas again.
 * Value sets are closed under and, or and not, so allOf, anyOf, oneOf, not, if and dependentSchemas
 * are exact wherever their parts are. */
#ifndef ENGINE_GRAMMAR_SCHEMA_H
#define ENGINE_GRAMMAR_SCHEMA_H

#include "engine/grammar/encode.h"
#include "proto/grammar.h"

#include <jansson.h>

/* Rule 0 of the draft becomes one JSON text of the schema. Err BAD_REQUEST, UNSUPPORTED naming
 * keyword and JSON pointer. */
MUST_USE enum err eng_schema_build(struct encoder *e, struct eng_dfas *dfas, const json_t *document,
                                   uint32_t flags, bool around);

/* How the members of an object are written where they do not stand in braces: the arguments of a call.
 *
 *   <parameter=KEY>\nVALUE\n</parameter>\n     open "<parameter=", mid ">\n", close "\n</parameter>\n"
 *   KEY=VALUE, KEY=VALUE                       mid "=", sep ", ", python
 *
 * A value is JSON. raw: a string whose property says "type": "string" is written without quotes, as it is, and no
 * text has `raw` in it, which is where a reader ends a value. python: True, False, None. */
struct schema_args {
    const char *open, *mid, *close, *sep; /* never NULL */
    const char *raw;                      /* NULL: strings are JSON */
    bool python;
};
/* Rule 0, or the next one, becomes the members of one object of the schema. Err as above; UNSUPPORTED too for a
 * key that cannot be written so. */
MUST_USE enum err eng_schema_build_args(struct encoder *e, struct eng_dfas *dfas, const json_t *document,
                                        uint32_t flags, const struct schema_args *args);

#endif
