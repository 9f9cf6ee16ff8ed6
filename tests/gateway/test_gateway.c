/* gateway: what it refuses, what it waits for, how streams live and end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "coordinator/gateway/gateway.h"
#include "tests/gateway/client.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_BODY = 100000 };

/* A stream told what to say by the test's thread. Lives until the test ends. */
struct talk {
    pthread_mutex_t lock;
    struct buf say;
    int32_t status;
    bool over;
    struct gw_waker *waker;
    _Atomic int closed, left, runs;
};

static struct gw *gw;
static struct talk talk;
static char last_id[256];

static bool talk_run(void *self, struct buf *out, int32_t *status, const char **type,
                     const char **headers)
{
    struct talk *t = self;
    atomic_fetch_add(&t->runs, 1);
    pthread_mutex_lock(&t->lock);
    *status = t->status;
    *type = "text/event-stream; charset=utf-8";
    *headers = "X-Extra: yes\n";
    buf_put(out, t->say.data, t->say.len);
    buf_clear(&t->say);
    bool over = t->over;
    pthread_mutex_unlock(&t->lock);
    return over;
}

static void talk_closed(void *self, bool client_left)
{
    struct talk *t = self;
    atomic_store(&t->left, client_left);
    atomic_fetch_add(&t->closed, 1);
}

static const struct gw_stream_ops talk_ops = {talk_run, talk_closed};

static void say(const char *text, int32_t status, bool over)
{
    pthread_mutex_lock(&talk.lock);
    buf_puts(&talk.say, text);
    talk.status = status;
    talk.over = over;
    struct gw_waker *w = talk.waker;
    pthread_mutex_unlock(&talk.lock);
    gw_wake(w);
}

static void h_echo(void *user, struct gw_exchange *x, const struct gw_request *r)
{
    (void)user;
    snprintf(last_id, sizeof last_id, "%s", r->request_id);
    gw_reply(x, 200, "text/plain", r->body, r->n_body, "X-A: 1\nX-B: 2\n");
}

static void h_talk(void *user, struct gw_exchange *x, const struct gw_request *r)
{
    (void)user, (void)r;
    pthread_mutex_lock(&talk.lock);
    talk.waker = gw_exchange_waker(x);
    pthread_mutex_unlock(&talk.lock);
    gw_stream(x, &talk_ops, &talk);
}

static void h_silent(void *user, struct gw_exchange *x, const struct gw_request *r)
{
    (void)user, (void)x, (void)r;
}

static void h_other(void *user, struct gw_exchange *x, const struct gw_request *r)
{
    (void)user;
    gw_reply(x, 404, "text/plain", r->path, strlen(r->path), NULL);
}

static const struct gw_route routes[] = {{"POST", "/echo", h_echo},
                                         {"GET", "/echo", h_echo},
                                         {"GET", "/talk", h_talk},
                                         {"GET", "/silent", h_silent}};

static int setup(void **state)
{
    struct gw_conf conf = {.host = "127.0.0.1",
                           .max_body = MAX_BODY,
                           .header_timeout_s = 1,
                           .idle_timeout_s = 30,
                           .ping_ms = 100,
                           .max_connections = 64};
    (void)state;
    talk = (struct talk){0};
    pthread_mutex_init(&talk.lock, NULL);
    assert_int_equal(gw_open(&gw, &conf, routes, COUNT_OF(routes), h_other, NULL, NULL), OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    gw_close(gw);
    gw_waker_free(talk.waker);
    buf_free(&talk.say);
    pthread_mutex_destroy(&talk.lock);
    return 0;
}

static bool becomes(_Atomic int *v, int want)
{
    for (int64_t end = clock_us() + 5000000; clock_us() < end; clock_sleep_us(1000))
        if (atomic_load(v) == want) return true;
    return false;
}

static bool waker_exists(void)
{
    for (int64_t end = clock_us() + 5000000; clock_us() < end; clock_sleep_us(1000)) {
        pthread_mutex_lock(&talk.lock);
        bool there = talk.waker;
        pthread_mutex_unlock(&talk.lock);
        if (there) return true;
    }
    return false;
}

static void expect(struct client *c, int status, const char *body)
{
    struct answer a;
    client_answer(c, &a);
    assert_int_equal(a.status, status);
    if (body) assert_string_equal(buf_str(&a.body), body);
    answer_free(&a);
}

static void a_connection_is_kept_for_more_requests(void **state)
{
    struct client c;
    (void)state;
    client_open(&c, gw_port(gw));
    for (int i = 0; i < 3; i++) {
        client_request(&c, "POST", "/echo", NULL, "hello");
        expect(&c, 200, "hello");
    }
    client_puts(&c, "POST /echo?q=1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
                    "chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    expect(&c, 200, "abcde");
    client_request(&c, "GET", "/nowhere/at/all", NULL, NULL);
    expect(&c, 404, "/nowhere/at/all");
    client_request(&c, "PUT", "/echo", NULL, "x");
    expect(&c, 404, NULL);
    client_request(&c, "GET", "/silent", NULL, NULL);
    expect(&c, 500, NULL);
    client_close(&c);
}

static void request_ids_are_echoed_or_made(void **state)
{
    struct client c;
    struct answer a;
    (void)state;
    client_open(&c, gw_port(gw));
    client_request(&c, "GET", "/echo", "X-Request-Id: mine-1\r\n", NULL);
    client_answer(&c, &a);
    assert_string_equal(answer_header(&a, "X-Request-Id"), "mine-1");
    assert_string_equal(answer_header(&a, "Request-Id"), "mine-1");
    assert_string_equal(answer_header(&a, "X-A"), "1");
    assert_string_equal(answer_header(&a, "X-B"), "2");
    assert_string_equal(last_id, "mine-1");
    answer_free(&a);
    client_request(&c, "GET", "/echo", "X-Request-Id: with \"quotes\"\r\n", NULL);
    client_answer(&c, &a);
    assert_int_equal(strlen(answer_header(&a, "X-Request-Id")), 32);
    answer_free(&a);
    client_close(&c);
}

static void ambiguous_lengths_are_refused(void **state)
{
    static const char *const bad[] = {
        "Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip\r\n\r\n",
        "Content-Length: -1\r\n\r\n",
        "Content-Length: 1x\r\n\r\na",
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct client c;
        client_open(&c, gw_port(gw));
        client_puts(&c, "POST /echo HTTP/1.1\r\nHost: x\r\n");
        client_puts(&c, bad[i]);
        expect(&c, 400, NULL);
        assert_true(client_sees_close(&c, 2000)); /* what follows could be read in two ways */
        client_close(&c);
    }
}

static void large_bodies_and_headers_are_refused(void **state)
{
    struct client c;
    struct answer a;
    char *big = xcalloc(1, 2 * MAX_BODY);
    (void)state;
    memset(big, 'x', 2 * MAX_BODY - 1);
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", "/echo", NULL, big);
    client_answer(&c, &a);
    assert_int_equal(a.status, 413);
    assert_non_null(strstr(buf_str(&a.body), "larger than 100000 bytes"));
    answer_free(&a);
    big[MAX_BODY] = 0;
    client_request(&c, "POST", "/echo", NULL, big);
    expect(&c, 200, big);
    client_close(&c);

    client_open(&c, gw_port(gw));
    client_puts(&c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n");
    expect(&c, 413, NULL);
    client_close(&c);
    client_open(&c, gw_port(gw));
    client_puts(
        &c,
        "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 200000\r\n\r\n");
    expect(&c, 413, NULL);
    client_close(&c);

    client_open(&c, gw_port(gw));
    client_puts(&c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b");
    expect(&c, 415, NULL);
    client_close(&c);
    client_open(&c, gw_port(gw));
    client_puts(&c, "GET /echo HTTP/1.1\r\nHost: x\r\nX-Big: ");
    client_send(&c, big, 60000);
    client_puts(&c, "\r\n\r\n");
    expect(&c, 431, NULL);
    client_close(&c);
    free(big);
}

/* A head of so many bytes, in n_lines lines of headers beside the Host; n_args: in the query. */
static void put_head(struct buf *b, size_t bytes, size_t n_lines, size_t n_args)
{
    static const char rest[] = " HTTP/1.1\r\nHost: x\r\n";
    buf_clear(b);
    buf_puts(b, "GET /echo");
    for (size_t i = 0; i < n_args; i++) buf_puts(b, i ? "&a" : "?a");
    while (!n_lines && b->len + sizeof rest - 1 + 2 < bytes) buf_putc(b, 'x');
    buf_puts(b, rest);
    size_t each = (bytes - 2 - b->len) / MAX(n_lines, 1);
    for (size_t i = 0; i < n_lines; i++) {
        size_t until = bytes - 2 - (n_lines - 1 - i) * each;
        buf_puts(b, "X: ");
        while (b->len + 2 < until) buf_putc(b, 'y');
        buf_puts(b, "\r\n");
    }
    buf_puts(b, "\r\n");
    assert_int_equal(b->len, bytes);
}

/* Cookies, which the library copies and notes besides: every head within the limit is taken, and what a browser may hold beyond it is told. */
static void cookies_of_every_size_are_answered(void **state)
{
    enum { EACH = 100 };
    struct buf head = {0};
    struct client c;
    struct answer a;
    (void)state;
    for (size_t n = 1; n * EACH < 20 << 10; n += 3) {
        buf_clear(&head);
        buf_puts(&head, "GET /echo HTTP/1.1\r\nHost: x\r\nCookie: ");
        for (size_t i = 0; i < n; i++) buf_printf(&head, "%s%05zu=%0*d", i ? "; " : "", i, EACH - 8, 0);
        buf_puts(&head, "\r\n\r\n");
        client_open(&c, gw_port(gw));
        client_send(&c, buf_str(&head), head.len);
        client_answer(&c, &a);
        int want = head.len + 80 * (n + 2) <= 28 << 10 ? 200 : 431;
        if (a.status != want) printf("%zu cookies: %d\n", n, a.status);
        assert_int_equal(a.status, want);
        answer_free(&a);
        client_close(&c);
    }
    buf_free(&head);
}

/* Whatever a head's size, and whatever it is made of, it is answered: near the limit, and where it
 * fills the library's memory of the connection to its last bytes, each size by itself. */
static void every_size_of_head_is_answered(void **state)
{
    static const struct {
        size_t n_lines, n_args;
    } heads[] = {{1, 0}, {8, 0}, {100, 0}, {0, 1}, {0, 100}, {3, 100}};
    struct client c;
    struct answer a;
    struct buf head = {0};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(heads); i++) {
        size_t besides = 80 * (heads[i].n_lines + heads[i].n_args + 1), limit = 28 << 10, end = 58 << 10;
        for (size_t n = limit - besides - 2000; n < end;) {
            client_open(&c, gw_port(gw));
            put_head(&head, n, heads[i].n_lines, heads[i].n_args);
            client_send(&c, buf_str(&head), head.len);
            client_answer(&c, &a);
            bool good = n + besides <= limit ? a.status == 200 : a.status == 431 || a.status == 414;
            if (!good) printf("a head of %zu bytes, kind %zu: %d\n", n, i, a.status);
            assert_true(good);
            answer_free(&a);
            client_close(&c);
            size_t noted = n + besides / 10 * 9; /* what the library takes for it */
            bool at_limit = n + besides > limit - 10 && n + besides < limit + 10,
                 full = noted > (56 << 10) - 500 && noted < (56 << 10) + 100;
            n += at_limit || full ? 1 : 61;
        }
    }
    buf_free(&head);
}

/* A byte at a time, until it is told that this takes too long. */
static void expect_late(struct client *c)
{
    struct answer a;
    int64_t end = clock_us() + 6000000;
    while (clock_us() < end && client_send(c, "a", 1) && !client_until(c, "}}", 100)) continue;
    client_answer(c, &a);
    assert_int_equal(a.status, 408);
    assert_non_null(strstr(buf_str(&a.body), "did not come in time"));
    answer_free(&a);
    assert_true(client_sees_close(c, 1000));
}

static void a_slow_drip_is_told_and_closed(void **state)
{
    struct client c;
    (void)state;
    client_open(&c, gw_port(gw));
    client_puts(&c, "GET /echo HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    expect_late(&c);
    client_close(&c);
    client_open(&c, gw_port(gw));
    client_puts(&c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
    expect_late(&c);
    client_close(&c);
    client_open(&c, gw_port(gw)); /* says nothing at all */
    assert_true(client_sees_close(&c, 5000));
    client_close(&c);
}

static void a_stream_speaks_pings_and_ends(void **state)
{
    struct client c;
    struct answer a;
    (void)state;
    client_open(&c, gw_port(gw));
    client_request(&c, "GET", "/talk", NULL, NULL);
    assert_true(waker_exists());
    assert_false(client_until(&c, "HTTP", 150)); /* status 0: nothing is sent */
    say("data: 1\n\n", 200, false);
    assert_true(client_until(&c, "data: 1\n\n", 5000));
    assert_true(client_until(&c, ": ping\n\n", 5000));
    say("data: 2\n\n", 200, false);
    assert_true(client_until(&c, "data: 2\n\n", 5000));
    say("data: [DONE]\n\n", 200, true);
    client_answer(&c, &a);
    assert_int_equal(a.status, 200);
    assert_false(a.cut);
    assert_string_equal(answer_header(&a, "Content-Type"), "text/event-stream; charset=utf-8");
    assert_string_equal(answer_header(&a, "X-Extra"), "yes");
    answer_free(&a);
    assert_true(becomes(&talk.closed, 1));
    assert_int_equal(talk.left, 0);
    assert_int_equal(gw_active(gw), 0);
    gw_wake(talk.waker); /* late wakes are absorbed */
    client_request(&c, "GET", "/echo", NULL, NULL);
    expect(&c, 200, "");
    client_close(&c);
}

static void an_answer_known_at_once_has_a_length(void **state)
{
    struct client c;
    struct answer a;
    (void)state;
    client_open(&c, gw_port(gw));
    client_request(&c, "GET", "/talk", NULL, NULL);
    assert_true(waker_exists());
    say("{}", 400, true);
    client_answer(&c, &a);
    assert_int_equal(a.status, 400);
    assert_string_equal(answer_header(&a, "Content-Length"), "2");
    assert_string_equal(buf_str(&a.body), "{}");
    answer_free(&a);
    client_close(&c);
}

static void a_client_that_leaves_is_noticed(void **state)
{
    struct client c;
    (void)state;
    client_open(&c, gw_port(gw));
    client_request(&c, "GET", "/talk", NULL, NULL);
    assert_true(waker_exists());
    assert_int_equal(gw_active(gw), 1);
    if (*state) {
        say("data: 1\n\n", 200, false);
        assert_true(client_until(&c, "data: 1", 5000));
    }
    client_close(&c);
    assert_true(becomes(&talk.closed, 1));
    assert_int_equal(talk.left, 1);
    gw_wake(talk.waker);
}

/* A child between fork and exec holds every socket of ours. What it holds beyond the connection's
 * end must not be heard of again: the connection is freed (run under the address sanitizer). */
static void a_child_that_holds_a_socket_does_no_harm(void **state)
{
    struct client c;
    int pipe_fd[2];
    char byte;
    (void)state;
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", "/echo", NULL, "hello");
    expect(&c, 200, "hello");
    assert_int_equal(pipe(pipe_fd), 0);
    pid_t child = fork();
    if (!child) {
        close(pipe_fd[1]);
        close(c.fd); /* the server's sockets only */
        _exit(read(pipe_fd[0], &byte, 1) != 0); /* until the parent closes its end */
    }
    close(pipe_fd[0]);
    client_close(&c);
    clock_sleep_us(50000); /* the connection is shut down and freed, not the socket */
    client_open(&c, gw_port(gw));
    client_request(&c, "POST", "/echo", NULL, "next");
    expect(&c, 200, "next");
    client_close(&c);
    close(pipe_fd[1]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
}

static void quiescing_lets_streams_finish(void **state)
{
    struct client c, late;
    struct answer a;
    (void)state;
    client_open(&c, gw_port(gw));
    client_request(&c, "GET", "/talk", NULL, NULL);
    assert_true(waker_exists());
    gw_quiesce(gw);
    client_open(&late, gw_port(gw));
    assert_int_equal(late.fd, -1);
    say("data: x\n\n", 200, true);
    client_answer(&c, &a);
    assert_string_equal(buf_str(&a.body), "data: x\n\n");
    answer_free(&a);
    assert_true(client_sees_close(&c, 5000));
    client_close(&c);
}

static void closing_ends_open_streams(void **state)
{
    struct client c, keep;
    (void)state;
    client_open(&keep, gw_port(gw));
    client_request(&keep, "GET", "/echo", NULL, NULL);
    expect(&keep, 200, "");
    client_open(&c, gw_port(gw));
    client_request(&c, "GET", "/talk", NULL, NULL);
    assert_true(waker_exists());
    gw_close(gw);
    gw = NULL;
    assert_int_equal(talk.closed, 1);
    gw_wake(talk.waker); /* the handle outlives even the gateway */
    client_close(&c);
    client_close(&keep);
}

static void a_port_in_use_is_said(void **state)
{
    struct gw *second = NULL;
    struct gw_conf conf = {.host = "127.0.0.1",
                           .port = gw_port(gw),
                           .max_body = 1,
                           .header_timeout_s = 1,
                           .idle_timeout_s = 1,
                           .ping_ms = 100,
                           .max_connections = 4};
    (void)state;
    assert_int_equal(gw_open(&second, &conf, routes, 1, h_other, NULL, NULL), ERR_SYSTEM);
    assert_non_null(strstr(err_text(), "the port is in use"));
    assert_non_null(strstr(err_text(), "--port"));
    conf.host = "203.0.113.7";
    assert_int_equal(gw_open(&second, &conf, routes, 1, h_other, NULL, NULL), ERR_SYSTEM);
    assert_non_null(strstr(err_text(), "203.0.113.7"));
}

static void idle_costs_nothing(void **state)
{
    struct rusage before, after;
    struct client c;
    (void)state;
    client_open(&c, gw_port(gw));
    client_request(&c, "GET", "/echo", NULL, NULL);
    expect(&c, 200, "");
    client_close(&c);
    clock_sleep_us(200000);
    getrusage(RUSAGE_SELF, &before);
    clock_sleep_us(800000);
    getrusage(RUSAGE_SELF, &after);
#ifndef __SANITIZE_THREAD__ /* which has a thread of its own that wakes */
    assert_true(after.ru_nvcsw - before.ru_nvcsw <= 2); /* the sleeps of this thread */
#endif
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    static int yes = 1;
    const struct CMUnitTest tests[] = {
        CASE(a_connection_is_kept_for_more_requests),
        CASE(request_ids_are_echoed_or_made),
        CASE(ambiguous_lengths_are_refused),
        CASE(large_bodies_and_headers_are_refused),
        CASE(every_size_of_head_is_answered),
        CASE(cookies_of_every_size_are_answered),
        CASE(a_slow_drip_is_told_and_closed),
        CASE(a_stream_speaks_pings_and_ends),
        CASE(an_answer_known_at_once_has_a_length),
        CASE(a_client_that_leaves_is_noticed),
        {"a_client_that_leaves_a_stream_is_noticed", a_client_that_leaves_is_noticed, setup,
         teardown, &yes},
        CASE(a_child_that_holds_a_socket_does_no_harm),
        CASE(quiescing_lets_streams_finish),
        CASE(closing_ends_open_streams),
        CASE(a_port_in_use_is_said),
        CASE(idle_costs_nothing),
    };
    return cmocka_run_group_tests_name("gateway", tests, NULL, NULL);
}
