/* api_metrics.h: what requests cost and how they ended, under vLLM's metric names, definitions and
 * buckets.
 *
 * Updated from scheduler threads as events arrive, so that a slow client does not distort them.
 * Thr: any. */
#ifndef COORDINATOR_API_API_METRICS_H
#define COORDINATOR_API_API_METRICS_H

#include "coordinator/api/generation.h"
#include "coordinator/api/request.h"

struct crd_api_stats;
enum { STATS_ENGINES = 16 }; /* most replicas that are told apart */
/* max_context: the largest bucket of the histograms of token counts. n_engines: replicas, each with
 * its own counts: `engine` below, 0 .. n_engines - 1, is the one that the event came from. */
struct crd_api_stats *crd_api_stats_open(int32_t max_context, int32_t n_engines);
void crd_api_stats_close(struct crd_api_stats *s);

enum crd_ended { ENDED_STOP, ENDED_LENGTH, ENDED_ABORT, ENDED_ERROR };

/* Nothing more will come of a request: what it had asked for, by the replica that ended it. */
void crd_api_stats_over(struct crd_api_stats *s, int32_t engine, const struct crd_request *r);
/* A choice's first token: ttft from the request's arrival. prompt: tokens of the prompt, on its
 * first choice, else 0. */
void crd_api_stats_first_token(struct crd_api_stats *s, int32_t engine, int64_t ttft_us, int32_t n_prompt);
/* A prompt of so many tokens was pooled. */
void crd_api_stats_pooled(struct crd_api_stats *s, int32_t engine, int32_t n_prompt);
void crd_api_stats_next_token(struct crd_api_stats *s, int32_t engine, int64_t since_last_us);
/* A choice ended. e: its EVENT_FINISH, e->engine whose; e2e from the request's arrival. */
void crd_api_stats_ended(struct crd_api_stats *s, const struct token_event *e, enum crd_ended how,
                         int64_t e2e_us);
/* One step of a scheduler computed so many tokens (vllm:iteration_tokens_total); called by whoever
 * runs the steps. */
void crd_api_stats_step(struct crd_api_stats *s, int32_t engine, int32_t n_tokens);

/* Append everything /metrics shows: ours, the scheduler's gauges, and the service's own lines. */
void crd_api_metrics(const struct crd_api *api, struct buf *out);

#endif
