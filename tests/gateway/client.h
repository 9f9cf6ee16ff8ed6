/* client.h: an HTTP client of the tests, on raw sockets, so that it can also misbehave. Loopback
 * only; every wait has a limit, so a server that says nothing fails a test instead of hanging it.
 */
#ifndef TESTS_GATEWAY_CLIENT_H
#define TESTS_GATEWAY_CLIENT_H

#include "base/buf.h"

enum { CLIENT_WAIT_MS = 10000 };

struct client {
    int fd;
    struct buf in;
}; /* in: bytes read and not yet used */

struct answer {
    int status;      /* 0: the server closed without an answer */
    char *head;      /* status line and headers */
    struct buf body; /* chunks put together */
    bool cut;        /* the body ended before its end */
};

void client_open(struct client *c, int port);
void client_close(struct client *c);
/* False when the server does not take it. */
bool client_send(struct client *c, const char *text, size_t n);
bool client_puts(struct client *c, const char *text);
/* METHOD PATH with these header lines ("A: b\r\n" each) and body. */
bool client_request(struct client *c, const char *method, const char *path, const char *headers,
                    const char *body);
void client_answer(struct client *c, struct answer *out);
/* Read until `text` stands in the raw bytes received (they stay in c->in). False on end or
 * time-out. */
bool client_until(struct client *c, const char *text, int wait_ms);
/* True when the server closes within wait_ms (what it says before is thrown away). */
bool client_sees_close(struct client *c, int wait_ms);
/* The value of a header, or NULL; valid until the next call. */
const char *answer_header(const struct answer *a, const char *name);
void answer_free(struct answer *a);
/* One request on a connection of its own. */
void client_fetch(int port, const char *method, const char *path, const char *body,
                  struct answer *out);

#endif
