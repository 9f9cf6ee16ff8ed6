/* bench_sched.c: microseconds of crd_sched_step + crd_sched_on_result per step, with all sequences
 * decoding and two steps in flight. */
#include "tests/sched/bench_sched.h"
#include "base/clock.h"
#include "coordinator/sched/scheduler.h"

#include <stdio.h>
#include <stdlib.h>

enum { PROMPT = 256, STEPS = 2000, CONTEXT = 8192, DEPTH = 2 };

struct asked {
    int32_t n;
    struct result_item *items;
    uint64_t step;
};

static void ignore(void *user, const struct token_event *e)
{
    (void)user, (void)e;
}

/* What every rank would answer, without computing anything. */
static void answer_later(struct asked *q, const struct step_plan *p)
{
    q->step = p->step;
    q->n = p->n_items;
    for (int32_t i = 0; i < p->n_items; i++) {
        q->items[i].slot = p->items[i].slot;
        q->items[i].n_tokens = p->items[i].out & OUT_SAMPLE ? 1 : 0;
        q->items[i].tokens[0].id = (int32_t)(p->step % 1000);
    }
}

static void submit_all(struct crd_sched *s, int32_t n)
{
    int32_t prompt[PROMPT];
    for (int32_t i = 0; i < n; i++) {
        for (int32_t k = 0; k < PROMPT; k++) prompt[k] = k < 128 ? k : i;
        struct gen_request r = {.id = (uint64_t)i + 1,
                                .tenant = (uint64_t)i % 16,
                                .weight = 1,
                                .n_prompt = PROMPT,
                                .prompt = prompt,
                                .n = 1,
                                .sampling = sampling_default()};
        r.sampling.max_tokens = CONTEXT - PROMPT;
        if (crd_sched_submit(s, &r, 0)) abort();
    }
}

static int64_t one_step(struct crd_sched *s, struct asked ring[DEPTH], uint64_t *sent,
                        uint64_t *answered)
{
    struct arena a = {0};
    struct step_plan p;
    int64_t t0 = clock_us(), copying = 0;
    while (crd_sched_step(s, t0, &a, &p)) {
        int64_t t1 = clock_us();
        answer_later(&ring[(*sent)++ % DEPTH], &p);
        copying += clock_us() - t1;
    }
    arena_free(&a);
    struct asked *q = &ring[(*answered)++ % DEPTH];
    struct step_result r = {.epoch = 1, .step = q->step, .n_items = q->n, .items = q->items};
    if (crd_sched_on_result(s, &r, t0)) abort();
    return clock_us() - t0 - copying;
}

static void bench(int32_t n_running)
{
    struct sched_conf conf = {.epoch = 1,
                              .n_blocks = n_running * 160,
                              .n_slots = n_running,
                              .n_stages = 1,
                              .depth = DEPTH,
                              .max_step_tokens = 2048,
                              .context = CONTEXT,
                              .max_waiting = 10000,
                              .prefix_cache = true,
                              .prefix_key = {1, 2}};
    conf.n_blocks = MAX(conf.n_blocks, CONTEXT / LIMIT_BLOCK_TOKENS);
    struct crd_sched *s = crd_sched_open(&conf, ignore, NULL);
    struct asked ring[DEPTH] = {0};
    uint64_t sent = 0, answered = 0;
    for (int32_t i = 0; i < DEPTH; i++)
        ring[i].items = xcalloc((size_t)n_running, sizeof *ring[i].items);
    submit_all(s, n_running);
    struct sched_stats st = {0};
    do one_step(s, ring, &sent, &answered), crd_sched_stats(s, &st);
    while (st.n_waiting || st.last_step_tokens != n_running);
    int64_t sum = 0, worst = 0;
    for (int32_t i = 0; i < STEPS; i++) {
        int64_t us = one_step(s, ring, &sent, &answered);
        sum += us;
        worst = MAX(worst, us);
    }
    printf("%4d running: %7.1f us per step (%.3f us per token), longest %lld us\n", n_running,
           (double)sum / STEPS, (double)sum / STEPS / n_running, (long long)worst);
    for (int32_t i = 0; i < DEPTH; i++) free(ring[i].items);
    crd_sched_close(s);
}

int bench_sched(void)
{
    bench(1);
    bench(64);
    bench(512);
    return 0;
}
