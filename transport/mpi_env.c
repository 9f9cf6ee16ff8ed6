/* mpi_env.c: entering and leaving MPI, and where this rank stands.
 *
 * MPI is entered with THREAD_SERIALIZED: one thread does all MPI, but it need not be the process's
 * first. */
#include "transport/coll_open.h"

#include "transport/mpi_impl.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

static struct {
    MPI_Comm comm;
    int32_t rank, size, host_rank, host_size, host_first;
    int32_t hosts[COLL_MAX_RANKS]; /* host_first of each rank of the world */
    bool may_spin;
} env = {.comm = MPI_COMM_NULL};

MPI_Comm trn_mpi_env_comm(void)
{
    return env.comm;
}
bool trn_mpi_env_may_spin(void)
{
    return env.may_spin;
}

enum err trn_mpi_env_error(int code, const char *call)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    if (code == MPI_SUCCESS) return OK;
    MPI_Error_string(code, text, &n);
    return err_raise(ERR_MPI, "%s: %.*s", call, n, text);
}

static enum err host_init(void)
{
    MPI_Comm host = MPI_COMM_NULL;
    int rank = 0, size = 0, first = env.rank;
    cpu_set_t mine, all;
    CPU_ZERO(&mine);
    sched_getaffinity(0, sizeof mine, &mine);
    enum err rc;
    TRY(trn_mpi_env_error(
        MPI_Comm_split_type(env.comm, MPI_COMM_TYPE_SHARED, env.rank, MPI_INFO_NULL, &host),
        "MPI_Comm_split_type"));
    TRY(trn_mpi_env_error(MPI_Comm_rank(host, &rank), "MPI_Comm_rank"));
    TRY(trn_mpi_env_error(MPI_Comm_size(host, &size), "MPI_Comm_size"));
    TRY(trn_mpi_env_error(MPI_Bcast(&first, 1, MPI_INT, 0, host), "MPI_Bcast"));
    TRY(trn_mpi_env_error(MPI_Allreduce(&mine, &all, (int)sizeof all, MPI_BYTE, MPI_BOR, host),
                          "MPI_Allreduce"));
    env.host_rank = rank;
    env.host_size = size;
    env.host_first = first;
    env.may_spin = CPU_COUNT(&all) >= size;
    if (env.size <= COLL_MAX_RANKS)
        rc = trn_mpi_env_error(
            MPI_Allgather(&env.host_first, 1, MPI_INT32_T, env.hosts, 1, MPI_INT32_T, env.comm),
            "MPI_Allgather");
out:
    if (host != MPI_COMM_NULL) MPI_Comm_free(&host);
    return rc;
}

enum err trn_mpi_env_init(int32_t *rank, int32_t *size)
{
    int done = 0, provided = 0, r = 0, n = 0;
    enum err rc = OK;
    if (env.comm == MPI_COMM_NULL) {
        TRY(trn_mpi_env_error(MPI_Initialized(&done), "MPI_Initialized"));
        if (!done)
            TRY(trn_mpi_env_error(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided),
                                  "MPI_Init_thread"));
        TRY(trn_mpi_env_error(MPI_Comm_dup(MPI_COMM_WORLD, &env.comm), "MPI_Comm_dup"));
        TRY(trn_mpi_env_error(MPI_Comm_set_errhandler(env.comm, MPI_ERRORS_RETURN),
                              "MPI_Comm_set_errhandler"));
        TRY(trn_mpi_env_error(MPI_Comm_rank(env.comm, &r), "MPI_Comm_rank"));
        TRY(trn_mpi_env_error(MPI_Comm_size(env.comm, &n), "MPI_Comm_size"));
        env.rank = r;
        env.size = n;
        TRY(host_init());
    }
    *rank = env.rank;
    *size = env.size;
out:
    return rc;
}

void trn_mpi_env_finalize(void)
{
    int done = 0;
    if (env.comm == MPI_COMM_NULL || MPI_Finalized(&done) || done) return;
    MPI_Comm_free(&env.comm);
    MPI_Finalize();
}

static int read_int(const char *name, int32_t *v)
{
    const char *s = getenv(name);
    char *end;
    if (!s || !*s) return 0;
    long n = strtol(s, &end, 10);
    if (*end || n < 0 || n > INT32_MAX) return 0;
    *v = (int32_t)n;
    return 1;
}

int32_t trn_mpi_env_detect(int32_t *rank, int32_t *size)
{
    int32_t r, n, unused;
    bool mpirun = read_int("OMPI_COMM_WORLD_RANK", &r) && read_int("OMPI_COMM_WORLD_SIZE", &n);
    /* PMIX_RANK is what tells a step of `srun --mpi=pmix` from the script of a batch job, which has
     * SLURM_* too. */
    bool srun = !mpirun && read_int("PMIX_RANK", &unused) && read_int("SLURM_PROCID", &r) &&
                (read_int("SLURM_STEP_NUM_TASKS", &n) || read_int("SLURM_NTASKS", &n));
    if ((!mpirun && !srun) || n < 1 || r >= n) return 0;
    *rank = r;
    *size = n;
    return 1;
}

enum err trn_mpi_env_hosts(int32_t out[])
{
    if (env.comm == MPI_COMM_NULL)
        return err_raise(ERR_MPI,
                         "the MPI environment is not initialised: trn_mpi_env_init comes first");
    if (env.size > COLL_MAX_RANKS)
        return err_raise(ERR_BAD_CONFIG, "a job of %d ranks, at most %d are possible", env.size,
                         COLL_MAX_RANKS);
    memcpy(out, env.hosts, (size_t)env.size * sizeof *out);
    return OK;
}

enum err trn_mpi_env_host(int32_t *host_rank, int32_t *host_size, int32_t *host_first)
{
    if (env.comm == MPI_COMM_NULL)
        return err_raise(ERR_MPI,
                         "the MPI environment is not initialised: trn_mpi_env_init comes first");
    *host_rank = env.host_rank;
    *host_size = env.host_size;
    *host_first = env.host_first;
    return OK;
}
