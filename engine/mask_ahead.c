/* mask_ahead.c: see mask_ahead.h. */
#include "engine/mask_ahead.h"

#include "base/base.h"

#include <pthread.h>
#include <stdlib.h>

struct eng_mask_ahead {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool working, leaving;       /* under the lock */
    struct eng_constraint **all; /* [most] the thread's while `working`, else the step thread's */
    int32_t n, most;
};

static void *main_loop(void *arg)
{
    struct eng_mask_ahead *a = arg;
    pthread_mutex_lock(&a->lock);
    for (;;) {
        while (!a->working && !a->leaving) pthread_cond_wait(&a->changed, &a->lock);
        if (!a->working) break;
        pthread_mutex_unlock(&a->lock);
        for (int32_t i = 0; i < a->n; i++) eng_constraint_prepare(a->all[i]);
        pthread_mutex_lock(&a->lock);
        a->working = false;
        pthread_cond_broadcast(&a->changed);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

struct eng_mask_ahead *eng_mask_ahead_open(int32_t most)
{
    struct eng_mask_ahead *a = xcalloc(1, sizeof *a);
    a->all = xcalloc((size_t)most, sizeof *a->all);
    a->most = most;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->changed, NULL);
    int rc = pthread_create(&a->thread, NULL, main_loop, a);
    ASSERT(!rc);
    return a;
}

void eng_mask_ahead_close(struct eng_mask_ahead *a)
{
    if (!a) return;
    eng_mask_ahead_settle(a);
    pthread_mutex_lock(&a->lock);
    a->leaving = true;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->thread, NULL);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    free(a->all);
    free(a);
}

void eng_mask_ahead_add(struct eng_mask_ahead *a, struct eng_constraint *s)
{
    if (s && a->n < a->most && !eng_constraint_ready(s)) a->all[a->n++] = s;
}

void eng_mask_ahead_start(struct eng_mask_ahead *a)
{
    if (!a->n) return;
    pthread_mutex_lock(&a->lock);
    a->working = true;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
}

void eng_mask_ahead_settle(struct eng_mask_ahead *a)
{
    if (!a->n) return;
    pthread_mutex_lock(&a->lock);
    while (a->working) pthread_cond_wait(&a->changed, &a->lock);
    pthread_mutex_unlock(&a->lock);
    a->n = 0;
}
