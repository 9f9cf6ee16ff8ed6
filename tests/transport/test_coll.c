/* test_coll.c: the suite over self, local (threads) and shm (forked processes), and what only shm
 * can suffer: peers that are killed or stopped, names left over, memory left behind. `--bench
 * local|shm N` prints latencies instead. */
#include "tests/transport/coll_suite.h"

#include "base/clock.h"
#include "transport/coll_open.h"
#include "tests/support/env.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { OPEN_US = 20000000, LONG_US = 30000000 };

static uint64_t seed;

struct job {
    const struct coll_case *what;
    struct trn_coll *c, *sync;
    bool ok;
};

static void run_job(struct job *j)
{
    if (!j->what) {
        j->ok = coll_bench(j->c);
        trn_coll_close(j->c);
    } else {
        j->ok = j->what->run(j->c, j->sync, seed);
        trn_coll_close(j->c);
        if (j->ok) j->ok = trn_coll_barrier(j->sync, LONG_US) == OK;
    }
    trn_coll_close(j->sync);
}

/* ---- self and local ---- */

static void *job_thread(void *j)
{
    run_job(j);
    return NULL;
}

/* Hosts of two ranks, one, three, two, ...: threads that speak as if they lay on several machines. */
static bool open_hier(struct trn_coll *out[], int32_t n)
{
    static const int32_t sizes[] = {2, 1, 3, 2};
    struct trn_coll *flat[COLL_MAX_RANKS], *across[COLL_MAX_RANKS] = {0}, *local[COLL_MAX_RANKS] = {0};
    int32_t hosts[COLL_MAX_RANKS], first[COLL_MAX_RANKS], n_hosts = 0;
    for (int32_t r = 0; r < n; n_hosts++) {
        int32_t k = MIN(sizes[n_hosts % 4], n - r);
        first[n_hosts] = r;
        if (k > 1 && trn_coll_local_open(local + r, k)) return false;
        for (int32_t i = 0; i < k; i++) hosts[r++] = n_hosts;
    }
    if (trn_coll_local_open(flat, n) || trn_coll_local_open(across, n_hosts)) return false;
    struct trn_coll *leader[COLL_MAX_RANKS] = {0};
    for (int32_t h = 0; h < n_hosts; h++) leader[first[h]] = across[h];
    for (int32_t r = 0; r < n; r++)
        if (trn_coll_hier_open(&out[r], r, n, hosts, local[r], leader[r], flat[r])) return false;
    return true;
}

static bool run_threads(const struct coll_case *what, int32_t n, bool hier)
{
    struct job jobs[COLL_MAX_RANKS];
    struct trn_coll *c[COLL_MAX_RANKS], *sync[COLL_MAX_RANKS];
    pthread_t t[COLL_MAX_RANKS];
    bool ok = true;
    if ((hier ? !open_hier(c, n) : trn_coll_local_open(c, n)) || trn_coll_local_open(sync, n)) return false;
    for (int32_t r = 0; r < n; r++) {
        jobs[r] = (struct job){what, c[r], sync[r], false};
        pthread_create(&t[r], NULL, job_thread, &jobs[r]);
    }
    for (int32_t r = 0; r < n; r++) {
        pthread_join(t[r], NULL);
        ok = ok && jobs[r].ok;
    }
    return ok;
}

static bool run_self(const struct coll_case *what)
{
    struct job j = {.what = what};
    if (trn_coll_self_open(&j.c) || trn_coll_self_open(&j.sync)) return false;
    run_job(&j);
    return j.ok;
}

/* ---- shm: one process per rank ---- */

static int n_names;

/* A name nobody else uses; the processes forked after it share it. */
static const char *new_name(void)
{
    static char name[64];
    snprintf(name, sizeof name, "test%d-%d", (int)getpid(), n_names++);
    return name;
}

static bool shm_is_clean(void)
{
    char prefix[32];
    bool clean = true;
    DIR *d = opendir("/dev/shm");
    snprintf(prefix, sizeof prefix, "tessera-test%d-", (int)getpid());
    for (struct dirent *e; d && (e = readdir(d));)
        if (!strncmp(e->d_name, prefix, strlen(prefix))) clean = false;
    if (d) closedir(d);
    return clean;
}

typedef bool (*rank_fn)(const char *name, int32_t rank, int32_t size, const void *arg);

static pid_t fork_rank(rank_fn fn, const char *name, int32_t rank, int32_t size, const void *arg)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid) return pid;
    alarm(100);
    bool ok = fn(name, rank, size, arg);
    if (!ok) fprintf(stderr, "rank %d of %d: %s\n", rank, size, err_text());
    fflush(NULL);
    exit(ok ? 0 : 1);
}

static bool ended_well(pid_t pid)
{
    int status;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status);
}

/* A benchmark of two ranks that the system left on one processor says nothing. */
static void pin(int32_t rank)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)rank % (size_t)sysconf(_SC_NPROCESSORS_ONLN), &one);
    sched_setaffinity(0, sizeof one, &one);
}

static bool shm_case(const char *name, int32_t rank, int32_t size, const void *arg)
{
    char second[80];
    struct job j = {.what = arg};
    if (!j.what) pin(rank);
    snprintf(second, sizeof second, "%s-sync", name);
    if (trn_coll_shm_open(&j.c, name, rank, size, OPEN_US)) return false;
    if (trn_coll_shm_open(&j.sync, second, rank, size, OPEN_US)) return false;
    run_job(&j);
    return j.ok;
}

static bool run_processes(const struct coll_case *what, int32_t n)
{
    pid_t pid[COLL_MAX_RANKS];
    const char *name = new_name();
    bool ok = true;
    for (int32_t r = n - 1; r >= 0; r--) pid[r] = fork_rank(shm_case, name, r, n, what);
    for (int32_t r = 0; r < n; r++) ok = ended_well(pid[r]) && ok;
    return ok;
}

/* ---- the suite as cmocka tests ---- */

struct cell {
    const char *impl;
    int32_t size;
    const struct coll_case *what;
    char name[120];
};

static bool run_cell(const char *impl, int32_t size, const struct coll_case *what)
{
    if (!strcmp(impl, "self")) return run_self(what);
    if (!strcmp(impl, "hier")) return run_threads(what, size, true);
    return !strcmp(impl, "local") ? run_threads(what, size, false) : run_processes(what, size);
}

static void suite_case(void **state)
{
    const struct cell *x = *state;
    assert_true(run_cell(x->impl, x->size, x->what));
    assert_true(shm_is_clean());
}

/* ---- what only shm can suffer ---- */

/* The last rank dies or stops in the middle; the others say so, each within the time given. */
struct fate {
    int signal;
    int64_t timeout_us;
    enum err want;
    const char *sentence;
};

static bool meet_fate(const char *name, int32_t rank, int32_t size, const void *arg)
{
    const struct fate *f = arg;
    struct trn_coll *c;
    struct coll_cut cut = {.n_leaf = size};
    float x[100] = {0}, y[100];
    for (int32_t r = 0; r <= size; r++) cut.bounds[r] = r;
    if (trn_coll_shm_open(&c, name, rank, size, OPEN_US)) return false;
    if (trn_coll_barrier(c, LONG_US)) return false;
    if (rank == size - 1) raise(f->signal);
    int64_t t = clock_us();
    enum err rc = size > 2 ? trn_coll_all_reduce(c, &cut, x, y, 100, f->timeout_us)
                           : trn_coll_recv(c, size - 1, x, 4, f->timeout_us);
    bool ok = rc == f->want && strstr(err_text(), f->sentence) && clock_us() - t < 5000000;
    clock_sleep_us(100000); /* stay until all have seen it: a rank that leaves is a loss too */
    trn_coll_close(c);
    return ok;
}

static void meets(const struct fate *f, int32_t size)
{
    const char *name = new_name();
    pid_t pid[8];
    for (int32_t r = 0; r < size; r++) pid[r] = fork_rank(meet_fate, name, r, size, f);
    for (int32_t r = 0; r < size - 1; r++) assert_true(ended_well(pid[r]));
    kill(pid[size - 1], SIGKILL);
    waitpid(pid[size - 1], NULL, 0);
    assert_true(shm_is_clean());
}

static void killed_peer_is_lost_at_once(void **state)
{
    (void)state;
    meets(&(struct fate){SIGKILL, LONG_US, ERR_PEER_LOST, "rank 1 is lost (its process ended)"}, 2);
    meets(&(struct fate){SIGKILL, LONG_US, ERR_PEER_LOST, "rank 2 is lost (its process ended)"}, 3);
}

static void stopped_peer_is_a_deadline(void **state)
{
    (void)state;
    meets(&(struct fate){SIGSTOP, 200000, ERR_DEADLINE, "rank 2 has not arrived within 0.2 s"}, 3);
}

static bool fill_ring(const char *name, int32_t rank, int32_t size, const void *arg)
{
    struct trn_coll *c;
    char *data = calloc(1, 4000);
    enum err rc = OK;
    if (trn_coll_shm_open(&c, name, rank, size, OPEN_US)) return false;
    if (rank == 0) {
        for (int i = 0; i < 10000 && !rc; i++) rc = trn_coll_send(c, 1, data, 4000, 100000);
    } else {
        rc = trn_coll_recv(c, 0, data, 4000, LONG_US); /* one, and no more */
        clock_sleep_us(rc ? 0 : 700000);
    }
    bool ok = rank ? rc == OK
                   : rc == ERR_DEADLINE && strstr(err_text(), "shm send #") &&
                         strstr(err_text(), "rank 1");
    (void)arg;
    trn_coll_close(c);
    free(data);
    return ok;
}

static void full_ring_is_a_deadline(void **state)
{
    (void)state;
    const char *name = new_name();
    pid_t a = fork_rank(fill_ring, name, 0, 2, NULL), b = fork_rank(fill_ring, name, 1, 2, NULL);
    assert_true(ended_well(a));
    assert_true(ended_well(b));
}

static void missing_rank_is_a_deadline_at_open(void **state)
{
    (void)state;
    struct trn_coll *c = NULL;
    assert_int_equal(trn_coll_shm_open(&c, new_name(), 0, 2, 50000), ERR_DEADLINE);
    assert_non_null(strstr(err_text(), "rank 1 has not come within 0.05 s"));
    assert_int_equal(trn_coll_shm_open(&c, new_name(), 1, 2, 50000), ERR_DEADLINE);
    assert_non_null(strstr(err_text(), "rank 0 has not come within 0.05 s"));
    assert_null(c);
    assert_true(shm_is_clean());
}

static void bad_arguments_are_refused_at_open(void **state)
{
    (void)state;
    struct trn_coll *c;
    char longest[70];
    memset(longest, 'a', 69);
    longest[69] = 0;
    assert_int_equal(trn_coll_shm_open(&c, "", 0, 2, 1000), ERR_BAD_CONFIG);
    assert_int_equal(trn_coll_shm_open(&c, "a/b", 0, 2, 1000), ERR_BAD_CONFIG);
    assert_int_equal(trn_coll_shm_open(&c, longest, 0, 2, 1000), ERR_BAD_CONFIG);
    assert_int_equal(trn_coll_shm_open(&c, "a", 2, 2, 1000), ERR_BAD_CONFIG);
    assert_int_equal(trn_coll_shm_open(&c, "a", -1, 2, 1000), ERR_BAD_CONFIG);
    assert_int_equal(trn_coll_shm_open(&c, "a", 0, 0, 1000), ERR_BAD_CONFIG);
    assert_int_equal(trn_coll_shm_open(&c, "a", 0, COLL_MAX_RANKS + 1, 1000), ERR_BAD_CONFIG);
    assert_int_equal(trn_coll_local_open(&c, 0), ERR_BAD_CONFIG);
}

static bool open_only(const char *name, int32_t rank, int32_t size, const void *arg)
{
    struct trn_coll *c;
    enum err want = arg ? *(const enum err *)arg : OK;
    enum err rc = trn_coll_shm_open(&c, name, rank, size, want ? 1000000 : OPEN_US);
    if (rc != want) return false;
    if (!rc) rc = trn_coll_barrier(c, LONG_US);
    if (!want) trn_coll_close(c);
    return rc == want;
}

static void ranks_that_disagree_on_the_size_are_refused(void **state)
{
    (void)state;
    const enum err config = ERR_BAD_CONFIG, late = ERR_DEADLINE;
    const char *name = new_name();
    pid_t a = fork_rank(open_only, name, 0, 2, &late),
          b = fork_rank(open_only, name, 1, 3, &config);
    assert_true(ended_well(b));
    assert_true(ended_well(a));
    assert_true(shm_is_clean());
}

static void left_over_names_are_replaced(void **state)
{
    (void)state;
    char path[80];
    const char *name = new_name();
    snprintf(path, sizeof path, "/tessera-%s", name);
    int fd = shm_open(path, O_CREAT | O_RDWR, 0600); /* garbage, longer than a head */
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    close(fd);
    pid_t b = fork_rank(open_only, name, 1, 2, NULL); /* passes over it while nobody replaces it */
    clock_sleep_us(20000);
    pid_t a = fork_rank(open_only, name, 0, 2, NULL);
    assert_true(ended_well(a));
    assert_true(ended_well(b));
    assert_true(shm_is_clean());
}

static void creator_killed_while_gathering_does_no_harm(void **state)
{
    (void)state;
    char path[96];
    const char *name = new_name();
    snprintf(path, sizeof path, "/dev/shm/tessera-%s", name);
    pid_t dead = fork_rank(open_only, name, 0, 2, NULL);
    for (int i = 0; i < 2000 && access(path, F_OK); i++) clock_sleep_us(1000);
    clock_sleep_us(20000);
    kill(dead, SIGKILL);
    waitpid(dead, NULL, 0);
    pid_t b = fork_rank(open_only, name, 1, 2, NULL), a = fork_rank(open_only, name, 0, 2, NULL);
    assert_true(ended_well(a));
    assert_true(ended_well(b));
    assert_true(shm_is_clean());
}

static void eight_processes_share_two_processors(void **state)
{
    (void)state;
    assert_true(run_processes(&coll_cases[0], 8));
}

/* ---- main ---- */

static struct cell cells[512];
static struct CMUnitTest tests[600];
static size_t n_tests;

static void add_suite(const char *impl, int32_t size)
{
    for (int i = 0; i < coll_n_cases; i++) {
        if (size < coll_cases[i].min_size) continue;
        struct cell *x = &cells[n_tests];
        *x = (struct cell){.impl = impl, .size = size, .what = &coll_cases[i]};
        snprintf(x->name, sizeof x->name, "%s n=%d: %s", impl, size, coll_cases[i].name);
        tests[n_tests++] = (struct CMUnitTest){x->name, suite_case, NULL, NULL, x};
    }
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest own[] = {
        cmocka_unit_test(killed_peer_is_lost_at_once),
        cmocka_unit_test(stopped_peer_is_a_deadline),
        cmocka_unit_test(full_ring_is_a_deadline),
        cmocka_unit_test(missing_rank_is_a_deadline_at_open),
        cmocka_unit_test(bad_arguments_are_refused_at_open),
        cmocka_unit_test(ranks_that_disagree_on_the_size_are_refused),
        cmocka_unit_test(left_over_names_are_replaced),
        cmocka_unit_test(creator_killed_while_gathering_does_no_harm),
        cmocka_unit_test(eight_processes_share_two_processors),
    };
    if (argc > 3 && !strcmp(argv[1], "--bench"))
        return run_cell(argv[2], atoi(argv[3]), NULL) ? 0 : 1;
    seed = test_seed();
    add_suite("self", 1);
    for (int32_t n = 2; n <= 4; n++) add_suite("local", n);
    add_suite("local", 8);
    add_suite("hier", 3);
    add_suite("hier", 6);
    for (int32_t n = 2; n <= 4; n++) add_suite("shm", n);
    for (size_t i = 0; i < COUNT_OF(own); i++) tests[n_tests++] = own[i];
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return _cmocka_run_group_tests("coll", tests, n_tests, NULL, NULL);
}
