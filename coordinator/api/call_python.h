/* call_python.h: calls as Python writes them (LFM2): [f(a=1, b="x"), g()]
 *
 * Arguments by name only. Values: strings in either quotes with escapes, numbers, True, False, None (and JSON's words), lists,
 * tuples, dictionaries with keys that are strings. Pure. */
#ifndef COORDINATOR_API_CALL_PYTHON_H
#define COORDINATOR_API_CALL_PYTHON_H

#include <jansson.h>
#include <stddef.h>

enum { CALL_PYTHON_DEEP = 64 };

/* text[n] -> [[name, the arguments as JSON text], ...], or NULL: it is no such list. The brackets around a single call may be missing. Numbers
 * pass as they were written, however large. Own: caller. */
json_t *crd_call_python(const char *text, size_t n);

#endif
