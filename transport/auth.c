/* auth.c: see auth.h. HMAC-SHA256 and randomness from libsodium.
 *
 * A handshake message is 136 bytes:
 *     magic[4] version u16 step u8 zero u8 | identity[64] | nonce[32] | tag[32]
 *     tag 1 = HMAC(K, "tessera hello" . step . message without tag)
 *     tag 2 = HMAC(K, "tessera hello" . step . hello1 . message without tag)
 *     tag 3 = HMAC(K, "tessera hello" . step . hello1 . hello2 . message without tag)
 * Step 1 and 3 come from the client, 2 from the server, so role, version, both identities and both
 * nonces are under tag 2 and 3. Tag 1 proves nothing fresh; it lets the server name a wrong key at
 * once. Frames use two keys, one per direction:
 *     key = HMAC(K, "tessera frames" . direction . hello1 . hello2)
 *     frame = seq u64 | payload | HMAC(key, seq . payload)
 *
 * I1  after the first failure nothing more is accepted or sent (state BROKEN).
 * I2  a tag is compared in constant time, and before any other byte of a frame is believed.
 * Not here: secrecy. Whoever can read the wire reads the frames; TLS is the remedy. */
#include "transport/auth.h"

#include "proto/control.h"

#include <sodium.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_BYTES = 8, SEQ_BYTES = 8, BODY_BYTES = AUTH_HELLO_BYTES - AUTH_TAG_BYTES };
enum state { WANT_HELLO1, WANT_HELLO2, WANT_HELLO3, OPEN, BROKEN };

static const uint8_t magic[4] = {'T', 'S', 'R', 'A'};

struct trn_auth {
    struct auth_key key;
    bool server;
    enum state state;
    char identity[AUTH_ID_BYTES], peer[AUTH_ID_BYTES];
    uint8_t hello1[AUTH_HELLO_BYTES], hello2[AUTH_HELLO_BYTES];
    struct auth_key send_key, recv_key;
    uint64_t n_sent, n_received;
};

struct trn_auth *trn_auth_open(const struct auth_key *key, bool server, const char *identity)
{
    ASSERT(sodium_init() >= 0);
    struct trn_auth *a = xcalloc(1, sizeof *a);
    a->key = *key;
    a->server = server;
    a->state = server ? WANT_HELLO1 : WANT_HELLO2;
    for (size_t i = 0; i < sizeof a->identity - 1 && identity[i]; i++)
        a->identity[i] = identity[i] >= 0x20 && identity[i] < 0x7f ? identity[i] : '?';
    return a;
}

void trn_auth_close(struct trn_auth *a)
{
    if (!a) return;
    sodium_memzero(a, sizeof *a);
    free(a);
}

const char *trn_auth_peer(const struct trn_auth *a) { return a->peer; }

/* ---- handshake ---- */

static void hello_tag(const struct trn_auth *a, const uint8_t *hello, uint8_t step,
                      uint8_t tag[AUTH_TAG_BYTES])
{
    crypto_auth_hmacsha256_state s;
    crypto_auth_hmacsha256_init(&s, a->key.bytes, sizeof a->key.bytes);
    crypto_auth_hmacsha256_update(&s, (const uint8_t *)"tessera hello", 13);
    crypto_auth_hmacsha256_update(&s, &step, 1);
    if (step > 1) crypto_auth_hmacsha256_update(&s, a->hello1, sizeof a->hello1);
    if (step > 2) crypto_auth_hmacsha256_update(&s, a->hello2, sizeof a->hello2);
    crypto_auth_hmacsha256_update(&s, hello, BODY_BYTES);
    crypto_auth_hmacsha256_final(&s, tag);
}

static void hello_write(const struct trn_auth *a, uint8_t step, uint8_t out[AUTH_HELLO_BYTES])
{
    memset(out, 0, AUTH_HELLO_BYTES);
    memcpy(out, magic, sizeof magic);
    out[4] = CONTROL_VERSION & 0xff;
    out[5] = CONTROL_VERSION >> 8;
    out[6] = step;
    memcpy(out + HEAD_BYTES, a->identity, AUTH_ID_BYTES);
    randombytes_buf(out + HEAD_BYTES + AUTH_ID_BYTES, AUTH_NONCE_BYTES);
    hello_tag(a, out, step, out + BODY_BYTES);
}

static void derive(const struct trn_auth *a, const char *direction, struct auth_key *out)
{
    crypto_auth_hmacsha256_state s;
    crypto_auth_hmacsha256_init(&s, a->key.bytes, sizeof a->key.bytes);
    crypto_auth_hmacsha256_update(&s, (const uint8_t *)"tessera frames", 14);
    crypto_auth_hmacsha256_update(&s, (const uint8_t *)direction, strlen(direction));
    crypto_auth_hmacsha256_update(&s, a->hello1, sizeof a->hello1);
    crypto_auth_hmacsha256_update(&s, a->hello2, sizeof a->hello2);
    crypto_auth_hmacsha256_final(&s, out->bytes);
}

static void open_frames(struct trn_auth *a)
{
    derive(a, "client to server", a->server ? &a->recv_key : &a->send_key);
    derive(a, "server to client", a->server ? &a->send_key : &a->recv_key);
    a->state = OPEN;
}

/* The identity of a hello: printable, not empty, nothing after its NUL. */
static bool identity_ok(const uint8_t id[AUTH_ID_BYTES])
{
    size_t n = 0;
    while (n < AUTH_ID_BYTES && id[n] >= 0x20 && id[n] < 0x7f) n++;
    return n > 0 && n < AUTH_ID_BYTES && sodium_is_zero(id + n, AUTH_ID_BYTES - n);
}

static enum err hello_check(struct trn_auth *a, const uint8_t *hello, size_t n, uint8_t step)
{
    uint8_t tag[AUTH_TAG_BYTES];
    if (n != AUTH_HELLO_BYTES || memcmp(hello, magic, sizeof magic))
        return err_raise(ERR_LINK_AUTH, "%zu bytes that are no tessera handshake (one has %d)", n,
                         AUTH_HELLO_BYTES);
    unsigned version = hello[4] | (unsigned)hello[5] << 8;
    if (version != CONTROL_VERSION)
        return err_raise(
            ERR_LINK_AUTH,
            "the peer speaks control version %u, this side speaks %d: install the same "
            "release on every host",
            version, CONTROL_VERSION);
    if (hello[6] != step || hello[7])
        return err_raise(ERR_LINK_AUTH, "handshake message %u where %u was expected", hello[6],
                         step);
    if (!identity_ok(hello + HEAD_BYTES))
        return err_raise(ERR_LINK_AUTH, "a handshake without a readable identity");
    hello_tag(a, hello, step, tag);
    if (sodium_memcmp(tag, hello + BODY_BYTES, AUTH_TAG_BYTES))
        return err_raise(
            ERR_LINK_AUTH,
            "wrong cluster key: \"%s\" and \"%s\" do not hold the same one; give every host "
            "the same key file or TESSERA_CLUSTER_KEY",
            a->identity, (const char *)hello + HEAD_BYTES);
    return OK;
}

enum err trn_auth_start(struct trn_auth *a, struct buf *send)
{
    if (a->server) return OK;
    if (a->state != WANT_HELLO2) return err_raise(ERR_LINK_AUTH, "a handshake starts once");
    hello_write(a, 1, a->hello1);
    buf_put(send, a->hello1, sizeof a->hello1);
    return OK;
}

static enum err server_receive(struct trn_auth *a, const uint8_t *hello, size_t n, struct buf *send,
                               bool *done)
{
    enum err rc = OK;
    if (a->state == WANT_HELLO1) {
        TRY(hello_check(a, hello, n, 1));
        memcpy(a->hello1, hello, sizeof a->hello1);
        hello_write(a, 2, a->hello2);
        buf_put(send, a->hello2, sizeof a->hello2);
        a->state = WANT_HELLO3;
        *done = false;
        return OK;
    }
    TRY(hello_check(a, hello, n, 3));
    if (memcmp(hello + HEAD_BYTES, a->hello1 + HEAD_BYTES, AUTH_ID_BYTES))
        TRY(err_raise(ERR_LINK_AUTH, "the peer changed its identity during the handshake"));
    memcpy(a->peer, hello + HEAD_BYTES, AUTH_ID_BYTES);
    open_frames(a);
    *done = true;
out:
    return rc;
}

static enum err client_receive(struct trn_auth *a, const uint8_t *hello, size_t n, struct buf *send,
                               bool *done)
{
    enum err rc = OK;
    uint8_t hello3[AUTH_HELLO_BYTES];
    TRY(hello_check(a, hello, n, 2));
    memcpy(a->hello2, hello, sizeof a->hello2);
    memcpy(a->peer, hello + HEAD_BYTES, AUTH_ID_BYTES);
    hello_write(a, 3, hello3);
    buf_put(send, hello3, sizeof hello3);
    open_frames(a);
    *done = true;
out:
    return rc;
}

enum err trn_auth_receive(struct trn_auth *a, const void *data, size_t n, struct buf *send,
                          bool *done)
{
    enum err rc;
    if (a->state == OPEN || a->state == BROKEN)
        rc = err_raise(ERR_LINK_AUTH, "a handshake message after the handshake");
    else
        rc = a->server ? server_receive(a, data, n, send, done)
                       : client_receive(a, data, n, send, done);
    if (rc) a->state = BROKEN;
    return rc;
}

/* ---- frames ---- */

static void put_u64(uint8_t out[SEQ_BYTES], uint64_t v)
{
    for (size_t i = 0; i < SEQ_BYTES; i++) out[i] = (uint8_t)(v >> (8 * i));
}

void trn_auth_seal(struct trn_auth *a, const void *payload, size_t n, struct buf *frame)
{
    ASSERT(a->state == OPEN);
    uint8_t seq[SEQ_BYTES], tag[AUTH_TAG_BYTES];
    crypto_auth_hmacsha256_state s;
    put_u64(seq, a->n_sent++);
    crypto_auth_hmacsha256_init(&s, a->send_key.bytes, sizeof a->send_key.bytes);
    crypto_auth_hmacsha256_update(&s, seq, sizeof seq);
    crypto_auth_hmacsha256_update(&s, payload, n);
    crypto_auth_hmacsha256_final(&s, tag);
    buf_reserve(frame, sizeof seq + n + sizeof tag);
    buf_put(frame, seq, sizeof seq);
    buf_put(frame, payload, n);
    buf_put(frame, tag, sizeof tag);
}

static enum err check_frame(struct trn_auth *a, const uint8_t *f, size_t n)
{
    uint8_t seq[SEQ_BYTES], tag[AUTH_TAG_BYTES];
    if (a->state != OPEN)
        return err_raise(ERR_LINK_AUTH, "a frame outside an authenticated session");
    if (n < SEQ_BYTES + AUTH_TAG_BYTES)
        return err_raise(ERR_LINK_AUTH, "a frame of %zu bytes, the shortest has %d", n,
                         SEQ_BYTES + AUTH_TAG_BYTES);
    crypto_auth_hmacsha256_state s;
    crypto_auth_hmacsha256_init(&s, a->recv_key.bytes, sizeof a->recv_key.bytes);
    crypto_auth_hmacsha256_update(&s, f, n - AUTH_TAG_BYTES);
    crypto_auth_hmacsha256_final(&s, tag);
    if (sodium_memcmp(tag, f + n - AUTH_TAG_BYTES, AUTH_TAG_BYTES))
        return err_raise(ERR_LINK_AUTH,
                         "frame %" PRIu64 " from \"%s\" carries a wrong tag: altered on the way",
                         a->n_received, a->peer);
    put_u64(seq, a->n_received);
    if (memcmp(seq, f, SEQ_BYTES))
        return err_raise(ERR_LINK_AUTH, "a frame from \"%s\" out of sequence where frame %" PRIu64
                         " was expected: replayed, reordered or lost", a->peer, a->n_received);
    return OK;
}

enum err trn_auth_open_frame(struct trn_auth *a, const void *frame, size_t n,
                             const uint8_t **payload, size_t *payload_n)
{
    enum err rc = OK;
    TRY(check_frame(a, frame, n));
    a->n_received++;
    *payload = (const uint8_t *)frame + SEQ_BYTES;
    *payload_n = n - SEQ_BYTES - AUTH_TAG_BYTES;
out:
    if (rc) a->state = BROKEN;
    return rc;
}
