/* quota.h: how much one key may ask for: requests and tokens a minute, answers at once.
 *
 * Buckets that fill evenly: a key that was silent for a minute has a whole minute's worth. Tokens
 * are charged as they are used, so a bucket may go below zero; then new requests wait until it is
 * above again. Pure: time is an argument. Thr: its owner. */
#ifndef COORDINATOR_API_QUOTA_H
#define COORDINATOR_API_QUOTA_H

#include "base/buf.h"

/* 0: without limit. */
struct crd_limits {
    int32_t rpm, tpm; /* requests, tokens per minute */
    int32_t concurrency;
};

struct crd_bucket {
    double level;
    int64_t at_us; /* when the level was that */
};

struct crd_quota {
    struct crd_limits limits;
    struct crd_bucket requests, tokens;
    int32_t n_active;
};

/* Full buckets. */
void crd_quota_open(struct crd_quota *q, const struct crd_limits *limits, int64_t now_us);
/* Other limits from now on; what was used stays used. */
void crd_quota_change(struct crd_quota *q, const struct crd_limits *limits, int64_t now_us);
/* Begin one request: NULL, or what there is too much of ("requests per minute", ...), and after how
 * many seconds it is worth trying again. A NULL is answered by one crd_quota_end. */
const char *crd_quota_begin(struct crd_quota *q, int64_t now_us, int32_t *retry_s);
void crd_quota_end(struct crd_quota *q);
void crd_quota_charge(struct crd_quota *q, int64_t tokens, int64_t now_us);
/* Append "x-ratelimit-...: ...\n" lines for the limits there are. */
void crd_quota_headers(struct crd_quota *q, int64_t now_us, struct buf *out);

#endif
