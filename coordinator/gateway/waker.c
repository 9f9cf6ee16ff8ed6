/* waker.c: see waker.h. */
#include "coordinator/gateway/waker.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct waker_hub {
    /* [init] */
    int fd;
    /* [any] */
    _Atomic int refs;
    pthread_mutex_t lock;
    struct gw_waker *head; /* under lock */
    bool closed;           /* under lock: nobody drains any more */
};

struct gw_waker {
    /* [init] */
    struct waker_hub *hub;
    /* [net] */
    struct gw_exchange *x; /* NULL: it has ended */
    void (*fn)(void *user); /* a task's; NULL: none, or cancelled */
    void *user;
    /* [any] */
    _Atomic int refs;
    _Atomic bool queued;   /* in the hub's list, or about to be */
    struct gw_waker *next; /* under the hub's lock */
};

enum err crd_waker_hub_open(struct waker_hub **out)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0) return err_raise(ERR_SYSTEM, "cannot create an eventfd: %s", strerror(errno));
    struct waker_hub *h = xcalloc(1, sizeof *h);
    h->fd = fd;
    h->refs = 1;
    pthread_mutex_init(&h->lock, NULL);
    *out = h;
    return OK;
}

static void hub_unref(struct waker_hub *h)
{
    if (atomic_fetch_sub(&h->refs, 1) != 1) return;
    close(h->fd);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static void waker_unref(struct gw_waker *w)
{
    if (atomic_fetch_sub(&w->refs, 1) != 1) return;
    hub_unref(w->hub);
    free(w);
}

int crd_waker_hub_fd(const struct waker_hub *h)
{
    return h->fd;
}

void crd_waker_hub_poke(struct waker_hub *h)
{
    uint64_t one = 1;
    ssize_t n = write(h->fd, &one, sizeof one);
    (void)n; /* a full counter is readable already */
}

static struct gw_waker *take_all(struct waker_hub *h)
{
    pthread_mutex_lock(&h->lock);
    struct gw_waker *list = h->head;
    h->head = NULL;
    pthread_mutex_unlock(&h->lock);
    return list;
}

static void ignore(struct gw_exchange *x)
{
    (void)x;
}

void crd_waker_hub_drain(struct waker_hub *h, void (*woken)(struct gw_exchange *x))
{
    uint64_t count;
    ssize_t n = read(h->fd, &count, sizeof count);
    (void)n; /* nothing to read: poked by nobody, which does no harm */
    for (struct gw_waker *w = take_all(h), *next; w; w = next) {
        next = w->next;
        atomic_store(&w->queued, false); /* before acting: what happens from here on wakes again */
        if (w->x) woken(w->x);
        if (w->fn && woken != ignore) w->fn(w->user);
        waker_unref(w);
    }
}

void crd_waker_hub_close(struct waker_hub *h)
{
    if (!h) return;
    pthread_mutex_lock(&h->lock);
    h->closed = true;
    pthread_mutex_unlock(&h->lock);
    crd_waker_hub_drain(h, ignore);
    hub_unref(h);
}

struct gw_waker *crd_waker_open(struct waker_hub *h, struct gw_exchange *x)
{
    struct gw_waker *w = xcalloc(1, sizeof *w);
    w->hub = h;
    w->x = x;
    w->refs = 1;
    atomic_fetch_add(&h->refs, 1);
    return w;
}

struct gw_waker *crd_waker_task(struct waker_hub *h, void (*fn)(void *user), void *user)
{
    struct gw_waker *w = crd_waker_open(h, NULL);
    w->fn = fn;
    w->user = user;
    return w;
}

void gw_task_cancel(struct gw_waker *w)
{
    w->fn = NULL;
}

struct gw_waker *crd_waker_ref(struct gw_waker *w)
{
    atomic_fetch_add(&w->refs, 1);
    return w;
}

void crd_waker_detach(struct gw_waker *w)
{
    w->x = NULL;
}

void gw_wake(struct gw_waker *w)
{
    struct waker_hub *h = w->hub;
    if (atomic_exchange(&w->queued, true)) return;
    pthread_mutex_lock(&h->lock);
    bool first = !h->head, heard = !h->closed;
    if (heard) {
        w->next = h->head;
        h->head = crd_waker_ref(w);
    }
    pthread_mutex_unlock(&h->lock);
    if (heard && first) crd_waker_hub_poke(h);
}

void gw_waker_free(struct gw_waker *w)
{
    if (w) waker_unref(w);
}
