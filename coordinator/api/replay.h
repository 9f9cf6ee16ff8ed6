/* replay.h: answers and who reads them.
 *
 * An answer is kept here beside its connection, with its events numbered, so that whoever lost the
 * connection reads on where it stood: GET /v1/requests/{id}/events with Last-Event-ID. It is kept
 * keep_us after its end, to the key that asked, within max_bytes for all together. When that is not
 * enough, no more goes than must: what passes it alone; then those whose end has been read, the
 * oldest first, then the others that have ended; at last, the largest first, answers under way keep
 * only what their reader has not had yet.
 *
 * A client that leaves cancels, unless it has said that it may come back (X-Resumable: true), or
 * the answer was begun under another coordinator: then it has keep_us to do so.
 * Thr: net only, but open and close. */
#ifndef COORDINATOR_API_REPLAY_H
#define COORDINATOR_API_REPLAY_H

#include "coordinator/api/api.h"

struct crd_replay_conf {
    int64_t keep_us;   /* 0: nothing is kept */
    int64_t max_bytes;
};

struct crd_replay;
struct crd_replay *crd_replay_open(const struct crd_replay_conf *conf);
/* After the gateway: ends what still runs. NULL-safe. */
void crd_replay_close(struct crd_replay *r);
/* gw_conf.alarm's work. */
void crd_replay_alarm(struct crd_replay *r);
int64_t crd_replay_bytes(const struct crd_replay *r);

/* Begin an answer to this request, read by this exchange. */
void crd_replay_begin(struct crd_api *api, struct gw_exchange *x, const struct gw_request *r,
                      enum crd_endpoint ep);
/* Before the gateway: the answers that the journal has can be asked for; those that were under way wait for crd_replay_go, which any thread
 * may call once the cluster serves. */
void crd_replay_recall(struct crd_api *api);
void crd_replay_go(struct crd_api *api, struct gw *gw);
/* Their model goes: those of them that had ended, and are told again only when somebody asks, are told now, so that they no longer need it.
 * Thr: any. */
void crd_replay_tell(struct crd_replay *r, struct gw *gw);
/* Everything below /v1/requests/. */
void crd_replay_handle(struct crd_api *api, struct gw_exchange *x, const struct gw_request *r);

#endif
