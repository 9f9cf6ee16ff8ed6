/* Every way to choose, through whole replicas: the same ids, log-probabilities and scores of the prompt, bit for bit, whatever the cut, the
 * chunks, the neighbours, and when a sequence is taken up again by its known tokens. */
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"
#include "tests/support/sequence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N_SEQ = 15, N_GEN = 24, PROMPT = 37 };

static char model[512];
static int32_t prompt[PROMPT];

static void make(struct sequence s[N_SEQ])
{
    static int32_t bad[] = {1, 40, 2, 41, 42, 1, 7}, allowed[90];
    static char breakers[] = "\1a\2bc";
    static struct logit_bias bias[] = {{5, 3}, {70, -100}};
    for (int32_t i = 0; i < 90; i++) allowed[i] = 3 * i;
    for (int32_t i = 0; i < N_SEQ; i++) {
        s[i] = (struct sequence){.prompt = prompt, .n_prompt = PROMPT - i, .n_gen = N_GEN, .sampling = sampling_default()};
        s[i].sampling.seed = 77 + (uint64_t)i;
        s[i].sampling.max_tokens = N_GEN;
        s[i].sampling.n_logprobs = i % 4;
        s[i].sampling.n_prompt_logprobs = i % 5 - 1;
    }
    s[0].sampling.typical_p = 0.5f;
    s[1].sampling.typical_p = 0.8f, s[1].sampling.top_k = 50, s[1].sampling.top_p = 0.9f;
    s[2].sampling.xtc_probability = 0.8f, s[2].sampling.xtc_threshold = 0.003f;
    s[3].sampling.xtc_probability = 0.5f, s[3].sampling.xtc_threshold = 0.01f, s[3].sampling.top_k = 30;
    for (int32_t i = 4; i < 6; i++) {
        s[i].sampling.dry_multiplier = 2, s[i].sampling.dry_allowed_length = i - 4, s[i].sampling.dry_last_n = i == 4 ? -1 : 25;
        s[i].sampling.breakers = breakers, s[i].sampling.n_breakers = sizeof breakers - 1;
    }
    s[5].sampling.temperature = 0;
    s[6].sampling.bad = bad, s[6].sampling.n_bad = COUNT_OF(bad);
    s[7].sampling.allowed = allowed, s[7].sampling.n_allowed = COUNT_OF(allowed), s[7].sampling.temperature = 0;
    s[8].sampling.repetition_penalty = 1.4f, s[8].sampling.presence_penalty = 0.5f, s[8].sampling.penalty_last_n = 7;
    s[9].sampling.bias = bias, s[9].sampling.n_bias = 2, s[9].sampling.min_p = 0.05f;
    s[10].sampling.think_budget = 5, s[10].sampling.thinking = true, s[10].sampling.n_think_close = 2;
    s[10].sampling.think_close[0] = 60, s[10].sampling.think_close[1] = 62;
    s[12].sampling.temperature = 0;
    s[14].sampling.n_logprobs = -1, s[14].sampling.top_k = 12, s[14].sampling.top_p = 0.9f;
    s[12].sampling.n_logprobs = s[13].sampling.n_logprobs = -1; /* found by slices of the vocabulary */
    s[11].sampling.min_tokens = 20, s[11].sampling.n_stop_ids = 2, s[11].sampling.stop_ids[0] = 30, s[11].sampling.stop_ids[1] = 31;
}

static struct local_replica *replica(int32_t tp, int32_t pp, const char *isa)
{
    struct local_replica *r;
    const struct local_replica_conf conf = {.path = model, .tp = tp, .pp = pp, .isa = isa};
    if (local_replica_open(&r, &conf)) fail_msg("%s", err_text());
    return r;
}

static void run(struct local_replica *r, struct sequence *s, int32_t n, int32_t chunk)
{
    for (int32_t i = 0; i < n; i++) s[i].chunk = chunk;
    if (sequence_run(r, s, n, false)) fail_msg("%s", err_text());
}

static void same(const char *what, int32_t i, const struct sequence *a, const struct sequence *b)
{
    if (memcmp(a->tokens, b->tokens, (size_t)(a->n_prompt + a->n_gen) * sizeof(int32_t))) fail_msg("%s: sequence %d has other ids", what, i);
    if (memcmp(a->chosen, b->chosen, (size_t)a->n_gen * sizeof *a->chosen)) fail_msg("%s: sequence %d has other log-probabilities", what, i);
    assert_int_equal(a->n_scores, b->n_scores);
    if (memcmp(a->scores, b->scores, (size_t)a->n_scores * sizeof *a->scores)) fail_msg("%s: sequence %d has other scores", what, i);
}

static void free_all(struct sequence s[N_SEQ])
{
    for (int32_t i = 0; i < N_SEQ; i++) sequence_free(&s[i]);
}

static void nothing_shows_in_what_is_chosen(void **state)
{
    (void)state;
    static const struct { const char *what; int32_t tp, pp, chunk; bool together; const char *isa; } variants[] = {
        {"together", 1, 1, 0, true, "auto"},           {"together, chunks of 5", 1, 1, 5, true, "auto"},
        {"tp 2, chunks of 1", 2, 1, 1, true, "auto"},  {"tp 3", 3, 1, 0, false, "auto"},
        {"pp 2, chunks of 16", 1, 2, 16, true, "auto"}, {"tp 2 x pp 2", 2, 2, 0, true, "auto"},
        {"ref", 1, 1, 0, true, "ref"},
    };
    struct sequence first[N_SEQ], s[N_SEQ];
    struct local_replica *r = replica(1, 1, "auto");
    make(first);
    for (int32_t i = 0; i < N_SEQ; i++) {
        run(r, &first[i], 1, 0);
        int32_t want = first[i].sampling.n_prompt_logprobs < 0 ? 0 : first[i].n_prompt - 1;
        assert_int_equal(first[i].n_scores, want);
        for (int32_t k = 0; k < want; k++) {
            assert_int_equal(first[i].scores[k].id, prompt[k + 1]);
            assert_int_equal(first[i].scores[k].n_top, first[i].sampling.n_prompt_logprobs);
            assert_true(first[i].scores[k].logprob <= 0 && first[i].scores[k].rank >= 1);
        }
    }
    local_replica_close(r);
    for (size_t v = 0; v < COUNT_OF(variants); v++) {
        r = replica(variants[v].tp, variants[v].pp, variants[v].isa);
        make(s);
        if (variants[v].together) run(r, s, N_SEQ, variants[v].chunk);
        for (int32_t i = 0; i < N_SEQ && !variants[v].together; i++) run(r, &s[i], 1, variants[v].chunk);
        for (int32_t i = 0; i < N_SEQ; i++) same(variants[v].what, i, &first[i], &s[i]);
        local_replica_close(r);
        free_all(s);
    }
    free_all(first);
}

/* Three of four guesses are right; the last of each four is not. */
static void guess(const struct sequence first[N_SEQ], struct sequence s[N_SEQ], int32_t likely[N_SEQ][N_GEN], int32_t draft)
{
    for (int32_t i = 0; i < N_SEQ; i++) {
        for (int32_t k = 0; k < N_GEN; k++) likely[i][k] = (first[i].tokens[first[i].n_prompt + k] + (k % 4 == 3)) % 320;
        s[i].likely = likely[i];
        s[i].draft = draft;
    }
}

static void guesses_do_not_show(void **state)
{
    (void)state;
    static const struct { const char *what; int32_t tp, pp, draft; bool together; const char *isa; } variants[] = {
        {"7 guesses", 1, 1, 7, false, "auto"}, {"3 guesses, together", 1, 1, 3, true, "auto"}, {"1 guess, tp 2", 2, 1, 1, true, "auto"},
        {"7 guesses, tp 3", 3, 1, 7, false, "auto"}, {"5 guesses, pp 2", 1, 2, 5, true, "auto"}, {"4 guesses, tp 2 x pp 2", 2, 2, 4, true, "auto"},
        {"7 guesses, ref", 1, 1, 7, true, "ref"},
    };
    int32_t likely[N_SEQ][N_GEN], n_right = 0;
    struct sequence first[N_SEQ], s[N_SEQ];
    struct local_replica *r = replica(1, 1, "auto");
    make(first);
    run(r, first, N_SEQ, 0);
    local_replica_close(r);
    for (size_t v = 0; v < COUNT_OF(variants); v++) {
        r = replica(variants[v].tp, variants[v].pp, variants[v].isa);
        make(s);
        guess(first, s, likely, variants[v].draft);
        if (variants[v].together) run(r, s, N_SEQ, 0);
        for (int32_t i = 0; i < N_SEQ && !variants[v].together; i++) run(r, &s[i], 1, 0);
        for (int32_t i = 0; i < N_SEQ; i++) {
            same(variants[v].what, i, &first[i], &s[i]);
            assert_int_equal(s[i].n_steps + s[i].n_right, s[i].n_made);
            assert_int_equal(s[i].n_made, first[i].n_made);
            n_right += s[i].n_right;
        }
        local_replica_close(r);
        free_all(s);
    }
    assert_true(n_right > N_SEQ * N_GEN);
    free_all(first);
}

static void a_sequence_taken_up_again_goes_on_the_same(void **state)
{
    (void)state;
    struct sequence s[N_SEQ];
    struct local_replica *r = replica(1, 1, "auto");
    make(s);
    run(r, s, N_SEQ, 0);
    for (int32_t i = 0; i < N_SEQ; i++) {
        struct sequence rest = s[i];
        rest.prompt = s[i].tokens;
        rest.n_before = N_GEN / 2;
        rest.n_prompt = s[i].n_prompt + N_GEN / 2;
        rest.n_gen = N_GEN - N_GEN / 2;
        rest.sampling.n_prompt_logprobs = -1;
        run(r, &rest, 1, 7);
        assert_memory_equal(rest.tokens, s[i].tokens, (size_t)(s[i].n_prompt + N_GEN) * sizeof(int32_t));
        assert_memory_equal(rest.chosen, s[i].chosen + N_GEN / 2, (size_t)rest.n_gen * sizeof *rest.chosen);
        sequence_free(&rest);
    }
    free_all(s);
    local_replica_close(r);
}

static bool holds(const struct sequence *s, int32_t id)
{
    for (int32_t i = 0; i < N_GEN; i++)
        if (s->tokens[s->n_prompt + i] == id) return true;
    return false;
}

static void what_is_barred_does_not_come(void **state)
{
    (void)state;
    struct sequence s[N_SEQ];
    struct local_replica *r = replica(1, 1, "auto");
    make(s);
    run(r, s, N_SEQ, 0);
    assert_false(holds(&s[6], 40) || holds(&s[6], 7));
    for (int32_t i = 0; i < N_GEN; i++) assert_int_equal(s[7].tokens[s[7].n_prompt + i] % 3, 0);
    assert_false(holds(&s[9], 70));
    assert_true(s[10].tokens[s[10].n_prompt + 5] == 60 && s[10].tokens[s[10].n_prompt + 6] == 62);
    free_all(s);
    local_replica_close(r);
}

static int write_model(void **state)
{
    (void)state;
    const struct random_model m = {.arch = "llama", .n_layer = 4, .d_model = 96, .n_head = 6, .n_kv_head = 3, .d_ffn = 192, .vocab = 320,
                                   .type = DTYPE_F32, .embd_type = DTYPE_F32, .seed = 9};
    for (int32_t i = 0; i < PROMPT; i++) prompt[i] = (i * 37 + 5) % 250;
    snprintf(model, sizeof model, "%s", scratch_path("sampling.gguf"));
    return random_model_write(&m, model) ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_shows_in_what_is_chosen),
                                       cmocka_unit_test(guesses_do_not_show),
                                       cmocka_unit_test(a_sequence_taken_up_again_goes_on_the_same),
                                       cmocka_unit_test(what_is_barred_does_not_come)};
    return cmocka_run_group_tests(tests, write_model, NULL);
}
