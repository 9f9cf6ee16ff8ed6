/* translate.c: see translate.h. */
#include "coordinator/api/translate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct crd_dialect_in *crd_dialect_in_of(enum crd_endpoint ep)
{
    static const struct crd_dialect_in *const all[] = {
        [ENDPOINT_CHAT] = NULL,
        [ENDPOINT_COMPLETIONS] = NULL,
        [ENDPOINT_MESSAGES] = &crd_messages_in,
        [ENDPOINT_RESPONSES] = &crd_responses_in,
        [ENDPOINT_OLLAMA_CHAT] = &crd_ollama_chat_in,
        [ENDPOINT_OLLAMA_GENERATE] = &crd_ollama_generate_in,
        [ENDPOINT_EMBEDDINGS] = NULL,
        [ENDPOINT_OLLAMA_EMBED] = &crd_ollama_embed_in,
        [ENDPOINT_OLLAMA_EMBEDDINGS] = &crd_ollama_embeddings_in,
    };
    return all[ep];
}

static void copy(const json_t *from, json_t *to, const struct crd_field_name *names)
{
    for (; names && names->theirs; names++) {
        json_t *j = json_object_get(from, names->theirs);
        if (j && !json_is_null(j)) json_object_set(to, names->ours, j);
    }
}

enum err crd_translate(const struct crd_dialect_in *d, const json_t *given, json_t **out,
                       struct crd_api_error *e)
{
    enum err rc = OK;
    const json_t *inside = d->inside ? json_object_get(given, d->inside) : given;
    json_t *body = json_object();
    if (d->inside && inside && !json_is_null(inside) && !json_is_object(inside)) {
        rc = crd_api_malformed(e, d->inside, "%s: Input should be an object", d->inside);
        goto out;
    }
    copy(inside, body, d->names);
    copy(given, body, d->top);
    TRY(d->translate(given, body, e));
    *out = body;
    body = NULL;
out:
    json_decref(body);
    return rc;
}

static const char *theirs(const struct crd_field_name *names, const char *ours)
{
    for (; names && names->theirs; names++)
        if (!strcmp(names->ours, ours)) return names->theirs;
    return NULL;
}

/* A sentence that begins with our name for the field begins with theirs. */
static void say_theirs(struct crd_api_error *e, const char *name)
{
    size_t n = strlen(e->param);
    if (!e->message || strncmp(e->message, e->param, n) || !strchr(":. ", e->message[n])) return;
    char *text = xasprintf("%s%s", name, e->message + n);
    free(e->message);
    e->message = text;
}

void crd_translate_error(const struct crd_dialect_in *d, struct crd_api_error *e)
{
    const char *top = theirs(d->top, e->param), *name = theirs(d->names, e->param);
    char param[sizeof e->param];
    if (top)
        snprintf(param, sizeof param, "%s", top);
    else if (name && d->inside)
        snprintf(param, sizeof param, "%s.%s", d->inside, name);
    else if (name)
        snprintf(param, sizeof param, "%s", name);
    else
        return;
    say_theirs(e, param);
    memcpy(e->param, param, sizeof param);
}

json_t *crd_translate_message(const char *role, const json_t *content)
{
    json_t *m = json_object();
    json_object_set_new(m, "role", json_string(role));
    if (content) json_object_set(m, "content", (json_t *)(uintptr_t)content);
    return m;
}

static void copy_field(const json_t *from, const char *theirs_, json_t *to, const char *ours)
{
    json_t *j = json_object_get(from, theirs_);
    if (j && !json_is_null(j)) json_object_set(to, ours, j);
}

json_t *crd_translate_tool(const json_t *tool, const char *parameters)
{
    json_t *t = json_object(), *f = json_object();
    copy_field(tool, "name", f, "name");
    copy_field(tool, "description", f, "description");
    copy_field(tool, parameters, f, "parameters");
    json_object_set_new(t, "type", json_string("function"));
    json_object_set_new(t, "function", f);
    return t;
}

json_t *crd_translate_call(const json_t *id, const json_t *name, const json_t *arguments)
{
    json_t *c = json_object(), *f = json_object();
    if (id) json_object_set(c, "id", (json_t *)(uintptr_t)id);
    json_object_set_new(c, "type", json_string("function"));
    if (name) json_object_set(f, "name", (json_t *)(uintptr_t)name);
    if (arguments) json_object_set(f, "arguments", (json_t *)(uintptr_t)arguments);
    json_object_set_new(c, "function", f);
    return c;
}

void crd_translate_thinking(json_t *body, bool on)
{
    json_t *kwargs = json_object();
    json_object_set_new(kwargs, "enable_thinking", json_boolean(on));
    json_object_set_new(body, "chat_template_kwargs", kwargs);
}
