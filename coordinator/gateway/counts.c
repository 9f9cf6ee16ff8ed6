/* counts.c: what was asked and answered, by handler, as HTTP's own metrics show it (the names and
 * labels of Prometheus' instrumentation of web frameworks). Thr: net. */
#include "coordinator/gateway/net.h"
#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

static const char *const methods[] = {"GET", "POST", "HEAD", "DELETE", "OPTIONS", "other"};
static const double bounds[] = {.1, .5, 1}; /* seconds */
enum { N_METHODS = COUNT_OF(methods), N_BOUNDS = COUNT_OF(bounds), CLASSES = 6 };

struct row {
    uint64_t by_class[CLASSES]; /* of the status: [2] is 2xx */
    uint64_t n, by_time[N_BOUNDS];
    double seconds;
    uint64_t bytes_in, bytes_out;
};

/* Of a route by its index, and one more for what has no route, times the methods. */
struct crd_counts {
    int32_t n_handlers;
    struct row *rows;
};

struct crd_counts *crd_counts_open(int32_t n_routes)
{
    struct crd_counts *c = xcalloc(1, sizeof *c);
    c->n_handlers = n_routes + 1;
    c->rows = xcalloc((size_t)c->n_handlers * N_METHODS, sizeof *c->rows);
    return c;
}

void crd_counts_close(struct crd_counts *c)
{
    if (!c) return;
    free(c->rows);
    free(c);
}

void crd_counts_add(struct gw_exchange *x)
{
    struct crd_counts *c = x->conn->gw->counts;
    int32_t handler = x->handler ? x->handler - 1 : c->n_handlers - 1;
    size_t method = 0;
    double seconds = (double)(clock_us() - x->since_us) / 1e6;
    if (!x->status) return; /* the client left before it was known */
    while (method < N_METHODS - 1 && strcmp(methods[method], x->method)) method++;
    struct row *r = &c->rows[(size_t)handler * N_METHODS + method];
    r->by_class[MIN(x->status / 100, CLASSES - 1)]++;
    r->n++;
    for (int i = 0; i < N_BOUNDS; i++) r->by_time[i] += seconds <= bounds[i];
    r->seconds += seconds;
    r->bytes_in += x->n_body;
    r->bytes_out += x->n_answer;
}

/* ---- shown ---- */

static void head(struct buf *out, const char *name, const char *kind, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind);
}

static void put_requests(const struct row *r, const char *labels, struct buf *out)
{
    for (int i = 1; i < CLASSES; i++)
        if (r->by_class[i])
            buf_printf(out, "http_requests_total{%s,status=\"%dxx\"} %llu\n", labels, i,
                       (unsigned long long)r->by_class[i]);
}

static void put_seconds(const struct row *r, const char *labels, struct buf *out)
{
    static const char name[] = "http_request_duration_seconds";
    for (int i = 0; i < N_BOUNDS; i++)
        buf_printf(out, "%s_bucket{%s,le=\"%g\"} %llu\n", name, labels, bounds[i],
                   (unsigned long long)r->by_time[i]);
    buf_printf(out, "%s_bucket{%s,le=\"+Inf\"} %llu\n%s_sum{%s} %.6f\n%s_count{%s} %llu\n", name,
               labels, (unsigned long long)r->n, name, labels, r->seconds, name, labels,
               (unsigned long long)r->n);
}

static void put_in(const struct row *r, const char *labels, struct buf *out)
{
    buf_printf(out, "http_request_size_bytes_sum{%s} %llu\nhttp_request_size_bytes_count{%s} %llu\n",
               labels, (unsigned long long)r->bytes_in, labels, (unsigned long long)r->n);
}

static void put_out(const struct row *r, const char *labels, struct buf *out)
{
    buf_printf(out, "http_response_size_bytes_sum{%s} %llu\nhttp_response_size_bytes_count{%s} %llu\n",
               labels, (unsigned long long)r->bytes_out, labels, (unsigned long long)r->n);
}

static void put_all(const struct gw *g, void (*put)(const struct row *, const char *, struct buf *),
                    struct buf *out)
{
    for (int32_t i = 0; i < g->counts->n_handlers * (int32_t)N_METHODS; i++) {
        const struct row *r = &g->counts->rows[i];
        int32_t handler = i / (int32_t)N_METHODS;
        if (!r->n) continue;
        char *labels = xasprintf("handler=\"%s\",method=\"%s\"",
                                 handler < g->n_routes ? g->routes[handler].path : "none",
                                 methods[i % (int32_t)N_METHODS]);
        put(r, labels, out);
        free(labels);
    }
}

void gw_metrics(const struct gw *g, struct buf *out)
{
    head(out, "http_requests_total", "counter", "Requests by handler, method and class of status.");
    put_all(g, put_requests, out);
    head(out, "http_request_duration_seconds", "histogram", "From the request line to the answer's end.");
    put_all(g, put_seconds, out);
    head(out, "http_request_size_bytes", "summary", "Bytes of request bodies.");
    put_all(g, put_in, out);
    head(out, "http_response_size_bytes", "summary", "Bytes of answers' bodies.");
    put_all(g, put_out, out);
}
