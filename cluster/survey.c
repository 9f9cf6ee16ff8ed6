/* survey.c: see survey.h. */
#include "cluster/survey.h"
#include "cluster/survey_impl.h"

#include "base/clock.h"
#include "cluster/facing.h"
#include "cluster/hostfile.h"
#include "cluster/launch.h"

#include <netdb.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SLICE_US = 100000, LEAVE_US = 2000000 };

void clu_survey_tell(struct survey *v, const char *fmt, ...)
{
    char text[128];
    va_list ap;
    if (!v->conf->progress) return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    v->conf->progress(v->conf->user, text);
}

bool clu_survey_stopped(const struct survey *v) { return v->conf->stop && v->conf->stop(); }

/* The next line of JSON of a helper; what MPI itself prints is passed over. */
json_t *clu_survey_answer(struct survey *v, int32_t i, int64_t until_us,
                          char *line_out, size_t n)
{
    while (v->running[i] && clock_us() < until_us && !clu_survey_stopped(v)) {
        const char *line = clu_child_line(&v->child[i], MIN(until_us, clock_us() + SLICE_US));
        if (!line && v->child[i].out < 0) break;
        if (!line || line[0] != '{') continue;
        if (line_out) snprintf(line_out, n, "%s", line);
        json_t *o = json_loads(line, 0, NULL);
        if (o) return o;
    }
    return NULL;
}

/* ---- helpers ---- */

static enum err start(struct survey *v, int32_t i)
{
    const struct clu_survey_conf *c = v->conf;
    const char *const own[] = {c->self, "doctor", "--helper", c->model, NULL};
    const char *const there[] = {"doctor", "--helper", c->model, NULL};
    const char *argv[CLU_LAUNCH_ARGS];
    char *room = NULL;
    struct clu_launch_conf lc = {.program = c->program, .n_ranks = 1, .extra = c->mpirun_args};
    if (i) clu_launch_argv(argv, &room, &lc, v->out->hosts[i].listed, there);
    enum err rc = clu_child_start(&v->child[i], i ? argv : own);
    v->running[i] = !rc;
    free(room);
    return rc;
}

static void take_facts(struct survey *v, int32_t i, int64_t until_us)
{
    char line[CLU_FACTS_LINE];
    struct clu_survey_host *h = &v->out->hosts[i];
    json_t *o = clu_survey_answer(v, i, until_us, line, sizeof line);
    h->asked = o && !clu_facts_parse(&h->facts, line) ? ASKED_OK : ASKED_NONSENSE;
    if (o && h->asked) snprintf(h->why, sizeof h->why, "%s", err_text());
    if (!o) h->asked = ASKED_MPI_FAILS; /* until survey_why knows better */
    json_decref(o);
}

struct closer { struct clu_survey_host *host; const struct clu_survey_conf *conf;
                char complaint[400]; bool hung; pthread_t thread; };

static void *look_closer(void *arg)
{
    struct closer *c = arg;
    clu_survey_why(c->host, c->conf, c->complaint, c->hung);
    return NULL;
}

static void look_at_the_silent(struct survey *v)
{
    struct closer *c = xcalloc((size_t)v->out->n, sizeof *c);
    for (int32_t i = 1; i < v->out->n; i++) {
        if (v->out->hosts[i].asked != ASKED_MPI_FAILS) continue;
        c[i] = (struct closer){.host = &v->out->hosts[i], .conf = v->conf};
        snprintf(c[i].complaint, sizeof c[i].complaint, "%s", c[i].host->why);
        if (v->running[i]) {
            c[i].hung = !clu_child_end(&v->child[i], 0, NULL);
            snprintf(c[i].complaint, sizeof c[i].complaint, "%s",
                     clu_child_complaint(&v->child[i]));
            v->running[i] = false;
        }
        clu_survey_tell(v, "looking closer at %.60s", c[i].host->listed);
        if (pthread_create(&c[i].thread, NULL, look_closer, &c[i])) c[i].host = NULL;
    }
    for (int32_t i = 1; i < v->out->n; i++)
        if (c[i].host) pthread_join(c[i].thread, NULL);
    free(c);
}

static bool is_loopback(const char *address)
{
    return !strncmp(address, "127.", 4) || !strcmp(address, "::1");
}

/* A line that leads here by loopback: is it a name of this host, or of one that it hides? */
static bool means_here(const struct clu_survey_host *h, const struct clu_facts *own)
{
    size_t n = strcspn(own->host, ".");
    bool own_name = n && !strncmp(h->listed, own->host, n) && strchr(".", h->listed[n]);
    return !is_loopback(h->resolves) || own_name || !strcmp(h->listed, "localhost") ||
           is_loopback(h->listed);
}

/* The hostfile's line for this very host is no second host. */
static void merge_own(struct survey *v)
{
    struct clu_survey *s = v->out;
    const struct clu_facts *own = &s->hosts[0].facts;
    for (int32_t i = 1; i < s->n; i++) {
        const struct clu_facts *f = &s->hosts[i].facts;
        if (s->hosts[i].asked || strcmp(f->host, own->host) || f->n_nics != own->n_nics) continue;
        if (own->n_nics && strcmp(f->nics[0].address, own->nics[0].address)) continue;
        if (!means_here(&s->hosts[i], own)) continue; /* another's name: a rule's business */
        if (s->hosts[0].ranks) continue; /* named twice: likewise */
        memcpy(s->hosts[0].listed, s->hosts[i].listed, sizeof s->hosts[0].listed);
        s->hosts[0].ranks = true;
        s->hosts[0].slots = s->hosts[i].slots;
        clu_child_end(&v->child[i], LEAVE_US, NULL);
        clu_child_free(&v->child[i]);
        s->n--;
        memmove(&s->hosts[i], &s->hosts[i + 1], (size_t)(s->n - i) * sizeof s->hosts[0]);
        memmove(&v->child[i], &v->child[i + 1], (size_t)(s->n - i) * sizeof v->child[0]);
        memmove(&v->running[i], &v->running[i + 1], (size_t)(s->n - i) * sizeof v->running[0]);
        v->child[s->n] = clu_child_none;
        v->running[s->n] = false;
        i--;
    }
}

static void resolve_here(struct clu_survey_host *h)
{
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    if (getaddrinfo(h->listed, NULL, &hint, &found)) return;
    getnameinfo(found->ai_addr, found->ai_addrlen, h->resolves, sizeof h->resolves, NULL, 0,
                NI_NUMERICHOST);
    freeaddrinfo(found);
}

static enum err ask_all(struct survey *v)
{
    enum err rc;
    struct clu_survey *s = v->out;
    int64_t until = clock_us() + v->conf->timeout_us;
    TRY(start(v, 0));
    for (int32_t i = 1; i < s->n; i++)
        if (start(v, i)) /* mpirun itself is missing: no host can be asked */
            snprintf(s->hosts[i].why, sizeof s->hosts[i].why, "%s", err_text());
    clu_survey_tell(v, "asking %d host(s)", MAX(s->n - 1, 1));
    for (int32_t i = 0; i < s->n; i++) take_facts(v, i, until);
    if (s->hosts[0].asked && !clu_survey_stopped(v))
        TRY(err_raise(ERR_SYSTEM, "the helper on this host says nothing: %s doctor --facts",
                      v->conf->self));
    look_at_the_silent(v);
    for (int32_t i = 1; i < s->n; i++)
        if (!s->hosts[i].asked) resolve_here(&s->hosts[i]);
    merge_own(v);
out:
    return rc;
}

/* ---- all of it ---- */

static void list_hosts(struct clu_survey *s, const struct clu_hostfile *hf)
{
    s->n = 1;
    s->hosts = xcalloc(CLU_SURVEY_HOSTS, sizeof s->hosts[0]);
    s->hosts[0].ranks = !hf;
    for (int32_t i = 0; hf && i < hf->n; i++) {
        struct clu_survey_host *h = &s->hosts[s->n++];
        snprintf(h->listed, sizeof h->listed, "%s", hf->hosts[i].name);
        h->slots = hf->hosts[i].slots;
        h->ranks = true;
    }
}

/* As serve chooses it, of the hosts that are left when this one is no second one. */
static void choose_listen(struct clu_survey *s, const struct clu_hostfile *hf)
{
    const struct clu_facts *own = &s->hosts[0].facts;
    enum err e = clu_facing(hf, s->listen);
    if (e == ERR_BAD_CONFIG) snprintf(s->listen_why, sizeof s->listen_why, "%s", err_text());
    else if (e && own->n_nics) snprintf(s->listen, sizeof s->listen, "%s", own->nics[0].address);
}

static void networks(struct clu_survey *s, const struct clu_survey_conf *conf, const struct clu_hostfile *hf)
{
    static const char key[] = "btl_tcp_if_include";
    const char *e = getenv("OMPI_MCA_btl_tcp_if_include");
    const char *a = conf->mpirun_args ? strstr(conf->mpirun_args, key) : NULL;
    if (a) sscanf(a + sizeof key - 1, "%255s", s->include);
    else if (e) snprintf(s->include, sizeof s->include, "%s", e);
    if (conf->listen) snprintf(s->listen, sizeof s->listen, "%s", conf->listen);
    else if (s->n > 1) choose_listen(s, hf);
}

enum err clu_survey_run(struct clu_survey *out, const struct clu_survey_conf *conf)
{
    enum err rc = OK;
    struct clu_hostfile *hf = conf->hostfile ? xcalloc(1, sizeof *hf) : NULL;
    struct survey *v = xcalloc(1, sizeof *v);
    for (int32_t i = 0; i < CLU_SURVEY_HOSTS; i++) v->child[i] = clu_child_none;
    *out = (struct clu_survey){0};
    v->conf = conf;
    v->out = out;
    if (hf) TRY(clu_hostfile_read(hf, conf->hostfile));
    if (hf) clu_hostfile_warn(hf);
    list_hosts(out, hf);
    TRY(ask_all(v));
    networks(out, conf, hf);
    if (out->n > 1 && !clu_survey_stopped(v)) clu_survey_pairs(v);
    if (conf->machines && !clu_survey_stopped(v)) clu_survey_machines(v);
    if (conf->collective && !clu_survey_stopped(v)) {
        if (clu_survey_can_reduce(out, conf)) clu_survey_tell(v, "a small all-reduce through mpirun");
        clu_survey_collective(out, conf);
    }
    if (clu_survey_stopped(v)) rc = err_raise(ERR_CANCELLED, "stopped by a signal");
out:
    for (int32_t i = 0; i < CLU_SURVEY_HOSTS; i++) /* all are told to leave, then each is awaited */
        clu_child_dismiss(&v->child[i]);
    for (int32_t i = 0; i < CLU_SURVEY_HOSTS; i++) {
        if (v->child[i].pid > 0) clu_child_end(&v->child[i], LEAVE_US, NULL);
        clu_child_free(&v->child[i]);
    }
    if (rc) clu_survey_free(out);
    free(v);
    free(hf);
    return rc;
}

void clu_survey_free(struct clu_survey *s)
{
    if (!s) return;
    for (int32_t i = 0; s->hosts && i < CLU_SURVEY_HOSTS; i++) free(s->hosts[i].topo);
    free(s->hosts);
    free(s->paths);
    *s = (struct clu_survey){0};
}
