/* replay: an answer read again, or on, by another connection, over a real socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "coordinator/api/access.h"
#include "coordinator/api/api.h"
#include "coordinator/api/frames.h"
#include "coordinator/api/keys.h"
#include "coordinator/api/replay.h"
#include "tests/api/support.h"
#include "tests/gateway/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct test_api t;
static struct gw *gw;

static void start(int64_t keep_us, int64_t max_bytes)
{
    struct gw_conf conf = {.host = "127.0.0.1",
                           .max_body = 1 << 20,
                           .header_timeout_s = 5,
                           .idle_timeout_s = 30,
                           .ping_ms = 100,
                           .max_connections = 64,
                           .alarm = crd_api_alarm};
    struct crd_replay_conf rc = {.keep_us = keep_us, .max_bytes = max_bytes};
    test_api_open(&t, 2);
    t.api.replay = crd_replay_open(&rc);
    assert_int_equal(gw_open(&gw, &conf, crd_api_routes, crd_api_n_routes, crd_api_fallback,
                             crd_access_gate, &t.api), OK);
}

static void stop(void)
{
    gw_close(gw);
    crd_replay_close(t.api.replay);
    test_api_close(&t);
}

#define CHAT "/v1/chat/completions"
#define ASK  "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true}"
#define SHORT(n) "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true,\"max_tokens\":" n "}"

/* Ask as request `id`; the whole body. */
static char *ask(const char *id, const char *more, const char *body)
{
    struct client c;
    struct answer a;
    char headers[256];
    snprintf(headers, sizeof headers, "X-Request-Id: %s\r\n%s", id, more);
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", CHAT, headers, body);
    client_answer(&c, &a);
    assert_int_equal(a.status, 200);
    char *all = buf_take(&a.body);
    answer_free(&a);
    client_close(&c);
    return all;
}

static int read_again(const char *method, const char *path, const char *headers, char **body)
{
    struct client c;
    struct answer a;
    client_open(&c, gw_port(gw));
    client_request(&c, method, path, headers, NULL);
    client_answer(&c, &a);
    int status = a.status;
    if (body) *body = buf_take(&a.body);
    answer_free(&a);
    client_close(&c);
    return status;
}

static bool soon(bool (*is)(void))
{
    for (int64_t end = clock_us() + 5000000; clock_us() < end; clock_sleep_us(1000))
        if (is()) return true;
    return false;
}

static void every_position_reads_the_same_rest(void **state)
{
    (void)state;
    start(60000000, 1 << 20);
    test_api_say(&t, "Good morning", 12);
    char *all = ask("abc", "", ASK);
    const char *p = all;
    long n = 0;
    for (; *p; p = strstr(p, "\n\n") + 2, n++) {
        char headers[64], *rest, want[32];
        snprintf(want, sizeof want, "id: %ld\n", n + 1);
        assert_memory_equal(p, want, strlen(want));
        snprintf(headers, sizeof headers, "Last-Event-ID: %ld\r\n", n);
        assert_int_equal(read_again("GET", "/v1/requests/abc/events", headers, &rest), 200);
        assert_string_equal(rest, p);
        free(rest);
    }
    assert_true(n > 12);
    char headers[64], *rest;
    snprintf(headers, sizeof headers, "Last-Event-ID: %ld\r\n", n);
    assert_int_equal(read_again("GET", "/v1/requests/abc/events", headers, NULL), 204);
    assert_int_equal(read_again("GET", "/v1/requests/chatcmpl-abc/events", NULL, &rest), 200);
    assert_string_equal(rest, all); /* by the answer's id, from the beginning */
    free(rest);
    free(all);
    all = ask("doc", "", "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    assert_int_equal(read_again("GET", "/v1/requests/doc/events", NULL, &rest), 200);
    assert_string_equal(rest, all); /* a document as a whole */
    free(rest);
    free(all);
    stop();
}

static void what_is_not_kept_is_said(void **state)
{
    (void)state;
    start(60000000, 1 << 20);
    test_api_say(&t, "abc", 3);
    free(ask("abc", "", ASK));
    assert_int_equal(read_again("GET", "/v1/requests/abd/events", NULL, NULL), 404);
    assert_int_equal(read_again("GET", "/v1/requests/abc/events", "Last-Event-ID: x\r\n", NULL), 400);
    assert_int_equal(read_again("POST", "/v1/requests/abc/events", NULL, NULL), 405);
    assert_int_equal(read_again("GET", "/v1/requests/abc", NULL, NULL), 405);
    assert_int_equal(read_again("DELETE", "/v1/requests/abc", NULL, NULL), 204);
    assert_int_equal(read_again("GET", "/v1/requests/abc/events", NULL, NULL), 404);
    assert_int_equal(crd_replay_bytes(t.api.replay), 0);
    stop();
    start(0, 1 << 20); /* nothing is kept: events are numbered all the same */
    test_api_say(&t, "abc", 3);
    char *all = ask("abc", "", ASK);
    assert_memory_equal(all, "id: 1\ndata: ", 12);
    free(all);
    assert_int_equal(read_again("GET", "/v1/requests/abc/events", NULL, NULL), 404);
    struct client c;
    struct answer a;
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", CHAT, "X-Resumable: true\r\n", ASK);
    client_answer(&c, &a);
    assert_int_equal(a.status, 400);
    assert_non_null(strstr(buf_str(&a.body), "--replay-seconds"));
    answer_free(&a);
    client_close(&c);
    stop();
}

static bool nothing_runs(void) { return !fake_live(t.fake); }

/* A client that lost its connection after a few events reads the rest of what goes on without it. */
static void a_resumable_answer_goes_on_alone(void **state)
{
    struct client c;
    (void)state;
    start(60000000, 1 << 20);
    test_api_say(&t, "The quick brown fox jumps over the lazy dog.", 44);
    char *want = ask("want", "", ASK), *rest;
    test_api_plan(&t, (struct fake_plan){.token_us = 3000});
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", CHAT, "X-Request-Id: wand\r\nX-Resumable: true\r\n", ASK);
    assert_true(client_until(&c, "id: 6\n", 5000));
    client_close(&c);
    assert_int_equal(read_again("GET", "/v1/requests/wand/events", "Last-Event-ID: 5\r\n", &rest), 200);
    const char *from = strstr(want, "id: 6\n"), *last = strstr(want, ",\"timings\"");
    for (const char *w = from, *r = rest; w < last; w++, r++) /* but for the request's name */
        assert_true(*w == *r || (*w == 't' && *r == 'd'));
    assert_int_equal(fake_cancelled(t.fake), 0);
    free(rest);
    free(want);
    /* the same with nobody there until its end */
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", CHAT, "X-Request-Id: solo\r\nX-Resumable: true\r\n", ASK);
    assert_true(client_until(&c, "id: 6\n", 5000));
    client_close(&c);
    assert_true(soon(nothing_runs));
    clock_sleep_us(20000);
    assert_int_equal(read_again("GET", "/v1/requests/solo/events", "Last-Event-ID: 5\r\n", &rest), 200);
    assert_non_null(strstr(rest, "[DONE]"));
    free(rest);
    assert_int_equal(fake_cancelled(t.fake), 0);
    stop();
}

static bool one_cancelled(void) { return fake_cancelled(t.fake) == 1 && !fake_live(t.fake); }
static bool two_cancelled(void) { return fake_cancelled(t.fake) == 2 && !fake_live(t.fake); }

static void who_does_not_come_back_is_cancelled(void **state)
{
    struct client c;
    (void)state;
    start(300000, 1 << 20);
    test_api_say(&t, "abcdefgh", 8);
    test_api_plan(&t, (struct fake_plan){.token_us = 100000});
    client_open(&c, gw_port(gw)); /* has not said that it may come back */
    client_request(&c, "POST", CHAT, NULL, ASK);
    assert_true(client_until(&c, "id: 2\n", 5000));
    client_close(&c);
    assert_true(soon(one_cancelled));
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", CHAT, "X-Resumable: 1\r\nX-Request-Id: r\r\n", ASK);
    assert_true(client_until(&c, "id: 2\n", 5000));
    client_close(&c);
    assert_true(soon(two_cancelled)); /* keep_us have passed */
    assert_int_equal(read_again("GET", "/v1/requests/r/events", NULL, NULL), 404);
    stop();
}

static bool two_live(void) { return fake_live(t.fake) == 2; }
static bool three_live(void) { return fake_live(t.fake) == 3; }
static bool empty(void) { return crd_replay_bytes(t.api.replay) == 0; }

static void it_is_kept_for_its_time_and_within_its_memory(void **state)
{
    (void)state;
    start(200000, 1 << 20);
    test_api_say(&t, "abc", 3);
    free(ask("abc", "", ASK));
    assert_int_equal(read_again("GET", "/v1/requests/abc/events", NULL, NULL), 200);
    assert_true(soon(empty));
    assert_int_equal(read_again("GET", "/v1/requests/abc/events", NULL, NULL), 404);
    stop();
    start(60000000, 20000);
    test_api_say(&t, "0123456789abcdef", 16);
    for (int i = 0; i < 20; i++) {
        char id[16];
        snprintf(id, sizeof id, "n%d", i);
        free(ask(id, "", ASK));
        assert_in_range(crd_replay_bytes(t.api.replay), 1, 20000 + 10000);
    }
    assert_int_equal(read_again("GET", "/v1/requests/n0/events", NULL, NULL), 404);
    assert_int_equal(read_again("GET", "/v1/requests/n19/events", NULL, NULL), 200);
    stop();
    start(60000000, 2000); /* less than one: it still arrives, and is not kept */
    test_api_say(&t, "0123456789abcdef", 16);
    char *all = ask("big", "", ASK);
    json_t *j = stream_assemble(all, ENDPOINT_CHAT);
    assert_non_null(j);
    json_decref(j);
    free(all);
    assert_int_equal(read_again("GET", "/v1/requests/big/events", NULL, NULL), 404);
    assert_true(soon(empty));
    stop();
}

/* A long answer that passes the bound by itself takes no other along: not one that was read to its end, not one under way. */
static void what_passes_the_bound_alone_goes_alone(void **state)
{
    struct client small, other, big;
    char text[400];
    (void)state;
    start(60000000, 40000);
    memset(text, 'x', sizeof text);
    test_api_say(&t, text, sizeof text);
    test_api_plan(&t, (struct fake_plan){.hold = true});
    client_open(&small, gw_port(gw));
    client_request(&small, "POST", CHAT, "X-Request-Id: small\r\n", SHORT("8"));
    client_open(&big, gw_port(gw));
    client_request(&big, "POST", CHAT, "X-Request-Id: big\r\n", ASK);
    client_open(&other, gw_port(gw));
    client_request(&other, "POST", CHAT, "X-Request-Id: other\r\n", SHORT("60"));
    assert_true(soon(three_live));
    fake_release(t.fake);
    assert_true(client_until(&big, "[DONE]", 5000));
    assert_true(client_until(&other, "[DONE]", 5000));
    assert_true(client_until(&small, "[DONE]", 5000));
    client_close(&small);
    client_close(&big);
    client_close(&other);
    assert_true(soon(nothing_runs));
    assert_int_equal(read_again("GET", "/v1/requests/small/events", NULL, NULL), 200);
    assert_int_equal(read_again("GET", "/v1/requests/other/events", NULL, NULL), 200);
    assert_int_equal(read_again("GET", "/v1/requests/big/events", NULL, NULL), 404);
    stop();
}

/* Two that pass it only together: one of them is enough. */
static void only_what_must_go_is_given_up(void **state)
{
    struct client c[2];
    char text[200];
    (void)state;
    start(60000000, 100000);
    memset(text, 'x', sizeof text);
    test_api_say(&t, text, sizeof text);
    test_api_plan(&t, (struct fake_plan){.hold = true});
    for (int i = 0; i < 2; i++) {
        client_open(&c[i], gw_port(gw));
        client_request(&c[i], "POST", CHAT, i ? "X-Request-Id: b\r\n" : "X-Request-Id: a\r\n", ASK);
    }
    assert_true(soon(two_live));
    fake_release(t.fake);
    for (int i = 0; i < 2; i++) {
        assert_true(client_until(&c[i], "[DONE]", 5000));
        client_close(&c[i]);
    }
    assert_true(soon(nothing_runs));
    int a = read_again("GET", "/v1/requests/a/events", NULL, NULL), b = read_again("GET", "/v1/requests/b/events", NULL, NULL);
    assert_true((a == 200 && b == 404) || (a == 404 && b == 200));
    stop();
}

static int vectors(const char *headers)
{
    struct client c;
    struct answer a;
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", "/v1/embeddings", headers, "{\"input\":[\"a\",\"b\"]}");
    client_answer(&c, &a);
    assert_non_null(strstr(buf_str(&a.body), "\"embedding\":"));
    int status = a.status;
    answer_free(&a);
    client_close(&c);
    return status;
}

static void vectors_are_not_kept_unless_asked_for(void **state)
{
    (void)state;
    start(60000000, 1 << 20);
    assert_int_equal(vectors("X-Request-Id: v\r\n"), 200);
    assert_int_equal(read_again("GET", "/v1/requests/v/events", NULL, NULL), 404);
    assert_true(soon(empty));
    assert_int_equal(vectors("X-Request-Id: w\r\nX-Resumable: true\r\n"), 200);
    assert_int_equal(read_again("GET", "/v1/requests/w/events", NULL, NULL), 200);
    stop();
}

static void only_the_key_that_asked_reads_it(void **state)
{
    char path[] = "/tmp/tessera-replay-keys-XXXXXX";
    int fd = mkstemp(path);
    (void)state;
    assert_true(fd >= 0);
    dprintf(fd, "anna one-long-secret\nbert two-long-secret concurrency=1\n");
    close(fd);
    start(60000000, 1 << 20);
    struct crd_keys_conf kc = {.path = path};
    struct crd_keys *keys;
    assert_int_equal(crd_keys_open(&keys, &kc, clock_us()), OK);
    t.api.keys = keys;
    test_api_say(&t, "abc", 3);
    char *all = ask("abc", "Authorization: Bearer two-long-secret\r\n", ASK), *rest;
    free(ask("abd", "Authorization: Bearer two-long-secret\r\n", ASK)); /* its account was closed */
    assert_int_equal(read_again("GET", "/v1/requests/abc/events", "x-api-key: one-long-secret\r\n", NULL), 404);
    assert_int_equal(read_again("DELETE", "/v1/requests/abc", "x-api-key: one-long-secret\r\n", NULL), 404);
    assert_int_equal(read_again("GET", "/v1/requests/abc/events", NULL, NULL), 401);
    assert_int_equal(read_again("GET", "/v1/requests/abc/events", "x-api-key: two-long-secret\r\n", &rest), 200);
    assert_string_equal(rest, all);
    free(rest);
    free(all);
    gw_close(gw);
    crd_replay_close(t.api.replay);
    crd_keys_close(keys);
    test_api_close(&t);
    unlink(path);
}

static void frames_are_found_until_they_are_dropped(void **state)
{
    struct crd_frames f = {0};
    uint64_t at;
    (void)state;
    crd_frames_add(&f, "data: a\n\ndata: b\n\n", 18, true);
    assert_true(crd_frames_find(&f, 1, &at) && at == 0);
    assert_true(crd_frames_find(&f, 2, &at) && at == 15);
    assert_true(crd_frames_find(&f, 3, &at) && at == 30);
    crd_frames_drop(&f);
    assert_false(crd_frames_find(&f, 2, &at));
    assert_true(crd_frames_find(&f, 3, &at) && at == 30);
    crd_frames_add(&f, "event: x\ndata: c\n\n", 18, true);
    assert_true(crd_frames_find(&f, 3, &at) && at == 30);
    assert_string_equal(buf_str(&f.bytes), "id: 3\nevent: x\ndata: c\n\n");
    crd_frames_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_are_found_until_they_are_dropped),
        cmocka_unit_test(every_position_reads_the_same_rest),
        cmocka_unit_test(what_is_not_kept_is_said),
        cmocka_unit_test(a_resumable_answer_goes_on_alone),
        cmocka_unit_test(who_does_not_come_back_is_cancelled),
        cmocka_unit_test(it_is_kept_for_its_time_and_within_its_memory),
        cmocka_unit_test(what_passes_the_bound_alone_goes_alone),
        cmocka_unit_test(only_what_must_go_is_given_up),
        cmocka_unit_test(vectors_are_not_kept_unless_asked_for),
        cmocka_unit_test(only_the_key_that_asked_reads_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
