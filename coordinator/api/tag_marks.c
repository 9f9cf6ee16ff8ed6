/* tag_marks.c: see tag_impl.h: where in a structural tag we are, and its smallest pieces. */
#include "coordinator/api/tag_impl.h"
#include "base/base.h"
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- paths ---- */

size_t crd_tag_down(struct crd_tag *x, const char *fmt, ...)
{
    size_t n = strlen(x->path);
    va_list args;
    va_start(args, fmt);
    vsnprintf(x->path + n, sizeof x->path - n, fmt, args);
    va_end(args);
    return n;
}

void crd_tag_up(struct crd_tag *x, size_t n)
{
    x->path[n] = 0;
}

enum err crd_tag_refuse(const struct crd_tag *x, const char *key, const char *what)
{
    return err_raise(ERR_BAD_REQUEST, "%s%s%s: %s", x->path, *key ? "." : "", key, what);
}

enum err crd_tag_refuse_others(const struct crd_tag *x, const json_t *f, const char *const keys[])
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)f, key, v)
    {
        bool known = json_is_null(v);
        for (size_t i = 0; keys[i] && !known; i++) known = !strcmp(keys[i], key);
        if (!known) return crd_tag_refuse(x, key, "is not supported here");
    }
    return OK;
}

/* ---- literals ---- */

json_t *crd_tag_part(const char *key, json_t *value)
{
    json_t *p = json_object();
    json_object_set_new(p, key, value);
    return p;
}

static bool is_control(const struct crd_tag *x, const char *text)
{
    int32_t id = x->t ? eng_tokenizer_find(x->t, text) : -1;
    return id >= 0 && eng_tokenizer_type(x->t, id) == TOKEN_CONTROL;
}

/* The longest control token that the text begins with; 0: none. Such tokens are written <...> or [...]. */
static size_t control_at(const struct crd_tag *x, const char *p)
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

json_t *crd_tag_mark(const struct crd_tag *x, const char *text)
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
        json_array_append_new(list, crd_tag_part("token", json_stringn(p, n)));
        from = p += n;
    }
    if (p > from) json_array_append_new(list, json_string(from));
    return list;
}

json_t *crd_tag_literal(const struct crd_tag *x, const char *text)
{
    return crd_tag_part("seq", crd_tag_mark(x, text));
}

enum err crd_tag_token(const struct crd_tag *x, const char *key, const json_t *j, json_t **out)
{
    struct buf text = {0};
    if (json_is_integer(j) && x->t) {
        json_int_t id = json_integer_value(j);
        if (id < 0 || id >= eng_tokenizer_size(x->t)) return crd_tag_refuse(x, key, "the vocabulary has no such token");
        eng_tokenizer_piece(x->t, (int32_t)id, true, &text);
    } else if (json_is_string(j)) {
        buf_puts(&text, json_string_value(j));
    }
    if (!text.len) {
        buf_free(&text);
        return crd_tag_refuse(x, key, "a token's id or text is needed");
    }
    if (is_control(x, buf_str(&text)))
        *out = crd_tag_part("token", json_string(buf_str(&text)));
    else
        *out = json_string(buf_str(&text));
    buf_free(&text);
    return *out ? OK : crd_tag_refuse(x, key, "the token is part of a character only");
}

enum err crd_tag_marks(const struct crd_tag *x, const json_t *f, const char *key, json_t **out)
{
    const json_t *j = json_object_get(f, key), *one = j;
    enum err rc = OK;
    json_t *list = json_array(), *tok;
    if (json_array_size(j) > STRUCTURAL_TAGS) TRY(crd_tag_refuse(x, key, "at most 1024 are supported"));
    for (size_t i = 0; i < (json_is_array(j) ? json_array_size(j) : 1); i++) {
        if (json_is_array(j)) one = json_array_get(j, i);
        if (json_is_object(one)) {
            const char *type = json_string_value(json_object_get(one, "type"));
            if (type && strcmp(type, "token")) TRY(crd_tag_refuse(x, key, "a text or a token is needed"));
            TRY(crd_tag_token(x, key, json_object_get(one, "token"), &tok));
            json_array_append_new(list, tok);
        } else if (json_is_string(one)) {
            if (json_string_length(one)) json_array_append_new(list, crd_tag_mark(x, json_string_value(one)));
        } else {
            TRY(crd_tag_refuse(x, key, j ? "a text or a token is needed" : "Field required"));
        }
    }
    *out = list;
    list = NULL;
out:
    json_decref(list);
    return rc;
}

enum err crd_tag_list(const struct crd_tag *x, const json_t *f, const char *key, bool tokens, json_t **out)
{
    const json_t *j = json_object_get(f, key);
    enum err rc = OK;
    json_t *list = json_array(), *one, *tok;
    size_t i;
    if (j && !json_is_null(j) && !json_is_array(j)) TRY(crd_tag_refuse(x, key, "a list is needed"));
    if (json_array_size(j) > STRUCTURAL_TAGS) TRY(crd_tag_refuse(x, key, "at most 1024 are supported"));
    json_array_foreach((json_t *)(uintptr_t)j, i, one)
    {
        if (tokens) {
            TRY(crd_tag_token(x, key, one, &tok));
            json_array_append_new(list, tok);
        } else if (json_string_length(one)) {
            json_array_append_new(list, crd_tag_mark(x, json_string_value(one)));
        } else {
            TRY(crd_tag_refuse(x, key, "a list of texts is needed, none of them empty"));
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
    return json_is_array(mark) ? crd_tag_part("seq", json_incref((json_t *)(uintptr_t)mark)) : json_incref((json_t *)(uintptr_t)mark);
}

json_t *crd_tag_then_end(json_t *p, const json_t *ends)
{
    json_t *any = json_array(), *one;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)ends, i, one) json_array_append_new(any, as_part(one));
    if (json_array_size(any)) return crd_tag_part("seq", json_pack("[o,o]", p, crd_tag_part("any", any)));
    json_decref(any);
    return p;
}

enum err crd_tag_member(struct crd_tag *x, const json_t *f, const char *key, const json_t *ends, json_t **out)
{
    size_t n = crd_tag_down(x, ".%s", x->older ? "schema" : key);
    enum err rc = crd_tag_format(x, json_object_get(f, key), ends, out);
    if (!rc) crd_tag_up(x, n);
    return rc;
}
