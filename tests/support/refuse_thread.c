/* refuse_thread.c: see refuse_thread.h. The names are the linker's. */
#include "tests/support/refuse_thread.h"

#include <errno.h>
#include <pthread.h>

int __real_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg);

static int n_more = -1;

void refuse_thread_after(int n) { n_more = n; }

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg)
{
    if (n_more >= 0 && n_more-- == 0) return EAGAIN;
    return __real_pthread_create(t, a, fn, arg);
}
