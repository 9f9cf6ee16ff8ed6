/* test_team.c: claims about the compute team. */
#include "engine/backend/team.h"

#include "base/base.h"

#include <fenv.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

enum { MAX_THREADS = 8 };

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct seen {
    _Atomic int32_t calls[MAX_THREADS];
    int32_t n_threads;
};

static void count_me(void *arg, int32_t thread, int32_t n_threads)
{
    struct seen *s = arg;
    atomic_fetch_add(&s->calls[thread], 1);
    if (thread == 0) s->n_threads = n_threads;
}

static void every_thread_runs_every_call_once(void **state)
{
    (void)state;
    for (int32_t n = 1; n <= MAX_THREADS; n = n < 3 ? n + 1 : n + 5) {
        struct eng_team *t = NULL;
        struct seen s = {0};
        assert_int_equal(eng_team_open(&t, n, NULL), OK);
        assert_int_equal(eng_team_size(t), n);
        for (int32_t i = 0; i < 500; i++) eng_team_run(t, count_me, &s);
        assert_int_equal(s.n_threads, n);
        for (int32_t i = 0; i < MAX_THREADS; i++) assert_int_equal(s.calls[i], i < n ? 500 : 0);
        eng_team_close(t);
    }
}

struct phases {
    struct eng_team *team;
    int32_t slot[MAX_THREADS]; /* written in one phase, read by all in the next: the barrier orders
                                  them */
    _Atomic int32_t wrong;
};

static void go_through_phases(void *arg, int32_t thread, int32_t n_threads)
{
    struct phases *p = arg;
    for (int32_t phase = 1; phase <= 50; phase++) {
        p->slot[thread] = phase;
        eng_team_barrier(p->team, thread);
        for (int32_t i = 0; i < n_threads; i++)
            if (p->slot[i] != phase) atomic_fetch_add(&p->wrong, 1);
        eng_team_barrier(p->team, thread);
    }
}

static void a_barrier_lets_nobody_ahead(void **state)
{
    (void)state;
    static const int32_t sizes[] = {1, 2, 4};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct phases p = {0};
        assert_int_equal(eng_team_open(&p.team, sizes[i], NULL), OK);
        for (int32_t k = 0; k < 10; k++) eng_team_run(p.team, go_through_phases, &p);
        assert_int_equal(p.wrong, 0);
        eng_team_close(p.team);
    }
}

static void an_idle_team_costs_nothing(void **state)
{
    (void)state;
    struct eng_team *t = NULL;
    struct seen s = {0};
    assert_int_equal(eng_team_open(&t, 4, NULL), OK);
    eng_team_run(t, count_me, &s);
    struct timespec nap = {.tv_nsec = 20000000};
    nanosleep(&nap, NULL); /* the spinning is over */
    double before = cpu_seconds();
    nap.tv_nsec = 300000000;
    nanosleep(&nap, NULL);
    assert_true(cpu_seconds() - before < 0.01);
    eng_team_run(t, count_me, &s); /* and it wakes again */
    for (int32_t i = 0; i < 4; i++) assert_int_equal(s.calls[i], 2);
    eng_team_close(t);
}

static void ranges_cover_everything_once(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 15, 16, 17, 100, 4096, 4097};
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        for (int32_t n = 1; n <= 7; n++) {
            int64_t next = 0, lo, hi;
            for (int32_t k = 0; k < n; k++) {
                eng_team_range(sizes[i], 16, k, n, &lo, &hi);
                assert_int_equal(lo, next);
                assert_true(hi >= lo && (hi % 16 == 0 || hi == sizes[i]));
                next = hi;
            }
            assert_int_equal(next, sizes[i]);
        }
}

static void remember_cpu(void *arg, int32_t thread, int32_t n_threads)
{
    (void)n_threads;
    ((int32_t *)arg)[thread] = sched_getcpu();
}

static void threads_are_bound_where_told(void **state)
{
    (void)state;
    cpu_set_t mine;
    int32_t cpus[2], n = 0, where[2] = {-1, -1};
    assert_int_equal(sched_getaffinity(0, sizeof mine, &mine), 0);
    for (int32_t c = 0; c < CPU_SETSIZE && n < 2; c++)
        if (CPU_ISSET(c, &mine)) cpus[n++] = c;
    if (n < 2) skip();
    struct eng_team *t = NULL;
    assert_int_equal(eng_team_open(&t, 2, cpus), OK);
    eng_team_run(t, remember_cpu, where);
    eng_team_close(t);
    assert_int_equal(sched_setaffinity(0, sizeof mine, &mine), 0);
    assert_memory_equal(where, cpus, sizeof where);
}

static void a_processor_that_is_not_there_is_refused(void **state)
{
    (void)state;
    struct eng_team *t = NULL;
    const int32_t cpus[2] = {0, 1023};
    assert_int_equal(eng_team_open(&t, 2, cpus), ERR_BAD_CONFIG);
    assert_null(t);
    assert_non_null(strstr(err_text(), "1023"));
    eng_team_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_thread_runs_every_call_once),
        cmocka_unit_test(a_barrier_lets_nobody_ahead),
        cmocka_unit_test(an_idle_team_costs_nothing),
        cmocka_unit_test(ranges_cover_everything_once),
        cmocka_unit_test(threads_are_bound_where_told),
        cmocka_unit_test(a_processor_that_is_not_there_is_refused),
    };
    return cmocka_run_group_tests_name("team", tests, NULL, NULL);
}
