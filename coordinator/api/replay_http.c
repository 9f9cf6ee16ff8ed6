/* replay_http.c: /v1/requests/{id}/events and /v1/requests/{id}. */
#include "coordinator/api/http.h"
#include "coordinator/api/replay_impl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BELOW "/v1/requests/"

static void refuse(struct gw_exchange *x, int32_t status, const char *headers, const char *text)
{
    struct crd_api_error e = {0};
    crd_api_refuse(&e, status, NULL, "%s", text);
    crd_http_error(x, &e, headers);
}

/* "Last-Event-ID: N": go on with event N + 1; none: from the beginning. False: it is no number. */
static bool read_position(struct gw_exchange *x, int64_t *from)
{
    const char *v = gw_header(x, "Last-Event-ID");
    char *end;
    *from = 1;
    if (!v || !*v) return true;
    if (strspn(v, "0123456789") != strlen(v) || strlen(v) > 15) return false;
    *from = strtoll(v, &end, 10) + 1;
    return true;
}

static void read_events(struct crd_kept *k, struct gw_exchange *x)
{
    int64_t from;
    uint64_t at;
    if (!read_position(x, &from)) {
        refuse(x, 400, NULL, "Last-Event-ID must be the number of an event of this answer.");
        return;
    }
    bool events = !k->type || !strncmp(k->type, "text/event-stream", 17);
    if (!events) from = 0; /* a document, or lines: from its first byte */
    if (events ? !crd_frames_find(&k->frames, from, &at) : k->frames.dropped > 0)
        refuse(x, 410, NULL,
               "The beginning of this answer is no longer kept (--replay-memory bounds what is).");
    else if (events && k->over && from > k->frames.n)
        gw_reply(x, 204, NULL, NULL, 0, NULL); /* it has had all: an EventSource stops here */
    else
        crd_kept_read(k, x, from);
}

void crd_replay_handle(struct crd_api *api, struct gw_exchange *x, const struct gw_request *r)
{
    static const char events[] = "/events";
    const char *id = r->path + strlen(BELOW);
    size_t n = strlen(id), tail = sizeof events - 1;
    bool is_events = n > tail && !strcmp(id + n - tail, events);
    const struct crd_key *key = r->caller;
    const char *method = is_events ? "GET" : "DELETE";
    if (is_events) n -= tail;
    if (strcmp(r->method, method)) {
        refuse(x, 405, is_events ? "Allow: GET\n" : "Allow: DELETE\n",
               is_events ? "Method Not Allowed: the events of a request answer GET only"
                         : "Method Not Allowed: a request answers DELETE only (it ends it); "
                           "GET its /events");
        return;
    }
    struct crd_kept *k =
        api->replay ? crd_kept_find(api->replay, id, n, key ? key->tenant : 0) : NULL;
    if (!k) {
        refuse(x, 404, NULL,
               "No answer is kept under this id for this API key: it ended longer than "
               "--replay-seconds ago, was given up for memory, or never was.");
    } else if (is_events) {
        read_events(k, x);
    } else {
        crd_kept_cancel(k);
        gw_reply(x, 204, NULL, NULL, 0, NULL);
    }
}
