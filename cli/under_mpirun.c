/* under_mpirun.c: see under_mpirun.h.
 *
 * Rank 0 forks before MPI_Init; the child gets --launch external, the number of ranks, a fresh cluster key (or the user's) and the write end of a
 * pipe on which it announces its address. The others learn address and key from rank 0 over MPI. */
#include "cli/under_mpirun.h"

#include "cli/core_options.h"
#include "cli/process.h"

#include "base/address.h"
#include "base/log.h"
#include "transport/coll_open.h"
#include "worker/worker.h"

#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANNOUNCE "TESSERA_ANNOUNCE_FD"

static volatile sig_atomic_t coordinator_pid;

static void pass_on(int sig)
{
    if (coordinator_pid > 0) kill((pid_t)coordinator_pid, sig == SIGINT ? SIGTERM : sig);
}

bool under_mpirun(int32_t *rank, int32_t *size) { return !getenv(ANNOUNCE) && trn_mpi_env_detect(rank, size) != 0; }

void under_mpirun_announce(const char *join)
{
    const char *fd = getenv(ANNOUNCE);
    if (!fd) return;
    dprintf(atoi(fd), "%s\n", join);
    close(atoi(fd));
}

/* Environment of the coordinator: ours without MPI's, so that it is no rank. */
static void child_environment(int fd, const char *key)
{
    extern char **environ;
    char number[16];
    for (char **e = environ; *e;) {
        bool mpi = !strncmp(*e, "OMPI_", 5) || !strncmp(*e, "PMIX_", 5) || !strncmp(*e, "PMI_", 4);
        char name[256];
        size_t n = strcspn(*e, "=");
        if (!mpi || n >= sizeof name) {
            e++;
            continue;
        }
        memcpy(name, *e, n);
        name[n] = 0;
        unsetenv(name);
    }
    snprintf(number, sizeof number, "%d", fd);
    setenv(ANNOUNCE, number, 1);
    setenv("TESSERA_CLUSTER_KEY", key, 1);
}

static enum err start_coordinator(int argc, char **argv, int32_t size, const char *listen, const char *key, char *join, size_t n)
{
    int p[2];
    char program[4096], ranks[16];
    const char **args = xcalloc((size_t)argc + 8, sizeof *args);
    int k = 0;
    process_program(program);
    snprintf(ranks, sizeof ranks, "%d", size);
    args[k++] = program;
    for (int i = 0; i < argc; i++) args[k++] = argv[i];
    const char *more[] = {"--launch", "external", "--ranks", ranks, "--listen", listen};
    for (size_t i = 0; i < COUNT_OF(more); i++) args[k++] = more[i];
    if (pipe(p)) {
        free((void *)args);
        return err_raise(ERR_SYSTEM, "cannot make a pipe: %s", strerror(errno));
    }
    pid_t pid = fork(); /* before MPI_Init, one thread: anything may be called in the child */
    if (pid == 0) {
        setsid();
        close(p[0]);
        child_environment(p[1], key);
        execv(program, (char *const *)args);
        _exit(127);
    }
    close(p[1]);
    free((void *)args);
    coordinator_pid = pid;
    FILE *f = fdopen(p[0], "r");
    bool told = pid > 0 && f && fgets(join, (int)n, f);
    if (f) fclose(f);
    join[strcspn(join, "\n")] = 0;
    return told && join[0] ? OK : err_raise(ERR_UNAVAILABLE, "the coordinator did not start (its own message stands above)");
}

/* Does somebody listen at HOST:PORT? A port that is not named is nobody's. */
static bool answers(const char *listen)
{
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    struct address a;
    char port[12];
    if (!listen || address_parse(&a, "--listen", listen) || a.port <= 0) return false;
    snprintf(port, sizeof port, "%d", a.port);
    if (getaddrinfo(a.host, port, &hint, &found)) return false;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool yes = fd >= 0 && !connect(fd, found->ai_addr, found->ai_addrlen);
    if (fd >= 0) close(fd);
    freeaddrinfo(found);
    return yes;
}

int under_mpirun_run(int argc, char **argv, int32_t rank, int32_t size, const struct common_options *o)
{
    char join[160] = "", listen[128], fresh[65];
    const char *key = getenv("TESSERA_CLUSTER_KEY"), *local = getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
    struct wrk_conf w = {.join = join, .join_timeout_ms = 30000, .n_threads = (int32_t)o->model.threads, .bind = true,
                         .device = o->model.device, .share_join = true,
                         .tls_cert = o->cluster.tls_cert, .tls_key = o->cluster.tls_key, .tls_ca = o->cluster.tls_ca};
    enum err e = OK;
    if (o->cluster.replicas > 1)
        e = err_raise(ERR_BAD_CONFIG, "one MPI job is one replica: start `tessera serve --launch external --replicas %lld --listen HOST:PORT` by itself, and "
                                      "one `mpirun … tessera worker --join` for each replica, at PORT, PORT + 1, …", (long long)o->cluster.replicas);
    else if (rank == 0) {
        if (!key) trn_auth_key_generate(fresh);
        e = core_options_listen(o, local && atoi(local) == size, listen);
        if (!e && key && answers(o->cluster.listen)) { /* this job takes the place of one that was lost */
            log_info("serve", "a coordinator lives at %s: this job joins it", listen);
            snprintf(join, sizeof join, "%s", listen);
        } else if (!e) e = start_coordinator(argc, argv, size, listen, key ? key : fresh, join, sizeof join);
        if (!e) e = trn_auth_key_of_text(&w.key, key ? key : fresh);
        struct sigaction a = {.sa_handler = pass_on, .sa_flags = SA_RESTART};
        sigaction(SIGINT, &a, NULL);
        sigaction(SIGTERM, &a, NULL);
    } else {
        signal(SIGINT, SIG_IGN);
        signal(SIGTERM, SIG_IGN);
    }
    if (e) {
        if (!rank) fprintf(stderr, "tessera: %s\n", err_text());
        return 1; /* mpirun ends the others */
    }
    return wrk_worker_run(&w);
}
