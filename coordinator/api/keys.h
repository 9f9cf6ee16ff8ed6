/* keys.h: who may ask, and how much: API keys from a file that may change while we run.
 *
 * A line is a key: NAME SECRET [weight=W] [rpm=N] [tpm=N] [concurrency=N]; '#' begins a comment.
 * SECRET is the key, or "sha256:" and the hex digest of it; we keep digests only. The file is read
 * again when it has changed; one that cannot be understood changes nothing and is logged. Without
 * any key everybody is one caller, with the default limits. Thr: net only. */
#ifndef COORDINATOR_API_KEYS_H
#define COORDINATOR_API_KEYS_H

#include "base/err.h"
#include "coordinator/api/quota.h"

#include <stdbool.h>

enum { KEY_NAME = 64, KEY_HASH = 32 };

/* Stays where it is while it is in use, even when its line has gone from the file. */
struct crd_key {
    char name[KEY_NAME];
    uint8_t hash[KEY_HASH];
    uint64_t tenant; /* of the name: the same in every start */
    float weight;
    struct crd_quota quota;
    uint64_t n_requests, n_refused, n_prompt, n_completion; /* the ledger of this start */
    bool listed;                                            /* in the file as it is now */
};

struct crd_keys_conf {
    const char *path;         /* NULL: no file */
    const char *secret;       /* one key more, or NULL: named "env" */
    struct crd_limits limits; /* of keys whose line does not say */
    bool public_metrics;      /* /metrics needs no key */
};

struct crd_keys;
/* Err IO, BAD_CONFIG: the file, the line, what is wrong with it. */
MUST_USE enum err crd_keys_open(struct crd_keys **out, const struct crd_keys_conf *conf,
                                int64_t now_us);
void crd_keys_close(struct crd_keys *k);
/* Look whether the file has changed, at most once a second. */
void crd_keys_refresh(struct crd_keys *k, int64_t now_us);
/* Whose secret this is; NULL: nobody's. With no keys at all: everybody's, whatever it is. */
struct crd_key *crd_keys_find(struct crd_keys *k, const char *secret);
/* The key of this tenant, one more of whose requests goes on that was accepted once, whatever its
 * limits say now: answered by one crd_quota_end. NULL: there is no such key any more. */
struct crd_key *crd_keys_resume(struct crd_keys *k, uint64_t tenant);
bool crd_keys_public_metrics(const struct crd_keys *k);
/* Append the ledger as Prometheus lines. */
void crd_keys_metrics(const struct crd_keys *k, struct buf *out);

#endif
