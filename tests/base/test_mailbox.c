/* test_mailbox.c: messages arrive once and in order, waits end in time, a poke wakes. */
#include "base/mailbox.h"

#include "base/clock.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void *as_msg(size_t i)
{
    return (void *)(i + 1);
} /* never dereferenced */

static void messages_leave_in_the_order_they_came(void **state)
{
    (void)state;
    struct mailbox *m = mailbox_open();
    size_t in = 0, out = 0;
    for (size_t round = 1; round < 60; round++) { /* grows while its ring is wrapped */
        for (size_t i = 0; i < round; i++) mailbox_put(m, as_msg(in++));
        for (size_t i = 0; i < round / 2; i++) assert_ptr_equal(mailbox_get(m, 0), as_msg(out++));
    }
    while (out < in) assert_ptr_equal(mailbox_get(m, 0), as_msg(out++));
    assert_null(mailbox_get(m, 0));
    mailbox_close(m);
    mailbox_close(NULL);
}

static void waiting_ends_at_the_deadline(void **state)
{
    (void)state;
    struct mailbox *m = mailbox_open();
    int64_t t = clock_us();
    assert_null(mailbox_get(m, 30000));
    t = clock_us() - t;
    assert_true(t >= 29000 && t < 5000000);
    t = clock_us();
    assert_null(mailbox_get(m, 0));
    assert_true(clock_us() - t < 1000000);
    mailbox_close(m);
}

static void *put_later(void *m)
{
    clock_sleep_us(20000);
    mailbox_put(m, as_msg(0));
    return NULL;
}

static void message_wakes_the_waiter(void **state)
{
    (void)state;
    struct mailbox *m = mailbox_open();
    static const int64_t timeouts[] = {-1, 20000000};
    for (int i = 0; i < 2; i++) {
        pthread_t t;
        pthread_create(&t, NULL, put_later, m);
        assert_ptr_equal(mailbox_get(m, timeouts[i]), as_msg(0));
        pthread_join(t, NULL);
    }
    mailbox_close(m);
}

static void *poke_later(void *m)
{
    clock_sleep_us(20000);
    mailbox_poke(m);
    return NULL;
}

static void poke_wakes_without_a_message(void **state)
{
    (void)state;
    struct mailbox *m = mailbox_open();
    pthread_t t;
    pthread_create(&t, NULL, poke_later, m);
    assert_null(mailbox_get(m, -1));
    pthread_join(t, NULL);
    mailbox_poke(m); /* before anybody waits: the next one is woken, once */
    assert_null(mailbox_get(m, -1));
    int64_t since = clock_us();
    assert_null(mailbox_get(m, 10000));
    assert_true(clock_us() - since >= 9000);
    mailbox_close(m);
}

static void message_goes_before_a_poke(void **state)
{
    (void)state;
    struct mailbox *m = mailbox_open();
    mailbox_poke(m);
    mailbox_put(m, as_msg(3));
    assert_ptr_equal(mailbox_get(m, -1), as_msg(3));
    assert_null(mailbox_get(m, -1)); /* the poke was kept */
    mailbox_close(m);
}

enum { WRITERS = 4, READERS = 3, EACH = 5000 };

struct crowd {
    struct mailbox *m;
    _Atomic int32_t seen[WRITERS * EACH];
    _Atomic int32_t n_seen, next_writer;
};

static void *writer(void *p)
{
    struct crowd *c = p;
    size_t base = (size_t)atomic_fetch_add(&c->next_writer, 1) * EACH;
    for (size_t i = 0; i < EACH; i++) mailbox_put(c->m, as_msg(base + i));
    return NULL;
}

static void *reader(void *p)
{
    struct crowd *c = p;
    size_t last[WRITERS] = {0};
    while (atomic_load(&c->n_seen) < WRITERS * EACH) {
        size_t i = (size_t)mailbox_get(c->m, 1000);
        if (!i--) continue;
        if (i + 1 < last[i / EACH]) return c; /* one writer's messages came out of order */
        last[i / EACH] = i + 1;
        atomic_fetch_add(&c->seen[i], 1);
        atomic_fetch_add(&c->n_seen, 1);
    }
    return NULL;
}

static void many_threads_lose_and_double_nothing(void **state)
{
    (void)state;
    static struct crowd c;
    pthread_t w[WRITERS], r[READERS];
    c.m = mailbox_open();
    for (int i = 0; i < READERS; i++) pthread_create(&r[i], NULL, reader, &c);
    for (int i = 0; i < WRITERS; i++) pthread_create(&w[i], NULL, writer, &c);
    for (int i = 0; i < WRITERS; i++) pthread_join(w[i], NULL);
    for (int i = 0; i < READERS; i++) {
        void *bad;
        pthread_join(r[i], &bad);
        assert_null(bad);
    }
    for (int i = 0; i < WRITERS * EACH; i++) assert_int_equal(atomic_load(&c.seen[i]), 1);
    mailbox_close(c.m);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_leave_in_the_order_they_came),
        cmocka_unit_test(waiting_ends_at_the_deadline),
        cmocka_unit_test(message_wakes_the_waiter),
        cmocka_unit_test(poke_wakes_without_a_message),
        cmocka_unit_test(message_goes_before_a_poke),
        cmocka_unit_test(many_threads_lose_and_double_nothing),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("mailbox", tests, NULL, NULL);
}
