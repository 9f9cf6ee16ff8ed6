/* parts.h: texts put together of parts, written as JSON: what frames a tool call. Private to
 * engine/grammar.
 *
 *   "text" or {"text": T}      this text
 *   {"token": T}               the control token that is written so, never its letters
 *   {"schema": S, "of": NAME}  a JSON text of the schema; errors name NAME
 *   {"regex": R}, {"gbnf": G}  a text that matches
 *   {"seq": [P, ...]}          one after the other
 *   {"any": [P, ...]}          one of them
 *   {"some": P, "sep": P}      one or more, with sep between them
 *   {"until": P}               any text that ends with P (a text or a token), P included; P stands
 *                              nowhere else in it */
#ifndef ENGINE_GRAMMAR_PARTS_H
#define ENGINE_GRAMMAR_PARTS_H

#include "engine/grammar/encode.h"

#include <jansson.h>

enum { PARTS_DEEP = 32 };

/* Rule 0 of the draft becomes the text. Err BAD_REQUEST, UNSUPPORTED. */
MUST_USE enum err eng_parts_build(struct encoder *e, struct eng_dfas *dfas, const json_t *part,
                                  uint32_t flags);

#endif
