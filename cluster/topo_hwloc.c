/* topo_hwloc.c: this host as a topology. The one file of cluster/ that sees hwloc.
 *
 * Cores, caches, packages and NUMA nodes as hwloc tells them; NICs with the speed the kernel knows.
 * Memory: what is available now, less a part for the system. Read bandwidth is measured: every core
 * sums a buffer of its own, larger than the caches' share of a core, for a fraction of a second. */
#include "cluster/topo.h"

#include "base/clock.h"

#include <dirent.h>
#include <hwloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PROBE_BYTES = 64 << 20, PROBE_US = 150000, MAX_PROBES = 256 };
static const double GUESS_READ = 12e9, GUESS_OPS = 400e9; /* per core */

struct probe {
    pthread_t thread;
    const uint64_t *data;
    size_t n;
    _Atomic int *go;
    double bytes_s;
    uint64_t sum;
};

static void *read_main(void *arg)
{
    struct probe *p = arg;
    while (!atomic_load(p->go)) clock_sleep_us(50);
    int64_t t0 = clock_us(), bytes = 0;
    do {
        uint64_t a = 0, b = 0, c = 0, d = 0;
        for (size_t i = 0; i + 4 <= p->n; i += 4)
            a += p->data[i], b += p->data[i + 1], c += p->data[i + 2], d += p->data[i + 3];
        p->sum += a + b + c + d;
        bytes += (int64_t)(p->n * sizeof *p->data);
    } while (clock_us() - t0 < PROBE_US);
    p->bytes_s = (double)bytes / ((double)(clock_us() - t0) / 1e6);
    return NULL;
}

/* All cores together; 0 when it cannot be measured. */
static double measure_read(int32_t cores)
{
    int32_t n = MIN(cores, MAX_PROBES), started = 0;
    size_t each = (size_t)CLAMP((INT64_C(2) << 30) / n, INT64_C(8) << 20, (int64_t)PROBE_BYTES);
    uint64_t *data = malloc((size_t)n * each);
    _Atomic int go = 0;
    struct probe *p = xcalloc((size_t)n, sizeof *p);
    double sum = 0;
    if (data) {
        memset(data, 1, (size_t)n * each);
        for (; started < n; started++) {
            p[started] = (struct probe){.data = data + (size_t)started * (each / sizeof *data),
                                        .n = each / sizeof *data,
                                        .go = &go};
            if (pthread_create(&p[started].thread, NULL, read_main, &p[started])) break;
        }
        atomic_store(&go, 1);
        for (int32_t i = 0; i < started; i++) {
            pthread_join(p[i].thread, NULL);
            sum += p[i].bytes_s;
        }
    }
    free(p);
    free(data);
    return started == n ? sum : 0;
}

static int64_t mem_available(void)
{
    char line[128];
    long long kb = 0, v;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %lld kB", &v) == 1) kb = v;
    if (f) fclose(f);
    return kb * 1024;
}

/* From /sys: hwloc's own list needs its plugins for devices, which are many and leak. */
static void add_nics(struct clu_host *h)
{
    DIR *d = opendir("/sys/class/net");
    for (struct dirent *e; d && (e = readdir(d)) && h->n_nics < CLU_MAX_NICS;) {
        char path[320];
        long long mbit = 0;
        if (e->d_name[0] == '.' || !strcmp(e->d_name, "lo") || strlen(e->d_name) > 15) continue;
        snprintf(path, sizeof path, "/sys/class/net/%s/speed", e->d_name);
        FILE *f = fopen(path, "r");
        int got = f ? fscanf(f, "%lld", &mbit) : 0;
        if (f) fclose(f);
        if (got != 1 || mbit <= 0) continue;
        struct clu_nic *n = &h->nics[h->n_nics++];
        snprintf(n->name, sizeof n->name, "%.15s", e->d_name);
        n->bytes_s = (double)mbit * 125e3;
    }
    if (d) closedir(d);
}

static int64_t last_level(hwloc_topology_t topo)
{
    static const hwloc_obj_type_t levels[] = {HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L2CACHE};
    for (size_t k = 0; k < COUNT_OF(levels); k++) {
        int64_t sum = 0;
        for (hwloc_obj_t o = NULL; (o = hwloc_get_next_obj_by_type(topo, levels[k], o));)
            sum += (int64_t)o->attr->cache.size;
        if (sum) return sum;
    }
    return 0;
}

/* Cores that this process may use. */
static int32_t allowed_cores(hwloc_topology_t topo)
{
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    int32_t n = 0;
    if (hwloc_get_cpubind(topo, set, HWLOC_CPUBIND_PROCESS))
        hwloc_bitmap_copy(set, hwloc_topology_get_allowed_cpuset(topo));
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_obj_by_type(topo, HWLOC_OBJ_CORE, o));)
        n += hwloc_bitmap_intersects(o->cpuset, set);
    hwloc_bitmap_free(set);
    return n;
}

/* A name is one word of printing characters, whatever the host calls itself. */
static void name_host(char out[CLU_NAME])
{
    if (gethostname(out, CLU_NAME)) snprintf(out, CLU_NAME, "localhost");
    out[CLU_NAME - 1] = 0;
    for (char *c = out; *c; c++)
        if (*c <= ' ' || *c > '~' || *c == '#' || *c == '=') *c = '_';
    if (!*out) snprintf(out, CLU_NAME, "localhost");
}

enum err clu_topo_discover(struct clu_topo *out, bool measure)
{
    enum err rc = OK;
    hwloc_topology_t topo;
    struct clu_topo *t = xmalloc(sizeof *t);
    clu_topo_init(t);
    if (hwloc_topology_init(&topo)) {
        free(t);
        return err_raise(ERR_SYSTEM, "hwloc cannot describe this host");
    }
    if (hwloc_topology_load(topo)) TRY(err_raise(ERR_SYSTEM, "hwloc cannot describe this host"));
    struct clu_host *h = &t->hosts[t->n_hosts++];
    *h = (struct clu_host){.packages = MAX(1, hwloc_get_nbobjs_by_type(topo, HWLOC_OBJ_PACKAGE)),
                           .cores = MAX(1, hwloc_get_nbobjs_by_type(topo, HWLOC_OBJ_CORE)),
                           .threads = MAX(1, hwloc_get_nbobjs_by_type(topo, HWLOC_OBJ_PU)),
                           .numa = MAX(1, hwloc_get_nbobjs_by_type(topo, HWLOC_OBJ_NUMANODE)),
                           .cache_bytes = last_level(topo),
                           .disk_bytes_s = 1e9,
                           .local = {2e-6, 8e9}};
    name_host(h->name);
    add_nics(h);
    int32_t cores = MAX(1, allowed_cores(topo));
    struct clu_device *d = &t->devices[t->n_devices++];
    *d = (struct clu_device){
        .kind = CLU_CPU, .name = "cpu", .cores = cores, .mem_bytes = mem_available() / 100 * 92};
    if (measure) d->read_bytes_s = measure_read(cores);
    if (d->read_bytes_s <= 0) d->read_bytes_s = cores * GUESS_READ;
    d->ops_s = cores * GUESS_OPS;
    *out = *t;
out:
    hwloc_topology_destroy(topo);
    free(t);
    return rc;
}
