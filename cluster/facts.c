/* facts.c: see facts.h. What the kernel tells of this host's limits. */
#include "cluster/facts.h"

#include "proto/version.h"

#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* The first line of a file of /proc or /sys, without its newline; false when there is none. */
static bool first_line(const char *path, char *out, size_t n)
{
    FILE *f = fopen(path, "r");
    bool got = f && fgets(out, (int)n, f);
    if (f) fclose(f);
    if (!got) out[0] = 0;
    out[strcspn(out, "\n")] = 0;
    return got;
}

static void memory(struct clu_facts *f)
{
    char line[128];
    long long kb;
    FILE *m = fopen("/proc/meminfo", "r");
    while (m && fgets(line, sizeof line, m)) {
        if (sscanf(line, "MemTotal: %lld kB", &kb) == 1) f->mem_total = kb * 1024;
        if (sscanf(line, "MemAvailable: %lld kB", &kb) == 1) f->mem_available = kb * 1024;
    }
    if (m) fclose(m);
}

/* Version 2 of control groups, as seen from inside a container, then version 1. */
static void control_group(struct clu_facts *f)
{
    char a[64];
    long long quota = -1, period = 0, limit;
    f->mem_limit = CLU_FACTS_UNLIMITED;
    if (first_line("/sys/fs/cgroup/cpu.max", a, sizeof a)) {
        if (sscanf(a, "%lld %lld", &quota, &period) != 2) quota = -1;
    } else if (first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", a, sizeof a)) {
        quota = atoll(a);
        period = first_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us", a, sizeof a) ? atoll(a) : 0;
    }
    if (quota > 0 && period > 0) f->cpu_limit = (double)quota / (double)period;
    if (!first_line("/sys/fs/cgroup/memory.max", a, sizeof a) &&
        !first_line("/sys/fs/cgroup/memory/memory.limit_in_bytes", a, sizeof a))
        return;
    limit = atoll(a); /* version 1 says "none" by a number beyond any machine */
    if (limit > 0 && limit < 1LL << 60) f->mem_limit = limit;
}

static int64_t limit_of(rlim_t v) { return v == RLIM_INFINITY ? CLU_FACTS_UNLIMITED : (int64_t)v; }

static void process_limits(struct clu_facts *f)
{
    struct rlimit r;
    struct statvfs s;
    if (!getrlimit(RLIMIT_NOFILE, &r)) {
        f->nofile_soft = limit_of(r.rlim_cur);
        f->nofile_hard = limit_of(r.rlim_max);
    }
    if (!getrlimit(RLIMIT_MEMLOCK, &r)) f->memlock = limit_of(r.rlim_cur);
    f->shm_total = f->shm_free = CLU_FACTS_UNKNOWN;
    if (statvfs("/dev/shm", &s)) return;
    f->shm_total = (int64_t)s.f_blocks * (int64_t)s.f_frsize;
    f->shm_free = (int64_t)s.f_bavail * (int64_t)s.f_frsize;
}

static bool has_entries(const char *path)
{
    DIR *d = opendir(path);
    bool found = false;
    for (struct dirent *e; d && !found && (e = readdir(d));) found = e->d_name[0] != '.';
    if (d) closedir(d);
    return found;
}

/* Sockets, counted by the numbers that the kernel gives them. */
static int64_t packages(void)
{
    enum { MOST = 64 };
    long seen[MOST], n = 0, id;
    char path[96], a[32];
    for (int cpu = 0; n < MOST; cpu++) {
        long k = 0;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/physical_package_id", cpu);
        if (!first_line(path, a, sizeof a)) break;
        id = atol(a);
        while (k < n && seen[k] != id) k++;
        if (k == n) seen[n++] = id;
    }
    return n;
}

/* Processors, memory, ulimits, /dev/shm, hugepages. */
static void limits(struct clu_facts *f)
{
    char a[256];
    cpu_set_t cpus;
    double load[1];
    f->cores = sched_getaffinity(0, sizeof cpus, &cpus) ? sysconf(_SC_NPROCESSORS_ONLN)
                                                        : CPU_COUNT(&cpus);
    f->load = getloadavg(load, 1) == 1 ? load[0] : 0;
    f->packages = packages();
    memory(f);
    control_group(f);
    process_limits(f);
    if (first_line("/sys/kernel/mm/transparent_hugepage/enabled", a, sizeof a) &&
        strchr(a, '['))
        sscanf(strchr(a, '[') + 1, "%15[a-z]", f->thp);
    if (first_line("/proc/driver/nvidia/version", a, sizeof a)) {
        char *v = strstr(a, "Module");
        if (v) sscanf(v, "Module%*[ ]%31[0-9.]", f->driver);
        if (v && !f->driver[0]) sscanf(v, "Module for %*s %31[0-9.]", f->driver);
    }
    f->rdma = has_entries("/sys/class/infiniband");
}

static void mpi_version(struct clu_facts *f)
{
    char line[128];
    FILE *p = popen("mpirun --version 2>/dev/null </dev/null", "re");
    if (p && fgets(line, sizeof line, p)) sscanf(line, "mpirun (Open MPI) %31[0-9a-z.]", f->mpi);
    if (p) pclose(p);
}

void clu_facts_gather(struct clu_facts *out, const char *model)
{
    struct utsname u;
    struct timespec now;
    *out = (struct clu_facts){.model_bytes = CLU_FACTS_UNKNOWN};
    if (gethostname(out->host, sizeof out->host - 1)) snprintf(out->host, sizeof out->host, "?");
    snprintf(out->version, sizeof out->version, "%s", TESSERA_VERSION);
    if (!uname(&u)) snprintf(out->kernel, sizeof out->kernel, "%.63s", u.release);
    limits(out);
    clu_facts_net(out);
    clu_facts_cards(out);
    mpi_version(out);
    if (model) clu_facts_model(out, model);
    clock_gettime(CLOCK_REALTIME, &now);
    out->unix_us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}
