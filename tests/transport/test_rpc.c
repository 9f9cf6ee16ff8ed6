/* test_rpc.c: sessions over loopback: order, size, both directions, every way to end; with the
 * argument "bench" the round trip of a small step. */
#include "base/clock.h"
#include "base/log.h"
#include "proto/step_plan.h"
#include "proto/step_result.h"
#include "tests/transport/rpc_pair.h"
#include "transport/step_link.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const char key_text[] = "the cluster key of this test";
static struct auth_key key;

static void three_workers_at_once(void **state)
{
    (void)state;
    struct served s = serve(&key);
    struct joined w[3];
    struct mailbox *events[3];
    struct rpc_client *clients[3];
    for (int i = 0; i < 3; i++) {
        char who[32];
        snprintf(who, sizeof who, "rank %d@host", i);
        struct rpc_conf c = conf_of(s.address, who, &key);
        events[i] = mailbox_open();
        assert_int_equal(rpc_client_open(&clients[i], &c, 10000, events[i]), OK);
    }
    bool seen[3] = {0};
    for (int i = 0; i < 3; i++) {
        struct rpc_event *e = expect_event(s.events, RPC_CONNECTED);
        int rank = -1;
        assert_int_equal(sscanf(rpc_peer_identity(e->peer), "rank %d@host", &rank), 1);
        assert_in_range(rank, 0, 2);
        assert_false(seen[rank]);
        seen[rank] = true;
        rpc_peer_set_user(e->peer, &seen[rank]);
        assert_ptr_equal(rpc_peer_user(e->peer), &seen[rank]);
        w[rank].worker = e->peer;
        rpc_event_free(e);
    }
    for (uint32_t i = 0; i < 3; i++) {
        struct rpc_event *e = expect_event(events[i], RPC_CONNECTED);
        assert_string_equal(rpc_peer_identity(e->peer), "coordinator");
        rpc_event_free(e);
        send_numbered(w[i].worker, MSG_STEP_PLAN, i, 100);
        struct control_msg *m = expect_message(events[i], MSG_STEP_PLAN);
        assert_memory_equal(m->bytes.data, &i, sizeof i);
        control_msg_free(m);
    }
    for (int i = 0; i < 3; i++) {
        rpc_client_close(clients[i]);
        expect_closed(events[i], ERR_LINK_CLOSED, "closed by this side");
        drop_events(events[i]);
        char words[64];
        snprintf(words, sizeof words, "rank %d@host closed the connection", i);
        expect_closed(s.events, ERR_LINK_CLOSED, words);
    }
    serve_end(&s);
}

enum { MANY = 10000 };

struct receiver { struct mailbox *from; enum control_type type; int bad; };

static void *receive_many(void *arg)
{
    struct receiver *r = arg;
    for (uint32_t i = 0; i < MANY; i++) {
        struct rpc_event *e = mailbox_get(r->from, PATIENCE_US);
        if (!e || e->kind != RPC_MESSAGE || e->msg->type != r->type ||
            memcmp(e->msg->bytes.data, &i, sizeof i))
            r->bad++;
        rpc_event_free(e);
        if (r->bad) break;
    }
    return NULL;
}

static void ten_thousand_messages_in_order_both_ways(void **state)
{
    (void)state;
    struct served s = serve(&key);
    struct joined j = join(&s, &key, "rank 0@host");
    struct receiver down = {j.events, MSG_STEP_PLAN, 0}, up = {s.events, MSG_STEP_RESULT, 0};
    pthread_t a, b;
    pthread_create(&a, NULL, receive_many, &down);
    pthread_create(&b, NULL, receive_many, &up);
    for (uint32_t i = 0; i < MANY; i++) {
        send_numbered(j.worker, MSG_STEP_PLAN, i, 4 + i % 200);
        send_numbered(j.coordinator, MSG_STEP_RESULT, i, 4 + i % 100);
    }
    pthread_join(a, NULL);
    pthread_join(b, NULL);
    assert_int_equal(down.bad, 0);
    assert_int_equal(up.bad, 0);
    join_end(&j);
    serve_end(&s);
}

static void long_messages_arrive_whole(void **state)
{
    (void)state;
    static const size_t sizes[] = {
        65534, 65535, 65536, 65537, 131071, 4 << 20, (LIMIT_FRAME_BYTES)-1};
    struct served s = serve(&key);
    struct joined j = join(&s, &key, "rank 0@host");
    for (uint32_t i = 0; i < COUNT_OF(sizes); i++)
        send_numbered(j.coordinator, MSG_STEP_RESULT, i, sizes[i]);
    for (uint32_t i = 0; i < COUNT_OF(sizes); i++) {
        struct control_msg *m = expect_message(s.events, MSG_STEP_RESULT);
        const uint8_t *d = m->bytes.data;
        assert_int_equal(m->bytes.n, sizes[i]);
        assert_memory_equal(d, &i, sizeof i);
        for (size_t k = 4; k < sizes[i]; k++)
            if (d[k] != (uint8_t)(k * 31 + i)) fail_msg("byte %zu of message %" PRIu32, k, i);
        control_msg_free(m);
    }
    join_end(&j);
    serve_end(&s);
}

static void a_message_over_the_limit_ends_the_session_with_a_sentence(void **state)
{
    (void)state;
    struct served s = serve(&key);
    struct joined j = join(&s, &key, "rank 0@host");
    send_numbered(j.coordinator, MSG_STEP_RESULT, 0, LIMIT_FRAME_BYTES);
    expect_closed(j.events, ERR_LINK_PROTOCOL, "a StepResult of 33554433 bytes was to be sent");
    join_end(&j);
    serve_end(&s);
}

static void closing_flushes_what_was_sent(void **state)
{
    (void)state;
    struct served s = serve(&key);
    for (int side = 0; side < 2; side++) {
        struct joined j = join(&s, &key, "rank 0@host");
        for (uint32_t i = 0; i < 500; i++)
            send_numbered(side ? j.coordinator : j.worker, MSG_STEP_RESULT, i, 5000);
        rpc_peer_close(side ? j.coordinator : j.worker);
        send_numbered(side ? j.coordinator : j.worker, MSG_STEP_RESULT, 0,
                      10); /* too late: not sent, no harm */
        struct mailbox *other = side ? s.events : j.events;
        for (uint32_t i = 0; i < 500; i++) {
            struct control_msg *m = expect_message(other, MSG_STEP_RESULT);
            assert_memory_equal(m->bytes.data, &i, sizeof i);
            control_msg_free(m);
        }
        expect_closed(other, ERR_LINK_CLOSED,
                      side ? "rank 0@host closed" : "coordinator at 127.0.0.1:");
        expect_closed(side ? j.events : s.events, ERR_LINK_CLOSED, "closed by this side");
        join_end(&j);
    }
    serve_end(&s);
}

static void closing_a_server_flushes_and_tells_its_clients(void **state)
{
    (void)state;
    struct served s = serve(&key);
    struct joined j = join(&s, &key, "rank 0@host");
    struct control_msg bye = {.type = MSG_SHUTDOWN, .shutdown = {"ctrl-c"}};
    rpc_peer_send(j.worker, &bye);
    serve_end(&s);
    struct control_msg *m = expect_message(j.events, MSG_SHUTDOWN);
    assert_string_equal(m->shutdown.reason, "ctrl-c");
    control_msg_free(m);
    expect_closed(j.events, ERR_LINK_CLOSED, "closed the connection");
    join_end(&j);
}

static void sending_to_a_lost_peer_is_harmless(void **state)
{
    (void)state;
    struct served s = serve(&key);
    struct joined j = join(&s, &key, "rank 0@host");
    serve_end(&s);
    struct rpc_event *e = expect_event(j.events, RPC_CLOSED);
    for (uint32_t i = 0; i < 10; i++) send_numbered(j.coordinator, MSG_STEP_RESULT, i, 10);
    rpc_peer_close(j.coordinator);
    rpc_event_free(e);
    join_end(&j);
}

/* ---- refusals ---- */

/* What our own stderr says meanwhile. */
static char *stderr_of(void (*run)(void *), void *arg)
{
    static char text[8192];
    FILE *f = tmpfile();
    int saved = dup(2);
    fflush(stderr);
    dup2(fileno(f), 2);
    run(arg);
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
    rewind(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static void try_wrong_key(void *arg)
{
    struct served *s = arg;
    struct auth_key wrong = test_key("some other key, as long");
    struct mailbox *events = mailbox_open();
    struct rpc_conf c = conf_of(s->address, "rank 0@hostb", &wrong);
    struct rpc_client *client;
    int64_t before = clock_us();
    assert_int_equal(rpc_client_open(&client, &c, 10000, events), OK);
    expect_closed(events, ERR_LINK_AUTH,
                  "refused this side: wrong cluster key: \"coordinator\" and \"rank 0@hostb\" do "
                  "not hold the same one");
    assert_true(clock_us() - before < 5000000); /* no retry after a refusal */
    rpc_client_close(client);
    drop_events(events);
    rpc_server_close(s->server); /* so that the server's line is there */
    assert_null(mailbox_get(s->events, 0)); /* the owner never hears of a stranger */
}

static void a_wrong_key_is_named_on_both_sides(void **state)
{
    (void)state;
    struct served s = serve(&key);
    const char *text = stderr_of(try_wrong_key, &s);
    assert_non_null(strstr(text, "refused a session from ipv4:127.0.0.1:"));
    assert_non_null(strstr(text, "wrong cluster key: \"coordinator\" and \"rank 0@hostb\""));
    drop_events(s.events);
}

static void a_port_in_use_is_named(void **state)
{
    (void)state;
    struct served s = serve(&key);
    struct mailbox *events = mailbox_open();
    struct rpc_server *second = NULL;
    struct rpc_conf c = conf_of(s.address, "coordinator", &key);
    char words[128];
    assert_int_equal(rpc_server_open(&second, &c, events), ERR_SYSTEM);
    assert_null(second);
    snprintf(words, sizeof words,
             "cannot listen on %s: Address already in use; choose another port", s.address);
    assert_non_null(strstr(err_text(), words));
    c.address = "192.0.2.1:7000";
    assert_int_equal(rpc_server_open(&second, &c, events), ERR_SYSTEM);
    assert_non_null(strstr(err_text(), "192.0.2.1:7000: Cannot assign requested address"));
    c.address = "nonsense";
    assert_int_not_equal(rpc_server_open(&second, &c, events), OK);
    mailbox_close(events);
    serve_end(&s);
}

static void nobody_listening_is_said_when_the_time_is_over(void **state)
{
    (void)state;
    struct mailbox *events = mailbox_open();
    struct rpc_client *client;
    struct served s = serve(&key); /* a port that was free a moment ago */
    serve_end(&s);
    struct rpc_conf c = conf_of(s.address, "rank 0@hostb", &key);
    char words[128];
    int64_t before = clock_us();
    assert_int_equal(rpc_client_open(&client, &c, 700, events), OK);
    snprintf(words, sizeof words, "no session with %s within 0.7 s: ", s.address);
    struct rpc_event *e = expect_event(events, RPC_CLOSED);
    assert_int_equal(e->err, ERR_LINK_CLOSED);
    assert_non_null(strstr(e->text, words));
    assert_non_null(strstr(e->text, "Connection refused"));
    rpc_event_free(e);
    assert_in_range(clock_us() - before, 650000, 3000000);
    rpc_client_close(client);
    drop_events(events);
}

static void a_worker_may_start_before_its_coordinator(void **state)
{
    (void)state;
    struct served s = serve(&key);
    serve_end(&s);
    struct mailbox *events = mailbox_open();
    struct rpc_client *client;
    struct rpc_conf c = conf_of(s.address, "rank 0@hostb", &key);
    assert_int_equal(rpc_client_open(&client, &c, 15000, events), OK);
    clock_sleep_us(300000);
    s.events = mailbox_open();
    struct rpc_conf d = conf_of(s.address, "coordinator", &key);
    assert_int_equal(rpc_server_open(&s.server, &d, s.events), OK);
    rpc_event_free(expect_event(events, RPC_CONNECTED));
    rpc_event_free(expect_event(s.events, RPC_CONNECTED));
    rpc_client_close(client);
    drop_events(events);
    serve_end(&s);
}

static void a_client_can_be_closed_at_any_moment(void **state)
{
    (void)state;
    struct served s = serve(&key);
    for (int i = 0; i < 30; i++) {
        struct mailbox *events = mailbox_open();
        struct rpc_client *client;
        struct rpc_conf c = conf_of(i % 3 ? s.address : "127.0.0.1:1", "rank 0@hostb", &key);
        int64_t before = clock_us();
        assert_int_equal(rpc_client_open(&client, &c, 10000, events), OK);
        clock_sleep_us(i * 200);
        rpc_client_close(client);
        assert_true(clock_us() - before < 3000000);
        drop_events(events);
    }
    serve_end(&s);
}

/* ---- a worker that dies: this program again, as a child ---- */

static char self[4096];

static pid_t spawn_worker(const char *address, const char *what)
{
    pid_t pid = fork();
    if (!pid) {
        execl(self, self, "worker", address, what, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static int worker_main(const char *address, const char *what)
{
    struct mailbox *events = mailbox_open();
    struct rpc_client *client;
    struct auth_key k;
    if (trn_auth_key_of_text(&k, key_text)) return 1;
    struct rpc_conf c = conf_of(address, "rank 5@child", &k);
    if (rpc_client_open(&client, &c, 10000, events)) return 1;
    struct rpc_event *e = expect_event(events, RPC_CONNECTED);
    struct rpc_peer *coordinator = e->peer;
    rpc_event_free(e);
    control_msg_free(expect_message(events, MSG_WAKE)); /* so the other side knows this one */
    if (!strcmp(what, "kill")) raise(SIGKILL);
    if (!strcmp(what, "stop")) raise(SIGSTOP);
    struct control_msg m = {.type = MSG_FAULT, .fault = {ERR_NO_MEMORY, "rank 5 gives up"}};
    rpc_peer_send(coordinator, &m);
    rpc_client_close(client); /* the message leaves before */
    drop_events(events);
    return 0;
}

static pid_t start_worker(struct served *s, const char *what)
{
    pid_t pid = spawn_worker(s->address, what);
    struct rpc_event *e = expect_event(s->events, RPC_CONNECTED);
    struct control_msg m = {.type = MSG_WAKE};
    rpc_peer_send(e->peer, &m);
    rpc_event_free(e);
    return pid;
}

static void a_killed_worker_is_noticed_at_once(void **state)
{
    (void)state;
    struct served s = serve(&key);
    pid_t pid = start_worker(&s, "kill");
    int64_t before = clock_us();
    expect_closed(s.events, ERR_LINK_CLOSED, "rank 5@child was lost: its connection broke");
    assert_true(clock_us() - before < 1000000);
    waitpid(pid, NULL, 0);
    serve_end(&s);
}

static void a_stopped_worker_is_noticed_by_keepalive(void **state)
{
    (void)state;
    struct served s = serve(&key);
    pid_t pid = start_worker(&s, "stop");
    int64_t before = clock_us();
    expect_closed(s.events, ERR_LINK_CLOSED, "a keepalive went unanswered for 1000 ms");
    assert_true(clock_us() - before < 5000000);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    serve_end(&s);
}

static void a_last_word_arrives_before_the_end(void **state)
{
    (void)state;
    struct served s = serve(&key);
    pid_t pid = start_worker(&s, "hello");
    struct control_msg *m = expect_message(s.events, MSG_FAULT);
    assert_string_equal(m->fault.text, "rank 5 gives up");
    control_msg_free(m);
    expect_closed(s.events, ERR_LINK_CLOSED, "rank 5@child closed the connection");
    int status;
    waitpid(pid, &status, 0);
    assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
    serve_end(&s);
}

/* ---- the link over it ---- */

static void the_link_sends_plans_to_the_lead_and_wakes_all(void **state)
{
    (void)state;
    struct served s = serve(&key);
    struct joined lead = join(&s, &key, "rank 0@host"), second = join(&s, &key, "rank 1@host");
    struct rpc_peer *ranks[] = {lead.worker, second.worker};
    struct trn_step_link *l = trn_step_link_rpc_open(ranks, 2);
    struct step_plan p = {.step = 1, .flags = STEP_SLEEP};
    trn_step_link_wake(l);
    assert_int_equal(trn_step_link_send(l, &p), OK);
    control_msg_free(expect_message(lead.events, MSG_WAKE));
    control_msg_free(expect_message(second.events, MSG_WAKE));
    struct control_msg *m = expect_message(lead.events, MSG_STEP_PLAN);
    struct step_plan q;
    struct arena a = {0};
    struct step_bounds b = {1, 1, 1, 1, 16};
    assert_int_equal(step_plan_unpack(&q, m->bytes.data, m->bytes.n, &b, &a), OK);
    assert_int_equal(q.flags, STEP_SLEEP);
    arena_free(&a);
    control_msg_free(m);
    trn_step_link_close(l);
    join_end(&lead);
    join_end(&second);
    serve_end(&s);
}

/* ---- bench: StepPlan of ~200 bytes there, StepResult back, as scheduler and step thread do it
 * ---- */

static void *bench_worker(void *arg)
{
    struct joined *j = arg;
    struct step_bounds bounds = {1024, 1, 4096, 32000, 4096};
    struct buf out = {0};
    for (;;) {
        struct rpc_event *e = mailbox_get(j->events, -1);
        if (!e) continue;
        if (e->kind == RPC_CLOSED) {
            rpc_event_free(e);
            break;
        }
        struct arena a = {0};
        struct step_plan p;
        struct result_item items[8] = {0};
        if (step_plan_unpack(&p, e->msg->bytes.data, e->msg->bytes.n, &bounds, &a)) abort();
        for (int32_t i = 0; i < p.n_items; i++)
            items[i] =
                (struct result_item){.slot = p.items[i].slot, .n_tokens = 1, .tokens[0].id = 7};
        struct step_result r = {
            .epoch = p.epoch, .step = p.step, .n_items = p.n_items, .items = items};
        buf_clear(&out);
        step_result_pack(&r, &out);
        struct control_msg m = {.type = MSG_STEP_RESULT, .bytes = {out.data, out.len}};
        rpc_peer_send(e->peer, &m);
        arena_free(&a);
        rpc_event_free(e);
    }
    buf_free(&out);
    return NULL;
}

static int by_value(const void *x, const void *y)
{
    int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
    return (a > b) - (a < b);
}

static int bench(int rounds, int64_t pause_us)
{
    key = test_key(key_text);
    struct served s = serve(&key);
    struct joined j = join(&s, &key, "rank 0@host");
    struct trn_step_link *l = trn_step_link_rpc_open(&j.worker, 1);
    pthread_t t;
    pthread_create(&t, NULL, bench_worker, &j);
    int64_t *us = malloc(sizeof *us * (size_t)rounds);
    struct step_in in = {.id = 5};
    struct step_item items[8];
    for (int i = 0; i < 8; i++)
        items[i] =
            (struct step_item){.slot = i, .pos = 100, .n_in = 1, .out = OUT_SAMPLE, .in = &in};
    struct step_plan p = {.n_items = 8, .items = items};
    for (int i = -100; i < rounds; i++) {
        struct arena a = {0};
        struct step_result r;
        if (pause_us) clock_sleep_us(pause_us);
        int64_t begin = clock_us();
        p.step++;
        assert_int_equal(trn_step_link_send(l, &p), OK);
        struct control_msg *m = expect_message(s.events, MSG_STEP_RESULT);
        assert_int_equal(step_result_unpack(&r, m->bytes.data, m->bytes.n, &a), OK);
        if (i >= 0) us[i] = clock_us() - begin;
        control_msg_free(m);
        arena_free(&a);
    }
    qsort(us, (size_t)rounds, sizeof *us, by_value);
    printf("plan of %zu bytes and its result, %d rounds, %" PRId64 " us apart: p10 %" PRId64
           " p50 %" PRId64 " p90 %" PRId64 " p99 %" PRId64 " us\n",
           l->packed.len, rounds, pause_us, us[rounds / 10], us[rounds / 2], us[rounds * 9 / 10],
           us[rounds * 99 / 100]);
    free(us);
    trn_step_link_close(l);
    rpc_client_close(j.client);
    pthread_join(t, NULL);
    drop_events(j.events);
    serve_end(&s);
    return 0;
}

static void write_key(const char *path, const char *text)
{
    char fresh[64];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    assert_int_equal(rename(fresh, path), 0);
}

/* A new key in the file holds for sessions that begin from then on; those that stand go on. */
static void the_cluster_key_is_read_again(void **state)
{
    char path[] = "/tmp/tessera-key-XXXXXX";
    struct auth_key first = test_key("the first key of this test"), second = test_key("the second key of this test");
    struct served s = {.events = mailbox_open()};
    struct mailbox *refused = mailbox_open();
    struct rpc_client *client;
    (void)state;
    close(mkstemp(path));
    write_key(path, "the first key of this test");
    struct rpc_conf c = conf_of("127.0.0.1:0", "coordinator", &first), late;
    c.key_file = path;
    if (rpc_server_open(&s.server, &c, s.events)) fail_msg("%s", err_text());
    snprintf(s.address, sizeof s.address, "127.0.0.1:%d", rpc_server_port(s.server));
    struct joined a = join(&s, &first, "rank 0@host");
    write_key(path, "the second key of this test");
    struct joined b = join(&s, &second, "rank 1@host");
    late = conf_of(s.address, "rank 2@host", &first);
    assert_int_equal(rpc_client_open(&client, &late, 5000, refused), OK);
    expect_closed(refused, ERR_LINK_AUTH, "wrong cluster key");
    rpc_client_close(client);
    drop_events(refused);
    write_key(path, "short"); /* says nothing: the last good one stays */
    struct joined d = join(&s, &second, "rank 3@host");
    send_numbered(a.coordinator, MSG_STEP_RESULT, 1, 10);
    control_msg_free(expect_message(s.events, MSG_STEP_RESULT));
    join_end(&a);
    join_end(&b);
    join_end(&d);
    serve_end(&s);
    unlink(path);
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "worker")) return worker_main(argv[2], argv[3]);
    if (argc > 1 && !strcmp(argv[1], "bench")) return bench(3000, 0) || bench(300, 5000);
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) return 1;
    key = test_key(key_text);
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_workers_at_once),
        cmocka_unit_test(ten_thousand_messages_in_order_both_ways),
        cmocka_unit_test(long_messages_arrive_whole),
        cmocka_unit_test(a_message_over_the_limit_ends_the_session_with_a_sentence),
        cmocka_unit_test(closing_flushes_what_was_sent),
        cmocka_unit_test(closing_a_server_flushes_and_tells_its_clients),
        cmocka_unit_test(sending_to_a_lost_peer_is_harmless),
        cmocka_unit_test(a_wrong_key_is_named_on_both_sides),
        cmocka_unit_test(a_port_in_use_is_named),
        cmocka_unit_test(nobody_listening_is_said_when_the_time_is_over),
        cmocka_unit_test(a_worker_may_start_before_its_coordinator),
        cmocka_unit_test(a_client_can_be_closed_at_any_moment),
        cmocka_unit_test(a_killed_worker_is_noticed_at_once),
        cmocka_unit_test(a_stopped_worker_is_noticed_by_keepalive),
        cmocka_unit_test(a_last_word_arrives_before_the_end),
        cmocka_unit_test(the_link_sends_plans_to_the_lead_and_wakes_all),
        cmocka_unit_test(the_cluster_key_is_read_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
