/* calls_grammar.c: see calls_grammar.h. The text is described in parts (engine/grammar/parts.h). */
#include "coordinator/api/calls_grammar.h"
#include "coordinator/api/json_out.h"
#include "engine/grammar_vocab.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- parts ---- */

static json_t *part(const char *key, json_t *value)
{
    json_t *p = json_object();
    json_object_set_new(p, key, value);
    return p;
}

/* A mark is a control token where the vocabulary has it as such, else its letters. */
static json_t *mark_part(const struct crd_api *api, const char *mark)
{
    int32_t id = eng_tokenizer_find(api->tokenizer, mark);
    bool control = id >= 0 && eng_tokenizer_type(api->tokenizer, id) == TOKEN_CONTROL;
    return control ? part("token", json_string(mark)) : json_string(mark);
}

/* The mark of the style that begins at p, or NULL. */
static const char *mark_at(const struct crd_call_style *c, const char *p)
{
    const char *const marks[] = {c->open,       c->close,  c->call_open,
                                 c->call_close, c->sep[0], c->sep[1]};
    for (size_t i = 0; i < COUNT_OF(marks); i++)
        if (marks[i] && !strncmp(p, marks[i], strlen(marks[i]))) return marks[i];
    return NULL;
}

static void put_text(json_t *seq, struct buf *text)
{
    if (text->len) json_array_append_new(seq, json_stringn(buf_str(text), text->len));
    buf_clear(text);
}

/* One of a form's texts, with a tool's name and arguments in it. */
static void put_form(json_t *seq, const struct crd_api *api, const char *form, const char *name,
                     json_t *args)
{
    struct buf text = {0};
    for (const char *p = form, *mark; *p;) {
        if ((mark = mark_at(api->style.calls, p))) {
            put_text(seq, &text);
            json_array_append_new(seq, mark_part(api, mark));
            p += strlen(mark);
        } else if (p[0] == '%' && p[1] == 'N') {
            buf_puts(&text, name);
            p += 2;
        } else if (p[0] == '%') {
            put_text(seq, &text);
            if (p[1] == 'A')
                json_array_append(seq, args);
            else
                json_array_append_new(seq, part("regex", json_string("0|[1-9][0-9]?")));
            p += 2;
        } else {
            buf_putc(&text, *p++);
        }
    }
    put_text(seq, &text);
    buf_free(&text);
}

/* How arguments are written where they are no JSON: {"schema":...} -> {"schema":..., "args":...}. */
static json_t *in_form(json_t *p, const struct crd_args_form *a)
{
    if (!a) return p;
    json_t *how = json_pack("{s:s,s:s,s:s,s:s,s:b}", "open", a->open, "mid", a->mid, "close", a->close,
                            "sep", a->sep, "python", a->python);
    if (a->raw) json_object_set_new(how, "raw", json_string(a->raw));
    json_object_set_new(p, "args", how);
    return p;
}

/* Any object; of its members only which are strings, as the reader asks that too (call_tags.h). */
static json_t *loosely(const json_t *schema)
{
    json_t *properties = json_object(), *one;
    const char *key;
    json_object_foreach(json_object_get(schema, "properties"), key, one)
    {
        const char *type = json_string_value(json_object_get(one, "type"));
        if (type && !strcmp(type, "string"))
            json_object_set_new(properties, key, json_pack("{s:s}", "type", "string"));
    }
    return json_pack("{s:s,s:o}", "type", "object", "properties", properties);
}

/* Arguments are an object, whatever else their schema says. */
static json_t *arguments(const struct crd_api *api, const json_t *tool, size_t i, bool strict)
{
    const json_t *f = json_object_get(tool, "function"), *given = json_object_get(f, "parameters");
    const struct crd_args_form *form = api->style.calls->args;
    json_t *schema = json_is_object(given) ? json_copy((json_t *)(uintptr_t)given)
                                           : json_pack("{s:{}}", "properties"), *p;
    char of[48];
    if (!strict && !form) {
        json_decref(schema);
        return json_pack("{s:{s:s}}", "schema", "type", "object");
    }
    if (!strict) {
        p = loosely(schema);
        json_decref(schema);
        schema = p;
    }
    if (!json_object_get(schema, "type")) json_object_set_new(schema, "type", json_string("object"));
    snprintf(of, sizeof of, "tools.%zu.function.parameters", i);
    p = part("schema", schema);
    json_object_set_new(p, "of", json_string(of));
    return in_form(p, form);
}

static bool is_strict(const json_t *tool)
{
    return json_is_true(json_object_get(json_object_get(tool, "function"), "strict"));
}

/* Behind the mark that opens a section, if the form begins with it. */
static const char *behind_open(const struct crd_api *api, const char *form)
{
    const char *open = api->style.calls->open;
    return !strncmp(form, open, strlen(open)) ? form + strlen(open) : form;
}

/* strict: arguments by the tools' schemas; else by those of tools that ask for it. opened: the mark that opens the
 * section, with which the call begins, has been written. */
static json_t *one_call(const struct crd_request *r, const struct crd_api *api, bool strict, bool opened)
{
    const char *form = opened ? behind_open(api, api->style.form->call) : api->style.form->call;
    json_t *any = json_array(), *tool;
    size_t i;
    json_array_foreach(r->tools, i, tool)
    {
        const char *name =
            json_string_value(json_object_get(json_object_get(tool, "function"), "name"));
        if (r->forced_name && strcmp(name, r->forced_name)) continue;
        json_t *seq = json_array(), *args = arguments(api, tool, i, strict || is_strict(tool));
        put_form(seq, api, form, name, args);
        json_array_append_new(any, part("seq", seq));
        json_decref(args);
    }
    return part("any", any);
}

/* opened: as above, the calls being a whole section; where each call has a section of its own, there is one. */
static json_t *calls(const struct crd_request *r, const struct crd_api *api, bool strict, bool opened)
{
    const struct crd_call_form *f = api->style.form;
    const bool first = f->first[0] != 0; /* a section for all */
    json_t *seq = json_array(), *call = one_call(r, api, strict, opened && !first);
    put_form(seq, api, opened ? behind_open(api, f->first) : f->first, "", NULL);
    if (f->sep && !r->reply.one_call && (first || !opened)) {
        json_t *sep = json_array();
        put_form(sep, api, f->sep, "", NULL);
        call = part("some", call);
        if (json_array_size(sep)) json_object_set_new(call, "sep", part("seq", json_incref(sep)));
        json_decref(sep);
    }
    json_array_append_new(seq, call);
    put_form(seq, api, f->last, "", NULL);
    return part("seq", seq);
}

/* ---- strict tools the model may call or not ---- */

/* Free text in which the mark of calls is followed by calls as they must be. A reply that is JSON from its first
 * character is a call where the style has it so: then all others begin with something else. */
static json_t *if_called(const struct crd_request *r, const struct crd_api *api)
{
    const struct crd_call_style *c = api->style.calls;
    json_t *text = json_object(), *all = json_array();
    if (c->open && !c->bare) {
        json_t *rule = json_pack("[o,o]", mark_part(api, c->open), calls(r, api, false, true));
        json_object_set_new(text, "on", json_pack("[o]", rule));
        json_object_set_new(text, "once", json_boolean(r->reply.one_call));
        return json_decref(all), part("free", text);
    }
    json_t *mark = c->open ? mark_part(api, c->open) : NULL;
    json_array_append_new(all, calls(r, api, false, false));
    if (mark) { /* the tag before such a call: <|python_tag|>{...} */
        json_t *rule = json_pack("[O,o]", mark, calls(r, api, false, false));
        json_array_append_new(all, part("seq", json_copy(rule)));
        json_object_set_new(text, "on", json_pack("[o]", rule));
        json_object_set_new(text, "once", json_true());
    }
    /* a tag in letters would begin with them */
    const char *other = json_is_string(mark) ? "\\s*[^\\s{\\[<]" : "\\s*[^\\s{\\[]";
    json_array_append_new(all, json_string(""));
    json_array_append_new(all, part("seq", json_pack("[{s:s},{s:o}]", "regex", other, "free", text)));
    json_decref(mark);
    return part("any", all);
}

static bool any_strict(const json_t *tools)
{
    size_t i;
    json_t *tool;
    json_array_foreach((json_t *)(uintptr_t)tools, i, tool) if (is_strict(tool)) return true;
    return false;
}

/* What was asked for of the answer's content. */
static json_t *content(const struct grammar_source *g)
{
    json_t *j = NULL;
    switch (g->kind) {
    case GRAMMAR_JSON:
        return part("schema", json_true());
    case GRAMMAR_JSON_OBJECT:
        return json_pack("{s:{s:s}}", "schema", "type", "object");
    case GRAMMAR_REGEX:
        return part("regex", json_stringn(g->text, (size_t)g->n));
    case GRAMMAR_GBNF:
        return part("gbnf", json_stringn(g->text, (size_t)g->n));
    case GRAMMAR_SCHEMA:
    case GRAMMAR_CHOICE:
    case GRAMMAR_PARTS:
        j = json_loadb(g->text, (size_t)g->n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        break;
    case GRAMMAR_NONE:
        break;
    }
    ASSERT(j); /* it has been compiled */
    return g->kind == GRAMMAR_PARTS ? j : part(g->kind == GRAMMAR_SCHEMA ? "schema" : "any", j);
}

/* ---- thoughts ---- */

/* Thoughts as far as their end, then what follows; they go on where the prompt has opened them, and
 * may stand where the model writes them of its own accord. Takes `then`. */
static json_t *behind_thoughts(const struct crd_request *r, const struct crd_api *api, json_t *then)
{
    const struct crd_think_style *t = r->reply.think;
    json_t *space = part("regex", json_string("\\n{0,2}"));
    json_t *end = json_pack("[o,o]", part("until", mark_part(api, t->close)), space);
    json_t *seq = json_array();
    if (!r->reply.thinking) {
        json_array_insert_new(end, 0, mark_part(api, t->open));
        json_array_append_new(seq, part("any", json_pack("[s,o]", "", part("seq", end))));
    } else {
        json_array_append_new(seq, part("seq", end));
    }
    json_array_append_new(seq, then);
    return part("seq", seq);
}

/* ---- the whole ---- */

static enum err settle(struct crd_request *r, const json_t *parts, const char *param,
                       struct crd_api_error *e)
{
    struct grammar_source *g = &r->grammar;
    struct eng_grammar *compiled;
    struct buf text = {0};
    bool fits = json_out_value(&text, parts, LIMIT_GRAMMAR_BYTES);
    free((void *)g->text);
    g->text = xstrdup(buf_str(&text));
    g->n = 0;
    g->kind = GRAMMAR_PARTS;
    buf_free(&text);
    if (!fits)
        return crd_api_refuse(e, 400, param, "the schemas take more than %d bytes.", LIMIT_GRAMMAR_BYTES);
    g->n = (int32_t)strlen(g->text);
    g->hash = grammar_hash(g);
    if (eng_grammar_compile(&compiled, g, NULL))
        return crd_api_refuse(e, 400, param, "Invalid grammar specification: %s", err_text());
    eng_grammar_close(compiled);
    return OK;
}

enum err crd_calls_grammar(struct crd_request *r, const struct crd_api *api,
                           struct crd_api_error *e)
{
    bool asked = r->grammar.kind != GRAMMAR_NONE;
    json_t *text = NULL;
    if (r->forced)
        text = calls(r, api, true, false); /* no content: what was asked of it is met */
    else if (asked && r->tools)
        text = part("any", json_pack("[o,o]", content(&r->grammar), calls(r, api, false, false)));
    else if (asked && r->reply.think)
        text = content(&r->grammar);
    else if (r->tools && any_strict(r->tools))
        text = if_called(r, api);
    if (!text) return OK;
    if (r->reply.think) text = behind_thoughts(r, api, text);
    enum err rc = settle(r, text, asked && !r->forced ? "response_format" : "tools", e);
    json_decref(text);
    return rc;
}

/* ---- budgets ---- */

struct crd_grammar_vocab {
    pthread_mutex_t lock;
    const struct eng_tokenizer *t;
    struct eng_grammar_vocab *v; /* under the lock until made; then immutable */
};

struct crd_grammar_vocab *crd_grammar_vocab_open(const struct eng_tokenizer *t)
{
    struct crd_grammar_vocab *v = xcalloc(1, sizeof *v);
    pthread_mutex_init(&v->lock, NULL);
    v->t = t;
    return v;
}

void crd_grammar_vocab_close(struct crd_grammar_vocab *v)
{
    if (!v) return;
    eng_grammar_vocab_close(v->v);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

static const struct eng_grammar_vocab *made(struct crd_grammar_vocab *v)
{
    pthread_mutex_lock(&v->lock);
    if (!v->v) v->v = eng_grammar_vocab_of(v->t, eng_tokenizer_size(v->t));
    pthread_mutex_unlock(&v->lock);
    return v->v;
}

int32_t crd_calls_need(const struct crd_request *r, const struct crd_api *api)
{
    struct eng_grammar *g;
    if (!r->grammar.kind || !api->grammar_vocab) return 0;
    if (eng_grammar_compile(&g, &r->grammar, NULL)) return 0;
    struct eng_grammar_state *s = eng_grammar_state_open(g);
    int32_t n = eng_grammar_need_tokens(s, made(api->grammar_vocab), INT32_MAX);
    eng_grammar_state_close(s);
    eng_grammar_close(g);
    return n == INT32_MAX ? 0 : n + 1;
}
