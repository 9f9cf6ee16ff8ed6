/* Topologies and hostfiles as text: what is written is read back; what is wrong is refused by its
 * line. */
#include "base/rng.h"
#include "cluster/hostfile.h"
#include "cluster/topo.h"
#include "tests/support/scratch.h"
#include "tests/support/env.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct clu_topo a, b; /* large */

static void every_machine_of_the_tree_is_read_and_written_back(void **state)
{
    (void)state;
    DIR *d = opendir("tests/machines");
    int32_t n = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char path[512];
        struct buf t = {0};
        if (!strstr(e->d_name, ".topo")) continue;
        snprintf(path, sizeof path, "tests/machines/%s", e->d_name);
        if (clu_topo_read(&a, path)) fail_msg("%s", err_text());
        clu_topo_write(&a, &t);
        if (clu_topo_parse(&b, (char *)t.data, t.len)) fail_msg("%s: %s", path, err_text());
        assert_int_equal(a.n_hosts, b.n_hosts);
        assert_int_equal(a.n_links, b.n_links);
        assert_memory_equal(a.hosts[0].name, b.hosts[0].name, CLU_NAME);
        for (int32_t i = 0; i < a.n_devices; i++) {
            assert_string_equal(a.devices[i].name, b.devices[i].name);
            assert_int_equal(a.devices[i].host, b.devices[i].host);
            assert_true(llabs(a.devices[i].mem_bytes - b.devices[i].mem_bytes) <=
                        a.devices[i].mem_bytes / 100000);
            assert_float_equal(a.devices[i].read_bytes_s / b.devices[i].read_bytes_s, 1, 1e-5);
            assert_float_equal(a.devices[i].ops_s / b.devices[i].ops_s, 1, 1e-5);
        }
        assert_float_equal(a.wire.latency_s / b.wire.latency_s, 1, 1e-5);
        buf_free(&t);
        n++;
    }
    closedir(d);
    printf("%d machines\n", n);
    assert_true(n >= 20);
}

#define HEAD "tessera topology 1\n"
#define HOST HEAD "host a cores=4\n"

/* `cat a.topo b.topo > rack.topo`. */
static void recordings_that_were_joined_are_one_cluster(void **state)
{
    (void)state;
    static const char a_topo[] = HOST "cpu c memory=1GiB read=1GB/s ops=1G\nwire latency=9us rate=1GB/s\n",
                      b_topo[] = HEAD "host b cores=2\ncpu c memory=2GiB read=2GB/s ops=2G\nwire latency=7us rate=1GB/s\nlink b a latency=5us rate=2GB/s\n";
    struct buf t = {0};
    buf_puts(&t, a_topo);
    buf_puts(&t, b_topo);
    if (clu_topo_parse(&b, (char *)t.data, t.len)) fail_msg("%s", err_text());
    assert_int_equal(b.n_hosts, 2);
    assert_int_equal(b.devices[1].host, 1);
    assert_float_equal(b.wire.latency_s, 7e-6, 1e-9);
    assert_float_equal(clu_topo_wire(&b, 0, 1).latency_s, 5e-6, 1e-9);
    buf_puts(&t, a_topo); /* a host that comes again is two recordings that disagree */
    assert_int_equal(clu_topo_parse(&b, (char *)t.data, t.len), ERR_BAD_FILE);
    if (!strstr(err_text(), "line 11: host a is already there")) fail_msg("%s", err_text());
    buf_free(&t);
}

static void what_is_wrong_is_refused_by_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "no device"},
        {"hello", "line 1: 'hello' is not the first line of a topology"},
        {"tessera topology 2\n", "line 1"},
        {HEAD, "no device"},
        {HOST, "no device"},
        {HEAD "cpu c memory=1GiB read=1GB/s ops=1G\n", "line 2: a device before the first host"},
        {HOST "cpu c memory=1GiB read=1GB/s\n",
         "line 3: 'cpu' needs ops=, operations per second such as 1.5T"},
        {HOST "cpu c memory=1Gib read=1GB/s ops=1G\n",
         "line 3: 'memory=1Gib' is not bytes such as 24GiB"},
        {HOST "cpu c memory=-1GiB read=1GB/s ops=1G\n", "line 3: 'memory=-1GiB'"},
        {HOST "cpu c memory=0x1GiB read=1GB/s ops=1G\n", "line 3: 'memory=0x1GiB'"},
        {HOST "cpu c memory=infGiB read=1GB/s ops=1G\n", "line 3: 'memory=infGiB'"},
        {HOST "cpu c memory=1e300TiB read=1GB/s ops=1G\n", "line 3: 'memory=1e300TiB'"},
        {HOST "cpu c memory=1GiB read=0B/s ops=1G\n", "line 3: 'read=0B/s' is outside"},
        {HOST "cpu c memory=1GiB read=1GB/s ops=1G speed=9\n",
         "line 3: 'speed=9' means nothing to 'cpu'"},
        {HOST "cpu memory=1GiB read=1GB/s ops=1G\n", "line 3: 'cpu' needs a name"},
        {HOST "host a cores=2\n", "line 3: host a is already there"},
        {HEAD "host a cores=0\n", "line 2: 'cores=0' is outside"},
        {HEAD "host a cores=1.5\n", "line 2: 'cores=1.5' is not a whole number"},
        {HOST "link a b latency=1us rate=1GB/s\n", "line 3: link a b does not name two hosts"},
        {HOST "link a a latency=1us rate=1GB/s\n", "line 3: link a a does not name two hosts"},
        {HOST "wire latency=1 rate=1GB/s\n", "line 3: 'latency=1' is not a time such as 50us"},
        {HOST "boat x\n", "line 3: 'boat' is none of host, cpu"},
        {HOST "cpu \x01 memory=1GiB\n", "line 3: a control character"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        a.n_hosts = -7;
        assert_int_equal(clu_topo_parse(&a, cases[i].text, strlen(cases[i].text)), ERR_BAD_FILE);
        assert_int_equal(a.n_hosts, -7);
        if (!strstr(err_text(), cases[i].says))
            fail_msg("'%s' does not say '%s'", err_text(), cases[i].says);
    }
    char *big = xmalloc(CLU_TOPO_BYTES + 2);
    memset(big, '#', CLU_TOPO_BYTES + 2);
    assert_int_equal(clu_topo_parse(&a, big, CLU_TOPO_BYTES + 1), ERR_BAD_FILE);
    assert_int_equal(clu_topo_parse(&a, big, 5000), ERR_BAD_FILE);
    free(big);
    assert_int_equal(clu_topo_read(&a, "tests/machines/none.topo"), ERR_IO);
    assert_non_null(strstr(err_text(), "none.topo"));
}

static void flips_and_truncations_never_crash(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    struct buf t = {0};
    int32_t good = 0;
    assert_true(scratch_read("tests/machines/mixed-cards.topo", &t));
    for (uint64_t i = 0; i < 2000; i++) {
        size_t n = rng_at(seed, i, 1, 0) % 4 ? t.len : rng_at(seed, i, 2, 0) % t.len;
        char *copy = xmalloc(n + 1);
        memcpy(copy, t.data, n);
        for (uint64_t k = 0; n && k < rng_at(seed, i, 3, 0) % 4; k++)
            copy[rng_at(seed, i, k, 4) % n] = (char)rng_at(seed, i, k, 5);
        err_set_text("%s", "");
        if (clu_topo_parse(&a, copy, n))
            assert_true(*err_text());
        else
            good++;
        free(copy);
    }
    printf("%d of 2000 were still right\n", good);
    buf_free(&t);
}

static void split_and_add_keep_the_sums(void **state)
{
    (void)state;
    assert_int_equal(clu_topo_read(&a, "tests/machines/workstation.topo"), OK);
    b = a;
    assert_int_equal(clu_topo_split(&a, 3), OK);
    assert_int_equal(a.n_devices, 3);
    int32_t cores = 0;
    double read = 0;
    for (int32_t i = 0; i < 3; i++) cores += a.devices[i].cores, read += a.devices[i].read_bytes_s;
    assert_int_equal(cores, b.devices[0].cores);
    assert_float_equal(read / b.devices[0].read_bytes_s, 1, 1e-9);
    assert_int_equal(clu_topo_split(&b, 65), ERR_BAD_CONFIG);
    assert_int_equal(clu_topo_add(&a, &b, NULL), OK);
    assert_int_equal(a.n_hosts, 2);
    assert_string_not_equal(a.hosts[0].name, a.hosts[1].name);
    assert_int_equal(a.devices[3].host, 1);
}

static void this_machine_is_found(void **state)
{
    (void)state;
    struct buf t = {0};
    if (clu_topo_discover(&a, true)) fail_msg("%s", err_text());
    clu_topo_write(&a, &t);
    printf("%s", buf_str(&t));
    if (clu_topo_parse(&b, (char *)t.data, t.len)) fail_msg("%s", err_text());
    assert_int_equal(a.n_devices, 1);
    assert_true(a.devices[0].cores >= 1 && a.devices[0].mem_bytes > 0 &&
                a.devices[0].read_bytes_s > 1e8);
    buf_free(&t);
}

static enum err hosts(struct clu_hostfile *f, const char *text)
{
    return clu_hostfile_parse(f, text, strlen(text));
}

static void hostfiles_are_read_as_open_mpi_does(void **state)
{
    (void)state;
    struct clu_hostfile f;
    assert_int_equal(hosts(&f, "# a comment\nnode0 slots=2\n\n  10.0.0.2   slots=3 max_slots=4 # "
                               "here too\nnode2\nnode0\n"),
                     OK);
    assert_int_equal(f.n, 3);
    assert_int_equal(f.n_slots, 7);
    assert_string_equal(f.hosts[1].name, "10.0.0.2");
    assert_int_equal(f.hosts[0].slots, 3); /* named twice: one host */
    assert_int_equal(f.hosts[0].again, 6);
    assert_int_equal(f.hosts[1].again, 0);
    assert_int_equal(f.hosts[2].line, 5);
    assert_int_equal(hosts(&f, "fe80::4\n2001:db8::17 slots=2\n"), OK); /* colons of addresses */
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "names no host"},
        {"node0 slots=0\n", "line 1: slots=0"},
        {"a\nnode0 slots=two\n", "line 2: slots=two"},
        {"a\n\nb!c\n", "line 3: 'b!c' is no host name"},
        {"-x\n", "line 1"},
        {"a slot=3\n", "line 1: 'slot=3' is neither"},
        {"a\nbox:4\n", "line 2: 'box:4': in a hostfile slots are written 'box slots=4'"},
        {"a slots=99999999999\n", "line 1"},
        {"a slots=60\nb slots=5\n", "line 2: more than 64 slots"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_int_equal(hosts(&f, cases[i].text), ERR_BAD_CONFIG);
        if (!strstr(err_text(), cases[i].says))
            fail_msg("'%s' does not say '%s'", err_text(), cases[i].says);
    }
    assert_int_equal(clu_hostfile_parse(&f, "a\0b\n", 4), ERR_BAD_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recordings_that_were_joined_are_one_cluster),
        cmocka_unit_test(every_machine_of_the_tree_is_read_and_written_back),
        cmocka_unit_test(what_is_wrong_is_refused_by_its_line),
        cmocka_unit_test(flips_and_truncations_never_crash),
        cmocka_unit_test(split_and_add_keep_the_sums),
        cmocka_unit_test(this_machine_is_found),
        cmocka_unit_test(hostfiles_are_read_as_open_mpi_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
