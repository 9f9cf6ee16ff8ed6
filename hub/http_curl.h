/* http_curl.h: one request in curl's terms. Internal to hub: its http files are the ones that include curl. */
#ifndef HUB_HTTP_CURL_H
#define HUB_HTTP_CURL_H

#include "hub/http.h"

#include <curl/curl.h>

struct hub_curl_request {
    const char *url, *post; /* post: a JSON text, copied; NULL: GET */
    int64_t first;          /* of a range; 0: everything */
};

/* Everything but who gets the answer. Own: curl_slist_free_all once the request is over. */
struct curl_slist *hub_curl_set(CURL *curl, const struct hub_http_conf *conf, const struct hub_curl_request *r);
/* Err BAD_CONFIG: characters that no token has. NULL is none. */
MUST_USE enum err hub_curl_check_token(const char *token);

#endif
