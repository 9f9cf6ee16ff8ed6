/* admin_http.c: see admin_http.h.
 *
 *   IDLE --asked--> ASKED --taken by main--> WORKING --done--> DONE --answered--> IDLE
 *                     |                        |
 *                     | who asked left         | who asked left: it is done all the same, and nobody is told
 *                     v IDLE                   v IDLE, when done */
#include "coordinator/api/admin_http.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/api/access.h"
#include "coordinator/api/http.h"
#include "coordinator/api/json_out.h"
#include "coordinator/api/keys.h"

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG "admin"

enum state { IDLE, ASKED, WORKING, DONE };

struct crd_admin_door {
    struct crd_keys *keys; /* [net] Own */
    pthread_mutex_t lock;  /* all below */
    enum state state;
    bool shut;
    struct crd_admin_request request;
    struct gw_waker *waker; /* of who waits for the answer; NULL: nobody. Own */
    enum err result;
    char text[600];
};

/* ---- main ---- */

enum err crd_admin_door_open(struct crd_admin_door **out, const char *path)
{
    enum err rc;
    struct crd_admin_door *d = xcalloc(1, sizeof *d);
    struct crd_keys_conf kc = {.path = path};
    pthread_mutex_init(&d->lock, NULL);
    rc = crd_keys_open(&d->keys, &kc, clock_us());
    if (rc) {
        rc = err_prefix(rc, "--admin-keys");
        goto out;
    }
    *out = d;
    d = NULL;
out:
    crd_admin_door_close(d);
    return rc;
}

void crd_admin_door_close(struct crd_admin_door *d)
{
    if (!d) return;
    ASSERT(!d->waker); /* the gateway was closed before */
    crd_keys_close(d->keys);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

bool crd_admin_door_take(struct crd_admin_door *d, struct crd_admin_request *out)
{
    if (!d) return false;
    pthread_mutex_lock(&d->lock);
    bool asked = d->state == ASKED;
    if (asked) {
        d->state = WORKING;
        *out = d->request;
    }
    pthread_mutex_unlock(&d->lock);
    return asked;
}

static void answer_locked(struct crd_admin_door *d, enum err result, const char *text)
{
    d->result = result;
    snprintf(d->text, sizeof d->text, "%s", text);
    d->state = d->waker ? DONE : IDLE;
    if (d->waker) gw_wake(d->waker);
}

void crd_admin_door_done(struct crd_admin_door *d, enum err result)
{
    if (!d) return;
    pthread_mutex_lock(&d->lock);
    ASSERT(d->state == WORKING);
    answer_locked(d, result, !result ? "" : err_text()[0] ? err_text() : err_short(result));
    pthread_mutex_unlock(&d->lock);
}

void crd_admin_door_shut(struct crd_admin_door *d)
{
    bool busy = d != NULL;
    for (int64_t until = clock_us() + 1000000; busy && clock_us() < until; clock_sleep_us(1000)) {
        pthread_mutex_lock(&d->lock);
        d->shut = true;
        if (d->state == ASKED) answer_locked(d, ERR_UNAVAILABLE, "the server is shutting down");
        busy = d->state == DONE;
        pthread_mutex_unlock(&d->lock);
    }
}

/* ---- net: who may ask ---- */

bool crd_admin_is_path(const char *path) { return !strncmp(path, "/admin/", 7); }

bool crd_admin_gate(struct crd_admin_door *d, struct gw_exchange *x, struct gw_request *r)
{
    struct crd_api_error e = {0};
    crd_keys_refresh(d->keys, clock_us());
    const char *secret = crd_access_secret(x);
    r->caller = crd_keys_find(d->keys, secret);
    if (r->caller) return true;
    if (secret) log_warn(LOG, "%s with a key that is no admin key: refused", r->path);
    crd_api_refuse(&e, 401, NULL, "%s needs an admin key (of the server's --admin-keys): `Authorization: Bearer KEY`.", r->path);
    crd_http_refuse(x, r->path, &e, "WWW-Authenticate: Bearer\n");
    return false;
}

/* ---- net: the answer ---- */

static void say(const struct crd_admin_door *d, struct buf *out, int32_t *status)
{
    struct crd_api_error e = {0};
    bool theirs = d->result == ERR_BAD_REQUEST || d->result == ERR_BAD_CONFIG || d->result == ERR_IO || d->result == ERR_NO_FIT ||
                  d->result == ERR_BAD_FILE || d->result == ERR_UNSUPPORTED || d->result == ERR_NOT_FOUND;
    *status = !d->result ? 200 : theirs ? 400 : 503;
    if (d->result) {
        crd_api_refuse(&e, *status, NULL, "%s", d->text);
        crd_api_error_json(&e, out);
        crd_api_error_clear(&e);
        return;
    }
    buf_printf(out, "{\"status\":\"%s\"", d->request.verb == ADMIN_DRAIN ? "draining" : "serving");
    if (d->request.verb == ADMIN_RELOAD) {
        buf_puts(out, ",\"model\":");
        json_out_str(out, d->request.model);
    }
    buf_putc(out, '}');
}

static bool run(void *self, struct buf *out, int32_t *status, const char **type, const char **headers)
{
    struct crd_admin_door *d = self;
    pthread_mutex_lock(&d->lock);
    bool done = d->state == DONE;
    *status = 0;
    *type = "application/json";
    *headers = NULL;
    if (done) say(d, out, status);
    pthread_mutex_unlock(&d->lock);
    return done;
}

static void closed(void *self, bool client_left)
{
    struct crd_admin_door *d = self;
    (void)client_left;
    pthread_mutex_lock(&d->lock);
    gw_waker_free(d->waker);
    d->waker = NULL;
    if (d->state != WORKING) d->state = IDLE;
    pthread_mutex_unlock(&d->lock);
}

static void ask(struct crd_admin_door *d, struct gw_exchange *x, const struct gw_request *r, const struct crd_admin_request *what)
{
    static const struct gw_stream_ops ops = {run, closed};
    struct crd_api_error e = {0};
    const struct crd_key *key = r->caller;
    pthread_mutex_lock(&d->lock);
    bool shut = d->shut, busy = d->state != IDLE;
    if (!shut && !busy) {
        d->state = ASKED;
        d->request = *what;
        d->waker = gw_exchange_waker(x);
    }
    pthread_mutex_unlock(&d->lock);
    if (shut) crd_api_refuse(&e, 503, NULL, "The server is shutting down.");
    else if (busy) crd_api_refuse(&e, 409, NULL, "Another request of an admin's is under way: ask again when it is over.");
    if (e.status) {
        crd_http_error(x, &e, NULL);
        return;
    }
    log_info(LOG, "%s asks: %s %s", key->name, what->verb == ADMIN_DRAIN ? "drain" : "reload", what->model);
    gw_stream(x, &ops, d);
}

/* NULL: it has answered. */
static struct crd_admin_door *door_of(struct crd_api *api, struct gw_exchange *x)
{
    struct crd_api_error e = {0};
    if (api->admin) return api->admin;
    crd_api_refuse(&e, 404, NULL, "This server takes no orders by HTTP: it was started without --admin-keys FILE. `tessera drain` and `tessera reload` on "
                                  "its host use its admin socket.");
    crd_http_error(x, &e, NULL);
    return NULL;
}

void crd_http_admin_drain(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    struct crd_admin_door *d = door_of(api, x);
    struct crd_admin_request what = {.verb = ADMIN_DRAIN};
    if (d) ask(d, x, r, &what);
}

void crd_http_admin_reload(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    struct crd_admin_door *d = door_of(api, x);
    struct crd_admin_request what = {.verb = ADMIN_RELOAD};
    struct crd_api_error e = {0};
    if (!d) return;
    json_t *j = json_loadb(r->body, r->n_body, 0, NULL);
    const char *model = json_string_value(json_object_get(j, "model"));
    if (!model || !strchr(model, '/') || strlen(model) >= sizeof what.model)
        crd_api_refuse(&e, 400, "model", "The body must be {\"model\": PATH}, an absolute path of the server's host, or ORG/NAME of a model "
                       "that was pulled there.");
    else snprintf(what.model, sizeof what.model, "%s", model);
    json_decref(j);
    if (e.status) crd_http_error(x, &e, NULL);
    else ask(d, x, r, &what);
}
