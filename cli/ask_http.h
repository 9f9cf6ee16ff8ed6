/* ask_http.h: one POST to a server's gateway, for `tessera drain` and `reload` from another host. Plain HTTP only: with HTTPS, curl does the same. */
#ifndef CLI_ASK_HTTP_H
#define CLI_ASK_HTTP_H

#include "base/buf.h"
#include "base/err.h"

/* "http://HOST[:PORT]" (an IPv6 address in brackets) in its parts. Err BAD_REQUEST: what an address looks like. */
MUST_USE enum err ask_http_url(const char *url, char host[256], char port[8]);
/* POST with this key; waits as long as the server does. *answer: the body, at most 64 KB. Err UNAVAILABLE: nobody answers there, or no HTTP;
 * BAD_REQUEST: the server's own sentence. */
MUST_USE enum err ask_http(const char *url, const char *path, const char *key, const char *body, struct buf *answer);

#endif
