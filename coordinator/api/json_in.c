/* json_in.c: see json_in.h. */
#include "coordinator/api/json_in.h"

#include <string.h>

json_t *json_in(const char *s, size_t n, size_t flags)
{
    if (n && memchr(s, 0, n)) return NULL;
    return json_loadb(s, n, flags | JSON_ALLOW_NUL, NULL);
}
