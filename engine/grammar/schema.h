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

#endif
