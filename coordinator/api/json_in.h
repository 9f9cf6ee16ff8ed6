/* json_in.h: JSON that is not a request's body: parts of a model's reply, arguments in strings. */
#ifndef COORDINATOR_API_JSON_IN_H
#define COORDINATOR_API_JSON_IN_H

#include <jansson.h>

/* s[n] read as any parser reads it: "\u0000" is a letter, a NUL byte is none (jansson overlooks one
 * behind a number). flags: jansson's. NULL: it is no JSON, or no object or list and the flags do not
 * say JSON_DECODE_ANY. Own: caller. */
json_t *json_in(const char *s, size_t n, size_t flags);

#endif
