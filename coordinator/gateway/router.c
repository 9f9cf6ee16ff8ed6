/* router.c: exact paths to handlers. HEAD is answered by GET's handler; the library leaves the body
 * out. */
#include "coordinator/gateway/net.h"

#include <string.h>

/* -1: none. */
static int32_t find(const struct gw *g, const char *method, const char *path)
{
    for (int32_t i = 0; i < g->n_routes; i++)
        if (!strcmp(g->routes[i].path, path) && !strcmp(g->routes[i].method, method)) return i;
    return -1;
}

const char *gw_header(struct gw_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->conn->mhd, MHD_HEADER_KIND, name);
}

void crd_router_dispatch(struct gw_exchange *x, const char *method, const char *path)
{
    struct gw *g = x->conn->gw;
    const char *query = strchr(x->target, '?');
    struct gw_request r = {
        .method = method,
        .path = path,
        .query = query ? query + 1 : "",
        .body = buf_str(&x->body),
        .n_body = x->body.len,
        .request_id = x->request_id,
    };
    int32_t i = find(g, strcmp(method, MHD_HTTP_METHOD_HEAD) ? method : MHD_HTTP_METHOD_GET, path);
    x->handler = i + 1;
    if (crd_cors_preflight(x, method)) return;
    if (g->gate && !g->gate(g->user, x, &r)) return;
    (i < 0 ? g->fallback : g->routes[i].handler)(g->user, x, &r);
}
