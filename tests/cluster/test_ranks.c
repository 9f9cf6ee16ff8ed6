/* What ranks say of themselves, beside what a topology says of them: names and addresses that mean one host, links measured or recorded; and
 * which term of a prediction was wrong. */
#include "cluster/forecast.h"
#include "cluster/same_host.h"
#include "cluster/facing.h"
#include "cluster/topo_ranks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static struct clu_topo known, topo; /* large */
static const struct clu_guess guess = {.read_bytes_s = 10e9, .ops_s = 4e11};

/* ---- names ---- */

static void a_name_and_its_addresses_mean_one_host(void **state)
{
    (void)state;
    assert_true(clu_same_host("box1", "box1", ""));
    assert_true(clu_same_host("box1.lab.example", "box1", ""));
    assert_true(clu_same_host("me@BOX1", "box1.lab.example", ""));
    assert_true(clu_same_host("10.0.0.7", "box1", "192.168.1.1,10.0.0.7"));
    assert_true(clu_same_host("root@[fd00::7]", "box1", "10.0.0.7,fd00::7"));
    assert_false(clu_same_host("10.0.0.70", "box1", "10.0.0.7"));
    assert_false(clu_same_host("10.0.0.7", "box1", "10.0.0.70,110.0.0.7"));
    assert_false(clu_same_host("10.0.0.7", "10.0.0.8", ""));
    assert_false(clu_same_host("box1.lab", "box1.home", ""));
    assert_false(clu_same_host("box2", "box1", ""));
    assert_false(clu_same_host("127.0.0.1", "box1", "127.0.0.1")); /* every host has that one */
}

static void our_own_name_means_our_addresses(void **state)
{
    (void)state;
    char name[256] = "", all[CLU_ADDRESSES];
    assert_int_equal(gethostname(name, sizeof name - 1), 0);
    clu_own_addresses(all, sizeof all);
    if (!all[0]) {
        print_message("no address here but loopback\n");
        return;
    }
    all[strcspn(all, ",")] = 0;
    assert_true(clu_same_name(name, all));
    assert_true(clu_same_name(all, name));
    assert_false(clu_same_name("192.0.2.1", name));
}

/* ---- ranks ---- */

static struct msg_hello rank(int32_t r, const char *host, const char *addresses)
{
    return (struct msg_hello){.host = host, .rank = r, .size = 3, .host_size = 1, .n_cpus = 4, .mem_available = INT64_C(8) << 30, .mem_ranks = 1,
                              .device = "cpu", .addresses = addresses};
}

static const char recorded_text[] = "tessera topology 1\n"
                                    "host 10.0.0.1 cores=8\ncpu a cores=8 memory=60GiB read=80GB/s ops=9T\n"
                                    "host two cores=2\ncpu b cores=2 memory=4GiB read=20GB/s ops=1T\n"
                                    "link 10.0.0.1 two latency=100us rate=1Gbit/s\n";

static void a_topology_by_address_knows_ranks_by_name(void **state)
{
    (void)state;
    struct clu_ranks_known what;
    struct msg_hello h[3] = {rank(0, "one", "10.0.0.1"), rank(1, "two", "10.0.0.2"), rank(2, "three", "10.0.0.3")};
    assert_int_equal(clu_topo_parse(&known, recorded_text, strlen(recorded_text)), OK);
    clu_topo_ranks(&topo, h, 2, &known, 0, &guess, &what);
    assert_true(what.speed && what.links);
    assert_float_equal(topo.devices[0].read_bytes_s, 80e9, 1);
    assert_float_equal(topo.devices[1].ops_s, 1e12, 1);
    assert_float_equal(clu_topo_wire(&topo, 0, 1).latency_s, 100e-6, 1e-9);
    clu_topo_ranks(&topo, h, 3, &known, 0, &guess, &what); /* the third is nobody's */
    assert_false(what.speed || what.links);
    assert_float_equal(topo.devices[2].read_bytes_s, 40e9, 1);
    assert_float_equal(clu_topo_wire(&topo, 0, 2).latency_s, known.wire.latency_s, 1e-12);
}

static void links_are_as_measured_where_no_file_says_them(void **state)
{
    (void)state;
    struct clu_ranks_known what;
    struct msg_hello h[3] = {rank(0, "one", "10.0.0.1"), rank(1, "two", "10.0.0.2"), rank(2, "three", "10.0.0.3")};
    /* the slower direction counts; what a rank says of one that is not there is passed over */
    struct msg_link l0[] = {{1, 16e-6, 3e9}, {2, 240e-6, 100e6}}, l1[] = {{0, 18e-6, 2.5e9}, {2, 250e-6, 110e6}},
        l2[] = {{0, 230e-6, 120e6}, {1, 250e-6, 115e6}};
    h[0].links = l0, h[1].links = l1, h[2].links = l2;
    h[0].n_links = h[1].n_links = h[2].n_links = 2;
    clu_topo_ranks(&topo, h, 3, NULL, 2, &guess, &what);
    assert_true(what.links);
    assert_false(what.speed);
    assert_float_equal(topo.devices[0].read_bytes_s, 20e9, 1); /* two threads of four processors */
    struct clu_wire near = clu_topo_wire(&topo, 0, 1), far = clu_topo_wire(&topo, 2, 0);
    assert_true(near.latency_s > 18e-6 / 1.1 && near.latency_s < 18e-6 * 1.1);
    assert_true(near.bytes_s > 2.5e9 / 1.1 && near.bytes_s < 2.5e9 * 1.1);
    assert_true(far.latency_s > 240e-6 / 1.1 && far.latency_s < 240e-6 * 1.1 && far.bytes_s > 100e6 / 1.1 && far.bytes_s < 100e6 * 1.1);
    /* a link that the file names goes before what was measured, the others do not */
    assert_int_equal(clu_topo_parse(&known, recorded_text, strlen(recorded_text)), OK);
    clu_topo_ranks(&topo, h, 3, &known, 0, &guess, &what);
    assert_float_equal(clu_topo_wire(&topo, 0, 1).latency_s, 100e-6, 1e-9);
    assert_true(clu_topo_wire(&topo, 1, 2).latency_s > 200e-6);
    assert_true(what.links);
}

/* A rank's link to itself is what all hosts at once take; it counts when every host has measured it. */
static void all_at_once_is_known_when_every_host_has_said_it(void **state)
{
    (void)state;
    struct clu_ranks_known what;
    struct msg_hello h[3] = {rank(0, "one", "10.0.0.1"), rank(1, "two", "10.0.0.2"), rank(2, "three", "10.0.0.3")};
    struct msg_link l0[] = {{1, 20e-6, 3e9}, {2, 20e-6, 3e9}, {0, 90e-6, 1e9}}, l1[] = {{0, 20e-6, 3e9}, {2, 20e-6, 3e9}, {1, 100e-6, 1e9}},
                    l2[] = {{0, 20e-6, 3e9}, {1, 20e-6, 3e9}, {2, 95e-6, 0.8e9}};
    h[0].links = l0, h[1].links = l1, h[2].links = l2;
    h[0].n_links = h[1].n_links = 3, h[2].n_links = 2;
    clu_topo_ranks(&topo, h, 3, NULL, 2, &guess, &what);
    assert_true(what.links);
    assert_true(topo.together.latency_s == 0);
    h[2].n_links = 3;
    clu_topo_ranks(&topo, h, 3, NULL, 2, &guess, &what);
    assert_true(topo.together.latency_s > 95e-6 && topo.together.latency_s < 105e-6);
    assert_true(topo.together.bytes_s > 0.75e9 && topo.together.bytes_s < 0.85e9);
    assert_true(clu_topo_wire(&topo, 0, 1).latency_s < 22e-6);
}

static void ranks_that_are_more_than_processors_share_them(void **state)
{
    (void)state;
    struct clu_ranks_known what;
    struct clu_guess g = {.read_bytes_s = 30e9, .ops_s = 1e12, .host_read_bytes_s = 40e9, .measured = true};
    struct msg_hello h[3] = {rank(0, "one", ""), rank(1, "one", ""), rank(2, "one", "")};
    for (int32_t r = 0; r < 3; r++) h[r].host_size = 3, h[r].n_cpus = 2, h[r].mem_ranks = 3;
    clu_topo_ranks(&topo, h, 3, NULL, 1, &g, &what);
    assert_true(what.speed && what.links); /* there is no link */
    assert_int_equal(topo.n_hosts, 1);
    assert_float_equal(topo.devices[0].read_bytes_s, 1 / (1 / 20e9 + 1 / 30e9), 1); /* two at once, then the third */
    assert_float_equal(topo.devices[0].ops_s, 1e12 / 2, 1); /* two of them on one of the two processors */
}

/* ---- which term ---- */

static void the_wrong_term_is_named(void **state)
{
    (void)state;
    char text[320];
    struct clu_forecast f = {.n = 2, .n_stages = 1, .rows = {1, 9}, .compute_s = {10e-3, 18e-3}, .comm_s = {2e-3, 6e-3}, .speed_known = true,
                             .links_known = true};
    double compute, comm;
    clu_forecast_at(&f, 5, &compute, &comm);
    assert_float_equal(compute, 14e-3, 1e-9);
    assert_float_equal(comm, 4e-3, 1e-9);
    static const struct {
        struct clu_measured m;
        enum clu_term want;
        const char *says;
    } cases[] = {
        {{5, 19e-3, 4e-3, 4e-3}, CLU_TERM_NONE, "takes 19.00 ms, predicted 18.00"},
        {{5, 30e-3, 5e-3, 4e-3}, CLU_TERM_COMPUTE, "the processors' speed"},
        {{5, 30e-3, 16e-3, 15e-3}, CLU_TERM_LINKS, "latency or bandwidth"},
        {{5, 30e-3, 16e-3, 4e-3}, CLU_TERM_LEVEL, "one rank is slower"},
        {{5, 10e-3, 4e-3, 4e-3}, CLU_TERM_COMPUTE, "the processors' speed"}, /* faster than promised is wrong too */
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_int_equal(clu_forecast_judge(&f, &cases[i].m, text), cases[i].want);
        if (!strstr(text, cases[i].says)) fail_msg("%s", text);
        assert_null(strstr(text, "guess"));
    }
    f.speed_known = false;
    assert_int_equal(clu_forecast_judge(&f, &cases[1].m, text), CLU_TERM_COMPUTE);
    assert_non_null(strstr(text, "it was a guess"));
    f.n = 0;
    assert_int_equal(clu_forecast_judge(&f, &cases[1].m, text), CLU_TERM_NONE);
}

/* Whom a line leads to decides: this host's own names count least, and what does not resolve not at all. */
static void hosts_that_are_this_one_are_faced_by_loopback(void **state)
{
    (void)state;
    struct clu_hostfile f;
    char address[CLU_FACING] = "";
    static const char here[] = "no.such.host.invalid\nlocalhost slots=2\nroot@127.0.0.1\n", nobody[] = "no.such.host.invalid\n";
    if (clu_hostfile_parse(&f, here, sizeof here - 1) || clu_facing(&f, address)) fail_msg("%s", err_text());
    assert_string_equal(address, "127.0.0.1");
    if (clu_hostfile_parse(&f, nobody, sizeof nobody - 1)) fail_msg("%s", err_text());
    assert_int_equal(clu_facing(&f, address), ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_and_its_addresses_mean_one_host),
        cmocka_unit_test(our_own_name_means_our_addresses),
        cmocka_unit_test(a_topology_by_address_knows_ranks_by_name),
        cmocka_unit_test(links_are_as_measured_where_no_file_says_them),
        cmocka_unit_test(all_at_once_is_known_when_every_host_has_said_it),
        cmocka_unit_test(ranks_that_are_more_than_processors_share_them),
        cmocka_unit_test(the_wrong_term_is_named),
        cmocka_unit_test(hosts_that_are_this_one_are_faced_by_loopback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
