/* test_metric.c: the text is Prometheus' exposition format, to the byte. */
#include "base/metric.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const char *rendered(struct buf *b, struct metric *const m[], size_t n, const char *common)
{
    buf_clear(b);
    metric_render(b, m, n, common);
    return buf_str(b);
}

static void counter_gets_total_and_common_labels(void **state)
{
    (void)state;
    struct buf b = {0};
    struct metric c = {.name = "x:tokens", .help = "Tokens.", .kind = METRIC_COUNTER};
    metric_add(&c, 40);
    metric_add(&c, 2);
    assert_string_equal(rendered(&b, (struct metric *[]){&c}, 1, "model_name=\"m\""),
                        "# HELP x:tokens_total Tokens.\n# TYPE x:tokens_total "
                        "counter\nx:tokens_total{model_name=\"m\"} 42\n");
    buf_free(&b);
}

static void gauge_shows_its_last_value(void **state)
{
    (void)state;
    struct buf b = {0};
    struct metric g = {
        .name = "use", .help = "Use.", .kind = METRIC_GAUGE, .labels = "kind=\"kv\""};
    metric_set(&g, 3);
    metric_set(&g, 0.125);
    assert_string_equal(rendered(&b, (struct metric *[]){&g}, 1, ""),
                        "# HELP use Use.\n# TYPE use gauge\nuse{kind=\"kv\"} 0.125\n");
    metric_set(&g, -2.5);
    assert_non_null(strstr(rendered(&b, (struct metric *[]){&g}, 1, "a=\"1\""),
                           "use{a=\"1\",kind=\"kv\"} -2.5\n"));
    buf_free(&b);
}

static void histogram_buckets_are_cumulative_and_inclusive(void **state)
{
    (void)state;
    struct buf b = {0};
    static const double le[] = {0.1, 1, 10};
    struct metric h = {.name = "t_seconds",
                       .help = "Time.",
                       .kind = METRIC_HISTOGRAM,
                       .buckets = le,
                       .n_buckets = 3};
    metric_observe(&h, 0.1); /* on the bound: inside */
    metric_observe(&h, 0.5);
    metric_observe(&h, 0.5);
    metric_observe(&h, 99);
    assert_string_equal(
        rendered(&b, (struct metric *[]){&h}, 1, "e=\"0\""),
        "# HELP t_seconds Time.\n# TYPE t_seconds histogram\n"
        "t_seconds_bucket{e=\"0\",le=\"0.1\"} 1\nt_seconds_bucket{e=\"0\",le=\"1\"} 3\n"
        "t_seconds_bucket{e=\"0\",le=\"10\"} 3\nt_seconds_bucket{e=\"0\",le=\"+Inf\"} 4\n"
        "t_seconds_sum{e=\"0\"} 100.100000\nt_seconds_count{e=\"0\"} 4\n");
    buf_free(&b);
}

static void same_named_metrics_share_one_head(void **state)
{
    (void)state;
    struct buf b = {0};
    struct metric a = {
        .name = "done", .help = "Done.", .kind = METRIC_COUNTER, .labels = "why=\"stop\""};
    struct metric c = {
        .name = "done", .help = "Done.", .kind = METRIC_COUNTER, .labels = "why=\"length\""};
    metric_add(&c, 1);
    assert_string_equal(rendered(&b, (struct metric *[]){&a, &c}, 2, ""),
                        "# HELP done_total Done.\n# TYPE done_total counter\n"
                        "done_total{why=\"stop\"} 0\ndone_total{why=\"length\"} 1\n");
    buf_free(&b);
}

static void *add_many(void *m)
{
    for (int i = 0; i < 20000; i++) metric_add(m, 1);
    return NULL;
}

static void counting_from_threads_loses_nothing(void **state)
{
    (void)state;
    struct metric c = {.name = "n", .help = "N.", .kind = METRIC_COUNTER};
    pthread_t t[3];
    for (int i = 0; i < 3; i++) pthread_create(&t[i], NULL, add_many, &c);
    for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
    assert_int_equal(atomic_load(&c.value), 60000);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(counter_gets_total_and_common_labels),
        cmocka_unit_test(gauge_shows_its_last_value),
        cmocka_unit_test(histogram_buckets_are_cumulative_and_inclusive),
        cmocka_unit_test(same_named_metrics_share_one_head),
        cmocka_unit_test(counting_from_threads_loses_nothing),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("metric", tests, NULL, NULL);
}
