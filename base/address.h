/* address.h: HOST:PORT as people write it: a name or an IPv4 address, or an IPv6 address in brackets. Pure: no name is resolved. */
#ifndef BASE_ADDRESS_H
#define BASE_ADDRESS_H

#include "base/err.h"

#include <stdint.h>

enum { ADDRESS_HOST = 110, ADDRESS_TEXT = ADDRESS_HOST + 10 };

struct address {
    char host[ADDRESS_HOST]; /* without brackets; never empty */
    int32_t port;            /* 0..65535; -1: none was written */
};

/* what: the option, for the sentence. Err BAD_CONFIG: an empty or too long host, an IPv6 address without brackets before a port, a port that is none. */
MUST_USE enum err address_parse(struct address *a, const char *what, const char *text);
/* A host alone: brackets fall away, and an IPv6 address needs none. Err as above, and a port. */
MUST_USE enum err address_host(char host[ADDRESS_HOST], const char *what, const char *text);
/* HOST:PORT, with brackets where they are needed; returns out. */
char *address_text(char out[ADDRESS_TEXT], const char *host, int32_t port);

#endif
