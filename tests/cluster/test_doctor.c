/* test_doctor.c: every rule of the doctor: a healthy cluster raises nothing, and each fault raises
 * the one finding that names it, its host, the value seen, the value needed and a cure. */
#include "doctor_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the faults ---- */

#define FAULT(name) static void name(void)

FAULT(no_name) { silence(ASKED_NO_NAME, "no address within 5 s"); }
FAULT(ssh_hangs) { silence(ASKED_SSH_HANGS, "nothing within 8 s"); }
FAULT(ssh_fails) { silence(ASKED_SSH_FAILS, "Permission denied (publickey)."); }
FAULT(no_program) { silence(ASKED_NO_PROGRAM, "tessera: not found"); }
FAULT(no_orted) { silence(ASKED_NO_MPI, "orted: command not found"); }
FAULT(mpi_hangs) { silence(ASKED_MPI_HANGS, ""); }
FAULT(mpi_fails) { silence(ASKED_MPI_FAILS, "There are not enough slots"); }
FAULT(nonsense) { silence(ASKED_NONSENSE, "the facts have no proper 'cores'"); }
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
    SET(F(1).model_error, "x-00002-of-00002.gguf: No such file or directory");
}
FAULT(model_absent_here)
{
    F(0).model_bytes = CLU_FACTS_UNKNOWN;
    SET(F(0).model_error, "x.gguf: No such file or directory");
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
static void two_cards(int i)
{
    SET(F(i).driver, "570.86.15");
    SET(F(i).cards, "2 x NVIDIA GeForce RTX 4090");
    SET(F(i).nccl, "2.28.9");
    F(i).n_cards = 2, F(i).card_pairs = 1;
}
FAULT(cards_silent) { SET(F(1).driver, "570.86.15"); SET(F(1).cards_error, "nothing from nvidia-smi within 4 s"); }
FAULT(nccl_none) { two_cards(1); F(1).nccl[0] = 0; }
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
    {"model_absent_here", model_absent_here, SEV_FAIL, "model", "a", "No such file", "rsync"},
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
    {"cards_silent", cards_silent, SEV_WARN, "cards", "b", "within 4 s", "dmesg"},
    {"nccl_none", nccl_none, SEV_WARN, "cards", "b", "no libnccl", "libnccl2"},
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

/* What is said of cards, in order; NULL: no more. */
static void say_cards(const char *const what[], const enum clu_severity severity[])
{
    struct clu_findings f = {0};
    clu_doctor_cards(&s, &f);
    for (int32_t i = 0; i < f.n; i++) {
        assert_non_null(what[i]);
        if (!strstr(f.v[i].what, what[i])) fail_msg("'%s' is not in '%s'", what[i], f.v[i].what);
        assert_int_equal(f.v[i].severity, severity[i]);
    }
    assert_null(what[f.n]);
    clu_findings_free(&f);
}

static void cards_that_want_for_nothing_are_listed_and_the_rest_is_noted(void **state)
{
    (void)state;
    healthy();
    say_cards((const char *[]){NULL}, NULL); /* none */
    two_cards(1);
    say_cards((const char *[]){"2 x NVIDIA GeForce RTX 4090, each reads the others' memory, NCCL 2.28.9", NULL},
              (enum clu_severity[]){SEV_OK});
    two_cards(2);
    SET(F(2).nccl, "2.20.5");
    F(1).n_cards = 3, F(1).card_pairs = 3, F(1).card_pairs_apart = 2;
    SET(F(1).card_apart, "cards 0 and 1: CNS");
    say_cards((const char *[]){"2 of 3 pairs of cards", "2 x NVIDIA", "another version of NCCL", NULL},
              (enum clu_severity[]){SEV_NOTE, SEV_OK, SEV_NOTE});
    SET(F(0).cards_error, "nvidia-smi: has failed"); /* without a driver: a host that never had a card */
    say_cards((const char *[]){"2 of 3 pairs of cards", "2 x NVIDIA", "another version of NCCL", NULL},
              (enum clu_severity[]){SEV_NOTE, SEV_OK, SEV_NOTE});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_healthy_cluster_raises_nothing),
        cmocka_unit_test(each_fault_raises_the_finding_that_names_it),
        cmocka_unit_test(cards_that_want_for_nothing_are_listed_and_the_rest_is_noted),
    };
    return cmocka_run_group_tests_name("doctor", tests, NULL, NULL);
}
