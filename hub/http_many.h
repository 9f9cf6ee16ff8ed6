/* http_many.h: many POSTs at once, by libcurl, on the caller's thread. A connection is kept for the next request. */
#ifndef HUB_HTTP_MANY_H
#define HUB_HTTP_MANY_H

#include "hub/http.h"

struct hub_many;

/* Who gets one answer: take() its bytes as they come, done() once, last: `why` is NULL, or what went wrong with the connection. Called within
 * hub_many_wait. An error of take() ends the request, its sentence is `why`. */
struct hub_many_sink {
    void *user;
    enum err (*take)(void *user, long status, const void *data, size_t n);
    void (*done)(void *user, long status, const char *why);
};

/* conf: its strings must last; stop is not asked. Err NO_MEMORY, BAD_CONFIG (the token). */
MUST_USE enum err hub_many_open(struct hub_many **out, const struct hub_http_conf *conf);
void hub_many_close(struct hub_many *m); /* requests in work end without done(). NULL-safe */
/* Begin one; it goes on within hub_many_wait, and may be called from done(). Err NO_MEMORY. */
MUST_USE enum err hub_many_post(struct hub_many *m, const char *url, const char *json, const struct hub_many_sink *sink);
/* Let them go on, until something has come, or `us` have passed, or a signal. */
void hub_many_wait(struct hub_many *m, int64_t us);

#endif
