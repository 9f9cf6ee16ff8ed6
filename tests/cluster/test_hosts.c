/* Which replica uses which hosts, spare ones, and those that are set aside. */
#include "cluster/hosts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const int64_t S = 1000000;

static struct clu_hosts *of(const char *text)
{
    struct clu_hostfile f;
    struct clu_hosts *h = malloc(sizeof *h);
    assert_int_equal(clu_hostfile_parse(&f, text, strlen(text)), OK);
    clu_hosts_init(h, &f);
    return h;
}

static const char *take(struct clu_hosts *h, int32_t replica, int32_t n, int32_t least, int64_t now)
{
    static char list[CLU_HOSTS_LIST];
    int32_t got;
    if (clu_hosts_take(h, replica, n, least, now, list, &got)) return NULL;
    return list;
}

static void replicas_get_slots_in_order_and_the_rest_is_spare(void **state)
{
    (void)state;
    struct clu_hosts *h = of("a slots=2\nb slots=2\nc slots=2\nd slots=1\n");
    assert_string_equal(take(h, 0, 3, 3, 0), "a:2,b:1");
    assert_string_equal(take(h, 1, 3, 3, 0), "b:1,c:2");
    assert_null(take(h, 2, 3, 3, 0));
    assert_string_equal(take(h, 0, 3, 3, 0), "a:2,b:1"); /* again: the same */
    assert_string_equal(clu_hosts_of(h, 1, 0)->name, "b");
    assert_string_equal(clu_hosts_of(h, 1, 2)->name, "c");
    assert_null(clu_hosts_of(h, 1, 3));
    free(h);
}

static void hosts_without_a_joined_rank_are_named(void **state)
{
    (void)state;
    struct clu_hosts *h = of("a slots=2\nb slots=1\nc slots=2\nspare slots=1\n");
    char out[64], little[8];
    assert_string_equal(take(h, 0, 5, 5, 0), "a:2,b:1,c:2");
    clu_hosts_absent(h, 0, NULL, 0, out, sizeof out); /* nobody has come */
    assert_string_equal(out, "a, b, c");
    clu_hosts_absent(h, 0, (bool[]){false, true, false, false, false}, 5, out, sizeof out);
    assert_string_equal(out, "b, c");
    clu_hosts_absent(h, 0, (bool[]){true, true, true, false, true}, 5, out, sizeof out);
    assert_string_equal(out, "");
    clu_hosts_absent(h, 0, NULL, 0, little, sizeof little); /* whole names only */
    assert_string_equal(little, "a, b, c");
    clu_hosts_absent(h, 0, NULL, 0, little, 4);
    assert_string_equal(little, "a");
    free(h);
}

static const char *device(const struct clu_hosts *h, int32_t replica, const char *said)
{
    static char out[CLU_HOSTS_DEVICE];
    clu_hosts_device(h, replica, said, out);
    return out;
}

/* Cards go with slots: replicas that share a host begin at different ones, and keep theirs when they come again. */
static void replicas_that_share_a_host_have_cards_of_their_own(void **state)
{
    (void)state;
    struct clu_hosts *h = of("a slots=4\nb slots=4\n");
    assert_string_equal(take(h, 0, 3, 3, 0), "a:3");
    assert_string_equal(take(h, 1, 3, 3, 0), "a:1,b:2");
    assert_string_equal(take(h, 2, 2, 2, 0), "b:2");
    assert_string_equal(device(h, 0, "auto"), "auto");
    assert_string_equal(device(h, 1, "auto"), "auto+3,0");
    assert_string_equal(device(h, 1, "cuda"), "cuda+3,0");
    assert_string_equal(device(h, 1, "cpu"), "cpu");
    assert_string_equal(device(h, 2, "auto"), "auto+2");
    assert_string_equal(take(h, 1, 3, 3, 0), "a:1,b:2"); /* again: the same */
    assert_string_equal(device(h, 1, "auto"), "auto+3,0");
    h->hosts[0].used[0] = 0; /* the first replica is gone: a new one fits in front */
    assert_string_equal(take(h, 3, 2, 2, 0), "a:2");
    assert_string_equal(device(h, 3, "auto"), "auto");
    assert_string_equal(take(h, 2, 2, 2, 0), "b:2");
    assert_string_equal(device(h, 2, "auto"), "auto+2");
    free(h);
}

static void a_host_that_keeps_failing_is_set_aside_and_a_spare_one_comes_in(void **state)
{
    (void)state;
    struct clu_hosts *h = of("a\nb\nspare\n");
    assert_string_equal(take(h, 0, 2, 2, 0), "a:1,b:1");
    struct clu_hosts_one *b = clu_hosts_of(h, 0, 1);
    assert_false(clu_hosts_failed(h, b, false, "its worker was killed", 1 * S));
    assert_string_equal(take(h, 0, 2, 2, 1 * S), "a:1,b:1");
    clu_hosts_good(h, 0); /* it was whole in between: counted anew */
    assert_false(clu_hosts_failed(h, b, false, "its worker was killed", 2 * S));
    assert_false(clu_hosts_failed(h, b, false, "its worker was killed", 3 * S));
    assert_true(clu_hosts_failed(h, b, false, "its worker was killed", 4 * S));
    assert_string_equal(take(h, 0, 2, 2, 5 * S), "a:1,spare:1");
    free(h);
}

static void what_is_left_is_used_or_what_lacks_is_said(void **state)
{
    (void)state;
    struct clu_hosts *h = of("a\nb\nc\n");
    assert_string_equal(take(h, 0, 3, 3, 0), "a:1,b:1,c:1");
    assert_true(clu_hosts_failed(h, clu_hosts_of(h, 0, 1), true, "ssh: no route to host", 1 * S));
    assert_null(take(h, 0, 3, 3, 2 * S));
    assert_non_null(strstr(err_text(), "3 slots are needed and 2 are left"));
    assert_non_null(strstr(err_text(), "b (ssh: no route to host; tried again in 59 s)"));
    assert_string_equal(take(h, 0, 3, 1, 2 * S), "a:1,c:1");
    free(h);
}

static void a_host_set_aside_is_tried_again_later_and_later(void **state)
{
    (void)state;
    struct clu_hosts *h = of("a\nb\n");
    int64_t now = 0;
    for (int64_t pause = 60, k = 0; k < 6; k++, pause = MIN(2 * pause, 600)) {
        assert_string_equal(take(h, 0, 2, 1, now), "a:1,b:1");
        assert_true(clu_hosts_failed(h, clu_hosts_of(h, 0, 1), true, "gone", now));
        assert_string_equal(take(h, 0, 2, 1, now + (pause - 1) * S), "a:1");
        now += (pause + 1) * S;
    }
    free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replicas_get_slots_in_order_and_the_rest_is_spare),
        cmocka_unit_test(hosts_without_a_joined_rank_are_named),
        cmocka_unit_test(replicas_that_share_a_host_have_cards_of_their_own),
        cmocka_unit_test(a_host_that_keeps_failing_is_set_aside_and_a_spare_one_comes_in),
        cmocka_unit_test(what_is_left_is_used_or_what_lacks_is_said),
        cmocka_unit_test(a_host_set_aside_is_tried_again_later_and_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
