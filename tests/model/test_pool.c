/* pool: pooled hidden states are the same bits whatever the cut, the stages, the threads, the chunking, the neighbours and the instruction
 * set; and they are what pool.h says. */
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"
#include "tests/support/sequence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N_SEQ = 4, LONGEST = 41 };

struct variant {
    int32_t tp, pp, threads, chunk;
    bool together;
    const char *isa;
};
static const struct variant plain = {1, 1, 1, 0, false, "auto"};
static const struct variant variants[] = {
    {1, 1, 2, 0, false, "auto"}, {1, 1, 1, 5, false, "auto"}, {1, 1, 1, 1, true, "auto"}, {1, 1, 2, 16, true, "auto"},
    {2, 1, 1, 0, true, "auto"},  {3, 1, 1, 9, true, "auto"},  {4, 1, 1, 0, true, "auto"}, {1, 2, 1, 7, true, "auto"},
    {2, 2, 2, 3, true, "auto"},  {1, 1, 1, 0, true, "avx2"},  {1, 1, 2, 4, true, "ref"},  {2, 1, 1, 11, true, "ref"},
};

static const char *a_model(void)
{
    struct random_model m = {.arch = "qwen3", .n_layer = 3, .d_model = 96, .n_head = 8, .n_kv_head = 4, .head_dim = 32, .d_ffn = 544,
                             .vocab = 300, .tied = true, .type = DTYPE_Q8_0, .embd_type = DTYPE_Q8_0, .seed = 5};
    const char *path = scratch_path("pooled.gguf");
    if (random_model_write(&m, path)) fail_msg("%s", err_text());
    return path;
}

static struct local_replica *open_it(const char *path, const struct variant *v)
{
    struct local_replica *r;
    struct local_replica_conf c = {.path = path, .tp = v->tp, .pp = v->pp, .n_threads = v->threads, .isa = v->isa, .context = 64, .n_blocks = 24,
                                   .max_step_tokens = 192};
    enum err e = local_replica_open(&r, &c);
    if (e == ERR_UNSUPPORTED || e == ERR_BAD_CONFIG) return NULL;
    if (e) fail_msg("%s", err_text());
    return r;
}

static void prompt_of(int32_t i, int32_t prompt[LONGEST])
{
    for (int32_t k = 0; k < LONGEST; k++) prompt[k] = (k * 31 + i * 17 + 3) % 250;
}

/* All of them last, or all of them mean; false: not on this machine. */
static bool run(const char *path, const struct variant *v, enum step_pool pool, struct sequence s[N_SEQ], int32_t prompts[N_SEQ][LONGEST])
{
    static const int32_t lengths[N_SEQ] = {1, 7, LONGEST, 18};
    struct local_replica *r = open_it(path, v);
    enum err e = OK;
    if (!r) return false;
    for (int32_t i = 0; i < N_SEQ; i++) {
        prompt_of(i, prompts[i]);
        s[i] = (struct sequence){.prompt = prompts[i], .n_prompt = lengths[i], .chunk = v->chunk, .pool = pool, .sampling = sampling_default()};
    }
    if (v->together) e = sequence_run(r, s, N_SEQ, false);
    for (int32_t i = 0; i < N_SEQ && !v->together && !e; i++) e = sequence_run(r, &s[i], 1, false);
    if (e) fail_msg("%s", err_text());
    local_replica_close(r);
    return true;
}

static void free_all(struct sequence s[N_SEQ])
{
    for (int32_t i = 0; i < N_SEQ; i++) sequence_free(&s[i]);
}

static void every_cut(const char *path, int32_t d)
{
    int32_t pb[N_SEQ][LONGEST], ps[N_SEQ][LONGEST], n = 0;
    for (enum step_pool pool = POOL_LAST; pool <= POOL_MEAN; pool++) {
        struct sequence base[N_SEQ], s[N_SEQ];
        assert_true(run(path, &plain, pool, base, pb));
        for (size_t v = 0; v < COUNT_OF(variants); v++) {
            if (!run(path, &variants[v], pool, s, ps)) continue;
            for (int32_t i = 0; i < N_SEQ; i++) {
                assert_int_equal(s[i].n_pooled, d);
                if (memcmp(s[i].pooled, base[i].pooled, (size_t)d * sizeof(float)))
                    fail_msg("%s, variant %zu: sequence %d has another vector", pool == POOL_LAST ? "last" : "mean", v, i);
            }
            free_all(s);
            n++;
        }
        free_all(base);
    }
    assert_true(n >= 16);
}

static void the_cut_does_not_show(void **state)
{
    (void)state;
    every_cut(a_model(), 96);
    every_cut("deploy/models/tessera-demo-q8_0.gguf", 128);
}

/* The vector of the last token of every prefix is the hidden state of that position; their sum in order, divided, is the mean. */
static void a_mean_is_the_chain_of_the_hidden_states(void **state)
{
    (void)state;
    struct local_replica *r = open_it(a_model(), &plain);
    float sum[96] = {0};
    int32_t prompt[LONGEST];
    prompt_of(2, prompt);
    for (int32_t n = 1; n <= LONGEST; n++) {
        struct sequence s = {.prompt = prompt, .n_prompt = n, .pool = POOL_LAST, .sampling = sampling_default()};
        if (sequence_run(r, &s, 1, false)) fail_msg("%s", err_text());
        for (int32_t i = 0; i < 96; i++) sum[i] += s.pooled[i];
        sequence_free(&s);
    }
    struct sequence mean = {.prompt = prompt, .n_prompt = LONGEST, .chunk = 6, .pool = POOL_MEAN, .sampling = sampling_default()};
    if (sequence_run(r, &mean, 1, false)) fail_msg("%s", err_text());
    for (int32_t i = 0; i < 96; i++) {
        float want = sum[i] / (float)LONGEST;
        assert_memory_equal(&mean.pooled[i], &want, sizeof want);
    }
    sequence_free(&mean);
    local_replica_close(r);
}

/* A plan that pools what it may not is refused, and says why. */
static void contradictions_are_refused(void **state)
{
    (void)state;
    static const struct { enum step_pool pool; int32_t n_prompt, pos; const char *says; } bad[] = {
        {POOL_NONE, 4, 0, "was not started so"},
        {POOL_MEAN, 8, 4, "the next is 0"},
        {POOL_LAST, 3, 0, "the prompt has 3"},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct local_replica *r = open_it(a_model(), &plain);
        struct arena a = {0};
        struct step_result res;
        struct step_in in[4] = {{.id = 1}, {.id = 2}, {.id = 3}, {.id = 4}};
        struct step_start start = {.sampling = sampling_default(), .seq_id = 1, .n_prompt = bad[i].n_prompt, .pool = bad[i].pool};
        struct step_table table = {.n = 1, .ids = (int32_t[]){3}};
        struct step_item item = {.pos = bad[i].pos, .n_in = 4, .out = OUT_POOL, .in = in};
        struct step_plan p = {.epoch = 1, .step = 1, .n_starts = 1, .starts = &start, .n_tables = 1, .tables = &table, .n_items = 1, .items = &item};
        assert_int_equal(local_replica_step(r, &p, &a, &res), ERR_LINK_PROTOCOL);
        assert_non_null(strstr(err_text(), bad[i].says));
        arena_free(&a);
        local_replica_close(r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cut_does_not_show),
        cmocka_unit_test(a_mean_is_the_chain_of_the_hidden_states),
        cmocka_unit_test(contradictions_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
