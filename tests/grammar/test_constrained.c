/* test_constrained.c: whole replicas kept to grammars: the text is the same whatever the cut, it is
 * of the grammar, and it ends in time. */
#include "tests/grammar/support.h"

#include "base/rng.h"
#include "engine/mask_ahead.h"
#include "engine/model_text.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"
#include "tests/support/sequence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 4, TOKENS = 90, PROMPT = 12 };

static const char SCHEMA[] =
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":12},\"n\":{"
    "\"type\":\"integer\","
    "\"minimum\":1,\"maximum\":500},\"tags\":{\"type\":\"array\",\"items\":{\"enum\":[\"a\",\"bc\"]"
    "},\"maxItems\":3}},"
    "\"required\":[\"name\",\"n\",\"tags\"],\"additionalProperties\":false}";

static char model[512];
static int32_t prompt[PROMPT];

static struct grammar_source grammar_of(int i)
{
    static const struct {
        enum grammar_kind kind;
        const char *text;
    } all[N] = {{GRAMMAR_SCHEMA, SCHEMA},
                {GRAMMAR_REGEX, "[a-z]{3,8}( [a-z]{3,8})*\\."},
                {GRAMMAR_JSON_OBJECT, ""},
                {GRAMMAR_CHOICE, "[\"yes\",\"no\",\"perhaps\"]"}};
    struct grammar_source g = source_of(all[i].kind, i == 0 ? GRAMMAR_COMPACT : 0, all[i].text);
    g.hash = grammar_hash(&g);
    return g;
}

static void ask(struct sequence s[N], float temperature, bool more)
{
    for (int i = 0; i < N; i++) {
        s[i] = (struct sequence){.prompt = prompt,
                                 .n_prompt = PROMPT,
                                 .n_gen = TOKENS,
                                 .sampling = sampling_default(),
                                 .grammar = grammar_of(i)};
        s[i].sampling.temperature = temperature;
        s[i].sampling.seed = 11;
        s[i].sampling.max_tokens = TOKENS;
        s[i].sampling.stop_ids[s[i].sampling.n_stop_ids++] = 256;
        if (!more) continue;
        s[i].sampling.repetition_penalty = 1.2f;
        s[i].sampling.n_logprobs = 2;
        s[i].sampling.top_p = 0.9f;
        s[i].sampling.min_tokens = 4;
    }
}

static struct local_replica *replica(int32_t tp, int32_t pp)
{
    struct local_replica_conf conf = {.path = model, .tp = tp, .pp = pp};
    struct local_replica *r;
    if (local_replica_open(&r, &conf)) fail_msg("%s", err_text());
    return r;
}

static void run(struct local_replica *r, struct sequence s[], int32_t n)
{
    if (sequence_run(r, s, n, false)) fail_msg("%s", err_text());
}

/* How many tokens were generated: all, or as far as the end. */
static int32_t length(const struct sequence *s)
{
    for (int32_t i = 0; i < s->n_gen; i++)
        if (s->tokens[s->n_prompt + i] == 256 || s->tokens[s->n_prompt + i] == 258) return i + 1;
    return s->n_gen;
}

static void text_of(const struct sequence *s, struct buf *out)
{
    struct eng_model_file *f;
    struct eng_tokenizer *t;
    assert_int_equal(eng_model_file_open(&f, model), OK);
    assert_int_equal(eng_model_tokenizer(&t, f), OK);
    for (int32_t i = 0; i < length(s); i++)
        eng_tokenizer_piece(t, s->tokens[s->n_prompt + i], false, out);
    eng_tokenizer_close(t);
    eng_model_file_close(f);
}

static void free_all(struct sequence s[N])
{
    for (int i = 0; i < N; i++) sequence_free(&s[i]);
}

static void a_text_is_of_its_grammar_and_ends_in_time(void **state)
{
    (void)state;
    struct local_replica *r = replica(1, 1);
    for (int hot = 0; hot < 2; hot++) {
        struct sequence s[N];
        ask(s, (float)hot, hot);
        run(r, s, N);
        for (int i = 0; i < N; i++) {
            struct buf text = {0};
            struct grammar_source g = grammar_of(i);
            text_of(&s[i], &text);
            struct eng_grammar *c = compile(g.kind, g.flags, g.text, NULL);
            if (!holds(c, buf_str(&text), text.len))
                fail_msg("grammar %d: '%s'", i, buf_str(&text));
            assert_true(length(&s[i]) < TOKENS || s[i].tokens[PROMPT + TOKENS - 1] == 256);
            eng_grammar_close(c);
            buf_free(&text);
        }
        free_all(s);
    }
    local_replica_close(r);
}

/* Guesses at what it will say: every fifth is wrong. */
static void guess(const struct sequence first[N], struct sequence s[N], int32_t likely[N][TOKENS], int32_t draft)
{
    for (int i = 0; i < N; i++) {
        for (int32_t k = 0; k < TOKENS; k++) likely[i][k] = k % 5 ? first[i].tokens[PROMPT + k] : 97;
        s[i].likely = likely[i];
        s[i].draft = draft;
    }
}

static void the_text_is_the_same_whatever_the_cut_and_the_guesses(void **state)
{
    (void)state;
    static const int32_t cuts[][3] = {{2, 1, 0}, {1, 2, 0}, {2, 2, 3}, {1, 1, 7}};
    int32_t likely[N][TOKENS];
    struct local_replica *r = replica(1, 1);
    for (int more = 0; more < 2; more++) {
        struct sequence first[N], s[N];
        ask(first, 1, more);
        run(r, first, N);
        for (size_t c = 0; c < COUNT_OF(cuts); c++) {
            struct local_replica *other = replica(cuts[c][0], cuts[c][1]);
            ask(s, 1, more);
            guess(first, s, likely, cuts[c][2]);
            run(other, s, N);
            for (int i = 0; i < N; i++) {
                assert_memory_equal(s[i].tokens, first[i].tokens,
                                    (PROMPT + (size_t)length(&first[i])) * sizeof(int32_t));
                for (int32_t k = 0; more && k < length(&first[i]); k++)
                    assert_true(s[i].chosen[k].logprob == first[i].chosen[k].logprob);
            }
            free_all(s);
            local_replica_close(other);
        }
        free_all(first);
    }
    local_replica_close(r);
}

static void a_resumed_sequence_goes_on_where_its_grammar_was(void **state)
{
    (void)state;
    for (int more = 0; more < 2; more++) {
        struct local_replica *r = replica(1, 1);
        struct sequence s[N];
        ask(s, 1, more);
        run(r, s, N);
        for (int i = 0; i < N; i++) {
            int32_t n = length(&s[i]), half = n / 2;
            struct sequence rest = s[i];
            rest.prompt = s[i].tokens;
            rest.n_prompt = PROMPT + half;
            rest.n_before = half;
            rest.n_gen = n - half;
            run(r, &rest, 1);
            assert_memory_equal(rest.tokens, s[i].tokens, (size_t)(PROMPT + n) * sizeof(int32_t));
            sequence_free(&rest);
        }
        free_all(s);
        local_replica_close(r);
    }
}

static void logprobs_are_of_the_raw_logits(void **state)
{
    (void)state;
    struct local_replica *r = replica(1, 1);
    struct sequence s = {.prompt = prompt,
                         .n_prompt = PROMPT,
                         .n_gen = 1,
                         .sampling = sampling_default(),
                         .grammar = grammar_of(3)},
                    free_one;
    s.sampling.temperature = 0;
    s.sampling.n_logprobs = 1;
    free_one = s;
    free_one.grammar = (struct grammar_source){0};
    run(r, &s, 1);
    run(r, &free_one, 1);
    assert_int_equal(s.chosen[0].top[0].id, free_one.chosen[0].id);
    assert_true(s.chosen[0].top[0].logprob == free_one.chosen[0].logprob);
    assert_true(s.chosen[0].logprob <= free_one.chosen[0].logprob);
    sequence_free(&s);
    sequence_free(&free_one);
    local_replica_close(r);
}

static void a_mask_computed_ahead_is_the_same(void **state)
{
    (void)state;
    struct eng_model_file *f;
    struct eng_constraints *c[2];
    struct eng_mask_ahead *ahead = eng_mask_ahead_open(N);
    const struct sampling p = sampling_default();
    bool forced;
    assert_int_equal(eng_model_file_open(&f, model), OK);
    for (int k = 0; k < 2; k++) c[k] = eng_constraints_open(f, 320);
    for (int round = 0; round < 20; round++) {
        struct eng_constraint *s[2][N];
        for (int i = 0; i < N; i++) {
            struct grammar_source g = grammar_of(i);
            for (int k = 0; k < 2; k++) assert_int_equal(eng_constraint_open(&s[k][i], c[k], &g, NULL, 0), OK);
            if (round == 0) assert_false(eng_constraint_ready(s[0][i]));
            eng_mask_ahead_add(ahead, s[0][i]);
        }
        eng_mask_ahead_add(ahead, NULL);
        eng_mask_ahead_start(ahead);
        eng_mask_ahead_settle(ahead);
        for (int i = 0; i < N; i++) {
            uint64_t want[320 / 64 + 1];
            assert_true(eng_constraint_ready(s[0][i]));
            memcpy(want, eng_constraint_mask(s[1][i], &p, &forced), sizeof want);
            assert_memory_equal(eng_constraint_mask(s[0][i], &p, &forced), want, sizeof want);
            eng_constraint_close(s[0][i]);
            eng_constraint_close(s[1][i]);
        }
    }
    eng_mask_ahead_close(ahead);
    for (int k = 0; k < 2; k++) eng_constraints_close(c[k]);
    eng_model_file_close(f);
}

static void what_does_not_compile_breaks_no_rank(void **state)
{
    (void)state;
    struct local_replica *r = replica(1, 1);
    struct sequence s = {.prompt = prompt,
                         .n_prompt = PROMPT,
                         .n_gen = 1,
                         .sampling = sampling_default(),
                         .grammar = source_of(GRAMMAR_REGEX, 0, "(")};
    assert_int_equal(sequence_run(r, &s, 1, false), ERR_LINK_PROTOCOL);
    sequence_free(&s);
    local_replica_close(r);
}

static int make(void **state)
{
    (void)state;
    struct random_model m = {.arch = "llama",
                             .n_layer = 4,
                             .d_model = 64,
                             .n_head = 4,
                             .n_kv_head = 2,
                             .d_ffn = 128,
                             .vocab = 320,
                             .type = DTYPE_F32,
                             .embd_type = DTYPE_F32,
                             .seed = 5};
    snprintf(model, sizeof model, "%s", scratch_path("constrained.gguf"));
    for (int i = 0; i < PROMPT; i++) prompt[i] = (int32_t)(rng_at(1, (uint64_t)i, 0, 0) % 250);
    return random_model_write(&m, model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_is_of_its_grammar_and_ends_in_time),
        cmocka_unit_test(the_text_is_the_same_whatever_the_cut_and_the_guesses),
        cmocka_unit_test(a_resumed_sequence_goes_on_where_its_grammar_was),
        cmocka_unit_test(logprobs_are_of_the_raw_logits),
        cmocka_unit_test(a_mask_computed_ahead_is_the_same),
        cmocka_unit_test(what_does_not_compile_breaks_no_rank),
    };
    return cmocka_run_group_tests(tests, make, NULL);
}
