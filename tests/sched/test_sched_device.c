/* The scheduler over an engine on a device, or over two that share the model, which are told the next step before this one's tokens have come: every result,
 * in order, byte for byte, is the CPU's and that of devices whose steps wait (TESSERA_AHEAD=off). Emulated (tests/cuda_emu), the device also works beside the
 * host, and is the slower of the two by far. */
#include "coordinator/sched/scheduler.h"
#include "tests/support/local_replica.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MAX_PROMPT = 60, VOCAB = 300, CONTEXT = 128, N_REQUESTS = 18, N_PLAIN = 10 };

static const struct random_model models[] = {
    {.arch = "llama", .n_layer = 1},
    {.arch = "llama", .n_layer = 2, .window = 20},
};
static char model_path[512];

static void write_model(size_t i)
{
    struct random_model m = models[i];
    m.d_model = 64, m.n_head = 2, m.n_kv_head = 1, m.head_dim = 32, m.d_ffn = 64, m.vocab = VOCAB, m.context = 256, m.tied = true, m.seed = 5;
    m.type = m.embd_type = DTYPE_Q8_0;
    snprintf(model_path, sizeof model_path, "%s", scratch_path("sched_device.gguf"));
    if (random_model_write(&m, model_path)) fail_msg("%s", err_text());
}

static bool emulated(void) { return strstr(getenv("TESSERA_CUDA_PLUGIN"), "emu"); }

static int32_t below(uint64_t key, uint64_t what, int32_t i, int32_t n) { return (int32_t)(rng_at(key, what, (uint64_t)i, 0) % (uint64_t)n); }

/* Most are plain: the largest logit, draws, among a few too, ends by length, by a stop id that comes, by one that is barred at first. The others need the
 * host. */
static struct gen_request make_request(uint64_t seed, int32_t i, int32_t prompt[MAX_PROMPT])
{
    uint64_t key = seed * 100 + (uint64_t)i;
    struct gen_request r = {.id = (uint64_t)i + 1, .tenant = (uint64_t)i % 3, .weight = 1, .n = i % 7 == 5 ? 2 : 1, .prompt = prompt};
    r.sampling = sampling_default();
    struct sampling *p = &r.sampling;
    r.n_prompt = 1 + below(key, 1, 0, MAX_PROMPT - 1);
    for (int32_t k = 0; k < r.n_prompt; k++) prompt[k] = below(key, 2, k, 256);
    p->temperature = i % 3 ? 0.4f * (float)(i % 3) : 0;
    p->seed = seed + (uint64_t)i;
    p->max_tokens = 2 + below(key, 3, 0, 50);
    if (i % 3 == 2) p->min_p = 0.01f;
    if (i % 6 == 4) p->top_k = 20, p->top_p = 0.95f;
    if (i % 2)
        for (int32_t k = 0; k < 6; k++) p->stop_ids[p->n_stop_ids++] = below(key, 4, k, VOCAB);
    if (i % 4 == 1) p->min_tokens = 5;
    if (i < N_PLAIN) return r;
    if (i % 4 == 0) p->n_logprobs = 2;
    if (i % 4 == 1) p->frequency_penalty = 0.7f;
    if (i % 4 == 2) p->top_p = 0.9f;
    if (i % 4 == 3) p->n_prompt_logprobs = 1;
    return r;
}

/* All results, packed, without what clocks say. */
static void note(struct buf *log, const struct step_result *res)
{
    struct step_result r = *res;
    r.compute_us = r.comm_us = 0;
    r.comm_bytes = 0;
    step_result_pack(&r, log);
}

static void on_event(void *user, const struct token_event *e)
{
    if (e->kind == EVENT_FINISH) assert_int_equal(e->err, OK);
    *(int32_t *)user += e->kind == EVENT_FINISH;
}

enum { ON_CPU, ON_ONE, ON_TWO }; /* devices; of two each rank has one */

struct how {
    int32_t depth, slots, budget, guesses, n_requests;
    uint64_t seed;
};

/* Requests come a few at a time, while others run. failing: what then fails of the device; or NULL. Err: the replica's; what came until then is in the
 * log. */
static enum err run(const struct how *h, int32_t devices, const char *failing, struct buf *log, struct eng_engine_info info[])
{
    enum err rc = OK;
    struct model_info model;
    if (eng_engine_model_info(model_path, &model)) fail_msg("%s", err_text());
    const struct kv_groups k = kv_groups_of_model(&model, CONTEXT);
    const struct sched_conf c = {.epoch = 1, .groups = k, .n_blocks = (int32_t)kv_groups_need(&k, CONTEXT) + 14 * k.n, .n_slots = h->slots, .n_stages = 1,
                                 .depth = h->depth, .max_step_tokens = h->budget, .context = CONTEXT, .max_waiting = 100, .prefix_cache = true,
                                 .max_guesses = h->guesses, .guess_rows = 16};
    const struct local_replica_conf rc_of = {.path = model_path, .context = CONTEXT, .n_blocks = c.n_blocks, .exact_blocks = true, .n_slots = h->slots,
                                             .max_step_tokens = h->budget, .tp = MAX(devices, 1), .direct = devices > 1, .on_device = (1u << devices) - 1};
    struct local_replica *r = NULL;
    int32_t n_done = 0, n_sent = 0;
    if (local_replica_open(&r, &rc_of)) fail_msg("%s", err_text());
    if (failing) setenv("CUDA_EMU_FAIL", failing, 1);
    struct crd_sched *s = crd_sched_open(&c, on_event, &n_done);
    for (int32_t n = 0; !rc && (n_sent < h->n_requests || !crd_sched_idle(s)); n++) {
        struct arena a = {0};
        struct step_plan p;
        struct step_result res;
        for (int32_t k2 = 0; k2 < 3 && n % 20 == 0 && n_sent < h->n_requests; k2++) {
            int32_t prompt[MAX_PROMPT];
            struct gen_request q = make_request(h->seed, n_sent++, prompt);
            if (crd_sched_submit(s, &q, 0)) fail_msg("%s", err_text());
        }
        while (crd_sched_step(s, 0, &a, &p)) local_replica_send(r, &p);
        if (crd_sched_idle(s)) continue;
        rc = local_replica_recv(r, &a, &res);
        if (!rc) note(log, &res);
        if (!rc && crd_sched_on_result(s, &res, 0)) fail_msg("%s", err_text());
        arena_free(&a);
    }
    if (!rc) assert_true(n_done >= h->n_requests);
    local_replica_stop(r);
    for (int32_t i = 0; i < MAX(devices, 1); i++) local_replica_info(r, i, &info[i]);
    crd_sched_close(s);
    local_replica_close(r);
    unsetenv("CUDA_EMU_FAIL");
    return rc;
}

enum way { AS_TOLD, WAITING, LATE }; /* LATE: emulated, and what is told is done beside the host */

static void check(const struct how *h, int32_t devices, enum way w, const struct buf *want, int32_t least)
{
    struct buf got = {0};
    struct eng_engine_info info[2];
    if (w == WAITING) setenv("TESSERA_AHEAD", "off", 1);
    if (w == LATE && emulated()) setenv("CUDA_EMU_ASYNC", "1", 1);
    enum err e = run(h, devices, NULL, &got, info);
    unsetenv("TESSERA_AHEAD");
    unsetenv("CUDA_EMU_ASYNC");
    if (e) fail_msg("%s", err_text());
    assert_int_equal(got.len, want->len);
    assert_memory_equal(got.data, want->data, want->len);
    for (int32_t i = 0; i < devices; i++) {
        printf("seed %llu, depth %d: rank %d of %d began %lld steps ahead\n", (unsigned long long)h->seed, h->depth, i, devices, (long long)info[i].n_ahead);
        if (w == WAITING) assert_int_equal(info[i].n_ahead, 0);
        else assert_true(info[i].n_ahead >= least);
    }
    buf_free(&got);
}

static int32_t n_devices(void)
{
    struct plugin_device_info info[2];
    char why[PLUGIN_TEXT];
    int32_t n;
    eng_backend_devices(info, 2, &n, why);
    return n;
}

static void results_are_those_of_steps_that_wait(void **state)
{
    static const struct { size_t model; struct how how; int32_t least; bool every_way, two; } cases[] = {
        {0, {2, 8, 64, 0, N_REQUESTS, 1}, 1, true, true},
        {0, {3, 40, 70, 0, N_PLAIN, 4}, 30, false, true},
        {0, {5, 16, 40, 7, N_REQUESTS, 3}, 1, false, false},
        {1, {3, 6, 23, 0, N_REQUESTS, 2}, 10, false, true},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct buf want = {0};
        struct eng_engine_info info;
        write_model(cases[i].model);
        if (run(&cases[i].how, ON_CPU, NULL, &want, &info)) fail_msg("%s", err_text());
        assert_int_equal(info.n_ahead, 0);
        for (int w = cases[i].every_way ? AS_TOLD : LATE; w <= LATE; w++) check(&cases[i].how, ON_ONE, (enum way)w, &want, cases[i].least);
        if (cases[i].two && n_devices() > 1) check(&cases[i].how, ON_TWO, LATE, &want, cases[i].least);
        buf_free(&want);
    }
}

/* What fails on the device is found when its step ends, with the next one begun: the replica fails then, and what it answered before was right. */
static void a_failure_is_found_with_the_next_step_begun(void **state)
{
    static const struct how h = {3, 8, 64, 0, 3, 6};
    struct buf want = {0};
    struct eng_engine_info info;
    (void)state;
    if (!emulated()) skip();
    write_model(0);
    if (run(&h, ON_ONE, NULL, &want, &info)) fail_msg("%s", err_text());
    setenv("CUDA_EMU_ASYNC", "1", 1);
    for (int32_t n = 250; n < 800; n += 151) {
        struct buf got = {0};
        char order[32];
        snprintf(order, sizeof order, "launch:%d", n);
        enum err e = run(&h, ON_ONE, order, &got, &info);
        assert_int_equal(e, ERR_SYSTEM);
        assert_non_null(strstr(err_text(), "unspecified launch failure"));
        assert_true(info.n_ahead > 0 && got.len > 0 && got.len < want.len);
        assert_memory_equal(got.data, want.data, got.len);
        buf_free(&got);
    }
    unsetenv("CUDA_EMU_ASYNC");
    buf_free(&want);
}

int main(void)
{
    struct plugin_device_info info;
    char why[PLUGIN_TEXT];
    int32_t n;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_are_those_of_steps_that_wait),
        cmocka_unit_test(a_failure_is_found_with_the_next_step_begun),
    };
    eng_backend_devices(&info, 1, &n, why);
    if (!n) printf("SKIP: %s\n", why);
    return n ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
