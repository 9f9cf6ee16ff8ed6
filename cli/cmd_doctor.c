/* cmd_doctor.c: `tessera doctor`: is this host, or this cluster, healthy, and if not,
 * what exactly? */
#include "cli/commands.h"
#include "cli/doctor_collective.h"
#include "cli/hosts_topo.h"
#include "cli/process.h"

#include "base/address.h"
#include "base/clock.h"
#include "base/plain.h"
#include "cluster/launch.h"
#include "cluster/helper.h"
#include "cluster/survey.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
    const char *hostfile, *mpirun_args, *listen, *program, *record;
    double timeout;
    bool json, facts, helper, collective, reduce;
};

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"hostfile", CONF_STR, O(hostfile), NULL, 0, 0, "FILE",
     "hosts to look at, in Open MPI's syntax; default: this one"},
    {"mpirun-args", CONF_STR, O(mpirun_args), NULL, 0, 0, "ARGS",
     "more arguments for mpirun, as serve will be given"},
    {"listen", CONF_STR, O(listen), NULL, 0, 0, "HOST:PORT",
     "the worker plane that serve will be given; default: as serve chooses"},
    {"program", CONF_STR, O(program), NULL, 0, 0, "PATH",
     "tessera on the hosts; default: the path of this one"},
    {"timeout", CONF_FLOAT, O(timeout), "20", 1, 600, "S",
     "seconds that mpirun may take to start a process on a host"},
    {"record", CONF_STR, O(record), NULL, 0, 0, "FILE",
     "every host measures itself too, and all of them and their links are written to FILE, for --topo of plan and serve"},
    {"json", CONF_FLAG, O(json), NULL, 0, 0, "on|off", "everything as JSON, for scripts"},
    {"reduce", CONF_FLAG, O(reduce), "on", 0, 0, "on|off", "run a real all-reduce through mpirun"},
    {"facts", CONF_FLAG, O(facts), NULL, 0, 0, "on|off",
     "only print what this host says of itself, one line of JSON"},
    {"helper", CONF_FLAG, O(helper), NULL, 0, 0, "on|off",
     "what doctor starts on each host: facts, then commands from stdin"},
    {"collective", CONF_FLAG, O(collective), NULL, 0, 0, "on|off",
     "what doctor starts with mpirun: a rank of the all-reduce"},
    {0},
};
static const struct conf_opt *const groups[] = {table, NULL};
static const struct conf_table conf = {
    "doctor", "doctor [MODEL] [options]",
    "Says whether this cluster can serve, before anything is loaded: names, ssh, versions, the\n"
    "model file, limits, clocks, the network between every two hosts, and a real all-reduce.\n"
    "Each finding: what, where, seen, needed, cure. Exit code: 0 healthy, 1 warnings, 2 failures.\n"
    "  tessera doctor model.gguf\n"
    "  tessera doctor model.gguf --hostfile hosts\n"
    "  tessera doctor --hostfile hosts --record rack.topo     and the machines, for the planner", groups, 0, 1};

static int print_facts(const char *model)
{
    struct clu_facts f;
    struct buf b = {0};
    clu_facts_gather(&f, model);
    clu_facts_write(&f, &b);
    puts(buf_str(&b));
    buf_free(&b);
    return 0;
}

static void show(void *user, const char *text)
{
    (void)user;
    bool terminal = isatty(2); /* there the line is overwritten, and cleared at the end */
    char line[512];
    plain(line, sizeof line, text, strlen(text));
    if (terminal) fprintf(stderr, "\r\033[K%s", line);
    else fprintf(stderr, "doctor: %s\n", line);
}

static enum err record(const struct clu_survey *s, const char *path)
{
    enum err rc;
    int32_t n, all = 0;
    struct clu_topo *t = xmalloc(sizeof *t);
    for (int32_t i = 0; i < s->n; i++) all += s->hosts[i].ranks;
    TRY(clu_survey_topo(s, t, &n));
    TRY(hosts_record(t, path));
    fprintf(stderr, "tessera: %s holds %d of %d host(s) and %d link(s)%s\n", path, n, all, t->n_links,
            n < all ? ": a host that could not be asked is missing" : "");
out:
    free(t);
    return rc;
}

static enum err examine(const struct options *o, const char *model, int *code)
{
    enum err rc;
    char program[4096], *path = NULL;
    struct address address;
    struct clu_survey s = {0};
    struct clu_findings f = {0};
    struct buf b = {0};
    TRY(clu_launch_check(o->mpirun_args));
    process_program(program);
    if (model && !(path = realpath(model, NULL))) path = xstrdup(model); /* a finding, later */
    if (o->listen) TRY(address_parse(&address, "--listen", o->listen));
    struct clu_survey_conf c = {.self = program, .program = o->program ? o->program : program,
                                .model = path, .hostfile = o->hostfile,
                                .mpirun_args = o->mpirun_args, .listen = o->listen ? address.host : NULL,
                                .timeout_us = (int64_t)(o->timeout * 1e6),
                                .collective = o->reduce, .machines = o->record != NULL, .stop = process_stop,
                                .progress = o->json && !isatty(2) ? NULL : show};
    process_catch_signals();
    rc = clu_survey_run(&s, &c);
    if (c.progress && isatty(2)) fprintf(stderr, "\r\033[K");
    TRY(rc);
    clu_doctor_judge(&s, &f);
    if (o->json) clu_doctor_json(&s, &f, &b);
    else clu_doctor_text(&s, &f, &b);
    if (o->json) fputs(buf_str(&b), stdout);
    else plain_write(stdout, buf_str(&b), b.len);
    *code = clu_doctor_exit(&f);
    if (o->record) TRY(record(&s, o->record));
out:
    clu_findings_free(&f);
    clu_survey_free(&s);
    buf_free(&b);
    free(path);
    return rc;
}

int cmd_doctor(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    const char *args[1] = {NULL};
    int n_args, code = 0;
    bool help;
    TRY(conf_parse(&conf, argc, argv, &o, args, &n_args, &help));
    if (help) {
        conf_help(&conf);
        return 0;
    }
    if (o.collective) return doctor_collective();
    if (n_args) TRY(cmd_model(&args[0]));
    const char *model = n_args ? args[0] : NULL;
    if (o.facts) return print_facts(model);
    if (o.helper) return clu_helper_run(model, hosts_this_machine_and_cards);
    TRY(examine(&o, model, &code));
    return code;
out:
    cmd_fail(rc);
    return rc == ERR_CANCELLED ? 130 : 2;
}
