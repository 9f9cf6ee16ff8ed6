/* test_step_codec.c: step plans and results survive the wire, and nothing that is not one gets in.
 */
#include "base/clock.h"
#include "tests/proto/random_plan.h"
#include "tests/support/env.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct step_bounds bounds = {
    .n_slots = 64, .n_groups = 2, .n_blocks = 500, .n_vocab = 1000, .context = 2048, .n_adapters = 3};
static uint64_t seed;

static enum err unpack_exact(const void *data, size_t n, struct step_plan *p, struct arena *a)
{
    /* a heap copy of exactly n bytes, so that a sanitizer sees any read past the end */
    void *copy = malloc(n ? n : 1);
    memcpy(copy, data, n);
    enum err rc = step_plan_unpack(p, copy, n, &bounds, a);
    free(copy);
    return rc;
}

static enum err unpack_exact_result(const void *data, size_t n, struct step_result *r,
                                    struct arena *a)
{
    void *copy = malloc(n ? n : 1);
    memcpy(copy, data, n);
    enum err rc = step_result_unpack(r, copy, n, a);
    free(copy);
    return rc;
}

static void plan_round_trip(void **state)
{
    (void)state;
    struct dice d = {seed, 0};
    for (int i = 0; i < 2000; i++) {
        struct arena a = {0};
        struct buf b = {0};
        struct step_plan p = random_plan(&d, &bounds, i % 20, &a), q;
        step_plan_pack(&p, &b);
        assert_int_equal(unpack_exact(b.data, b.len, &q, &a), OK);
        assert_true(plan_equal(&p, &q));
        buf_free(&b);
        arena_free(&a);
    }
}

static void result_round_trip(void **state)
{
    (void)state;
    struct dice d = {seed ^ 1, 0};
    for (int i = 0; i < 2000; i++) {
        struct arena a = {0};
        struct buf b = {0};
        struct step_result r = random_result(&d, i % 20, &a), s;
        step_result_pack(&r, &b);
        assert_int_equal(unpack_exact_result(b.data, b.len, &s, &a), OK);
        assert_true(result_equal(&r, &s));
        buf_free(&b);
        arena_free(&a);
    }
}

static void truncation_at_every_byte_is_refused(void **state)
{
    (void)state;
    struct dice d = {seed ^ 2, 0};
    struct arena a = {0}, b = {0};
    struct buf plan = {0}, result = {0};
    struct step_plan p = random_plan(&d, &bounds, 4, &a), q;
    struct step_result r = random_result(&d, 4, &a), s;
    step_plan_pack(&p, &plan);
    step_result_pack(&r, &result);
    for (size_t n = 0; n < plan.len; n++) {
        assert_int_equal(unpack_exact(plan.data, n, &q, &b), ERR_LINK_PROTOCOL);
        assert_non_null(strstr(err_text(), "step plan: "));
        arena_free(&b);
    }
    for (size_t n = 0; n < result.len; n++) {
        assert_int_equal(unpack_exact_result(result.data, n, &s, &b), ERR_LINK_PROTOCOL);
        assert_non_null(strstr(err_text(), "step result: "));
        arena_free(&b);
    }
    buf_u8(&plan, 0);
    buf_u8(&result, 0);
    assert_int_equal(unpack_exact(plan.data, plan.len, &q, &b), ERR_LINK_PROTOCOL);
    assert_non_null(strstr(err_text(), "1 bytes follow the last record"));
    assert_int_equal(unpack_exact_result(result.data, result.len, &s, &b), ERR_LINK_PROTOCOL);
    buf_free(&plan);
    buf_free(&result);
    arena_free(&a);
    arena_free(&b);
}

/* What unpack accepts lies inside the bounds, whatever the bits. */
static void assert_inside(const struct step_plan *p)
{
    assert_true(step_plan_tokens(p) <= LIMIT_STEP_TOKENS);
    for (int32_t i = 0; i < p->n_ends; i++) assert_in_range(p->ends[i].slot, 0, bounds.n_slots - 1);
    for (int32_t i = 0; i < p->n_starts; i++) {
        const struct step_start *s = &p->starts[i];
        assert_in_range(s->slot, 0, bounds.n_slots - 1);
        assert_in_range(s->sampling.n_stop_ids, 0, LIMIT_STOP_IDS);
        for (int32_t j = 0; j < s->n_history; j++)
            assert_in_range(s->history[j], 0, bounds.n_vocab - 1);
        for (int32_t j = 0; j < s->sampling.n_bias; j++)
            assert_in_range(s->sampling.bias[j].id, 0, bounds.n_vocab - 1);
    }
    for (int32_t i = 0; i < p->n_tables; i++)
        for (int32_t j = 0; j < p->tables[i].n; j++)
            assert_in_range(p->tables[i].ids[j], 0, bounds.n_blocks - 1);
    for (int32_t i = 0; i < p->n_items; i++) {
        const struct step_item *it = &p->items[i];
        assert_in_range(it->slot, 0, bounds.n_slots - 1);
        for (int32_t j = 0; j < i; j++) assert_int_not_equal(it->slot, p->items[j].slot);
        assert_in_range(it->pos + it->n_in, 1, bounds.context);
        for (int32_t j = 0; j < it->n_in; j++) {
            assert_true(it->in[j].id < bounds.n_vocab);
            assert_in_range(it->in[j].ref_slot, 0, bounds.n_slots - 1);
        }
    }
}

static void flipped_bits_are_refused_or_harmless(void **state)
{
    (void)state;
    struct dice d = {seed ^ 3, 0};
    struct arena a = {0}, b = {0};
    struct buf plan = {0}, result = {0};
    struct step_plan p = random_plan(&d, &bounds, 5, &a), q;
    struct step_result r = random_result(&d, 5, &a), s;
    step_plan_pack(&p, &plan);
    step_result_pack(&r, &result);
    for (size_t bit = 0; bit < plan.len * 8; bit++) {
        plan.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (unpack_exact(plan.data, plan.len, &q, &b) == OK) assert_inside(&q);
        plan.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        arena_free(&b);
    }
    for (size_t bit = 0; bit < result.len * 8; bit++) {
        result.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        (void)!unpack_exact_result(result.data, result.len, &s, &b);
        result.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        arena_free(&b);
    }
    buf_free(&plan);
    buf_free(&result);
    arena_free(&a);
}

static void refused(const struct step_plan *p, const char *sentence)
{
    struct arena a = {0};
    struct buf b = {0};
    struct step_plan q;
    step_plan_pack(p, &b);
    assert_int_equal(unpack_exact(b.data, b.len, &q, &a), ERR_LINK_PROTOCOL);
    assert_string_equal(err_text(), sentence);
    buf_free(&b);
    arena_free(&a);
}

static void refusals_name_record_and_value(void **state)
{
    (void)state;
    int32_t block = 500, token = 1000;
    struct step_in ahead = {.id = -1, .ref_step = 3, .ref_slot = 0}, in = {.id = 7};
    struct step_end end = {64};
    struct step_table table = {.slot = 1, .group = 0, .first = 0, .n = 1, .ids = &block};
    struct step_table far = {.slot = 1, .group = 0, .first = 128, .n = 1, .ids = &block};
    struct step_item item = {.slot = 0, .pos = 2048, .n_in = 1, .in = &in};
    struct step_item fine = {.slot = 0, .pos = 0, .n_in = 1, .in = &in};
    struct step_item item_ahead = {.slot = 0, .pos = 1, .n_in = 1, .in = &ahead};
    struct step_start start = {.slot = 0,
                               .sampling = sampling_default(),
                               .n_prompt = 1,
                               .n_history = 1,
                               .history = &token};
    struct step_fork fork = {.src = 3, .dst = 3};
    refused(&(struct step_plan){.step = 0, .n_items = 1, .items = &fine},
            "step plan: header: step is 0, the first is 1");
    refused(&(struct step_plan){.step = 1, .flags = 8},
            "step plan: header: flags has unknown bits 0x8");
    refused(&(struct step_plan){.step = 1, .n_ends = 1, .ends = &end},
            "step plan: end 0: slot is 64, needed 0..63");
    refused(&(struct step_plan){.step = 1, .n_tables = 1, .tables = &table},
            "step plan: table 0: block is 500, needed 0..499");
    refused(&(struct step_plan){.step = 1, .n_tables = 1, .tables = &far},
            "step plan: table 0: n is 1, needed 0..0");
    refused(&(struct step_plan){.step = 1, .n_items = 1, .items = &item},
            "step plan: item 0: pos is 2048, needed 0..2047");
    struct step_in guesses[2] = {in, in}, unknown[2] = {ahead, in};
    struct step_item guessed = {.out = OUT_SAMPLE | OUT_DRAFT, .n_draft = 2, .n_in = 2, .in = guesses};
    refused(&(struct step_plan){.step = 1, .n_items = 1, .items = &guessed}, "step plan: item 0: n_in is 2, and all of them are guesses");
    guessed.n_draft = 8;
    refused(&(struct step_plan){.step = 1, .n_items = 1, .items = &guessed}, "step plan: item 0: n_draft is 8, needed 1..7");
    guessed.n_draft = 1, guessed.out |= OUT_LOGITS;
    refused(&(struct step_plan){.step = 1, .n_items = 1, .items = &guessed},
            "step plan: item 0: guesses go with a sampled token and nothing else; out is 19");
    guessed.out = OUT_SAMPLE | OUT_DRAFT, guessed.in = unknown;
    refused(&(struct step_plan){.step = 5, .n_items = 1, .items = &guessed}, "step plan: item 0: input 0 is not known, though guesses follow");
    refused(&(struct step_plan){.step = 3, .n_items = 1, .items = &item_ahead},
            "step plan: item 0: input 0 is the output of step 3, needed one before 3");
    struct step_item twice[3] = {fine, fine, fine};
    twice[0].slot = twice[2].slot = 63;
    refused(&(struct step_plan){.step = 1, .n_items = 3, .items = twice}, "step plan: item 2: slot 63 is named by two items");
    refused(&(struct step_plan){.step = 1, .n_starts = 1, .starts = &start},
            "step plan: start 0: history token is 1000, needed 0..999");
    refused(&(struct step_plan){.step = 1, .n_forks = 1, .forks = &fork},
            "step plan: fork 0: src and dst are both slot 3");
    start.sampling.top_p = 0;
    refused(&(struct step_plan){.step = 1, .n_starts = 1, .starts = &start},
            "step plan: start 0: top_p is 0, needed 1.17549e-38..1");
}

static void a_count_never_allocates_more_than_the_bytes_that_came(void **state)
{
    (void)state;
    struct buf b = {0};
    struct arena a = {0};
    struct step_plan p;
    struct step_result r;
    step_plan_pack(&(struct step_plan){.step = 1}, &b);
    for (size_t at = 22; at < b.len; at += 4) { /* each of the six counts */
        b.data[at] = 40;
        assert_int_equal(unpack_exact(b.data, b.len, &p, &a), ERR_LINK_PROTOCOL);
        assert_null(a.head);
        b.data[at] = 0;
    }
    buf_clear(&b);
    step_result_pack(&(struct step_result){.step = 1, .n_vocab = INT32_MAX}, &b);
    b.data[b.len - 4] = 1;
    assert_int_equal(unpack_exact_result(b.data, b.len, &r, &a), ERR_LINK_PROTOCOL);
    assert_null(a.head);
    buf_free(&b);
}

static void a_plan_of_flags_alone_needs_no_step(void **state)
{
    (void)state;
    struct buf b = {0};
    struct arena a = {0};
    struct step_plan p;
    step_plan_pack(&(struct step_plan){.epoch = 4, .flags = STEP_SLEEP}, &b);
    assert_int_equal(unpack_exact(b.data, b.len, &p, &a), OK);
    assert_true(p.epoch == 4 && p.step == 0 && p.flags == STEP_SLEEP);
    buf_free(&b);
}

static void a_decode_step_is_small(void **state)
{
    (void)state;
    struct buf b = {0};
    struct step_in in[4];
    struct step_item items[4];
    for (int i = 0; i < 4; i++) {
        in[i] = (struct step_in){.id = -1, .ref_step = 8, .ref_slot = i};
        items[i] =
            (struct step_item){.slot = i, .pos = 100, .n_in = 1, .out = OUT_SAMPLE, .in = &in[i]};
    }
    step_plan_pack(&(struct step_plan){.step = 9, .n_items = 4, .items = items}, &b);
    assert_true(b.len < 200);
    buf_free(&b);
}

int main(void)
{
    seed = test_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_round_trip),
        cmocka_unit_test(result_round_trip),
        cmocka_unit_test(truncation_at_every_byte_is_refused),
        cmocka_unit_test(flipped_bits_are_refused_or_harmless),
        cmocka_unit_test(refusals_name_record_and_value),
        cmocka_unit_test(a_count_never_allocates_more_than_the_bytes_that_came),
        cmocka_unit_test(a_plan_of_flags_alone_needs_no_step),
        cmocka_unit_test(a_decode_step_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
