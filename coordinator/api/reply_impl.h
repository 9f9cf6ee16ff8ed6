/* reply_impl.h: what reply.c and reply_marks.c share: where in a reply we are. Private. */
#ifndef COORDINATOR_API_REPLY_IMPL_H
#define COORDINATOR_API_REPLY_IMPL_H

#include "coordinator/api/call_json.h"
#include "coordinator/api/reply.h"

enum where {
    START,    /* nothing but white space yet */
    THOUGHTS, /* between their marks */
    CONTENT,
    HEAD,   /* in a section of calls, before a call's '{' */
    OBJECT, /* in a call that is an object */
    ARGS,   /* in the arguments of a call that was named before */
    TAGGED, /* in a call whose arguments stand in tags; read when it is whole */
    AFTER,  /* in a section, after a call */
    OVER,
};

enum mark {
    MARK_NONE,
    MARK_MAYBE,
    THINK_OPEN,
    THINK_CLOSE,
    OPEN,
    CLOSE,
    CALL_OPEN,
    CALL_CLOSE,
    SEP
};

struct crd_reply {
    struct crd_reply_conf conf;
    enum where where;
    bool bare;        /* this section had no mark */
    bool fresh;       /* nothing but white space since the last mark of thoughts, or the start */
    bool trims;       /* such white space is nobody's: thoughts stand before */
    bool named;       /* the call at hand has a name */
    struct buf hold;  /* perhaps a mark */
    struct buf space; /* white space that is content only if content follows */
    struct buf raw, head;
    struct crd_call_json object;
    struct json_span span;
};

/* Is r->hold a mark that may stand here, or the beginning of one? */
enum mark crd_reply_match(const struct crd_reply *r);

#endif
