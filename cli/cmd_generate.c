/* cmd_generate.c: `tessera generate`: the same spines as serve, without HTTP: one prompt, a batch file, or raw logits. */
#include "cli/commands.h"
#include "cli/generate_batch.h"
#include "cli/own_cluster.h"
#include "cli/process.h"
#include "cli/under_mpirun.h"

#include "base/log.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    struct common_options c; /* first: the shared tables' offsets */
    const char *prompt, *prompts, *output, *logits_file, *chat_template, *stop;
    int64_t max_tokens, top_k, seed, n, logprobs, concurrency;
    double temperature, top_p, min_p, presence_penalty, frequency_penalty, repetition_penalty;
    bool chat, ids, ignore_eos;
    int32_t generation_config;
};

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"prompt", CONF_STR, O(prompt), NULL, 0, 0, "TEXT", "one prompt; the answer goes to stdout as it comes"},
    {"chat", CONF_FLAG, O(chat), NULL, 0, 0, "on|off", "--prompt is a user's message, rendered by the chat template"},
    {"prompts", CONF_STR, O(prompts), NULL, 0, 0, "IN.jsonl", "a batch in OpenAI's batch file format", "input-file batch file"},
    {"output", CONF_STR, O(output), NULL, 0, 0, "OUT.jsonl", "its answers; lines already there are not asked again"},
    {"concurrency", CONF_INT, O(concurrency), "64", 1, GENERATE_BATCH_MOST, "N", "batch lines in work at once"},
    {"logits", CONF_STR, O(logits_file), NULL, 0, 0, "FILE", "write the logits of every prompt position and of every generated token: f32 rows"},
    {"ids", CONF_FLAG, O(ids), NULL, 0, 0, "on|off", "print token ids after the text"},
    {"chat-template", CONF_STR, O(chat_template), NULL, 0, 0, "FILE|NAME", "instead of the model's own"},
    {"generation-config", CONF_ENUM, O(generation_config), "auto", 0, 0, GENERATION_CONFIG_NAMES,
     "sampling of batch lines that do not say: as the model's files say, or temperature 1 and nothing else"},
    {"max-tokens", CONF_INT, O(max_tokens), "128", 1, LIMIT_CONTEXT, "N", "tokens to generate", "n-predict predict max-new-tokens num-predict"},
    {"temperature", CONF_FLOAT, O(temperature), "1", 0, 1000, "X", "0: greedy"},
    {"top-p", CONF_FLOAT, O(top_p), "1", 0, 1, "X", "nucleus"},
    {"top-k", CONF_INT, O(top_k), "0", -1, 1e9, "N", "0: off"},
    {"min-p", CONF_FLOAT, O(min_p), "0", 0, 1, "X", "0: off"},
    {"presence-penalty", CONF_FLOAT, O(presence_penalty), "0", -2, 2, "X", "0: off"},
    {"frequency-penalty", CONF_FLOAT, O(frequency_penalty), "0", -2, 2, "X", "0: off"},
    {"repetition-penalty", CONF_FLOAT, O(repetition_penalty), "1", 0.01, 100, "X", "1: off", "repeat-penalty"},
    {"seed", CONF_INT, O(seed), "-1", -1, 9.2e18, "N", "-1: a random one"},
    {"n", CONF_INT, O(n), "1", 1, 128, "N", "answers"},
    {"logprobs", CONF_INT, O(logprobs), "-1", -1, LIMIT_LOGPROBS, "N", "log probabilities of the chosen and the N best tokens; -1: none"},
    {"stop", CONF_STR, O(stop), NULL, 0, 0, "TEXT", "end at this text"},
    {"ignore-eos", CONF_FLAG, O(ignore_eos), NULL, 0, 0, "on|off", "go on past the end of the answer"},
    {0},
};
static const struct conf_opt *const groups[] = {table, adapter_option_table, model_option_table, cluster_option_table, NULL};
static const struct conf_table conf = {
    "generate", "generate MODEL (--prompt TEXT | --prompts IN.jsonl --output OUT.jsonl) [options]",
    "Generate text without a server: starts the workers, answers, stops them.\n"
    "  tessera generate model.gguf --prompt 'Once upon a time' --temperature 0\n"
    "  tessera generate model.gguf --tp 2 --prompts batch.jsonl --output answers.jsonl", groups, 1, 1};

/* ---- one prompt, streamed ---- */

struct one { struct mailbox *mail; };

static void wake(void *user) { mailbox_poke(((struct one *)user)->mail); }

/* With adapters it is the first that answers; lines of a batch name theirs. */
static char *make_body(const struct options *o, const struct crd_api *api)
{
    json_t *b = json_pack("{s:b, s:I, s:f, s:f, s:f, s:I, s:f, s:f, s:f, s:I}", "stream", o->n == 1 && o->logprobs < 0 && !o->ids, "max_tokens",
                          (json_int_t)o->max_tokens, "temperature", o->temperature, "top_p", o->top_p, "min_p", o->min_p, "top_k",
                          (json_int_t)o->top_k, "presence_penalty", o->presence_penalty, "frequency_penalty", o->frequency_penalty,
                          "repetition_penalty", o->repetition_penalty, "n", (json_int_t)o->n);
    if (api->adapter_names) json_object_set_new(b, "model", json_string(api->adapter_names[0]));
    if (o->seed >= 0) json_object_set_new(b, "seed", json_integer(o->seed));
    if (o->stop) json_object_set_new(b, "stop", json_string(o->stop));
    if (o->ignore_eos) json_object_set_new(b, "ignore_eos", json_true());
    if (o->ids) json_object_set_new(b, "return_token_ids", json_true());
    if (o->chat) json_object_set_new(b, "messages", json_pack("[{s:s, s:s}]", "role", "user", "content", o->prompt));
    else json_object_set_new(b, "prompt", json_string(o->prompt));
    if (o->logprobs >= 0 && o->chat) {
        json_object_set_new(b, "logprobs", json_true());
        json_object_set_new(b, "top_logprobs", json_integer(o->logprobs));
    } else if (o->logprobs >= 0) {
        json_object_set_new(b, "logprobs", json_integer(o->logprobs));
    }
    char *text = json_dumps(b, JSON_COMPACT);
    json_decref(b);
    return text;
}

/* Print the text of the complete SSE events in *out and drop them. False after an error event (its message is raised). */
static bool print_events(struct buf *out)
{
    char *end;
    bool good = true;
    while (out->len && (end = strstr((char *)out->data, "\n\n"))) {
        char *p = (char *)out->data;
        json_t *v = !strncmp(p, "data: {", 7) ? json_loadb(p + 6, (size_t)(end - p - 6), 0, NULL) : NULL;
        json_t *choice = json_array_get(json_object_get(v, "choices"), 0), *error = json_object_get(v, "error");
        const char *text = json_string_value(json_object_get(choice, "text"));
        if (!text) text = json_string_value(json_object_get(json_object_get(choice, "delta"), "content"));
        if (text) cmd_text(text, strlen(text));
        if (error) {
            err_set_text("%s", json_string_value(json_object_get(error, "message")));
            good = false;
        }
        json_decref(v);
        size_t used = (size_t)(end + 2 - p);
        memmove(p, p + used, out->len - used + 1);
        out->len -= used;
    }
    fflush(stdout);
    return good;
}

/* A refusal of the API as this command's reader knows it: a sentence that begins with a field's name begins with the option's. */
static enum err refused(const json_t *error, const char *document)
{
    const char *m = json_string_value(json_object_get(error, "message")), *field = json_string_value(json_object_get(error, "param"));
    char option[64];
    size_t n = field ? strlen(field) : 0;
    if (!m || !n || n >= sizeof option || strncmp(m, field, n) || !strchr(":. ", m[n])) return err_raise(ERR_BAD_REQUEST, "%s", m ? m : document);
    for (size_t i = 0; i <= n; i++) option[i] = field[i] == '_' ? '-' : field[i];
    return err_raise(ERR_BAD_REQUEST, "--%s%s", option, m + n);
}

static enum err print_document(const struct options *o, struct buf *out, int32_t status)
{
    json_t *v = json_loadb(buf_str(out), out->len, 0, NULL), *choice;
    size_t i;
    enum err rc = OK;
    if (status != 200) rc = refused(json_object_get(v, "error"), buf_str(out));
    json_array_foreach(json_object_get(v, "choices"), i, choice) {
        const char *text = json_string_value(json_object_get(choice, "text"));
        if (!text) text = json_string_value(json_object_get(json_object_get(choice, "message"), "content"));
        if (o->n > 1) printf("[%zu] ", i);
        if (text) cmd_text(text, strlen(text));
        putchar('\n');
        json_t *extra[] = {o->ids ? json_object_get(choice, "token_ids") : NULL, o->logprobs >= 0 ? json_object_get(choice, "logprobs") : NULL};
        for (size_t k = 0; k < COUNT_OF(extra); k++) {
            char *s = extra[k] ? json_dumps(extra[k], JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
            if (s) printf("%s\n", s);
            free(s);
        }
    }
    json_decref(v);
    return rc;
}

static enum err generate_one(const struct options *o, struct crd_api *api)
{
    enum err rc = OK;
    struct one one = {mailbox_open()};
    struct buf out = {0};
    int32_t status = 0;
    char *body = make_body(o, api);
    struct crd_generation *g = crd_generation_open(api, o->chat ? ENDPOINT_CHAT : ENDPOINT_COMPLETIONS, body, strlen(body), 0, "generate", wake, &one);
    for (bool done = false; !done && !process_stop();) {
        done = crd_generation_run(g, &out, &status);
        if (status == 200 && crd_generation_streaming(g)) {
            if (!print_events(&out)) rc = ERR_UNAVAILABLE;
        } else if (done) {
            rc = print_document(o, &out, status);
        }
        if (!done) mailbox_get(one.mail, 200000);
    }
    if (!rc && status == 200 && crd_generation_streaming(g)) printf("\n"), fflush(stdout);
    if (!rc && process_stop()) rc = err_raise(ERR_CANCELLED, "stopped");
    crd_generation_close(g);
    mailbox_close(one.mail);
    buf_free(&out);
    free(body);
    return rc;
}

/* ---- logits ---- */

/* Written by the scheduler's thread until it puts itself into `mail`; then it is the command's. */
struct logits {
    FILE *f;
    struct mailbox *mail;
    enum err err; /* the first that happened; text: why */
    char text[512];
    int32_t n_vocab;
    int64_t rows;
};

static void fail(struct logits *l, enum err e, const char *text)
{
    if (l->err) return;
    l->err = e;
    snprintf(l->text, sizeof l->text, "%s", text);
}

static void on_logits(void *user, const struct token_event *e)
{
    struct logits *l = user;
    if (e->kind == EVENT_LOGITS) {
        size_t n = (size_t)e->n_rows * (size_t)l->n_vocab;
        if (fwrite(e->logits, sizeof(float), n, l->f) != n) fail(l, ERR_IO, "cannot write the logits: is the disk full?");
        l->rows += e->n_rows;
    }
    if (e->kind != EVENT_FINISH) return;
    if (e->err) fail(l, e->err, e->text ? e->text : err_short(e->err));
    mailbox_put(l->mail, l);
}

/* Until the last event: before it the scheduler's thread has l. After a signal there is little to wait for. */
static void await_end(struct logits *l, struct crd_api *api, uint64_t request)
{
    bool cancelled = false;
    while (!mailbox_get(l->mail, 200000)) {
        if (cancelled || !process_stop()) continue;
        api->service.ops->cancel(api->service.self, request);
        cancelled = true;
    }
}

static enum err generate_logits(const struct options *o, struct crd_api *api)
{
    struct logits l = {.f = fopen(o->logits_file, "wb"), .n_vocab = api->model.n_vocab};
    struct eng_tokens ids = {0};
    if (!l.f) return err_raise(ERR_IO, "cannot write %s: %s", o->logits_file, strerror(errno));
    l.mail = mailbox_open();
    eng_tokenizer_encode(api->tokenizer, o->prompt, strlen(o->prompt), TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, &ids);
    struct gen_request q = {.id = 1, .weight = 1, .n_prompt = (int32_t)ids.n, .prompt = ids.ids, .n = 1, .sampling = sampling_default(),
                            .prompt_logits = true, .sample_logits = true, .adapter = api->adapter_names != NULL};
    q.sampling.temperature = (float)o->temperature;
    q.sampling.top_p = (float)o->top_p;
    q.sampling.top_k = MAX((int32_t)o->top_k, 0);
    q.sampling.min_p = (float)o->min_p;
    q.sampling.max_tokens = (int32_t)o->max_tokens;
    q.sampling.seed = (uint64_t)o->seed;
    if (!o->ignore_eos) q.sampling.n_stop_ids = eng_tokenizer_eog(api->tokenizer, q.sampling.stop_ids, LIMIT_STOP_IDS);
    api->service.ops->submit(api->service.self, &q, on_logits, &l);
    await_end(&l, api, q.id);
    if (fclose(l.f)) fail(&l, ERR_IO, "cannot write the logits: is the disk full?");
    mailbox_close(l.mail);
    eng_tokens_free(&ids);
    if (l.err) return err_raise(l.err, "%s", l.text);
    log_info("generate", "%lld rows of %d f32 in %s", (long long)l.rows, l.n_vocab, o->logits_file);
    return OK;
}

/* ---- the command ---- */

static enum err run(const struct options *o, struct crd_api *api)
{
    if (o->logits_file) return generate_logits(o, api);
    if (o->prompt && !o->chat && api->chat_template)
        log_info("generate", "this model has a chat template: with --chat the prompt is a user's message, without it a text to go on with");
    if (o->prompt) return generate_one(o, api);
    int64_t done, failed;
    enum err e = generate_batch(api, o->prompts, o->output, (int32_t)o->concurrency, process_stop, &done, &failed);
    if (!e) log_info("generate", "%lld line(s) answered, %lld of them with an error", (long long)done, (long long)failed);
    return e;
}

static enum err generate(const struct options *o, const char *model)
{
    enum err rc;
    struct own_cluster c = {.core = NULL};
    TRY(own_cluster_open(&c, &o->c, model));
    c.core_conf.chat_template = o->chat_template;
    c.core_conf.plain_sampling = o->generation_config == GENERATION_CONFIG_NONE || !o->prompts;
    c.core_conf.max_waiting = 1 << 20;
    c.core_conf.max_n = 128;
    TRY(own_cluster_start(&c));
    TRY(run(o, crd_core_api(c.core)));
out:
    own_cluster_close(&c);
    return rc;
}

int cmd_generate(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    const char *args[1];
    bool done;
    TRY(options_begin(&conf, argc, argv, &o.c, args, &done));
    if (done) return 0;
    if (!o.prompt == !o.prompts) TRY(err_raise(ERR_BAD_CONFIG, "give either --prompt TEXT or --prompts IN.jsonl --output OUT.jsonl"));
    if (o.prompts && !o.output) TRY(err_raise(ERR_BAD_CONFIG, "--prompts needs --output OUT.jsonl"));
    if (o.prompts) TRY(generate_batch_check(o.prompts, o.output));
    if (o.prompt && !*o.prompt) TRY(err_raise(ERR_BAD_CONFIG, "--prompt is empty"));
    if (o.logits_file) { /* now, not after minutes of loading */
        FILE *f = fopen(o.logits_file, "ab");
        if (!f) TRY(err_raise(ERR_BAD_CONFIG, "--logits: cannot write %s", o.logits_file));
        fclose(f);
    }
    if (o.logits_file && !o.prompt) TRY(err_raise(ERR_BAD_CONFIG, "--logits goes with --prompt"));
    int32_t rank, size;
    if (under_mpirun(&rank, &size))
        TRY(err_raise(ERR_BAD_CONFIG, "generate starts its own workers: run it without mpirun (--tp, --pp, --hostfile say how many)"));
    process_catch_signals();
    TRY(cmd_model(&args[0]));
    TRY(generate(&o, args[0]));
    return 0;
out:
    return cmd_fail(rc);
}
