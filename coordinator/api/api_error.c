/* api_error.c: see api_error.h. */
#include "coordinator/api/api_error.h"
#include "coordinator/api/json_out.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_QUEUE_S = 1, RETRY_CLUSTER_S = 5 };

static const char *type_of(int32_t status)
{
    switch (status) {
    case 401:
        return "AuthenticationError";
    case 404:
        return "NotFoundError";
    case 405:
        return "MethodNotAllowedError";
    case 429:
        return "RateLimitError";
    case 500:
        return "InternalServerError";
    case 501:
        return "NotImplementedError";
    case 503:
        return "ServiceUnavailableError";
    default:
        return "BadRequestError";
    }
}

static void record(struct crd_api_error *e, int32_t status, const char *type, const char *param,
                   const char *fmt, va_list ap) __attribute__((format(printf, 5, 0)));
static void record(struct crd_api_error *e, int32_t status, const char *type, const char *param,
                   const char *fmt, va_list ap)
{
    if (e->status) return;
    int n = vasprintf(&e->message, fmt, ap);
    ASSERT(n >= 0);
    e->status = status;
    e->type = type;
    snprintf(e->param, sizeof e->param, "%s", param ? param : "");
}

enum err crd_api_refuse(struct crd_api_error *e, int32_t status, const char *param, const char *fmt,
                        ...)
{
    va_list ap;
    va_start(ap, fmt);
    record(e, status, type_of(status), param, fmt, ap);
    va_end(ap);
    return status == 404 ? ERR_NOT_FOUND : ERR_BAD_REQUEST;
}

enum err crd_api_malformed(struct crd_api_error *e, const char *param, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    record(e, 400, "Bad Request", param, fmt, ap);
    va_end(ap);
    return ERR_BAD_REQUEST;
}

static int32_t status_of(enum err err)
{
    switch (err) {
    case ERR_BAD_REQUEST:
    case ERR_TOO_LONG:
    case ERR_UNSUPPORTED:
        return 400;
    case ERR_NOT_FOUND:
        return 404;
    case ERR_SHARE_FULL:
        return 429;
    case ERR_QUEUE_FULL:
    case ERR_UNAVAILABLE:
    case ERR_NO_BLOCKS:
        return 503;
    default:
        return err_radius(err) == RADIUS_REPLICA || err_radius(err) == RADIUS_LINK ? 503 : 500;
    }
}

void crd_api_error_of(struct crd_api_error *e, enum err err, const char *text)
{
    if (e->status) return;
    crd_api_refuse(e, status_of(err), NULL, "%s", text && *text ? text : err_short(err));
    bool queue = err == ERR_QUEUE_FULL || err == ERR_SHARE_FULL;
    if (e->status == 503 || e->status == 429)
        e->retry_after_s = queue ? RETRY_QUEUE_S : RETRY_CLUSTER_S;
}

void crd_api_error_clear(struct crd_api_error *e)
{
    free(e->message);
    *e = (struct crd_api_error){0};
}

/* OpenAI's word for it, which its clients look for; NULL: it has none. */
static const char *code_of(const struct crd_api_error *e)
{
    switch (e->status) {
    case 400:
        return strcmp(e->param, "input_tokens") ? NULL : "context_length_exceeded";
    case 401:
        return "invalid_api_key";
    case 404:
        return strcmp(e->param, "model") ? NULL : "model_not_found";
    case 429:
        return "rate_limit_exceeded";
    case 500:
        return "server_error";
    case 503:
        return "service_unavailable";
    default:
        return NULL;
    }
}

void crd_api_error_json(const struct crd_api_error *e, struct buf *out)
{
    buf_puts(out, "{\"error\":{\"message\":");
    json_out_text(out, e->message, strlen(e->message));
    buf_puts(out, ",\"type\":");
    json_out_str(out, e->type);
    buf_puts(out, ",\"param\":");
    if (e->param[0])
        json_out_str(out, e->param);
    else
        buf_puts(out, "null");
    buf_puts(out, ",\"code\":");
    if (code_of(e))
        json_out_str(out, code_of(e));
    else
        buf_puts(out, "null");
    buf_puts(out, "}}");
}
