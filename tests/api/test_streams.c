/* streams: how answers travel: whole and in pieces alike, early ends, late errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "tests/api/support.h"
#include "tests/support/env.h"

#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct test_api t;

static int setup(void **state)
{
    (void)state;
    test_api_open(&t, 2);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_api_close(&t);
    return 0;
}

static void usage_rides_where_asked(void **state)
{
    struct outcome o;
    (void)state;
    test_api_say(&t, "ab", 2);
    test_api_run(&t, ENDPOINT_CHAT,
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],\"stream\":true}", &o);
    assert_null(strstr(buf_str(&o.bytes), "usage"));
    assert_non_null(strstr(buf_str(&o.bytes), "\"timings\""));
    outcome_free(&o);
    test_api_run(&t, ENDPOINT_CHAT,
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],\"stream\":true,"
                 "\"stream_options\":{\"include_usage\":true}}",
                 &o);
    assert_non_null(strstr(buf_str(&o.bytes), "\"usage\":null"));
    assert_non_null(strstr(buf_str(&o.bytes), "\"choices\":[],\"usage\":{"));
    outcome_free(&o);
    test_api_run(&t, ENDPOINT_CHAT,
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],\"stream\":true,"
                 "\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}}",
                 &o);
    assert_null(strstr(buf_str(&o.bytes), "\"usage\":null"));
    assert_non_null(strstr(buf_str(&o.bytes), "\"completion_tokens\":1,"));
    outcome_free(&o);
}

static void refusals_of_the_cluster_become_statuses(void **state)
{
    static const struct {
        enum err err;
        int status, retry;
    } cases[] = {{ERR_QUEUE_FULL, 503, 1},
                 {ERR_UNAVAILABLE, 503, 5},
                 {ERR_TOO_LONG, 400, 0},
                 {ERR_NO_MEMORY, 500, 0}};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct outcome o;
        test_api_plan(&t, (struct fake_plan){.refuse = cases[i].err, .refusal = "because"});
        test_api_run(&t, ENDPOINT_COMPLETIONS, "{\"prompt\":[\"a\",\"b\"],\"stream\":true}", &o);
        assert_int_equal(o.status, cases[i].status);
        assert_int_equal(o.retry_after, cases[i].retry);
        assert_false(o.streaming);
        json_t *j = json_loads(buf_str(&o.bytes), 0, NULL);
        assert_string_equal(json_str(json_object_get(j, "error"), "message"), "because");
        json_decref(j);
        outcome_free(&o);
    }
}

static void an_error_after_the_first_byte_is_an_event(void **state)
{
    (void)state;
    test_api_say(&t, "abcdef", 6);
    test_api_plan(&t, (struct fake_plan){.fail_after = 3});
    json_t *a = test_api_ask(&t, ENDPOINT_CHAT, test_chat, ",\"stream\":true", 200);
    assert_string_equal(answer_content(a, 0), "abc");
    assert_string_equal(json_str(json_object_get(a, "error"), "message"),
                        "rank 1 stopped answering");
    assert_string_equal(json_str(json_object_get(a, "error"), "code"), "service_unavailable");
    json_decref(a);
    a = test_api_ask(&t, ENDPOINT_CHAT, test_chat, "", 503);
    json_decref(a);
}

static void wake(void *user)
{
    sem_post(user);
}

static void closing_early_cancels(void **state)
{
    sem_t woken;
    struct buf out = {0};
    const char *body = "{\"prompt\":[\"a\",\"b\"],\"n\":2}";
    (void)state;
    test_api_plan(&t, (struct fake_plan){.hold = true});
    for (int when = 0; when < 2;
         when++) { /* before the text thread is done, and while it waits for tokens */
        int32_t status = 0;
        sem_init(&woken, 0, 0);
        struct crd_generation *g = crd_generation_open(&t.api, ENDPOINT_COMPLETIONS, body,
                                                       strlen(body), 0, "id", wake, &woken);
        assert_false(crd_generation_run(g, &out, &status));
        if (when) {
            sem_wait(&woken);
            assert_false(crd_generation_run(g, &out, &status));
        }
        crd_generation_close(g);
        int64_t end = clock_us() + 5000000;
        while (fake_cancelled(t.fake) < fake_submitted(t.fake) && clock_us() < end)
            clock_sleep_us(1000);
        assert_int_equal(fake_cancelled(t.fake), fake_submitted(t.fake));
        if (when) assert_true(fake_submitted(t.fake) >= 2);
        sem_destroy(&woken);
    }
    buf_free(&out);
}

static void a_silent_stream_begins_after_a_while(void **state)
{
    sem_t woken;
    struct buf out = {0};
    int32_t status = 0;
    const char *body = "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],\"stream\":true}";
    (void)state;
    test_api_plan(&t, (struct fake_plan){.hold = true});
    sem_init(&woken, 0, 0);
    struct crd_generation *g =
        crd_generation_open(&t.api, ENDPOINT_CHAT, body, strlen(body), 0, NULL, wake, &woken);
    crd_generation_run(g, &out, &status);
    sem_wait(&woken);
    assert_false(crd_generation_run(g, &out, &status));
    assert_int_equal(status, 0);
    clock_sleep_us(1050000);
    assert_false(crd_generation_run(g, &out, &status));
    assert_int_equal(status, 200);
    assert_non_null(strstr(buf_str(&out), "\"role\":\"assistant\""));
    fake_release(t.fake);
    for (bool over = false; !over; over = crd_generation_run(g, &out, &status)) sem_wait(&woken);
    json_t *a = stream_assemble(buf_str(&out), ENDPOINT_CHAT);
    assert_non_null(a);
    json_decref(a);
    crd_generation_close(g);
    sem_destroy(&woken);
    buf_free(&out);
}

/* A whole answer in the shape stream_assemble gives. */
static void flatten(json_t *a)
{
    json_t *c;
    size_t i;
    json_array_foreach(json_object_get(a, "choices"), i, c)
    {
        json_t *m = json_object_get(c, "message");
        if (m) json_object_set(c, "text", json_object_get(m, "content"));
    }
}

static void random_text(uint64_t seed, uint64_t round, struct buf *out)
{
    uint64_t n = 1 + rng_at(seed, round, 1, 0) % 40;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t r = rng_at(seed, round, 2, i);
        static const char *const bits[] = {"a",  "STOP", "ST",       "\xC3\xA9", "\xF0\x9F\x98\x80",
                                           "\n", "\"",   "\xE2\x82", "\xFF",     " "};
        buf_puts(out, bits[r % COUNT_OF(bits)]);
    }
}

static void streamed_and_buffered_say_the_same(void **state)
{
    uint64_t seed = test_seed();
    (void)state;
    for (uint64_t round = 0; round < 300; round++) {
        static const char *const keys[] = {"text", "logprobs", "token_ids", "finish_reason",
                                           "stop_reason"};
        struct buf text = {0}, more = {0};
        enum crd_endpoint ep = rng_at(seed, round, 3, 0) & 1 ? ENDPOINT_CHAT : ENDPOINT_COMPLETIONS;
        const char *format = ep == ENDPOINT_CHAT ? test_chat : "{\"prompt\":[\"one\",\"two\"]%s}";
        random_text(seed, round, &text);
        test_api_say(&t, buf_str(&text), text.len);
        test_api_plan(&t, (struct fake_plan){.jitter = (uint32_t)round + 1, .n_cached = 1});
        buf_printf(&more, ",\"n\":%llu,\"max_tokens\":%llu,\"return_token_ids\":true",
                   1 + (unsigned long long)rng_at(seed, round, 4, 0) % 3,
                   1 + (unsigned long long)rng_at(seed, round, 5, 0) % 60);
        if (rng_at(seed, round, 6, 0) & 1) buf_puts(&more, ",\"stop\":[\"STOP\",\"aa\"]");
        if (rng_at(seed, round, 7, 0) & 1)
            buf_puts(&more, ep == ENDPOINT_CHAT ? ",\"logprobs\":true,\"top_logprobs\":3"
                                                : ",\"logprobs\":3");
        if (ep == ENDPOINT_COMPLETIONS && rng_at(seed, round, 8, 0) & 1)
            buf_puts(&more, ",\"echo\":true");
        json_t *whole = test_api_ask(&t, ep, format, buf_str(&more), 200);
        buf_puts(&more, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
        json_t *stream = test_api_ask(&t, ep, format, buf_str(&more), 200);
        flatten(whole);
        json_t *a = json_object_get(whole, "choices"), *b = json_object_get(stream, "choices");
        assert_int_equal(json_array_size(a), json_array_size(b));
        for (size_t i = 0; i < json_array_size(a) * COUNT_OF(keys); i++) {
            const json_t *x =
                json_object_get(json_array_get(a, i / COUNT_OF(keys)), keys[i % COUNT_OF(keys)]);
            const json_t *y =
                json_object_get(json_array_get(b, i / COUNT_OF(keys)), keys[i % COUNT_OF(keys)]);
            if (!json_equal(x, y))
                printf("round %llu: %s differs\n", (unsigned long long)round,
                       keys[i % COUNT_OF(keys)]);
            assert_true(json_equal(x, y));
        }
        assert_true(json_equal(json_object_get(whole, "usage"), json_object_get(stream, "usage")));
        json_decref(whole);
        json_decref(stream);
        buf_free(&text);
        buf_free(&more);
    }
}

static void it_works_without_text_threads(void **state)
{
    (void)state;
    struct crd_text_pool *pool = t.api.pool;
    t.api.pool = NULL;
    test_api_say(&t, "inline", 6);
    json_t *a = test_api_ask(&t, ENDPOINT_CHAT, test_chat, "", 200);
    assert_string_equal(answer_content(a, 0), "inline");
    json_decref(a);
    t.api.pool = pool;
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(usage_rides_where_asked),
        CASE(refusals_of_the_cluster_become_statuses),
        CASE(an_error_after_the_first_byte_is_an_event),
        CASE(closing_early_cancels),
        CASE(a_silent_stream_begins_after_a_while),
        CASE(streamed_and_buffered_say_the_same),
        CASE(it_works_without_text_threads),
    };
    return cmocka_run_group_tests_name("streams", tests, NULL, NULL);
}
