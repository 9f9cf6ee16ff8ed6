/* test_probe.c: probes over loopback tell a good way from closed, silent, strange and stuck ones;
 * children are talked to with deadlines and leave nothing behind. */
#include "cluster/child.h"
#include "cluster/probe.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { SHORT_US = 300000 };

static void a_good_way_is_measured(void **state)
{
    (void)state;
    struct clu_probe_server *s;
    struct clu_probe_result r;
    int32_t port;
    assert_int_equal(clu_probe_open(&s, "secret", "host1", &port), OK);
    for (int i = 0; i < 2; i++) { /* one after the other */
        clu_probe_run(&r, "127.0.0.1", port, "secret", "host1", 2000000);
        assert_int_equal(r.reach, REACH_OK);
        assert_true(r.latency_us > 0 && r.latency_us < 1e6 && r.bytes_s > 1e6);
        assert_string_equal(r.local, "127.0.0.1");
    }
    clu_probe_run(&r, "127.0.0.1", port, "secret", "host2", SHORT_US);
    assert_int_equal(r.reach, REACH_STRANGER); /* somebody else has the address */
    clu_probe_run(&r, "127.0.0.1", port, "Secret", "host1", 2000000);
    assert_int_equal(r.reach, REACH_STRANGER); /* not a byte for who does not know the token */
    clu_probe_close(s);
    clu_probe_run(&r, "127.0.0.1", port, "secret", "host1", SHORT_US);
    assert_int_equal(r.reach, REACH_REFUSED);
    clu_probe_run(&r, "no address", port, "secret", "host1", SHORT_US);
    assert_int_equal(r.reach, REACH_UNREACHABLE);
    clu_probe_close(NULL);
}

/* A listener that greets and echoes, but never sees the end of anything large; or says nothing. */
struct bad { int fd; bool mute; };

static void *bad_main(void *arg)
{
    struct bad *b = arg;
    char piece[256];
    int fd = accept(b->fd, NULL, NULL);
    size_t hello = strlen("tessera-probe secret\n");
    if (b->mute) clock_sleep_us(2 * SHORT_US);
    else if (recv(fd, piece, hello, MSG_WAITALL) == (ssize_t)hello &&
             send(fd, "host1\n", 6, MSG_NOSIGNAL) == 6)
        while (recv(fd, piece, 8, MSG_WAITALL) == 8 && piece[0] == 'p')
            if (send(fd, piece, 8, MSG_NOSIGNAL) != 8) break;
    clock_sleep_us(2 * SHORT_US);
    close(fd);
    return NULL;
}

static enum clu_reach reach_of_bad(bool mute)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    struct bad b = {socket(AF_INET, SOCK_STREAM, 0), mute};
    struct clu_probe_result r;
    pthread_t t;
    assert_int_equal(bind(b.fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(b.fd, 1), 0);
    assert_int_equal(getsockname(b.fd, (struct sockaddr *)&a, &n), 0);
    assert_int_equal(pthread_create(&t, NULL, bad_main, &b), 0);
    clu_probe_run(&r, "127.0.0.1", ntohs(a.sin_port), "secret", "host1", SHORT_US);
    pthread_join(t, NULL);
    close(b.fd);
    return r.reach;
}

static void silent_and_stuck_ways_are_told_apart_within_the_deadline(void **state)
{
    (void)state;
    int64_t start = clock_us();
    assert_int_equal(reach_of_bad(true), REACH_TIMEOUT);
    assert_int_equal(reach_of_bad(false), REACH_STALLED);
    assert_true(clock_us() - start < 10000000);
}

static void strangers_do_not_hold_the_listener(void **state)
{
    (void)state;
    struct clu_probe_server *s;
    struct clu_probe_result r;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int32_t port;
    assert_int_equal(clu_probe_open(&s, "secret", "host1", &port), OK);
    a.sin_port = htons((uint16_t)port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0); /* and says nothing */
    clu_probe_run(&r, "127.0.0.1", port, "secret", "host1", 5000000);
    assert_int_equal(r.reach, REACH_OK);
    close(fd);
    clu_probe_close(s);
}

static void names_of_reach_go_both_ways(void **state)
{
    (void)state;
    for (int r = REACH_UNKNOWN; r <= REACH_STALLED; r++)
        assert_int_equal(clu_reach_parse(clu_reach_name((enum clu_reach)r)), r);
    assert_int_equal(clu_reach_parse("nonsense"), REACH_UNKNOWN);
}

static void a_child_is_talked_to_by_lines(void **state)
{
    (void)state;
    const char *const argv[] = {"sh", "-c", "echo up; while read x; do echo \"<$x>\"; done; exit 4",
                                NULL};
    struct clu_child c;
    int code = -1;
    int64_t until = clock_us() + 5000000;
    assert_int_equal(clu_child_start(&c, argv), OK);
    assert_string_equal(clu_child_line(&c, until), "up");
    assert_true(clu_child_say(&c, "one") && clu_child_say(&c, "two"));
    assert_string_equal(clu_child_line(&c, until), "<one>");
    assert_string_equal(clu_child_line(&c, until), "<two>");
    assert_null(clu_child_line(&c, clock_us() + 20000));
    assert_true(clu_child_end(&c, 5000000, &code));
    assert_int_equal(code, 4);
    assert_string_equal(clu_child_complaint(&c), "");
    clu_child_free(&c);
    clu_child_free(NULL);
}

static void a_child_that_hangs_is_ended_with_its_children(void **state)
{
    (void)state;
    const char *const argv[] = {"sh", "-c", "sleep 1000 & echo $!; echo \" why  not\" >&2; wait",
                                NULL};
    struct clu_child c;
    int code = -1, grandchild;
    assert_int_equal(clu_child_start(&c, argv), OK);
    grandchild = atoi(clu_child_line(&c, clock_us() + 5000000));
    assert_true(grandchild > 1);
    assert_false(clu_child_end(&c, 50000, &code));
    assert_int_equal(code, 128 + SIGKILL);
    assert_string_equal(clu_child_complaint(&c), "why not");
    clu_child_free(&c);
    for (int i = 0; i < 100 && kill(grandchild, 0) == 0; i++) clock_sleep_us(10000);
    char path[64], line[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", grandchild);
    FILE *f = fopen(path, "r"); /* gone, or waiting for somebody to reap it */
    if (f && fgets(line, sizeof line, f)) assert_non_null(strstr(line, ") Z "));
    if (f) fclose(f);
}

static void a_program_that_is_not_there_is_an_error_with_its_name(void **state)
{
    (void)state;
    const char *const argv[] = {"no-such-program-here", NULL};
    struct clu_child c = clu_child_none;
    assert_int_equal(clu_child_start(&c, argv), ERR_SYSTEM);
    assert_non_null(strstr(err_text(), "no-such-program-here"));
    clu_child_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_way_is_measured),
        cmocka_unit_test(silent_and_stuck_ways_are_told_apart_within_the_deadline),
        cmocka_unit_test(strangers_do_not_hold_the_listener),
        cmocka_unit_test(names_of_reach_go_both_ways),
        cmocka_unit_test(a_child_is_talked_to_by_lines),
        cmocka_unit_test(a_child_that_hangs_is_ended_with_its_children),
        cmocka_unit_test(a_program_that_is_not_there_is_an_error_with_its_name),
    };
    return cmocka_run_group_tests_name("probe", tests, NULL, NULL);
}
