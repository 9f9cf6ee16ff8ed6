/* pulse.c: how busy a replica is, in one line of the log every few seconds while it works, and one when it comes to rest. Without work: nothing. */
#include "coordinator/replica/state.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>

static double share(uint64_t part, uint64_t whole) { return whole ? 100.0 * (double)part / (double)whole : 0; }

static void say(struct crd_replica *r, const struct sched_stats *now, double seconds)
{
    const struct sched_stats *from = &r->pulse.from;
    const uint64_t asked = now->prefix_queries - from->prefix_queries, guessed = now->n_guesses - from->n_guesses;
    char which[32] = "", hits[64] = "", right[64] = "";
    if (r->conf.peers.self) snprintf(which, sizeof which, "replica %d: ", r->conf.index);
    if (asked) snprintf(hits, sizeof hits, "; prefix hits %.0f %%", share(now->prefix_hits - from->prefix_hits, asked));
    if (guessed) snprintf(right, sizeof right, "; %.0f %% of %llu guesses right", share(now->n_right - from->n_right, guessed), (unsigned long long)guessed);
    log_info("sched", "%s%.1f tok/s generated, %.1f of prompts; %d running, %d waiting; KV %.0f %% in use%s%s", which,
             (double)(now->generated_tokens - from->generated_tokens) / seconds, (double)(now->prompt_tokens - from->prompt_tokens) / seconds,
             now->n_running, now->n_waiting, share((uint64_t)now->n_blocks_used, (uint64_t)now->n_blocks), hits, right);
    r->pulse.said_us = clock_us();
}

void crd_pulse_begin(struct crd_replica *r)
{
    if (!r->conf.pulse_us || r->pulse.since_us) return;
    r->pulse.since_us = clock_us();
}

static void look(struct crd_replica *r, int64_t since_us)
{
    struct sched_stats now;
    const int64_t t = clock_us();
    if (!r->pulse.since_us || t - since_us < r->conf.pulse_us) return;
    crd_sched_stats(r->sched, &now);
    if (now.generated_tokens + now.prompt_tokens > r->pulse.from.generated_tokens + r->pulse.from.prompt_tokens)
        say(r, &now, (double)MAX(t - r->pulse.since_us, (int64_t)1) / 1e6);
    r->pulse.since_us = t;
    r->pulse.from = now;
}

void crd_pulse_result(struct crd_replica *r) { look(r, r->pulse.since_us); }

void crd_pulse_rest(struct crd_replica *r)
{
    look(r, r->pulse.said_us);
    r->pulse.since_us = 0;
    if (r->conf.pulse_us) crd_sched_stats(r->sched, &r->pulse.from);
}
