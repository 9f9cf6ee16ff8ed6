/* bench_serve.c: `tessera bench serve`: a running server under load, tessera's or any that speaks OpenAI's API, so that two can be compared.
 *
 * Either a number of users who each send the next request when the last is answered (--users), or requests that arrive by chance at a rate,
 * whatever has become of those before (--rate). Prompts are words drawn from a seed, every one different, so no server can answer from what
 * it has kept; --shared-tokens of them begin alike where that is to be measured. How many words make a prompt of N tokens is asked of the
 * server first. One thread: requests go by hub/http_many.h. */
#include "cli/bench.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/sse.h"

#include "base/clock.h"
#include "base/rng.h"
#include "hub/http_many.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_LEVELS = 16, MAX_USERS = 4096, MAX_REQUESTS = 1 << 20, CONNECT_S = 10, LOOK_US = 200000, PROBE_WORDS = 256, REFUSAL_MOST = 65536 };

struct options {
    struct client_options server; /* first: the shared table's offsets */
    const char *model, *users;
    int64_t requests, prompt_tokens, shared_tokens, tokens, seed, stall;
    double rate;
    int32_t api; /* 0 completions, 1 chat */
    bool json;
};

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"model", CONF_STR, O(model), NULL, 0, 0, "NAME", "of those that the server lists at /v1/models; default: the first"},
    {"users", CONF_STR, O(users), "1,4,16", 0, 0, "N,...", "who each send the next request when the last is answered, one row for each number",
     "max-concurrency concurrency"},
    {"rate", CONF_FLOAT, O(rate), "0", 0, 1e6, "X",
     "instead of --users: requests a second, at random times (Poisson), however long answers take; 0: off", "request-rate"},
    {"requests", CONF_INT, O(requests), "0", 0, MAX_REQUESTS, "N", "of each row; 0: four times the users, at least 8; with --rate 64", "num-prompts"},
    {"prompt-tokens", CONF_INT, O(prompt_tokens), "128", 1, 1 << 20, "N", "of a prompt, about: the row says how many there were", "random-input-len input-len"},
    {"shared-tokens", CONF_INT, O(shared_tokens), "0", 0, 1 << 20, "N", "of them, at the beginning, the same in all prompts", "random-prefix-len"},
    {"tokens", CONF_INT, O(tokens), "64", 1, 1 << 20, "N", "of an answer: it does not end before (ignore_eos)", "random-output-len output-len max-tokens"},
    {"api", CONF_ENUM, O(api), "completions", 0, 0, "completions|chat", "which of OpenAI's endpoints"},
    {"seed", CONF_INT, O(seed), "-1", -1, 9.2e18, "N", "the same seed, the same prompts, which a server may have kept from the run before; -1: a new one"},
    {"stall", CONF_INT, O(stall), "300", 1, 86400, "SECONDS", "a request that has got nothing for so long has failed"},
    {"json", CONF_FLAG, O(json), NULL, 0, 0, "on|off", "one JSON document, times in seconds"},
    {0},
};
static const struct conf_opt *const groups[] = {client_option_table, table, NULL};
static const struct conf_table conf = {
    "bench serve", "bench serve [options]",
    "A running server under load: tokens per second, times to the first token and between tokens, as a user sees them.\n"
    "  tessera bench serve --users 1,8,32\n"
    "  tessera bench serve --url http://big:8000 --rate 2 --requests 200 --prompt-tokens 512 --tokens 128\n"
    "The exit code is 1 where requests failed.", groups, 0, 0};

static volatile sig_atomic_t interrupted;
static void on_sigint(int signal) { (void)signal, interrupted = 1; }
static bool stop(void) { return interrupted != 0; }

/* ---- figures ---- */

struct series { double *v; int32_t n, cap; };

static void add(struct series *s, double v)
{
    if (s->n == s->cap) s->v = xrealloc(s->v, (size_t)(s->cap = MAX(64, 2 * s->cap)) * sizeof *s->v);
    s->v[s->n++] = v;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Nearest rank; s is sorted. NaN of none. */
static double quantile(const struct series *s, double q)
{
    return s->n ? s->v[CLAMP((int32_t)ceil(q * s->n) - 1, 0, s->n - 1)] : NAN;
}

/* ---- a level: so many requests, of so many users or at a rate ---- */

struct level {
    const struct options *o;
    const struct client *c;
    struct hub_many *many;
    const char *model;
    double words_per_token;
    int32_t users, wanted, begun, open, done, failed;
    int64_t from_us, to_us, prompt_tokens, tokens;
    struct series first, gap, each, whole; /* seconds: to the first token, between pieces, per token after the first, to the last */
    char why[256];                         /* of the first that failed */
};

struct one {
    struct level *l;
    struct sse sse;
    int64_t begun, first, last;
    int64_t tokens, prompt_tokens, pieces;
    struct buf refusal; /* the body of an error */
};

/* ---- prompts ---- */

/* Words of a few syllables: common enough that no tokenizer takes a letter at a time, odd enough that no two prompts are alike. */
static void put_words(struct buf *b, uint64_t seed, uint64_t which, int32_t n)
{
    static const char *const syllables[] = {"an", "be", "cor", "den", "el", "far", "gan", "hol", "in", "ker", "lan", "mor", "ne", "or",
                                            "pel", "ro", "sen", "tar", "un", "ver"};
    for (int32_t i = 0; i < n; i++) {
        uint64_t bits = rng_at(seed, which, (uint64_t)i, 0);
        buf_putc(b, b->len ? ' ' : 'O');
        for (uint64_t k = 1 + bits % 3, r = bits >> 8; k > 0; k--, r /= COUNT_OF(syllables)) buf_puts(b, syllables[r % COUNT_OF(syllables)]);
    }
}

static int32_t words_of(const struct level *l, int64_t tokens) { return (int32_t)MAX(1, lround((double)tokens * l->words_per_token)); }

/* Own: free(). */
static char *body_of(const struct level *l, const char *prompt, int64_t tokens)
{
    json_t *b = json_pack("{s:s, s:I, s:b, s:b, s:{s:b}, s:f}", "model", l->model, "max_tokens", (json_int_t)tokens, "stream", 1, "ignore_eos", 1,
                          "stream_options", "include_usage", 1, "temperature", 0.7);
    if (l->o->api) json_object_set_new(b, "messages", json_pack("[{s:s, s:s}]", "role", "user", "content", prompt));
    else json_object_set_new(b, "prompt", json_string(prompt));
    char *text = json_dumps(b, JSON_COMPACT);
    json_decref(b);
    return text;
}

static char *next_body(const struct level *l)
{
    struct buf b = {0};
    uint64_t seed = (uint64_t)l->o->seed, which = 1 + (uint64_t)l->users * MAX_REQUESTS + (uint64_t)l->begun;
    if (l->o->shared_tokens) put_words(&b, seed, 0, words_of(l, l->o->shared_tokens));
    put_words(&b, seed, which, words_of(l, MAX(1, l->o->prompt_tokens - l->o->shared_tokens)));
    char *body = body_of(l, buf_str(&b), l->o->tokens);
    buf_free(&b);
    return body;
}

/* ---- one request ---- */

static bool has_text(const json_t *choice)
{
    static const char *const names[] = {"content", "reasoning_content", "reasoning"};
    const json_t *delta = json_object_get(choice, "delta");
    if (json_string_length(json_object_get(choice, "text"))) return true;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (json_string_length(json_object_get(delta, names[i]))) return true;
    return false;
}

static enum err on_event(void *user, const json_t *e)
{
    struct one *r = user;
    const json_t *usage = json_object_get(e, "usage"), *error = json_object_get(e, "error");
    int64_t now = clock_us();
    if (json_is_object(error)) {
        const char *text = json_string_value(json_object_get(error, "message"));
        return err_raise(ERR_BAD_REQUEST, "%s", text ? text : "an error without a sentence");
    }
    if (json_is_object(usage)) {
        r->tokens = json_integer_value(json_object_get(usage, "completion_tokens"));
        r->prompt_tokens = json_integer_value(json_object_get(usage, "prompt_tokens"));
    }
    if (!has_text(json_array_get(json_object_get(e, "choices"), 0))) return OK;
    if (!r->first) r->first = now;
    else add(&r->l->gap, (double)(now - r->last) / 1e6);
    r->last = now;
    r->pieces++;
    return OK;
}

static enum err on_bytes(void *user, long status, const void *data, size_t n)
{
    struct one *r = user;
    if (status == 200) return sse_feed(&r->sse, data, n, on_event, r);
    if (r->refusal.len + n <= REFUSAL_MOST) buf_put(&r->refusal, data, n);
    return OK;
}

/* why: NULL where the server said it itself. */
static void fail(struct one *r, long status, const char *why)
{
    struct level *l = r->l;
    char *sentence = why ? NULL : client_sentence(&r->refusal);
    l->failed++;
    if (!l->why[0]) snprintf(l->why, sizeof l->why, "%ld %.240s", status, why ? why : sentence);
    free(sentence);
}

static void count(struct one *r)
{
    struct level *l = r->l;
    int64_t tokens = r->tokens ? r->tokens : r->pieces; /* of a server that does not say */
    l->done++;
    l->tokens += tokens;
    l->prompt_tokens += r->prompt_tokens;
    add(&l->first, (double)(r->first - r->begun) / 1e6);
    add(&l->whole, (double)(r->last - r->begun) / 1e6);
    if (tokens > 1) add(&l->each, (double)(r->last - r->first) / 1e6 / (double)(tokens - 1));
}

static void on_done(void *user, long status, const char *why)
{
    struct one *r = user;
    struct level *l = r->l;
    l->open--;
    l->to_us = clock_us();
    if (why) fail(r, status, why);
    else if (status != 200) fail(r, status, NULL);
    else if (!r->sse.done) fail(r, status, "left in the middle of the answer");
    else if (!r->first) fail(r, status, "an answer without text");
    else count(r);
    sse_free(&r->sse);
    buf_free(&r->refusal);
    free(r);
}

static enum err begin(struct level *l)
{
    struct one *r = xcalloc(1, sizeof *r);
    struct hub_many_sink sink = {r, on_bytes, on_done};
    char *url = xasprintf("%s/v1/%s", l->c->url, l->o->api ? "chat/completions" : "completions"), *body = next_body(l);
    r->l = l;
    r->begun = clock_us();
    enum err rc = hub_many_post(l->many, url, body, &sink);
    if (rc) free(r);
    else l->begun++, l->open++;
    free(body);
    free(url);
    return rc;
}

/* ---- the load ---- */

static void progress(const struct level *l, int64_t now, int64_t *shown)
{
    if (!isatty(STDERR_FILENO) || now - *shown < LOOK_US) return;
    *shown = now;
    fprintf(stderr, "\r\033[K%d of %d answered, %d in work, %d failed, %.0f s", l->done, l->wanted, l->open, l->failed, (double)(now - l->from_us) / 1e6);
    fflush(stderr);
}

/* When request i arrives at a rate: sums of exponential gaps. */
static int64_t gap_us(const struct level *l)
{
    double u = rng_unit(rng_at((uint64_t)l->o->seed, 0, (uint64_t)l->begun, 1));
    return (int64_t)(-log(u) / l->o->rate * 1e6);
}

static enum err load(struct level *l)
{
    enum err rc = OK;
    int64_t shown = 0, next = l->from_us = clock_us();
    while (!interrupted && (l->begun < l->wanted || l->open)) {
        int64_t now = clock_us(), wait = LOOK_US;
        progress(l, now, &shown);
        if (l->users)
            while (l->begun < l->wanted && l->open < l->users) TRY(begin(l));
        else
            for (; l->begun < l->wanted && next <= now; next += gap_us(l)) TRY(begin(l));
        if (!l->users && l->begun < l->wanted) wait = MIN(wait, next - now);
        hub_many_wait(l->many, wait);
    }
out:
    if (isatty(STDERR_FILENO)) fputs("\r\033[K", stderr);
    return rc;
}

/* ---- rows ---- */

static const struct { const char *name; size_t at; } columns[] = {
    {"ttft", offsetof(struct level, first)}, {"itl", offsetof(struct level, gap)}, {"tpot", offsetof(struct level, each)},
    {"e2e", offsetof(struct level, whole)}};

static void head(const struct options *o)
{
    if (o->json) return;
    printf("%s  %9s  %6s  %9s  %9s  %9s   %21s   %19s   %19s\n", o->rate > 0 ? " rate" : "users", "answered", "failed", "prompt", "answers", "prompts",
           "first token, ms", "between pieces, ms", "whole answer, s");
    printf("%5s  %9s  %6s  %9s  %9s  %9s   %6s %6s %7s   %6s %5s %6s   %6s %5s %6s\n", "", "", "", "tokens", "tokens/s", "tokens/s", "p50",
           "p90", "p99", "p50", "p90", "p99",
           "p50", "p90", "p99");
}

static void print_quantiles(const struct series *s, double scale, int first, int middle, int last, int digits)
{
    printf("   %*.*f %*.*f %*.*f", first, digits, quantile(s, 0.5) * scale, middle, digits, quantile(s, 0.9) * scale, last, digits, quantile(s, 0.99) * scale);
}

static json_t *json_of(const struct level *l, double seconds)
{
    static const struct { const char *name; double q; } quantiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}};
    json_t *j = json_pack("{s:i, s:f, s:i, s:i, s:f, s:I, s:I, s:f}", "users", l->users, "rate", l->o->rate, "answered", l->done, "failed",
                          l->failed, "seconds", seconds,
                          "prompt_tokens", (json_int_t)l->prompt_tokens, "completion_tokens", (json_int_t)l->tokens, "tokens_per_second",
                          (double)l->tokens / seconds);
    for (size_t i = 0; i < COUNT_OF(columns); i++) {
        const struct series *s = (const void *)((const char *)l + columns[i].at);
        json_t *o = json_object();
        for (size_t k = 0; s->n && k < COUNT_OF(quantiles); k++) json_object_set_new(o, quantiles[k].name, json_real(quantile(s, quantiles[k].q)));
        json_object_set_new(j, columns[i].name, o);
    }
    if (l->why[0]) json_object_set_new(j, "first_failure", json_string(l->why));
    return j;
}

static void row(struct level *l, json_t *rows)
{
    double seconds = (double)MAX(1, l->to_us - l->from_us) / 1e6;
    for (size_t i = 0; i < COUNT_OF(columns); i++) {
        struct series *s = (void *)((char *)l + columns[i].at);
        if (s->n) qsort(s->v, (size_t)s->n, sizeof *s->v, by_value);
    }
    if (l->o->json) {
        json_array_append_new(rows, json_of(l, seconds));
        return;
    }
    if (l->users) printf("%5d", l->users);
    else printf("%5.4g", l->o->rate);
    printf("  %9d  %6d  %9.1f  %9.1f  %9.1f", l->done, l->failed, l->done ? (double)l->prompt_tokens / l->done : 0, (double)l->tokens / seconds,
           (double)l->prompt_tokens / seconds);
    if (l->done) {
        print_quantiles(&l->first, 1e3, 6, 6, 7, 0);
        print_quantiles(&l->gap, 1e3, 6, 5, 6, 1);
        print_quantiles(&l->whole, 1, 6, 5, 6, 2);
    }
    putchar('\n');
    if (l->why[0]) printf("       the first that failed: %s\n", l->why);
    fflush(stdout);
}

static void level_free(struct level *l)
{
    hub_many_close(l->many);
    for (size_t i = 0; i < COUNT_OF(columns); i++) free(((struct series *)(void *)((char *)l + columns[i].at))->v);
}

/* ---- begin ---- */

/* How many of our words make a token, by one request that brings a single token: it wakes the server, too. */
static enum err probe(struct level *l)
{
    enum err rc;
    json_t *answer = NULL;
    struct buf words = {0};
    char *body = NULL;
    put_words(&words, (uint64_t)l->o->seed, 0, PROBE_WORDS);
    json_t *b = json_pack("{s:s, s:i}", "model", l->model, "max_tokens", 1);
    if (l->o->api) json_object_set_new(b, "messages", json_pack("[{s:s, s:s}]", "role", "user", "content", buf_str(&words)));
    else json_object_set_new(b, "prompt", json_string(buf_str(&words)));
    body = json_dumps(b, JSON_COMPACT);
    json_decref(b);
    TRY(client_post(l->c, l->o->api ? "/v1/chat/completions" : "/v1/completions", body, &answer));
    int64_t tokens = json_integer_value(json_object_get(json_object_get(answer, "usage"), "prompt_tokens"));
    l->words_per_token = tokens > 0 ? (double)PROBE_WORDS / (double)tokens : 0.5; /* of a server that does not say: two tokens a word */
out:
    json_decref(answer);
    buf_free(&words);
    free(body);
    return rc;
}

static enum err run_level(const struct level *like, int32_t users, json_t *rows, bool *failed)
{
    enum err rc;
    const struct options *o = like->o;
    struct level l = *like;
    l.users = users;
    l.wanted = o->requests ? (int32_t)o->requests : users ? MAX(8, 4 * users) : 64;
    TRY(hub_many_open(&l.many, &(struct hub_http_conf){.token = getenv(o->server.key_env), .direct = true, .ca = o->server.ca,
                                                       .connect_s = CONNECT_S, .stall_s = o->stall}));
    TRY(load(&l));
    row(&l, rows);
    *failed |= l.failed > 0;
out:
    level_free(&l);
    return rc;
}

int bench_serve(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    struct client c = {0};
    char *model = NULL;
    int32_t users[MAX_LEVELS], n = 0;
    int n_args;
    bool help, failed = false;
    json_t *rows = json_array();
    TRY(conf_parse(&conf, argc, argv, &o, NULL, &n_args, &help));
    if (help) {
        conf_help(&conf);
        goto out;
    }
    TRY(bench_list("users", o.users, 1, MAX_USERS, users, MAX_LEVELS, &n));
    if (o.shared_tokens >= o.prompt_tokens)
        TRY(err_raise(ERR_BAD_CONFIG, "--shared-tokens %lld: fewer than --prompt-tokens %lld are needed", (long long)o.shared_tokens,
                      (long long)o.prompt_tokens));
    if (o.seed < 0) o.seed = clock_us() >> 1;
    sigaction(SIGINT, &(struct sigaction){.sa_handler = on_sigint}, NULL);
    TRY(client_open(&c, &o.server, o.stall, stop));
    TRY(client_model(&c, &o.server, o.model, &model));
    struct level like = {.o = &o, .c = &c, .model = model};
    TRY(probe(&like));
    if (!o.json) printf("%s at %s, prompts of about %lld tokens, answers of %lld\n", model, c.url, (long long)o.prompt_tokens, (long long)o.tokens);
    head(&o);
    if (o.rate > 0) TRY(run_level(&like, 0, rows, &failed));
    else
        for (int32_t i = 0; i < n && !interrupted; i++) TRY(run_level(&like, users[i], rows, &failed));
    if (o.json) {
        json_dumpf(rows, stdout, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
        putchar('\n');
    }
out:
    json_decref(rows);
    client_close(&c);
    free(model);
    return rc ? cmd_fail(rc) : interrupted ? 130 : failed;
}
