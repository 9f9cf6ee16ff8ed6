/* rig.c: see rig.h. */
#include "tests/sched/rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void on_event(void *user, const struct token_event *e)
{
    struct rig *b = user;
    b->n_events++;
    if (e->kind == EVENT_TOKEN && b->n_tokens < MOST_TOKENS) {
        b->tokens[b->n_tokens].choice = e->choice;
        b->tokens[b->n_tokens].id = e->token->id;
    }
    b->n_tokens += e->kind == EVENT_TOKEN;
    if (e->kind != EVENT_FINISH) return;
    b->ends[b->n_finished++ % MOST] = b->last = *e;
    strncpy(b->text, e->text, sizeof b->text - 1);
}

struct sched_conf rig_plain(void)
{
    return (struct sched_conf){.epoch = 1,
                               .n_blocks = 64,
                               .n_slots = 8,
                               .n_stages = 1,
                               .depth = 2,
                               .max_step_tokens = 64,
                               .context = 512,
                               .max_waiting = 16,
                               .prefix_cache = true,
                               .prefix_key = {1, 2}};
}

struct rig *rig_setup(struct sched_conf conf)
{
    struct rig *b = xcalloc(1, sizeof *b);
    b->conf = conf;
    b->s = crd_sched_open(&b->conf, on_event, b);
    b->f = fake_replica_open(&b->conf);
    return b;
}

void rig_teardown(struct rig *b)
{
    fake_replica_close(b->f);
    crd_sched_close(b->s);
    arena_free(&b->a);
    free(b);
}

struct gen_request rig_request(uint64_t id, int32_t n_prompt, int32_t max_tokens)
{
    static int32_t prompt[1024];
    for (int32_t i = 0; i < n_prompt; i++)
        prompt[i] = (int32_t)((id * 7 + (uint64_t)i) % FAKE_VOCAB);
    struct gen_request r = {.id = id,
                            .weight = 1,
                            .n_prompt = n_prompt,
                            .prompt = prompt,
                            .n = 1,
                            .sampling = sampling_default()};
    r.sampling.max_tokens = max_tokens;
    return r;
}

void rig_submit(struct rig *b, struct gen_request r)
{
    if (crd_sched_submit(b->s, &r, 0)) fail_msg("%s", err_text());
    crd_sched_check(b->s);
}

bool rig_step(struct rig *b)
{
    arena_free(&b->a);
    bool sent = crd_sched_step(b->s, 0, &b->a, &b->plan);
    if (sent) fake_replica_send(b->f, &b->plan);
    crd_sched_check(b->s);
    return sent;
}

void rig_answer(struct rig *b)
{
    const struct step_result *r = fake_replica_deliver(b->f);
    assert_non_null(r);
    if (crd_sched_on_result(b->s, r, 0)) fail_msg("%s", err_text());
    crd_sched_check(b->s);
}

void rig_run_out(struct rig *b)
{
    while (!crd_sched_idle(b->s))
        if (!rig_step(b)) rig_answer(b);
}

int32_t rig_used(const struct rig *b)
{
    struct sched_stats st;
    crd_sched_stats(b->s, &st);
    return st.n_blocks_used;
}
