/* topo_text.c: a topology from text. One line per thing: a word, a name where it has one,
 * then key=value with units; a line without a name belongs to the host above it.
 *
 *   tessera topology 1
 *   host node0 packages=2 cores=32 threads=64 numa=2 cache=64MiB disk=2GB/s
 *   cpu package0 cores=16 memory=120GiB read=95GB/s ops=9T
 *   gpu rtx3090 memory=23.5GiB read=840GB/s ops=284T
 *   nic eth0 rate=10Gbit/s
 *   local latency=2us rate=12GB/s                between ranks of the host above
 *   wire latency=40us rate=10Gbit/s              between hosts, where no link says otherwise
 *   link node0 node1 latency=20us rate=25Gbit/s
 *
 * Several recordings in one file are one cluster (`cat a.topo b.topo`): every host once, and the last `wire` line stands.
 *
 * A parser of outside bytes: every number, count and name is checked, and the refusal names the
 * line. */
#include "cluster/topo.h"

#include "cluster/topo_units.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINE = 512, MAX_WORDS = 16 };

struct line {
    int32_t number;
    char text[MAX_LINE];
    char *words[MAX_WORDS];
    int32_t n;
    uint32_t used; /* bit i: word i was read */
};

/* ---- numbers with units ---- */

static const char *const needs[] = {"a whole number", "bytes such as 24GiB",
                                    "a rate such as 10Gbit/s or 40GB/s",
                                    "operations per second such as 1.5T", "a time such as 50us"};

static bool number(const char *s, enum unit u, double *out)
{
    char *end;
    if (*s < '0' || *s > '9') return false; /* no sign, no space, no "inf" */
    if (s[0] == '0' && (s[1] == 'x' || s[1] == 'X')) return false;
    double v = strtod(s, &end);
    for (size_t i = 0; i < COUNT_OF(suffixes[u]) && suffixes[u][i].text; i++)
        if (!strcmp(end, suffixes[u][i].text)) {
            *out = v * suffixes[u][i].factor;
            return isfinite(*out) && (u != COUNT || *out == floor(*out));
        }
    return false;
}

/* ---- lines ---- */

static enum err refuse(const struct line *l, const char *what)
{
    return err_raise(ERR_BAD_FILE, "line %d: %s", l->number, what);
}

/* key=value of the line, in [lo,hi]; `def` when absent and def >= 0. */
static enum err value(struct line *l, const char *key, enum unit u, double lo, double hi,
                      double def, double *out)
{
    size_t n = strlen(key);
    for (int32_t i = 1; i < l->n; i++) {
        if (strncmp(l->words[i], key, n) || l->words[i][n] != '=') continue;
        double v;
        l->used |= 1u << i;
        if (!number(l->words[i] + n + 1, u, &v))
            return err_raise(ERR_BAD_FILE, "line %d: '%.40s' is not %s", l->number, l->words[i],
                             needs[u]);
        if (v < lo || v > hi)
            return err_raise(ERR_BAD_FILE, "line %d: '%.40s' is outside %g to %g", l->number,
                             l->words[i], lo, hi);
        *out = v;
        return OK;
    }
    if (def < 0)
        return err_raise(ERR_BAD_FILE, "line %d: '%s' needs %s=, %s", l->number, l->words[0], key,
                         needs[u]);
    *out = def;
    return OK;
}

static enum err count(struct line *l, const char *key, int32_t lo, int32_t hi, int32_t def,
                      int32_t *out)
{
    double v = 0;
    enum err e = value(l, key, COUNT, lo, hi, def, &v);
    if (!e) *out = (int32_t)v;
    return e;
}

static enum err bytes(struct line *l, const char *key, double def, int64_t *out)
{
    double v = 0;
    enum err e = value(l, key, BYTES, 0, 0x1p53, def, &v);
    if (!e) *out = (int64_t)v;
    return e;
}

static enum err wire(struct line *l, struct clu_wire *out)
{
    struct clu_wire w;
    enum err rc;
    TRY(value(l, "latency", SECONDS, 1e-9, 10, -1, &w.latency_s));
    TRY(value(l, "rate", BYTES_S, 1, 1e15, -1, &w.bytes_s));
    *out = w;
out:
    return rc;
}

static enum err name(struct line *l, int32_t i, char *out, size_t size)
{
    if (i >= l->n || strchr(l->words[i], '='))
        return err_raise(ERR_BAD_FILE, "line %d: '%s' needs a name", l->number, l->words[0]);
    if (strlen(l->words[i]) >= size)
        return err_raise(ERR_BAD_FILE, "line %d: the name '%.40s...' is longer than %zu characters",
                         l->number, l->words[i], size - 1);
    l->used |= 1u << i;
    snprintf(out, size, "%s", l->words[i]);
    return OK;
}

/* ---- the words ---- */

static enum err read_host(struct clu_topo *t, struct line *l)
{
    enum err rc;
    struct clu_host h = {.n_nics = 0};
    TRY(name(l, 1, h.name, sizeof h.name));
    for (int32_t i = 0; i < t->n_hosts; i++)
        if (!strcmp(t->hosts[i].name, h.name))
            return err_raise(ERR_BAD_FILE, "line %d: host %s is already there", l->number, h.name);
    if (t->n_hosts == CLU_MAX_HOSTS) return refuse(l, "more than 64 hosts");
    TRY(count(l, "cores", 1, 1 << 20, 1, &h.cores));
    TRY(count(l, "packages", 1, 1024, 1, &h.packages));
    TRY(count(l, "threads", 1, 1 << 20, h.cores, &h.threads));
    TRY(count(l, "numa", 1, 1024, 1, &h.numa));
    TRY(bytes(l, "cache", 0, &h.cache_bytes));
    TRY(value(l, "disk", BYTES_S, 1, 1e15, 1e9, &h.disk_bytes_s));
    h.local = (struct clu_wire){2e-6, 8e9};
    t->hosts[t->n_hosts++] = h;
out:
    return rc;
}

static enum err read_device(struct clu_topo *t, struct line *l)
{
    enum err rc;
    struct clu_device d = {.kind = !strcmp(l->words[0], "gpu") ? CLU_GPU : CLU_CPU,
                           .host = t->n_hosts - 1};
    if (!t->n_hosts) return refuse(l, "a device before the first host");
    if (t->n_devices == LIMIT_RANKS) return refuse(l, "more than 64 devices");
    TRY(name(l, 1, d.name, sizeof d.name));
    TRY(bytes(l, "memory", -1, &d.mem_bytes));
    TRY(value(l, "read", BYTES_S, 1e6, 1e15, -1, &d.read_bytes_s));
    TRY(value(l, "ops", OPS_S, 1e6, 1e18, -1, &d.ops_s));
    TRY(count(l, "cores", 0, 1 << 20, d.kind == CLU_CPU ? t->hosts[d.host].cores : 0, &d.cores));
    t->devices[t->n_devices++] = d;
out:
    return rc;
}

static enum err read_nic(struct clu_topo *t, struct line *l)
{
    enum err rc;
    struct clu_nic n;
    if (!t->n_hosts) return refuse(l, "a nic before the first host");
    struct clu_host *h = &t->hosts[t->n_hosts - 1];
    if (h->n_nics == CLU_MAX_NICS) return refuse(l, "more than 4 nics on a host");
    TRY(name(l, 1, n.name, sizeof n.name));
    TRY(value(l, "rate", BYTES_S, 1, 1e15, -1, &n.bytes_s));
    h->nics[h->n_nics++] = n;
out:
    return rc;
}

static enum err read_local(struct clu_topo *t, struct line *l)
{
    if (!t->n_hosts) return refuse(l, "'local' before the first host");
    return wire(l, &t->hosts[t->n_hosts - 1].local);
}

static enum err read_wire(struct clu_topo *t, struct line *l)
{
    t->wire_said = true;
    return wire(l, &t->wire);
}

static enum err read_link(struct clu_topo *t, struct line *l)
{
    enum err rc;
    struct clu_link k = {-1, -1, {0, 0}};
    char a[CLU_NAME], b[CLU_NAME];
    TRY(name(l, 1, a, sizeof a));
    TRY(name(l, 2, b, sizeof b));
    for (int32_t i = 0; i < t->n_hosts; i++) {
        if (!strcmp(t->hosts[i].name, a)) k.a = i;
        if (!strcmp(t->hosts[i].name, b)) k.b = i;
    }
    if (k.a < 0 || k.b < 0 || k.a == k.b)
        return err_raise(ERR_BAD_FILE,
                         "line %d: link %s %s does not name two hosts of the lines above",
                         l->number, a, b);
    if (t->n_links == CLU_MAX_LINKS) return refuse(l, "too many links");
    TRY(wire(l, &k.wire));
    t->links[t->n_links++] = k;
out:
    return rc;
}

static const struct word {
    const char *name;
    enum err (*read)(struct clu_topo *t, struct line *l);
} words[] = {{"host", read_host},   {"cpu", read_device}, {"gpu", read_device}, {"nic", read_nic},
             {"local", read_local}, {"wire", read_wire},  {"link", read_link}};

static enum err read_line(struct clu_topo *t, struct line *l)
{
    const struct word *w = NULL;
    l->n = 0;
    l->used = 1;
    for (char *save = NULL, *s = strtok_r(l->text, " \t\r", &save); s;
         s = strtok_r(NULL, " \t\r", &save)) {
        if (l->n == MAX_WORDS) return refuse(l, "more than 16 words");
        l->words[l->n++] = s;
    }
    if (!l->n) return OK;
    for (size_t i = 0; i < COUNT_OF(words); i++)
        if (!strcmp(words[i].name, l->words[0])) w = &words[i];
    if (!w)
        return err_raise(ERR_BAD_FILE,
                         "line %d: '%.40s' is none of host, cpu, gpu, nic, local, wire, link",
                         l->number, l->words[0]);
    enum err e = w->read(t, l);
    for (int32_t i = 0; i < l->n && !e; i++)
        if (!(l->used >> i & 1))
            e = err_raise(ERR_BAD_FILE, "line %d: '%.40s' means nothing to '%s'", l->number,
                          l->words[i], l->words[0]);
    return e;
}

/* Copy the line at *p into l, without its comment; *p moves past it. */
static enum err take_line(struct line *l, const char **p, const char *end)
{
    const char *nl = memchr(*p, '\n', (size_t)(end - *p)), *stop = nl ? nl : end,
               *hash = memchr(*p, '#', (size_t)(stop - *p));
    size_t n = (size_t)((hash ? hash : stop) - *p);
    l->number++;
    if (n >= MAX_LINE) return refuse(l, "longer than 511 characters");
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)(*p)[i] < ' ' && (*p)[i] != '\t' && (*p)[i] != '\r')
            return refuse(l, "a control character: this is no text");
    memcpy(l->text, *p, n);
    l->text[n] = 0;
    *p = nl ? nl + 1 : end;
    return OK;
}

static bool is_head(const char *text)
{
    return !strncmp(text, "tessera topology 1", 18) && !text[18 + strspn(text + 18, " \t\r")];
}

enum err clu_topo_parse(struct clu_topo *out, const char *text, size_t n)
{
    enum err rc = OK;
    struct line l = {.number = 0};
    struct clu_topo *t = xcalloc(1, sizeof *t);
    const char *p = text, *end = text + n;
    bool named = false;
    clu_topo_init(t);
    if (n > CLU_TOPO_BYTES)
        TRY(err_raise(ERR_BAD_FILE, "a topology of %zu bytes, at most %d are read", n,
                      CLU_TOPO_BYTES));
    while (p < end) {
        TRY(take_line(&l, &p, end));
        if (l.text[strspn(l.text, " \t\r")] == 0) continue;
        bool head = is_head(l.text); /* a later one begins another recording: files that were joined */
        if (named && !head) TRY(read_line(t, &l));
        if (!named && !head)
            TRY(err_raise(
                ERR_BAD_FILE,
                "line %d: '%.40s' is not the first line of a topology, 'tessera topology 1'",
                l.number, l.text));
        named = true;
    }
    if (!named || !t->n_devices)
        TRY(err_raise(ERR_BAD_FILE,
                      "the topology has no device to run on: add a host and a cpu or gpu line"));
    *out = *t;
out:
    free(t);
    return rc;
}

enum err clu_topo_read(struct clu_topo *out, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) return err_raise(ERR_IO, "cannot read the topology %s: %s", path, strerror(errno));
    char *text = xmalloc(CLU_TOPO_BYTES + 1);
    size_t n = fread(text, 1, CLU_TOPO_BYTES + 1, f);
    enum err e = ferror(f)
                     ? err_raise(ERR_IO, "cannot read the topology %s: %s", path, strerror(errno))
                     : clu_topo_parse(out, text, n);
    if (e == ERR_BAD_FILE) e = err_prefix(e, "%s", path);
    fclose(f);
    free(text);
    return e;
}
