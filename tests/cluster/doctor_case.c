/* doctor_case.c: see doctor_case.h. */
#include "doctor_case.h"

#include <stdlib.h>
#include <string.h>

struct clu_survey_host hosts[N];
struct clu_path paths[2 * PATHS];
struct clu_survey s;

void healthy(void)
{
    memset(hosts, 0, sizeof hosts);
    memset(paths, 0, sizeof paths);
    s = (struct clu_survey){.n = N, .hosts = hosts, .paths = paths, .listen = "10.0.0.1"};
    for (int i = 0; i < N; i++) {
        struct clu_facts *f = &hosts[i].facts;
        hosts[i].ranks = true;
        hosts[i].skew_us = i * 1000;
        SET(hosts[i].listed, "%c", 'a' + i);
        SET(hosts[i].resolves, "10.0.0.%d", i + 1);
        *f = (struct clu_facts){.version = "1.0.0", .mpi = "4.1.4", .thp = "madvise", .cores = 8,
                                .load = 0.2, .mem_total = 64e9, .mem_available = 60e9,
                                .mem_limit = CLU_FACTS_UNLIMITED, .nofile_soft = 1024,
                                .nofile_hard = 1 << 20, .memlock = 8 << 20, .shm_total = 32e9,
                                .shm_free = 32e9, .model = "/m/x.gguf", .model_bytes = 40e9,
                                .model_files = 1, .model_head = 1, .model_places = 2,
                                .model_tail = 3, .n_nics = 1};
        SET(f->host, "%c", 'a' + i);
        SET(f->resolves, "10.0.0.%d", i + 1);
        f->nics[0] = (struct clu_facts_nic){"eth0", "", 24, 1500, 10000};
        SET(f->nics[0].address, "10.0.0.%d", i + 1);
    }
    for (int a = 0; a < N; a++)
        for (int b = 0; b < N; b++) {
            if (a == b) continue;
            struct clu_path *p = &paths[s.n_paths++];
            *p = (struct clu_path){a, b, 0, {REACH_OK, 30, 1.1e9, ""}};
            SET(p->seen.local, "10.0.0.%d", a + 1);
        }
    s.collective = (struct clu_collective){.state = COLL_OK, .n_ranks = N, .small_us = 40,
                                           .large_us = 300, .seconds = 1};
}

struct clu_path *path(int a, int b)
{
    for (int i = 0; i < s.n_paths; i++)
        if (paths[i].from == a && paths[i].to == b) return &paths[i];
    abort();
}

void second_nic(const char *network, enum clu_reach reach, double bytes_s)
{
    for (int i = 0; i < N; i++) {
        hosts[i].facts.nics[hosts[i].facts.n_nics++] =
            (struct clu_facts_nic){"eth1", "", 16, 1500, 1000};
        SET(hosts[i].facts.nics[1].address, "%s%d", network, i + 1);
    }
    for (int a = 0; a < N; a++)
        for (int b = 0; b < N; b++)
            if (a != b)
                paths[s.n_paths++] = (struct clu_path){a, b, 1, {reach, 30, bytes_s, ""}};
}

int32_t alarms(const struct clu_findings *f)
{
    int32_t n = 0;
    while (n < f->n && f->v[n].severity >= SEV_WARN) n++;
    for (int32_t i = n; i < f->n; i++)
        if (f->v[i].severity >= SEV_WARN) return -1;
    return n;
}

void silence(enum clu_asked asked, const char *why)
{
    hosts[1].asked = asked;
    SET(hosts[1].why, "%s", why);
    memset(&F(1), 0, sizeof F(1));
    int32_t kept = 0;
    for (int i = 0; i < s.n_paths; i++)
        if (paths[i].from != 1 && paths[i].to != 1) paths[kept++] = paths[i];
    s.n_paths = kept;
}
