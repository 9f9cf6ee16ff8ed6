/* call_tags.h: a call whose arguments stand in tags of their own, not in JSON:
 *
 *   NAME <arg_key>KEY</arg_key> <arg_value>VALUE</arg_value> ...                   (GLM)
 *   <function=NAME> <parameter=KEY> VALUE </parameter> ... </function>             (Qwen3-Coder)
 *
 * Pure. */
#ifndef COORDINATOR_API_CALL_TAGS_H
#define COORDINATOR_API_CALL_TAGS_H

#include "base/buf.h"

#include <jansson.h>

/* text[n]: what stands between the marks of a call. A value is a string where the tool's schema
 * says so, else JSON if it is any, else a string. tools: those offered, or NULL. false: it is no
 * such call; name and args may hold parts of it. */
bool crd_call_tags(const char *text, size_t n, const json_t *tools, struct buf *name,
                   struct buf *args);

#endif
