/* test_doctor.c: every rule of the doctor: a healthy cluster raises nothing, and each fault raises
 * the one finding that names it, its host, the value seen, the value needed and a cure. */
#include "cluster/doctor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#define SET(field, ...) snprintf(field, sizeof field, __VA_ARGS__)

enum { N = 3, PATHS = N * (N - 1) };

static struct clu_survey_host hosts[N];
static struct clu_path paths[2 * PATHS];
static struct clu_survey s;

/* Three hosts a, b, c on 10.0.0.0/24 that want for nothing. */
static void healthy(void)
{
    memset(hosts, 0, sizeof hosts);
    memset(paths, 0, sizeof paths);
    s = (struct clu_survey){.n = N, .hosts = hosts, .paths = paths, .listen = "10.0.0.1"};
    for (int i = 0; i < N; i++) {
        struct clu_facts *f = &hosts[i].facts;
        hosts[i].ranks = true;
        hosts[i].skew_us = i * 1000;
        SET(hosts[i].listed, "%c", 'a' + i);
        SET(hosts[i].resolves, "10.0.0.%d", i + 1);
        *f = (struct clu_facts){.version = "1.0.0", .mpi = "4.1.4", .thp = "madvise", .cores = 8,
                                .load = 0.2, .mem_total = 64e9, .mem_available = 60e9,
                                .mem_limit = CLU_FACTS_UNLIMITED, .nofile_soft = 1024,
                                .nofile_hard = 1 << 20, .memlock = 8 << 20, .shm_total = 32e9,
                                .shm_free = 32e9, .model = "/m/x.gguf", .model_bytes = 40e9,
                                .model_files = 1, .model_head = 1, .model_places = 2,
                                .model_tail = 3, .n_nics = 1};
        SET(f->host, "%c", 'a' + i);
        SET(f->resolves, "10.0.0.%d", i + 1);
        f->nics[0] = (struct clu_facts_nic){"eth0", "", 24, 1500, 10000};
        SET(f->nics[0].address, "10.0.0.%d", i + 1);
    }
    for (int a = 0; a < N; a++)
        for (int b = 0; b < N; b++) {
            if (a == b) continue;
            struct clu_path *p = &paths[s.n_paths++];
            *p = (struct clu_path){a, b, 0, {REACH_OK, 30, 1.1e9, ""}};
            SET(p->seen.local, "10.0.0.%d", a + 1);
        }
    s.collective = (struct clu_collective){.state = COLL_OK, .n_ranks = N, .small_us = 40,
                                           .large_us = 300, .seconds = 1};
}

static struct clu_path *path(int a, int b)
{
    for (int i = 0; i < s.n_paths; i++)
        if (paths[i].from == a && paths[i].to == b) return &paths[i];
    fail_msg("no path %d %d", a, b);
    return NULL;
}

/* A second interface on each host, which works or not. */
static void second_nic(const char *network, enum clu_reach reach, double bytes_s)
{
    for (int i = 0; i < N; i++) {
        hosts[i].facts.nics[hosts[i].facts.n_nics++] =
            (struct clu_facts_nic){"eth1", "", 16, 1500, 1000};
        SET(hosts[i].facts.nics[1].address, "%s%d", network, i + 1);
    }
    for (int a = 0; a < N; a++)
        for (int b = 0; b < N; b++)
            if (a != b)
                paths[s.n_paths++] = (struct clu_path){a, b, 1, {reach, 30, bytes_s, ""}};
}

/* ---- the faults ---- */

#define FAULT(name) static void name(void)
#define F(i) hosts[i].facts

static void silent(enum clu_asked asked, const char *why)
{
    hosts[1].asked = asked;
    SET(hosts[1].why, "%s", why);
    memset(&F(1), 0, sizeof F(1));
    int32_t kept = 0;
    for (int i = 0; i < s.n_paths; i++)
        if (paths[i].from != 1 && paths[i].to != 1) paths[kept++] = paths[i];
    s.n_paths = kept;
}
FAULT(no_name) { silent(ASKED_NO_NAME, "no address within 5 s"); }
FAULT(ssh_hangs) { silent(ASKED_SSH_HANGS, "nothing within 8 s"); }
FAULT(ssh_fails) { silent(ASKED_SSH_FAILS, "Permission denied (publickey)."); }
FAULT(no_program) { silent(ASKED_NO_PROGRAM, "tessera: not found"); }
FAULT(no_orted) { silent(ASKED_NO_MPI, "orted: command not found"); }
FAULT(mpi_hangs) { silent(ASKED_MPI_HANGS, ""); }
FAULT(mpi_fails) { silent(ASKED_MPI_FAILS, "There are not enough slots"); }
FAULT(nonsense) { silent(ASKED_NONSENSE, "the facts have no proper 'cores'"); }
FAULT(loopback_own) { SET(F(2).resolves, "127.0.1.1"); }
FAULT(loopback_none) { F(2).resolves[0] = 0; }
FAULT(loopback_here) { SET(hosts[1].resolves, "127.0.0.1"); }
FAULT(loopback_six) { SET(hosts[1].resolves, "::1"); }
FAULT(same_name) { SET(F(2).host, "b"); }
FAULT(twice)
{
    F(2) = F(1);
    SET(hosts[2].resolves, "10.0.0.2");
}
FAULT(version) { SET(F(1).version, "0.9.0"); }
FAULT(mpi_major) { SET(F(1).mpi, "5.0.3"); }
FAULT(mpi_minor) { SET(F(1).mpi, "4.10.4"); }
FAULT(mpi_patch) { SET(F(1).mpi, "4.1.6"); }
FAULT(mpi_none) { F(1).mpi[0] = 0; }
FAULT(model_absent)
{
    F(1).model_bytes = CLU_FACTS_UNKNOWN;
    SET(F(1).model_error, "x.gguf: No such file or directory");
}
FAULT(model_absent_here)
{
    F(0).model_bytes = CLU_FACTS_UNKNOWN;
    SET(F(0).model_error, "x.gguf: Permission denied");
}
FAULT(model_short) { F(2).model_bytes = 39999999999; }
FAULT(model_head) { F(1).model_head = 9; }
FAULT(model_tail) { F(1).model_tail = 9; }
FAULT(model_places) { F(1).model_places = 9; }
FAULT(model_parts) { F(1).model_files = 2; }
FAULT(memory_little) { for (int i = 0; i < N; i++) F(i).mem_available = 13e9; }
FAULT(memory_group) { for (int i = 0; i < N; i++) F(i).mem_limit = 12e9; }
FAULT(files_few) { F(1).nofile_hard = 200; }
FAULT(files_some) { F(1).nofile_hard = 1000; }
FAULT(files_gateway) { F(0).nofile_hard = 4096; }
FAULT(memlock_tiny) { F(1).memlock = 16 << 10; }
FAULT(memlock_rdma) { F(1).rdma = true; }
FAULT(shm_none) { F(1).shm_total = F(1).shm_free = CLU_FACTS_UNKNOWN; }
FAULT(shm_tiny) { F(1).shm_total = F(1).shm_free = 16 << 20; }
FAULT(shm_full) { F(1).shm_free = 40 << 20; }
FAULT(throttled) { F(1).cpu_limit = 1.5; }
FAULT(clock_behind) { hosts[2].skew_us = -5000000; }
FAULT(clock_ahead) { hosts[2].skew_us = 4000000000; }
FAULT(refused) { path(1, 2)->seen = (struct clu_probe_result){.reach = REACH_REFUSED}; }
FAULT(dropped) { path(1, 2)->seen = (struct clu_probe_result){.reach = REACH_TIMEOUT}; }
FAULT(no_route) { path(1, 2)->seen = (struct clu_probe_result){.reach = REACH_UNREACHABLE}; }
FAULT(stranger) { path(1, 2)->seen = (struct clu_probe_result){.reach = REACH_STRANGER}; }
FAULT(stalled) { path(1, 2)->seen.reach = REACH_STALLED; }
FAULT(untried) { path(1, 2)->seen.reach = REACH_UNKNOWN; }
FAULT(mtu) { F(2).nics[0].mtu = 9000; path(0, 2)->seen.local[0] = 0; }
FAULT(slow_wire) { path(1, 2)->seen.bytes_s = 11.8e6; }
FAULT(slow_answer) { path(1, 2)->seen.latency_us = 15000; }
FAULT(spare) { second_nic("172.17.0.", REACH_TIMEOUT, 0); }
FAULT(plane)
{   /* the coordinator's host holds no ranks, so only its address matters */
    hosts[0].ranks = false;
    path(1, 0)->seen = (struct clu_probe_result){.reach = REACH_TIMEOUT};
}
FAULT(reduce_hangs)
{
    s.collective.state = COLL_HANGS;
    s.collective.seconds = 30;
    SET(s.collective.stage[0], "done");
    SET(s.collective.stage[1], "joined");
    SET(s.collective.where[1], "b");
}
FAULT(reduce_wrong) { s.collective.state = COLL_WRONG; }
FAULT(reduce_fails) { s.collective.state = COLL_FAILS; SET(s.collective.why, "PML add procs"); }
FAULT(public_address)
{
    for (int i = 0; i < N; i++) SET(F(i).nics[0].address, "8.8.4.%d", i + 1);
    hosts[0].ranks = false; /* one pair is left */
    s.listen[0] = 0;
}

static const struct fault {
    const char *name;
    void (*make)(void);
    enum clu_severity severity;
    const char *check, *where, *seen, *cure; /* parts of the finding */
} faults[] = {
    {"no_name", no_name, SEV_FAIL, "start", "b", "no address", "hostfile"},
    {"ssh_hangs", ssh_hangs, SEV_FAIL, "start", "b", "8 s", "ssh -v -o BatchMode=yes b true"},
    {"ssh_fails", ssh_fails, SEV_FAIL, "start", "b", "Permission denied", "ssh-copy-id b"},
    {"no_program", no_program, SEV_FAIL, "start", "b", "not found", "--program"},
    {"no_orted", no_orted, SEV_FAIL, "start", "b", "orted", "openmpi-bin"},
    {"mpi_hangs", mpi_hangs, SEV_FAIL, "start", "b", "no answer", "oob_tcp_if_include"},
    {"mpi_fails", mpi_fails, SEV_FAIL, "start", "b", "slots", "mpirun --host b -n 1"},
    {"nonsense", nonsense, SEV_FAIL, "start", "b", "cores", "same version"},
    {"loopback_own", loopback_own, SEV_WARN, "names", "c", "127.0.1.1", "10.0.0.3 c"},
    {"loopback_none", loopback_none, SEV_WARN, "names", "c", "nothing", "10.0.0.3 c"},
    {"loopback_here", loopback_here, SEV_FAIL, "names", "b", "127.0.0.1", "10.0.0.2 b"},
    {"loopback_six", loopback_six, SEV_FAIL, "names", "b", "::1", "10.0.0.2 b"},
    {"same_name", same_name, SEV_FAIL, "names", "b", "b and c", "hostnamectl"},
    {"twice", twice, SEV_WARN, "names", "b", "b and c", "slots=N"},
    {"version", version, SEV_FAIL, "versions", "b", "0.9.0", "1.0.0"},
    {"mpi_major", mpi_major, SEV_FAIL, "versions", "b", "5.0.3", "openmpi-bin"},
    {"mpi_minor", mpi_minor, SEV_FAIL, "versions", "b", "4.10.4", "openmpi-bin"},
    {"mpi_patch", mpi_patch, SEV_WARN, "versions", "b", "4.1.6", "openmpi-bin"},
    {"mpi_none", mpi_none, SEV_FAIL, "versions", "b", "no mpirun", "openmpi-bin"},
    {"model_absent", model_absent, SEV_FAIL, "model", "b", "No such file", "rsync"},
    {"model_absent_here", model_absent_here, SEV_FAIL, "model", "a", "denied", "rsync"},
    {"model_short", model_short, SEV_FAIL, "model", "c", "39999999999", "rsync"},
    {"model_head", model_head, SEV_FAIL, "model", "b", "head", "rsync"},
    {"model_tail", model_tail, SEV_FAIL, "model", "b", "tail", "rsync"},
    {"model_places", model_places, SEV_FAIL, "model", "b", "middle", "rsync"},
    {"model_parts", model_parts, SEV_FAIL, "model", "b", "2 file(s)", "rsync"},
    {"memory_little", memory_little, SEV_FAIL, "memory", "all hosts", "39.00 GB", "smaller"},
    {"memory_group", memory_group, SEV_FAIL, "memory", "all hosts", "36.00 GB", "smaller"},
    {"files_few", files_few, SEV_FAIL, "limits", "b", "nofile 200", "limits.conf"},
    {"files_some", files_some, SEV_WARN, "limits", "b", "nofile 1000", "limits.conf"},
    {"files_gateway", files_gateway, SEV_WARN, "limits", "a", "nofile 4096", "limits.conf"},
    {"memlock_tiny", memlock_tiny, SEV_WARN, "limits", "b", "memlock 16 KiB", "limits.conf"},
    {"memlock_rdma", memlock_rdma, SEV_WARN, "limits", "b", "memlock 8192 KiB", "memlock=-1"},
    {"shm_none", shm_none, SEV_FAIL, "limits", "b", "no /dev/shm", "--shm-size"},
    {"shm_tiny", shm_tiny, SEV_FAIL, "limits", "b", "16 MiB", "--shm-size"},
    {"shm_full", shm_full, SEV_WARN, "limits", "b", "40 MiB free", "--shm-size"},
    {"throttled", throttled, SEV_WARN, "limits", "b", "1.5 of 8", "--threads 1"},
    {"clock_behind", clock_behind, SEV_WARN, "clock", "c", "5.0 s behind", "set-ntp"},
    {"clock_ahead", clock_ahead, SEV_WARN, "clock", "c", "4000.0 s ahead", "set-ntp"},
    {"refused", refused, SEV_FAIL, "network", "b -> c", "refused at 10.0.0.3", "on c: ufw"},
    {"dropped", dropped, SEV_FAIL, "network", "b -> c", "timeout at 10.0.0.3", "10.0.0.2"},
    {"no_route", no_route, SEV_FAIL, "network", "b -> c", "unreachable", "ip route"},
    {"stranger", stranger, SEV_FAIL, "network", "b -> c", "stranger", "address of its own"},
    {"stalled", stalled, SEV_FAIL, "network", "b -> c", "stalled", "mtu 1500"},
    {"untried", untried, SEV_FAIL, "network", "b -> c", "unknown", "--timeout"},
    {"mtu", mtu, SEV_WARN, "mtu", "b -> c", "eth0 1500, eth0 9000", "on c: ip link set dev eth0"},
    {"slow_wire", slow_wire, SEV_WARN, "network", "b -> c", "94 Mbit/s", "ethtool"},
    {"slow_answer", slow_answer, SEV_WARN, "network", "b -> c", "15000 us", "--pp"},
    {"plane", plane, SEV_FAIL, "worker plane", "b", "timeout at 10.0.0.1", "firewall of a"},
    {"public", public_address, SEV_WARN, "privacy", "b -> c", "8.8.4.3", "btl_tcp_if_include"},
    {"reduce_hangs", reduce_hangs, SEV_FAIL, "all-reduce", "all hosts",
     "rank 1 on b joined, rank 2 never started", "btl_tcp_if_include"},
    {"reduce_wrong", reduce_wrong, SEV_FAIL, "all-reduce", "all hosts", "", "network"},
    {"reduce_fails", reduce_fails, SEV_FAIL, "all-reduce", "all hosts", "PML", "network"},
};

static int32_t alarms(const struct clu_findings *f)
{
    int32_t n = 0;
    while (n < f->n && f->v[n].severity >= SEV_WARN) n++; /* they come first */
    for (int32_t i = n; i < f->n; i++) assert_true(f->v[i].severity < SEV_WARN);
    return n;
}

static void a_healthy_cluster_raises_nothing(void **state)
{
    (void)state;
    struct clu_findings f = {0};
    healthy();
    clu_doctor_judge(&s, &f);
    for (int32_t i = 0; i < f.n; i++)
        if (f.v[i].severity != SEV_OK) fail_msg("%s: %s", f.v[i].check, f.v[i].what);
    assert_int_equal(clu_doctor_exit(&f), 0);
    assert_true(f.n >= 9); /* each group of rules says what it looked at */
    clu_findings_free(&f);
}

static void each_fault_raises_the_finding_that_names_it(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(faults); i++) {
        const struct fault *x = &faults[i];
        struct clu_findings f = {0};
        healthy();
        x->make();
        clu_doctor_judge(&s, &f);
        print_message("  %s\n", x->name);
        for (int32_t k = 1; k < alarms(&f); k++)
            print_message("    also %s: %s: %s\n", f.v[k].check, f.v[k].where, f.v[k].what);
        assert_true(f.n > 0);
        assert_string_equal(f.v[0].check, x->check);
        assert_int_equal(f.v[0].severity, x->severity);
        assert_non_null(strstr(f.v[0].where, x->where));
        assert_non_null(strstr(f.v[0].seen, x->seen));
        assert_non_null(strstr(f.v[0].cure, x->cure));
        assert_true(f.v[0].what[0] && f.v[0].needed[0]);
        assert_null(strchr(f.v[0].cure, '{'));
        assert_int_equal(alarms(&f), 1);
        assert_int_equal(clu_doctor_exit(&f), x->severity == SEV_FAIL ? 2 : 1);
        for (int32_t k = 1; k < f.n; k++) /* nothing is well that has just failed */
            assert_false(f.v[k].severity == SEV_OK && !strcmp(f.v[k].check, x->check));
        clu_findings_free(&f);
    }
}

static void a_useless_interface_is_named_once_per_host_with_the_network_to_use(void **state)
{
    (void)state;
    struct clu_findings f = {0};
    healthy();
    spare();
    clu_doctor_judge(&s, &f);
    assert_int_equal(alarms(&f), N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(f.v[i].severity, SEV_WARN);
        assert_non_null(strstr(f.v[i].seen, "eth1 172.17.0."));
        assert_non_null(strstr(f.v[i].cure, "btl_tcp_if_include 10.0.0.0/24"));
    }
    clu_findings_free(&f);
    SET(s.include, "192.168.0.0/16,10.0.0.0/24"); /* the cure cures */
    clu_doctor_judge(&s, &f);
    assert_int_equal(alarms(&f), 0);
    clu_findings_free(&f);
    SET(s.include, "192.168.0.0/16"); /* and a wrong one is no cure */
    clu_doctor_judge(&s, &f);
    assert_int_equal(alarms(&f), PATHS);
    assert_non_null(strstr(f.v[0].seen, "none within 192.168.0.0/16"));
    clu_findings_free(&f);
}

static void the_fastest_interface_is_chosen_and_of_equals_the_first(void **state)
{
    (void)state;
    char why[128];
    healthy();
    second_nic("10.1.0.", REACH_OK, 5e9);
    assert_int_equal(clu_doctor_path(&s, 0, 1, why)->nic, 1);
    assert_string_equal(why, "the fastest");
    healthy();
    second_nic("10.1.0.", REACH_OK, 1.2e9);
    assert_int_equal(clu_doctor_path(&s, 0, 1, why)->nic, 0);
    assert_string_equal(why, "as fast as any, and first");
    SET(s.include, "eth1");
    assert_int_equal(clu_doctor_path(&s, 0, 1, why)->nic, 1);
    assert_string_equal(why, "the only one");
}

static void networks_match_by_bits_and_by_name(void **state)
{
    (void)state;
    struct clu_facts_nic four = {"eth0", "10.0.9.1", 24, 1500, 0},
                         six = {"ib0", "fd00:1::1", 64, 1500, 0};
    assert_true(clu_doctor_uses("", &four));
    assert_true(clu_doctor_uses("10.0.0.0/20", &four));
    assert_false(clu_doctor_uses("10.0.0.0/21", &four));
    assert_true(clu_doctor_uses("0.0.0.0/0", &four));
    assert_true(clu_doctor_uses("lo,eth0", &four));
    assert_false(clu_doctor_uses("eth", &four));
    assert_false(clu_doctor_uses("nonsense/8", &four));
    assert_true(clu_doctor_uses("fd00::/16", &six));
    assert_false(clu_doctor_uses("fd01::/16", &six));
}

static void busy_hosts_and_small_pages_are_notes_only(void **state)
{
    (void)state;
    struct clu_findings f = {0};
    healthy();
    F(1).load = 20;
    SET(F(1).thp, "never");
    SET(F(0).driver, "550.54");
    SET(F(1).driver, "535.1");
    clu_doctor_judge(&s, &f);
    assert_int_equal(alarms(&f), 0);
    for (int i = 0; i < 3; i++) assert_int_equal(f.v[i].severity, SEV_NOTE);
    assert_int_equal(f.v[3].severity, SEV_OK);
    clu_findings_free(&f);
    s.n = 1; /* alone, a name that means loopback harms nobody */
    s.n_paths = 0;
    s.hosts[0].listed[0] = s.listen[0] = 0;
    SET(F(0).resolves, "127.0.1.1");
    clu_doctor_judge(&s, &f);
    assert_int_equal(clu_doctor_exit(&f), 0);
    clu_findings_free(&f);
}

static void the_same_survey_gives_the_same_text_and_whole_json(void **state)
{
    (void)state;
    struct clu_findings f = {0};
    struct buf a = {0}, b = {0}, j = {0};
    healthy();
    ssh_fails();
    hosts[2].skew_us = 60000000;
    SET(F(2).model_error, "\xff not UTF-8");
    clu_doctor_judge(&s, &f);
    clu_doctor_text(&s, &f, &a);
    clu_doctor_text(&s, &f, &b);
    clu_doctor_json(&s, &f, &j);
    assert_string_equal(buf_str(&a), buf_str(&b));
    assert_non_null(strstr(buf_str(&a), "NOT HEALTHY (1 failure(s), 1 warning(s)"));
    assert_non_null(strstr(buf_str(&a), "ssh-copy-id b"));
    json_t *o = json_loads(buf_str(&j), 0, NULL);
    assert_non_null(o);
    assert_int_equal(json_integer_value(json_object_get(o, "exit")), 2);
    assert_int_equal(json_array_size(json_object_get(o, "hosts")), N);
    assert_int_equal(json_array_size(json_object_get(o, "findings")), f.n);
    json_decref(o);
    buf_free(&a), buf_free(&b), buf_free(&j);
    clu_findings_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_healthy_cluster_raises_nothing),
        cmocka_unit_test(each_fault_raises_the_finding_that_names_it),
        cmocka_unit_test(a_useless_interface_is_named_once_per_host_with_the_network_to_use),
        cmocka_unit_test(the_fastest_interface_is_chosen_and_of_equals_the_first),
        cmocka_unit_test(networks_match_by_bits_and_by_name),
        cmocka_unit_test(busy_hosts_and_small_pages_are_notes_only),
        cmocka_unit_test(the_same_survey_gives_the_same_text_and_whole_json),
    };
    return cmocka_run_group_tests_name("doctor", tests, NULL, NULL);
}
