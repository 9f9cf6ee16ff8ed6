/* doctor_collective.c: see doctor_collective.h. */
#include "cli/doctor_collective.h"

#include "base/clock.h"
#include "cli/commands.h"
#include "transport/coll_open.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LARGE = 16384, ROUNDS = 21, STEP_US = 10000000, EXIT_WRONG = 3 };

static void say(int32_t rank, const char *stage, const char *more)
{
    char line[256], host[64] = "?";
    gethostname(host, sizeof host - 1);
    snprintf(line, sizeof line, "{\"rank\":%d,\"host\":\"%s\",\"stage\":\"%s\"%s}\n", rank, host,
             stage, more);
    ssize_t ignored = write(1, line, strlen(line)); /* one write: lines of ranks do not mix */
    (void)ignored;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The median time of summing n floats; each rank gives its number plus one. */
static enum err reduce(struct trn_coll *c, const struct coll_cut *cut, int64_t n, double *us,
                       bool *wrong)
{
    enum err rc = OK;
    int64_t took[ROUNDS];
    float want = (float)c->size * (float)(c->size + 1) / 2;
    float *mine = xmalloc((size_t)n * sizeof *mine), *sum = xcalloc((size_t)n, sizeof *sum);
    for (int64_t i = 0; i < n; i++) mine[i] = (float)(c->rank + 1);
    for (int r = 0; r < ROUNDS; r++) {
        int64_t start = clock_us();
        TRY(trn_coll_all_reduce(c, cut, mine, sum, n, STEP_US));
        took[r] = clock_us() - start;
        for (int64_t i = 0; i < n; i++) *wrong |= sum[i] != want;
    }
    qsort(took, ROUNDS, sizeof took[0], by_size);
    *us = (double)took[ROUNDS / 2];
out:
    free(mine);
    free(sum);
    return rc;
}

static enum err run(int32_t rank, int32_t size, bool *wrong)
{
    enum err rc;
    struct trn_coll *c = NULL;
    struct coll_cut cut = {.n_leaf = size};
    int32_t members[COLL_MAX_RANKS];
    double small, large;
    char times[96];
    for (int32_t i = 0; i <= size; i++) cut.bounds[i] = i;
    for (int32_t i = 0; i < size; i++) members[i] = i;
    TRY(trn_coll_mpi_open(&c, members, size, 1));
    TRY(reduce(c, &cut, 1, &small, wrong));
    TRY(reduce(c, &cut, LARGE, &large, wrong));
    TRY(trn_coll_barrier(c, STEP_US));
    snprintf(times, sizeof times, ",\"small_us\":%.1f,\"large_us\":%.1f", small, large);
    say(rank, "done", rank ? "" : times);
out:
    trn_coll_close(c);
    return rc;
}

int doctor_collective(void)
{
    enum err rc;
    int32_t rank = 0, size = 1;
    bool wrong = false;
    trn_mpi_env_detect(&rank, &size);
    say(rank, "started", "");
    TRY(trn_mpi_env_init(&rank, &size));
    say(rank, "joined", "");
    if (size > COLL_MAX_RANKS)
        TRY(err_raise(ERR_BAD_CONFIG, "%d ranks: at most %d are possible", size, COLL_MAX_RANKS));
    TRY(run(rank, size, &wrong));
    trn_mpi_env_finalize();
    _exit(wrong ? EXIT_WRONG : 0); /* what MPI's own exit handlers say is no verdict on the sum */
out:
    cmd_fail(rc);
    _exit(1); /* without finalizing: the others may not answer */
}
