/* structural_tag.c: see structural_tag.h.
 *
 * A format is translated together with what ends it: the ends of the tag around it. Where a format has free text in last place, the
 * first of the ends ends that text; elsewhere they follow. */
#include "coordinator/api/structural_tag.h"
#include "base/base.h"
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct translation {
    const struct eng_tokenizer *t;
    char path[512];
    int depth;
    bool older; /* the older form: other names in paths */
};

/* ---- paths ---- */

/* Go down; the length to go back to. */
static size_t down(struct translation *x, const char *fmt, ...) PRINTF(2, 3);
static size_t down(struct translation *x, const char *fmt, ...)
{
    size_t n = strlen(x->path);
    va_list args;
    va_start(args, fmt);
    vsnprintf(x->path + n, sizeof x->path - n, fmt, args);
    va_end(args);
    return n;
}

static void up(struct translation *x, size_t n)
{
    x->path[n] = 0;
}

static enum err refuse(const struct translation *x, const char *key, const char *what)
{
    return err_raise(ERR_BAD_REQUEST, "%s%s%s: %s", x->path, *key ? "." : "", key, what);
}

/* Keys that would change what is meant, if they were ignored. */
static enum err refuse_others(const struct translation *x, const json_t *f, const char *const keys[])
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)f, key, v)
    {
        bool known = json_is_null(v);
        for (size_t i = 0; keys[i] && !known; i++) known = !strcmp(keys[i], key);
        if (!known) return refuse(x, key, "is not supported here");
    }
    return OK;
}

/* ---- literals ---- */

static json_t *part(const char *key, json_t *value)
{
    json_t *p = json_object();
    json_object_set_new(p, key, value);
    return p;
}

static bool is_control(const struct translation *x, const char *text)
{
    int32_t id = x->t ? eng_tokenizer_find(x->t, text) : -1;
    return id >= 0 && eng_tokenizer_type(x->t, id) == TOKEN_CONTROL;
}

/* The longest control token that the text begins with; 0: none. Such tokens are written <...> or [...]. */
static size_t control_at(const struct translation *x, const char *p)
{
    char word[128];
    if (*p != '<' && *p != '[') return 0;
    for (size_t n = strnlen(p, sizeof word - 1); n > 2; n--) {
        if (p[n - 1] != '>' && p[n - 1] != ']') continue;
        memcpy(word, p, n);
        word[n] = 0;
        if (is_control(x, word)) return n;
    }
    return 0;
}

/* A mark of parts: the text, its control tokens apart. */
static json_t *mark_of(const struct translation *x, const char *text)
{
    json_t *list = json_array();
    const char *from = text, *p = text;
    while (*p) {
        size_t n = control_at(x, p);
        if (!n) {
            p++;
            continue;
        }
        if (p > from) json_array_append_new(list, json_stringn(from, (size_t)(p - from)));
        json_array_append_new(list, part("token", json_stringn(p, n)));
        from = p += n;
    }
    if (p > from) json_array_append_new(list, json_string(from));
    return list;
}

/* The same as a part to be written. */
static json_t *literal(const struct translation *x, const char *text)
{
    return part("seq", mark_of(x, text));
}

/* A token by its id or its text. */
static enum err token(const struct translation *x, const char *key, const json_t *j, json_t **out)
{
    struct buf text = {0};
    if (json_is_integer(j) && x->t) {
        json_int_t id = json_integer_value(j);
        if (id < 0 || id >= eng_tokenizer_size(x->t)) return refuse(x, key, "the vocabulary has no such token");
        eng_tokenizer_piece(x->t, (int32_t)id, true, &text);
    } else if (json_is_string(j)) {
        buf_puts(&text, json_string_value(j));
    }
    if (!text.len) {
        buf_free(&text);
        return refuse(x, key, "a token's id or text is needed");
    }
    if (is_control(x, buf_str(&text)))
        *out = part("token", json_string(buf_str(&text)));
    else
        *out = json_string(buf_str(&text));
    buf_free(&text);
    return *out ? OK : refuse(x, key, "the token is part of a character only");
}

/* "end" or "begin": a string, a token, or (ends) a list of strings; *out: a list of marks, those that are empty left out. */
static enum err marks(const struct translation *x, const json_t *f, const char *key, json_t **out)
{
    const json_t *j = json_object_get(f, key), *one = j;
    enum err rc = OK;
    json_t *list = json_array(), *tok;
    for (size_t i = 0; i < (json_is_array(j) ? json_array_size(j) : 1); i++) {
        if (json_is_array(j)) one = json_array_get(j, i);
        if (json_is_object(one)) {
            const char *type = json_string_value(json_object_get(one, "type"));
            if (type && strcmp(type, "token")) TRY(refuse(x, key, "a text or a token is needed"));
            TRY(token(x, key, json_object_get(one, "token"), &tok));
            json_array_append_new(list, tok);
        } else if (json_is_string(one)) {
            if (json_string_length(one)) json_array_append_new(list, mark_of(x, json_string_value(one)));
        } else {
            TRY(refuse(x, key, j ? "a text or a token is needed" : "Field required"));
        }
    }
    *out = list;
    list = NULL;
out:
    json_decref(list);
    return rc;
}

/* A list of texts, or of tokens. */
static enum err list_of(const struct translation *x, const json_t *f, const char *key, bool tokens, json_t **out)
{
    const json_t *j = json_object_get(f, key);
    enum err rc = OK;
    json_t *list = json_array(), *one, *tok;
    size_t i;
    if (j && !json_is_null(j) && !json_is_array(j)) TRY(refuse(x, key, "a list is needed"));
    json_array_foreach((json_t *)(uintptr_t)j, i, one)
    {
        if (tokens) {
            TRY(token(x, key, one, &tok));
            json_array_append_new(list, tok);
        } else if (json_string_length(one)) {
            json_array_append_new(list, mark_of(x, json_string_value(one)));
        } else {
            TRY(refuse(x, key, "a list of texts is needed, none of them empty"));
        }
    }
    *out = list;
    list = NULL;
out:
    json_decref(list);
    return rc;
}

/* ---- what stands in a row ---- */

/* A mark (a text, a token, a list of them) as a part. */
static json_t *as_part(const json_t *mark)
{
    return json_is_array(mark) ? part("seq", json_incref((json_t *)(uintptr_t)mark)) : json_incref((json_t *)(uintptr_t)mark);
}

/* p, then one of the ends. Takes p. */
static json_t *then_end(json_t *p, const json_t *ends)
{
    json_t *any = json_array(), *one;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)ends, i, one) json_array_append_new(any, as_part(one));
    if (json_array_size(any)) return part("seq", json_pack("[o,o]", p, part("any", any)));
    json_decref(any);
    return p;
}

static enum err format(struct translation *x, const json_t *f, const json_t *ends, json_t **out);

/* A format that is a member of another. */
static enum err member(struct translation *x, const json_t *f, const char *key, const json_t *ends, json_t **out)
{
    size_t n = down(x, ".%s", x->older ? "schema" : key);
    enum err rc = format(x, json_object_get(f, key), ends, out);
    if (!rc) up(x, n);
    return rc;
}

static enum err elements(struct translation *x, const json_t *f, bool last_ends, const json_t *ends, json_t **out)
{
    const json_t *list = json_object_get(f, "elements");
    enum err rc = OK;
    json_t *all = json_array(), *one;
    if (!json_array_size(list)) TRY(refuse(x, "elements", "a list of formats is needed"));
    for (size_t i = 0; i < json_array_size(list); i++) {
        size_t n = down(x, ".elements.%zu", i);
        TRY(format(x, json_array_get(list, i), last_ends && i + 1 < json_array_size(list) ? NULL : ends, &one));
        up(x, n);
        json_array_append_new(all, one);
    }
    *out = all;
    all = NULL;
out:
    json_decref(all);
    return rc;
}

/* ---- tags ---- */

/* begin, content, end. skip: letters of begin that have been written already. */
static enum err tag(struct translation *x, const json_t *f, size_t skip, json_t **out)
{
    static const char *const keys[] = {"type", "begin", "content", "end", NULL};
    enum err rc;
    json_t *begin = NULL, *ends = NULL, *inner;
    const char *type = json_string_value(json_object_get(f, "type")),
               *text = json_string_value(json_object_get(f, "begin"));
    if (!json_is_object(f) || (type && strcmp(type, "tag"))) TRY(refuse(x, "", "a tag is needed"));
    TRY(refuse_others(x, f, keys));
    TRY(marks(x, f, "end", &ends));
    if (text)
        begin = json_pack("[o]", literal(x, text + skip));
    else
        TRY(marks(x, f, "begin", &begin));
    TRY(member(x, f, "content", ends, &inner));
    json_t *seq = json_array();
    if (text || !skip) json_array_append(seq, json_array_get(begin, 0)); /* a token that was the trigger is written */
    json_array_append_new(seq, inner);
    *out = part("seq", seq);
out:
    json_decref(begin);
    json_decref(ends);
    return rc;
}

/* Of a list of tags, all of them, or those that begin with a trigger, without it. */
static enum err tags_of(struct translation *x, const json_t *f, const json_t *trigger, bool tokens, int32_t *used,
                        json_t **out)
{
    const json_t *list = json_object_get(f, "tags");
    enum err rc = OK;
    json_t *any = json_array(), *one;
    if (!json_array_size(list)) TRY(refuse(x, "tags", "a list of tags is needed"));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *g = json_array_get(list, i), *begin = json_object_get(g, "begin");
        size_t n = down(x, x->older ? ".structures.%zu" : ".tags.%zu", i), skip = 0;
        if (trigger && !tokens) {
            skip = json_string_length(trigger);
            if (!json_is_string(begin)) TRY(refuse(x, "begin", "a text is needed"));
            if (strncmp(json_string_value(begin), json_string_value(trigger), skip)) {
                up(x, n);
                continue;
            }
        } else if (trigger) {
            json_t *a, *b;
            if (!json_object_get(begin, "token")) TRY(refuse(x, "begin", "a token is needed"));
            TRY(token(x, "begin", json_object_get(begin, "token"), &a));
            rc = token(x, "begin", trigger, &b);
            skip = !rc && json_equal(a, b);
            json_decref(a);
            if (rc) goto out;
            json_decref(b);
            if (!skip) {
                up(x, n);
                continue;
            }
        }
        if (used && used[i]++) TRY(refuse(x, "begin", "more than one of the triggers fits"));
        TRY(tag(x, g, skip, &one));
        up(x, n);
        json_array_append_new(any, one);
    }
    *out = any;
    any = NULL;
out:
    json_decref(any);
    return rc;
}

/* Free text with what its marks dispatch to: a part, ended by the ends. Takes on. */
static enum err dispatching(struct translation *x, const json_t *f, json_t *on, bool tokens, bool once, const json_t *ends,
                            json_t **out)
{
    enum err rc;
    json_t *not = NULL, *text;
    TRY(list_of(x, f, tokens ? "exclude_tokens" : "excludes", tokens, &not));
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
    *out = part("free", text);
out:
    json_decref(not);
    json_decref(on);
    return rc;
}

static enum err triggered(struct translation *x, const json_t *f, bool tokens, const json_t *ends, json_t **out)
{
    static const char *const keys[] = {"type", "triggers", "trigger_tokens", "tags", "at_least_one", "stop_after_first",
                                       "excludes", "exclude_tokens", NULL};
    const char *name = tokens ? "trigger_tokens" : "triggers";
    const json_t *triggers = json_object_get(f, name), *tags = json_object_get(f, "tags");
    const bool least = json_is_true(json_object_get(f, "at_least_one")), once = json_is_true(json_object_get(f, "stop_after_first"));
    enum err rc;
    json_t *on = json_array(), *first = NULL, *any, *mark;
    int32_t *used = xcalloc(json_array_size(tags) + 1, sizeof *used);
    TRY(refuse_others(x, f, keys));
    if (!json_array_size(triggers)) TRY(refuse(x, name, "a list is needed, not an empty one"));
    for (size_t i = 0; i < json_array_size(triggers); i++) {
        const json_t *trigger = json_array_get(triggers, i);
        if (!tokens && !json_string_length(trigger)) TRY(refuse(x, name, "a list of texts is needed, none of them empty"));
        if (tokens)
            TRY(token(x, name, trigger, &mark));
        else
            mark = mark_of(x, json_string_value(trigger));
        rc = tags_of(x, f, trigger, tokens, used, &any);
        if (rc) json_decref(mark);
        if (rc) goto out;
        if (!json_array_size(any)) {
            json_decref(mark);
            json_decref(any);
            TRY(refuse(x, name, "one of them begins no tag"));
        }
        json_array_append_new(on, json_pack("[o,o]", mark, part("any", any)));
    }
    for (size_t i = 0; i < json_array_size(tags); i++) {
        size_t n = down(x, x->older ? ".structures.%zu" : ".tags.%zu", i);
        if (!used[i]) TRY(refuse(x, "begin", "none of the triggers fits"));
        up(x, n);
    }
    if (least) {
        TRY(tags_of(x, f, NULL, false, NULL, &any));
        first = part("any", any);
    }
    if (least && once) {
        *out = then_end(json_incref(first), ends);
    } else {
        json_t *rest;
        rc = dispatching(x, f, on, tokens, once, ends, &rest);
        on = NULL;
        if (rc) goto out;
        *out = least ? part("seq", json_pack("[O,o]", first, rest)) : rest;
    }
out:
    free(used);
    json_decref(first);
    json_decref(on);
    return rc;
}

static enum err dispatch(struct translation *x, const json_t *f, bool tokens, const json_t *ends, json_t **out)
{
    static const char *const keys[] = {"type", "rules", "loop", "excludes", "exclude_tokens", NULL};
    const json_t *rules = json_object_get(f, "rules");
    enum err rc;
    json_t *on = json_array(), *mark = NULL, *then;
    TRY(refuse_others(x, f, keys));
    if (!json_array_size(rules)) TRY(refuse(x, "rules", "a list of pairs is needed"));
    for (size_t i = 0; i < json_array_size(rules); i++) {
        const json_t *pair = json_array_get(rules, i), *pattern = json_array_get(pair, 0);
        size_t n = down(x, ".rules.%zu", i);
        if (json_array_size(pair) != 2 || (!tokens && !json_string_length(pattern)))
            TRY(refuse(x, "", "a pattern, not empty, and a format are needed"));
        if (tokens)
            TRY(token(x, "0", pattern, &mark));
        else
            mark = mark_of(x, json_string_value(pattern));
        size_t m = down(x, ".1");
        TRY(format(x, json_array_get(pair, 1), NULL, &then));
        up(x, m);
        up(x, n);
        json_array_append_new(on, json_pack("[o,o]", mark, then));
        mark = NULL;
    }
    rc = dispatching(x, f, on, tokens, json_is_false(json_object_get(f, "loop")), ends, out);
    on = NULL;
out:
    json_decref(mark);
    json_decref(on);
    return rc;
}

static enum err separated(struct translation *x, const json_t *f, const json_t *ends, json_t **out)
{
    static const char *const keys[] = {"type", "tags", "separator", "at_least_one", "stop_after_first", NULL};
    const json_t *sep = json_object_get(f, "separator");
    enum err rc;
    json_t *any;
    TRY(refuse_others(x, f, keys));
    if (!json_is_string(sep)) TRY(refuse(x, "separator", "a text is needed"));
    TRY(tags_of(x, f, NULL, false, NULL, &any));
    json_t *p = part("any", any);
    if (!json_is_true(json_object_get(f, "stop_after_first"))) {
        p = part("some", p);
        if (json_string_length(sep)) json_object_set_new(p, "sep", literal(x, json_string_value(sep)));
    }
    if (!json_is_true(json_object_get(f, "at_least_one"))) p = part("any", json_pack("[s,o]", "", p));
    *out = then_end(p, ends);
out:
    return rc;
}

/* ---- the others ---- */

static enum err schema(struct translation *x, const json_t *f, json_t **out)
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
    TRY(refuse_others(x, f, keys));
    if (json_is_true(json_object_get(f, "any_order"))) TRY(refuse(x, "any_order", "is not supported: keys come in the schema's order"));
    if (!json_is_object(s) && !json_is_boolean(s)) TRY(refuse(x, "json_schema", "a JSON schema is needed"));
    p = part("schema", json_incref((json_t *)(uintptr_t)s));
    size_t n = down(x, x->older ? "%s" : ".json_schema%s", "");
    json_object_set_new(p, "of", json_string(x->path));
    up(x, n);
    if (how && strcmp(how, "json")) {
        size_t i = 0;
        while (i < COUNT_OF(styles) && strcmp(styles[i].name, how)) i++;
        if (i == COUNT_OF(styles)) TRY(refuse(x, "style", "json, qwen_xml and glm_xml are supported"));
        json_object_set_new(p, "args", json_pack("{s:s,s:s,s:s,s:s}", "open", styles[i].open, "mid", styles[i].mid, "close",
                                                 styles[i].close, "raw", styles[i].raw));
    } else if (style && !how && !json_is_null(style)) {
        TRY(refuse(x, "style", "a text is needed"));
    }
    *out = p;
    p = NULL;
out:
    json_decref(p);
    return rc;
}

static enum err repeated(struct translation *x, const json_t *f, int64_t min, int64_t max, json_t **out)
{
    static const char *const keys[] = {"type", "content", "min", "max", NULL};
    enum err rc;
    json_t *p, *seq;
    TRY(refuse_others(x, f, keys));
    if (min < 0 || min > STRUCTURAL_REPEAT || max > STRUCTURAL_REPEAT || (max >= 0 && max < min))
        TRY(refuse(x, "max", "at most 256 repetitions are supported, and not less than min (-1: no end)"));
    TRY(member(x, f, "content", NULL, &p));
    seq = json_array();
    for (int64_t i = 0; i < min; i++) json_array_append(seq, p);
    if (max < 0) {
        json_array_append_new(seq, part("any", json_pack("[s,o]", "", part("some", json_incref(p)))));
    } else {
        /* (p (p (p)?)?)? would be deep; one after the other each may be missing */
        json_t *maybe = part("any", json_pack("[s,O]", "", p));
        for (int64_t i = min; i < max; i++) json_array_append(seq, maybe);
        json_decref(maybe);
    }
    json_decref(p);
    *out = part("seq", seq);
out:
    return rc;
}

static enum err number(const struct translation *x, const json_t *f, const char *key, int64_t *out)
{
    const json_t *j = json_object_get(f, key);
    if (!json_is_integer(j)) return refuse(x, key, "an integer is needed");
    *out = json_integer_value(j);
    return OK;
}

static enum err texts(struct translation *x, const json_t *f, const char *type, const json_t *ends, json_t **out)
{
    static const char *const keys[][3] = {{"type", "value"}, {"type", "grammar"}, {"type", "pattern"}};
    static const struct {
        const char *type, *key;
    } kinds[] = {{"const_string", "value"}, {"grammar", "grammar"}, {"regex", "pattern"}};
    size_t i = 0;
    enum err rc;
    while (strcmp(kinds[i].type, type)) i++;
    const json_t *v = json_object_get(f, kinds[i].key);
    TRY(refuse_others(x, f, keys[i]));
    if (!json_is_string(v)) TRY(refuse(x, kinds[i].key, "a text is needed"));
    json_t *p = i == 0   ? literal(x, json_string_value(v))
                : i == 1 ? part("gbnf", json_incref((json_t *)(uintptr_t)v))
                         : part("regex", json_incref((json_t *)(uintptr_t)v));
    *out = then_end(p, ends);
out:
    return rc;
}

static enum err any(struct translation *x, const json_t *f, bool tokens, const json_t *ends, json_t **out)
{
    static const char *const text[] = {"type", "excludes", NULL}, *const token_keys[] = {"type", "exclude_tokens", NULL};
    enum err rc = refuse_others(x, f, tokens ? token_keys : text);
    return rc ? rc : dispatching(x, f, json_array(), tokens, false, ends, out);
}

static enum err by_type(struct translation *x, const json_t *f, const char *type, const json_t *ends, json_t **out)
{
    enum err rc;
    json_t *p = NULL;
    int64_t min = 0, max = -1;
#define IS(name) (!strcmp(type, name))
    if (IS("const_string") || IS("grammar") || IS("regex")) return texts(x, f, type, ends, out);
    if (IS("any_text") || IS("any_tokens")) return any(x, f, IS("any_tokens"), ends, out);
    if (IS("triggered_tags") || IS("token_triggered_tags")) return triggered(x, f, IS("token_triggered_tags"), ends, out);
    if (IS("dispatch") || IS("token_dispatch")) return dispatch(x, f, IS("token_dispatch"), ends, out);
    if (IS("tags_with_separator")) return separated(x, f, ends, out);
    if (IS("sequence")) {
        TRY(elements(x, f, true, ends, &p)); /* its last one ends */
        *out = part("seq", p);
        return OK;
    }
    if (IS("or")) {
        TRY(elements(x, f, false, ends, &p)); /* each one ends */
        *out = part("any", p);
        return OK;
    }
    if (IS("optional")) {
        TRY(member(x, f, "content", ends, &p));
        *out = part("any", json_pack("[o,o]", then_end(json_string(""), ends), p));
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
        TRY(tag(x, f, 0, &p));
    else if (IS("token"))
        TRY(token(x, "token", json_object_get(f, "token"), &p));
    else
        TRY(refuse(x, "type", "no such format, or one that is not supported"));
#undef IS
    *out = then_end(p, ends);
out:
    return rc;
}

static enum err format(struct translation *x, const json_t *f, const json_t *ends, json_t **out)
{
    const char *type = json_string_value(json_object_get(f, "type"));
    if (!json_is_object(f)) return refuse(x, "", "a format, an object with a type, is needed");
    if (!type) return refuse(x, "type", "Field required");
    if (x->depth == STRUCTURAL_DEEP) return refuse(x, "", "nested too deep");
    x->depth++;
    enum err rc = by_type(x, f, type, ends, out);
    x->depth--;
    return rc;
}

/* ---- the older form ---- */

static enum err older(struct translation *x, const json_t *tag, json_t **out)
{
    const json_t *list = json_object_get(tag, "structures"), *s;
    enum err rc = OK;
    json_t *tags = json_array(), *f = NULL;
    for (size_t i = 0; i < json_array_size(list); i++) {
        size_t n = down(x, ".structures.%zu", i);
        const json_t *one = json_array_get(list, i), *begin = json_object_get(one, "begin"), *end = json_object_get(one, "end");
        if (!json_string_length(begin)) TRY(refuse(x, "begin", "a text is needed"));
        if (!json_is_string(end)) TRY(refuse(x, "end", "a text is needed"));
        s = json_object_get(one, "schema");
        if (s && !json_is_null(s) && !json_is_object(s) && !json_is_boolean(s)) TRY(refuse(x, "schema", "a JSON schema is needed"));
        up(x, n);
        json_t *content = json_pack("{s:s,s:o}", "type", "json_schema", "json_schema",
                                    s && !json_is_null(s) ? json_incref((json_t *)(uintptr_t)s) : json_true());
        json_array_append_new(tags, json_pack("{s:O,s:o,s:O}", "begin", begin, "content", content, "end", end));
    }
    if (!json_array_size(tags)) TRY(refuse(x, "structures", "a list is needed, not an empty one"));
    f = json_pack("{s:s,s:O}", "type", "triggered_tags", "tags", tags);
    json_object_set(f, "triggers", json_object_get(tag, "triggers"));
    x->older = true;
    rc = format(x, f, NULL, out);
out:
    json_decref(tags);
    json_decref(f);
    return rc;
}

enum err crd_structural_tag(const json_t *tag, const char *path, const struct eng_tokenizer *t, json_t **out)
{
    struct translation x = {.t = t};
    snprintf(x.path, sizeof x.path, "%s", path);
    if (!json_is_object(tag)) return refuse(&x, "", "an object is needed");
    if (json_object_get(tag, "structures")) return older(&x, tag, out);
    down(&x, ".format");
    return format(&x, json_object_get(tag, "format"), NULL, out);
}
