/* schema_object_emit.c: the automaton of one shape of objects.
 *
 * Declared keys come in their order, each at most once; then other keys, which the automaton cannot
 * tell from one another: a key may come twice there (the last one counts for a parser), so no more
 * than one of them counts towards minProperties, and a key that must exist somewhere (a witness:
 * the negation of additionalProperties) is the last of the object. */
#include "engine/grammar/schema_set.h"

#include "engine/grammar/regex.h"

#include <string.h>

enum { MOST_STATES = 1 << 19 };

struct walk {
    struct schema *s;
    const struct object_shape *x;
    int32_t *names, n;        /* those that may be there, by index */
    struct key_class *others; /* keys without the declared ones */
    int32_t n_others, n_must;
    struct key_class witness; /* keys NULL: none */
    int64_t most;             /* counts are exact up to here */
    int32_t *state;           /* [n + 1][most + 1] */
    int32_t close;
    bool args; /* no braces: the arguments of a call */
};

static int32_t state(struct walk *w, int32_t i, int64_t count)
{
    int32_t *st = &w->state[(int64_t)i * (w->most + 1) + count];
    if (*st < 0) *st = eng_draft_state(w->s->e->d);
    return *st;
}

/* ---- members of arguments ---- */

/* What a key may be made of, so that the reader finds its end; and a key that no property declares. */
static const char KEY[] = "[^<>\\s=,()\\[\\]{}\"']+", OTHER_KEY[] = "[A-Za-z_][A-Za-z0-9_.-]*",
                  PYTHON_KEY[] = "[A-Za-z_][A-Za-z0-9_]*";

static enum err keys_of(struct schema *s, const char *regex, const struct dfa **out)
{
    return eng_regex_compile(s->dfas, regex, strlen(regex), true, out);
}

/* A declared property is written without quotes where it says that it is a string, in just these words: the reader
 * looks for them too. */
static bool is_raw(const struct schema *s, const struct property *p)
{
    const json_t *of = json_object_get(json_object_get(s->root, "properties"), p->key);
    const char *type = json_string_value(json_object_get(of, "type"));
    return s->args->raw && type && !strcmp(type, "string");
}

static int32_t text(struct schema *s, int32_t from, const char *p, size_t n)
{
    int32_t to = eng_draft_state(s->e->d);
    eng_draft_text(s->e->d, from, p, n, to);
    return to;
}

static enum err argument(struct walk *w, int32_t from, bool comma, const struct property *literal,
                         const struct dfa *keys, int32_t f, int32_t to)
{
    enum err rc = OK;
    struct schema *s = w->s;
    const struct schema_args *a = s->args;
    struct value_set v;
    int32_t at = comma ? text(s, from, a->sep, strlen(a->sep)) : from, end = eng_draft_state(s->e->d);
    at = text(s, at, a->open, strlen(a->open));
    if (literal) {
        at = text(s, at, literal->key, literal->n);
    } else {
        int32_t named = eng_draft_state(s->e->d);
        eng_draft_call(s->e->d, at, eng_encode_dfa(s->e, keys, false), named);
        at = named;
    }
    at = text(s, at, a->mid, strlen(a->mid));
    if (literal && is_raw(s, literal)) {
        TRY(eng_schema_values(s, f, &v));
        if (v.string != s->dfas->none)
            eng_draft_call(s->e->d, at, eng_encode_dfa(s->e, v.string, false), end);
    } else {
        eng_draft_call(s->e->d, at, eng_schema_rule(s, f), end);
    }
    eng_draft_text(s->e->d, end, a->close, strlen(a->close), to);
out:
    return rc;
}

/* ---- members of JSON ---- */

/* [,] key : value, from one state to another; literal: its text, else any key of the class. */
static enum err member(struct walk *w, int32_t from, bool comma, const struct property *literal,
                       const struct dfa *keys, int32_t f, int32_t to)
{
    struct draft *d = w->s->e->d;
    if (w->args) return argument(w, from, comma, literal, keys, f, to);
    int32_t key = from, colon = eng_draft_state(d), after = eng_draft_state(d),
            value = eng_draft_state(d), end = eng_draft_state(d), named = eng_draft_state(d);
    if (comma) {
        int32_t behind = eng_draft_state(d);
        key = eng_draft_state(d);
        eng_draft_bytes(d, from, ',', ',', behind);
        eng_schema_space(w->s, behind, key);
    }
    if (literal)
        eng_encode_literal(d, key, literal->key, literal->n, named);
    else
        eng_draft_call(d, key, eng_encode_dfa(w->s->e, keys, true), named);
    eng_schema_space(w->s, named, colon);
    eng_draft_bytes(d, colon, ':', ':', after);
    eng_schema_space(w->s, after, value);
    eng_draft_call(d, value, eng_schema_rule(w->s, f), end);
    eng_schema_space(w->s, end, to);
    return OK;
}

static bool room(const struct walk *w, int64_t count)
{
    return w->x->max < 0 || count < w->x->max;
}
static int64_t more(const struct walk *w, int64_t count)
{
    return MIN(count + 1, w->most);
}

/* The end of the object. */
static void brace(struct walk *w, int32_t from)
{
    if (w->args)
        eng_draft_empty(w->s->e->d, from, w->close);
    else
        eng_draft_bytes(w->s->e->d, from, '}', '}', w->close);
}

static enum err declared(struct walk *w, int32_t i, int64_t count)
{
    const struct property *p = &w->x->names[w->names[i]];
    int32_t st = state(w, i, count);
    if (p->presence != MUST) eng_draft_empty(w->s->e->d, st, state(w, i + 1, count));
    if (!room(w, count)) return OK;
    return member(w, st, count > 0, p, NULL, p->f, state(w, i + 1, more(w, count)));
}

static enum err others(struct walk *w, int64_t count)
{
    enum err rc = OK;
    int32_t st = state(w, w->n, count);
    if (!w->witness.keys && count >= w->x->min) brace(w, st);
    if (!room(w, count)) return OK;
    for (int32_t i = 0; i < w->n_others; i++)
        TRY(member(w, st, count > 0, NULL, w->others[i].keys, w->others[i].f,
                   state(w, w->n, more(w, count))));
    if (!w->witness.keys || count + 1 < w->x->min) return OK;
    int32_t last = eng_draft_state(w->s->e->d);
    TRY(member(w, st, count > 0, NULL, w->witness.keys, w->witness.f, last));
    brace(w, last);
out:
    return rc;
}

/* Keys as they can be written: of arguments, and in JSON within which a mark may not stand. */
static enum err fit_keys(struct walk *w)
{
    enum err rc = OK;
    struct schema *s = w->s;
    const struct dfa *key = s->marked, *other = s->marked;
    if (w->args) TRY(keys_of(s, KEY, &key));
    if (w->args) TRY(keys_of(s, s->args->python ? PYTHON_KEY : OTHER_KEY, &other));
    if (!key) return OK;
    for (int32_t i = 0; i < w->n && w->args; i++) {
        const struct property *p = &w->x->names[w->names[i]];
        if (!eng_dfa_holds(key, p->key, p->n))
            return eng_schema_refuse(s, s->root, "properties", ERR_UNSUPPORTED,
                                     "the key \"%.*s\" cannot be written in this model's syntax of calls",
                                     (int)MIN(p->n, (size_t)64), p->key);
    }
    for (int32_t i = 0; i < w->n_others; i++)
        TRY(eng_dfa_op(s->dfas, DFA_AND, w->others[i].keys, other, &w->others[i].keys));
    if (w->witness.keys) TRY(eng_dfa_op(s->dfas, DFA_AND, w->witness.keys, other, &w->witness.keys));
out:
    return rc;
}

static enum err prepare(struct walk *w)
{
    enum err rc;
    struct schema *s = w->s;
    const struct object_shape *x = w->x;
    struct dfa_word *words = arena_alloc(s->a, ((size_t)x->n_names + 1) * sizeof *words);
    const struct dfa *named;
    w->names = arena_alloc(s->a, ((size_t)x->n_names + 1) * sizeof *w->names);
    for (int32_t i = 0; i < x->n_names; i++) {
        words[i] = (struct dfa_word){x->names[i].key, x->names[i].n};
        w->n_must += x->names[i].presence == MUST;
        if (x->names[i].presence != MUST_NOT) w->names[w->n++] = i;
    }
    TRY(eng_dfa_words(s->dfas, words, x->n_names, &named));
    w->others = arena_alloc(s->a, ((size_t)x->n_classes + 1) * sizeof *w->others);
    for (int32_t i = 0; i < x->n_classes; i++) {
        struct key_class *c = &w->others[w->n_others];
        *c = x->classes[i];
        TRY(eng_dfa_op(s->dfas, DFA_MINUS, c->keys, named, &c->keys));
        w->n_others += c->keys != s->dfas->none && c->f != NONE;
    }
    TRY(fit_keys(w));
    if (w->n_others && x->min > w->n_must + 1)
        TRY(eng_schema_refuse(s, x->min_at, "minProperties", ERR_UNSUPPORTED,
                              "at least %lld keys of which only %d are required by name: others "
                              "may repeat one another",
                              (long long)x->min, w->n_must));
    w->most = x->max >= 0 ? x->max : MAX(x->min, (int64_t)1);
    if ((w->n + 1) * (w->most + 1) > MOST_STATES)
        TRY(err_raise(ERR_UNSUPPORTED,
                      "JSON Schema: an object of %d keys with up to %lld counted is too large",
                      w->n, (long long)w->most));
    int64_t n = (w->n + 1) * (w->most + 1);
    w->state = arena_alloc(s->a, (size_t)n * sizeof *w->state);
    for (int64_t i = 0; i < n; i++) w->state[i] = -1;
out:
    return rc;
}

static enum err emit(struct schema *s, const struct object_shape *x, struct key_class witness,
                     int32_t from, int32_t to)
{
    enum err rc;
    struct walk w = {.s = s, .x = x, .witness = witness, .close = to, .args = s->in_args};
    TRY(prepare(&w));
    if (w.args) {
        eng_draft_empty(s->e->d, from, state(&w, 0, 0));
    } else {
        int32_t open = eng_draft_state(s->e->d);
        eng_draft_bytes(s->e->d, from, '{', '{', open);
        eng_schema_space(s, open, state(&w, 0, 0));
    }
    for (int32_t i = 0; i <= w.n && !s->e->d->full; i++)
        for (int64_t c = 0; c <= w.most && !s->e->d->full; c++) {
            if (w.state[(int64_t)i * (w.most + 1) + c] < 0) continue;
            TRY(i < w.n ? declared(&w, i, c) : others(&w, c));
        }
out:
    return rc;
}

/* The witness among keys that no name declares, class by class. */
static enum err emit_witness(struct schema *s, const struct object_shape *x,
                             struct key_class witness, int32_t from, int32_t to)
{
    enum err rc = OK;
    struct dfa_word *words = arena_alloc(s->a, ((size_t)x->n_names + 1) * sizeof *words);
    const struct dfa *named;
    for (int32_t i = 0; i < x->n_names; i++)
        words[i] = (struct dfa_word){x->names[i].key, x->names[i].n};
    TRY(eng_dfa_words(s->dfas, words, x->n_names, &named));
    for (int32_t i = 0; i < x->n_classes; i++) {
        struct key_class c = {.f = eng_formula_and(s, x->classes[i].f, witness.f)};
        TRY(eng_dfa_op(s->dfas, DFA_AND, x->classes[i].keys, witness.keys, &c.keys));
        TRY(eng_dfa_op(s->dfas, DFA_MINUS, c.keys, named, &c.keys));
        if (c.f != NONE && c.keys != s->dfas->none) TRY(emit(s, x, c, from, to));
    }
out:
    return rc;
}

enum err eng_object_emit(struct schema *s, const struct object_shape *x, int32_t from, int32_t to)
{
    enum err rc = OK;
    if (!x->n_witness) return emit(s, x, (struct key_class){NULL, ANY}, from, to);
    if (x->n_witness > 1)
        return err_raise(ERR_UNSUPPORTED, "JSON Schema: several keys must exist of which no name "
                                          "is given: the negations of this schema are too many");
    struct key_class w = x->witness[0];
    struct object_shape rest = *x;
    rest.n_witness = 0;
    for (int32_t i = 0; i < x->n_names; i++) {
        const struct object_shape *with;
        if (!eng_dfa_holds(w.keys, x->names[i].key, x->names[i].n)) continue;
        TRY(eng_object_and(s, &rest,
                           eng_object_having(s, x->names[i].key, x->names[i].n, w.f, MUST), &with));
        if (with) TRY(emit(s, with, (struct key_class){NULL, ANY}, from, to));
    }
    TRY(emit_witness(s, &rest, w, from, to));
out:
    return rc;
}
