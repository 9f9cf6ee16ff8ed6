/* survey_topo.c: see survey.h. What the planner wants to know of the hosts (topo.h), from the hosts themselves. */
#include "cluster/survey_impl.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

enum { MEASURE_US = 30000000 };

static void take(struct clu_survey_host *h, const char *text)
{
    struct clu_topo *t = xmalloc(sizeof *t);
    if (text && !clu_topo_parse(t, text, strlen(text))) h->topo = t;
    else free(t);
}

void clu_survey_machines(struct survey *v)
{
    struct clu_survey *s = v->out;
    bool told[CLU_SURVEY_HOSTS] = {false};
    clu_survey_tell(v, "measuring processors and memory");
    for (int32_t i = 0; i < s->n; i++) told[i] = v->running[i] && s->hosts[i].ranks && clu_child_say(&v->child[i], "machine");
    for (int32_t i = 0; i < s->n; i++) {
        if (!told[i]) continue;
        json_t *o = clu_survey_answer(v, i, clock_us() + MEASURE_US, NULL, 0);
        take(&s->hosts[i], json_string_value(json_object_get(o, "machine")));
        if (!o) v->running[i] = false; /* out of step: not asked again */
        json_decref(o);
    }
}

/* Between two hosts, by the path that traffic should take; false: they do not reach each other. */
static bool link_of(const struct clu_survey *s, int32_t a, int32_t b, struct clu_wire *out)
{
    const struct clu_path *there = clu_doctor_path(s, a, b, NULL), *back = clu_doctor_path(s, b, a, NULL);
    if (!there || !back) return false;
    *out = (struct clu_wire){MAX(there->seen.latency_us, back->seen.latency_us) * 1e-6, MIN(there->seen.bytes_s, back->seen.bytes_s)};
    return out->latency_s > 0 && out->bytes_s > 0;
}

enum err clu_survey_topo(const struct clu_survey *s, struct clu_topo *out, int32_t *n)
{
    enum err rc = OK;
    int32_t in[CLU_SURVEY_HOSTS];
    clu_topo_init(out);
    *n = 0;
    for (int32_t i = 0; i < s->n; i++) {
        const struct clu_survey_host *h = &s->hosts[i];
        in[i] = -1;
        if (!h->topo) continue;
        in[i] = out->n_hosts;
        TRY(clu_topo_add(out, h->topo, h->listed[0] ? h->listed : NULL));
        ++*n;
    }
    if (!*n) TRY(err_raise(ERR_BAD_CONFIG, "no host could be asked what it is"));
    for (int32_t a = 0; a < s->n; a++)
        for (int32_t b = a + 1; b < s->n; b++) {
            struct clu_wire w;
            if (in[a] >= 0 && in[b] >= 0 && link_of(s, a, b, &w)) out->links[out->n_links++] = (struct clu_link){in[a], in[b], w};
        }
out:
    return rc;
}
