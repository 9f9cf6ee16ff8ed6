/* survey_why.c: see survey.h. Where on the way from here to a process on that host it breaks. */
#include "cluster/survey.h"

#include "base/clock.h"
#include "cluster/child.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_US = 5000000, SHELL_US = 8000000, MAX_WORDS = 16 };

enum ended { ENDED, HUNG, NOT_RUN };

/* Run to its end: exit code, and what it said on stderr, or on stdout if nothing there. */
static enum ended run(const char *const argv[], int64_t timeout_us, int *code, char *said, size_t n)
{
    struct clu_child c;
    const char *line, *complaint;
    int64_t until = clock_us() + timeout_us;
    said[0] = 0;
    *code = -1;
    if (clu_child_start(&c, argv)) {
        snprintf(said, n, "%s", err_text());
        return NOT_RUN;
    }
    while ((line = clu_child_line(&c, until)))
        if (!said[0]) snprintf(said, n, "%s", line);
    bool ended = clu_child_end(&c, MAX(until - clock_us(), 10000), code);
    complaint = clu_child_complaint(&c);
    if (complaint[0]) snprintf(said, n, "%s", complaint);
    clu_child_free(&c);
    return ended ? ENDED : HUNG;
}

/* The program that mpirun reaches hosts with: its option, its environment, else ssh. */
static int agent(const struct clu_survey_conf *conf, char room[256], const char *words[])
{
    const char *from = getenv("OMPI_MCA_plm_rsh_agent"), *arg;
    char *save = NULL;
    int n = 0;
    if (conf->mpirun_args && (arg = strstr(conf->mpirun_args, "plm_rsh_agent ")))
        from = arg + strlen("plm_rsh_agent ");
    snprintf(room, 256, "%s", from ? from : "ssh");
    room[strcspn(room, from && from != getenv("OMPI_MCA_plm_rsh_agent") ? " \t:" : ":")] = 0;
    for (char *w = strtok_r(room, " \t", &save); w && n < 6; w = strtok_r(NULL, " \t", &save))
        words[n++] = w;
    if (!n) words[n++] = "ssh";
    const char *base = strrchr(words[0], '/');
    if (!strcmp(base ? base + 1 : words[0], "ssh")) {
        words[n++] = "-o";
        words[n++] = "BatchMode=yes"; /* a question would wait for ever */
    }
    return n;
}

static enum ended shell(const struct clu_survey_host *h, const struct clu_survey_conf *conf,
                        const char *a, const char *b, int *code, char said[400])
{
    char room[256];
    const char *argv[MAX_WORDS];
    int n = agent(conf, room, argv);
    argv[n++] = h->listed;
    argv[n++] = a;
    if (b) argv[n++] = b;
    argv[n] = NULL;
    return run(argv, SHELL_US, code, said, 400);
}

/* The first address of a name by this host's resolver, which may hang: a process of its own. */
static bool resolve(const char *name, char out[46])
{
    const char *const argv[] = {"getent", "ahosts", name, NULL};
    char said[400];
    int code;
    enum ended e = run(argv, NAME_US, &code, said, sizeof said);
    out[0] = 0;
    if (e == ENDED && code == 0) sscanf(said, "%45[0-9a-fA-F.:]", out);
    return e == NOT_RUN || out[0];
}

static void verdict(struct clu_survey_host *h, enum clu_asked asked, const char *why)
{
    h->asked = asked;
    snprintf(h->why, sizeof h->why, "%s", why);
}

static bool is_here(const struct clu_survey_host *h) { return !strncmp(h->resolves, "127.", 4); }

void clu_survey_why(struct clu_survey_host *h, const struct clu_survey_conf *conf,
                    const char *complaint, bool hung)
{
    char said[400];
    int code;
    if (!resolve(h->listed, h->resolves))
        return verdict(h, ASKED_NO_NAME, "no address within 5 s");
    if (!is_here(h)) {
        enum ended e = shell(h, conf, "true", NULL, &code, said);
        if (e == HUNG) return verdict(h, ASKED_SSH_HANGS, said[0] ? said : "nothing within 8 s");
        if (e == NOT_RUN || code) return verdict(h, ASKED_SSH_FAILS, said[0] ? said : "it failed");
        e = shell(h, conf, conf->program, "version", &code, said);
        if (e != ENDED || code) {
            if (e == HUNG) snprintf(said, sizeof said, "'%.200s version' hangs", conf->program);
            return verdict(h, ASKED_NO_PROGRAM, said);
        }
        if (shell(h, conf, "command -v orted", NULL, &code, said) == ENDED && code &&
            strstr(complaint, "orted"))
            return verdict(h, ASKED_NO_MPI, complaint);
    }
    if (hung)
        return verdict(h, ASKED_MPI_HANGS, complaint[0] ? complaint : "nothing until the deadline");
    verdict(h, ASKED_MPI_FAILS, complaint[0] ? complaint : "mpirun ended without a word");
}
