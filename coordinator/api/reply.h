/* reply.h: a model's text, taken apart as it comes: thoughts, content, tool calls.
 *
 * A machine over bytes, so it does not matter into which pieces the text was cut: what comes out,
 * put together, is the same. What looked like a call and turns out to be none becomes content,
 * every byte of it. Pure; Thr: its owner. */
#ifndef COORDINATOR_API_REPLY_H
#define COORDINATOR_API_REPLY_H

#include "base/buf.h"
#include "coordinator/api/style.h"

#include <jansson.h>

struct crd_call {
    char *name;      /* Own */
    char id[48];     /* "chatcmpl-tool-..." */
    struct buf args; /* JSON text: all of it, or what has not been sent yet: the reader's choice */
    bool announced;  /* the reader's: name and id were sent */
    bool complete;
};

/* What was understood; the reader may take text and thoughts out, and arguments of calls. */
struct crd_said {
    struct buf text, thoughts;
    struct crd_call *calls; /* Own; the array moves as it grows */
    int32_t n_calls;
};
void crd_said_free(struct crd_said *s);

struct crd_reply_conf {
    const struct crd_call_style *calls;  /* NULL: calls are not looked for */
    const struct crd_think_style *think; /* NULL: nor thoughts */
    bool thinking;                       /* the prompt has opened the thoughts */
    const json_t *tools; /* borrowed: the tools offered; a bare call must name one of them */
    bool one_call;       /* what follows the first call is not read */
    uint64_t id_seed;    /* the calls' ids are drawn from */
};

struct crd_reply;
struct crd_reply *crd_reply_open(const struct crd_reply_conf *conf);
void crd_reply_close(struct crd_reply *r);
/* True when the reply is over (one_call, and it is complete). */
bool crd_reply_push(struct crd_reply *r, const char *text, size_t n, struct crd_said *to);
/* No more text: what was held back leaves. */
void crd_reply_finish(struct crd_reply *r, struct crd_said *to);
/* Is the model in its thoughts? */
bool crd_reply_thinking(const struct crd_reply *r);
/* Is there text that may still become content, or not? */
bool crd_reply_holds(const struct crd_reply *r);

#endif
