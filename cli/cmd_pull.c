/* cmd_pull.c: `tessera pull ORG/NAME[:QUANT]`: a model from the Hugging Face hub, or a mirror of it, into this machine's folder of models; and what other
 * commands make of such a name. */
#include "cli/commands.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/conf.h"
#include "base/plain.h"
#include "hub/pull.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BAR = 24, LONGEST_TOKEN = 4096 };

struct options {
    const char *endpoint, *token_file, *revision;
    int64_t connect_s, stall_s, tries, pause_ms;
    bool check;
};

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"endpoint", CONF_STR, O(endpoint), NULL, 0, 0, "URL", "the hub, or a mirror (HF_ENDPOINT; default https://huggingface.co)"},
    {"revision", CONF_STR, O(revision), "main", 0, 0, "NAME", "branch, tag or commit"},
    {"token-file", CONF_STR, O(token_file), NULL, 0, 0, "FILE",
     "an access token (else HF_TOKEN, else the file that HF_TOKEN_PATH names, else ~/.cache/huggingface/token)"},
    {"check", CONF_FLAG, O(check), NULL, 0, 0, "on|off", "read every file that is here and sum it again, not only those that changed since they came"},
    {"connect-timeout", CONF_INT, O(connect_s), "15", 1, 3600, "S", "give a connection up after so long"},
    {"stall-timeout", CONF_INT, O(stall_s), "30", 1, 3600, "S", "and a download that brings nothing for so long"},
    {"tries", CONF_INT, O(tries), "6", 1, 1000, "N", "that bring nothing, in a row, before it is given up"},
    {"pause-ms", CONF_INT, O(pause_ms), "1000", 1, 60000, "MS", "before the second of them; doubled with each"},
    {0},
};
static const struct conf_opt *const groups[] = {table, NULL};
static const struct conf_table conf = {
    "pull", "pull ORG/NAME[:QUANT] [options]",
    "Fetch a model: of a GGUF repository the quantisation that is named (Q4_K_M unless it is), of a checkpoint its config, tokenizer and "
    "safetensors. What broke off\n"
    "goes on where it stood; sums are checked; what the hub has changed since is fetched anew. Files lie in $TESSERA_MODELS, else "
    "~/.cache/tessera/models, and `tessera serve ORG/NAME[:QUANT]` finds them there.\n"
    "Prints the path.", groups, 1, 1};

/* ---- what a person sees ---- */

struct shown {
    int64_t begun_us, last_us;
    int32_t tries;
    bool terminal, drawn, sums;
};

static void draw(void *user, const struct hub_progress *p)
{
    struct shown *s = user;
    int64_t now = clock_us();
    bool end = p->done == p->total;
    if (!s->begun_us || s->sums != p->sums) s->begun_us = now;
    s->sums = p->sums;
    if (now - s->last_us < (s->terminal ? 100000 : 5000000) && !end) return;
    s->last_us = now;
    char bar[BAR + 1], left[64] = "";
    double part = p->total ? (double)p->done / (double)p->total : 1, seconds = (double)(now - s->begun_us) / 1e6;
    part = CLAMP(part, 0, 1); /* a file may grow while it is summed */
    double rate = seconds > 0.2 ? (double)(p->done - p->had) / seconds : 0;
    if (rate > 0 && !end) snprintf(left, sizeof left, ", %.0f s left", (double)(p->total - p->done) / rate);
    memset(bar, '#', (size_t)(part * BAR));
    memset(bar + (int)(part * BAR), '.', (size_t)(BAR - (int)(part * BAR)));
    bar[BAR] = 0;
    fprintf(stderr, "%s  [%s] %3.0f %%  %.1f of %.1f MB at %.1f MB/s%s  %s%d/%d %.60s%s", s->terminal ? "\r\033[K" : "", bar, part * 100, (double)p->done / 1e6,
            (double)p->total / 1e6, MAX(rate, 0) / 1e6, left, p->sums ? "checking what is here, " : "", p->at + 1, p->n, p->file, s->terminal ? "" : "\n");
    s->drawn = s->terminal;
}

static void say(void *user, const char *text, int32_t failed)
{
    struct shown *s = user;
    char line[1024];
    fprintf(stderr, "%stessera: %s; ", s->drawn ? "\n" : "", plain(line, sizeof line, text, strlen(text)));
    if (failed > 0) fprintf(stderr, "try %d of %d follows\n", failed + 1, s->tries);
    else fprintf(stderr, failed < 0 ? "it is fetched anew\n" : "trying again\n");
    s->drawn = false;
}

/* ---- the token ---- */

/* The first line of a file. *out is NULL when there is none. Own: free(). */
static enum err read_line(const char *path, bool must, char **out)
{
    char text[LONGEST_TOKEN];
    FILE *f = fopen(path, "re");
    *out = NULL;
    if (!f) return must ? err_raise(ERR_BAD_CONFIG, "%s: cannot read the token: %s", path, strerror(errno)) : OK;
    if (fgets(text, sizeof text, f)) {
        text[strcspn(text, "\r\n")] = 0;
        *out = xstrdup(text);
    }
    fclose(f);
    return OK;
}

static enum err find_token(const struct options *o, char **out)
{
    const char *said = getenv("HF_TOKEN"), *file = getenv("HF_TOKEN_PATH"), *home = getenv("HOME");
    if (o->token_file) return read_line(o->token_file, true, out);
    *out = said ? xstrdup(said) : NULL;
    if (said) return OK; /* also an empty one: none is to be sent */
    char *usual = file && *file ? xstrdup(file) : xasprintf("%s/.cache/huggingface/token", home ? home : "");
    enum err rc = read_line(usual, false, out);
    free(usual);
    return rc;
}

static char *find_endpoint(const struct options *o)
{
    const char *env = getenv("HF_ENDPOINT");
    char *url = xstrdup(o->endpoint ? o->endpoint : env && *env ? env : "https://huggingface.co");
    while (*url && url[strlen(url) - 1] == '/') url[strlen(url) - 1] = 0;
    return url;
}

int cmd_pull(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    const char *args[1];
    int n_args;
    bool help;
    char *token = NULL, *endpoint = NULL, *path = NULL;
    struct hub_ref r;
    struct shown shown = {.terminal = isatty(STDERR_FILENO)};
    TRY(conf_parse(&conf, argc, argv, &o, args, &n_args, &help));
    if (help) {
        conf_help(&conf);
        return 0;
    }
    if (!hub_ref_parse(&r, args[0])) TRY(err_raise(ERR_BAD_CONFIG, "'%s' is not ORG/NAME or ORG/NAME:QUANT, such as Qwen/Qwen3-8B-GGUF:Q4_K_M", args[0]));
    TRY(hub_ref_set_revision(&r, o.revision));
    TRY(find_token(&o, &token));
    endpoint = find_endpoint(&o);
    shown.tries = (int32_t)o.tries;
    const struct hub_pull_conf c = {.endpoint = endpoint, .token = token && *token ? token : NULL, .connect_s = o.connect_s, .stall_s = o.stall_s,
                                    .pause_ms = o.pause_ms, .tries = (int32_t)o.tries, .check = o.check, .progress = draw, .say = say, .user = &shown};
    TRY(hub_pull(&c, &r, &path));
    if (shown.drawn) fputc('\n', stderr);
    shown.drawn = false;
    printf("%s\n", path);
out:
    if (shown.drawn) fputc('\n', stderr);
    free(token);
    free(endpoint);
    free(path);
    return rc ? cmd_fail(rc) : 0;
}

static enum err find_pulled(const struct hub_ref *r, const char **arg)
{
    char *path = NULL;
    enum err rc = hub_ref_local(r, &path);
    if (rc) return rc;
    if (!path) return err_raise(ERR_NOT_FOUND, "%s is neither a file here nor a model that was fetched: tessera pull %s", *arg, *arg);
    *arg = path; /* for as long as the program runs */
    return OK;
}

enum err cmd_model(const char **arg)
{
    struct hub_ref r;
    return !access(*arg, F_OK) || !hub_ref_parse(&r, *arg) ? OK : find_pulled(&r, arg);
}

enum err cmd_model_named(const char **arg)
{
    struct hub_ref r;
    if (**arg == '/') return OK;
    if (hub_ref_parse(&r, *arg)) return find_pulled(&r, arg);
    return err_raise(ERR_BAD_REQUEST, "%s is neither an absolute path of the server's host nor ORG/NAME of a model that was pulled there", *arg);
}
