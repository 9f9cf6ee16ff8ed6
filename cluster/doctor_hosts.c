/* doctor_hosts.c: see doctor.h. Can a host be asked, do names, versions and models agree? A
 * host that could not be asked is judged by the first rule alone. */
#include "cluster/doctor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TEXT(field, ...) clu_finding_text(field, sizeof field, __VA_ARGS__)

static bool asked(const struct clu_survey *s, int32_t i) { return s->hosts[i].asked == ASKED_OK; }

static bool is_loopback(const char *a) { return !strncmp(a, "127.", 4) || !strcmp(a, "::1"); }

static struct clu_finding *add(const struct clu_survey *s, int32_t i, struct clu_findings *f,
                               enum clu_severity severity, const char *check)
{
    char name[128];
    clu_doctor_name(&s->hosts[i], name);
    return clu_findings_add(f, severity, check, name);
}

static const struct asked_rule {
    const char *what, *needed, *cure;
} asked_rules[] = {
    [ASKED_NO_NAME] = {"the name in the hostfile resolves to no address", "an address",
                       "put the right name, or its address, in the hostfile; or add it to "
                       "/etc/hosts here"},
    [ASKED_SSH_HANGS] = {"ssh does not answer", "a shell within seconds, without a question",
                         "is the host up, and port 22 open? try: ssh -v -o BatchMode=yes {host} "
                         "true (if that stops at the key exchange: the MTU of the way)"},
    [ASKED_SSH_FAILS] = {"ssh is refused", "a shell without a password",
                         "ssh-copy-id {host}, and once by hand: ssh {host} true"},
    [ASKED_NO_PROGRAM] = {"tessera does not run there", "the same binary at the same path",
                          "install it there at the same path, or name its path with --program"},
    [ASKED_NO_MPI] = {"Open MPI is not found by a shell that ssh starts", "orted in its PATH",
                      "apt-get install openmpi-bin there, or --mpirun-args \"--prefix DIR\""},
    [ASKED_MPI_HANGS] = {"mpirun hangs although ssh and tessera work", "a process started",
                         "the host must reach this one back: open the firewall for it, or name the "
                         "network: --mpirun-args \"--mca oob_tcp_if_include NETWORK/BITS\""},
    [ASKED_MPI_FAILS] = {"mpirun cannot start a process", "a process started",
                         "try: mpirun --host {host} -n 1 hostname"},
    [ASKED_NONSENSE] = {"tessera answers with something else than its facts",
                        "the same version on every host", "install the same version there"},
};

static void judge_asked(const struct clu_survey *s, struct clu_findings *f)
{
    int32_t before = f->n;
    for (int32_t i = 0; i < s->n; i++) {
        const struct clu_survey_host *h = &s->hosts[i];
        if (asked(s, i)) continue;
        const struct asked_rule *r = &asked_rules[h->asked];
        struct clu_finding *x = add(s, i, f, SEV_FAIL, "start");
        TEXT(x->what, "%s", r->what);
        TEXT(x->seen, "%.250s", h->why[0] ? h->why : "no answer");
        TEXT(x->needed, "%s", r->needed);
        clu_finding_cure(x, r->cure, h->listed, "");
    }
    if (s->n > 1) clu_findings_well(f, before, "start", "mpirun starts tessera on every host");
}

/* ---- names ---- */

static bool same_machine(const struct clu_facts *a, const struct clu_facts *b)
{
    return !strcmp(a->host, b->host) && a->n_nics == b->n_nics &&
           (a->n_nics == 0 || !strcmp(a->nics[0].address, b->nics[0].address));
}

static void judge_name(const struct clu_survey *s, int32_t i, struct clu_findings *f)
{
    const struct clu_survey_host *h = &s->hosts[i];
    const char *outward = h->facts.n_nics ? h->facts.nics[0].address : "ADDRESS";
    struct clu_finding *x;
    if (i > 0 && is_loopback(h->resolves)) {
        x = add(s, i, f, SEV_FAIL, "names");
        TEXT(x->what, "here its name means this host itself: its ranks would start here");
        TEXT(x->seen, "%s -> %s in this host's resolver", h->listed, h->resolves);
        TEXT(x->needed, "%s -> %s", h->listed, outward);
        TEXT(x->cure, "in /etc/hosts of this host: %s %s", outward, h->listed);
    }
    if (is_loopback(h->facts.resolves) || !h->facts.resolves[0]) {
        bool none = !h->facts.resolves[0];
        x = add(s, i, f, s->n > 1 ? SEV_WARN : SEV_NOTE, "names");
        TEXT(x->what, "the host's own name %s", none ? "resolves to no address"
                                                      : "resolves to loopback: other programs that "
                                                        "tell it to their peers would hang");
        TEXT(x->seen, "%s -> %s", h->facts.host, none ? "nothing" : h->facts.resolves);
        TEXT(x->needed, "%s -> %s", h->facts.host, outward);
        TEXT(x->cure, "on %s: sudo sed -i '1i %s %s' /etc/hosts (it must stand above any 127.* line of that name)",
             h->facts.host, outward, h->facts.host);
    }
}

static void judge_twins(const struct clu_survey *s, int32_t i, struct clu_findings *f)
{
    const struct clu_facts *a = &s->hosts[i].facts;
    if (is_loopback(s->hosts[i].resolves)) return; /* said already */
    for (int32_t j = 0; j < i; j++) {
        const struct clu_facts *b = &s->hosts[j].facts;
        if (!asked(s, j) || strcmp(a->host, b->host)) continue;
        bool same = same_machine(a, b);
        struct clu_finding *x = add(s, i, f, same ? SEV_WARN : SEV_FAIL, "names");
        TEXT(x->what, same ? "the hostfile names one machine twice"
                           : "two machines have one name: MPI would take them for one host");
        TEXT(x->seen, "%.60s and %.60s are both %.60s", s->hosts[j].listed, s->hosts[i].listed,
             a->host);
        TEXT(x->needed, same ? "one line per machine" : "a name for each");
        if (same) TEXT(x->cure, "one line with slots=N in the hostfile");
        else TEXT(x->cure, "on one of them: hostnamectl set-hostname NAME");
        return;
    }
}

static void judge_names(const struct clu_survey *s, struct clu_findings *f)
{
    int32_t before = f->n;
    for (int32_t i = 0; i < s->n; i++)
        if (asked(s, i)) judge_name(s, i, f), judge_twins(s, i, f);
    if (s->n > 1) clu_findings_well(f, before, "names", "names mean the same everywhere");
}

/* ---- versions ---- */

static bool same_series(const char *a, const char *b) /* 4.1.4 and 4.1.6 */
{
    const char *x = strchr(a, '.'), *y = strchr(b, '.');
    size_t n = x ? strcspn(x + 1, ".") + (size_t)(x + 1 - a) : strlen(a);
    return x && y && !strncmp(a, b, n) && (b[n] == '.' || !b[n]);
}

static void judge_versions(const struct clu_survey *s, struct clu_findings *f)
{
    int32_t before = f->n;
    const struct clu_facts *own = &s->hosts[0].facts;
    for (int32_t i = 0; i < s->n; i++) {
        const struct clu_facts *h = &s->hosts[i].facts;
        if (!asked(s, i)) continue;
        if (strcmp(h->version, own->version)) {
            struct clu_finding *x = add(s, i, f, SEV_FAIL, "versions");
            TEXT(x->what, "another version of tessera");
            TEXT(x->seen, "%s", h->version);
            TEXT(x->needed, "%s, as on %s", own->version, own->host);
            TEXT(x->cure, "install tessera %s there, at the same path", own->version);
        }
        if (strcmp(h->driver, own->driver) && h->driver[0] && own->driver[0]) {
            struct clu_finding *x = add(s, i, f, SEV_NOTE, "versions");
            TEXT(x->what, "another NVIDIA driver; ranks on processors do not mind");
            TEXT(x->seen, "%s", h->driver);
            TEXT(x->needed, "%s, as on %s", own->driver, own->host);
        }
        if (!strcmp(h->mpi, own->mpi) && h->mpi[0]) continue;
        bool patch = h->mpi[0] && own->mpi[0] && same_series(own->mpi, h->mpi);
        struct clu_finding *x = add(s, i, f, patch ? SEV_WARN : SEV_FAIL, "versions");
        TEXT(x->what, h->mpi[0] ? "another version of Open MPI" : "Open MPI is missing");
        TEXT(x->seen, "%s", h->mpi[0] ? h->mpi : "no mpirun");
        TEXT(x->needed, "%s%s", own->mpi[0] ? own->mpi : "4.1", i ? ", as on this host" : "");
        TEXT(x->cure, "apt-get install openmpi-bin, of the same release everywhere");
    }
    clu_findings_well(f, before, "versions", "tessera %s and Open MPI %s%s", own->version, own->mpi,
                      s->n > 1 ? " on every host that answered" : "");
}

/* ---- the model ---- */

static void differs(const struct clu_survey *s, int32_t i, int32_t ref, struct clu_findings *f)
{
    const struct clu_facts *a = &s->hosts[i].facts, *b = &s->hosts[ref].facts;
    bool size = a->model_bytes != b->model_bytes || a->model_files != b->model_files;
    struct clu_finding *x = add(s, i, f, SEV_FAIL, "model");
    TEXT(x->what, "not the same model file as on %s", b->host);
    if (size)
        TEXT(x->seen, "%" PRId64 " bytes in %" PRId64 " file(s)", a->model_bytes, a->model_files);
    else
        TEXT(x->seen, "the same size, but other bytes in its %s",
             a->model_head != b->model_head     ? "head"
             : a->model_tail != b->model_tail   ? "tail"
                                                : "middle");
    TEXT(x->needed, "%" PRId64 " bytes in %" PRId64 " file(s), sampled XXH3 %016" PRIx64,
         b->model_bytes, b->model_files, b->model_places);
    TEXT(x->cure, "from %s: rsync -a --checksum %.120s %s:%.120s", b->host, a->model,
         s->hosts[i].listed[0] ? s->hosts[i].listed : a->host, a->model);
}

/* A host without the file gets its part from one that has it; without some parts of it, it does not. */
static bool comes_over_the_network(const struct clu_survey *s, int32_t i)
{
    const struct clu_facts *h = &s->hosts[i].facts;
    const char *slash = strrchr(h->model, '/'), *name = slash ? slash + 1 : h->model;
    size_t n = strlen(name);
    bool there = false, absent = !strncmp(h->model_error, name, n) && h->model_error[n] == ':' && strstr(h->model_error, "No such file");
    for (int32_t k = 0; k < s->n; k++) there |= asked(s, k) && s->hosts[k].ranks && s->hosts[k].facts.model_bytes >= 0;
    return i && there && absent;
}

static void judge_model(const struct clu_survey *s, struct clu_findings *f)
{
    int32_t before = f->n, ref = -1;
    for (int32_t i = 0; i < s->n; i++) {
        const struct clu_facts *h = &s->hosts[i].facts;
        if (!asked(s, i) || !h->model[0]) continue;
        if (h->model_bytes < 0) {
            bool fetched = comes_over_the_network(s, i);
            struct clu_finding *x = add(s, i, f, fetched ? SEV_NOTE : SEV_FAIL, "model");
            TEXT(x->what, fetched ? "the model is not here: its part comes over the network from a host that has it" : "the model cannot be read");
            TEXT(x->seen, "%s", h->model_error);
            TEXT(x->needed, "%.150s, readable", h->model);
            TEXT(x->cure, "%s: rsync -a %.120s %s:%.120s", fetched ? "to start faster" : "put it there under the same path", h->model,
                 s->hosts[i].listed[0] ? s->hosts[i].listed : h->host, h->model);
        } else if (ref < 0) {
            ref = i;
        } else {
            const struct clu_facts *b = &s->hosts[ref].facts;
            if (h->model_bytes != b->model_bytes || h->model_files != b->model_files ||
                h->model_head != b->model_head || h->model_places != b->model_places ||
                h->model_tail != b->model_tail)
                differs(s, i, ref, f);
        }
    }
    if (ref >= 0)
        clu_findings_well(f, before, "model", "%.2f MB in %" PRId64 " file(s)%s",
                          (double)s->hosts[ref].facts.model_bytes / 1e6,
                          s->hosts[ref].facts.model_files, s->n > 1 ? ", alike on every host that answered" : "");
}

/* "3.14 GB", or of a small model "2.0 MB". */
static const char *amount(int64_t bytes, char text[32])
{
    if (bytes < 100000000)
        snprintf(text, 32, "%.1f MB", (double)bytes / 1e6);
    else
        snprintf(text, 32, "%.2f GB", (double)bytes / 1e9);
    return text;
}

static void judge_memory(const struct clu_survey *s, struct clu_findings *f)
{
    int64_t have = 0, need = CLU_FACTS_UNKNOWN;
    int32_t n = 0, before = f->n;
    char a[32], b[32];
    for (int32_t i = 0; i < s->n; i++) {
        const struct clu_facts *h = &s->hosts[i].facts;
        if (!asked(s, i)) continue;
        need = MAX(need, h->model_bytes);
        if (!s->hosts[i].ranks) continue;
        have += MIN(h->mem_available, h->mem_limit);
        n++;
    }
    if (need < 0 || !n) return; /* nobody who would hold a rank has answered */
    if (have < need) {
        struct clu_finding *x = clu_findings_add(f, SEV_FAIL, "memory", n > 1 ? "all hosts"
                                                                              : "this host");
        TEXT(x->what, "the weights alone are larger than the memory that is free");
        TEXT(x->seen, "%s available on %d host(s)", amount(have, a), n);
        TEXT(x->needed, "%s, and the KV cache", amount(need, b));
        TEXT(x->cure, "add hosts, free memory, or take a smaller quantisation");
    }
    clu_findings_well(f, before, "memory", "%s available for %s of weights", amount(have, a),
                      amount(need, b));
}

void clu_doctor_hosts(const struct clu_survey *s, struct clu_findings *out)
{
    judge_asked(s, out);
    judge_names(s, out);
    judge_versions(s, out);
    judge_model(s, out);
    judge_memory(s, out);
}
