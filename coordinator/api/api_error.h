/* api_error.h: what a client is told when the answer is an error: OpenAI's object in vLLM's
 * wording.
 *
 * {"error":{"message","type","param","code"}}, code the HTTP status as a number. */
#ifndef COORDINATOR_API_API_ERROR_H
#define COORDINATOR_API_API_ERROR_H

#include "base/buf.h"
#include "base/err.h"

/* Zeroed = none. */
struct crd_api_error {
    int32_t status;        /* HTTP; 0: no error */
    const char *type;      /* "BadRequestError", ...; static */
    char param[64];        /* the field at fault; "" is null */
    char *message;         /* Own */
    int32_t retry_after_s; /* 0: none */
};

/* Record that the value of a field, or the request as a whole (param NULL), is not acceptable.
 * Return the error that TRY carries outwards; the first one recorded stays. */
enum err crd_api_refuse(struct crd_api_error *e, int32_t status, const char *param, const char *fmt,
                        ...) PRINTF(4, 5);
/* The same for a body that cannot be understood at all (bad JSON, a missing field, a wrong type):
 * 400 "Bad Request". */
enum err crd_api_malformed(struct crd_api_error *e, const char *param, const char *fmt, ...)
    PRINTF(3, 4);
/* An error of ours as the client sees it; text: its sentence. */
void crd_api_error_of(struct crd_api_error *e, enum err err, const char *text);
void crd_api_error_clear(struct crd_api_error *e);

/* Append {"error":{...}}. */
void crd_api_error_json(const struct crd_api_error *e, struct buf *out);

#endif
