/* sse.c: long answers: a connection that sleeps until its owner has something to say.
 *
 * The library pulls: when a socket has room it asks the reader for bytes, and the reader asks the
 * stream's run(). When run() has nothing the connection is parked; a wake, the silence timer or the
 * peer's leaving unparks it. */
#include "coordinator/gateway/net.h"
#include "base/clock.h"

#include <string.h>

enum { READ_BLOCK = 8 << 10 };

static void park(struct gw_exchange *x)
{
    struct conn *c = x->conn;
    x->parked = true;
    crd_timer_start(&c->gw->timers, &c->timer, TIMER_SILENT, clock_us());
    MHD_suspend_connection(c->mhd);
}

void crd_stream_unpark(struct gw_exchange *x)
{
    if (!x->parked) return;
    x->parked = false;
    crd_timer_stop(&x->conn->timer);
    MHD_resume_connection(x->conn->mhd);
}

static bool abandoned(const struct gw_exchange *x)
{
    return x->conn->left || x->conn->gw->stopping;
}

/* What run() has to say, or after a silence at least a sign of life. */
static void fill(struct gw_exchange *x)
{
    int32_t status = (int32_t)x->status;
    const char *type = NULL, *headers = NULL;
    x->sent = 0;
    buf_clear(&x->out);
    x->done = x->ops->run(x->self, &x->out, &status, &type, &headers);
    if (!x->out.len && !x->done && x->ping_due && x->is_sse) buf_puts(&x->out, ": ping\n\n");
    x->ping_due = false;
}

static ssize_t reader(void *cls, uint64_t pos, char *dst, size_t max)
{
    struct gw_exchange *x = cls;
    (void)pos;
    if (x->sent == x->out.len) {
        if (x->done) return MHD_CONTENT_READER_END_OF_STREAM;
        if (abandoned(x)) return MHD_CONTENT_READER_END_WITH_ERROR;
        fill(x);
    }
    size_t n = MIN(max, x->out.len - x->sent);
    if (n) memcpy(dst, x->out.data + x->sent, n);
    x->sent += n;
    x->n_answer += n;
    if (n) return (ssize_t)n;
    if (x->done) return MHD_CONTENT_READER_END_OF_STREAM;
    park(x);
    return 0;
}

static struct MHD_Response *whole(struct gw_exchange *x)
{
    size_t n = x->out.len;
    x->n_answer = n;
    return MHD_create_response_from_buffer(n, buf_take(&x->out), MHD_RESPMEM_MUST_FREE);
}

enum MHD_Result crd_stream_advance(struct gw_exchange *x)
{
    int32_t status = 0;
    const char *type = NULL, *headers = NULL;
    if (abandoned(x)) return MHD_NO;
    x->done = x->ops->run(x->self, &x->out, &status, &type, &headers);
    x->ping_due = false;
    if (!status && !x->done) {
        park(x);
        return MHD_YES;
    }
    ASSERT(status);
    x->status = (unsigned)status;
    x->is_sse = type && !strncmp(type, "text/event-stream", 17);
    x->response =
        x->done ? whole(x)
                : MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, READ_BLOCK, reader, x, NULL);
    ASSERT(x->response);
    if (type) MHD_add_response_header(x->response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (x->is_sse) {
        MHD_add_response_header(x->response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
        MHD_add_response_header(x->response, "X-Accel-Buffering",
                                "no"); /* proxies: pass each event on at once */
    }
    crd_exchange_add_headers(x->response, headers);
    return crd_exchange_send(x);
}

void gw_stream(struct gw_exchange *x, const struct gw_stream_ops *ops, void *self)
{
    ASSERT(!x->response && !x->ops);
    x->ops = ops;
    x->self = self;
}
