/* rpc_peer.c: one session: sending, receiving, beginning and ending. See rpc_core.h and rpc.h. */
#include "transport/rpc_core.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- bytes in and out of gRPC ---- */

static grpc_byte_buffer *bytes_of(const struct buf *b)
{
    grpc_slice s = grpc_slice_from_copied_buffer((const char *)b->data, b->len);
    grpc_byte_buffer *bb = grpc_raw_byte_buffer_create(&s, 1);
    grpc_slice_unref(s);
    return bb;
}

static grpc_slice slice_of(grpc_byte_buffer *bb)
{
    grpc_byte_buffer_reader r;
    if (!grpc_byte_buffer_reader_init(&r, bb)) return grpc_empty_slice();
    grpc_slice s = grpc_byte_buffer_reader_readall(&r);
    grpc_byte_buffer_reader_destroy(&r);
    return s;
}

/* ---- reasons and names ---- */

const char *rpc_peer_name(const struct rpc_peer *p)
{
    const char *id = p->auth ? trn_auth_peer(p->auth) : "";
    return *id ? id : p->address;
}

void rpc_peer_reason(struct rpc_peer *p, enum err err, const char *fmt, ...)
{
    char text[sizeof p->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&p->lock);
    if (!p->err) {
        p->err = err;
        memcpy(p->text, text, sizeof p->text);
    }
    pthread_mutex_unlock(&p->lock);
}

static void cancel_locked(struct rpc_peer *p, grpc_status_code code, const char *why)
{
    p->closing = true;
    if (!p->call || p->cancelled_here) return;
    p->cancelled_here = true;
    (void)grpc_call_cancel_with_status(p->call, code, why, NULL);
}

void rpc_peer_cancel(struct rpc_peer *p, grpc_status_code code, const char *why)
{
    pthread_mutex_lock(&p->lock);
    cancel_locked(p, code, why);
    pthread_mutex_unlock(&p->lock);
}

static void post_event(struct rpc_peer *p, enum rpc_event_kind kind, struct control_msg *msg)
{
    struct rpc_event *e = xcalloc(1, sizeof *e);
    *e = (struct rpc_event){.kind = kind, .peer = p, .msg = msg};
    if (kind == RPC_CLOSED) {
        pthread_mutex_lock(&p->lock);
        e->err = p->err;
        memcpy(e->text, p->text, sizeof e->text);
        e->orderly = p->orderly;
        pthread_mutex_unlock(&p->lock);
    }
    mailbox_put(p->core->events, e);
}

/* ---- batches ---- */

void rpc_peer_batch(struct rpc_peer *p, const grpc_op *ops, size_t n, struct rpc_tag *tag)
{
    p->pending++;
    grpc_call_error e = grpc_call_start_batch(p->call, ops, n, tag, NULL);
    ASSERT(e == GRPC_CALL_OK);
}

static void read_more(struct rpc_peer *p)
{
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
    op.data.recv_message.recv_message = &p->incoming;
    pthread_mutex_lock(&p->lock);
    rpc_peer_batch(p, &op, 1, &p->t_recv);
    pthread_mutex_unlock(&p->lock);
}

/* ---- sending: a queue of sealed messages, one in flight ---- */

static void send_locked(struct rpc_peer *p, grpc_byte_buffer *bytes)
{
    grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
    op.data.send_message.send_message = bytes;
    p->sending = true;
    rpc_peer_batch(p, &op, 1, &p->t_send);
    grpc_byte_buffer_destroy(bytes); /* the call holds its own reference */
}

static void queue_locked(struct rpc_peer *p, const struct buf *message)
{
    grpc_byte_buffer *bytes = bytes_of(message);
    if (!p->sending) {
        send_locked(p, bytes);
        return;
    }
    struct rpc_out *o = xmalloc(sizeof *o);
    *o = (struct rpc_out){NULL, bytes};
    *p->tail = o;
    p->tail = &o->next;
}

static void drop_queue_locked(struct rpc_peer *p)
{
    for (struct rpc_out *o = p->head, *next; o; o = next) {
        next = o->next;
        grpc_byte_buffer_destroy(o->bytes);
        free(o);
    }
    p->head = NULL;
    p->tail = &p->head;
}

/* The queue is empty and the owner wants to close: end the stream in order, once. */
static bool finish_due_locked(struct rpc_peer *p)
{
    if (!p->closing || !p->connected || p->sending || p->finished || !p->call) return false;
    p->finished = true;
    return true;
}

static void on_sent(struct rpc_tag *t, bool ok)
{
    struct rpc_peer *p = t->owner;
    pthread_mutex_lock(&p->lock);
    p->sending = false;
    struct rpc_out *o = p->head;
    if (!ok) {
        drop_queue_locked(p);
    } else if (o) {
        p->head = o->next;
        if (!p->head) p->tail = &p->head;
        send_locked(p, o->bytes);
        free(o);
    }
    if (finish_due_locked(p)) p->core->role->finish(p);
    pthread_mutex_unlock(&p->lock);
    rpc_peer_done(p);
}

/* A long message goes as several frames; each begins with 1 when more pieces follow, 0 in the last.
 */
static void seal_pieces_locked(struct rpc_peer *p, const struct buf *m)
{
    struct buf piece = {0}, frame = {0};
    for (size_t at = 0; at < m->len; at += RPC_PIECE_BYTES) {
        size_t n = MIN(m->len - at, (size_t)RPC_PIECE_BYTES);
        buf_clear(&piece);
        buf_clear(&frame);
        buf_u8(&piece, at + n < m->len);
        buf_put(&piece, m->data + at, n);
        trn_auth_seal(p->auth, piece.data, piece.len, &frame);
        queue_locked(p, &frame);
    }
    buf_free(&piece);
    buf_free(&frame);
}

void rpc_peer_send(struct rpc_peer *p, const struct control_msg *m)
{
    struct buf b = {0};
    control_encode(m, &b);
    if (b.len > LIMIT_FRAME_BYTES) {
        rpc_peer_reason(p, ERR_LINK_PROTOCOL,
                        "a %s of %zu bytes was to be sent, at most %d are allowed",
                        control_type_name(m->type), b.len, LIMIT_FRAME_BYTES);
        rpc_peer_cancel(p, GRPC_STATUS_INTERNAL, "a message was too long");
    } else {
        pthread_mutex_lock(&p->lock);
        if (p->call && p->connected && !p->closing) seal_pieces_locked(p, &b);
        pthread_mutex_unlock(&p->lock);
    }
    buf_free(&b);
}

/* ---- receiving ---- */

/* The session is over because of what the peer sent: err_text() says why, to the owner and to the
 * peer. */
static void refuse(struct rpc_peer *p, enum err rc)
{
    p->refused = true;
    rpc_peer_reason(p, rc, "%s", err_text());
    rpc_peer_cancel(
        p, rc == ERR_LINK_AUTH ? GRPC_STATUS_UNAUTHENTICATED : GRPC_STATUS_INVALID_ARGUMENT,
        err_text());
}

static enum err handshake(struct rpc_peer *p, const void *theirs, size_t n)
{
    struct buf answer = {0};
    bool done = false;
    pthread_mutex_lock(&p->lock);
    enum err rc = trn_auth_receive(p->auth, theirs, n, &answer, &done);
    if (!rc && answer.len) queue_locked(p, &answer); /* hello 3 */
    if (!rc && done) p->connected = true;
    pthread_mutex_unlock(&p->lock);
    buf_free(&answer);
    if (!rc && !done) rc = err_raise(ERR_LINK_AUTH, "the handshake is not over where it should be");
    return rc;
}

void rpc_peer_hello(struct rpc_peer *p, const void *theirs, size_t n)
{
    enum err rc = handshake(p, theirs, n);
    if (rc)
        refuse(p, rc);
    else
        post_event(p, RPC_CONNECTED, NULL);
}

static enum err deliver(struct rpc_peer *p, const void *data, size_t n)
{
    struct control_msg *m;
    enum err rc = control_decode(data, n, &m);
    if (rc) return err_prefix(rc, "%s", rpc_peer_name(p));
    post_event(p, RPC_MESSAGE, m);
    return OK;
}

static enum err frame(struct rpc_peer *p, const void *data, size_t n)
{
    const uint8_t *piece;
    size_t piece_n;
    pthread_mutex_lock(&p->lock);
    enum err rc = trn_auth_open_frame(p->auth, data, n, &piece, &piece_n);
    pthread_mutex_unlock(&p->lock);
    if (rc) return rc;
    if (piece_n < 2 || piece[0] > 1)
        return err_raise(ERR_LINK_PROTOCOL, "%s sent a frame without a piece of a message",
                         rpc_peer_name(p));
    if (!piece[0] && !p->joined.len) return deliver(p, piece + 1, piece_n - 1);
    buf_put(&p->joined, piece + 1, piece_n - 1);
    if (p->joined.len > LIMIT_FRAME_BYTES)
        return err_raise(ERR_LINK_PROTOCOL, "%s sent a message of more than %d bytes",
                         rpc_peer_name(p), LIMIT_FRAME_BYTES);
    if (piece[0]) return OK;
    rc = deliver(p, p->joined.data, p->joined.len);
    buf_free(&p->joined);
    return rc;
}

/* The peer will send no more. After an orderly end of its side, end ours too. */
static void reading_ended(struct rpc_peer *p)
{
    p->reading = false;
    if (p->core->role->server && !p->connected)
        rpc_peer_cancel(p, GRPC_STATUS_UNAUTHENTICATED, "no proof was given");
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    if (finish_due_locked(p)) p->core->role->finish(p);
    pthread_mutex_unlock(&p->lock);
}

static void on_message(struct rpc_tag *t, bool ok)
{
    struct rpc_peer *p = t->owner;
    if (!ok || !p->incoming) {
        reading_ended(p);
        rpc_peer_done(p);
        return;
    }
    grpc_slice s = slice_of(p->incoming);
    grpc_byte_buffer_destroy(p->incoming);
    p->incoming = NULL;
    if (!p->refused) {
        const uint8_t *data = GRPC_SLICE_START_PTR(s);
        size_t n = GRPC_SLICE_LENGTH(s);
        enum err rc = OK;
        if (p->connected)
            rc = frame(p, data, n);
        else
            rpc_peer_hello(p, data, n);
        if (rc) refuse(p, rc);
    }
    grpc_slice_unref(s);
    read_more(p);
    rpc_peer_done(p);
}

void rpc_peer_read(struct rpc_peer *p)
{
    p->reading = true;
    read_more(p);
}

const grpc_slice *rpc_find_hello(const grpc_metadata_array *md)
{
    for (size_t i = 0; i < md->count; i++)
        if (!grpc_slice_str_cmp(md->metadata[i].key, RPC_HELLO_KEY)) return &md->metadata[i].value;
    return NULL;
}

/* ---- life ---- */

static void on_posted(struct rpc_tag *t, bool ok)
{
    (void)ok;
    rpc_peer_done(t->owner);
}

const char *rpc_peer_address(const struct rpc_peer *p) { return p->address; }

struct rpc_peer *rpc_peer_new(struct rpc_core *c, const char *address)
{
    struct rpc_peer *p = xcalloc(1, sizeof *p);
    p->core = c;
    p->tail = &p->head;
    p->t_start = p->t_finish = (struct rpc_tag){on_posted, p};
    p->t_recv = (struct rpc_tag){on_message, p};
    p->t_send = (struct rpc_tag){on_sent, p};
    rpc_printable(p->address, sizeof p->address, address, strlen(address));
    pthread_mutex_init(&p->lock, NULL);
    pthread_mutex_lock(&c->lock);
    p->next = c->peers;
    c->peers = p;
    c->n_peers++;
    pthread_mutex_unlock(&c->lock);
    return p;
}

/* Our first handshake message: the server's answers theirs. */
static enum err first_hello(struct rpc_peer *p, const void *theirs, size_t n, struct buf *hello)
{
    bool done;
    trn_auth_close(p->auth);
    p->auth = trn_auth_open(&p->core->key, p->core->role->server, p->core->identity);
    return p->core->role->server ? trn_auth_receive(p->auth, theirs, n, hello, &done)
                                 : trn_auth_start(p->auth, hello);
}

enum err rpc_peer_begin(struct rpc_peer *p, grpc_call *call, const void *theirs, size_t n)
{
    struct buf hello = {0};
    pthread_mutex_lock(&p->lock);
    enum err rc = first_hello(p, theirs, n, &hello);
    if (!rc) {
        p->hello.key = grpc_slice_from_static_string(RPC_HELLO_KEY);
        p->hello.value = grpc_slice_from_copied_buffer((const char *)hello.data, hello.len);
        p->call = call;
        p->ended = p->sending = false;
        p->core->role->begin(p);
        if (p->closing)
            cancel_locked(p, GRPC_STATUS_CANCELLED, "closed"); /* the owner was faster */
    }
    pthread_mutex_unlock(&p->lock);
    buf_free(&hello);
    return rc;
}

static void free_peer(struct rpc_peer *p)
{
    trn_auth_close(p->auth);
    buf_free(&p->joined);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static void unlist(struct rpc_peer *p)
{
    struct rpc_core *c = p->core;
    pthread_mutex_lock(&c->lock);
    struct rpc_peer **at = &c->peers;
    while (*at != p) at = &(*at)->next;
    *at = p->next;
    c->n_peers--;
    pthread_cond_broadcast(&c->fewer);
    pthread_mutex_unlock(&c->lock);
}

void rpc_peer_retire(struct rpc_peer *p, bool tell)
{
    unlist(p);
    if (tell)
        post_event(p, RPC_CLOSED, NULL);
    else
        free_peer(p);
}

/* Taking the call away under the lock is what keeps a sender on another thread from posting one
 * batch more. */
void rpc_peer_done(struct rpc_peer *p)
{
    grpc_call *over = NULL;
    pthread_mutex_lock(&p->lock);
    if (!--p->pending && p->ended && !p->reading) {
        over = p->call;
        p->call = NULL;
        drop_queue_locked(p);
    }
    pthread_mutex_unlock(&p->lock);
    if (!over) return;
    grpc_call_unref(over);
    grpc_slice_unref(p->hello.value);
    p->core->role->over(p);
}

void rpc_event_free(struct rpc_event *e)
{
    if (!e) return;
    control_msg_free(e->msg);
    if (e->kind == RPC_CLOSED) free_peer(e->peer);
    free(e);
}

/* ---- what the owner of a peer may do ---- */

void rpc_peer_close(struct rpc_peer *p)
{
    rpc_peer_reason(p, ERR_LINK_CLOSED, "closed by this side");
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    if (!p->connected)
        cancel_locked(p, GRPC_STATUS_CANCELLED, "closed");
    else if (finish_due_locked(p))
        p->core->role->finish(p);
    pthread_mutex_unlock(&p->lock);
}

const char *rpc_peer_identity(const struct rpc_peer *p) { return rpc_peer_name(p); }
void rpc_peer_set_user(struct rpc_peer *p, void *user) { p->user = user; }
void *rpc_peer_user(const struct rpc_peer *p) { return p->user; }
