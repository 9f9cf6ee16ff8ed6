/* launch.c: see launch.h. */
#include "cluster/launch.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "cluster/hostfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* CLU_LAUNCH_EXTRA words of the user's, and fewer than 48 of ours. */
enum { MAX_ARGS = CLU_LAUNCH_ARGS };

struct args { const char *v[MAX_ARGS]; int n; };

enum err clu_launch_check(const char *extra)
{
    int32_t n = 0;
    for (const char *at = extra; at && *(at += strspn(at, " \t")); at += strcspn(at, " \t")) n++;
    if (n <= CLU_LAUNCH_EXTRA) return OK;
    return err_raise(ERR_BAD_CONFIG, "--mpirun-args has %d words, at most %d are possible: a file of parameters says more (mpirun --tune FILE)", n, CLU_LAUNCH_EXTRA);
}

static void add(struct args *a, const char *s)
{
    ASSERT(a->n < MAX_ARGS - 1);
    a->v[a->n++] = s;
}

/* "a:2,b:1" as "a,a,b": a name for each rank. Open MPI takes its own host first whatever the order of a --host list, except when it
 * maps rank after rank to the names of one ("seq"). Own: caller; NULL: fewer slots than ranks. */
static char *name_per_rank(const char *hosts, int32_t n_ranks)
{
    struct buf b = {0};
    int32_t n = 0;
    for (const char *at = hosts; *at; at += strcspn(at, ","), at += *at == ',') {
        int len = (int)strcspn(at, ","), name = (int)strcspn(at, ":,");
        int32_t slots = name < len ? (int32_t)strtol(at + name + 1, NULL, 10) : 1;
        for (int32_t i = 0; i < slots && n < n_ranks; i++) buf_printf(&b, "%s%.*s", n++ ? "," : "", name, at);
    }
    if (n == n_ranks) return buf_take(&b);
    buf_free(&b);
    return NULL;
}

static void build(struct args *a, const struct clu_launch_conf *c, char *n_ranks, char *extra, const char *in_order, const char *hosts,
                  const char *const command[])
{
    static const char *const head[] = {"mpirun", "-q", "--bind-to", "none", "--oversubscribe", "--mca", "odls_base_sigkill_timeout", "0",
                                       "--mca", "btl_base_warn_component_unused", "0"};
    const char *const worker[] = {"worker", "--join", c->join, "--log-level", c->log_level, "--device", c->device ? c->device : "auto",
                                  c->unbound ? "--bind" : NULL, "off", NULL};
    for (size_t i = 0; i < COUNT_OF(head); i++) add(a, head[i]);
    if (c->yield) {
        add(a, "--mca");
        add(a, "mpi_yield_when_idle");
        add(a, "1");
    }
    if (hosts) {
        add(a, "--host");
        add(a, hosts);
        add(a, "--map-by");
        add(a, "node");
    } else if (c->hosts || c->hostfile) {
        add(a, c->hosts ? "--host" : "--hostfile");
        add(a, in_order ? in_order : c->hosts ? c->hosts : c->hostfile);
        if (in_order) add(a, "--map-by"), add(a, "seq");
        add(a, "-x");
        add(a, "TESSERA_CLUSTER_KEY");
    }
    for (char *save = NULL, *t = strtok_r(extra, " \t", &save); t; t = strtok_r(NULL, " \t", &save)) add(a, t);
    add(a, "-n");
    add(a, n_ranks);
    add(a, c->program);
    for (const char *const *w = command ? command : worker; *w; w++) add(a, *w);
    const char *const tls[][2] = {{"--tls-cert", c->tls_cert}, {"--tls-key", c->tls_key}, {"--tls-ca", c->tls_ca}};
    for (size_t i = 0; i < COUNT_OF(tls) && !command; i++)
        if (tls[i][1]) add(a, tls[i][0]), add(a, tls[i][1]);
    a->v[a->n] = NULL;
}

void clu_launch_argv(const char *argv[], char **room, const struct clu_launch_conf *c, const char *hosts, const char *const command[])
{
    enum { NUMBER = 16 };
    struct args a = {.n = 0};
    char *order = c->hosts && !hosts ? name_per_rank(c->hosts, c->n_ranks) : NULL;
    size_t n_order = order ? strlen(order) + 1 : 0, n_extra = c->extra ? strlen(c->extra) + 1 : 1;
    /* one piece of memory: the number of ranks, their hosts if there is an order, the user's words */
    char *number = xcalloc(1, NUMBER + n_order + n_extra), *names = number + NUMBER, *extra = names + n_order;
    snprintf(number, NUMBER, "%d", c->n_ranks);
    if (order) memcpy(names, order, n_order);
    if (c->extra) memcpy(extra, c->extra, n_extra);
    free(order);
    build(&a, c, number, extra, n_order ? names : NULL, hosts, command);
    memcpy(argv, a.v, sizeof a.v);
    *room = number;
    if (geteuid()) return; /* mpirun refuses root unless told twice */
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
}

enum { MAX_OUTPUT = 4 << 20 };

/* -1: none is wanted, or it cannot be written (logged): then they print where we do. */
static int open_output(const char *path)
{
    if (!path) return -1;
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) log_warn("launch", "cannot write %s: %s", path, strerror(errno));
    if (fd >= 0 && lseek(fd, 0, SEEK_END) > MAX_OUTPUT && ftruncate(fd, 0)) log_warn("launch", "cannot empty %s: %s", path, strerror(errno));
    return fd;
}

/* Async-signal-safe. */
static void redirect(int output)
{
    int none = open("/dev/null", O_RDONLY);
    if (none >= 0) dup2(none, 0);
    dup2(output, 1);
    dup2(output, 2);
}

/* ---- the jobs that are there, for a process that ends without looking back ---- */

static _Atomic pid_t jobs[CLU_LAUNCH_NOTED]; /* their mpirun; 0: none */

static void note(pid_t was, pid_t is)
{
    for (int32_t i = 0; i < CLU_LAUNCH_NOTED; i++) {
        pid_t expected = was;
        if (atomic_compare_exchange_strong(&jobs[i], &expected, is)) return;
    }
}

/* Async-signal-safe. */
void clu_launch_abandon(void)
{
    for (int32_t i = 0; i < CLU_LAUNCH_NOTED; i++) {
        pid_t pid = atomic_load(&jobs[i]);
        if (pid > 0) kill(pid, SIGTERM); /* not KILL: it has ranks to end, of which those that have not joined know nothing of our end */
    }
}

/* Of the environment while the key is in it: keepers of several replicas start workers at the same time, and one would take away another's. */
static pthread_mutex_t key_lock = PTHREAD_MUTEX_INITIALIZER;

enum err clu_launch_start(struct clu_launch *out, const struct clu_launch_conf *c)
{
    const char *argv[CLU_LAUNCH_ARGS];
    char *room;
    int fail[2];
    clu_launch_argv(argv, &room, c, NULL, NULL);
    if (pipe2(fail, O_CLOEXEC)) {
        free(room);
        return err_raise(ERR_SYSTEM, "cannot make a pipe: %s", strerror(errno));
    }
    /* everything the child needs is ready before fork: between fork and exec only async-signal-safe calls */
    int output = open_output(c->output);
    pthread_mutex_lock(&key_lock);
    setenv("TESSERA_CLUSTER_KEY", c->key, 1);
    pid_t pid = fork();
    if (pid == 0) {
        setsid();
        if (output >= 0) redirect(output);
        execvp(argv[0], (char *const *)argv);
        int e = errno;
        ssize_t ignored = write(fail[1], &e, sizeof e);
        (void)ignored;
        _exit(127);
    }
    int not_forked = pid < 0 ? errno : 0;
    if (pid > 0) note(0, pid);
    unsetenv("TESSERA_CLUSTER_KEY");
    pthread_mutex_unlock(&key_lock);
    if (output >= 0) close(output);
    close(fail[1]);
    int e = 0;
    bool failed = pid > 0 && read(fail[0], &e, sizeof e) == (ssize_t)sizeof e;
    close(fail[0]);
    free(room);
    if (not_forked) return err_raise(ERR_SYSTEM, "cannot start mpirun: %s", strerror(not_forked));
    if (failed) {
        waitpid(pid, NULL, 0);
        note(pid, 0);
        return err_raise(ERR_SYSTEM, "cannot run mpirun: %s (on Debian: apt-get install openmpi-bin)", strerror(e));
    }
    *out = (struct clu_launch){.pid = pid};
    return OK;
}

uint64_t clu_launch_start_time(pid_t pid)
{
    char path[64], line[1024];
    unsigned long long start = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, line, sizeof line - 1);
    if (fd >= 0) close(fd);
    if (n <= 0) return 0;
    line[n] = 0;
    const char *p = strrchr(line, ')'); /* the name before it may hold anything */
    if (!p || p[1] != ' ' || p[2] == 'Z') return 0;
    p += 2;
    for (int field = 3; field < 22 && p; field++) p = strchr(p, ' ') ? strchr(p, ' ') + 1 : NULL;
    return p && sscanf(p, "%llu", &start) == 1 ? (uint64_t)start : 0;
}

bool clu_launch_adopt(struct clu_launch *out, pid_t pid, uint64_t start)
{
    if (pid <= 1 || !start || clu_launch_start_time(pid) != start) return false;
    *out = (struct clu_launch){.pid = pid, .start = start};
    note(0, pid);
    return true;
}

bool clu_launch_ended(struct clu_launch *l, int *status)
{
    if (l->pid <= 0) return true;
    if (l->start) {
        if (clu_launch_start_time(l->pid) == l->start) return false;
        *status = 0;
        note(l->pid, 0);
        *l = (struct clu_launch){.pid = 0};
        return true;
    }
    if (waitpid(l->pid, status, WNOHANG) != l->pid) return false;
    note(l->pid, 0);
    l->pid = 0;
    return true;
}

static bool ended_within(struct clu_launch *l, int64_t us)
{
    int status;
    for (int64_t until = clock_us() + us;;) {
        if (clu_launch_ended(l, &status)) return true;
        if (clock_us() >= until) return false;
        clock_sleep_us(10000);
    }
}

void clu_launch_stop(struct clu_launch *l, int64_t grace_us)
{
    if (l->pid <= 0 || ended_within(l, grace_us)) return;
    /* KILL, not TERM: a TERM in the middle of mpirun's own abort makes Open MPI 4.1 crash noisily or wait. The ranks leave by themselves:
     * their control stream is closed. */
    kill(-l->pid, SIGKILL);
    ended_within(l, 2000000);
}

static bool is_worker(pid_t pid)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, line, sizeof line - 1);
    if (fd >= 0) close(fd);
    if (n <= 0) return false;
    line[n] = 0;
    const char *second = line + strlen(line) + 1; /* arguments end with NUL each */
    return second < line + n && (!strcmp(second, "worker") || !strcmp(second, "serve")) && strstr(line, "tessera");
}

void clu_launch_reap_local(const pid_t pids[], int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        if (pids[i] > 1 && pids[i] != getpid() && is_worker(pids[i])) kill(pids[i], SIGKILL);
}

int32_t clu_hostfile_slots(const char *path)
{
    struct clu_hostfile f;
    return clu_hostfile_read(&f, path) ? 0 : f.n_slots;
}

void clu_launch_reap_shm(uint32_t first_epoch, uint32_t last_epoch)
{
    DIR *d = opendir("/dev/shm");
    for (struct dirent *e; d && (e = readdir(d));) {
        unsigned epoch;
        char job[17], path[300];
        /* "tessera-<job>-<epoch>-<group>": worker/worker.c names them so */
        if (sscanf(e->d_name, "tessera-%16[0-9a-f]-%u-", job, &epoch) != 2 || epoch < first_epoch || epoch > last_epoch) continue;
        snprintf(path, sizeof path, "/dev/shm/%s", e->d_name);
        unlink(path);
    }
    if (d) closedir(d);
}
