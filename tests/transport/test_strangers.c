/* test_strangers.c: what comes to the worker plane's port without the key: garbage, silence,
 * floods, too much at once. It costs little, it is dropped in time, and workers get through
 * meanwhile. HTTP/2 is spoken here by hand. */
#include "base/clock.h"
#include "base/rng.h"
#include "tests/transport/rpc_pair.h"
#include "tests/support/env.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

static struct auth_key key;
static uint64_t seed;
static const char session[] = "/tessera.Control/Session";

static int dial(const struct served *s)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)rpc_server_port(s->server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {12, 0};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static void put(int fd, const void *data, size_t n) { (void)!send(fd, data, n, MSG_NOSIGNAL); }

/* Read until the server closes, or a stream's end (RST_STREAM, or HEADERS that end it) comes; us
 * since `begin`, -1: neither. */
static int64_t until_dropped(int fd, int64_t begin)
{
    uint8_t h[9], skip[16384];
    for (;;) {
        ssize_t n = recv(fd, h, sizeof h, MSG_WAITALL);
        if (n < 0 && errno == EAGAIN) return -1;
        if (n < (ssize_t)sizeof h) break;
        if (h[3] == 3 || (h[3] == 1 && h[4] & 1)) break;
        size_t len = (size_t)h[0] << 16 | (size_t)h[1] << 8 | h[2];
        for (size_t got = 0; got < len; got += (size_t)n) {
            n = recv(fd, skip, MIN(len - got, sizeof skip), 0);
            if (n <= 0) return clock_us() - begin;
        }
    }
    return clock_us() - begin;
}

/* ---- HTTP/2 by hand ---- */

static void frame_head(struct buf *b, size_t len, uint8_t type, uint8_t flags, uint8_t stream)
{
    uint8_t h[9] = {
        (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, type, flags, 0, 0, 0, stream};
    buf_put(b, h, sizeof h);
}

static void field(struct buf *b, const char *name, const char *value)
{
    buf_u8(b, 0); /* literal, not indexed, no Huffman */
    buf_u8(b, (uint8_t)strlen(name));
    buf_puts(b, name);
    size_t n = strlen(value);
    if (n >= 127) buf_u8(b, 127); /* HPACK: seven bits, then the rest in sevens */
    buf_u8(b, (uint8_t)(n >= 127 ? (n - 127) : n));
    ASSERT(n < 127 + 128);
    buf_puts(b, value);
}

/* Preface, settings, and a call of the method, with a first handshake message unless it is NULL. */
static void begin_session(int fd, const char *method, const uint8_t *hello)
{
    char text[200];
    struct buf fields = {0}, b = {0};
    field(&fields, ":method", "POST");
    field(&fields, ":scheme", "http");
    field(&fields, ":path", method);
    field(&fields, ":authority", "localhost");
    field(&fields, "content-type", "application/grpc");
    field(&fields, "te", "trailers");
    if (hello)
        field(&fields, "tessera-hello-bin",
              sodium_bin2base64(text, sizeof text, hello, AUTH_HELLO_BYTES,
                                sodium_base64_VARIANT_ORIGINAL));
    buf_puts(&b, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    frame_head(&b, 0, 4, 0, 0);
    frame_head(&b, fields.len, 1, 4, 1);
    buf_put(&b, fields.data, fields.len);
    put(fd, b.data, b.len);
    buf_free(&b);
    buf_free(&fields);
}

/* One gRPC message that claims to have `claims` bytes, of which `n` come. */
static void send_message(int fd, uint32_t claims, const void *data, size_t n)
{
    struct buf b = {0};
    uint8_t prefix[5] = {0, (uint8_t)(claims >> 24), (uint8_t)(claims >> 16),
                         (uint8_t)(claims >> 8), (uint8_t)claims};
    frame_head(&b, sizeof prefix + n, 0, 0, 1);
    buf_put(&b, prefix, sizeof prefix);
    buf_put(&b, data, n);
    put(fd, b.data, b.len);
    buf_free(&b);
}

static void still_serves(struct served *s)
{
    struct joined j = join(s, &key, "rank 0@host");
    send_numbered(j.coordinator, MSG_STEP_RESULT, 7, 8);
    control_msg_free(expect_message(s->events, MSG_STEP_RESULT));
    join_end(&j);
    expect_closed(s->events, ERR_LINK_CLOSED, "rank 0@host");
}

/* ---- tests ---- */

static void garbage_is_dropped(void **state)
{
    (void)state;
    struct served s = serve(&key);
    static const char *const openings[] = {
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"};
    for (uint64_t i = 0; i < 30; i++) {
        int fd = dial(&s);
        uint8_t noise[2000];
        for (size_t k = 0; k < sizeof noise; k++) noise[k] = (uint8_t)rng_at(seed, i, k, 0);
        if (i % 4) put(fd, openings[i % 4 - 1], strlen(openings[i % 4 - 1]));
        put(fd, noise, sizeof noise);
        if (i % 2) assert_true(until_dropped(fd, clock_us()) >= 0);
        close(fd);
    }
    still_serves(&s);
    serve_end(&s);
}

static void good_hello(uint8_t out[AUTH_HELLO_BYTES])
{
    struct buf b = {0};
    struct trn_auth *a = trn_auth_open(&key, false, "rank 9@stranger");
    assert_int_equal(trn_auth_start(a, &b), OK);
    memcpy(out, b.data, AUTH_HELLO_BYTES);
    trn_auth_close(a);
    buf_free(&b);
}

static void a_call_without_a_good_hello_is_refused_at_once(void **state)
{
    (void)state;
    struct served s = serve(&key);
    for (uint64_t i = 0; i < 30; i++) {
        int fd = dial(&s);
        uint8_t noise[AUTH_HELLO_BYTES];
        good_hello(noise);
        if (i % 3 == 1) noise[rng_at(seed, i, 0, 1) % sizeof noise] ^= 1;
        if (i % 3 == 2) memset(noise, (int)i, sizeof noise);
        begin_session(fd, i % 3 ? session : "/other.Service/Method", i % 5 ? noise : NULL);
        assert_in_range(until_dropped(fd, clock_us()), 0, 1000000);
        close(fd);
    }
    still_serves(&s);
    serve_end(&s);
}

static void a_recorded_hello_works_once_and_never_proves(void **state)
{
    (void)state;
    struct served s = serve(&key);
    uint8_t hello[AUTH_HELLO_BYTES];
    good_hello(hello);
    int first = dial(&s), second = dial(&s);
    begin_session(first, session, hello);
    clock_sleep_us(100000);
    begin_session(second, session, hello);
    assert_in_range(until_dropped(second, clock_us()), 0, 1000000);
    hello[6] = 3; /* dressed up as the proof */
    send_message(first, sizeof hello, hello, sizeof hello);
    assert_in_range(until_dropped(first, clock_us()), 0, 1000000);
    close(first);
    close(second);
    still_serves(&s);
    serve_end(&s);
}

/* Without a hello a peer may send what the first window holds, and not a byte is asked for beyond.
 */
static void a_stranger_is_never_asked_for_more_bytes(void **state)
{
    (void)state;
    struct served s = serve(&key);
    int fd = dial(&s);
    uint8_t some[16000] = {0};
    begin_session(fd, session, NULL);
    send_message(fd, 1 << 30, some, sizeof some);
    assert_in_range(until_dropped(fd, clock_us()), 0, 1000000);
    close(fd);
    still_serves(&s);
    serve_end(&s);
}

/* Silence of three kinds at once: nothing at all, HTTP/2 without a call, and a crowd of calls that
 * prove nothing. */
static void silence_is_dropped_in_time_and_a_crowd_does_not_lock_workers_out(void **state)
{
    (void)state;
    enum { CROWD = 300 };
    struct served s = {.events = mailbox_open()};
    struct rpc_conf c = {.address = "127.0.0.1:0",
                         .identity = "coordinator",
                         .key = &key}; /* no keepalive: time alone */
    assert_int_equal(rpc_server_open(&s.server, &c, s.events), OK);
    snprintf(s.address, sizeof s.address, "127.0.0.1:%d", rpc_server_port(s.server));
    int64_t begin = clock_us();
    int mute = dial(&s), idle = dial(&s), crowd[CROWD];
    put(idle, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 24 + 9);
    for (int i = 0; i < CROWD; i++) {
        uint8_t hello[AUTH_HELLO_BYTES];
        good_hello(hello);
        crowd[i] = dial(&s);
        begin_session(crowd[i], session, hello);
    }
    struct joined j = join(&s, &key, "rank 0@host"); /* waits its turn */
    int64_t joined_us = clock_us() - begin;
    for (int i = 0; i < CROWD; i++) {
        int64_t us = until_dropped(crowd[i], begin);
        assert_in_range(us, 0, 9000000);
        close(crowd[i]);
    }
    int64_t idle_us = until_dropped(idle, begin), mute_us = until_dropped(mute, begin);
    printf("worker in after %.1f s; crowd gone, idle dropped after %.1f s, mute after %.1f s\n",
           (double)joined_us / 1e6, (double)idle_us / 1e6, (double)mute_us / 1e6);
    assert_in_range(idle_us, 0, 12000000);
    assert_in_range(mute_us, 0, 12000000);
    close(idle);
    close(mute);
    join_end(&j);
    serve_end(&s);
}

int main(int argc, char **argv)
{
    seed = test_seed();
    key = test_key("the cluster key of this test");
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(garbage_is_dropped),
        cmocka_unit_test(a_call_without_a_good_hello_is_refused_at_once),
        cmocka_unit_test(a_recorded_hello_works_once_and_never_proves),
        cmocka_unit_test(a_stranger_is_never_asked_for_more_bytes),
        cmocka_unit_test(silence_is_dropped_in_time_and_a_crowd_does_not_lock_workers_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
