/* gateway: two thousand sleeping streams and sixty-four busy ones on one thread, and what a sleeper
 * costs in memory. */
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
#include <unistd.h>

enum { N_IDLE = 2000, N_BUSY = 64, N_EVENTS = 100, MOST_KB = 48 };

struct talk {
    struct gw_waker *waker;
    bool busy, opened;
    int said; /* [net] */
    _Atomic int due, closed;
};

static struct gw *gw;
static struct talk talks[N_IDLE + N_BUSY];
static _Atomic int n_talks;

static bool talk_run(void *self, struct buf *out, int32_t *status, const char **type,
                     const char **headers)
{
    struct talk *t = self;
    (void)headers;
    *status = 200;
    *type = "text/event-stream";
    if (!t->opened) buf_puts(out, "data: hello\n\n");
    t->opened = true;
    for (int due = atomic_load(&t->due); t->said < due; t->said++)
        buf_printf(out, "data: %d\n\n", t->said);
    return t->said == N_EVENTS;
}

static void talk_closed(void *self, bool client_left)
{
    struct talk *t = self;
    (void)client_left;
    atomic_store(&t->closed, 1);
}

static const struct gw_stream_ops ops = {talk_run, talk_closed};

static void h_talk(void *user, struct gw_exchange *x, const struct gw_request *r)
{
    (void)user;
    struct talk *t = &talks[atomic_load(&n_talks)];
    t->busy = !strcmp(r->path, "/busy");
    t->waker = gw_exchange_waker(x);
    gw_stream(x, &ops, t);
    atomic_fetch_add(&n_talks, 1);
}

static const struct gw_route routes[] = {{"GET", "/busy", h_talk}, {"GET", "/idle", h_talk}};

static void *produce(void *arg)
{
    (void)arg;
    for (int e = 1; e <= N_EVENTS; e++) {
        for (int i = 0; i < N_IDLE + N_BUSY; i++) {
            if (!talks[i].busy) continue;
            atomic_store(&talks[i].due, e);
            gw_wake(talks[i].waker);
        }
        if (e % 8 == 0) clock_sleep_us(1000);
    }
    return NULL;
}

static void check_events(struct client *c)
{
    struct answer a;
    client_answer(c, &a);
    assert_int_equal(a.status, 200);
    assert_false(a.cut);
    const char *p = buf_str(&a.body);
    assert_int_equal(strncmp(p, "data: hello\n\n", 13), 0);
    p += 13;
    for (int e = 0; e < N_EVENTS; e++) {
        if (!strncmp(p, ": ping\n\n", 8)) p += 8;
        assert_int_equal(strncmp(p, "data: ", 6), 0);
        assert_int_equal(strtol(p + 6, NULL, 10), e);
        p = strstr(p, "\n\n") + 2;
    }
    assert_int_equal(*p, 0);
    answer_free(&a);
}

/* Of this process, which is server and client at once. */
static long rss_kb(void)
{
    long pages = 0, all;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld %ld", &all, &pages), 2);
    fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Room for both ends of every connection; false where the system does not give it. */
static bool enough_files(void)
{
    struct rlimit l;
    rlim_t need = 2 * (N_IDLE + N_BUSY) + 100;
    if (getrlimit(RLIMIT_NOFILE, &l)) return false;
    if (l.rlim_cur >= need) return true;
    l.rlim_cur = l.rlim_max;
    return l.rlim_max >= need && !setrlimit(RLIMIT_NOFILE, &l);
}

static void many_sleepers_do_not_disturb_the_busy(void **state)
{
    struct gw_conf conf = {.host = "127.0.0.1",
                           .max_body = 1000,
                           .header_timeout_s = 20,
                           .idle_timeout_s = 30,
                           .ping_ms = 500,
                           .max_connections = 4096};
    struct client *c = xcalloc(N_IDLE + N_BUSY, sizeof *c);
    pthread_t producer;
    (void)state;
    if (!enough_files()) {
        printf("skipped: not enough open files are allowed\n");
        free(c);
        skip();
    }
    assert_int_equal(gw_open(&gw, &conf, routes, COUNT_OF(routes), h_talk, NULL, NULL), OK);
    long before = rss_kb();
    for (int i = 0; i < N_IDLE; i++) {
        client_open(&c[i], gw_port(gw));
        assert_true(c[i].fd >= 0);
        assert_true(client_request(&c[i], "GET", "/idle", NULL, NULL));
        assert_true(client_until(&c[i], "data: hello", CLIENT_WAIT_MS));
    }
    double each = (double)(rss_kb() - before) / N_IDLE;
    printf("%d sleeping streams: %.1f KiB each, both ends\n", N_IDLE, each);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* these keep what was freed */
    assert_true(each < MOST_KB);
#endif
    for (int i = N_IDLE; i < N_IDLE + N_BUSY; i++) {
        client_open(&c[i], gw_port(gw));
        assert_true(client_request(&c[i], "GET", "/busy", NULL, NULL));
    }
    while (atomic_load(&n_talks) < N_IDLE + N_BUSY) clock_sleep_us(1000);
    assert_int_equal(gw_active(gw), N_IDLE + N_BUSY);
    pthread_create(&producer, NULL, produce, NULL);
    for (int i = N_IDLE; i < N_IDLE + N_BUSY; i++) check_events(&c[i]);
    pthread_join(producer, NULL);
    for (int i = 0; i < N_IDLE; i++) assert_true(client_until(&c[i], ": ping\n\n", CLIENT_WAIT_MS));
    for (int i = 0; i < N_IDLE + N_BUSY; i++) client_close(&c[i]);
    for (int64_t end = clock_us() + 5000000; gw_active(gw) && clock_us() < end;)
        clock_sleep_us(1000);
    assert_int_equal(gw_active(gw), 0);
    gw_close(gw);
    for (int i = 0; i < N_IDLE + N_BUSY; i++) {
        assert_int_equal(talks[i].closed, 1);
        gw_waker_free(talks[i].waker);
    }
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(many_sleepers_do_not_disturb_the_busy)};
    return cmocka_run_group_tests_name("gateway_many", tests, NULL, NULL);
}
