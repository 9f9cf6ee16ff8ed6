/* cmd_render.c: `tessera render`: a conversation on stdin -> the prompt a model would see, by the code the gateway uses. */
#include "cli/commands.h"

#include "base/conf.h"
#include "coordinator/api/chat_in.h"
#include "coordinator/api/request.h"
#include "engine/model_text.h"
#include "engine/text/template.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

struct options { bool prompt, request; };

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"add-generation-prompt", CONF_FLAG, O(prompt), "on", 0, 0, "on|off", "end with the beginning of an answer, unless the context says"},
    {"request", CONF_FLAG, O(request), NULL, 0, 0, "on|off", "stdin is the body of a request to /v1/chat/completions; needs a MODEL"},
    {0},
};
static const struct conf_opt *const groups[] = {table, NULL};
static const struct conf_table conf = {
    "render", "render (MODEL | FILE.jinja | NAME) [options] < context.json",
    "Render the chat template of a model, of a file, or a built-in one.\n"
    "  echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}' | tessera render model.gguf\n"
    "The context is a JSON object whose members are the template's variables: messages, tools, enable_thinking, bos_token ...\n"
    "With --request the body goes all the way that the gateway takes it: fields checked, parts of content joined, arguments of calls opened, tools\n"
    "described where the template does not know any.", groups, 1, 1};

enum { MAX_BYTES = 64 << 20 };

static void read_all(FILE *f, struct buf *out)
{
    char chunk[65536];
    for (size_t n; out->len < MAX_BYTES && (n = fread(chunk, 1, sizeof chunk, f)) > 0;) buf_put(out, chunk, n);
}

static bool is_model(const char *path)
{
    size_t n = strlen(path);
    struct stat st;
    return (n > 5 && !strcmp(path + n - 5, ".gguf")) || (!stat(path, &st) && S_ISDIR(st.st_mode));
}

static void put_token(json_t *context, const char *name, const struct eng_tokenizer *t, int32_t id)
{
    struct buf text = {0};
    if (json_object_get(context, name)) return;
    if (id >= 0) eng_tokenizer_piece(t, id, true, &text);
    json_object_set_new(context, name, json_string(buf_str(&text)));
    buf_free(&text);
}

/* The template's text, and what the model adds to the context. */
static enum err of_model(const char *path, json_t *context, struct buf *source)
{
    enum err rc;
    struct eng_model_file *f = NULL;
    struct eng_tokenizer *t = NULL;
    char *own = NULL;
    TRY(eng_model_file_open(&f, path));
    TRY(eng_model_template(&own, f));
    if (!own) TRY(err_raise(ERR_UNSUPPORTED, "%s has no chat template; name a file or a built-in one instead", path));
    buf_puts(source, own);
    TRY(eng_model_tokenizer(&t, f));
    put_token(context, "bos_token", t, eng_tokenizer_bos(t));
    put_token(context, "eos_token", t, eng_tokenizer_eos(t));
out:
    free(own);
    eng_tokenizer_close(t);
    eng_model_file_close(f);
    return rc;
}

static enum err of_file(const char *path, struct buf *source)
{
    const char *builtin = eng_template_builtin(path);
    if (builtin) {
        buf_puts(source, builtin);
        return OK;
    }
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_raise(ERR_IO, "cannot read %s: %s; built-in templates are %s", path, strerror(errno), eng_template_builtin_names());
    read_all(f, source);
    fclose(f);
    return OK;
}

static enum err read_context(json_t **out)
{
    struct buf in = {0};
    json_error_t why;
    read_all(stdin, &in);
    json_t *j = json_loadb(buf_str(&in), in.len, JSON_REJECT_DUPLICATES, &why);
    buf_free(&in);
    if (!j) return err_raise(ERR_BAD_REQUEST, "stdin is not JSON: line %d, column %d: %s", why.line, why.column, why.text);
    if (!json_is_object(j)) {
        json_decref(j);
        return err_raise(ERR_BAD_REQUEST, "stdin is not a JSON object of the template's variables");
    }
    *out = j;
    return OK;
}

/* A request's body through the gateway's own steps. */
static enum err of_request(const char *path, const char *source, const struct eng_template *t, struct buf *text)
{
    static const char *const names[] = {"model", NULL};
    enum err rc;
    struct eng_model_file *f = NULL;
    struct eng_tokenizer *tokenizer = NULL;
    struct crd_request r = {0};
    struct crd_api_error e = {0};
    struct buf body = {0};
    if (!is_model(path)) return err_raise(ERR_BAD_CONFIG, "render: --request needs a MODEL, whose tokens and template it is about; %s is none", path);
    read_all(stdin, &body);
    TRY(eng_model_file_open(&f, path));
    TRY(eng_model_tokenizer(&tokenizer, f));
    const struct crd_api api = {.tokenizer = tokenizer, .chat_template = t, .template_source = source, .style = crd_style_of(source),
                                .model_names = names, .max_context = INT32_MAX / 2, .max_n = 128};
    json_t *j = json_loadb(buf_str(&body), body.len, 0, NULL);
    if (json_object_get(j, "model")) { /* any will do */
        json_object_del(j, "model");
        char *without = json_dumps(j, 0);
        buf_clear(&body);
        buf_puts(&body, without);
        free(without);
    }
    json_decref(j);
    rc = crd_request_parse(&r, &api, ENDPOINT_CHAT, buf_str(&body), body.len, &e);
    if (!rc) rc = crd_chat_render(&r, &api, time(NULL), &e);
    if (rc) TRY(err_raise(rc, "%s", e.message ? e.message : err_text()));
    buf_put(text, r.prompts[0].text, r.prompts[0].n_text);
out:
    crd_request_close(&r);
    crd_api_error_clear(&e);
    buf_free(&body);
    eng_tokenizer_close(tokenizer);
    eng_model_file_close(f);
    return rc;
}

int cmd_render(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    const char *args[1];
    int n_args;
    bool help;
    json_t *context = NULL;
    struct eng_template *t = NULL;
    struct buf source = {0}, text = {0};
    TRY(conf_parse(&conf, argc, argv, &o, args, &n_args, &help));
    if (help) {
        conf_help(&conf);
        return 0;
    }
    if (!eng_template_builtin(args[0])) TRY(cmd_model(&args[0]));
    if (o.request)
        context = json_object();
    else
        TRY(read_context(&context));
    TRY(is_model(args[0]) ? of_model(args[0], context, &source) : of_file(args[0], &source));
    if (!json_object_get(context, "add_generation_prompt"))
        json_object_set_new(context, "add_generation_prompt", json_boolean(o.prompt));
    TRY(eng_template_compile(&t, buf_str(&source), source.len));
    if (o.request)
        TRY(of_request(args[0], buf_str(&source), t, &text));
    else
        TRY(eng_template_render(t, context, time(NULL), &text));
    cmd_text(buf_str(&text), text.len);
out:
    buf_free(&source);
    buf_free(&text);
    eng_template_close(t);
    json_decref(context);
    return rc ? cmd_fail(rc) : 0;
}
