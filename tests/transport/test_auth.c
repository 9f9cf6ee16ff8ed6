/* test_auth.c: the handshake and the frames let in whoever holds the key, in order, once; and
 * nobody else. */
#include "transport/auth.h"
#include "proto/control.h"

#include "base/clock.h"
#include "base/rng.h"
#include "tests/support/env.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static uint64_t seed;

static struct auth_key key_of(const char *text)
{
    struct auth_key k;
    assert_int_equal(trn_auth_key_of_text(&k, text), OK);
    return k;
}

struct pair { struct trn_auth *client, *server; };

static struct pair pair_open(void)
{
    struct auth_key k = key_of("sixteen bytes or more");
    return (struct pair){trn_auth_open(&k, false, "rank 1@hostb"),
                         trn_auth_open(&k, true, "coordinator")};
}

static void pair_close(struct pair p)
{
    trn_auth_close(p.client);
    trn_auth_close(p.server);
}

static void shake(struct pair p)
{
    struct buf a = {0}, b = {0}, c = {0}, none = {0};
    bool done = true;
    assert_int_equal(trn_auth_start(p.client, &a), OK);
    assert_int_equal(a.len, AUTH_HELLO_BYTES);
    assert_int_equal(trn_auth_receive(p.server, a.data, a.len, &b, &done), OK);
    assert_false(done);
    assert_int_equal(b.len, AUTH_HELLO_BYTES);
    assert_int_equal(trn_auth_receive(p.client, b.data, b.len, &c, &done), OK);
    assert_true(done);
    done = false;
    assert_int_equal(c.len, AUTH_HELLO_BYTES);
    assert_int_equal(trn_auth_receive(p.server, c.data, c.len, &none, &done), OK);
    assert_true(done);
    assert_int_equal(none.len, 0);
    buf_free(&a);
    buf_free(&b);
    buf_free(&c);
}

static struct pair pair_shaken(void)
{
    struct pair p = pair_open();
    shake(p);
    return p;
}

static void both_sides_learn_the_other(void **state)
{
    (void)state;
    struct pair p = pair_shaken();
    assert_string_equal(trn_auth_peer(p.server), "rank 1@hostb");
    assert_string_equal(trn_auth_peer(p.client), "coordinator");
    pair_close(p);
}

static void frames_pass_both_ways_in_order(void **state)
{
    (void)state;
    struct pair p = pair_shaken();
    const uint8_t *got;
    size_t n;
    for (uint32_t i = 0; i < 300; i++) {
        struct buf f = {0}, g = {0};
        trn_auth_seal(p.client, &i, i % 5, &f);
        trn_auth_seal(p.server, "pong", 4, &g);
        assert_int_equal(trn_auth_open_frame(p.server, f.data, f.len, &got, &n), OK);
        assert_int_equal(n, i % 5);
        assert_memory_equal(got, &i, n);
        assert_int_equal(trn_auth_open_frame(p.client, g.data, g.len, &got, &n), OK);
        assert_true(n == 4 && !memcmp(got, "pong", 4));
        buf_free(&f);
        buf_free(&g);
    }
    pair_close(p);
}

static void refused(struct trn_auth *a, const void *data, size_t n, const char *words)
{
    struct buf out = {0};
    bool done = false;
    assert_int_equal(trn_auth_receive(a, data, n, &out, &done), ERR_LINK_AUTH);
    assert_non_null(strstr(err_text(), words));
    assert_int_equal(out.len, 0);
    assert_false(done);
    /* and nothing more is believed */
    assert_int_equal(trn_auth_receive(a, data, n, &out, &done), ERR_LINK_AUTH);
}

static void a_wrong_key_is_named_by_both(void **state)
{
    (void)state;
    struct auth_key k = key_of("sixteen bytes or more"),
                    wrong = key_of("sixteen bytes, other ones");
    struct trn_auth *client = trn_auth_open(&wrong, false, "rank 1@hostb");
    struct trn_auth *server = trn_auth_open(&k, true, "coordinator");
    struct buf hello = {0}, answer = {0};
    assert_int_equal(trn_auth_start(client, &hello), OK);
    refused(server, hello.data, hello.len,
            "wrong cluster key: \"coordinator\" and \"rank 1@hostb\"");

    /* a server that answers without knowing the client's key */
    struct trn_auth *rogue = trn_auth_open(&k, true, "rogue"),
                    *honest = trn_auth_open(&k, false, "x");
    bool done;
    struct buf h = {0};
    assert_int_equal(trn_auth_start(honest, &h), OK);
    assert_int_equal(trn_auth_receive(rogue, h.data, h.len, &answer, &done), OK);
    refused(client, answer.data, answer.len, "wrong cluster key");
    buf_free(&hello);
    buf_free(&answer);
    buf_free(&h);
    trn_auth_close(client);
    trn_auth_close(server);
    trn_auth_close(rogue);
    trn_auth_close(honest);
}

/* There is nothing to agree on: an older version is as refused as a newer one, by either side, and a
 * message whose version was altered on the way ends the handshake whatever the other side speaks. */
static void another_version_is_named(void **state)
{
    char want[80];
    (void)state;
    for (int v = 0; v <= CONTROL_VERSION + 1; v++) {
        if (v == CONTROL_VERSION) continue;
        struct pair p = pair_open(), q = pair_open();
        struct buf hello = {0}, hello2 = {0};
        bool done;
        snprintf(want, sizeof want, "the peer speaks control version %d, this side speaks %d", v,
                 CONTROL_VERSION);
        assert_int_equal(trn_auth_start(p.client, &hello), OK);
        hello.data[4] = (uint8_t)v;
        refused(p.server, hello.data, hello.len, want);
        buf_clear(&hello);
        assert_int_equal(trn_auth_start(q.client, &hello), OK);
        assert_int_equal(trn_auth_receive(q.server, hello.data, hello.len, &hello2, &done), OK);
        hello2.data[4] = (uint8_t)v;
        refused(q.client, hello2.data, hello2.len, want);
        buf_free(&hello);
        buf_free(&hello2);
        pair_close(p);
        pair_close(q);
    }
}

static void a_recorded_handshake_is_useless(void **state)
{
    (void)state;
    struct auth_key k = key_of("sixteen bytes or more");
    struct pair p = pair_open();
    struct buf a = {0}, b = {0}, c = {0}, none = {0};
    bool done;
    assert_int_equal(trn_auth_start(p.client, &a), OK);
    assert_int_equal(trn_auth_receive(p.server, a.data, a.len, &b, &done), OK);
    assert_int_equal(trn_auth_receive(p.client, b.data, b.len, &c, &done), OK);
    /* another session of the same server: the recorded first message is answered, the recorded
     * proof is not believed */
    struct trn_auth *again = trn_auth_open(&k, true, "coordinator");
    assert_int_equal(trn_auth_receive(again, a.data, a.len, &none, &done), OK);
    refused(again, c.data, c.len, "wrong cluster key");
    trn_auth_close(again);
    /* reflected: the client's own message as the server's answer */
    struct trn_auth *mirror = trn_auth_open(&k, false, "rank 0");
    struct buf own = {0};
    assert_int_equal(trn_auth_start(mirror, &own), OK);
    refused(mirror, own.data, own.len, "handshake message 1 where 2 was expected");
    trn_auth_close(mirror);
    buf_free(&own);
    buf_free(&a);
    buf_free(&b);
    buf_free(&c);
    buf_free(&none);
    pair_close(p);
}

/* Every single flipped bit and every other length of each of the three messages is refused. */
static void a_damaged_handshake_is_refused(void **state)
{
    (void)state;
    struct auth_key k = key_of("sixteen bytes or more");
    for (size_t bit = 0; bit < AUTH_HELLO_BYTES * 8; bit += 3) {
        for (int which = 0; which < 3; which++) {
            struct trn_auth *c = trn_auth_open(&k, false, "c"), *s = trn_auth_open(&k, true, "s");
            struct buf m[3] = {0}, none = {0};
            bool done = false;
            enum err rc = trn_auth_start(c, &m[0]);
            for (int i = 0; i < 3 && !rc; i++) {
                if (i == which) m[i].data[bit / 8] ^= (uint8_t)(1u << bit % 8);
                rc = trn_auth_receive(i == 1 ? c : s, m[i].data, m[i].len,
                                      i < 2 ? &m[i + 1] : &none, &done);
            }
            assert_int_equal(rc, ERR_LINK_AUTH);
            for (int i = 0; i < 3; i++) buf_free(&m[i]);
            trn_auth_close(c);
            trn_auth_close(s);
        }
    }
    for (size_t n = 0; n < 200; n++) {
        uint8_t bytes[200] = "TSRA\1\0\1";
        struct trn_auth *s = trn_auth_open(&k, true, "s");
        if (n != AUTH_HELLO_BYTES) refused(s, bytes, n, "no tessera handshake");
        trn_auth_close(s);
    }
}

static void frame_refused(struct trn_auth *a, const void *data, size_t n, const char *words)
{
    const uint8_t *got;
    size_t got_n;
    assert_int_equal(trn_auth_open_frame(a, data, n, &got, &got_n), ERR_LINK_AUTH);
    assert_non_null(strstr(err_text(), words));
}

static void replay_reorder_reflection_truncation_are_refused(void **state)
{
    (void)state;
    const uint8_t *got;
    size_t n;
    for (int what = 0; what < 5; what++) {
        struct pair p = pair_shaken(), other = pair_shaken();
        struct buf f[2] = {0};
        trn_auth_seal(p.client, "first", 5, &f[0]);
        trn_auth_seal(p.client, "second", 6, &f[1]);
        if (what == 0) {
            assert_int_equal(trn_auth_open_frame(p.server, f[0].data, f[0].len, &got, &n), OK);
            frame_refused(p.server, f[0].data, f[0].len,
                          "out of sequence where frame 1 was expected");
        } else if (what == 1) {
            frame_refused(p.server, f[1].data, f[1].len,
                          "out of sequence where frame 0 was expected");
        } else if (what == 2) {
            frame_refused(p.client, f[0].data, f[0].len, "wrong tag");
        } else if (what == 3) {
            frame_refused(p.server, f[0].data, f[0].len - 1, "wrong tag");
        } else {
            frame_refused(other.server, f[0].data, f[0].len,
                          "wrong tag"); /* another session, same key */
        }
        /* after a refusal even a good frame is refused */
        if (what == 3)
            frame_refused(p.server, f[0].data, f[0].len, "outside an authenticated session");
        buf_free(&f[0]);
        buf_free(&f[1]);
        pair_close(p);
        pair_close(other);
    }
}

static void every_flipped_bit_of_a_frame_is_refused(void **state)
{
    (void)state;
    struct buf f = {0};
    struct pair p = pair_shaken();
    trn_auth_seal(p.client, "payload", 7, &f);
    pair_close(p);
    for (size_t bit = 0; bit < f.len * 8; bit++) {
        p = pair_shaken();
        buf_clear(&f);
        trn_auth_seal(p.client, "payload", 7, &f);
        f.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        frame_refused(p.server, f.data, f.len, "wrong tag");
        pair_close(p);
    }
    for (size_t n = 0; n < 40; n++) {
        p = pair_shaken();
        frame_refused(p.server, f.data, n, "the shortest has 40");
        pair_close(p);
    }
    buf_free(&f);
}

static void random_bytes_are_refused(void **state)
{
    (void)state;
    for (uint64_t round = 0; round < 3000; round++) {
        uint8_t bytes[256];
        size_t n = rng_at(seed, round, 1, 0) % sizeof bytes;
        for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)rng_at(seed, round, 2, i);
        struct pair p = pair_open();
        struct buf out = {0};
        bool done;
        if (round & 1) memcpy(bytes, "TSRA\1\0\1\0", 8);
        assert_int_equal(trn_auth_receive(p.server, bytes, n, &out, &done), ERR_LINK_AUTH);
        assert_int_equal(trn_auth_receive(p.client, bytes, n, &out, &done), ERR_LINK_AUTH);
        pair_close(p);
    }
}

/* ---- keys ---- */

static char dir[] = "/tmp/tessera-auth-XXXXXX";

static const char *write_key(const char *text, mode_t mode)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/key", dir);
    unlink(path);
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
    chmod(path, mode);
    return path;
}

static void a_key_file_must_be_private(void **state)
{
    (void)state;
    struct auth_key k, same;
    mode_t bad[] = {0644, 0640, 0660, 0604, 0601, 0777}, good[] = {0600, 0400};
    char words[64];
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        const char *path = write_key("0123456789abcdef\n", bad[i]);
        assert_int_equal(trn_auth_key_load(&k, path), ERR_BAD_CONFIG);
        snprintf(words, sizeof words, "has mode %04o", (unsigned)bad[i]);
        assert_non_null(strstr(err_text(), words));
        assert_non_null(strstr(err_text(), "chmod 600"));
        assert_non_null(strstr(err_text(), path));
    }
    for (size_t i = 0; i < COUNT_OF(good); i++)
        assert_int_equal(trn_auth_key_load(&k, write_key("0123456789abcdef\r\n", good[i])), OK);
    same = key_of("0123456789abcdef"); /* the line break is no part of the key */
    assert_memory_equal(&k, &same, sizeof k);
}

static void other_bad_keys_are_named(void **state)
{
    (void)state;
    struct auth_key k;
    assert_int_equal(trn_auth_key_load(&k, "/nonexistent/key"), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "/nonexistent/key: No such file"));
    assert_int_equal(trn_auth_key_load(&k, dir), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "not a regular file"));
    assert_int_equal(trn_auth_key_load(&k, write_key("short\n", 0600)), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "has 5 bytes, needed at least 16"));
    char *big = malloc(5001);
    memset(big, 'k', 5000);
    big[5000] = 0;
    assert_int_equal(trn_auth_key_load(&k, write_key(big, 0600)), ERR_BAD_CONFIG);
    free(big);
    char path[128];
    snprintf(path, sizeof path, "%s/fifo", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(trn_auth_key_load(&k, path), ERR_BAD_CONFIG); /* and does not hang */
    unlink(path);
}

static void the_environment_is_the_other_source(void **state)
{
    (void)state;
    struct auth_key k, same;
    char text[65];
    unsetenv("TESSERA_CLUSTER_KEY");
    assert_int_equal(trn_auth_key_load(&k, NULL), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "TESSERA_CLUSTER_KEY"));
    trn_auth_key_generate(text);
    assert_int_equal(strlen(text), 64);
    setenv("TESSERA_CLUSTER_KEY", text, 1);
    assert_int_equal(trn_auth_key_load(&k, NULL), OK);
    same = key_of(text);
    assert_memory_equal(&k, &same, sizeof k);
    char other[65];
    trn_auth_key_generate(other);
    assert_string_not_equal(text, other);
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    unlink(write_key("", 0600));
    return rmdir(dir);
}

int main(void)
{
    seed = test_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_sides_learn_the_other),
        cmocka_unit_test(frames_pass_both_ways_in_order),
        cmocka_unit_test(a_wrong_key_is_named_by_both),
        cmocka_unit_test(another_version_is_named),
        cmocka_unit_test(a_recorded_handshake_is_useless),
        cmocka_unit_test(a_damaged_handshake_is_refused),
        cmocka_unit_test(replay_reorder_reflection_truncation_are_refused),
        cmocka_unit_test(every_flipped_bit_of_a_frame_is_refused),
        cmocka_unit_test(random_bytes_are_refused),
        cmocka_unit_test(a_key_file_must_be_private),
        cmocka_unit_test(other_bad_keys_are_named),
        cmocka_unit_test(the_environment_is_the_other_source),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
