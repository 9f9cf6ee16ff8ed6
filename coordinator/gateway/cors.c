/* cors.c: which web pages of other origins may use the gateway: none, unless told. */
#include "coordinator/gateway/net.h"
#include "base/log.h"

#include <string.h>

/* The origin that is told it may; NULL: this one may not. */
static const char *allowed(struct gw_exchange *x)
{
    const char *list = x->conn->gw->conf.cors_origins, *origin = gw_header(x, "Origin");
    if (!list || !origin) return NULL;
    if (!strcmp(list, "*")) return "*";
    size_t n = strlen(origin);
    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',') {
        p += strspn(p, " ");
        size_t len = strcspn(p, ", ");
        if (len == n && !memcmp(p, origin, n)) return origin;
    }
    return NULL;
}

void crd_cors_headers(struct gw_exchange *x, struct MHD_Response *r)
{
    const char *origin = allowed(x);
    if (x->conn->gw->conf.cors_origins) MHD_add_response_header(r, "Vary", "Origin");
    if (!origin) return;
    MHD_add_response_header(r, "Access-Control-Allow-Origin", origin);
    MHD_add_response_header(r, "Access-Control-Expose-Headers",
                            "X-Request-Id, Request-Id, Retry-After, x-ratelimit-limit-requests, "
                            "x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
                            "x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, "
                            "x-ratelimit-reset-tokens");
}

/* Browsers tell their user next to nothing: say here, once, what helps. */
static void say_refused(struct gw_exchange *x)
{
    const char *origin = gw_header(x, "Origin");
    bool plain = origin && strlen(origin) < 200;
    for (const char *p = plain ? origin : ""; *p; p++) plain &= *p > ' ' && *p < 0x7f;
    if (!plain || x->conn->gw->cors_said) return;
    x->conn->gw->cors_said = true;
    log_info("gateway", "a web page of %s asked, and may not use the API: --cors-origins %s lets it", origin, origin);
}

bool crd_cors_preflight(struct gw_exchange *x, const char *method)
{
    if (strcmp(method, MHD_HTTP_METHOD_OPTIONS) || !gw_header(x, "Access-Control-Request-Method"))
        return false;
    if (!allowed(x)) say_refused(x);
    if (!x->conn->gw->conf.cors_origins) return false;
    gw_reply(x, 204, NULL, NULL, 0,
             allowed(x) ? "Access-Control-Allow-Methods: GET, POST, DELETE\n"
                          "Access-Control-Allow-Headers: *, Authorization\n"
                          "Access-Control-Max-Age: 600\n"
                        : NULL);
    return true;
}
