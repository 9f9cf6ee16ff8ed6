/* schema_eval.c: a schema, or its negation, as a value set: what joins several schemas, and all
 * keywords of one together.
 *
 * A schema is the conjunction of its keywords, its negation the disjunction of theirs. */
#include "engine/grammar/schema_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEEP = 120 };

/* ---- several schemas ---- */

static enum err part(struct schema *s, const json_t *schema, bool negated, struct value_set *out)
{
    return eng_literal_set(s, (struct literal){.node = schema, .negated = negated}, out);
}

/* allOf, and negated anyOf; anyOf, and negated allOf. */
static enum err fold(struct schema *s, const json_t *node, const char *keyword, const json_t *list,
                     bool negated, bool all, struct value_set *out)
{
    enum err rc = OK;
    size_t i;
    const json_t *x;
    if (!json_is_array(list)) return eng_schema_need(s, node, keyword, "a list of schemas");
    *out = all ? eng_set_all(s) : eng_set_none(s);
    json_array_foreach((json_t *)list, i, x)
    {
        struct value_set v;
        TRY(part(s, x, negated, &v));
        if (all)
            TRY(eng_set_and(s, out, &v, out));
        else
            TRY(eng_set_or(s, out, &v, out));
    }
out:
    return rc;
}

static enum err all_of(struct schema *s, const json_t *node, const json_t *value, bool negated,
                       struct value_set *out)
{
    return fold(s, node, "allOf", value, negated, !negated, out);
}

static enum err any_of(struct schema *s, const json_t *node, const json_t *value, bool negated,
                       struct value_set *out)
{
    return fold(s, node, "anyOf", value, negated, negated, out);
}

/* Have two sets surely nothing in common? Contradictions between children are looked for, too. */
static enum err disjoint(struct schema *s, const struct value_set *a, const struct value_set *b,
                         bool *out)
{
    enum err rc;
    struct value_set v;
    TRY(eng_set_and(s, a, b, &v));
    *out = eng_set_empty(s, &v);
out:
    return rc;
}

static enum err all_disjoint(struct schema *s, const struct value_set *v, size_t n, bool *out)
{
    enum err rc = OK;
    *out = n <= 200;
    for (size_t i = 0; i < n && *out; i++)
        for (size_t k = i + 1; k < n && *out; k++) TRY(disjoint(s, &v[i], &v[k], out));
out:
    return rc;
}

/* none: values of no schema so far; one; more. */
static enum err count(struct schema *s, const struct value_set *yes, const struct value_set *no,
                      struct value_set *none, struct value_set *one, struct value_set *more)
{
    enum err rc;
    struct value_set again, still, first;
    TRY(eng_set_and(s, one, yes, &again));
    TRY(eng_set_or(s, more, &again, more));
    TRY(eng_set_and(s, one, no, &still));
    TRY(eng_set_and(s, none, yes, &first));
    TRY(eng_set_or(s, &still, &first, one));
    TRY(eng_set_and(s, none, no, none));
out:
    return rc;
}

static enum err one_of(struct schema *s, const json_t *node, const json_t *value, bool negated,
                       struct value_set *out)
{
    enum err rc = OK;
    size_t n = json_array_size(value);
    bool apart = false;
    if (!json_is_array(value)) return eng_schema_need(s, node, "oneOf", "a list of schemas");
    struct value_set *v = arena_alloc(s->a, (n + 1) * sizeof *v), none = eng_set_all(s),
                     one = eng_set_none(s), more = one, no;
    for (size_t i = 0; i < n; i++) TRY(part(s, json_array_get(value, i), false, &v[i]));
    if (!negated) TRY(all_disjoint(s, v, n, &apart));
    if (apart) return fold(s, node, "oneOf", value, false, false, out);
    for (size_t i = 0; i < n; i++) {
        TRY(part(s, json_array_get(value, i), true, &no));
        TRY(count(s, &v[i], &no, &none, &one, &more));
    }
    if (negated)
        TRY(eng_set_or(s, &none, &more, out));
    else
        *out = one;
out:
    return rc == ERR_UNSUPPORTED ? eng_schema_at(s, node, "oneOf", rc) : rc;
}

static enum err not_keyword(struct schema *s, const json_t *node, const json_t *value, bool negated,
                            struct value_set *out)
{
    (void)node;
    return part(s, value, !negated, out);
}

static enum err conditional(struct schema *s, const json_t *node, const json_t *value, bool negated,
                            struct value_set *out)
{
    enum err rc;
    const json_t *yes = json_object_get(node, "then"), *no = json_object_get(node, "else");
    struct value_set a, b, c, d;
    if (!yes && !no) return *out = eng_set_about(s, negated), OK;
    TRY(part(s, value, false, &a));
    TRY(part(s, yes ? yes : json_true(), negated, &b));
    TRY(part(s, value, true, &c));
    TRY(part(s, no ? no : json_true(), negated, &d));
    TRY(eng_set_and(s, &a, &b, &a));
    TRY(eng_set_and(s, &c, &d, &c));
    TRY(eng_set_or(s, &a, &c, out));
out:
    return rc;
}

static enum err reference(struct schema *s, const json_t *node, const json_t *value, bool negated,
                          struct value_set *out)
{
    const json_t *to;
    if (!json_is_string(value)) return eng_schema_need(s, node, "$ref", "a string");
    enum err e = eng_schema_resolve(s, node, json_string_value(value), &to);
    return e ? e : part(s, to, negated, out);
}

/* The key is not there, or there and the schema holds: for objects. */
static enum err one_dependent(struct schema *s, const char *key, size_t n, const json_t *schema,
                              bool negated, struct value_set *out)
{
    enum err rc;
    struct value_set with = eng_set_none(s), then, without = eng_set_none(s);
    with.objects = eng_shapes_one(s, eng_object_having(s, key, n, ANY, MUST));
    without.objects = eng_shapes_one(s, eng_object_having(s, key, n, ANY, MUST_NOT));
    TRY(part(s, schema, negated, &then));
    TRY(eng_set_and(s, &with, &then, &with));
    if (!negated) TRY(eng_set_or(s, &with, &without, &with));
    *out = eng_set_about(s, negated);
    out->objects = with.objects;
out:
    return rc;
}

static enum err dependent_schemas(struct schema *s, const json_t *node, const json_t *value,
                                  bool negated, struct value_set *out)
{
    enum err rc = OK;
    const char *key;
    size_t n;
    json_t *x;
    if (!json_is_object(value))
        return eng_schema_need(s, node, "dependentSchemas", "an object of schemas");
    *out = eng_set_about(s, negated);
    json_object_keylen_foreach((json_t *)value, key, n, x)
    {
        struct value_set v;
        if (json_is_array(x))
            continue; /* draft-07's "dependencies" may list keys: schema_object.c */
        TRY(one_dependent(s, key, n, x, negated, &v));
        if (negated)
            TRY(eng_set_or(s, out, &v, out));
        else
            TRY(eng_set_and(s, out, &v, out));
    }
out:
    return rc;
}

/* ---- all of one schema ---- */

/* What arrays and objects are asked, all their keywords together. */
static enum err arrays_and_objects(struct schema *s, const json_t *node, bool negated,
                                   struct value_set *out)
{
    enum err rc;
    *out = eng_set_about(s, negated);
    TRY(eng_array_keywords(s, node, negated, &out->arrays));
    TRY(eng_object_keywords(s, node, negated, &out->objects));
out:
    return rc;
}

static const struct schema_keyword keywords[] = {
    {"$ref", reference},
    {"allOf", all_of},
    {"anyOf", any_of},
    {"oneOf", one_of},
    {"not", not_keyword},
    {"if", conditional},
    {"dependentSchemas", dependent_schemas},
    {"dependencies", dependent_schemas},
    {NULL, NULL},
};

/* Constrain, and are not honoured. */
static const char *const refused[] = {"unevaluatedItems", "unevaluatedProperties",
                                      "$dynamicRef",      "$recursiveRef",
                                      "nullable",         "disallow",
                                      "extends",          "divisibleBy"};

static enum err check_refused(const struct schema *s, const json_t *node)
{
    for (size_t i = 0; i < COUNT_OF(refused); i++) {
        const json_t *v = json_object_get(node, refused[i]);
        bool harmless = json_is_true(v) && refused[i][0] == 'u';
        if (!strcmp(refused[i], "nullable") && json_is_false(v)) harmless = true;
        if (v && !harmless)
            return eng_schema_refuse(s, node, refused[i], ERR_UNSUPPORTED,
                                     "the keyword '%s' is not supported", refused[i]);
    }
    const char *dialect = json_string_value(json_object_get(node, "$schema"));
    if (dialect && !strstr(dialect, "://json-schema.org/"))
        return eng_schema_refuse(s, node, "$schema", ERR_UNSUPPORTED,
                                 "the dialect '%.100s' is not known", dialect);
    return OK;
}

/* *all and, negated, or what each keyword of the table says. */
static enum err apply(struct schema *s, const struct schema_keyword *k, const json_t *node,
                      bool negated, struct value_set *all)
{
    enum err rc = OK;
    struct value_set v;
    for (; k->name; k++) {
        const json_t *value = json_object_get(node, k->name);
        if (!value) continue;
        TRY(k->set(s, node, value, negated, &v));
        if (negated)
            TRY(eng_set_or(s, all, &v, all));
        else
            TRY(eng_set_and(s, all, &v, all));
    }
out:
    return rc;
}

static enum err evaluate(struct schema *s, const json_t *node, bool negated, struct value_set *out)
{
    enum err rc;
    struct value_set all;
    if (json_is_boolean(node)) {
        *out = json_is_true(node) != negated ? eng_set_all(s) : eng_set_none(s);
        return OK;
    }
    if (!json_is_object(node))
        return eng_schema_refuse(s, node, NULL, ERR_BAD_REQUEST,
                                 "a schema is an object, true or false");
    TRY(check_refused(s, node));
    TRY(arrays_and_objects(s, node, negated, &all));
    TRY(apply(s, eng_scalar_keywords, node, negated, &all));
    TRY(apply(s, keywords, node, negated, &all));
    *out = all;
out:
    return rc;
}

enum { BUSY = INT32_MAX };

enum err eng_literal_set(struct schema *s, struct literal l, struct value_set *out)
{
    if (l.constant) return eng_constant_set(s, l.node, l.negated, out);
    uint64_t key = (uint64_t)(uintptr_t)l.node << 1 | l.negated;
    int32_t i = map64_get(&s->memo, key);
    if (i == BUSY && s->probing) {
        s->guessed = true;
        *out = eng_set_all(s);
        return OK;
    }
    if (i == BUSY || s->depth > DEEP)
        return eng_schema_refuse(s, l.node, NULL, i == BUSY ? ERR_BAD_REQUEST : ERR_UNSUPPORTED,
                                 i == BUSY ? "the schema refers to itself without end"
                                           : "references are nested too deep");
    if (i > 0) return *out = s->values[i - 1], OK;
    bool guessed = s->guessed;
    s->guessed = false;
    map64_put(&s->memo, key, BUSY);
    s->depth++;
    enum err e = evaluate(s, l.node, l.negated, out);
    s->depth--;
    if (e || s->guessed) {
        map64_put(&s->memo, key, 0); /* not known */
    } else {
        if (s->n_values == s->cap_values) {
            s->cap_values = MAX(64, 2 * s->cap_values);
            s->values = xrealloc(s->values, (size_t)s->cap_values * sizeof *s->values);
        }
        s->values[s->n_values++] = *out;
        map64_put(&s->memo, key, s->n_values);
    }
    s->guessed |= guessed;
    return e;
}
