/* schema.c: see schema.h: from the document to rules. A rule per formula: what stands at one place,
 * all types together. */
#include "engine/grammar/schema_set.h"

#include "engine/grammar/regex.h"

#include <stdlib.h>
#include <string.h>

/* A little white space, so that a text can be read by people but cannot go on for ever with it. */
static const char SPACE[] = "[ \\t]{0,8}(?:\\r?\\n[ \\t]{0,64}){0,2}";
static const char DECIMAL[] = "-?(?:0|[1-9][0-9]*)(?:\\.[0-9]+)?";
static const char FULL[] = "-?(?:0|[1-9][0-9]*)(?:\\.[0-9]+)?(?:[eE][+-]?[0-9]+)?";
static const char INTEGER[] = "-?(?:0|[1-9][0-9]*)(?:\\.0)?";
static const char WHOLE[] =
    "-?(?:0|[1-9][0-9]*)(?:\\.0+)?"; /* integers however they are written: what is not one must be
                                        none of these */

void eng_schema_space(struct schema *s, int32_t from, int32_t to)
{
    if (s->space < 0)
        eng_draft_empty(s->e->d, from, to);
    else
        eng_draft_call(s->e->d, from, s->space, to);
}

int32_t eng_schema_rule(struct schema *s, int32_t f)
{
    if (s->formulas[f].rule >= 0) return s->formulas[f].rule;
    if (s->n_todo == s->cap_todo) {
        s->cap_todo = MAX(64, 2 * s->cap_todo);
        s->todo = xrealloc(s->todo, (size_t)s->cap_todo * sizeof *s->todo);
    }
    s->todo[s->n_todo++] = f;
    return s->formulas[f].rule = eng_draft_rule(s->e->d);
}

static void word(struct schema *s, int32_t from, const char *text, int32_t to)
{
    eng_draft_text(s->e->d, from, text, strlen(text), to);
}

enum err eng_schema_values(struct schema *s, int32_t f, struct value_set *out)
{
    enum err rc = eng_formula_set(s, f, out);
    if (rc || !s->marked) return rc;
    return eng_dfa_op(s->dfas, DFA_AND, out->string, s->marked, &out->string);
}

static enum err body(struct schema *s, int32_t f)
{
    enum err rc;
    struct draft *d = s->e->d;
    struct value_set v;
    int32_t from = d->rules[s->formulas[f].rule], end = eng_draft_state(d);
    eng_draft_accept(d, end);
    const bool python = s->args && s->args->python;
    TRY(eng_schema_values(s, f, &v));
    if (v.null) word(s, from, python ? "None" : "null", end);
    if (v.yes) word(s, from, python ? "True" : "true", end);
    if (v.no) word(s, from, python ? "False" : "false", end);
    if (v.number != s->dfas->none)
        eng_draft_call(
            d, from, eng_encode_dfa(s->e, v.number == s->numbers ? s->full : v.number, false), end);
    if (v.string != s->dfas->none)
        eng_draft_call(d, from, eng_encode_dfa(s->e, v.string, true), end);
    for (int32_t i = 0; i < v.arrays.n && !d->full; i++)
        TRY(eng_array_emit(s, v.arrays.v[i], from, end));
    for (int32_t i = 0; i < v.objects.n && !d->full; i++)
        TRY(eng_object_emit(s, v.objects.v[i], from, end));
out:
    return rc;
}

static enum err regex(struct schema *s, const char *text, const struct dfa **out)
{
    return eng_regex_compile(s->dfas, text, strlen(text), true, out);
}

static enum err prepare(struct schema *s)
{
    enum err rc;
    const struct dfa *space;
    TRY(regex(s, DECIMAL, &s->numbers));
    TRY(regex(s, FULL, &s->full));
    TRY(regex(s, INTEGER, &s->integers));
    TRY(regex(s, WHOLE, &s->whole));
    eng_formula_of(s, (struct literal){.node = NULL}); /* ANY and NONE come first */
    struct array_shape *array = arena_alloc(s->a, sizeof *array);
    *array = (struct array_shape){.rest = ANY, .max = -1};
    struct object_shape *object = arena_alloc(s->a, sizeof *object);
    *object = (struct object_shape){
        .max = -1, .n_classes = 1, .classes = arena_alloc(s->a, sizeof *object->classes)};
    object->classes[0] = (struct key_class){s->dfas->all, ANY};
    s->any_array = array;
    s->any_object = object;
    s->space = -1;
    if (!(s->flags & GRAMMAR_COMPACT)) {
        TRY(regex(s, SPACE, &space));
        s->space = eng_encode_dfa(s->e, space, false);
    }
out:
    return rc;
}

/* The bodies of the rules that are called; and an end of the compilation, whether it is well or not. */
static enum err bodies(struct schema *s)
{
    enum err rc = OK;
    for (int32_t i = 0; i < s->n_todo && !s->e->d->full; i++) TRY(body(s, s->todo[i]));
out:
    return rc;
}

static void close_schema(struct schema *s)
{
    map64_free(&s->place_of);
    map64_free(&s->memo);
    map64_free(&s->formula_of);
    free(s->places);
    free(s->ids);
    free(s->values);
    free(s->formulas);
    free(s->todo);
}

enum err eng_schema_build(struct encoder *e, struct eng_dfas *dfas, const json_t *document,
                          uint32_t flags, bool around)
{
    enum err rc;
    struct schema s = {.e = e, .dfas = dfas, .a = e->a, .flags = flags};
    int32_t top = eng_draft_rule(e->d), start = eng_draft_state(e->d), end = eng_draft_state(e->d),
            last = eng_draft_state(e->d);
    eng_draft_accept(e->d, last);
    TRY(prepare(&s));
    TRY(eng_schema_walk(&s, document));
    int32_t root = eng_formula_of(&s, (struct literal){.node = document});
    if (around)
        eng_schema_space(&s, e->d->rules[top], start);
    else
        eng_draft_empty(e->d, e->d->rules[top], start);
    eng_draft_call(e->d, start, eng_schema_rule(&s, root), end);
    if (around)
        eng_schema_space(&s, end, last);
    else
        eng_draft_empty(e->d, end, last);
    TRY(bodies(&s));
out:
    close_schema(&s);
    return rc;
}

enum err eng_schema_build_args(struct encoder *e, struct eng_dfas *dfas, const json_t *document,
                               uint32_t flags, const struct schema_args *args)
{
    enum err rc;
    struct schema s = {.e = e, .dfas = dfas, .a = e->a, .flags = flags, .root = document, .args = args};
    struct value_set v;
    int32_t top = eng_draft_rule(e->d), end = eng_draft_state(e->d);
    eng_draft_accept(e->d, end);
    TRY(prepare(&s));
    if (args->raw)
        TRY(eng_dfa_without(dfas, (struct dfa_word){args->raw, strlen(args->raw)}, &s.marked));
    TRY(eng_schema_walk(&s, document));
    TRY(eng_schema_values(&s, eng_formula_of(&s, (struct literal){.node = document}), &v));
    s.in_args = true;
    for (int32_t i = 0; i < v.objects.n && !e->d->full; i++)
        TRY(eng_object_emit(&s, v.objects.v[i], e->d->rules[top], end));
    s.in_args = false;
    TRY(bodies(&s));
out:
    close_schema(&s);
    return rc;
}
