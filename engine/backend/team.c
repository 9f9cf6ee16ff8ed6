/* team.c: see team.h.
 *
 * Two words carry everything: `round` (raised by the caller: a job is there, or the team closes)
 * and `n_busy` (helpers not yet back). Whoever waits spins for about SPIN_NS, then sleeps on the
 * word's futex; whoever changes the word wakes only if somebody said that he sleeps. With more
 * threads than processors a spinner only steals time from the one he waits for, so he hardly spins.
 * I1  fn and arg are written before round is raised and read after it was seen: no other lock.
 * I2  a sleeper counts itself before it looks at the word for the last time (the kernel compares
 *     again), so a change either is seen or finds the sleeper counted. */
#include "engine/backend/team.h"

#include <errno.h>
#include <fenv.h>
#include <float.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SPIN_NS = 20000, SPIN_CROWDED_NS = 1000, SPIN_BATCH = 64, CACHE_LINE = 64 };

/* A word that changes, and those who sleep until it does. */
struct bell {
    _Alignas(CACHE_LINE) _Atomic uint32_t value;
    _Atomic uint32_t n_asleep;
};

struct helper {
    struct eng_team *team;
    pthread_t thread;
    int32_t index;
};

struct eng_team {
    struct bell round;   /* one more per run; the last one with `closing` set */
    struct bell n_busy;  /* helpers that have not returned from fn */
    struct bell barrier; /* one more per passed barrier */
    _Alignas(CACHE_LINE) _Atomic uint32_t n_arrived;

    /* [caller] written between runs */
    eng_team_fn fn;
    void *arg;
    bool closing;

    /* [init] */
    int32_t n_threads, n_started;
    int64_t spin_ns;
    bool bound; /* the caller, who had `before` */
    pthread_t caller;
    cpu_set_t before;
    struct helper *helpers; /* [n_threads]; 0 is the caller's and has no thread */
};

/* ---- bells ----------------------------------------------------------------------------------- */

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    /* interrupted or changed meanwhile: the caller looks again */
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void bell_wake(struct bell *b)
{
    if (atomic_load(&b->n_asleep))
        (void)syscall(SYS_futex, &b->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Returns once the value differs from `seen`; gives the new value. */
static uint32_t bell_wait(struct bell *b, uint32_t seen, int64_t spin_ns)
{
    uint32_t v;
    int64_t until = 0;
    for (int32_t i = 0; (v = atomic_load(&b->value)) == seen; i++) {
        pause_cpu();
        if (i % SPIN_BATCH) continue;
        int64_t now = now_ns();
        if (!until) until = now + spin_ns;
        if (now >= until) break;
    }
    while ((v = atomic_load(&b->value)) == seen) {
        atomic_fetch_add(&b->n_asleep, 1);
        futex_wait(&b->value, seen);
        atomic_fetch_sub(&b->n_asleep, 1);
    }
    return v;
}

/* ---- threads --------------------------------------------------------------------------------- */

/* Sums are bit-exact only with denormals kept and rounding to nearest. */
static void assert_float_environment(void)
{
    volatile float tiny = FLT_MIN;
    volatile float denormal = tiny * 0.5f;
    ASSERT(fegetround() == FE_TONEAREST);
    ASSERT(denormal > 0.0f && denormal * 2.0f == tiny);
}

static void *helper_main(void *p)
{
    struct helper *h = p;
    struct eng_team *t = h->team;
    uint32_t round = 0;
    for (;;) {
        round = bell_wait(&t->round, round, t->spin_ns);
        if (t->closing) return NULL;
        assert_float_environment();
        t->fn(t->arg, h->index, t->n_threads);
        if (atomic_fetch_sub(&t->n_busy.value, 1) == 1) bell_wake(&t->n_busy);
    }
}

static enum err start(struct helper *h, const int32_t *cpus)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    int e = 0;
    if (cpus) {
        cpu_set_t set;
        CPU_ZERO(&set);
        if (cpus[h->index] >= 0 && cpus[h->index] < CPU_SETSIZE) CPU_SET(cpus[h->index], &set);
        e = pthread_attr_setaffinity_np(&attr, sizeof set, &set);
    }
    if (!e) e = pthread_create(&h->thread, &attr, helper_main, h);
    pthread_attr_destroy(&attr);
    if (!e) return OK;
    if (cpus && e == EINVAL)
        return err_raise(
            ERR_BAD_CONFIG,
            "compute thread %d cannot be bound to processor %d: it is not one this process may use",
            h->index, cpus[h->index]);
    return err_raise(ERR_SYSTEM, "compute thread %d of %d did not start: %s; use fewer --threads",
                     h->index, h->team->n_threads, strerror(e));
}

static enum err bind_caller(struct eng_team *t, int32_t cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_SET(cpu, &set);
    t->caller = pthread_self();
    t->bound = !pthread_getaffinity_np(t->caller, sizeof t->before, &t->before);
    if (!pthread_setaffinity_np(t->caller, sizeof set, &set)) return OK;
    return err_raise(
        ERR_BAD_CONFIG,
        "compute thread 0 cannot be bound to processor %d: it is not one this process may use",
        cpu);
}

/* Processors this process may use. */
static int32_t online_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set)) return 1;
    return CPU_COUNT(&set);
}

enum err eng_team_open(struct eng_team **out, int32_t n_threads, const int32_t *cpus)
{
    enum err rc = OK;
    ASSERT(n_threads >= 1);
    struct eng_team *t = aligned_alloc(CACHE_LINE, sizeof *t);
    if (!t) return err_raise(ERR_NO_MEMORY, "no memory for a team of %d threads", n_threads);
    memset(t, 0, sizeof *t);
    t->n_threads = n_threads;
    t->n_started = 1;
    t->spin_ns = !cpus && n_threads > online_cpus() ? SPIN_CROWDED_NS : SPIN_NS;
    t->helpers = xcalloc((size_t)n_threads, sizeof *t->helpers);
    for (; t->n_started < n_threads; t->n_started++) {
        struct helper *h = &t->helpers[t->n_started];
        *h = (struct helper){.team = t, .index = t->n_started};
        TRY(start(h, cpus));
    }
    if (cpus) TRY(bind_caller(t, cpus[0]));
    *out = t;
    t = NULL; /* given to the caller */
out:
    eng_team_close(t);
    return rc;
}

void eng_team_close(struct eng_team *t)
{
    if (!t) return;
    t->closing = true;
    atomic_fetch_add(&t->round.value, 1);
    bell_wake(&t->round);
    for (int32_t i = 1; i < t->n_started; i++) pthread_join(t->helpers[i].thread, NULL);
    if (t->bound) (void)pthread_setaffinity_np(t->caller, sizeof t->before, &t->before);
    free(t->helpers);
    free(t);
}

void eng_team_beside(const struct eng_team *t)
{
    if (t->bound) (void)pthread_setaffinity_np(pthread_self(), sizeof t->before, &t->before); /* else merely slower */
}

int32_t eng_team_size(const struct eng_team *t) { return t->n_threads; }

/* ---- running --------------------------------------------------------------------------------- */

void eng_team_run(struct eng_team *t, eng_team_fn fn, void *arg)
{
    assert_float_environment();
    if (t->n_threads > 1) {
        t->fn = fn;
        t->arg = arg;
        atomic_store(&t->n_busy.value, (uint32_t)t->n_threads - 1);
        atomic_fetch_add(&t->round.value, 1);
        bell_wake(&t->round);
    }
    fn(arg, 0, t->n_threads);
    for (uint32_t busy; (busy = atomic_load(&t->n_busy.value)) != 0;)
        bell_wait(&t->n_busy, busy, t->spin_ns);
}

void eng_team_barrier(struct eng_team *t, int32_t thread)
{
    ASSERT(thread >= 0 && thread < t->n_threads);
    uint32_t seen = atomic_load(&t->barrier.value);
    if (atomic_fetch_add(&t->n_arrived, 1) + 1 == (uint32_t)t->n_threads) {
        atomic_store(&t->n_arrived, 0);
        atomic_fetch_add(&t->barrier.value, 1);
        bell_wake(&t->barrier);
        return;
    }
    bell_wait(&t->barrier, seen, t->spin_ns);
}
