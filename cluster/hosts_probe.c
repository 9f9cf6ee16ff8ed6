/* hosts_probe.c: see hosts_probe.h. */
#include "cluster/hosts_probe.h"

#include "base/clock.h"
#include "cluster/child.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLICE_US = 100000 };

static bool start(struct clu_child *c, struct clu_probed *h, const struct clu_launch_conf *conf)
{
    static const char *const command[] = {"version", NULL};
    const char *argv[CLU_LAUNCH_ARGS];
    char *room = NULL;
    struct clu_launch_conf lc = {.program = conf->program, .n_ranks = 1, .extra = conf->extra};
    clu_launch_argv(argv, &room, &lc, h->host, command);
    enum err e = clu_child_start(c, argv);
    free(room);
    if (e) snprintf(h->why, sizeof h->why, "%s", err_text());
    return !e;
}

static void look(struct clu_child *c, struct clu_probed *h, int64_t timeout_us, int64_t until, bool (*stop)(void *user), void *user)
{
    const char *line = NULL;
    while (!h->good && c->out >= 0 && clock_us() < until && !(stop && stop(user))) {
        line = clu_child_line(c, MIN(until, clock_us() + SLICE_US));
        h->good = line && !strncmp(line, "tessera ", 8);
    }
    if (h->good) return;
    const char *said = clu_child_complaint(c);
    if (said[0]) snprintf(h->why, sizeof h->why, "%s", said);
    else if (clock_us() >= until) snprintf(h->why, sizeof h->why, "no process could be started there within %.0f s", (double)timeout_us / 1e6);
    else snprintf(h->why, sizeof h->why, "mpirun ended without a word");
}

void clu_hosts_probe(struct clu_probed hosts[], int32_t n, const struct clu_launch_conf *conf, int64_t timeout_us, bool (*stop)(void *user), void *user)
{
    struct clu_child *c = xcalloc((size_t)MAX(n, 1), sizeof *c);
    int64_t until = clock_us() + timeout_us;
    for (int32_t i = 0; i < n; i++) {
        c[i] = clu_child_none;
        hosts[i].good = false;
        hosts[i].why[0] = 0;
        if (!start(&c[i], &hosts[i], conf)) c[i] = clu_child_none;
    }
    for (int32_t i = 0; i < n; i++)
        if (c[i].pid > 0) look(&c[i], &hosts[i], timeout_us, until, stop, user);
    for (int32_t i = 0; i < n; i++) clu_child_free(&c[i]);
    free(c);
}
