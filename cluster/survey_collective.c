/* survey_collective.c: see survey.h. A job of `tessera doctor --collective`, one rank per host, or
 * two on a single host; how far each rank came is known from what it prints. */
#include "cluster/survey.h"

#include "base/clock.h"
#include "cluster/child.h"
#include "cluster/launch.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXTRA_US = 10000000, SLICE_US = 100000, LEAVE_US = 3000000, EXIT_WRONG = 3 };

static void note(struct clu_collective *c, const char *line)
{
    json_t *o = json_loads(line, 0, NULL);
    int rank = -1;
    const char *host = NULL, *stage = NULL;
    if (o && !json_unpack(o, "{s:i, s:s, s:s}", "rank", &rank, "host", &host, "stage", &stage) &&
        rank >= 0 && rank < c->n_ranks) {
        snprintf(c->where[rank], sizeof c->where[rank], "%s", host);
        snprintf(c->stage[rank], sizeof c->stage[rank], "%s", stage);
        json_t *small = json_object_get(o, "small_us"), *large = json_object_get(o, "large_us");
        if (small) c->small_us = json_number_value(small);
        if (large) c->large_us = json_number_value(large);
    }
    json_decref(o);
}

static char *host_list(const struct clu_survey *s, int32_t *n)
{
    struct buf b = {0};
    *n = 0;
    for (int32_t i = 0; i < s->n; i++) {
        if (s->hosts[i].asked || !s->hosts[i].ranks || !s->hosts[i].listed[0]) continue;
        buf_printf(&b, "%s%s", *n ? "," : "", s->hosts[i].listed);
        (*n)++;
    }
    return buf_take(&b);
}

static void follow(struct clu_collective *c, struct clu_child *job,
                   const struct clu_survey_conf *conf)
{
    int64_t start = clock_us(), until = start + conf->timeout_us + EXTRA_US;
    int code = -1;
    while (job->out >= 0 && clock_us() < until && !(conf->stop && conf->stop())) {
        const char *line = clu_child_line(job, MIN(until, clock_us() + SLICE_US));
        if (line) note(c, line);
    }
    bool ended = clu_child_end(job, job->out < 0 ? LEAVE_US : 0, &code);
    c->seconds = (double)(clock_us() - start) / 1e6;
    c->state = !ended ? COLL_HANGS : code == EXIT_WRONG ? COLL_WRONG : code ? COLL_FAILS : COLL_OK;
    snprintf(c->why, sizeof c->why, "%s", clu_child_complaint(job));
}

bool clu_survey_can_reduce(const struct clu_survey *s, const struct clu_survey_conf *conf)
{
    int32_t n = 2;
    if (conf->hostfile) free(host_list(s, &n));
    return n >= 2;
}

void clu_survey_collective(struct clu_survey *s, const struct clu_survey_conf *conf)
{
    static const char *const command[] = {"doctor", "--collective", NULL};
    struct clu_collective *c = &s->collective;
    struct clu_child job = clu_child_none;
    const char *argv[CLU_LAUNCH_ARGS];
    char *room, *hosts = conf->hostfile ? host_list(s, &c->n_ranks) : NULL;
    if (!conf->hostfile) c->n_ranks = 2;
    if (c->n_ranks < 2) goto out; /* one host of several is left: nothing to reduce with */
    struct clu_launch_conf lc = {.program = conf->program, .n_ranks = c->n_ranks,
                                 .extra = conf->mpirun_args,
                                 .yield = !hosts && s->hosts[0].facts.cores < 2};
    clu_launch_argv(argv, &room, &lc, hosts, command);
    if (clu_child_start(&job, argv)) {
        c->state = COLL_FAILS;
        snprintf(c->why, sizeof c->why, "%s", err_text());
    } else {
        follow(c, &job, conf);
    }
    free(room);
    clu_child_free(&job);
out:
    free(hosts);
}
