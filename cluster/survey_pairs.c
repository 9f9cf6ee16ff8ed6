/* survey_pairs.c: see survey.h. What hosts see of each other. */
#include "cluster/survey_impl.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum { PROBE_US = 2000000, PROBES_US = 60000000, ANSWER_US = 5000000, CLOCK_TRIES = 5 };

/* ---- clocks ---- */

static int64_t unix_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* The answer came from somewhere between asking and hearing: the quickest of some tries counts. */
static void compare_clock(struct survey *v, int32_t i)
{
    struct clu_survey_host *h = &v->out->hosts[i];
    h->skew_error_us = INT64_MAX;
    for (int t = 0; t < CLOCK_TRIES; t++) {
        int64_t asked = unix_us();
        if (!clu_child_say(&v->child[i], "clock")) break;
        json_t *o = clu_survey_answer(v, i, clock_us() + ANSWER_US, NULL, 0);
        int64_t half = (unix_us() - asked) / 2;
        if (o && half < h->skew_error_us) {
            h->skew_error_us = half;
            h->skew_us = json_integer_value(json_object_get(o, "unix_us")) - (asked + half);
        }
        json_decref(o);
    }
    if (h->skew_error_us == INT64_MAX) h->skew_us = h->skew_error_us = 0;
}

/* ---- pairs ---- */

static void listen_all(struct survey *v)
{
    char line[128];
    unsigned char raw[16];
    if (getrandom(raw, sizeof raw, 0) != sizeof raw) return; /* no token, no listener */
    for (int i = 0; i < 16; i++) snprintf(v->token + 2 * i, 3, "%02x", raw[i]);
    for (int32_t i = 0; i < v->out->n; i++) {
        snprintf(line, sizeof line, "listen %s host%d", v->token, i);
        if (!v->running[i] || !clu_child_say(&v->child[i], line)) continue;
        json_t *o = clu_survey_answer(v, i, clock_us() + ANSWER_US, NULL, 0);
        v->port[i] = (int32_t)json_integer_value(json_object_get(o, "port"));
        json_decref(o);
    }
}

static bool ask_probe(struct survey *v, struct clu_path *p)
{
    char line[256];
    const char *address = v->out->hosts[p->to].facts.nics[p->nic].address;
    snprintf(line, sizeof line, "probe %s %d %s host%d %d", address, v->port[p->to], v->token,
             p->to, PROBE_US);
    return v->port[p->to] && clu_child_say(&v->child[p->from], line);
}

static void take_probe(struct survey *v, struct clu_path *p)
{
    /* its connecting and each of its measurements may take a timeout */
    json_t *o = clu_survey_answer(v, p->from, clock_us() + 4LL * PROBE_US, NULL, 0);
    const char *reach = json_string_value(json_object_get(o, "reach"));
    const char *local = json_string_value(json_object_get(o, "local"));
    p->seen.reach = reach ? clu_reach_parse(reach) : REACH_UNKNOWN;
    p->seen.latency_us = json_number_value(json_object_get(o, "latency_us"));
    p->seen.bytes_s = json_number_value(json_object_get(o, "bytes_s"));
    snprintf(p->seen.local, sizeof p->seen.local, "%s", local ? local : "");
    if (!o) v->running[p->from] = false; /* out of step: not asked again */
    json_decref(o);
}

/* All paths between a and b that matter, both ways, appended. */
static void list_paths(struct survey *v, int32_t a, int32_t b)
{
    struct clu_survey *s = v->out;
    for (int way = 0; way < 2; way++) {
        int32_t from = way ? b : a, to = way ? a : b;
        bool ranks = s->hosts[a].ranks && s->hosts[b].ranks;
        for (int32_t i = 0; i < s->hosts[to].facts.n_nics; i++) {
            const struct clu_facts_nic *nic = &s->hosts[to].facts.nics[i];
            bool plane = to == 0; /* the coordinator's, whatever MPI uses */
            if (!plane && (!ranks || !clu_doctor_uses(s->include, nic))) continue;
            s->paths[s->n_paths++] = (struct clu_path){.from = from, .to = to, .nic = i};
        }
    }
}

/* A round of a tournament: pairs that share no host, each taking its paths in turn. */
static void probe_round(struct survey *v, const int32_t first[], int32_t n_pairs)
{
    struct clu_survey *s = v->out;
    bool more = true;
    for (int32_t k = 0; more && !clu_survey_stopped(v); k++) {
        bool asked[CLU_SURVEY_HOSTS] = {false};
        more = false;
        for (int32_t i = 0; i < n_pairs; i++)
            if (first[i] + k < first[i + 1])
                more = true, asked[i] = ask_probe(v, &s->paths[first[i] + k]);
        for (int32_t i = 0; i < n_pairs; i++)
            if (asked[i]) take_probe(v, &s->paths[first[i] + k]);
    }
}

static void probe_all(struct survey *v)
{
    struct clu_survey *s = v->out;
    int32_t m = ROUND_UP(s->n, 2), first[CLU_SURVEY_HOSTS + 1];
    int64_t until = clock_us() + PROBES_US;
    size_t most = (size_t)s->n * (size_t)s->n * CLU_FACTS_NICS;
    s->paths = xcalloc(MAX(most, 1), sizeof s->paths[0]);
    for (int32_t round = 0; round < m - 1; round++) {
        int32_t n_pairs = 0;
        for (int32_t k = 0; k < m / 2; k++) { /* the circle method: seat m-1 stays */
            int32_t a = k ? (round + k) % (m - 1) : m - 1, b = (round + m - 1 - k) % (m - 1);
            if (a >= s->n || b >= s->n || s->hosts[a].asked || s->hosts[b].asked) continue;
            first[n_pairs++] = s->n_paths;
            list_paths(v, MIN(a, b), MAX(a, b));
        }
        first[n_pairs] = s->n_paths;
        clu_survey_tell(v, "probing the network, round %d of %d", round + 1, m - 1);
        if (clock_us() < until) probe_round(v, first, n_pairs);
    }
}

void clu_survey_pairs(struct survey *v)
{
    for (int32_t i = 1; i < v->out->n; i++)
        if (!v->out->hosts[i].asked) compare_clock(v, i);
    listen_all(v);
    probe_all(v);
}
