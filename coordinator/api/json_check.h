/* json_check.h: is a text JSON? Its syntax alone, so that what a model wrote passes on byte by byte: a number may be larger, or have more
 * digits, than any that would be kept here. Pure. */
#ifndef COORDINATOR_API_JSON_CHECK_H
#define COORDINATOR_API_JSON_CHECK_H

#include <stdbool.h>
#include <stddef.h>

enum { JSON_CHECK_DEEP = 512 };

/* One value of any kind, white space around it allowed; UTF-8, no half of a surrogate pair, at most JSON_CHECK_DEEP deep. */
bool crd_json_is(const char *text, size_t n);

#endif
