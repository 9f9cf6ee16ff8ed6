/* doctor.c: see doctor.h. The list of findings, and the names of things. */
#include "cluster/doctor.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *clu_severity_name(enum clu_severity s)
{
    static const char *const names[] = {"ok", "note", "warn", "fail"};
    return names[s];
}

void clu_findings_free(struct clu_findings *f)
{
    if (!f) return;
    free(f->v);
    *f = (struct clu_findings){0};
}

struct clu_finding *clu_findings_add(struct clu_findings *f, enum clu_severity severity,
                                     const char *check, const char *where)
{
    if (f->n == f->cap) {
        f->cap = MAX(2 * f->cap, 16);
        f->v = xrealloc(f->v, (size_t)f->cap * sizeof f->v[0]);
    }
    struct clu_finding *x = &f->v[f->n++];
    *x = (struct clu_finding){.severity = severity, .check = check};
    snprintf(x->where, sizeof x->where, "%s", where);
    return x;
}

void clu_finding_text(char *field, size_t size, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(field, size, fmt, ap);
    va_end(ap);
}

void clu_finding_cure(struct clu_finding *x, const char *pattern, const char *host,
                      const char *from)
{
    size_t n = 0;
    for (const char *p = pattern; *p && n < sizeof x->cure - 1;) {
        const char *in = !strncmp(p, "{host}", 6) ? host : !strncmp(p, "{from}", 6) ? from : NULL;
        if (in) n += (size_t)snprintf(x->cure + n, sizeof x->cure - n, "%s", in);
        else x->cure[n++] = *p;
        p += in ? 6 : 1;
    }
    x->cure[MIN(n, sizeof x->cure - 1)] = 0;
}

void clu_findings_well(struct clu_findings *f, int32_t before, const char *check, const char *what,
                       ...)
{
    va_list ap;
    for (int32_t i = before; i < f->n; i++)
        if (!strcmp(f->v[i].check, check) && f->v[i].severity != SEV_NOTE) return;
    struct clu_finding *x = clu_findings_add(f, SEV_OK, check, "");
    va_start(ap, what);
    vsnprintf(x->what, sizeof x->what, what, ap);
    va_end(ap);
}

void clu_doctor_name(const struct clu_survey_host *h, char out[128])
{
    const char *own = h->facts.host;
    if (!h->listed[0] || !strcmp(h->listed, own)) snprintf(out, 128, "%.63s", own);
    else if (!own[0]) snprintf(out, 128, "%.127s", h->listed);
    else snprintf(out, 128, "%.60s (%.60s)", own, h->listed);
}

/* Worst first, within a severity in the order of the rules: a stable insertion, the list is short.
 */
static void sort(struct clu_findings *f)
{
    for (int32_t i = 1; i < f->n; i++) {
        struct clu_finding x = f->v[i];
        int32_t j = i;
        for (; j > 0 && f->v[j - 1].severity < x.severity; j--) f->v[j] = f->v[j - 1];
        f->v[j] = x;
    }
}

void clu_doctor_judge(const struct clu_survey *s, struct clu_findings *out)
{
    clu_doctor_hosts(s, out);
    clu_doctor_limits(s, out);
    clu_doctor_cards(s, out);
    clu_doctor_pairs(s, out);
    sort(out);
}

int clu_doctor_exit(const struct clu_findings *f)
{
    enum clu_severity worst = SEV_OK;
    for (int32_t i = 0; i < f->n; i++) worst = MAX(worst, f->v[i].severity);
    return worst == SEV_FAIL ? 2 : worst == SEV_WARN;
}
