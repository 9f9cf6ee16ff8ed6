/* Random workloads in virtual time: whatever the pool, the budget, the pipeline, the cancels and
 * the restarts, every request comes to what it would come to alone. Invariants are checked after
 * every call. Seeds are printed; `test_sched_random SEED` runs one. */
#include "base/rng.h"
#include "coordinator/sched/state.h"
#include "tests/sched/bench_sched.h"
#include "tests/sched/fake_replica.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MAX_REQUESTS = 40, MAX_CHOICES = 4, MAX_LEN = 160 };

struct choice {
    int32_t want[MAX_LEN], n_want, n_got, rows, n_pooled, n_scores;
    enum seq_finish finish;
    bool done;
};

struct request {
    struct gen_request r;
    int32_t prompt[MAX_LEN], likely[MAX_LEN];
    struct logit_bias bias[2];
    struct choice choices[MAX_CHOICES];
    int64_t arrives;
    bool submitted, refused, cancelled;
};

struct world {
    uint64_t seed, draws;
    struct sched_conf conf;
    struct kv_groups groups; /* of its model */
    struct crd_sched *s;
    struct fake_replica *f;
    struct request requests[MAX_REQUESTS];
    int32_t n_requests, n_arrived;
    int64_t now;
    bool crowded;        /* short prompts, long answers, a small pool: constant preemption */
    int32_t most_blocks; /* requests are drawn to fit */
    bool limited;        /* a request may be given up after so many losses of its replica */
    bool shrunk, failed; /* a smaller replica came: length and NO_BLOCKS are allowed; everything was
                            failed */
    uint64_t n_cancelled, n_done;
};

static uint64_t
    totals[11]; /* steps, preemptions, restarts, cancels, prefix hits, done, lengths, no_blocks,
                  pooled */

static int32_t draw(struct world *w, int32_t lo, int32_t hi)
{
    return lo + (int32_t)(rng_at(w->seed, ++w->draws, 7, 7) % (uint64_t)(hi - lo + 1));
}
static bool chance(struct world *w, int32_t percent)
{
    return draw(w, 1, 100) <= percent;
}

/* ---- what comes out ---- */

static void on_rows(const struct request *q, struct choice *c, const struct token_event *e)
{
    const struct gen_request *r = &q->r;
    const bool prompt = r->prompt_logits && !e->choice;
    for (int32_t i = 0; i < e->n_rows; i++) {
        float row[FAKE_ROW];
        int32_t pos = prompt ? c->rows : r->n_prompt - 1 + c->n_got;
        uint64_t state = 0;
        for (int32_t k = 0; k <= pos; k++)
            state = fake_state(state, k < r->n_prompt ? q->prompt[k] : c->want[k - r->n_prompt]);
        fake_row(state, pos, row);
        assert_memory_equal(row, e->logits + i * FAKE_ROW, sizeof row);
        c->rows++;
    }
}

static void check_rows(const struct request *q, int32_t choice)
{
    const struct gen_request *r = &q->r;
    const struct choice *c = &q->choices[choice];
    int32_t want =
        (r->prompt_logits && !choice ? r->n_prompt : 0) + (r->sample_logits ? c->n_got : 0);
    if (r->sample_logits && r->prompt_logits && !choice) want--;
    assert_int_equal(c->rows, want);
}

static void on_finish(struct world *w, const struct request *q, struct choice *c,
                      const struct token_event *e)
{
    assert_int_equal(e->n_prompt, q->r.n_prompt);
    assert_int_equal(e->n_generated, c->n_got);
    assert_true(e->queued_us >= 0 && e->prefill_us >= 0 && e->decode_us >= 0);
    assert_true(e->n_cached >= 0 && e->n_cached < q->r.n_prompt &&
                e->n_cached % LIMIT_BLOCK_TOKENS == 0);
    if (!w->conf.prefix_cache || q->r.prompt_logits || q->r.sampling.n_prompt_logprobs >= 0 || q->r.pool == POOL_MEAN)
        assert_int_equal(e->n_cached, 0);
    assert_non_null(e->text);
    if (e->err == ERR_CANCELLED)
        assert_true(q->cancelled);
    else if (e->err == ERR_UNAVAILABLE)
        assert_true(w->failed || w->limited);
    else if (e->err == ERR_NO_BLOCKS)
        assert_true(w->shrunk);
    else if (w->shrunk && e->finish == FINISH_LENGTH)
        assert_true(c->n_got <= c->n_want);
    else {
        assert_int_equal(e->err, OK);
        assert_int_equal(e->finish, c->finish);
        assert_int_equal(c->n_got, c->n_want);
        check_rows(q, e->choice);
        assert_int_equal(c->n_scores, !e->choice && q->r.sampling.n_prompt_logprobs >= 0 ? q->r.n_prompt - 1 : 0);
        assert_int_equal(c->n_pooled, q->r.pool != POOL_NONE);
    }
    totals[5]++;
    totals[6] += e->finish == FINISH_LENGTH;
    totals[7] += e->err == ERR_NO_BLOCKS;
}

static void on_event(void *user, const struct token_event *e)
{
    struct world *w = user;
    struct request *q = &w->requests[e->request - 1];
    struct choice *c = &q->choices[e->choice];
    assert_true(q->submitted && !q->refused && !c->done);
    if (e->kind == EVENT_LOGITS) on_rows(q, c, e);
    for (int32_t i = 0; e->kind == EVENT_SCORES && i < e->n_scores; i++) {
        assert_int_equal(e->choice, 0);
        assert_int_equal(e->scores[i].rank, ++c->n_scores);
        assert_int_equal(e->scores[i].id, q->prompt[c->n_scores]);
    }
    if (e->kind == EVENT_POOLED) {
        float want[FAKE_POOLED];
        fake_pooled(fake_pool_alone(&q->r), want);
        assert_true(q->r.pool && !c->n_pooled++);
        assert_int_equal(e->n_pooled, FAKE_POOLED);
        assert_memory_equal(e->pooled, want, sizeof want);
        totals[8]++;
    }
    if (e->kind == EVENT_TOKEN) {
        assert_true(c->n_got < c->n_want);
        assert_int_equal(e->token->id, c->want[c->n_got]);
        c->n_got++;
    }
    if (e->kind == EVENT_FINISH) {
        on_finish(w, q, c, e);
        c->done = true;
        w->n_done++;
    }
}

/* ---- what goes in ---- */

static void draw_sampling(struct world *w, struct request *q, struct sampling *p)
{
    *p = sampling_default();
    p->seed = rng_at(w->seed, ++w->draws, 1, 1);
    const int32_t longest = w->crowded || chance(w, 30) ? 90 : 20;
    p->max_tokens = draw(w, w->crowded ? 30 : 1, longest);
    p->min_tokens = chance(w, 20) ? draw(w, 0, p->max_tokens) : 0;
    if (chance(w, 25)) p->frequency_penalty = 0.5f;
    if (chance(w, 15)) p->n_prompt_logprobs = 0;
    if (chance(w, w->crowded ? 10 : 60)) p->stop_ids[p->n_stop_ids++] = 3;
    if (chance(w, 20)) p->stop_ids[p->n_stop_ids++] = 11;
    if (chance(w, 10)) {
        q->bias[0] = (struct logit_bias){5, 1};
        p->bias = q->bias;
        p->n_bias = 1;
    }
}

static void draw_request(struct world *w, int32_t i)
{
    struct request *q = &w->requests[i];
    struct gen_request *r = &q->r;
    *r = (struct gen_request){.id = (uint64_t)i + 1,
                              .tenant = (uint64_t)draw(w, 0, 3),
                              .weight = (float)draw(w, 1, 3),
                              .priority = chance(w, 20) ? draw(w, -1, 1) : 0,
                              .n = chance(w, 25) ? draw(w, 2, MAX_CHOICES) : 1,
                              .cache_salt = chance(w, 15),
                              .prompt_logits = chance(w, 12),
                              .sample_logits = chance(w, 12)};
    draw_sampling(w, q, &r->sampling);
    int32_t room = (int32_t)MIN(w->conf.context, kv_groups_longest(&w->groups, w->conf.n_blocks));
    r->sampling.max_tokens = MIN(r->sampling.max_tokens, room - 1);
    r->sampling.min_tokens = MIN(r->sampling.min_tokens, r->sampling.max_tokens);
    const int32_t longest = w->crowded ? 12 : chance(w, 50) ? 90 : 24;
    r->n_prompt = draw(w, 1, MIN(room - r->sampling.max_tokens, longest));
    int32_t common = draw(w, 0, r->n_prompt), stem = draw(w, 0, 2);
    for (int32_t k = 0; k < r->n_prompt; k++)
        q->prompt[k] = k < common
                           ? (int32_t)(rng_at(99, (uint64_t)stem, (uint64_t)k, 0) % FAKE_VOCAB)
                           : draw(w, 0, FAKE_VOCAB - 1);
    if (i && !w->crowded &&
        chance(w, 30)) { /* the conversation goes on: an earlier prompt and its answer */
        const struct request *old = &w->requests[draw(w, 0, i - 1)];
        int32_t n = MIN(old->r.n_prompt + old->choices[0].n_want, room - r->sampling.max_tokens);
        for (int32_t k = 0; k < n; k++)
            q->prompt[k] =
                k < old->r.n_prompt ? old->prompt[k] : old->choices[0].want[k - old->r.n_prompt];
        const int32_t more = draw(w, 0, 20);
        r->n_prompt = MIN(n + more, room - r->sampling.max_tokens);
    }
    r->prompt = q->prompt;
    if (r->n == 1 && !r->prompt_logits && !r->sample_logits && chance(w, 15))
        r->pool = chance(w, 50) ? POOL_MEAN : POOL_LAST;
    if (r->pool) q->choices[0].finish = FINISH_STOP, r->sampling.n_prompt_logprobs = -1;
    for (int32_t c = r->pool ? 1 : 0; c < r->n; c++)
        q->choices[c].n_want = fake_alone(r, c, q->choices[c].want, &q->choices[c].finish);
    for (int32_t k = 0; k < q->choices[0].n_want; k++) q->likely[k] = chance(w, 90) ? q->choices[0].want[k] : 7;
    r->likely = q->likely;
    r->n_likely = chance(w, 30) ? q->choices[0].n_want : 0;
    q->arrives = i ? w->requests[i - 1].arrives + (chance(w, 50) ? 0 : draw(w, 0, 40)) : 0;
}

/* Half of the worlds have windows, of a few positions or of many blocks; some of these have nothing else. */
static void draw_groups(struct world *w)
{
    const bool windows = chance(w, 50), alone = chance(w, 30);
    const int32_t window = chance(w, 50) ? draw(w, 2, 20) : draw(w, 16, 70);
    w->groups = kv_groups_of(alone ? 0 : 1, windows ? draw(w, 1, 3) : 0, window);
}

static struct sched_conf draw_conf(struct world *w, int32_t max_waiting)
{
    struct sched_conf c = {.epoch = w->conf.epoch + 1,
                           .n_slots = draw(w, 1, 12),
                           .n_stages = draw(w, 1, 3),
                           .max_step_tokens = chance(w, 30) ? draw(w, 1, 4) : draw(w, 1, 64),
                           .context = MAX_LEN,
                           .max_waiting = max_waiting,
                           .prefix_cache = chance(w, 70),
                           .prefix_key = {rng_at(w->seed, 1, 0, w->draws), 2},
                           .groups = w->groups,
                           .n_blocks = w->groups.n * (chance(w, 70) ? draw(w, 3, 14) : draw(w, 12, 64)),
                           .max_logit_rows = chance(w, 30) ? draw(w, 1, 9) : 0,
                           .max_guesses = chance(w, 60) ? draw(w, 1, LIMIT_RESULT_TOKENS - 1) : 0,
                           .guess_rows = draw(w, 1, 16),
                           .max_losses = chance(w, 10) ? draw(w, 1, 3) : 0};
    c.depth = draw(w, chance(w, 10) ? 1 : c.n_stages + 1, 6);
    w->limited |= c.max_losses;
    return c;
}

static void submit(struct world *w)
{
    struct request *q = &w->requests[w->n_arrived++];
    q->submitted = true;
    enum err e = crd_sched_submit(w->s, &q->r, w->now);
    if (!e) return;
    q->refused = true;
    if (e == ERR_TOO_LONG && !w->shrunk) fail_msg("%s", err_text());
    if (e != ERR_TOO_LONG) assert_int_equal(e, ERR_QUEUE_FULL);
}

static void cancel_one(struct world *w)
{
    struct request *q = &w->requests[draw(w, 0, w->n_requests - 1)];
    q->cancelled = q->submitted;
    crd_sched_cancel(w->s, q->submitted ? q->r.id : 12345, w->now);
    for (int32_t c = 0; c < q->r.n; c++)
        assert_true(!q->cancelled || q->refused || q->choices[c].done);
    totals[3]++;
}

static void adopt(void *user, struct crd_group *g)
{
    struct world *w = user;
    crd_sched_adopt(w->s, g, w->now);
    crd_sched_check(w->s);
}

/* Another scheduler goes on, as when another replica takes over. */
static void hand_over(struct world *w)
{
    struct crd_sched *old = w->s;
    w->s = crd_sched_open(&w->conf, on_event, w);
    crd_sched_hand_over(old, w->now, adopt, w);
    crd_sched_check(old);
    assert_true(crd_sched_idle(old));
    crd_sched_close(old);
}

static void restart(struct world *w)
{
    struct sched_conf c = draw_conf(w, w->conf.max_waiting);
    bool prefix = w->conf.prefix_cache;
    if (chance(w, 50)) {
        c.n_blocks = w->groups.n * draw(w, 2, 12);
        c.context = draw(w, 20, MAX_LEN);
    }
    w->shrunk |= c.n_blocks < w->most_blocks || c.context < MAX_LEN;
    c.prefix_cache = prefix;
    struct sched_stats st;
    crd_sched_stats(w->s, &st);
    w->conf = c;
    fake_replica_close(w->f);
    w->f = fake_replica_open(&w->conf);
    if (chance(w, 50))
        hand_over(w);
    else
        crd_sched_restart(w->s, &w->conf, w->now);
    totals[2]++;
}

/* ---- the world turns ---- */

static bool step(struct world *w)
{
    struct arena a = {0};
    struct step_plan p;
    bool sent = crd_sched_step(w->s, w->now, &a, &p);
    if (sent) fake_replica_send(w->f, &p);
    arena_free(&a);
    crd_sched_check(w->s);
    return sent;
}

static bool deliver(struct world *w)
{
    const struct step_result *r = fake_replica_deliver(w->f);
    if (!r) return false;
    if (crd_sched_on_result(w->s, r, w->now)) fail_msg("%s", err_text());
    crd_sched_check(w->s);
    return true;
}

static void disturb(struct world *w, int32_t rate)
{
    if (chance(w, rate)) cancel_one(w);
    if (draw(w, 1, 1000) <= rate * 4) restart(w);
    if (draw(w, 1, 4000) <= rate) {
        w->failed = true;
        crd_sched_fail_all(w->s, ERR_UNAVAILABLE, "a test said so", w->now);
    }
    crd_sched_check(w->s);
}

static void run(struct world *w)
{
    const int32_t rate = chance(w, 50) ? 0 : draw(w, 1, 8), eager = draw(w, 0, 100);
    int32_t still = 0;
    while (w->n_arrived < w->n_requests || !crd_sched_idle(w->s)) {
        bool moved = false;
        w->now++;
        while (w->n_arrived < w->n_requests && w->requests[w->n_arrived].arrives <= w->now)
            submit(w), moved = true;
        if (rate) disturb(w, rate);
        while (step(w)) {
            moved = true;
            if (chance(w, 40)) break;
        }
        while (chance(w, eager) && deliver(w)) moved = true;
        still = moved ? 0 : still + 1;
        if (still > 20 && deliver(w)) still = 0;
        assert_true(still < 200);
    }
}

static void check_end(struct world *w)
{
    struct sched_stats st;
    crd_sched_stats(w->s, &st);
    assert_int_equal(st.n_blocks_used, 0);
    assert_int_equal(st.n_running + st.n_waiting + st.n_in_flight, 0);
    if (!w->conf.prefix_cache) assert_int_equal(st.n_blocks_cached, 0);
    assert_int_equal(w->s->blocks.n_free + st.n_blocks_cached, w->conf.n_blocks);
    assert_null(w->s->groups);
    for (int32_t i = 0; i < w->n_requests; i++)
        for (int32_t c = 0; c < w->requests[i].r.n; c++)
            assert_true(w->requests[i].refused || w->requests[i].choices[c].done);
    totals[0] += st.n_steps;
    totals[1] += st.n_preemptions;
    totals[4] += st.prefix_hits;
    totals[9] += st.n_guesses;
    totals[10] += st.n_right;
}

static void one_world(uint64_t seed)
{
    struct world *w = xcalloc(1, sizeof *w);
    w->seed = seed;
    w->crowded = chance(w, 35);
    draw_groups(w);
    w->conf = draw_conf(w, chance(w, 20) ? 5 : 1000);
    if (w->crowded) {
        w->conf.n_blocks = w->groups.n * draw(w, 8, 12);
        w->conf.n_slots = draw(w, 4, 12);
    }
    w->most_blocks = w->conf.n_blocks;
    w->n_requests = draw(w, 1, MAX_REQUESTS);
    for (int32_t i = 0; i < w->n_requests; i++) draw_request(w, i);
    w->s = crd_sched_open(&w->conf, on_event, w);
    w->f = fake_replica_open(&w->conf);
    run(w);
    check_end(w);
    fake_replica_close(w->f);
    crd_sched_close(w->s);
    free(w);
}

static uint64_t first_seed = 1, n_worlds = 1500, seed_now;

/* Also called when an ASSERT of the scheduler aborts. */
static int tell_seed(void **state)
{
    (void)state;
    if (seed_now)
        fprintf(stderr, "failed at seed %llu: run test_sched_random %llu\n",
                (unsigned long long)seed_now, (unsigned long long)seed_now);
    return 0;
}
static void on_abort(int sig)
{
    (void)sig;
    tell_seed(NULL);
}

static void every_request_comes_to_what_it_would_alone(void **state)
{
    (void)state;
    print_message("%llu worlds from seed %llu on\n", (unsigned long long)n_worlds,
                  (unsigned long long)first_seed);
    for (uint64_t seed = first_seed; seed < first_seed + n_worlds; seed++) {
        seed_now = seed;
        one_world(seed);
    }
    seed_now = 0;
    print_message("%llu steps, %llu preemptions, %llu restarts, %llu cancels, %llu tokens from the "
                  "prefix cache, %llu finishes, "
                  "%llu by length, %llu without blocks, %llu vectors, %llu guesses, %llu right\n",
                  (unsigned long long)totals[0], (unsigned long long)totals[1],
                  (unsigned long long)totals[2], (unsigned long long)totals[3],
                  (unsigned long long)totals[4], (unsigned long long)totals[5],
                  (unsigned long long)totals[6], (unsigned long long)totals[7],
                  (unsigned long long)totals[8], (unsigned long long)totals[9], (unsigned long long)totals[10]);
    assert_true(n_worlds < 100 || (totals[8] > 100 && totals[10] > 1000 && totals[9] > totals[10] + 100));
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--bench")) return bench_sched();
    if (argc > 1)
        first_seed = strtoull(argv[1], NULL, 10),
        n_worlds = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    signal(SIGABRT, on_abort);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_request_comes_to_what_it_would_alone)};
    return cmocka_run_group_tests(tests, NULL, tell_seed);
}
