/* doctor_text.c: see doctor.h. The findings for people and for programs. */
#include "cluster/doctor.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN_PAIRS = 28 }; /* of 8 hosts; all are in --json */

static void host_row(const struct clu_survey_host *h, struct buf *out)
{
    const struct clu_facts *f = &h->facts;
    char name[128];
    clu_doctor_name(h, name);
    buf_printf(out, "  %-22s ", name);
    if (h->asked) {
        buf_puts(out, "no answer\n");
        return;
    }
    buf_printf(out, "%5lld %7.1f GB   %-8s %-8s ", (long long)f->cores,
               (double)f->mem_available / 1e9, f->version, f->mpi[0] ? f->mpi : "none");
    if (f->n_nics) buf_printf(out, "%s %s", f->nics[0].name, f->nics[0].address);
    if (f->n_nics > 1) buf_printf(out, " and %lld more", (long long)f->n_nics - 1);
    buf_printf(out, "%s\n", h->ranks ? "" : " (coordinator only)");
}

static void pair_rows(const struct clu_survey *s, struct buf *out)
{
    int32_t shown = 0, more = 0;
    for (int32_t a = 0; a < s->n; a++)
        for (int32_t b = a + 1; b < s->n; b++) {
            char why[128];
            const struct clu_path *p = clu_doctor_path(s, a, b, why);
            if (!p) p = clu_doctor_path(s, b, a, why);
            if (!p) continue;
            if (shown == SHOWN_PAIRS) {
                more++;
                continue;
            }
            if (!shown++) buf_puts(out, "\n  pair                            latency   bandwidth"
                                        "  over\n");
            const struct clu_facts_nic *via = clu_doctor_via(s, p);
            const struct clu_facts_nic *to = &s->hosts[p->to].facts.nics[p->nic];
            char both[160];
            snprintf(both, sizeof both, "%s - %s", s->hosts[p->from].facts.host,
                     s->hosts[p->to].facts.host);
            buf_printf(out, "  %-28s %7.0f us %6.2f Gb/s  %s -> %s %s: %s\n", both,
                       p->seen.latency_us, p->seen.bytes_s * 8e-9, via ? via->name : "?", to->name,
                       to->address, why);
        }
    if (more) buf_printf(out, "  ... and %d more pairs (--json lists all)\n", more);
}

static void finding_rows(const struct clu_finding *x, struct buf *out)
{
    buf_printf(out, "  %-4s  %-12s ", clu_severity_name(x->severity), x->check);
    if (x->where[0]) buf_printf(out, "%s: ", x->where);
    buf_printf(out, "%s\n", x->what);
    if (x->severity == SEV_OK) return;
    buf_printf(out, "        seen    %s\n        needed  %s\n", x->seen, x->needed);
    if (x->cure[0]) buf_printf(out, "        cure    %s\n", x->cure);
}

static int32_t count(const struct clu_findings *f, enum clu_severity s)
{
    int32_t n = 0;
    for (int32_t i = 0; i < f->n; i++) n += f->v[i].severity == s;
    return n;
}

void clu_doctor_text(const struct clu_survey *s, const struct clu_findings *f, struct buf *out)
{
    buf_puts(out, "  host                   cores   memory free tessera  Open MPI network\n");
    for (int32_t i = 0; i < s->n; i++) host_row(&s->hosts[i], out);
    pair_rows(s, out);
    buf_putc(out, '\n');
    for (int32_t i = 0; i < f->n; i++) finding_rows(&f->v[i], out);
    int32_t bad = count(f, SEV_FAIL), warn = count(f, SEV_WARN);
    buf_printf(out, "\n%d host(s): %s (%d failure(s), %d warning(s), %d note(s))\n", s->n,
               bad ? "NOT HEALTHY" : warn ? "works, with warnings" : "healthy", bad, warn,
               count(f, SEV_NOTE));
}

/* ---- JSON ---- */

static json_t *text(const char *t)
{
    json_t *s = json_string(t);
    return s ? s : json_string("?"); /* no UTF-8 */
}

static json_t *host_json(const struct clu_survey_host *h)
{
    struct buf b = {0};
    json_t *o = json_object(), *facts;
    clu_facts_write(&h->facts, &b);
    facts = json_loads(buf_str(&b), 0, NULL);
    json_object_set_new(o, "listed", text(h->listed));
    json_object_set_new(o, "answered", json_boolean(!h->asked));
    json_object_set_new(o, "ranks", json_boolean(h->ranks));
    json_object_set_new(o, "clock_skew_us", json_integer(h->skew_us));
    json_object_set_new(o, "facts", h->asked || !facts ? json_null() : json_incref(facts));
    json_decref(facts);
    buf_free(&b);
    return o;
}

static json_t *path_json(const struct clu_survey *s, const struct clu_path *p)
{
    char from[128], to[128];
    const struct clu_facts_nic *nic = &s->hosts[p->to].facts.nics[p->nic],
                               *via = clu_doctor_via(s, p);
    json_t *o = json_object();
    clu_doctor_name(&s->hosts[p->from], from);
    clu_doctor_name(&s->hosts[p->to], to);
    json_object_set_new(o, "from", text(from));
    json_object_set_new(o, "to", text(to));
    json_object_set_new(o, "via", via ? text(via->name) : json_null());
    json_object_set_new(o, "nic", text(nic->name));
    json_object_set_new(o, "address", text(nic->address));
    json_object_set_new(o, "reach", json_string(clu_reach_name(p->seen.reach)));
    json_object_set_new(o, "latency_us", json_real(p->seen.latency_us));
    json_object_set_new(o, "bytes_s", json_real(p->seen.bytes_s));
    json_object_set_new(o, "chosen", json_boolean(clu_doctor_path(s, p->from, p->to, NULL) == p));
    return o;
}

static json_t *finding_json(const struct clu_finding *x)
{
    json_t *o = json_object();
    json_object_set_new(o, "severity", json_string(clu_severity_name(x->severity)));
    json_object_set_new(o, "check", json_string(x->check));
    json_object_set_new(o, "where", text(x->where));
    json_object_set_new(o, "what", text(x->what));
    json_object_set_new(o, "seen", text(x->seen));
    json_object_set_new(o, "needed", text(x->needed));
    json_object_set_new(o, "cure", text(x->cure));
    return o;
}

static json_t *collective_json(const struct clu_collective *c)
{
    static const char *const names[] = {"not run", "ok", "wrong", "hangs", "fails"};
    json_t *o = json_object();
    json_object_set_new(o, "state", json_string(names[c->state]));
    json_object_set_new(o, "ranks", json_integer(c->n_ranks));
    json_object_set_new(o, "small_us", json_real(c->small_us));
    json_object_set_new(o, "large_us", json_real(c->large_us));
    return o;
}

void clu_doctor_json(const struct clu_survey *s, const struct clu_findings *f, struct buf *out)
{
    json_t *o = json_object(), *hosts = json_array(), *paths = json_array(), *list = json_array();
    for (int32_t i = 0; i < s->n; i++) json_array_append_new(hosts, host_json(&s->hosts[i]));
    for (int32_t i = 0; i < s->n_paths; i++)
        json_array_append_new(paths, path_json(s, &s->paths[i]));
    for (int32_t i = 0; i < f->n; i++) json_array_append_new(list, finding_json(&f->v[i]));
    json_object_set_new(o, "healthy", json_boolean(!clu_doctor_exit(f)));
    json_object_set_new(o, "exit", json_integer(clu_doctor_exit(f)));
    json_object_set_new(o, "hosts", hosts);
    json_object_set_new(o, "paths", paths);
    json_object_set_new(o, "collective", collective_json(&s->collective));
    json_object_set_new(o, "findings", list);
    char *line = json_dumps(o, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    buf_puts(out, line ? line : "{}");
    buf_putc(out, '\n');
    free(line);
    json_decref(o);
}
