/* doctor_limits.c: see doctor.h. What a host allows its processes, and its clock. */
#include "cluster/doctor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MIB ((int64_t)1 << 20)
#define TEXT(field, ...) clu_finding_text(field, sizeof field, __VA_ARGS__)

enum {
    FILES_LEAST = 256,             /* descriptors below which a rank may not even start */
    FILES_RANK = 1024,
    FILES_GATEWAY = 4096 + 128,    /* its connections, and the rest */
    SKEW_US = 2000000,
};
static const int64_t shm_least = 32 * MIB; /* one group's segment and MPI's own */
static const int64_t shm_enough = 48 * MIB;
static const int64_t memlock_least = 64 << 10, memlock_rdma = 1024 * MIB;

static bool asked(const struct clu_survey *s, int32_t i) { return s->hosts[i].asked == ASKED_OK; }

static struct clu_finding *add(const struct clu_survey *s, int32_t i, struct clu_findings *f,
                               enum clu_severity severity, const char *check)
{
    char name[128];
    clu_doctor_name(&s->hosts[i], name);
    return clu_findings_add(f, severity, check, name);
}

static void judge_files(const struct clu_survey *s, int32_t i, struct clu_findings *f)
{
    const struct clu_facts *h = &s->hosts[i].facts;
    int64_t need = i ? FILES_RANK : FILES_GATEWAY;
    if (h->nofile_hard >= need) return;
    bool least = h->nofile_hard < FILES_LEAST;
    struct clu_finding *x = add(s, i, f, least ? SEV_FAIL : SEV_WARN, "limits");
    TEXT(x->what, "too few open files are allowed%s",
         least ? "" : i ? "" : ": fewer clients at once than the gateway accepts");
    TEXT(x->seen, "nofile %" PRId64 " (hard limit)", h->nofile_hard);
    TEXT(x->needed, "%" PRId64, need);
    TEXT(x->cure, "in /etc/security/limits.conf: * - nofile 65536 (and log in again); in a "
                  "container: --ulimit nofile=65536");
}

static void judge_memlock(const struct clu_survey *s, int32_t i, struct clu_findings *f)
{
    const struct clu_facts *h = &s->hosts[i].facts;
    int64_t need = h->rdma ? memlock_rdma : memlock_least;
    if (h->memlock >= need) return;
    struct clu_finding *x = add(s, i, f, SEV_WARN, "limits");
    TEXT(x->what, h->rdma ? "too little memory may be locked for the RDMA device: MPI would fall "
                            "back to TCP or fail"
                          : "hardly any memory may be locked");
    TEXT(x->seen, "memlock %" PRId64 " KiB", h->memlock >> 10);
    TEXT(x->needed, h->rdma ? "unlimited" : "64 KiB");
    TEXT(x->cure, "in /etc/security/limits.conf: * - memlock unlimited (and log in again); in a "
                  "container: --ulimit memlock=-1");
}

static void judge_shm(const struct clu_survey *s, int32_t i, struct clu_findings *f)
{
    const struct clu_facts *h = &s->hosts[i].facts;
    if (h->shm_free >= shm_enough) return;
    struct clu_finding *x = add(s, i, f, h->shm_free < shm_least ? SEV_FAIL : SEV_WARN, "limits");
    TEXT(x->what, "too little shared memory for ranks of one host");
    if (h->shm_total < 0) TEXT(x->seen, "no /dev/shm");
    else TEXT(x->seen, "%" PRId64 " MiB free of %" PRId64 " in /dev/shm", h->shm_free / MIB,
              h->shm_total / MIB);
    TEXT(x->needed, "%" PRId64 " MiB free", shm_enough / MIB);
    TEXT(x->cure, "mount -o remount,size=1G /dev/shm; in a container: --shm-size=1g");
}

static void judge_processors(const struct clu_survey *s, int32_t i, struct clu_findings *f)
{
    const struct clu_facts *h = &s->hosts[i].facts;
    if (h->cpu_limit > 0 && h->cpu_limit < (double)h->cores - 0.01) {
        struct clu_finding *x = add(s, i, f, SEV_WARN, "limits");
        TEXT(x->what, "the container is throttled: threads that wait for each other would stall");
        TEXT(x->seen, "%.1f of %" PRId64 " processors", h->cpu_limit, h->cores);
        TEXT(x->needed, "as many processors as threads");
        TEXT(x->cure, "--threads %d, or give the container whole processors (--cpuset-cpus)",
             (int)MAX(h->cpu_limit, 1));
    }
    if (h->load > 0.5 * (double)h->cores) {
        struct clu_finding *x = add(s, i, f, SEV_NOTE, "load");
        TEXT(x->what, "other programs keep the processors busy");
        TEXT(x->seen, "load %.1f on %" PRId64 " processors", h->load, h->cores);
        TEXT(x->needed, "a quiet host for full speed");
        TEXT(x->cure, "top");
    }
    if (!strcmp(h->thp, "never")) {
        struct clu_finding *x = add(s, i, f, SEV_NOTE, "hugepages");
        TEXT(x->what, "large pages are off: weights are read a little slower");
        TEXT(x->seen, "transparent_hugepage never");
        TEXT(x->needed, "madvise");
        TEXT(x->cure, "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled");
    }
}

/* Slots are ranks, each with many threads; a hostfile of other programs has one for each core. */
static void judge_slots(const struct clu_survey *s, int32_t i, struct clu_findings *f)
{
    const struct clu_survey_host *h = &s->hosts[i];
    int64_t fit = h->facts.packages + h->facts.n_cards;
    if (!h->facts.packages || h->slots <= 2 * fit) return;
    struct clu_finding *x = add(s, i, f, SEV_WARN, "slots");
    TEXT(x->what, "more ranks than it has sockets and cards: each rank computes with many threads");
    TEXT(x->seen, "slots=%d; %" PRId64 " socket(s), %" PRId64 " card(s)", h->slots, h->facts.packages, h->facts.n_cards);
    TEXT(x->needed, "1 for the processors, or 1 for each card");
    TEXT(x->cure, "in the hostfile: %.100s slots=%" PRId64, h->listed, MAX(h->facts.n_cards, 1));
}

static void judge_clocks(const struct clu_survey *s, struct clu_findings *f)
{
    int32_t before = f->n;
    int64_t most = 0;
    for (int32_t i = 1; i < s->n; i++) {
        const struct clu_survey_host *h = &s->hosts[i];
        int64_t off = h->skew_us < 0 ? -h->skew_us : h->skew_us;
        if (!asked(s, i)) continue;
        most = MAX(most, off + h->skew_error_us);
        if (off - h->skew_error_us < SKEW_US) continue;
        struct clu_finding *x = add(s, i, f, SEV_WARN, "clock");
        TEXT(x->what, "its clock is wrong: logs do not line up, certificates may be refused");
        TEXT(x->seen, "%.1f s %s this host", (double)off / 1e6,
             h->skew_us < 0 ? "behind" : "ahead of");
        TEXT(x->needed, "less than %d s", SKEW_US / 1000000);
        TEXT(x->cure, "on both hosts: timedatectl set-ntp true");
    }
    if (s->n > 1)
        clu_findings_well(f, before, "clock", "clocks agree within %.0f ms", (double)most / 1e3);
}

void clu_doctor_limits(const struct clu_survey *s, struct clu_findings *f)
{
    int32_t before = f->n;
    for (int32_t i = 0; i < s->n; i++) {
        if (!asked(s, i)) continue;
        judge_files(s, i, f);
        judge_memlock(s, i, f);
        judge_shm(s, i, f);
        judge_processors(s, i, f);
        judge_slots(s, i, f);
    }
    clu_findings_well(f, before, "limits", "open files, locked memory, shared memory, processors");
    judge_clocks(s, f);
}
