/* http.h: GET and POST, by libcurl: whole small answers, and bodies from a byte on, as they come. Every wait has a deadline: connecting, and a
 * body that stops. Redirects are followed to https (to http only from http); a token goes to the hub's own host alone. Thr: its owner. */
#ifndef HUB_HTTP_H
#define HUB_HTTP_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>

struct hub_http;

struct hub_http_conf {
    const char *token;       /* or NULL */
    bool direct;             /* a server of one's own and no hub: no proxy is asked, and the token goes there without https, too */
    const char *ca;          /* or NULL: a file of certificates (PEM) to trust instead of the system's */
    int64_t connect_s, stall_s; /* stall_s 0: an answer may take as long as it takes */
    bool (*stop)(void);      /* or NULL: asked about once a second while nothing comes; true ends the request: Err CANCELLED */
};

/* Err NO_MEMORY, BAD_CONFIG (a token with odd characters). */
MUST_USE enum err hub_http_open(struct hub_http **out, const struct hub_http_conf *conf);
void hub_http_close(struct hub_http *h);

/* What came back. */
struct hub_answer {
    long status;                       /* 0: no answer */
    int64_t from, total;               /* of Content-Range: -1 where it is not said */
    int64_t retry_s;                   /* of Retry-After, seconds or a date; -1: it says neither */
    bool more;                         /* there is a Link with rel="next" */
    char next[2048];                   /* its URL; "" when that is longer */
};

/* The whole body into *out, at most `most` bytes. Err LINK_CLOSED (no connection, or it broke; the sentence says how), LINK_PROTOCOL (more
 * than `most`). Any status is OK here. */
MUST_USE enum err hub_http_get(struct hub_http *h, const char *url, size_t most, struct buf *out, struct hub_answer *a);

/* The body as it comes, once its head is known: begin() is told the answer before the first byte, and may refuse it; take() gets the bytes. An
 * error of theirs ends it and is returned. first: bytes [first, ...) are asked for. */
struct hub_sink {
    void *user;
    enum err (*begin)(void *user, const struct hub_answer *a);
    enum err (*take)(void *user, const void *data, size_t n);
};
MUST_USE enum err hub_http_body(struct hub_http *h, const char *url, int64_t first, const struct hub_sink *sink, struct hub_answer *a);

/* POST of a JSON text, otherwise as hub_http_body; no redirect is followed. */
MUST_USE enum err hub_http_post(struct hub_http *h, const char *url, const char *json, const struct hub_sink *sink, struct hub_answer *a);
/* The same with the whole answer, as hub_http_get. */
MUST_USE enum err hub_http_post_get(struct hub_http *h, const char *url, const char *json, size_t most, struct buf *out, struct hub_answer *a);

/* May a token be sent there: https, or this very machine? */
bool hub_http_is_safe(const char *url);
/* "http://HOST:PORT", with or without a path, as the part before "/v1/...": without a "/" or "/v1" at its end. Own: free(). Err BAD_REQUEST: it is
 * no such address; names `option`. */
MUST_USE enum err hub_http_base(const char *option, const char *url, char **out);
/* A path for a URL: every byte but letters, digits, "-_.~/" as %XX. Own: free(). */
char *hub_http_escape(const char *path);

#endif
