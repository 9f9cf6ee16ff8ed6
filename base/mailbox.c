/* mailbox.c: a ring under a mutex; the condition variable runs on the monotonic clock. */
#include "base/mailbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct mailbox {
    pthread_mutex_t lock;
    pthread_cond_t some;
    void **ring;
    size_t cap, head, n;
    bool poked;
};

struct mailbox *mailbox_open(void)
{
    struct mailbox *m = xcalloc(1, sizeof *m);
    pthread_condattr_t a;
    pthread_mutex_init(&m->lock, NULL);
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&m->some, &a);
    pthread_condattr_destroy(&a);
    m->cap = 16;
    m->ring = xmalloc(m->cap * sizeof *m->ring);
    return m;
}

void mailbox_close(struct mailbox *m)
{
    if (!m) return;
    pthread_cond_destroy(&m->some);
    pthread_mutex_destroy(&m->lock);
    free(m->ring);
    free(m);
}

void mailbox_put(struct mailbox *m, void *msg)
{
    pthread_mutex_lock(&m->lock);
    if (m->n == m->cap) {
        void **bigger = xmalloc(m->cap * 2 * sizeof *bigger);
        for (size_t i = 0; i < m->n; i++) bigger[i] = m->ring[(m->head + i) % m->cap];
        free(m->ring);
        m->ring = bigger;
        m->head = 0;
        m->cap *= 2;
    }
    m->ring[(m->head + m->n++) % m->cap] = msg;
    pthread_cond_signal(&m->some);
    pthread_mutex_unlock(&m->lock);
}

void *mailbox_get(struct mailbox *m, int64_t timeout_us)
{
    struct timespec until;
    void *msg = NULL;
    if (timeout_us > 0) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += timeout_us / 1000000;
        until.tv_nsec += timeout_us % 1000000 * 1000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
    }
    pthread_mutex_lock(&m->lock);
    while (!m->n && !m->poked && timeout_us) {
        if (timeout_us < 0)
            pthread_cond_wait(&m->some, &m->lock);
        else if (pthread_cond_timedwait(&m->some, &m->lock, &until) == ETIMEDOUT)
            break;
    }
    if (m->n) {
        msg = m->ring[m->head];
        m->head = (m->head + 1) % m->cap;
        m->n--;
    } else {
        m->poked = false;
    }
    pthread_mutex_unlock(&m->lock);
    return msg;
}

void mailbox_poke(struct mailbox *m)
{
    pthread_mutex_lock(&m->lock);
    m->poked = true;
    pthread_cond_signal(&m->some);
    pthread_mutex_unlock(&m->lock);
}
