/* bind.c: see bind.h. */
#include "worker/bind.h"

#include <hwloc.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

enum { MOST_SIBLINGS = 8 }; /* hardware threads of a core */

/* The first processor of each core, then each core's second, and so on. */
static int32_t by_cores(hwloc_topology_t topo, hwloc_const_bitmap_t allowed, int32_t cpus[], int32_t max)
{
    int32_t n = 0;
    int n_cores = hwloc_get_nbobjs_by_type(topo, HWLOC_OBJ_CORE);
    for (int sibling = 0; sibling < MOST_SIBLINGS; sibling++)
        for (int c = 0; c < n_cores && n < max; c++) {
            hwloc_obj_t core = hwloc_get_obj_by_type(topo, HWLOC_OBJ_CORE, (unsigned)c);
            int pu = hwloc_bitmap_first(core->cpuset);
            for (int i = 0; i < sibling && pu >= 0; i++) pu = hwloc_bitmap_next(core->cpuset, pu);
            if (pu >= 0 && hwloc_bitmap_isset(allowed, (unsigned)pu)) cpus[n++] = pu;
        }
    return n;
}

/* Where hwloc sees no cores, as in some containers and virtual machines: as the kernel numbers them. */
static int32_t by_numbers(int32_t cpus[], int32_t max)
{
    cpu_set_t allowed;
    int32_t n = 0;
    if (sched_getaffinity(0, sizeof allowed, &allowed)) return 0;
    for (int32_t i = 0; i < CPU_SETSIZE && n < max; i++)
        if (CPU_ISSET(i, &allowed)) cpus[n++] = i;
    return n;
}

int32_t wrk_bind_cpus(int32_t cpus[], int32_t max)
{
    hwloc_topology_t topo;
    int32_t n = 0;
    if (hwloc_topology_init(&topo)) return by_numbers(cpus, max);
    hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
    if (!hwloc_topology_load(topo) && !hwloc_get_cpubind(topo, allowed, HWLOC_CPUBIND_PROCESS)) n = by_cores(topo, allowed, cpus, max);
    hwloc_bitmap_free(allowed);
    hwloc_topology_destroy(topo);
    return n ? n : by_numbers(cpus, max);
}

void wrk_bind_memory(int64_t *total, int64_t *available)
{
    char line[128];
    *total = *available = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        long long kb;
        if (sscanf(line, "MemTotal: %lld kB", &kb) == 1) *total = kb * 1024;
        if (sscanf(line, "MemAvailable: %lld kB", &kb) == 1) *available = kb * 1024;
    }
    if (f) fclose(f);
}
