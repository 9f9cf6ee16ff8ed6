/* recall: a coordinator that comes after one that was killed tells the same answers, event for event, whatever had been written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/api/access.h"
#include "coordinator/api/api.h"
#include "coordinator/api/replay.h"
#include "coordinator/journal/journal.h"
#include "tests/api/support.h"
#include "tests/gateway/client.h"
#include "tests/support/scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static struct test_api t;
static struct gw *gw;
static struct crd_journal *journal;
static const char *path, *with_keys; /* with_keys: a file of API keys, or NULL */

static const char hermes[] = "{%- for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
                             "{%- if tools %}<tool_call>{% endif %}<|im_start|>assistant\n";

static void start(const char *say, bool tools)
{
    struct gw_conf conf = {.host = "127.0.0.1", .max_body = 1 << 20, .header_timeout_s = 5, .idle_timeout_s = 30, .ping_ms = 100,
                           .max_connections = 64, .alarm = crd_api_alarm};
    struct crd_replay_conf rc = {.keep_us = 60000000, .max_bytes = 1 << 20};
    struct crd_journal_conf jc = {.path = path, .fit = 5, .max_bytes = 1 << 20, .sync_us = 1000000, .keep_us = 60000000};
    test_api_open(&t, 1);
    if (tools) test_api_template(&t, hermes);
    test_api_say(&t, say, strlen(say));
    if (crd_journal_open(&journal, &jc)) fail_msg("%s", err_text());
    t.api.replay = crd_replay_open(&rc);
    t.api.journal = journal;
    if (with_keys) assert_int_equal(crd_keys_open(&t.api.keys, &(struct crd_keys_conf){.path = with_keys}, clock_us()), OK);
    crd_replay_recall(&t.api);
    if (crd_journal_run(journal)) fail_msg("%s", err_text());
    assert_int_equal(gw_open(&gw, &conf, crd_api_routes, crd_api_n_routes, crd_api_fallback, crd_access_gate, &t.api), OK);
}

static void stop(void)
{
    gw_close(gw);
    crd_replay_close(t.api.replay);
    while (fake_live(t.fake)) clock_sleep_us(200); /* its last events go by way of the journal */
    crd_journal_close(journal);
    crd_keys_close(t.api.keys);
    t.api.keys = NULL;
    test_api_close(&t);
}

static char *fetch(const char *method, const char *at, const char *headers, const char *body, int want)
{
    struct client c;
    struct answer a;
    client_open(&c, gw_port(gw));
    client_request(&c, method, at, headers, body);
    client_answer(&c, &a);
    if (a.status != want) fail_msg("%s %s: %d %s", method, at, a.status, buf_str(&a.body));
    char *all = buf_take(&a.body);
    answer_free(&a);
    client_close(&c);
    return all;
}

/* Timings are the clock's, of the events after which they stand only. */
static void hide_timings(char *s)
{
    for (char *p = s; (p = strstr(p, "\"timings\":{"));) {
        p += strlen("\"timings\":{");
        char *end = strchr(p, '}');
        memmove(p, end, strlen(end) + 1);
    }
}

struct kind {
    const char *name, *path, *body, *say;
    bool tools, many; /* many: how the events of choices alternate is not promised */
    bool vectors;     /* they are not written down, but computed again */
};

static const struct kind kinds[] = {
    {"chat", "/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true,\"stream_options\":{\"include_usage\":true}}",
     "Good \xc3\xa4 morning", false, false},
    {"logprobs", "/v1/chat/completions",
     "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true,\"logprobs\":true,\"top_logprobs\":3}", "abcdef", false, false},
    {"echo", "/v1/completions", "{\"prompt\":\"abcdefgh\",\"stream\":true,\"echo\":true,\"logprobs\":2,\"max_tokens\":5}", "xyzuvw", false, false},
    {"stop", "/v1/completions", "{\"prompt\":\"abc\",\"stream\":true,\"stop\":[\"STOP\"],\"ignore_eos\":true,\"max_tokens\":30}", "some words STOP more", false,
     false},
    {"document", "/v1/completions", "{\"prompt\":\"abc\",\"max_tokens\":12}", "some words and more", false, false},
    {"tools", "/v1/chat/completions",
     "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true,\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}",
     "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>", true, false},
    {"messages", "/v1/messages", "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true,\"max_tokens\":9}", "Good morning", false, false},
    {"responses", "/v1/responses", "{\"input\":\"hi\",\"stream\":true}", "Good morning", false, false},
    {"many", "/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true,\"n\":3,\"logprobs\":true}",
     "Good day", false, true},
    {"prompts", "/v1/completions", "{\"prompt\":[\"ab\",\"cd\"],\"stream\":true,\"n\":2,\"max_tokens\":6}", "wxyz123", false, true},
    {"embeddings", "/v1/embeddings", "{\"input\":[\"abc\",\"defgh\"]}", "", false, false, true},
    {"embed", "/api/embeddings", "{\"prompt\":\"abc\"}", "", false, false, true},
};

/* The journal cut at this byte, and a coordinator that begins with it. */
static void after_a_kill(const struct kind *k, const struct buf *file, size_t n, const char *want)
{
    char at[64];
    scratch_write(path, file->data, n);
    start(k->say, k->tools);
    crd_replay_go(&t.api, gw);
    snprintf(at, sizeof at, "/v1/requests/%s/events", k->name);
    char *got = fetch("GET", at, NULL, NULL, 200);
    hide_timings(got);
    if (!k->many) {
        if (strcmp(got, want)) printf("%s, cut at %zu\n%s\n%s\n", k->name, n, want, got);
        assert_string_equal(got, want);
    } else {
        enum crd_endpoint ep = strstr(k->path, "chat") ? ENDPOINT_CHAT : ENDPOINT_COMPLETIONS;
        json_t *a = stream_assemble(want, ep), *b = stream_assemble(got, ep);
        assert_true(json_equal(a, b));
        json_decref(a), json_decref(b);
    }
    free(got);
    stop();
}

static void every_cut_tells_the_same(void **state)
{
    (void)state;
    path = scratch_path("journal");
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        const struct kind *k = &kinds[i];
        struct buf file = {0};
        char headers[64];
        struct record_event *e = xmalloc(sizeof *e);
        size_t bytes, n_cuts = 0;
        remove(path);
        start(k->say, k->tools);
        snprintf(headers, sizeof headers, "X-Request-Id: %s\r\n", k->name);
        char *want = fetch("POST", k->path, headers, k->body, 200);
        hide_timings(want);
        /* a stream may begin before its first token or with it: its first event is the same */
        if (!strcmp(k->name, "messages")) assert_non_null(strstr(want, "\"output_tokens\":0}}}"));
        if (!strcmp(k->name, "logprobs")) assert_true(strstr(want, "\"logprobs\":null") < strstr(want, "id: 2\n"));
        stop();
        assert_true(scratch_read(path, &file));
        struct rd r = rd_of(file.data + RECORD_FILE_HEAD, file.len - RECORD_FILE_HEAD);
        while (record_next(&r, e, &bytes)) {
            if (e->kind == RECORD_END) assert_true(e->ended_s > 0);
            after_a_kill(k, &file, (size_t)(r.p - file.data), want);
            n_cuts++;
        }
        assert_int_equal(rd_left(&r), 0);
        assert_true(k->vectors ? n_cuts == 2 : n_cuts > 7);
        free(e);
        free(want);
        buf_free(&file);
    }
}

static uint64_t count_of(const char *metrics, const char *name)
{
    const char *at = strstr(metrics, name);
    assert_non_null(at);
    return strtoull(at + strlen(name), NULL, 10);
}

/* The coordinator that comes after charges what it generates itself, to the key that asked, and notes the whole answer once. */
static void what_goes_on_is_charged_to_its_key(void **state)
{
    struct buf file = {0};
    struct rd r;
    struct record_event *e = xmalloc(sizeof *e);
    size_t bytes, n_tokens = 0, cut = 0;
    char at[256];
    (void)state;
    with_keys = scratch_path("keys");
    scratch_write(with_keys, "anna key-of-anna concurrency=1\nben key-of-ben\n", 46);
    chmod(with_keys, 0600);
    path = scratch_path("charged");
    start("abcdefgh", false);
    free(fetch("POST", kinds[0].path, "X-Request-Id: charged\r\nx-api-key: key-of-anna\r\n", kinds[0].body, 200));
    char *text = fetch("GET", "/metrics", "x-api-key: key-of-ben\r\n", NULL, 200);
    uint64_t all = count_of(text, "tessera:key_generation_tokens_total{key=\"anna\"} ");
    assert_true(count_of(text, "tessera:key_prompt_tokens_total{key=\"anna\"} ") > 0);
    free(text);
    stop();
    assert_true(scratch_read(path, &file));
    r = rd_of(file.data + RECORD_FILE_HEAD, file.len - RECORD_FILE_HEAD);
    while (n_tokens < 3 && record_next(&r, e, &bytes)) {
        n_tokens += e->kind == RECORD_TOKEN;
        cut = (size_t)(r.p - file.data);
    }
    scratch_write(path, file.data, cut);
    start("abcdefgh", false);
    /* it goes on, so anna has one already */
    free(fetch("POST", kinds[0].path, "x-api-key: key-of-anna\r\n", kinds[0].body, 429));
    crd_replay_go(&t.api, gw);
    snprintf(at, sizeof at, "/v1/requests/charged/events");
    free(fetch("GET", at, "x-api-key: key-of-ben\r\n", NULL, 404));
    free(fetch("GET", at, "x-api-key: key-of-anna\r\n", NULL, 200));
    text = fetch("GET", "/metrics", "x-api-key: key-of-ben\r\n", NULL, 200);
    assert_int_equal(count_of(text, "tessera:key_generation_tokens_total{key=\"anna\"} "), all - 3);
    assert_int_equal(count_of(text, "tessera:key_prompt_tokens_total{key=\"anna\"} "), 0);
    free(text);
    free(fetch("POST", kinds[0].path, "x-api-key: key-of-anna\r\n", kinds[0].body, 200));
    stop();
    /* one that had ended costs nobody anything when it is told again */
    scratch_write(path, file.data, file.len);
    start("abcdefgh", false);
    crd_replay_go(&t.api, gw);
    free(fetch("GET", at, "x-api-key: key-of-anna\r\n", NULL, 200));
    text = fetch("GET", "/metrics", "x-api-key: key-of-ben\r\n", NULL, 200);
    assert_int_equal(count_of(text, "tessera:key_generation_tokens_total{key=\"anna\"} "), 0);
    free(text);
    stop();
    with_keys = NULL;
    free(e);
    buf_free(&file);
}

/* A client that read five events of the old coordinator goes on with the sixth; before the cluster serves, it waits. */
static void a_reader_may_come_before_the_cluster(void **state)
{
    struct client c;
    struct answer a;
    struct buf file = {0};
    (void)state;
    path = scratch_path("early");
    start(kinds[0].say, false);
    char *want = fetch("POST", kinds[0].path, "X-Request-Id: early\r\n", kinds[0].body, 200);
    stop();
    assert_true(scratch_read(path, &file));
    scratch_write(path, file.data, file.len / 2);
    start(kinds[0].say, false);
    client_open(&c, gw_port(gw));
    client_request(&c, "GET", "/v1/requests/early/events", "Last-Event-ID: 5\r\n", NULL);
    clock_sleep_us(50000);
    assert_int_equal(fake_submitted(t.fake), 0);
    crd_replay_go(&t.api, gw);
    client_answer(&c, &a);
    assert_int_equal(a.status, 200);
    hide_timings(want);
    hide_timings(buf_str(&a.body) ? (char *)a.body.data : NULL);
    assert_string_equal(buf_str(&a.body), strstr(want, "id: 6\n"));
    answer_free(&a);
    client_close(&c);
    stop();
    /* a coordinator that never came to serve loses nothing */
    scratch_write(path, file.data, file.len / 2);
    start(kinds[0].say, false);
    stop();
    start(kinds[0].say, false);
    crd_replay_go(&t.api, gw);
    char *got = fetch("GET", "/v1/requests/early/events", "Last-Event-ID: 0\r\n", NULL, 200);
    hide_timings(got);
    assert_string_equal(got, want);
    free(got);
    stop();
    free(want);
    buf_free(&file);
}

static void what_was_cancelled_does_not_come_back(void **state)
{
    struct client c;
    (void)state;
    path = scratch_path("left");
    start("abcdefgh", false);
    test_api_plan(&t, (struct fake_plan){.token_us = 20000});
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", kinds[0].path, "X-Request-Id: left\r\n", kinds[0].body);
    assert_true(client_until(&c, "id: 3\n", 5000));
    client_close(&c);
    for (int64_t end = clock_us() + 5000000; !fake_cancelled(t.fake) && clock_us() < end;) clock_sleep_us(1000);
    stop();
    start("abcdefgh", false);
    crd_replay_go(&t.api, gw);
    free(fetch("GET", "/v1/requests/left/events", NULL, NULL, 404));
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut_tells_the_same),
        cmocka_unit_test(what_goes_on_is_charged_to_its_key),
        cmocka_unit_test(a_reader_may_come_before_the_cluster),
        cmocka_unit_test(what_was_cancelled_does_not_come_back),
    };
    setenv("TMPDIR", "/dev/shm", 0);
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
