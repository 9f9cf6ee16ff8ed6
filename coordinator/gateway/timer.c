/* timer.c: see timer.h. */
#include "coordinator/gateway/timer.h"

void crd_timer_set_init(struct timer_set *s, const int64_t after_us[TIMER_KINDS])
{
    for (int k = 0; k < TIMER_KINDS; k++) {
        s->head[k] = (struct timer){.prev = &s->head[k], .next = &s->head[k]};
        s->after_us[k] = after_us[k];
    }
}

void crd_timer_stop(struct timer *t)
{
    if (!t->next) return;
    t->prev->next = t->next;
    t->next->prev = t->prev;
    t->prev = t->next = NULL;
}

void crd_timer_start(struct timer_set *s, struct timer *t, enum timer_kind kind, int64_t now_us)
{
    struct timer *head = &s->head[kind];
    crd_timer_stop(t);
    *t = (struct timer){
        .prev = head->prev, .next = head, .due_us = now_us + s->after_us[kind], .kind = kind};
    t->prev->next = t;
    head->prev = t;
}

int64_t crd_timer_next(const struct timer_set *s)
{
    int64_t next = INT64_MAX;
    for (int k = 0; k < TIMER_KINDS; k++)
        if (s->head[k].next != &s->head[k]) next = MIN(next, s->head[k].next->due_us);
    return next;
}

struct timer *crd_timer_expired(struct timer_set *s, int64_t now_us)
{
    for (int k = 0; k < TIMER_KINDS; k++) {
        struct timer *t = s->head[k].next;
        if (t == &s->head[k] || t->due_us > now_us) continue;
        crd_timer_stop(t);
        return t;
    }
    return NULL;
}
