/* call_json.h: one tool call as a JSON object, read byte by byte: {"name":..., "arguments":{...}}.
 *
 * Not a validator: the arguments pass through as the model wrote them; what matters is where they
 * begin and end. Keys understood: name, arguments or parameters; "function" with an object is
 * descended into; others are skipped. Pure. */
#ifndef COORDINATOR_API_CALL_JSON_H
#define COORDINATOR_API_CALL_JSON_H

#include "base/buf.h"

enum call_json_state { CALL_JSON_GOES_ON, CALL_JSON_DONE, CALL_JSON_BROKEN };

/* A JSON value of any kind, told apart from what follows it. Zeroed = at its first byte. */
struct json_span {
    int32_t depth;
    bool in_string, escaped, begun, scalar;
};
/* The next byte. *taken: it belongs to the value. True: the value is complete. */
bool crd_json_span(struct json_span *s, char c, bool *taken);

struct crd_call_json {
    enum { AT_KEY, IN_KEY, AT_COLON, AT_VALUE, IN_VALUE } at;
    enum { KEY_OTHER, KEY_NAME, KEY_ARGUMENTS, KEY_FUNCTION } key;
    int32_t nested;
    bool strict; /* an unknown first key breaks it: it is some other JSON */
    bool any_key, as_string;
    struct json_span span;
    struct buf text; /* of a key, a name or arguments in a string, with its quotes */
    struct buf name; /* whole once name_known */
    struct buf args; /* arguments so far; the reader may take them out */
    bool name_known, has_args;
};

/* Begins after the object's '{'. strict as above. */
void crd_call_json_open(struct crd_call_json *j, bool strict);
/* The next byte. After DONE or BROKEN nothing more is fed. */
enum call_json_state crd_call_json_push(struct crd_call_json *j, char c);
void crd_call_json_free(struct crd_call_json *j);

#endif
