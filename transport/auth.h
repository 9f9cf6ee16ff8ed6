/* auth.h: who may speak on the worker plane: the cluster key, the handshake, the tag on every frame.
 *
 * Both sides prove the cluster key by HMAC-SHA256 over both nonces and identities in fixed-size messages before anything else
 * is decoded. Every later frame carries a sequence number and a tag under a key derived from both nonces and the direction,
 * so replay, reordering, truncation and reflection are refused. Pure: no sockets. Thr: its owner. */
#ifndef TRANSPORT_AUTH_H
#define TRANSPORT_AUTH_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>

enum { AUTH_KEY_BYTES = 32, AUTH_NONCE_BYTES = 32, AUTH_TAG_BYTES = 32, AUTH_ID_BYTES = 64,
       AUTH_HELLO_BYTES = 8 + AUTH_ID_BYTES + AUTH_NONCE_BYTES + AUTH_TAG_BYTES };

struct auth_key { uint8_t bytes[AUTH_KEY_BYTES]; };

/* From a file that must be 0600 (or stricter) and owned by this user, or from the environment TESSERA_CLUSTER_KEY; any text of
 * 16 bytes or more (hashed to the key). Err BAD_CONFIG naming file and mode and the chmod that cures it. */
MUST_USE enum err trn_auth_key_load(struct auth_key *out, const char *file_or_null);
/* A fresh random key as printable text, for a managed start. out[65]. */
void trn_auth_key_generate(char out[65]);
MUST_USE enum err trn_auth_key_of_text(struct auth_key *out, const char *text);

struct trn_auth; /* one side of one connection */
struct trn_auth *trn_auth_open(const struct auth_key *key, bool server, const char *identity);
void trn_auth_close(struct trn_auth *a);
/* The handshake: client sends hello1; server answers hello2 (proves the key over both nonces); client sends hello3 (its proof).
 * Each call appends the message to send, or consumes the peer's; Err LINK_AUTH with one sentence ("wrong cluster key", "version 2,
 * this side speaks 1", ...). done: both proofs stand; frames may flow. */
MUST_USE enum err trn_auth_start(struct trn_auth *a, struct buf *send);
MUST_USE enum err trn_auth_receive(struct trn_auth *a, const void *data, size_t n, struct buf *send, bool *done);
const char *trn_auth_peer(const struct trn_auth *a); /* identity, after done */
/* Wrap a payload: sequence number, payload, tag. */
void trn_auth_seal(struct trn_auth *a, const void *payload, size_t n, struct buf *frame);
/* Check and unwrap in place: *payload points into frame. */
MUST_USE enum err trn_auth_open_frame(struct trn_auth *a, const void *frame, size_t n, const uint8_t **payload,
                                      size_t *payload_n);

#endif
