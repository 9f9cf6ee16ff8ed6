/* parts.c: see parts.h. Each part leads from one state to another; a part that may be repeated, or
 * has a front end of its own, is a rule. */
#include "engine/grammar/parts.h"

#include "engine/grammar/free_text.h"
#include "engine/grammar/gbnf.h"
#include "engine/grammar/regex.h"
#include "engine/grammar/schema.h"


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
static enum err schema(struct parts *p, const json_t *part, int32_t from, int32_t to)
{
    const json_t *j = json_object_get(part, "schema"), *how = json_object_get(part, "args");
    const char *of = json_string_value(json_object_get(part, "of"));
    int32_t rule = p->d->n_rules;
    enum err rc;
    if (json_is_object(how)) {
        const char *t[5] = {"open", "mid", "close", "sep", "raw"};
        for (int i = 0; i < 5; i++) {
            t[i] = json_string_value(json_object_get(how, t[i]));
            if (i < 4 && !t[i]) t[i] = "";
        }
        const struct schema_args args = {t[0], t[1], t[2], t[3], t[4] && *t[4] ? t[4] : NULL,
                                         json_is_true(json_object_get(how, "python"))};
        rc = eng_schema_build_args(p->e, p->dfas, j, p->flags, &args);
    } else {
        rc = eng_schema_build(p->e, p->dfas, j, p->flags, false);
    }
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

/* ---- free text ---- */

static enum err mark(struct parts *p, struct free_text *t, const json_t *j, int32_t state)
{
    const json_t *one = j;
    eng_free_mark(t, p->e->a, state);
    for (size_t i = 0; i < (json_is_array(j) ? json_array_size(j) : 1); i++) {
        if (json_is_array(j)) one = json_array_get(j, i);
        const json_t *letters = json_object_get(one, "token");
        if (json_string_length(letters) &&
            !eng_free_token(t, p->e->a, json_string_value(letters)))
            return refuse("the marks of a free text are too long together");
        if (json_is_string(one) &&
            !eng_free_text(t, p->e->a, json_string_value(one), json_string_length(one)))
            return refuse("the marks of a free text are not UTF-8, or too long together");
    }
    return t->marks[t->n_marks - 1].n ? OK : refuse("a mark needs a text or a token");
}

static enum err marks(struct parts *p, struct free_text *t, const json_t *list, int32_t state)
{
    enum err rc = OK;
    size_t i;
    json_t *j;
    json_array_foreach((json_t *)(uintptr_t)list, i, j) TRY(mark(p, t, j, state));
out:
    return rc;
}

static enum err free_text(struct parts *p, const json_t *j, int depth, int32_t from, int32_t to)
{
    enum err rc = OK;
    struct free_text t = {0}, rest = {0};
    const json_t *on = json_object_get(j, "on"), *end = json_object_get(j, "end");
    const bool once = json_is_true(json_object_get(j, "once")), ends = json_array_size(end) > 0;
    int32_t behind = eng_draft_state(p->d), last = ends ? -1 : to; /* behind: a P is over */
    size_t i;
    json_t *rule;
    json_array_foreach((json_t *)(uintptr_t)on, i, rule)
    {
        int32_t then = eng_draft_state(p->d);
        if (json_array_size(rule) != 2) return refuse("\"on\" is a list of pairs of a mark and a part");
        TRY(mark(p, &t, json_array_get(rule, 0), then));
        TRY(part(p, json_array_get(rule, 1), depth, then, behind));
    }
    TRY(marks(p, &t, json_object_get(j, "not"), FREE_NEVER));
    TRY(marks(p, &t, end, to));
    int32_t top = eng_free_emit(p->e, &t, last);
    eng_draft_empty(p->d, from, top);
    if (!once)
        eng_draft_empty(p->d, behind, top);
    else if (!ends)
        eng_draft_empty(p->d, behind, to);
    else {
        TRY(marks(p, &rest, end, to));
        for (int32_t k = 0; k < rest.n_marks; k++) {
            int32_t at = behind;
            for (int32_t m = 0; m < rest.marks[k].n; m++) {
                int32_t symbol = rest.symbols[rest.marks[k].first + m],
                        next = m + 1 == rest.marks[k].n ? to : eng_draft_state(p->d);
                eng_free_symbol(p->e, &rest, at, symbol, next);
                at = next;
            }
        }
    }
out:
    return rc;
}

static enum err until(struct parts *p, const json_t *j, int32_t from, int32_t to)
{
    enum err rc;
    struct free_text t = {0};
    TRY(mark(p, &t, j, to));
    eng_draft_empty(p->d, from, eng_free_emit(p->e, &t, -1));
out:
    return rc;
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
    if (json_object_get(j, "schema")) return schema(p, j, from, to);
    if (json_is_string(v = json_object_get(j, "text"))) return part(p, v, depth + 1, from, to);
    if (json_string_length(v = json_object_get(j, "token")))
        return eng_free_control(p->d, from, json_string_value(v), to), OK;
    if (json_is_string(v = json_object_get(j, "regex"))) return regex(p, v, from, to);
    if (json_is_string(v = json_object_get(j, "gbnf"))) return gbnf(p, v, from, to);
    if (json_is_array(v = json_object_get(j, "seq"))) return sequence(p, v, depth + 1, from, to);
    if (json_is_array(v = json_object_get(j, "any")))
        return alternatives(p, v, depth + 1, from, to);
    if ((v = json_object_get(j, "some")))
        return some(p, v, json_object_get(j, "sep"), depth + 1, from, to);
    if ((v = json_object_get(j, "until"))) return until(p, v, from, to);
    if (json_is_object(v = json_object_get(j, "free"))) return free_text(p, v, depth + 1, from, to);
    return refuse("a text, or an object with text, token, schema, regex, gbnf, seq, any, some, "
                  "until or free is needed");
}

enum err eng_parts_build(struct encoder *e, struct eng_dfas *dfas, const json_t *j, uint32_t flags)
{
    struct parts p = {e, e->d, dfas, flags};
    int32_t top = eng_draft_rule(e->d), end = eng_draft_state(e->d);
    eng_draft_accept(e->d, end);
    return part(&p, j, 0, e->d->rules[top], end);
}
