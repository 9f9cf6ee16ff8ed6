/* parts.h: texts put together of parts, written as JSON: what frames a tool call. Private to
 * engine/grammar.
 *
 *   "text" or {"text": T}      this text
 *   {"token": T}               the control token that is written so, never its letters
 *   {"schema": S, "of": NAME}  a JSON text of the schema; errors name NAME
 *   {"schema": S, "of": NAME, "args": HOW}  an object of the schema, each member written in a form of its own
 *                              (schema.h): HOW is {"open": T, "mid": T, "close": T, "sep": T, "raw": T, "python": B}
 *   {"regex": R}, {"gbnf": G}  a text that matches
 *   {"seq": [P, ...]}          one after the other
 *   {"any": [P, ...]}          one of them
 *   {"some": P, "sep": P}      one or more, with sep between them
 *   {"until": M}               any text that ends with the mark M, which stands nowhere else in it
 *   {"free": {"on": [[M, P], ...], "not": [M, ...], "end": [M, ...], "once": B}}  any text in which the marks of
 *                              "on" stand only where their P follows, those of "not" nowhere; it ends behind the
 *                              first of "end", or anywhere when there are none; once: at most one P, and nothing but
 *                              the end behind it
 * A mark is a text, a {"token": T}, or a list of these, one after the other. */
#ifndef ENGINE_GRAMMAR_PARTS_H
#define ENGINE_GRAMMAR_PARTS_H

#include "engine/grammar/encode.h"

#include <jansson.h>

enum { PARTS_DEEP = 32 };

/* Rule 0 of the draft becomes the text. Err BAD_REQUEST, UNSUPPORTED. */
MUST_USE enum err eng_parts_build(struct encoder *e, struct eng_dfas *dfas, const json_t *part,
                                  uint32_t flags);

#endif
