/* parts.c: see parts.h. Each part leads from one state to another; a part that may be repeated, or
 * has a front end of its own, is a rule. */
#include "engine/grammar/parts.h"

#include "engine/grammar/gbnf.h"
#include "engine/grammar/regex.h"
#include "engine/grammar/schema.h"
#include "engine/grammar/vocab.h"

#include <string.h>

struct parts {
    struct encoder *e;
    struct draft *d;
    struct eng_dfas *dfas;
    uint32_t flags;
};

static enum err refuse(const char *what)
{
    return err_raise(ERR_BAD_REQUEST, "parts of a grammar: %s", what);
}

static enum err part(struct parts *p, const json_t *j, int depth, int32_t from, int32_t to);

/* A front end's text as a rule of its own, called from here. */
static enum err schema(struct parts *p, const json_t *j, const char *of, int32_t from, int32_t to)
{
    int32_t rule = p->d->n_rules;
    enum err rc = eng_schema_build(p->e, p->dfas, j, p->flags, false);
    if (rc) return of ? err_prefix(rc, "%s", of) : rc;
    eng_draft_call(p->d, from, rule, to);
    return OK;
}

static enum err gbnf(struct parts *p, const json_t *j, int32_t from, int32_t to)
{
    int32_t rule = p->d->n_rules;
    enum err rc = eng_gbnf_build(p->e, json_string_value(j), json_string_length(j));
    if (!rc) eng_draft_call(p->d, from, rule, to);
    return rc;
}

static enum err regex(struct parts *p, const json_t *j, int32_t from, int32_t to)
{
    const struct dfa *d;
    enum err rc = eng_regex_compile(p->dfas, json_string_value(j), json_string_length(j), true, &d);
    if (!rc) eng_draft_call(p->d, from, eng_encode_dfa(p->e, d, false), to);
    return rc;
}

/* The letters of a control token begin with a byte that no text has. */
static void token(struct parts *p, const json_t *j, int32_t from, int32_t to)
{
    int32_t mid = eng_draft_state(p->d);
    eng_draft_bytes(p->d, from, VOCAB_CONTROL, VOCAB_CONTROL, mid);
    eng_draft_text(p->d, mid, json_string_value(j), json_string_length(j), to);
}

static enum err sequence(struct parts *p, const json_t *list, int depth, int32_t from, int32_t to)
{
    enum err rc = OK;
    size_t i;
    json_t *j;
    json_array_foreach((json_t *)(uintptr_t)list, i, j)
    {
        int32_t next = eng_draft_state(p->d);
        TRY(part(p, j, depth, from, next));
        from = next;
    }
    eng_draft_empty(p->d, from, to);
out:
    return rc;
}

static enum err alternatives(struct parts *p, const json_t *list, int depth, int32_t from,
                             int32_t to)
{
    enum err rc = OK;
    size_t i;
    json_t *j;
    if (!json_array_size(list)) return refuse("\"any\" has no alternative");
    json_array_foreach((json_t *)(uintptr_t)list, i, j)
    {
        int32_t start = eng_draft_state(p->d);
        eng_draft_empty(p->d, from, start);
        TRY(part(p, j, depth, start, to));
    }
out:
    return rc;
}

static enum err some(struct parts *p, const json_t *j, const json_t *sep, int depth, int32_t from,
                     int32_t to)
{
    enum err rc;
    int32_t loop = eng_draft_state(p->d), end = eng_draft_state(p->d);
    eng_draft_empty(p->d, from, loop);
    TRY(part(p, j, depth, loop, end));
    eng_draft_empty(p->d, end, to);
    if (sep)
        TRY(part(p, sep, depth, end, loop));
    else
        eng_draft_empty(p->d, end, loop);
out:
    return rc;
}

/* ---- until ---- */

/* How much of the mark's beginning ends the text, when c follows k letters of it. */
static int32_t matched(const uint32_t *mark, int32_t k, uint32_t c)
{
    for (int32_t n = k + 1; n > 0; n--) {
        bool same = mark[n - 1] == c;
        for (int32_t i = 0; same && i < n - 1; i++) same = mark[i] == mark[k - (n - 1) + i];
        if (same) return n;
    }
    return 0;
}

/* State k: the text ends with k characters of the mark. */
static enum err until_text(struct parts *p, const char *mark, size_t size, int32_t from, int32_t to)
{
    uint32_t *c = arena_alloc(p->e->a, (size + 1) * sizeof *c);
    int32_t n = 0;
    for (size_t at = 0, len; at < size; at += len) {
        int32_t cp = eng_utf8_next(mark + at, size - at, &len);
        if (cp < 0) return refuse("\"until\" is not UTF-8");
        c[n++] = (uint32_t)cp;
    }
    int32_t *states = arena_alloc(p->e->a, ((size_t)n + 1) * sizeof *states);
    for (int32_t k = 0; k < n; k++) states[k] = eng_draft_state(p->d);
    states[n] = to;
    eng_draft_empty(p->d, from, states[0]);
    for (int32_t k = 0; k < n && !p->d->full; k++) {
        struct charset others = {0};
        for (int32_t i = 0; i < n; i++) {
            bool seen = false;
            for (int32_t h = 0; h < i; h++) seen |= c[h] == c[i];
            if (seen) continue;
            struct charset one = {0};
            eng_charset_add(&one, p->e->a, c[i], c[i]);
            eng_charset_add(&others, p->e->a, c[i], c[i]);
            eng_charset_tidy(&one);
            eng_encode_char(p->e, states[k], &one, false, states[matched(c, k, c[i])]);
        }
        eng_charset_negate(&others, p->e->a);
        eng_charset_tidy(&others);
        eng_encode_char(p->e, states[k], &others, false, states[0]);
    }
    return OK;
}

static enum err until(struct parts *p, const json_t *j, int32_t from, int32_t to)
{
    const json_t *tok = json_object_get(j, "token");
    if (json_string_length(j))
        return until_text(p, json_string_value(j), json_string_length(j), from, to);
    if (!json_string_length(tok)) return refuse("\"until\" needs a text or a token");
    int32_t mid = eng_draft_state(p->d);
    eng_draft_call(p->d, from, eng_encode_dfa(p->e, p->dfas->all, false), mid);
    token(p, tok, mid, to);
    return OK;
}

/* ---- */

static enum err part(struct parts *p, const json_t *j, int depth, int32_t from, int32_t to)
{
    const json_t *v;
    if (depth == PARTS_DEEP) return refuse("nested too deep");
    if (json_is_string(j)) {
        eng_draft_text(p->d, from, json_string_value(j), json_string_length(j), to);
        return OK;
    }
    if ((v = json_object_get(j, "schema")))
        return schema(p, v, json_string_value(json_object_get(j, "of")), from, to);
    if (json_is_string(v = json_object_get(j, "text"))) return part(p, v, depth + 1, from, to);
    if (json_string_length(v = json_object_get(j, "token"))) return token(p, v, from, to), OK;
    if (json_is_string(v = json_object_get(j, "regex"))) return regex(p, v, from, to);
    if (json_is_string(v = json_object_get(j, "gbnf"))) return gbnf(p, v, from, to);
    if (json_is_array(v = json_object_get(j, "seq"))) return sequence(p, v, depth + 1, from, to);
    if (json_is_array(v = json_object_get(j, "any")))
        return alternatives(p, v, depth + 1, from, to);
    if ((v = json_object_get(j, "some")))
        return some(p, v, json_object_get(j, "sep"), depth + 1, from, to);
    if ((v = json_object_get(j, "until"))) return until(p, v, from, to);
    return refuse("a text, or an object with text, token, schema, regex, gbnf, seq, any, some or "
                  "until is needed");
}

enum err eng_parts_build(struct encoder *e, struct eng_dfas *dfas, const json_t *j, uint32_t flags)
{
    struct parts p = {e, e->d, dfas, flags};
    int32_t top = eng_draft_rule(e->d), end = eng_draft_state(e->d);
    eng_draft_accept(e->d, end);
    return part(&p, j, 0, e->d->rules[top], end);
}
