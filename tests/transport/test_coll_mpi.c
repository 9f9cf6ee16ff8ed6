/* test_coll_mpi.c: the suite over MPI. Run by mpirun; every rank runs every case, in the same
 * order. */
#include "tests/transport/coll_suite.h"

#include "base/clock.h"
#include "transport/coll_open.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int32_t rank, size;

static bool die(const char *what)
{
    fprintf(stderr, "rank %d: %s: %s\n", rank, what, err_text());
    return false;
}

static bool run_case(const struct coll_case *k, int32_t tag, uint64_t seed)
{
    int32_t members[COLL_MAX_RANKS];
    struct trn_coll *c, *sync;
    for (int32_t i = 0; i < size; i++) members[i] = size - 1 - i; /* not the order of the world */
    if (trn_coll_mpi_open(&c, members, size, tag)) return die("open");
    if (trn_coll_mpi_open(&sync, members, size, tag + 1)) return die("open");
    bool ok = k->run(c, sync, seed);
    trn_coll_close(c);
    if (ok && trn_coll_barrier(sync, 60000000)) ok = die("the barrier after the case");
    trn_coll_close(sync);
    if (!rank) printf("%s mpi n=%d %s\n", ok ? "ok  " : "FAIL", size, k->name);
    return ok;
}

/* Two groups side by side, and one rank alone, use the same tag: their messages do not meet. */
static bool groups_do_not_mix(void)
{
    struct trn_coll *c;
    int32_t members[2] = {rank / 2 * 2, rank / 2 * 2 + 1}, n = members[1] < size ? 2 : 1;
    if (trn_coll_mpi_open(&c, members, n, 7000)) return die("open");
    int64_t bytes[2] = {4, 4};
    int32_t all[2] = {-1, -1};
    bool ok = trn_coll_all_gather(c, &rank, bytes, all, 10000000) == OK && all[0] == members[0] &&
              (n == 1 || all[1] == members[1]);
    trn_coll_close(c);
    return ok || die("groups_do_not_mix");
}

/* The last rank comes when the others have given up: neither what had come from the rest nor its own late message is written to them. */
static bool a_failed_operation_leaves_the_callers_memory(void)
{
    enum { BYTES = 8, WAIT_US = 60000000, SHORT_US = 300000 };
    struct trn_coll *c, *sync;
    int32_t members[COLL_MAX_RANKS];
    int64_t bytes[COLL_MAX_RANKS];
    char mine[BYTES] = "message", all[COLL_MAX_RANKS * BYTES], before[sizeof all];
    bool late = rank == size - 1, ok = true;
    if (size < 3) return true;
    for (int32_t i = 0; i < size; i++) members[i] = i, bytes[i] = BYTES;
    memset(all, 0x55, sizeof all);
    memset(before, 0x55, sizeof before);
    if (trn_coll_mpi_open(&c, members, size, 7100) || trn_coll_mpi_open(&sync, members, size, 7101)) return die("open");
    if (!late) ok = trn_coll_all_gather(c, mine, bytes, all, SHORT_US) == ERR_DEADLINE;
    if (trn_coll_barrier(sync, WAIT_US)) return die("barrier");
    if (late && trn_coll_all_gather(c, mine, bytes, all, SHORT_US)) return die("what was sent before the deadline is there");
    if (trn_coll_barrier(sync, WAIT_US)) return die("barrier");
    ok = ok && (late || !memcmp(all, before, sizeof all));
    trn_coll_close(c);
    trn_coll_close(sync);
    return ok || die("a_failed_operation_leaves_the_callers_memory");
}

static bool bad_groups_are_refused(void)
{
    struct trn_coll *c;
    int32_t other = (rank + 1) % size, none[1] = {size}, me[1] = {rank};
    return (size == 1 || trn_coll_mpi_open(&c, &other, 1, 1) == ERR_BAD_CONFIG) &&
           trn_coll_mpi_open(&c, none, 1, 1) == ERR_BAD_CONFIG &&
           trn_coll_mpi_open(&c, me, 0, 1) == ERR_BAD_CONFIG &&
           trn_coll_mpi_open(&c, me, COLL_MAX_RANKS + 1, 1) == ERR_BAD_CONFIG &&
           trn_coll_mpi_open(&c, me, 1, -1) == ERR_BAD_CONFIG;
}

static bool environment_is_seen(void)
{
    int32_t r = -1, n = -1, host_rank, host_size, first;
    if (getenv("OMPI_COMM_WORLD_SIZE") && (!trn_mpi_env_detect(&r, &n) || r != rank || n != size))
        return die("trn_mpi_env_detect and MPI do not agree");
    if (trn_mpi_env_host(&host_rank, &host_size, &first)) return die("host");
    return host_rank == rank && host_size == size && first == 0;
}

/* A message larger than a connection's buffers, and a sender who has something else to do: it leaves by trn_coll_push alone. */
static bool what_send_took_leaves_by_push(void)
{
    enum { BYTES = 32 << 20, HOLD_S = 3, WAIT_US = 60000000 };
    struct trn_coll *c;
    int32_t members[2] = {0, 1};
    if (rank > 1) return true;
    char *room = calloc(1, BYTES);
    if (trn_coll_mpi_open(&c, members, 2, 8000) || trn_coll_barrier(c, WAIT_US)) return die("open");
    int64_t begin = clock_us(), got = 0;
    if (rank == 0) {
        if (trn_coll_send(c, 1, room, BYTES, WAIT_US)) return die("send");
        while (trn_coll_push(c) && clock_us() - begin < WAIT_US) usleep(100);
        sleep(HOLD_S); /* nothing here is MPI's */
    } else {
        if (trn_coll_recv(c, 0, room, BYTES, WAIT_US)) return die("recv");
        got = clock_us();
    }
    if (trn_coll_barrier(c, WAIT_US)) return die("barrier");
    bool ok = rank == 0 || clock_us() - got > HOLD_S * 500000;
    if (!ok) fprintf(stderr, "the message came only when its sender was in another operation\n");
    trn_coll_close(c);
    free(room);
    return ok;
}

static bool bench(void)
{
    struct trn_coll *c;
    int32_t members[COLL_MAX_RANKS];
    for (int32_t i = 0; i < size; i++) members[i] = i;
    if (trn_coll_mpi_open(&c, members, size, 9000)) return die("open");
    bool ok = coll_bench(c);
    trn_coll_close(c);
    return ok;
}

int main(int argc, char **argv)
{
    bool ok = true, timing = argc > 1 && !strcmp(argv[1], "--bench");
    int32_t r = -1, n = -1;
    if (trn_mpi_env_host(&r, &n, &r) != ERR_MPI)
        return 1; /* before init: a sentence, not a crash */
    if (trn_mpi_env_init(&rank, &size)) return die("init"), 1;
    if (timing) {
        ok = bench();
    } else if (argc > 1 && !strcmp(argv[1], "--push")) {
        ok = what_send_took_leaves_by_push();
    } else {
        const char *s = getenv("TEST_SEED");
        uint64_t seed = s ? strtoull(s, NULL, 0) : 20260; /* one seed for all ranks */
        if (!rank) printf("seed %llu\n", (unsigned long long)seed);
        ok = environment_is_seen() && bad_groups_are_refused() && groups_do_not_mix() && a_failed_operation_leaves_the_callers_memory();
        if (!ok) die("environment, groups");
        for (int i = 0; i < coll_n_cases && ok; i++)
            if (size >= coll_cases[i].min_size && !coll_cases[i].sees_loss &&
                (argc < 2 || strstr(coll_cases[i].name, argv[1])))
                ok = run_case(&coll_cases[i], 100 + 2 * i, seed);
    }
    fflush(NULL);
    if (!ok) _exit(1); /* peers may be stuck: leave without them */
    trn_mpi_env_finalize();
    return 0;
}
