/* journal.h: what was accepted and what was said, on disk, so that the next coordinator goes on where this one was killed.
 *
 * A thread of its own ([journal]) writes, and hands an event on only after it has been written: what a client has seen, a coordinator that
 * comes after kill -9 knows. What survives a crash of the machine is what was synced: every sync_us, on another thread, or with sync_us 0
 * before anything is handed on.
 *
 * The file holds live requests, and those that have ended for keep_us; it is written anew without the others when it has grown to twice what is
 * live, so it stays within max_bytes, half of which may be live: beyond it requests are served and not journaled. When it cannot be written
 * (a full disk) answers go on all the same; it is tried again every second, and /health says so. */
#ifndef COORDINATOR_JOURNAL_JOURNAL_H
#define COORDINATOR_JOURNAL_JOURNAL_H

#include "coordinator/journal/record.h"

struct crd_journal_conf {
    const char *path;
    uint64_t fit;      /* of the model: what was left by another is thrown away */
    int64_t max_bytes;
    int64_t sync_us, keep_us;
};

struct crd_journal;
struct crd_journaled; /* one request in it */

/* Reads what was left; the file is whole and in order after. Err IO; BAD_CONFIG: it is something else. */
MUST_USE enum err crd_journal_open(struct crd_journal **out, const struct crd_journal_conf *conf);
/* After everybody who has requests in it: hands on what is still queued. NULL-safe. */
void crd_journal_close(struct crd_journal *j);

/* Begin to write; what was left must have been looked at. Err SYSTEM: its threads cannot be started; nothing runs then. */
MUST_USE enum err crd_journal_run(struct crd_journal *j);

/* The requests that were left, one after another, in the order they were accepted; NULL: no more. Before requests come. */
struct crd_journaled *crd_journal_left(struct crd_journal *j, struct crd_journaled *after);
/* Their records, ACCEPT first. */
struct rd crd_journaled_records(const struct crd_journaled *q);

/* A request begins. NULL: there is no room, it is not journaled. Thr: any, as all below; in the order of the request's life. */
struct crd_journaled *crd_journal_accept(struct crd_journal *j, const struct record_accept *a);
/* False: longer than a record may be, nothing was written; the request cannot go on elsewhere and is to be ended (crd_journaled_end). */
bool crd_journaled_prompt(struct crd_journaled *q, int32_t sub, const struct record_score t[], int32_t n);
/* e is copied; then(user, e) on [journal] once it is written. */
void crd_journaled_event(struct crd_journaled *q, int32_t sub, const struct token_event *e, token_event_fn then, void *user);
/* An event that is not written, in order with those that are. */
void crd_journal_pass(struct crd_journal *j, const struct token_event *e, token_event_fn then, void *user);
/* The last word about it: the answer was given whole, or nobody wants it any more. q is gone. */
void crd_journaled_end(struct crd_journaled *q, bool whole);

struct crd_journal_status {
    int64_t bytes, live; /* of the file; of what is live */
    int32_t n;           /* requests in it */
    uint64_t n_refused;  /* for want of room */
    bool failing;
    char text[256];      /* why */
};
void crd_journal_status(struct crd_journal *j, struct crd_journal_status *out);

#endif
