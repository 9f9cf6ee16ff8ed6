/* admin.h: the door for whoever runs the server: a unix socket that only its owner can open (0600, and the asker's user is looked at). One line
 * in, lines out, the last of them "ok" or "error: why".
 *
 *   drain           no new work; what runs may finish; the server ends
 *   reload MODEL    serve this model from now on
 *
 * Server: Thr: one. Not here: doing it (cli/serving.h). */
#ifndef COORDINATOR_ADMIN_H
#define COORDINATOR_ADMIN_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { ADMIN_PATH = 108, ADMIN_LINE = 4200 };

enum crd_admin_verb { ADMIN_NOTHING, ADMIN_DRAIN, ADMIN_RELOAD };
struct crd_admin_request {
    enum crd_admin_verb verb;
    char model[4096]; /* RELOAD: a path of the server's host */
};

/* A line without its newline. Err BAD_REQUEST: the verbs there are. A parser of outside bytes. */
MUST_USE enum err crd_admin_parse(struct crd_admin_request *out, const char *line, size_t n);

/* Where the server of a port has its door unless told otherwise: in $XDG_RUNTIME_DIR, else /tmp, with user and port in its name. */
void crd_admin_path(char out[ADMIN_PATH], int32_t port);

/* The same from the other side: where a server of this port answers. What crd_admin_path says if one does there, or nowhere; else where this user's
 * server has its door without that variable, or with it; root: anybody's. Err BAD_CONFIG: there are several, which it names. */
MUST_USE enum err crd_admin_find(char out[ADMIN_PATH], int32_t port);

struct crd_admin;
/* A socket that a dead server left is taken over. Err SYSTEM: another server lives there, or the path cannot be used, and what helps. */
MUST_USE enum err crd_admin_open(struct crd_admin **out, const char *path);
void crd_admin_close(struct crd_admin *a); /* NULL-safe; removes the socket */
/* Wait at most timeout_us for a request; true: *out is one, and its asker waits for crd_admin_done. Ends early on a signal. */
bool crd_admin_wait(struct crd_admin *a, int64_t timeout_us, struct crd_admin_request *out);
void crd_admin_say(struct crd_admin *a, const char *fmt, ...) PRINTF(2, 3); /* to the asker, if there is one */
void crd_admin_done(struct crd_admin *a, enum err result);                  /* the last line; an error's text is err_text() */

/* The other side: ask, copy what comes to `to`. Err UNAVAILABLE: nobody answers there; else the server's own error. */
MUST_USE enum err crd_admin_ask(const char *path, const char *line, FILE *to);

#endif
