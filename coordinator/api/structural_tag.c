/* structural_tag.c: see structural_tag.h: formats by their type. What a translation is: tag_impl.h. */
#include "coordinator/api/tag_impl.h"
#include "base/base.h"

#include <stdio.h>
#include <string.h>

static enum err elements(struct crd_tag *x, const json_t *f, bool last_ends, const json_t *ends, json_t **out)
{
    const json_t *list = json_object_get(f, "elements");
    enum err rc = OK;
    json_t *all = json_array(), *one;
    if (!json_array_size(list)) TRY(crd_tag_refuse(x, "elements", "a list of formats is needed"));
    for (size_t i = 0; i < json_array_size(list); i++) {
        size_t n = crd_tag_down(x, ".elements.%zu", i);
        TRY(crd_tag_format(x, json_array_get(list, i), last_ends && i + 1 < json_array_size(list) ? NULL : ends, &one));
        crd_tag_up(x, n);
        json_array_append_new(all, one);
    }
    *out = all;
    all = NULL;
out:
    json_decref(all);
    return rc;
}

static enum err schema(struct crd_tag *x, const json_t *f, json_t **out)
{
    static const char *const keys[] = {"type", "json_schema", "style", "any_order", NULL};
    static const struct {
        const char *name, *open, *mid, *close, *raw;
    } styles[] = {{"qwen_xml", "<parameter=", ">\n", "\n</parameter>\n", "</parameter>"},
                  {"glm_xml", "<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n", "</arg_value>"}};
    const json_t *s = json_object_get(f, "json_schema"), *style = json_object_get(f, "style");
    const char *how = json_string_value(style);
    enum err rc;
    json_t *p = NULL;
    TRY(crd_tag_refuse_others(x, f, keys));
    if (json_is_true(json_object_get(f, "any_order"))) TRY(crd_tag_refuse(x, "any_order", "is not supported: keys come in the schema's order"));
    if (!json_is_object(s) && !json_is_boolean(s)) TRY(crd_tag_refuse(x, "json_schema", "a JSON schema is needed"));
    p = crd_tag_part("schema", json_incref((json_t *)(uintptr_t)s));
    size_t n = crd_tag_down(x, x->older ? "%s" : ".json_schema%s", "");
    json_object_set_new(p, "of", json_string(x->path));
    crd_tag_up(x, n);
    if (how && strcmp(how, "json")) {
        size_t i = 0;
        while (i < COUNT_OF(styles) && strcmp(styles[i].name, how)) i++;
        if (i == COUNT_OF(styles)) TRY(crd_tag_refuse(x, "style", "json, qwen_xml and glm_xml are supported"));
        json_object_set_new(p, "args", json_pack("{s:s,s:s,s:s,s:s}", "open", styles[i].open, "mid", styles[i].mid, "close",
                                                 styles[i].close, "raw", styles[i].raw));
    } else if (style && !how && !json_is_null(style)) {
        TRY(crd_tag_refuse(x, "style", "a text is needed"));
    }
    *out = p;
    p = NULL;
out:
    json_decref(p);
    return rc;
}

static enum err repeated(struct crd_tag *x, const json_t *f, int64_t min, int64_t max, json_t **out)
{
    static const char *const keys[] = {"type", "content", "min", "max", NULL};
    enum err rc;
    json_t *p, *seq;
    TRY(crd_tag_refuse_others(x, f, keys));
    if (min < 0 || min > STRUCTURAL_REPEAT || max > STRUCTURAL_REPEAT || (max >= 0 && max < min))
        TRY(crd_tag_refuse(x, "max", "at most 256 repetitions are supported, and not less than min (-1: no end)"));
    TRY(crd_tag_member(x, f, "content", NULL, &p));
    seq = json_array();
    for (int64_t i = 0; i < min; i++) json_array_append(seq, p);
    if (max < 0) {
        json_array_append_new(seq, crd_tag_part("any", json_pack("[s,o]", "", crd_tag_part("some", json_incref(p)))));
    } else {
        /* (p (p (p)?)?)? would be deep; one after the other each may be missing */
        json_t *maybe = crd_tag_part("any", json_pack("[s,O]", "", p));
        for (int64_t i = min; i < max; i++) json_array_append(seq, maybe);
        json_decref(maybe);
    }
    json_decref(p);
    *out = crd_tag_part("seq", seq);
out:
    return rc;
}

static enum err number(const struct crd_tag *x, const json_t *f, const char *key, int64_t *out)
{
    const json_t *j = json_object_get(f, key);
    if (!json_is_integer(j)) return crd_tag_refuse(x, key, "an integer is needed");
    *out = json_integer_value(j);
    return OK;
}

static enum err texts(struct crd_tag *x, const json_t *f, const char *type, const json_t *ends, json_t **out)
{
    static const char *const keys[][3] = {{"type", "value"}, {"type", "grammar"}, {"type", "pattern"}};
    static const struct {
        const char *type, *key;
    } kinds[] = {{"const_string", "value"}, {"grammar", "grammar"}, {"regex", "pattern"}};
    size_t i = 0;
    enum err rc;
    while (strcmp(kinds[i].type, type)) i++;
    const json_t *v = json_object_get(f, kinds[i].key);
    TRY(crd_tag_refuse_others(x, f, keys[i]));
    if (!json_is_string(v)) TRY(crd_tag_refuse(x, kinds[i].key, "a text is needed"));
    json_t *p = i == 0   ? crd_tag_literal(x, json_string_value(v))
                : i == 1 ? crd_tag_part("gbnf", json_incref((json_t *)(uintptr_t)v))
                         : crd_tag_part("regex", json_incref((json_t *)(uintptr_t)v));
    *out = crd_tag_then_end(p, ends);
out:
    return rc;
}

static enum err any(struct crd_tag *x, const json_t *f, bool tokens, const json_t *ends, json_t **out)
{
    static const char *const text[] = {"type", "excludes", NULL}, *const token_keys[] = {"type", "exclude_tokens", NULL};
    enum err rc = crd_tag_refuse_others(x, f, tokens ? token_keys : text);
    return rc ? rc : crd_tag_dispatching(x, f, json_array(), tokens, false, ends, out);
}

static enum err by_type(struct crd_tag *x, const json_t *f, const char *type, const json_t *ends, json_t **out)
{
    enum err rc;
    json_t *p = NULL;
    int64_t min = 0, max = -1;
#define IS(name) (!strcmp(type, name))
    if (IS("const_string") || IS("grammar") || IS("regex")) return texts(x, f, type, ends, out);
    if (IS("any_text") || IS("any_tokens")) return any(x, f, IS("any_tokens"), ends, out);
    if (IS("triggered_tags") || IS("token_triggered_tags")) return crd_tag_triggered(x, f, IS("token_triggered_tags"), ends, out);
    if (IS("dispatch") || IS("token_dispatch")) return crd_tag_dispatch(x, f, IS("token_dispatch"), ends, out);
    if (IS("tags_with_separator")) return crd_tag_separated(x, f, ends, out);
    if (IS("sequence")) {
        TRY(elements(x, f, true, ends, &p)); /* its last one ends */
        *out = crd_tag_part("seq", p);
        return OK;
    }
    if (IS("or")) {
        TRY(elements(x, f, false, ends, &p)); /* each one ends */
        *out = crd_tag_part("any", p);
        return OK;
    }
    if (IS("optional")) {
        TRY(crd_tag_member(x, f, "content", ends, &p));
        *out = crd_tag_part("any", json_pack("[o,o]", crd_tag_then_end(json_string(""), ends), p));
        return OK;
    }
    if (IS("json_schema"))
        TRY(schema(x, f, &p));
    else if (IS("plus") || IS("star"))
        TRY(repeated(x, f, IS("plus"), -1, &p));
    else if (IS("repeat")) {
        TRY(number(x, f, "min", &min));
        TRY(number(x, f, "max", &max));
        TRY(repeated(x, f, min, max < 0 ? -1 : max, &p));
    } else if (IS("tag"))
        TRY(crd_tag_one(x, f, 0, &p));
    else if (IS("token"))
        TRY(crd_tag_token(x, "token", json_object_get(f, "token"), &p));
    else
        TRY(crd_tag_refuse(x, "type", "no such format, or one that is not supported"));
#undef IS
    *out = crd_tag_then_end(p, ends);
out:
    return rc;
}

enum err crd_tag_format(struct crd_tag *x, const json_t *f, const json_t *ends, json_t **out)
{
    const char *type = json_string_value(json_object_get(f, "type"));
    if (!json_is_object(f)) return crd_tag_refuse(x, "", "a format, an object with a type, is needed");
    if (!type) return crd_tag_refuse(x, "type", "Field required");
    if (x->depth == STRUCTURAL_DEEP) return crd_tag_refuse(x, "", "nested too deep");
    x->depth++;
    enum err rc = by_type(x, f, type, ends, out);
    x->depth--;
    return rc;
}

/* ---- the older form ---- */

static enum err older(struct crd_tag *x, const json_t *tag, json_t **out)
{
    const json_t *list = json_object_get(tag, "structures"), *s;
    enum err rc = OK;
    json_t *tags = json_array(), *f = NULL;
    for (size_t i = 0; i < json_array_size(list); i++) {
        size_t n = crd_tag_down(x, ".structures.%zu", i);
        const json_t *one = json_array_get(list, i), *begin = json_object_get(one, "begin"), *end = json_object_get(one, "end");
        if (!json_string_length(begin)) TRY(crd_tag_refuse(x, "begin", "a text is needed"));
        if (!json_is_string(end)) TRY(crd_tag_refuse(x, "end", "a text is needed"));
        s = json_object_get(one, "schema");
        if (s && !json_is_null(s) && !json_is_object(s) && !json_is_boolean(s)) TRY(crd_tag_refuse(x, "schema", "a JSON schema is needed"));
        crd_tag_up(x, n);
        json_t *content = json_pack("{s:s,s:o}", "type", "json_schema", "json_schema",
                                    s && !json_is_null(s) ? json_incref((json_t *)(uintptr_t)s) : json_true());
        json_array_append_new(tags, json_pack("{s:O,s:o,s:O}", "begin", begin, "content", content, "end", end));
    }
    if (!json_array_size(tags)) TRY(crd_tag_refuse(x, "structures", "a list is needed, not an empty one"));
    f = json_pack("{s:s,s:O}", "type", "triggered_tags", "tags", tags);
    json_object_set(f, "triggers", json_object_get(tag, "triggers"));
    x->older = true;
    rc = crd_tag_format(x, f, NULL, out);
out:
    json_decref(tags);
    json_decref(f);
    return rc;
}

enum err crd_structural_tag(const json_t *tag, const char *path, const struct eng_tokenizer *t, json_t **out)
{
    struct crd_tag x = {.t = t};
    snprintf(x.path, sizeof x.path, "%s", path);
    if (!json_is_object(tag)) return crd_tag_refuse(&x, "", "an object is needed");
    if (json_object_get(tag, "structures")) return older(&x, tag, out);
    crd_tag_down(&x, ".format");
    return crd_tag_format(&x, json_object_get(tag, "format"), NULL, out);
}
