/* grammar_in.c: the fields that ask for text of a certain form: response_format,
 * structured_outputs, and the names they had before (guided_*) or have elsewhere (grammar,
 * json_schema).
 *
 * The source is compiled here, on a text thread, by the code that the ranks use: what they would
 * not honour is refused with the keyword and its place. */
#include "coordinator/api/sampling_in.h"
#include "coordinator/api/json_out.h"
#include "coordinator/api/structural_tag.h"
#include "engine/grammar/grammar.h"

#include <stdlib.h>
#include <string.h>

/* What is asked for, and by which field. */
struct asked {
    struct crd_request *r;
    const struct crd_api *api;
    struct crd_api_error *e;
    const char *field;
};

/* Err BAD_REQUEST: it is too long, or does not compile. */
static enum err settle(struct asked *q, enum grammar_kind kind, const char *text)
{
    struct grammar_source *g = &q->r->grammar;
    struct eng_grammar *compiled;
    size_t n = text ? strlen(text) : 0;
    if (g->kind != GRAMMAR_NONE)
        return crd_api_refuse(q->e, 400, q->field,
                              "You can only use one kind of structured outputs constraint.");
    if (n > LIMIT_GRAMMAR_BYTES)
        return crd_api_refuse(q->e, 400, q->field, "%s has %zu bytes, at most %d are allowed.",
                              q->field, n, LIMIT_GRAMMAR_BYTES);
    g->kind = kind;
    g->n = (int32_t)n;
    g->text = xstrndup(n ? text : "", n);
    g->hash = grammar_hash(g);
    if (eng_grammar_compile(&compiled, g, NULL))
        return crd_api_refuse(q->e, 400, q->field, "Invalid grammar specification: %s", err_text());
    eng_grammar_close(compiled);
    return OK;
}

static enum err settle_json(struct asked *q, enum grammar_kind kind, const json_t *j)
{
    struct buf text = {0};
    enum err e;
    if (json_out_value(&text, j, LIMIT_GRAMMAR_BYTES))
        e = settle(q, kind, buf_str(&text));
    else
        e = crd_api_refuse(q->e, 400, q->field, "%s takes more than %d bytes.", q->field, LIMIT_GRAMMAR_BYTES);
    buf_free(&text);
    return e;
}

/* A schema, or its text. */
static enum err schema(struct asked *q, const json_t *j)
{
    if (json_is_string(j)) return settle(q, GRAMMAR_SCHEMA, json_string_value(j));
    if (!json_is_object(j) && !json_is_boolean(j))
        return crd_api_malformed(q->e, q->field, "%s: Input should be a JSON schema", q->field);
    return settle_json(q, GRAMMAR_SCHEMA, j);
}

/* A structural tag, or its text. path: of it. */
static enum err structural_tag(struct asked *q, const json_t *j, const char *path)
{
    json_t *parts, *read = NULL;
    if (json_is_string(j)) j = read = json_loadb(json_string_value(j), json_string_length(j), JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(j)) {
        json_decref(read);
        return crd_api_malformed(q->e, q->field, "%s: Input should be a structural tag, an object", path);
    }
    enum err e = crd_structural_tag(j, path, q->api->tokenizer, &parts);
    json_decref(read);
    if (e) return crd_api_refuse(q->e, 400, q->field, "Invalid grammar specification: %s", err_text());
    e = settle_json(q, GRAMMAR_PARTS, parts);
    json_decref(parts);
    return e;
}

static enum err text(struct asked *q, enum grammar_kind kind, const json_t *j)
{
    if (!json_is_string(j))
        return crd_api_malformed(q->e, q->field, "%s: Input should be a valid string", q->field);
    return settle(q, kind, json_string_value(j));
}

static enum err choice(struct asked *q, const json_t *j)
{
    const json_t *s;
    size_t i;
    if (!json_is_array(j) || !json_array_size(j))
        return crd_api_malformed(q->e, q->field, "%s: Input should be a list of strings", q->field);
    json_array_foreach((json_t *)j, i, s) if (!json_is_string(s)) return crd_api_malformed(
        q->e, q->field, "%s.%zu: Input should be a valid string", q->field, i);
    return settle_json(q, GRAMMAR_CHOICE, j);
}

static enum err response_format(struct asked *q)
{
    const json_t *f = crd_request_get(q->r, "response_format");
    const char *type = json_string_value(json_object_get(f, "type"));
    q->field = "response_format";
    if (!f) return OK;
    if (!type) return crd_api_malformed(q->e, q->field, "response_format.type: Field required");
    if (!strcmp(type, "text")) return OK;
    if (!strcmp(type, "json_object")) return settle(q, GRAMMAR_JSON_OBJECT, NULL);
    if (!strcmp(type, "structural_tag")) return structural_tag(q, f, q->field);
    if (strcmp(type, "json_schema"))
        return crd_api_refuse(q->e, 400, q->field, "response_format type '%.64s' is not supported: text, json_object, json_schema and structural_tag are.",
                              type);
    const json_t *j = json_object_get(f, "json_schema"), *s;
    if (!json_is_object(j))
        return crd_api_refuse(q->e, 400, q->field,
                              "When response_format type is 'json_schema', the 'json_schema' field "
                              "must be provided.");
    s = json_object_get(j, "schema");
    if (!s || json_is_null(s))
        return crd_api_malformed(q->e, q->field,
                                 "response_format.json_schema.schema: Field required");
    return schema(q, s);
}

static enum err structured_outputs(struct asked *q)
{
    enum err rc = OK;
    const json_t *o = crd_request_get(q->r, "structured_outputs"), *j;
    const char *key;
    q->field = "structured_outputs";
    if (!o) return OK;
    if (!json_is_object(o))
        return crd_api_malformed(q->e, q->field,
                                 "structured_outputs: Input should be a valid dictionary");
    if (json_is_true(json_object_get(o, "disable_any_whitespace")))
        q->r->grammar.flags |= GRAMMAR_COMPACT;
    json_object_foreach((json_t *)o, key, j)
    {
        if (json_is_null(j) || json_is_false(j)) continue;
        if (!strcmp(key, "json"))
            TRY(schema(q, j));
        else if (!strcmp(key, "regex"))
            TRY(text(q, GRAMMAR_REGEX, j));
        else if (!strcmp(key, "choice"))
            TRY(choice(q, j));
        else if (!strcmp(key, "grammar"))
            TRY(text(q, GRAMMAR_GBNF, j));
        else if (!strcmp(key, "json_object"))
            TRY(settle(q, GRAMMAR_JSON_OBJECT, NULL));
        else if (!strcmp(key, "structural_tag"))
            TRY(structural_tag(q, j, "structured_outputs.structural_tag"));
        else if (strncmp(key, "disable_", 8) != 0)
            return crd_api_refuse(q->e, 400, q->field, "structured_outputs.%.64s is not supported.",
                                  key);
    }
out:
    return rc;
}

/* The same things under names of their own. */
static enum err aliases(struct asked *q)
{
    static const struct {
        const char *name;
        enum grammar_kind kind;
    } names[] = {{"guided_json", GRAMMAR_SCHEMA},  {"json_schema", GRAMMAR_SCHEMA},
                 {"guided_regex", GRAMMAR_REGEX},  {"guided_choice", GRAMMAR_CHOICE},
                 {"guided_grammar", GRAMMAR_GBNF}, {"grammar", GRAMMAR_GBNF},
                 {"structural_tag", GRAMMAR_PARTS}};
    enum err rc = OK;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        const json_t *j = crd_request_get(q->r, names[i].name);
        q->field = names[i].name;
        if (!j) continue;
        if (names[i].kind == GRAMMAR_SCHEMA)
            TRY(schema(q, j));
        else if (names[i].kind == GRAMMAR_PARTS)
            TRY(structural_tag(q, j, q->field));
        else if (names[i].kind == GRAMMAR_CHOICE)
            TRY(choice(q, j));
        else
            TRY(text(q, names[i].kind, j));
    }
out:
    return rc;
}

enum err crd_grammar_in(struct crd_request *r, const struct crd_api *api, struct crd_api_error *e)
{
    enum err rc;
    struct asked q = {r, api, e, NULL};
    TRY(response_format(&q));
    TRY(structured_outputs(&q));
    TRY(aliases(&q));
out:
    return rc;
}

bool crd_grammar_known(const char *name)
{
    static const char *const names[] = {
        "structured_outputs", "guided_json", "guided_regex", "guided_choice",
        "guided_grammar",     "json_schema", "grammar",     "structural_tag"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (!strcmp(names[i], name)) return true;
    return false;
}
