/* refuse_thread.h: a system that starts no more threads. For tests that are linked with refuse_thread.c and -Wl,--wrap=pthread_create. */
#ifndef TESTS_SUPPORT_REFUSE_THREAD_H
#define TESTS_SUPPORT_REFUSE_THREAD_H

/* So many more threads are started, the one behind them is refused with EAGAIN, then all are started again. -1: none is refused. */
void refuse_thread_after(int n);

#endif
