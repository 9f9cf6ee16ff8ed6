/* client.h: a running server, here or elsewhere, as commands ask it: over HTTP or HTTPS, with a key where it has keys. Thr: its owner. */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include "base/conf.h"
#include "hub/http.h"

#include <jansson.h>

/* Which server. */
struct client_options {
    int64_t port;
    const char *url, *key_env, *ca;
};
/* Offsets into a struct beginning with client_options. */
extern const struct conf_opt client_option_table[];

struct client {
    struct hub_http *http;
    char *url; /* "http://127.0.0.1:8000" */
};

/* stall_s, stop: of hub_http_conf. Err BAD_REQUEST (the URL), BAD_CONFIG (the key). */
MUST_USE enum err client_open(struct client *c, const struct client_options *o, int64_t stall_s, bool (*stop)(void));
void client_close(struct client *c); /* a zeroed one, too */

/* GET: a JSON object, whatever the status. Own: json_decref. Err UNAVAILABLE: nobody answers, or not so; the sentence has remedies. */
MUST_USE enum err client_get(const struct client *c, const char *path, json_t **out, long *status);
/* The sentence in the body of an error: of OpenAI's form, or of a server's that says less. Own: free(). */
char *client_sentence(const struct buf *body);
/* The model that a request should name: `wanted`, or without it the first that the server lists. Own: free(). Err BAD_REQUEST (a key is needed),
 * UNAVAILABLE. */
MUST_USE enum err client_model(const struct client *c, const struct client_options *o, const char *wanted, char **out);
/* POST; Err BAD_REQUEST: the server's own sentence, where its status is not 200. *out as above. */
MUST_USE enum err client_post(const struct client *c, const char *path, const char *json, json_t **out);
/* POST of a request for a stream: take() gets the body of an answer with status 200, as it comes. Err: of the sink's, and as client_post. */
MUST_USE enum err client_stream(const struct client *c, const char *path, const char *json,
                                enum err (*take)(void *user, const void *data, size_t n), void *user);

#endif
