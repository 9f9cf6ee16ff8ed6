/* quota.c: see quota.h. */
#include "coordinator/api/quota.h"

#include <math.h>

static const double US_PER_MINUTE = 60e6;

static void fill(struct crd_bucket *b, int32_t limit, int64_t now_us)
{
    if (now_us <= b->at_us) return;
    b->level =
        MIN(b->level + (double)limit * (double)(now_us - b->at_us) / US_PER_MINUTE, (double)limit);
    b->at_us = now_us;
}

static void fill_both(struct crd_quota *q, int64_t now_us)
{
    fill(&q->requests, q->limits.rpm, now_us);
    fill(&q->tokens, q->limits.tpm, now_us);
}

void crd_quota_open(struct crd_quota *q, const struct crd_limits *limits, int64_t now_us)
{
    *q = (struct crd_quota){
        .limits = *limits, .requests = {limits->rpm, now_us}, .tokens = {limits->tpm, now_us}};
}

void crd_quota_change(struct crd_quota *q, const struct crd_limits *limits, int64_t now_us)
{
    fill_both(q, now_us);
    q->requests.level += limits->rpm - q->limits.rpm;
    q->tokens.level += limits->tpm - q->limits.tpm;
    q->limits = *limits;
}

/* Seconds until the level is `wanted`, at least one. */
static int32_t wait_s(const struct crd_bucket *b, int32_t limit, double wanted)
{
    return (int32_t)CLAMP(ceil((wanted - b->level) * 60 / limit), 1, 86400);
}

const char *crd_quota_begin(struct crd_quota *q, int64_t now_us, int32_t *retry_s)
{
    const struct crd_limits *l = &q->limits;
    fill_both(q, now_us);
    *retry_s = 1;
    if (l->concurrency && q->n_active >= l->concurrency) return "requests at once";
    if (l->tpm && q->tokens.level <= 0) {
        *retry_s = wait_s(&q->tokens, l->tpm, 1);
        return "tokens per minute";
    }
    if (l->rpm && q->requests.level < 1) {
        *retry_s = wait_s(&q->requests, l->rpm, 1);
        return "requests per minute";
    }
    q->requests.level -= 1;
    q->n_active++;
    return NULL;
}

void crd_quota_end(struct crd_quota *q)
{
    q->n_active--;
}

void crd_quota_charge(struct crd_quota *q, int64_t tokens, int64_t now_us)
{
    fill_both(q, now_us);
    q->tokens.level -= (double)tokens;
}

static void put(struct buf *out, const char *what, const struct crd_bucket *b, int32_t limit)
{
    if (!limit) return;
    double left = MAX(floor(b->level), 0), reset = ((double)limit - b->level) * 60 / limit;
    buf_printf(out,
               "x-ratelimit-limit-%s: %d\nx-ratelimit-remaining-%s: %.0f\n"
               "x-ratelimit-reset-%s: %.3fs\n",
               what, limit, what, left, what, MAX(reset, 0.0));
}

void crd_quota_headers(struct crd_quota *q, int64_t now_us, struct buf *out)
{
    fill_both(q, now_us);
    put(out, "requests", &q->requests, q->limits.rpm);
    put(out, "tokens", &q->tokens, q->limits.tpm);
}
