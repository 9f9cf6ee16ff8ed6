/* doctor_pairs.c: see doctor.h. The rules that look at what hosts see of each other, and at the
 * all-reduce that was really run. */
#include "cluster/doctor.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(field, ...) clu_finding_text(field, sizeof field, __VA_ARGS__)

static const double slow_latency_us = 2000, slow_bytes_s = 12.6e6; /* 100 Mbit/s and below */
static const double about_equal = 0.7; /* of the best bandwidth: probes are short and hosts busy */

static bool asked(const struct clu_survey *s, int32_t i) { return s->hosts[i].asked == ASKED_OK; }

static const struct clu_facts_nic *nic_to(const struct clu_survey *s, const struct clu_path *p)
{
    return &s->hosts[p->to].facts.nics[p->nic];
}

/* ---- addresses ---- */

/* The bytes of an address: 4, 16, or 0 when it is none. */
static int bytes_of(const char *text, unsigned char out[16])
{
    if (inet_pton(AF_INET, text, out) == 1) return 4;
    return inet_pton(AF_INET6, text, out) == 1 ? 16 : 0;
}

static bool within(const unsigned char *a, const unsigned char *net, int bytes, int bits)
{
    for (int i = 0; i < bytes && bits > 0; i++, bits -= 8) {
        unsigned mask = bits >= 8 ? 0xff : 0xff00u >> bits & 0xff;
        if ((a[i] ^ net[i]) & mask) return false;
    }
    return true;
}

/* "10.0.0.0/24" or "eth0". */
static bool matches(const char *word, const struct clu_facts_nic *nic)
{
    unsigned char a[16], net[16];
    char text[64];
    const char *slash = strchr(word, '/');
    if (!slash) return !strcmp(word, nic->name);
    snprintf(text, sizeof text, "%.*s", (int)MIN(slash - word, 60), word);
    int n = bytes_of(text, net);
    return n && bytes_of(nic->address, a) == n && within(a, net, n, atoi(slash + 1));
}

bool clu_doctor_uses(const char *include, const struct clu_facts_nic *nic)
{
    char words[256], *save = NULL;
    if (!include[0]) return true;
    snprintf(words, sizeof words, "%s", include);
    for (char *w = strtok_r(words, ",", &save); w; w = strtok_r(NULL, ",", &save))
        if (matches(w, nic)) return true;
    return false;
}

static bool is_private(const char *address)
{
    static const struct { const char *net; int bits; } nets[] = {
        {"10.0.0.0", 8}, {"172.16.0.0", 12}, {"192.168.0.0", 16}, {"127.0.0.0", 8},
        {"169.254.0.0", 16}, {"100.64.0.0", 10}, {"192.0.2.0", 24}, {"198.51.100.0", 24},
        {"203.0.113.0", 24}, {"198.18.0.0", 15}, {"::1", 128}, {"fc00::", 7}, {"fe80::", 10},
        {"2001:db8::", 32}};
    unsigned char a[16], net[16];
    int n = bytes_of(address, a);
    for (size_t i = 0; i < COUNT_OF(nets); i++)
        if (bytes_of(nets[i].net, net) == n && within(a, net, n, nets[i].bits)) return true;
    return n == 0;
}

/* "10.0.0.0/24", what `--mca btl_tcp_if_include` takes. */
static void network_of(const struct clu_facts_nic *nic, char out[64])
{
    unsigned char a[16] = {0};
    char text[INET6_ADDRSTRLEN] = "";
    int n = bytes_of(nic->address, a);
    for (int i = 0; i < n; i++) {
        int bits = (int)CLAMP(nic->prefix - 8 * i, 0, 8);
        a[i] = (unsigned char)(a[i] & (0xff00u >> bits & 0xff));
    }
    if (n) inet_ntop(n == 4 ? AF_INET : AF_INET6, a, text, sizeof text);
    snprintf(out, 64, "%.45s/%d", text, (int)nic->prefix);
}

/* ---- the path of a pair ---- */

const struct clu_facts_nic *clu_doctor_via(const struct clu_survey *s, const struct clu_path *p)
{
    const struct clu_facts *f = &s->hosts[p->from].facts;
    for (int64_t i = 0; i < f->n_nics; i++)
        if (!strcmp(f->nics[i].address, p->seen.local)) return &f->nics[i];
    return NULL;
}

const struct clu_path *clu_doctor_path(const struct clu_survey *s, int32_t a, int32_t b,
                                       char why[128])
{
    const struct clu_path *best = NULL, *pick = NULL;
    int32_t n = 0, bad = 0;
    for (int32_t i = 0; i < s->n_paths; i++) {
        const struct clu_path *p = &s->paths[i];
        if (p->from != a || p->to != b || !clu_doctor_uses(s->include, nic_to(s, p))) continue;
        if (p->seen.reach == REACH_OK) {
            n++;
            if (!best || p->seen.bytes_s > best->seen.bytes_s) best = p;
        } else {
            bad++;
        }
    }
    for (int32_t i = 0; i < s->n_paths && best && !pick; i++) {
        const struct clu_path *p = &s->paths[i];
        if (p->from == a && p->to == b && p->seen.reach == REACH_OK &&
            clu_doctor_uses(s->include, nic_to(s, p)) &&
            p->seen.bytes_s >= about_equal * best->seen.bytes_s)
            pick = p;
    }
    if (why)
        snprintf(why, 128, "%s%s", n < 2        ? "the only one"
                 : pick == best ? "the fastest"
                                : "as fast as any, and first", bad ? " that works" : "");
    return pick;
}

/* ---- rules ---- */

static const struct { const char *what, *cure; } reach_rules[] = {
    [REACH_UNKNOWN] = {"was not tried: time was up", "more time: --timeout 60"},
    [REACH_OK] = {"", ""},
    [REACH_REFUSED] = {"is refused: a firewall rejects it",
                       "on {host}: ufw allow from {from} (or: iptables -I INPUT -s {from} -j "
                       "ACCEPT)"},
    [REACH_TIMEOUT] = {"is not answered: a firewall drops it, or the packets take another way back",
                       "on {host}: ufw allow from {from} (or: iptables -I INPUT -s {from} -j "
                       "ACCEPT)"},
    [REACH_UNREACHABLE] = {"is impossible: no route, or the link is down",
                           "on {host}: ip link; ip route get {from}; and the reverse on the other"},
    [REACH_STRANGER] = {"is answered by somebody else: the address is taken twice",
                        "give {host} an address of its own"},
    [REACH_STALLED] = {"passes small messages, but large ones get stuck: the MTU of the way is "
                       "smaller than that of its ends",
                       "on {host} and on the other: ip link set dev NIC mtu 1500 (or cure the "
                       "switch)"},
};

static const char *address_of(const struct clu_survey *s, int32_t i, const struct clu_path *p)
{
    const struct clu_facts *f = &s->hosts[i].facts;
    return p && p->seen.local[0] ? p->seen.local : f->n_nics ? f->nics[0].address : f->host;
}

static void unreachable(const struct clu_survey *s, int32_t a, int32_t b, const struct clu_path *p,
                        struct clu_findings *f)
{
    char x_name[128], y_name[128], where[260];
    clu_doctor_name(&s->hosts[a], x_name);
    clu_doctor_name(&s->hosts[b], y_name);
    snprintf(where, sizeof where, "%.60s -> %.60s", x_name, y_name);
    struct clu_finding *x = clu_findings_add(f, SEV_FAIL, "network", where);
    enum clu_reach r = p ? p->seen.reach : REACH_UNREACHABLE;
    if (!p) {
        TEXT(x->what, "%s has no network address that MPI may use", y_name);
        TEXT(x->seen, "%s%s", s->include[0] ? "none within " : "none", s->include);
        TEXT(x->cure, "ip addr on %s; or another --mca btl_tcp_if_include", y_name);
    } else {
        TEXT(x->what, "a connection %s", reach_rules[r].what);
        const struct clu_facts_nic *nic = nic_to(s, p);
        TEXT(x->seen, "%s at %s (%s)", clu_reach_name(r), nic->address, nic->name);
        clu_finding_cure(x, reach_rules[r].cure, y_name, address_of(s, a, p));
    }
    TEXT(x->needed, "TCP between any two ports of the hosts");
}

/* Tried, and of these the one that got furthest, which tells most. */
static const struct clu_path *tried(const struct clu_survey *s, int32_t a, int32_t b)
{
    const struct clu_path *pick = NULL;
    for (int32_t i = 0; i < s->n_paths; i++) {
        const struct clu_path *p = &s->paths[i];
        if (p->from != a || p->to != b || !clu_doctor_uses(s->include, nic_to(s, p))) continue;
        bool further = p->seen.reach == REACH_STALLED;
        if (!pick || (further && pick->seen.reach != REACH_STALLED)) pick = p;
    }
    return pick;
}

static void judge_path(const struct clu_survey *s, const struct clu_path *p, struct clu_findings *f)
{
    const struct clu_facts_nic *to = nic_to(s, p), *via = clu_doctor_via(s, p);
    char a[128], b[128], where[260];
    clu_doctor_name(&s->hosts[p->from], a);
    clu_doctor_name(&s->hosts[p->to], b);
    snprintf(where, sizeof where, "%.60s -> %.60s", a, b);
    if (via && via->mtu > 0 && to->mtu > 0 && via->mtu != to->mtu && p->from < p->to) {
        struct clu_finding *x = clu_findings_add(f, SEV_WARN, "mtu", where);
        TEXT(x->what, "the two ends have different MTUs: large messages may get stuck");
        TEXT(x->seen, "%s %d, %s %d", via->name, (int)via->mtu, to->name, (int)to->mtu);
        TEXT(x->needed, "the same at both ends");
        TEXT(x->cure, "on %s: ip link set dev %s mtu %d", via->mtu > to->mtu ? a : b,
             via->mtu > to->mtu ? via->name : to->name, (int)MIN(via->mtu, to->mtu));
    }
    if (p->seen.latency_us > slow_latency_us || p->seen.bytes_s < slow_bytes_s) {
        struct clu_finding *x = clu_findings_add(f, SEV_WARN, "network", where);
        TEXT(x->what, "a slow link: tensor parallelism over it would wait most of its time");
        TEXT(x->seen, "%.0f us, %.0f Mbit/s over %s", p->seen.latency_us, p->seen.bytes_s * 8e-6,
             to->name);
        TEXT(x->needed, "less than %.0f us, more than 100 Mbit/s", slow_latency_us);
        TEXT(x->cure, "cable and switch (ethtool %s); or cut by layers there: --pp", to->name);
    }
    if (!is_private(to->address) && p->from < p->to) {
        struct clu_finding *x = clu_findings_add(f, SEV_WARN, "privacy", where);
        TEXT(x->what, "MPI traffic, which nothing encrypts, would cross a public network");
        TEXT(x->seen, "%s (%s)", to->address, to->name);
        TEXT(x->needed, "an address of a private network");
        TEXT(x->cure, "--mpirun-args \"--mca btl_tcp_if_include NETWORK/BITS\", or a VPN");
    }
}

/* An address that MPI would try although it does not lead there. */
static void judge_spare(const struct clu_survey *s, int32_t to, int32_t nic, struct clu_findings *f)
{
    const struct clu_facts_nic *n = &s->hosts[to].facts.nics[nic];
    const struct clu_path *bad = NULL, *good = NULL;
    char from[128], where[128], net[64];
    if (strchr(n->address, ':') || !clu_doctor_uses(s->include, n)) return;
    for (int32_t i = 0; i < s->n_paths; i++) {
        const struct clu_path *p = &s->paths[i];
        if (p->to != to || p->nic != nic || p->seen.reach == REACH_OK || bad) continue;
        if (p->seen.reach == REACH_UNKNOWN) continue;
        good = clu_doctor_path(s, p->from, to, NULL);
        if (good) bad = p; /* else it is a failure already */
    }
    if (!bad) return;
    clu_doctor_name(&s->hosts[to], where);
    clu_doctor_name(&s->hosts[bad->from], from);
    network_of(nic_to(s, good), net);
    struct clu_finding *x = clu_findings_add(f, SEV_WARN, "network", where);
    TEXT(x->what, "an interface that other hosts cannot reach, but MPI may choose");
    TEXT(x->seen, "%s %s: %s from %.100s", n->name, n->address, clu_reach_name(bad->seen.reach),
         from);
    TEXT(x->needed, "%s (%s), which works", net, nic_to(s, good)->name);
    TEXT(x->cure, "--mpirun-args \"--mca btl_tcp_if_include %s --mca oob_tcp_if_include %s\"", net,
         net);
}

static void judge_reach(const struct clu_survey *s, struct clu_findings *f)
{
    int32_t before = f->n, pairs = 0;
    for (int32_t a = 0; a < s->n; a++)
        for (int32_t b = 0; b < s->n; b++) {
            if (a == b || !asked(s, a) || !asked(s, b)) continue;
            if (!s->hosts[a].ranks || !s->hosts[b].ranks) continue;
            const struct clu_path *p = clu_doctor_path(s, a, b, NULL);
            pairs++;
            if (p) judge_path(s, p, f);
            else unreachable(s, a, b, tried(s, a, b), f);
        }
    for (int32_t b = 0; b < s->n; b++)
        for (int32_t i = 0; i < s->hosts[b].facts.n_nics; i++) judge_spare(s, b, i, f);
    if (pairs)
        clu_findings_well(f, before, "network", "every host reaches every other, both ways");
}

/* The coordinator's address, which each rank dials. */
static void judge_listen(const struct clu_survey *s, struct clu_findings *f)
{
    int32_t before = f->n;
    if (s->listen_why[0]) {
        struct clu_finding *x = clu_findings_add(f, SEV_FAIL, "worker plane", s->hosts[0].facts.host);
        TEXT(x->what, "serve would not know at which address the ranks can reach it");
        TEXT(x->seen, "%s", s->listen_why);
        TEXT(x->needed, "one address that every host reaches");
        TEXT(x->cure, "--listen ADDRESS:0, here and for serve");
    }
    if (!s->listen[0]) return;
    for (int32_t i = 0; i < s->n_paths; i++) {
        const struct clu_path *p = &s->paths[i], *good = NULL;
        if (p->to || p->seen.reach == REACH_OK || strcmp(nic_to(s, p)->address, s->listen))
            continue;
        char where[128];
        clu_doctor_name(&s->hosts[p->from], where);
        for (int32_t j = 0; j < s->n_paths && !good; j++) {
            const struct clu_path *q = &s->paths[j];
            if (q->from == p->from && !q->to && q->seen.reach == REACH_OK) good = q;
        }
        struct clu_finding *x = clu_findings_add(f, SEV_FAIL, "worker plane", where);
        TEXT(x->what, "the coordinator's address cannot be reached: its ranks could not join");
        TEXT(x->seen, "%s at %s", clu_reach_name(p->seen.reach), s->listen);
        TEXT(x->needed, "a TCP connection to it");
        if (good) TEXT(x->cure, "--listen %s:0", nic_to(s, good)->address);
        else TEXT(x->cure, "open the firewall of %s for %s", s->hosts[0].facts.host, where);
    }
    if (s->n_paths) clu_findings_well(f, before, "worker plane", "every host reaches the coordinator at %s",
                      s->listen);
}

static void stages(const struct clu_collective *c, char out[256])
{
    size_t n = 0;
    out[0] = 0;
    for (int32_t r = 0; r < c->n_ranks && n < 200; r++) {
        if (!strcmp(c->stage[r], "done")) continue;
        n += (size_t)snprintf(out + n, 256 - n, "%srank %d%s%.40s %s", n ? ", " : "", r,
                              c->where[r][0] ? " on " : "", c->where[r],
                              c->stage[r][0] ? c->stage[r] : "never started");
    }
}

static void judge_collective(const struct clu_survey *s, struct clu_findings *f)
{
    const struct clu_collective *c = &s->collective;
    char who[256];
    if (c->state == COLL_NOT_RUN) return;
    if (c->state == COLL_OK) {
        clu_findings_well(f, f->n, "all-reduce", "%d ranks: %.0f us small, %.0f us for 64 KiB",
                          c->n_ranks, c->small_us, c->large_us);
        return;
    }
    stages(c, who);
    struct clu_finding *x = clu_findings_add(f, SEV_FAIL, "all-reduce", s->n > 1 ? "all hosts"
                                                                                 : "this host");
    TEXT(x->what, "%s", c->state == COLL_HANGS   ? "a small all-reduce over MPI hangs"
                        : c->state == COLL_WRONG ? "an all-reduce over MPI gives a wrong sum"
                                                 : "a small all-reduce over MPI fails");
    TEXT(x->seen, "after %.0f s: %s%s%.120s", c->seconds, who, who[0] && c->why[0] ? "; " : "",
         c->why);
    TEXT(x->needed, "a sum within the deadline");
    TEXT(x->cure, "%s", s->n > 1 ? "cure what is said of names and network first; then name "
                                   "it: --mpirun-args \"--mca btl_tcp_if_include NETWORK/BITS\""
                                 : "does mpirun work by itself? try: mpirun -n 2 hostname");
}

void clu_doctor_pairs(const struct clu_survey *s, struct clu_findings *out)
{
    judge_reach(s, out);
    judge_listen(s, out);
    judge_collective(s, out);
}
