/* cmd_perplexity.c: `tessera perplexity`: how well a model foretells a text: to compare quantisations, KV types, and what
 * --exact off costs.
 *
 * The text is cut into chunks of tokens; each is scored on its own, every token but its first given those before it. So two
 * runs over the same text and chunk compare token by token. Probabilities are f32 logits through a softmax in double. */
#include "cli/commands.h"
#include "cli/own_cluster.h"
#include "cli/process.h"
#include "cli/under_mpirun.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 1 << 30 };

struct options {
    struct common_options c; /* first: the shared tables' offsets */
    const char *file;
    int64_t chunk, chunks;
    bool json;
};

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"file", CONF_STR, O(file), NULL, 0, 0, "FILE", "the text (needed)"},
    {"chunk", CONF_INT, O(chunk), "512", 2, LIMIT_CONTEXT, "N", "tokens of a chunk; each is scored on its own"},
    {"chunks", CONF_INT, O(chunks), "0", 0, 1e9, "N", "stop after so many; 0: the whole text"},
    {"json", CONF_FLAG, O(json), NULL, 0, 0, "on|off", "one JSON document"},
    {0},
};
static const struct conf_opt *const groups[] = {table, adapter_option_table, model_option_table, cluster_option_table, NULL};
static const struct conf_table conf = {
    "perplexity", "perplexity MODEL --file FILE [options]",
    "How well the model foretells a text; lower is better. Compare runs over the same text and chunk:\n"
    "  tessera perplexity model.gguf --file text.txt --tp 2\n"
    "  tessera perplexity model.gguf --file text.txt --tp 2 --wire mpi --exact off --wire-type q8", groups, 1, 1};

/* One chunk in work. */
struct chunk {
    struct job *job;
    const int32_t *ids;
    int32_t n, rows;          /* logits seen */
};

struct job {
    struct mailbox *done;     /* struct chunk * */
    int32_t n_vocab;
    /* [sched] */
    double sum, squares;      /* of -log p */
    int64_t n;
    enum err err;
    char text[512];
};

static double minus_log_p(const float *row, int32_t n, int32_t id)
{
    double most = row[0], sum = 0;
    for (int32_t i = 1; i < n; i++) most = row[i] > most ? row[i] : most;
    for (int32_t i = 0; i < n; i++) sum += exp((double)row[i] - most);
    return most + log(sum) - (double)row[id];
}

static void on_event(void *user, const struct token_event *e)
{
    struct chunk *c = user;
    struct job *j = c->job;
    for (int32_t i = 0; e->kind == EVENT_LOGITS && i < e->n_rows; i++, c->rows++) {
        if (c->rows + 1 >= c->n) continue; /* the last row foretells what is not there */
        double v = minus_log_p(e->logits + (int64_t)i * j->n_vocab, j->n_vocab, c->ids[c->rows + 1]);
        j->sum += v;
        j->squares += v * v;
        j->n++;
    }
    if (e->kind != EVENT_FINISH) return;
    if (e->err && !j->err) {
        j->err = e->err;
        snprintf(j->text, sizeof j->text, "%s", e->text ? e->text : err_short(e->err));
    }
    mailbox_put(j->done, c);
}

static enum err read_text(const char *path, struct buf *out)
{
    FILE *f = fopen(path, "rb");
    if (!f) return err_raise(ERR_IO, "cannot read %s: %s", path, strerror(errno));
    char piece[65536];
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0 && out->len <= MOST_BYTES;) buf_put(out, piece, n);
    enum err e = ferror(f) ? err_raise(ERR_IO, "cannot read %s: %s", path, strerror(errno)) : OK;
    fclose(f);
    if (!e && out->len > MOST_BYTES) e = err_raise(ERR_BAD_CONFIG, "%s has more than %d bytes", path, MOST_BYTES);
    return e;
}

static void submit(struct crd_api *api, struct chunk *c, int64_t id)
{
    struct gen_request q = {.id = (uint64_t)id + 1, .weight = 1, .n_prompt = c->n, .prompt = c->ids, .n = 1, .sampling = sampling_default(),
                            .prompt_logits = true, .adapter = api->adapter_names != NULL};
    q.sampling.max_tokens = 1;
    q.sampling.temperature = 0;
    api->service.ops->submit(api->service.self, &q, on_event, c);
}

static void print_result(const struct options *o, const struct job *j, double seconds)
{
    double mean = j->sum / (double)j->n, spread = sqrt(fmax(j->squares / (double)j->n - mean * mean, 0) / (double)j->n);
    const char *exact = o->c.model.exact == EXACT_OFF ? "off" : "on";
    if (o->json)
        printf("{\"perplexity\":%.6f,\"standard_error\":%.6f,\"nll\":%.9f,\"tokens\":%lld,\"chunk\":%lld,\"exact\":\"%s\",\"tok_s\":%.1f}\n", exp(mean),
               exp(mean) * spread, mean, (long long)j->n, (long long)o->chunk, exact, (double)j->n / seconds);
    else
        printf("perplexity %.4f +- %.4f (mean -log p %.6f) over %lld tokens in chunks of %lld, --exact %s, %.0f tok/s\n", exp(mean), exp(mean) * spread,
               mean, (long long)j->n, (long long)o->chunk, exact, (double)j->n / seconds);
}

static enum err score(const struct options *o, struct crd_api *api, struct buf *text)
{
    enum err rc = OK;
    struct eng_tokens ids = {0};
    struct job *j = xcalloc(1, sizeof *j);
    struct chunk *all = NULL;
    int64_t n = 0, sent = 0, back = 0, t0 = clock_us();
    j->done = mailbox_open();
    j->n_vocab = api->model.n_vocab;
    eng_tokenizer_encode(api->tokenizer, buf_str(text), text->len, TOKENIZE_ADD_SPECIAL, &ids);
    n = ((int64_t)ids.n + o->chunk - 1) / o->chunk;
    if (n && (int64_t)ids.n - (n - 1) * o->chunk < 2) n--; /* one token alone foretells nothing */
    if (o->chunks) n = MIN(n, o->chunks);
    if (!n) TRY(err_raise(ERR_BAD_CONFIG, "%s is %zu token(s): at least 2 are needed", o->file, (size_t)ids.n));
    all = xcalloc((size_t)n, sizeof *all);
    while (back < n && !process_stop()) {
        while (sent < n && sent - back < 8 && !j->err) {
            all[sent] = (struct chunk){.job = j, .ids = ids.ids + sent * o->chunk, .n = (int32_t)MIN(o->chunk, (int64_t)ids.n - sent * o->chunk)};
            submit(api, &all[sent], sent);
            sent++;
        }
        if (j->err && sent == back) break;
        if (!mailbox_get(j->done, 200000)) continue;
        if (++back % 64 == 0 && !o->json) log_info("perplexity", "%lld of %lld chunks", (long long)back, (long long)n);
    }
    if (j->err) TRY(err_raise(j->err, "%s", j->text));
    if (process_stop()) TRY(err_raise(ERR_CANCELLED, "stopped"));
    print_result(o, j, (double)(clock_us() - t0) / 1e6);
out:
    /* a request that was given out ends before its chunk goes: the core closes after us, so wait for it here */
    for (int32_t i = 0; back < sent && i < 50; i++) back += mailbox_get(j->done, 100000) != NULL;
    if (back == sent) { /* else the request still names them: the process ends soon */
        mailbox_close(j->done);
        free(all);
        free(j);
        eng_tokens_free(&ids);
    }
    return rc;
}

static enum err perplexity(struct options *o, const char *model)
{
    enum err rc = OK;
    struct own_cluster c = {.core = NULL};
    struct buf text = {0};
    if (!o->c.model.context) o->c.model.context = o->chunk + 1;
    if (o->chunk >= o->c.model.context)
        TRY(err_raise(ERR_BAD_CONFIG, "--chunk %lld needs a --context of %lld or more", (long long)o->chunk, (long long)o->chunk + 1));
    TRY(read_text(o->file, &text)); /* before minutes of loading */
    TRY(own_cluster_open(&c, &o->c, model));
    c.core_conf.prefix_cache = false; /* every position is scored */
    TRY(own_cluster_start(&c));
    TRY(score(o, crd_core_api(c.core), &text));
out:
    own_cluster_close(&c);
    buf_free(&text);
    return rc;
}

int cmd_perplexity(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    const char *args[1];
    bool done;
    int32_t rank, size;
    TRY(options_begin(&conf, argc, argv, &o.c, args, &done));
    if (done) return 0;
    if (!o.file) TRY(err_raise(ERR_BAD_CONFIG, "--file FILE, the text, is needed"));
    if (under_mpirun(&rank, &size))
        TRY(err_raise(ERR_BAD_CONFIG, "perplexity starts its own workers: run it without mpirun (--tp, --pp, --hostfile say how many)"));
    process_catch_signals();
    TRY(cmd_model(&args[0]));
    TRY(perplexity(&o, args[0]));
    return 0;
out:
    return cmd_fail(rc);
}
