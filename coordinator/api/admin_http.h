/* admin_http.h: POST /admin/drain and /admin/reload: what the admin socket (coordinator/admin.h) does, for who holds an admin key. There is no
 * door unless a file of admin keys was given; its lines are those of API keys, but an API key opens nothing here, nor an admin key there.
 *
 * The door stands between net, where they ask, and main, where it is done: one request at a time. */
#ifndef COORDINATOR_API_ADMIN_HTTP_H
#define COORDINATOR_API_ADMIN_HTTP_H

#include "coordinator/admin.h"
#include "coordinator/api/api.h"

struct crd_admin_door;
/* path: the file of keys, read again when it changes. Err IO, BAD_CONFIG: the file, the line, what is wrong with it. */
MUST_USE enum err crd_admin_door_open(struct crd_admin_door **out, const char *path);
void crd_admin_door_close(struct crd_admin_door *d); /* after the gateway. NULL-safe, as all below */

/* ---- Thr: main ---- */

/* True: *out is asked, and whoever asks waits for crd_admin_door_done. */
bool crd_admin_door_take(struct crd_admin_door *d, struct crd_admin_request *out);
/* Answer; an error's text is err_text(). */
void crd_admin_door_done(struct crd_admin_door *d, enum err result);
/* Nothing more is taken: who asks is told that the server ends. Waits (a second at most) until the last answer has left. */
void crd_admin_door_shut(struct crd_admin_door *d);

/* ---- Thr: net ---- */

/* Gate of the paths below /admin/. False: it has answered. */
bool crd_admin_gate(struct crd_admin_door *d, struct gw_exchange *x, struct gw_request *r);
bool crd_admin_is_path(const char *path);
void crd_http_admin_drain(void *api, struct gw_exchange *x, const struct gw_request *r);
void crd_http_admin_reload(void *api, struct gw_exchange *x, const struct gw_request *r);

#endif
