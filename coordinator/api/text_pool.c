/* text_pool.c: see text_pool.h. A job without work is the order to end. */
#include "coordinator/api/text_pool.h"
#include "base/mailbox.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct job {
    void (*work)(void *user);
    void *user;
};

struct crd_text_pool {
    /* [init] */
    struct mailbox *jobs;
    int32_t n_threads;
    pthread_t threads[];
};

static void *text_main(void *arg)
{
    struct crd_text_pool *p = arg;
    for (;;) {
        struct job *j = mailbox_get(p->jobs, -1);
        if (!j) continue; /* poked */
        struct job job = *j;
        free(j);
        if (!job.work) return NULL;
        job.work(job.user);
    }
}

static void put(struct crd_text_pool *p, void (*work)(void *user), void *user)
{
    struct job *j = xmalloc(sizeof *j);
    *j = (struct job){work, user};
    mailbox_put(p->jobs, j);
}

enum err crd_text_pool_open(struct crd_text_pool **out, int32_t n_threads)
{
    struct crd_text_pool *p = xcalloc(1, sizeof *p + sizeof p->threads[0] * (size_t)n_threads);
    sigset_t all, before;
    int e = 0;
    p->jobs = mailbox_open();
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (!e && p->n_threads < n_threads) {
        e = pthread_create(&p->threads[p->n_threads], NULL, text_main, p);
        if (!e) p->n_threads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e) {
        crd_text_pool_close(p);
        return err_raise(ERR_SYSTEM, "cannot start a text thread: %s", strerror(e));
    }
    *out = p;
    return OK;
}

void crd_text_pool_close(struct crd_text_pool *p)
{
    if (!p) return;
    for (int32_t i = 0; i < p->n_threads; i++) put(p, NULL, NULL);
    for (int32_t i = 0; i < p->n_threads; i++) pthread_join(p->threads[i], NULL);
    mailbox_close(p->jobs);
    free(p);
}

void crd_text_pool_run(struct crd_text_pool *p, void (*work)(void *user), void *user)
{
    if (p)
        put(p, work, user);
    else
        work(user);
}
