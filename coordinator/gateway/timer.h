/* timer.h: deadlines of connections, on the net thread.
 *
 * Every kind of deadline has one constant duration, so a list per kind stays sorted by appending:
 * setting, clearing and finding the next are O(1), however many connections there are. Private to
 * gateway. Pure: time is an argument. */
#ifndef COORDINATOR_GATEWAY_TIMER_H
#define COORDINATOR_GATEWAY_TIMER_H

#include "base/base.h"

enum timer_kind {
    TIMER_HEADERS, /* from the connection's start, or the request line, to the end of the headers */
    TIMER_BODY,    /* asks again and again whether the body comes fast enough */
    TIMER_IDLE,    /* kept alive, waiting for the next request */
    TIMER_SILENT,  /* a stream that has said nothing for a while */
    TIMER_KINDS,
};

/* Embedded in its connection; zeroed = off. */
struct timer {
    struct timer *prev, *next;
    int64_t due_us;
    enum timer_kind kind;
};

struct timer_set {
    struct timer head[TIMER_KINDS]; /* circular lists */
    int64_t after_us[TIMER_KINDS];
};

void crd_timer_set_init(struct timer_set *s, const int64_t after_us[TIMER_KINDS]);
/* (Re)start t as a deadline of this kind. */
void crd_timer_start(struct timer_set *s, struct timer *t, enum timer_kind kind, int64_t now_us);
void crd_timer_stop(struct timer *t);
/* When the next is due; INT64_MAX: none is running. */
int64_t crd_timer_next(const struct timer_set *s);
/* Take one that is due off its list, or NULL. */
struct timer *crd_timer_expired(struct timer_set *s, int64_t now_us);

#endif
