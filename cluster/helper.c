/* helper.c: see helper.h. */
#include "cluster/helper.h"

#include "cluster/facts.h"
#include "cluster/probe.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LIFE_S = 900 };

/* One write, so that a line is not torn. */
static void say(struct buf *line)
{
    buf_putc(line, '\n');
    fwrite(line->data, 1, line->len, stdout);
    fflush(stdout);
    buf_clear(line);
}

static void say_clock(struct buf *b)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    buf_printf(b, "{\"unix_us\":%lld}", (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
}

static void say_machine(struct buf *b, enum err (*measure)(struct clu_topo *out))
{
    struct clu_topo *t = xmalloc(sizeof *t);
    struct buf text = {0};
    if (!measure(t)) clu_topo_write(t, &text);
    json_t *o = json_pack("{s:s}", "machine", buf_str(&text));
    char *line = json_dumps(o, JSON_COMPACT);
    buf_puts(b, line ? line : "{}");
    free(line);
    json_decref(o);
    buf_free(&text);
    free(t);
}

static void obey(const char *line, enum err (*measure)(struct clu_topo *out), struct clu_probe_server **server, struct buf *b)
{
    char token[CLU_PROBE_TOKEN], id[CLU_PROBE_TOKEN], address[64];
    struct clu_probe_result r;
    long long timeout;
    int port = 0;
    if (!strncmp(line, "clock", 5)) {
        say_clock(b);
    } else if (!strncmp(line, "machine", 7)) {
        say_machine(b, measure);
    } else if (!*server && sscanf(line, "listen %63s %63s", token, id) == 2) {
        if (clu_probe_open(server, token, id, &port)) port = 0;
        buf_printf(b, "{\"port\":%d}", port);
    } else if (sscanf(line, "probe %63s %d %63s %63s %lld", address, &port, token, id, &timeout) ==
               5) {
        clu_probe_run(&r, address, port, token, id, CLAMP(timeout, 1000, 60000000));
        buf_printf(b, "{\"reach\":\"%s\",\"latency_us\":%.2f,\"bytes_s\":%.0f,\"local\":\"%s\"}",
                   clu_reach_name(r.reach), r.latency_us, r.bytes_s, r.local);
    } else {
        buf_puts(b, "{\"error\":\"no such command\"}");
    }
}

int clu_helper_run(const char *model, enum err (*measure)(struct clu_topo *out))
{
    struct clu_facts facts;
    struct clu_probe_server *server = NULL;
    struct buf b = {0};
    char line[512];
    alarm(LIFE_S);
    signal(SIGPIPE, SIG_IGN);
    clu_facts_gather(&facts, model);
    clu_facts_write(&facts, &b);
    say(&b);
    while (fgets(line, sizeof line, stdin)) {
        obey(line, measure, &server, &b);
        say(&b);
    }
    clu_probe_close(server);
    buf_free(&b);
    return 0;
}
