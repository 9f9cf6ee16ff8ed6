/* cmd_status.c: `tessera status`: GET /v1/cluster of a running server, for people; /health where no key opens that. */
#include "cli/commands.h"

#include "base/clock.h"
#include "base/plain.h"
#include "cli/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLE_US = 1000000, STALL_S = 10 };

struct options {
    struct client_options server; /* first: the shared table's offsets */
    bool json;
};

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"json", CONF_FLAG, O(json), NULL, 0, 0, "on|off", "what the server says, as one JSON document, with tokens_per_second"},
    {0},
};
static const struct conf_opt *const groups[] = {client_option_table, table, NULL};
static const struct conf_table conf = {
    "status", "status [options]",
    "What a running server does: its model and ranks, requests, KV cache, and tokens per second (watched for a second where it works).\n"
    "A server that has API keys says its state alone to who brings none (--key-env).\n"
    "The exit code is 0 where it serves (/health is 200), and 1 where it loads, has lost its ranks, ends or does not answer.", groups, 0, 0};

/* ---- asking ---- */

struct server {
    struct client c;
    bool stranger; /* no key of ours opens more than /health */
};

/* Own: json_decref. */
static enum err ask(struct server *s, json_t **out)
{
    enum err rc;
    long status;
    TRY(client_get(&s->c, "/v1/cluster", out, &status));
    s->stranger = status == 401;
    if (s->stranger) {
        json_decref(*out);
        *out = NULL;
        TRY(client_get(&s->c, "/health", out, &status));
    }
    if (!json_is_string(json_object_get(*out, "status"))) {
        json_decref(*out);
        *out = NULL;
        rc = err_raise(ERR_UNAVAILABLE, "%s answers, but is no server of tessera's", s->c.url);
    }
out:
    return rc;
}

/* ---- what it says ---- */

static const json_t *at(const json_t *j, const char *group, const char *name) { return json_object_get(json_object_get(j, group), name); }
static double number(const json_t *j, const char *group, const char *name) { return json_number_value(at(j, group, name)); }
static int whole(const json_t *j, const char *name) { return (int)json_integer_value(json_object_get(j, name)); }
static const char *text(const json_t *j, const char *name)
{
    const char *s = json_string_value(json_object_get(j, name));
    return s ? s : "";
}

/* What a server says, as a terminal may have it: a host that lies at --url is a stranger. */
static void make_plain(json_t *j)
{
    const char *s = json_string_value(j), *key;
    char line[1024];
    json_t *v;
    size_t i;
    if (s && strcmp(s, plain(line, sizeof line, s, strlen(s)))) json_string_set(j, line);
    json_array_foreach(j, i, v) make_plain(v);
    json_object_foreach(j, key, v) make_plain(v);
}

/* Into `now`: tokens_per_second, between two answers. */
static void add_speed(const json_t *before, json_t *now, double seconds)
{
    static const char *const kinds[] = {"prompt", "generated"};
    json_t *o = json_object();
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        json_object_set_new(o, kinds[i], json_real((number(now, "tokens", kinds[i]) - number(before, "tokens", kinds[i])) / seconds));
    json_object_set_new(now, "tokens_per_second", o);
}

/* A second answer where there is something to watch. *j is replaced by it. */
static enum err watch(struct server *s, json_t **j)
{
    enum err rc = OK;
    json_t *before = *j, *now = NULL;
    int64_t begun = clock_us();
    bool works = number(before, "requests", "running") + number(before, "requests", "waiting") > 0;
    if (!works) {
        add_speed(before, before, 1);
        return OK;
    }
    clock_sleep_us(SAMPLE_US);
    TRY(ask(s, &now));
    add_speed(before, now, (double)(clock_us() - begun) / 1e6);
    json_decref(before);
    *j = now;
out:
    return rc;
}

static void print_duration(double seconds)
{
    long s = (long)seconds, m = s / 60, h = m / 60;
    if (h >= 48) printf("%ld days %ld h", h / 24, h % 24);
    else if (h) printf("%ld h %ld min", h, m % 60);
    else if (m) printf("%ld min %ld s", m, s % 60);
    else printf("%ld s", s);
}

static void print_rank(const json_t *r)
{
    const char *state = json_is_true(json_object_get(r, "ready")) ? "ready" : json_is_true(json_object_get(r, "joined")) ? "loading" : "missing";
    char resident[32] = "-"; /* said once it has loaded, then while it works */
    double rss = (double)json_integer_value(json_object_get(r, "rss_bytes"));
    if (rss > 0) snprintf(resident, sizeof resident, "%.3f", rss / 1e9);
    printf("  %4d  %-8s  %-20s  %-14s  %10.3f  %8.3f  %11s\n", whole(r, "rank"), state, text(r, "host"), text(r, "device"),
           (double)json_integer_value(json_object_get(r, "weight_bytes")) / 1e9, (double)json_integer_value(json_object_get(r, "kv_bytes")) / 1e9, resident);
}

static void print_replicas(const json_t *j)
{
    const json_t *replicas = at(j, "cluster", "replicas"), *r, *rank;
    size_t i, k;
    json_array_foreach(replicas, i, r)
    {
        const json_t *ranks = json_object_get(r, "ranks");
        const char *state = text(r, "state"), *why = text(r, "reason");
        printf("\nreplica %zu %s, %zu rank(s) in %d stage(s), %d open request(s), %d recoveries%s%s\n", i, state, json_array_size(ranks), whole(r, "stages"),
               whole(r, "open"), whole(r, "recoveries"), strcmp(why, state) ? ": " : "", strcmp(why, state) ? why : "");
        if (json_array_size(ranks))
            printf("  %4s  %-8s  %-20s  %-14s  %10s  %8s  %11s\n", "rank", "state", "host", "device", "weights GB", "KV GB", "resident GB");
        json_array_foreach(ranks, k, rank) print_rank(rank);
    }
}

static void print_aside(const json_t *j)
{
    const json_t *o;
    size_t i;
    json_array_foreach(at(j, "cluster", "hosts_aside"), i, o)
        printf("%s is set aside for %d s: %s\n", text(o, "host"), whole(o, "seconds"), text(o, "why"));
}

static void print_all(const struct server *s, const json_t *j)
{
    printf("server    %s: %s", s->c.url, text(j, "status"));
    if (*text(j, "reason") && strcmp(text(j, "status"), "ok")) printf(" (%s)", text(j, "reason"));
    if (s->stranger) {
        printf("\nIt has API keys: more is said to who holds one (--key-env VARIABLE).\n");
        return;
    }
    printf(", tessera %s, up ", text(j, "version"));
    print_duration(json_number_value(json_object_get(j, "uptime_seconds")));
    printf("\nmodel     %s", text(j, "model"));
    if (whole(j, "max_model_len")) printf(", sequences of up to %d tokens", whole(j, "max_model_len"));
    printf("\nrequests  %.0f running, %.0f waiting\n", number(j, "requests", "running"), number(j, "requests", "waiting"));
    double all = number(j, "kv_blocks", "all"), used = number(j, "kv_blocks", "used");
    if (all > 0) /* it is loaded */
        printf("KV cache  %.0f of %.0f blocks in use (%.0f %%), %.0f more kept for prefixes\n", used, all, 100 * used / all, number(j, "kv_blocks", "cached"));
    printf("speed     %.1f tokens/s generated, %.1f of prompts\n", number(j, "tokens_per_second", "generated"), number(j, "tokens_per_second", "prompt"));
    print_replicas(j);
    print_aside(j);
}

int cmd_status(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    struct server s = {0};
    json_t *j = NULL;
    int n_args;
    bool help, serves = false;
    TRY(conf_parse(&conf, argc, argv, &o, NULL, &n_args, &help));
    if (help) {
        conf_help(&conf);
        return 0;
    }
    TRY(client_open(&s.c, &o.server, STALL_S, NULL));
    TRY(ask(&s, &j));
    if (!s.stranger) TRY(watch(&s, &j));
    serves = !strcmp(text(j, "status"), "ok");
    if (o.json) {
        json_dumpf(j, stdout, JSON_PRESERVE_ORDER);
        putchar('\n');
    } else {
        make_plain(j);
        print_all(&s, j);
    }
out:
    json_decref(j);
    client_close(&s.c);
    return rc ? cmd_fail(rc) : !serves;
}
