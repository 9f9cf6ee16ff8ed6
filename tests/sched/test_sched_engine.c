/* The scheduler over the real engine: requests crowded into a small pool, cut in chunks, preempted,
 * resumed, sharing prefixes, over several stages with steps in flight, generate the ids that each
 * generates alone; of models with windows as well, whose pool holds no whole sequence. */
#include "coordinator/sched/scheduler.h"
#include "tests/support/local_replica.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"
#include "tests/support/sequence.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N_REQUESTS = 28, N_POOLED = 6, D_MODEL = 64, MAX_N = 3, MAX_OUT = 48, MAX_PROMPT = 90, VOCAB = 300, CONTEXT = 160 };

struct result {
    int32_t ids[MAX_OUT], n;
    float pooled[D_MODEL];
    float logprobs[MAX_OUT];
    struct { int32_t id, rank, top; float logprob, top_logprob; } scores[MAX_PROMPT];
    int32_t n_scores;
    enum seq_finish finish;
    bool done;
};
struct outcome {
    struct result r[N_REQUESTS][MAX_N];
};

struct run {
    struct outcome *out;
    struct sched_stats stats;
};

static char model_path[512];

/* Without windows, with some, with nothing else. */
static const struct random_model models[] = {
    {.arch = "llama", .n_layer = 2},
    {.arch = "gemma3", .n_layer = 6, .window = 20},
    {.arch = "llama", .n_layer = 2, .window = 37},
    {.arch = "cohere2", .n_layer = 4, .window = 9},
};

static struct kv_groups groups_of(void)
{
    struct model_info info;
    if (eng_engine_model_info(model_path, &info)) fail_msg("%s", err_text());
    return kv_groups_of_model(&info, CONTEXT);
}

static void write_model(size_t i)
{
    struct random_model m = models[i];
    m.d_model = D_MODEL, m.n_head = 4, m.n_kv_head = 2, m.d_ffn = 128, m.vocab = VOCAB, m.context = 256, m.tied = true, m.seed = 5;
    m.type = m.embd_type = DTYPE_F32;
    if (strcmp(m.arch, "llama")) m.head_dim = 32;
    snprintf(model_path, sizeof model_path, "%s", scratch_path("sched.gguf"));
    if (random_model_write(&m, model_path)) fail_msg("%s", err_text());
}

static void on_event(void *user, const struct token_event *e)
{
    struct result *r = &((struct outcome *)user)->r[e->request - 1][e->choice];
    assert_false(r->done);
    if (e->kind == EVENT_TOKEN) {
        r->logprobs[r->n] = e->token->logprob;
        r->ids[r->n++] = e->token->id;
    }
    for (int32_t i = 0; e->kind == EVENT_SCORES && i < e->n_scores; i++) {
        const struct result_score *s = &e->scores[i];
        assert_int_equal(r->n, 0);
        r->scores[r->n_scores].id = s->id;
        r->scores[r->n_scores].rank = s->rank;
        r->scores[r->n_scores].logprob = s->logprob;
        r->scores[r->n_scores].top = s->top[0].id;
        r->scores[r->n_scores++].top_logprob = s->top[0].logprob;
    }
    if (e->kind == EVENT_POOLED) {
        assert_int_equal(e->n_pooled, D_MODEL);
        memcpy(r->pooled, e->pooled, sizeof r->pooled);
    }
    if (e->kind != EVENT_FINISH) return;
    assert_int_equal(e->err, OK);
    r->finish = e->finish;
    r->done = true;
}

/* What else there is; arrays live on. */
static void more_sampling(int32_t i, struct sampling *p)
{
    static int32_t bad[] = {1, 40, 2, 41, 42, 1, 7}, allowed[200];
    static char breakers[] = "\1a\2bc";
    for (int32_t k = 0; k < 200; k++) allowed[k] = k;
    if (i % 7 == 1) p->typical_p = 0.6f;
    if (i % 7 == 2) p->xtc_probability = 0.7f, p->xtc_threshold = 0.004f;
    if (i % 7 == 3) {
        p->dry_multiplier = 0.8f;
        p->dry_allowed_length = 1;
        p->dry_last_n = i % 2 ? -1 : 20;
        p->breakers = breakers;
        p->n_breakers = sizeof breakers - 1;
    }
    if (i % 7 == 4) p->bad = bad, p->n_bad = COUNT_OF(bad);
    if (i % 7 == 5) p->allowed = allowed, p->n_allowed = COUNT_OF(allowed), p->penalty_last_n = 9;
    if (i % 7 == 6) {
        p->think_budget = 6;
        p->thinking = true;
        p->n_think_close = 2;
        p->think_close[0] = 60, p->think_close[1] = 62;
    }
    if (i % 4 == 0) p->n_logprobs = 2;
    if (i % 3 == 0 || i % 4 == 1) p->n_prompt_logprobs = 1;
}

/* Request i: greedy or seeded, with or without penalties, some with stop ids that do come, some
 * with several choices; some kept to a grammar; of the last ones the hidden states are pooled. */
static struct gen_request make_request(int32_t i, int32_t prompt[MAX_PROMPT])
{
    struct gen_request r = {.id = (uint64_t)i + 1,
                            .tenant = (uint64_t)i % 3,
                            .weight = 1,
                            .n = i % 5 == 4 ? MAX_N : 1,
                            .prompt = prompt,
                            .n_prompt = 5 + i * 37 % (MAX_PROMPT - 5),
                            .sampling = sampling_default()};
    for (int32_t k = 0; k < r.n_prompt; k++)
        prompt[k] = (int32_t)(rng_at(i % 2 && k < 40 ? 77 : (uint64_t)i, (uint64_t)k, 0, 0) % 256);
    r.sampling.temperature = i % 3 ? 1.0f : 0.0f;
    r.sampling.seed = (uint64_t)i * 11;
    r.sampling.max_tokens = 20 + i * 13 % (MAX_OUT - 20);
    if (i % 4 == 1) r.sampling.frequency_penalty = 0.7f;
    if (i % 4 == 2) r.sampling.repetition_penalty = 1.3f;
    if (i % 2)
        for (int32_t k = 0; k < 12; k++) r.sampling.stop_ids[r.sampling.n_stop_ids++] = 3 + 25 * k;
    if (i % 3 == 1) {
        static const char list[] = "[a-z]{2,9}(, [a-z ]{2,9})*";
        r.grammar = (struct grammar_source){
            .kind = i % 2 ? GRAMMAR_REGEX : GRAMMAR_JSON, .n = i % 2 ? sizeof list - 1 : 0, .text = list};
        r.grammar.hash = grammar_hash(&r.grammar);
    }
    more_sampling(i, &r.sampling);
    if (i < N_REQUESTS - N_POOLED) return r;
    r.n = 1;
    r.sampling.n_prompt_logprobs = -1;
    r.grammar.kind = GRAMMAR_NONE;
    r.pool = i % 2 ? POOL_MEAN : POOL_LAST;
    return r;
}

static void submit_all(struct crd_sched *s)
{
    for (int32_t i = 0; i < N_REQUESTS; i++) {
        int32_t prompt[MAX_PROMPT];
        struct gen_request r = make_request(i, prompt);
        if (crd_sched_submit(s, &r, 0)) fail_msg("%s", err_text());
    }
}

static void receive(struct crd_sched *s, struct local_replica *r)
{
    struct arena a = {0};
    struct step_result res;
    if (local_replica_recv(r, &a, &res)) fail_msg("%s", err_text());
    if (crd_sched_on_result(s, &res, 0)) fail_msg("%s", err_text());
    arena_free(&a);
}

static void turn(struct crd_sched *s, struct local_replica *r)
{
    while (!crd_sched_idle(s)) {
        struct arena a = {0};
        struct step_plan p;
        while (crd_sched_step(s, 0, &a, &p)) local_replica_send(r, &p);
        receive(s, r);
        arena_free(&a);
    }
}

struct long_answer {
    const int32_t *ids; /* as they should be */
    int32_t *n;
};

static void on_long(void *user, const struct token_event *e)
{
    struct long_answer *a = user;
    if (e->kind == EVENT_FINISH) assert_int_equal(e->err, OK);
    if (e->kind == EVENT_TOKEN) assert_int_equal(e->token->id, a->ids[(*a->n)++]);
}

static void run(struct sched_conf c, int32_t tp, struct outcome *out, struct sched_stats *stats)
{
    const struct local_replica_conf rc = {.path = model_path,
                                          .tp = tp,
                                          .pp = c.n_stages,
                                          .context = c.context,
                                          .n_blocks = c.n_blocks,
                                          .exact_blocks = true,
                                          .n_slots = c.n_slots,
                                          .max_step_tokens = c.max_step_tokens};
    struct local_replica *r = NULL;
    memset(out, 0, sizeof *out);
    if (local_replica_open(&r, &rc)) fail_msg("%s", err_text());
    struct crd_sched *s = crd_sched_open(&c, on_event, out);
    submit_all(s);
    turn(s, r);
    crd_sched_stats(s, stats);
    crd_sched_close(s);
    local_replica_close(r);
}

/* Blocks for the longest request and so many rows more. */
static int32_t pool_of(const struct kv_groups *k, int32_t rows)
{
    return (int32_t)kv_groups_need(k, MAX_PROMPT + MAX_OUT) + rows * k->n;
}

static struct sched_conf alone(void)
{
    const struct kv_groups k = groups_of();
    return (struct sched_conf){.epoch = 1,
                               .groups = k,
                               .n_blocks = CONTEXT / LIMIT_BLOCK_TOKENS * k.n,
                               .n_slots = 1,
                               .n_stages = 1,
                               .depth = 1,
                               .max_step_tokens = CONTEXT,
                               .context = CONTEXT,
                               .max_waiting = 100};
}

static void check_model(bool windows)
{
    static struct outcome want, got;
    struct sched_stats st;
    run(alone(), 1, &want, &st);
    int32_t stopped = 0;
    for (int32_t i = 0; i < N_REQUESTS; i++) stopped += want.r[i][0].finish == FINISH_STOP;
    if (!windows) assert_true(stopped > 1);
    for (int32_t i = 0; i < N_REQUESTS; i++) {
        int32_t prompt[MAX_PROMPT];
        struct gen_request r = make_request(i, prompt);
        assert_int_equal(want.r[i][0].n_scores,
                         r.sampling.n_prompt_logprobs >= 0 ? r.n_prompt - 1 : 0);
        for (int32_t k = 0; k < want.r[i][0].n_scores; k++)
            assert_int_equal(want.r[i][0].scores[k].id, prompt[k + 1]);
        for (int32_t c = 1; c < MAX_N; c++) assert_int_equal(want.r[i][c].n_scores, 0);
    }
    const struct {
        int32_t tp, stages, depth, rows, slots, budget, guesses;
        bool prefix;
    } cases[] = {
        {1, 1, 2, 55, 8, 64, 0, true},  {1, 1, 5, 3, 6, 23, 7, true}, {1, 1, 3, 2, 8, 7, 0, false}, {2, 1, 2, 5, 8, 40, 5, true},
        {1, 2, 3, 3, 8, 33, 0, true}, {1, 2, 6, 7, 6, 9, 3, false}, {2, 2, 4, 4, 16, 64, 7, true}, {1, 1, 2, 40, 3, 64, 7, true},
    };
    uint64_t n_right = 0;
    for (size_t k = 0; k < COUNT_OF(cases); k++) {
        struct sched_conf c = alone();
        c.n_stages = cases[k].stages;
        c.depth = cases[k].depth;
        c.n_blocks = pool_of(&c.groups, windows ? cases[k].rows / 2 : cases[k].rows);
        c.n_slots = cases[k].slots;
        c.max_step_tokens = cases[k].budget;
        c.prefix_cache = cases[k].prefix;
        c.max_guesses = cases[k].guesses;
        c.guess_rows = 16;
        run(c, cases[k].tp, &got, &st);
        print_message("tp %d, %d stages, depth %d, %d blocks: %llu steps, %llu preemptions, %llu "
                      "tokens from the prefix cache, %llu of %llu guesses right\n",
                      cases[k].tp, c.n_stages, c.depth, c.n_blocks, (unsigned long long)st.n_steps,
                      (unsigned long long)st.n_preemptions, (unsigned long long)st.prefix_hits, (unsigned long long)st.n_right,
                      (unsigned long long)st.n_guesses);
        n_right += st.n_right;
        assert_memory_equal(&want, &got, sizeof want);
    }
    assert_true(n_right > 0);
}

static void requests_together_generate_what_each_does_alone(void **state)
{
    (void)state;
    write_model(0);
    check_model(false);
}

static void windows_are_all_that_such_requests_need(void **state)
{
    (void)state;
    for (size_t i = 1; i < COUNT_OF(models); i++) {
        write_model(i);
        print_message("%s, window %d\n", models[i].arch, models[i].window);
        check_model(true);
    }
}

/* What plans without any scheduler give, each table whole: nothing is ever dropped. */
static void generate_whole(const int32_t *prompt, int32_t n_prompt, int32_t n_gen, int32_t *out)
{
    struct local_replica *r;
    const struct local_replica_conf c = {.path = model_path, .context = CONTEXT};
    struct sequence q = {.prompt = prompt, .n_prompt = n_prompt, .n_gen = n_gen, .sampling = sampling_default()};
    q.sampling.temperature = 0;
    q.sampling.max_tokens = n_gen;
    if (local_replica_open(&r, &c) || sequence_run(r, &q, 1, false)) fail_msg("%s", err_text());
    memcpy(out, q.tokens + n_prompt, (size_t)n_gen * sizeof *out);
    sequence_free(&q);
    local_replica_close(r);
}

/* Far past the window, in a pool that could not hold half of it. */
static void what_is_dropped_is_never_missed(void **state)
{
    enum { PROMPT = 70, OUT = CONTEXT - PROMPT };
    (void)state;
    uint64_t n_right = 0;
    for (size_t i = 1; i < COUNT_OF(models); i++) {
        int32_t prompt[PROMPT], want[OUT], n = 0;
        for (int32_t k = 0; k < PROMPT; k++) prompt[k] = (k * 37 + 5) % 256;
        write_model(i);
        generate_whole(prompt, PROMPT, OUT, want);
        struct sched_conf c = alone();
        c.n_blocks = (int32_t)kv_groups_need(&c.groups, CONTEXT);
        assert_true(c.n_blocks < CONTEXT / LIMIT_BLOCK_TOKENS * c.groups.n);
        c.max_step_tokens = 48;
        c.depth = 3;
        c.max_guesses = 7;
        c.guess_rows = 8;
        struct gen_request q = {.id = 1, .weight = 1, .n = 1, .prompt = prompt, .n_prompt = PROMPT, .sampling = sampling_default()};
        q.sampling.temperature = 0;
        q.sampling.max_tokens = OUT;
        const struct local_replica_conf rc = {.path = model_path, .context = CONTEXT, .n_blocks = c.n_blocks, .exact_blocks = true, .n_slots = 1,
                                              .max_step_tokens = 48};
        struct local_replica *r = NULL;
        struct crd_sched *s = crd_sched_open(&c, on_long, (struct long_answer[]){{.ids = want, .n = &n}});
        if (local_replica_open(&r, &rc) || crd_sched_submit(s, &q, 0)) fail_msg("%s", err_text());
        turn(s, r);
        assert_int_equal(n, OUT);
        struct sched_stats st;
        crd_sched_stats(s, &st);
        n_right += st.n_right;
        crd_sched_close(s);
        local_replica_close(r);
    }
    assert_true(n_right > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_together_generate_what_each_does_alone),
        cmocka_unit_test(windows_are_all_that_such_requests_need),
        cmocka_unit_test(what_is_dropped_is_never_missed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
