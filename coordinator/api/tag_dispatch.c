/* tag_dispatch.c: see tag_impl.h: tags, and free text whose triggers lead to them. */
#include "coordinator/api/tag_impl.h"
#include "base/base.h"

#include <stdlib.h>
#include <string.h>

enum err crd_tag_one(struct crd_tag *x, const json_t *f, size_t skip, json_t **out)
{
    static const char *const keys[] = {"type", "begin", "content", "end", NULL};
    enum err rc;
    json_t *begin = NULL, *ends = NULL, *inner;
    const char *type = json_string_value(json_object_get(f, "type")),
               *text = json_string_value(json_object_get(f, "begin"));
    if (!json_is_object(f) || (type && strcmp(type, "tag"))) TRY(crd_tag_refuse(x, "", "a tag is needed"));
    TRY(crd_tag_refuse_others(x, f, keys));
    TRY(crd_tag_marks(x, f, "end", &ends));
    if (text)
        begin = json_pack("[o]", crd_tag_literal(x, text + skip));
    else
        TRY(crd_tag_marks(x, f, "begin", &begin));
    TRY(crd_tag_member(x, f, "content", ends, &inner));
    json_t *seq = json_array();
    if (text || !skip) json_array_append(seq, json_array_get(begin, 0)); /* a token that was the trigger is written */
    json_array_append_new(seq, inner);
    *out = crd_tag_part("seq", seq);
out:
    json_decref(begin);
    json_decref(ends);
    return rc;
}

/* Of a list of tags, all of them, or those that begin with a trigger, without it. */
static enum err tags_of(struct crd_tag *x, const json_t *f, const json_t *trigger, bool tokens, int32_t *used,
                        json_t **out)
{
    const json_t *list = json_object_get(f, "tags");
    enum err rc = OK;
    json_t *any = json_array(), *one;
    if (!json_array_size(list)) TRY(crd_tag_refuse(x, "tags", "a list of tags is needed"));
    if (json_array_size(list) > STRUCTURAL_TAGS) TRY(crd_tag_refuse(x, "tags", "at most 1024 are supported"));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *g = json_array_get(list, i), *begin = json_object_get(g, "begin");
        size_t n = crd_tag_down(x, x->older ? ".structures.%zu" : ".tags.%zu", i), skip = 0;
        if (trigger && !tokens) {
            skip = json_string_length(trigger);
            if (!json_is_string(begin)) TRY(crd_tag_refuse(x, "begin", "a text is needed"));
            if (strncmp(json_string_value(begin), json_string_value(trigger), skip)) {
                crd_tag_up(x, n);
                continue;
            }
        } else if (trigger) {
            json_t *a, *b;
            if (!json_object_get(begin, "token")) TRY(crd_tag_refuse(x, "begin", "a token is needed"));
            TRY(crd_tag_token(x, "begin", json_object_get(begin, "token"), &a));
            rc = crd_tag_token(x, "begin", trigger, &b);
            skip = !rc && json_equal(a, b);
            json_decref(a);
            if (rc) goto out;
            json_decref(b);
            if (!skip) {
                crd_tag_up(x, n);
                continue;
            }
        }
        if (used && used[i]++) TRY(crd_tag_refuse(x, "begin", "more than one of the triggers fits"));
        TRY(crd_tag_one(x, g, skip, &one));
        crd_tag_up(x, n);
        json_array_append_new(any, one);
    }
    *out = any;
    any = NULL;
out:
    json_decref(any);
    return rc;
}

enum err crd_tag_dispatching(struct crd_tag *x, const json_t *f, json_t *on, bool tokens, bool once, const json_t *ends,
                            json_t **out)
{
    enum err rc;
    json_t *not = NULL, *text;
    TRY(crd_tag_list(x, f, tokens ? "exclude_tokens" : "excludes", tokens, &not));
    text = json_pack("{s:O,s:b}", "on", on, "once", once);
    /* a mark that ends the text and is excluded from it ends it */
    json_t *kept = json_array(), *one;
    size_t i, k;
    json_array_foreach(not, i, one)
    {
        bool end = false;
        for (k = 0; k < json_array_size(ends); k++) end |= json_equal(one, json_array_get(ends, k));
        if (!end) json_array_append(kept, one);
    }
    json_object_set_new(text, "not", kept);
    if (json_array_size(ends)) json_object_set(text, "end", (json_t *)(uintptr_t)ends);
    *out = crd_tag_part("free", text);
out:
    json_decref(not);
    json_decref(on);
    return rc;
}

/* A trigger's mark, and what may follow it: [mark, any of the tags it begins]. */
static enum err one_trigger(struct crd_tag *x, const json_t *f, const json_t *trigger, bool tokens, const char *name, int32_t used[],
                            json_t **out)
{
    enum err rc;
    json_t *mark = NULL, *any = NULL;
    if (!tokens && !json_string_length(trigger)) TRY(crd_tag_refuse(x, name, "a list of texts is needed, none of them empty"));
    if (tokens)
        TRY(crd_tag_token(x, name, trigger, &mark));
    else
        mark = crd_tag_mark(x, json_string_value(trigger));
    TRY(tags_of(x, f, trigger, tokens, used, &any));
    if (!json_array_size(any)) TRY(crd_tag_refuse(x, name, "one of them begins no tag"));
    *out = json_pack("[o,o]", mark, crd_tag_part("any", any));
    mark = any = NULL; /* given to *out */
out:
    json_decref(mark);
    json_decref(any);
    return rc;
}

enum err crd_tag_triggered(struct crd_tag *x, const json_t *f, bool tokens, const json_t *ends, json_t **out)
{
    static const char *const keys[] = {"type", "triggers", "trigger_tokens", "tags", "at_least_one", "stop_after_first",
                                       "excludes", "exclude_tokens", NULL};
    const char *name = tokens ? "trigger_tokens" : "triggers";
    const json_t *triggers = json_object_get(f, name), *tags = json_object_get(f, "tags");
    const bool least = json_is_true(json_object_get(f, "at_least_one")), once = json_is_true(json_object_get(f, "stop_after_first"));
    enum err rc;
    json_t *on = json_array(), *first = NULL, *any, *each = NULL;
    int32_t *used = xcalloc(json_array_size(tags) + 1, sizeof *used);
    TRY(crd_tag_refuse_others(x, f, keys));
    if (!json_array_size(triggers)) TRY(crd_tag_refuse(x, name, "a list is needed, not an empty one"));
    if (json_array_size(triggers) > STRUCTURAL_TAGS) TRY(crd_tag_refuse(x, name, "at most 1024 are supported"));
    for (size_t i = 0; i < json_array_size(triggers); i++) {
        TRY(one_trigger(x, f, json_array_get(triggers, i), tokens, name, used, &each));
        json_array_append_new(on, each);
    }
    for (size_t i = 0; i < json_array_size(tags); i++) {
        size_t n = crd_tag_down(x, x->older ? ".structures.%zu" : ".tags.%zu", i);
        if (!used[i]) TRY(crd_tag_refuse(x, "begin", "none of the triggers fits"));
        crd_tag_up(x, n);
    }
    if (least) {
        TRY(tags_of(x, f, NULL, false, NULL, &any));
        first = crd_tag_part("any", any);
    }
    if (least && once) {
        *out = crd_tag_then_end(json_incref(first), ends);
    } else {
        json_t *rest;
        rc = crd_tag_dispatching(x, f, on, tokens, once, ends, &rest);
        on = NULL;
        if (rc) goto out;
        *out = least ? crd_tag_part("seq", json_pack("[O,o]", first, rest)) : rest;
    }
out:
    free(used);
    json_decref(first);
    json_decref(on);
    return rc;
}

enum err crd_tag_dispatch(struct crd_tag *x, const json_t *f, bool tokens, const json_t *ends, json_t **out)
{
    static const char *const keys[] = {"type", "rules", "loop", "excludes", "exclude_tokens", NULL};
    const json_t *rules = json_object_get(f, "rules");
    enum err rc;
    json_t *on = json_array(), *mark = NULL, *then;
    TRY(crd_tag_refuse_others(x, f, keys));
    if (!json_array_size(rules)) TRY(crd_tag_refuse(x, "rules", "a list of pairs is needed"));
    for (size_t i = 0; i < json_array_size(rules); i++) {
        const json_t *pair = json_array_get(rules, i), *pattern = json_array_get(pair, 0);
        size_t n = crd_tag_down(x, ".rules.%zu", i);
        if (json_array_size(pair) != 2 || (!tokens && !json_string_length(pattern)))
            TRY(crd_tag_refuse(x, "", "a pattern, not empty, and a format are needed"));
        if (tokens)
            TRY(crd_tag_token(x, "0", pattern, &mark));
        else
            mark = crd_tag_mark(x, json_string_value(pattern));
        size_t m = crd_tag_down(x, ".1");
        TRY(crd_tag_format(x, json_array_get(pair, 1), NULL, &then));
        crd_tag_up(x, m);
        crd_tag_up(x, n);
        json_array_append_new(on, json_pack("[o,o]", mark, then));
        mark = NULL;
    }
    rc = crd_tag_dispatching(x, f, on, tokens, json_is_false(json_object_get(f, "loop")), ends, out);
    on = NULL;
out:
    json_decref(mark);
    json_decref(on);
    return rc;
}

enum err crd_tag_separated(struct crd_tag *x, const json_t *f, const json_t *ends, json_t **out)
{
    static const char *const keys[] = {"type", "tags", "separator", "at_least_one", "stop_after_first", NULL};
    const json_t *sep = json_object_get(f, "separator");
    enum err rc;
    json_t *any;
    TRY(crd_tag_refuse_others(x, f, keys));
    if (!json_is_string(sep)) TRY(crd_tag_refuse(x, "separator", "a text is needed"));
    TRY(tags_of(x, f, NULL, false, NULL, &any));
    json_t *p = crd_tag_part("any", any);
    if (!json_is_true(json_object_get(f, "stop_after_first"))) {
        p = crd_tag_part("some", p);
        if (json_string_length(sep)) json_object_set_new(p, "sep", crd_tag_literal(x, json_string_value(sep)));
    }
    if (!json_is_true(json_object_get(f, "at_least_one"))) p = crd_tag_part("any", json_pack("[s,o]", "", p));
    *out = crd_tag_then_end(p, ends);
out:
    return rc;
}
