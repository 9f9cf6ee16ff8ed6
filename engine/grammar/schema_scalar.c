/* schema_scalar.c: keywords about types, strings, numbers and constants as value sets. A keyword
 * says nothing about types other than its own. */
#include "engine/grammar/format.h"
#include "engine/grammar/number.h"
#include "engine/grammar/regex.h"
#include "engine/grammar/schema_set.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

bool eng_schema_integer(const json_t *j, int64_t *out)
{
    double v = json_number_value(j);
    if (!json_is_number(j) || v != floor(v) || fabs(v) > 1e15) return false;
    *out = (int64_t)v;
    return true;
}

/* ---- scalars ---- */

static enum err one_type(struct schema *s, const json_t *node, const char *name,
                         struct value_set *v, bool negated)
{
    static const char *const names[] = {"null",   "boolean", "number", "integer",
                                        "string", "array",   "object"};
    size_t i = 0;
    while (name && i < COUNT_OF(names) && strcmp(name, names[i])) i++;
    struct value_set all = eng_set_all(s);
    switch (i) {
    case 0:
        v->null = true;
        return OK;
    case 1:
        v->yes = v->no = true;
        return OK;
    case 2:
        v->number = s->numbers;
        return OK;
    case 3:
        return v->number == s->numbers ? OK
                                       : eng_dfa_op(s->dfas, DFA_OR, v->number,
                                                    negated ? s->whole : s->integers, &v->number);
    case 4:
        v->string = s->dfas->all;
        return OK;
    case 5:
        v->arrays = all.arrays;
        return OK;
    case 6:
        v->objects = all.objects;
        return OK;
    default:
        return eng_schema_need(
            s, node, "type",
            "null, boolean, number, integer, string, array, object or a list of them");
    }
}

/* Only of sets whose arrays and objects are all or none. */
static enum err complement(struct schema *s, struct value_set *v)
{
    enum err rc;
    struct value_set all = eng_set_all(s);
    v->null = !v->null, v->yes = !v->yes, v->no = !v->no;
    v->arrays = v->arrays.n ? (struct shapes){0} : all.arrays;
    v->objects = v->objects.n ? (struct shapes){0} : all.objects;
    TRY(eng_dfa_op(s->dfas, DFA_MINUS, s->dfas->all, v->string, &v->string));
    if (v->number == s->numbers)
        v->number = s->dfas->none;
    else if (v->number == s->dfas->none)
        v->number = s->numbers;
    else
        TRY(eng_dfa_op(s->dfas, DFA_MINUS, s->numbers, v->number, &v->number));
out:
    return rc;
}

static enum err type(struct schema *s, const json_t *node, const json_t *value, bool negated,
                     struct value_set *out)
{
    enum err rc = OK;
    size_t i;
    const json_t *t;
    *out = eng_set_none(s);
    if (!json_is_array(value)) TRY(one_type(s, node, json_string_value(value), out, negated));
    json_array_foreach((json_t *)value, i, t)
        TRY(one_type(s, node, json_string_value(t), out, negated));
    if (negated) TRY(complement(s, out));
out:
    return rc;
}

static enum err decimal_of(const struct schema *s, const json_t *node, const char *keyword,
                           const json_t *value, struct decimal *d)
{
    char text[32];
    if (!json_is_number(value)) return eng_schema_need(s, node, keyword, "a number");
    if (json_is_real(value)) return eng_decimal_of_double(d, json_real_value(value)), OK;
    snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    eng_decimal_parse(d, text);
    return OK;
}

static enum err of_strings(struct schema *s, const json_t *node, const char *keyword,
                           const struct dfa *d, enum err e, bool negated, struct value_set *out)
{
    *out = eng_set_about(s, negated);
    out->string = d;
    if (!e && negated) e = eng_dfa_op(s->dfas, DFA_MINUS, s->dfas->all, d, &out->string);
    return e ? eng_schema_at(s, node, keyword, e) : OK;
}

static enum err of_numbers(struct schema *s, const json_t *node, const char *keyword,
                           const struct dfa *d, enum err e, bool negated, struct value_set *out)
{
    *out = eng_set_about(s, negated);
    if (!e) e = eng_dfa_op(s->dfas, negated ? DFA_MINUS : DFA_AND, s->numbers, d, &out->number);
    return e ? eng_schema_at(s, node, keyword, e) : OK;
}

static enum err length(struct schema *s, const json_t *node, const char *keyword,
                       const json_t *value, bool is_max, bool negated, struct value_set *out)
{
    int64_t n;
    const struct dfa *d = NULL;
    if (!eng_schema_integer(value, &n) || n < 0)
        return eng_schema_need(s, node, keyword, "a whole number >= 0");
    enum err e = eng_dfa_length(s->dfas, is_max ? 0 : n, is_max ? n : -1, &d);
    return of_strings(s, node, keyword, d, e, negated, out);
}

static enum err min_length(struct schema *s, const json_t *node, const json_t *value, bool negated,
                           struct value_set *out)
{
    return length(s, node, "minLength", value, false, negated, out);
}

static enum err max_length(struct schema *s, const json_t *node, const json_t *value, bool negated,
                           struct value_set *out)
{
    return length(s, node, "maxLength", value, true, negated, out);
}

static enum err pattern(struct schema *s, const json_t *node, const json_t *value, bool negated,
                        struct value_set *out)
{
    const struct dfa *d = NULL;
    if (!json_is_string(value)) return eng_schema_need(s, node, "pattern", "a string");
    enum err e =
        eng_regex_compile(s->dfas, json_string_value(value), json_string_length(value), false, &d);
    return of_strings(s, node, "pattern", d, e, negated, out);
}

static enum err format(struct schema *s, const json_t *node, const json_t *value, bool negated,
                       struct value_set *out)
{
    const struct dfa *d = s->dfas->all;
    if (!json_is_string(value)) return eng_schema_need(s, node, "format", "a string");
    if (negated && !(s->flags & GRAMMAR_FORMAT_NOTE))
        return eng_schema_refuse(s, node, "format", ERR_UNSUPPORTED,
                                 "a negated format is not supported");
    enum err e = s->flags & GRAMMAR_FORMAT_NOTE
                     ? OK
                     : eng_format_find(s->dfas, json_string_value(value), &d);
    return of_strings(s, node, "format", d, e, negated, out);
}

static enum err bound(struct schema *s, const json_t *node, const char *keyword,
                      const json_t *value, unsigned orders, bool negated, struct value_set *out)
{
    struct decimal d;
    const struct dfa *n = NULL;
    enum err e = decimal_of(s, node, keyword, value, &d);
    if (e) return e;
    e = eng_number_compare(s->dfas, &d, orders, &n);
    return of_numbers(s, node, keyword, n, e, negated, out);
}

static enum err minimum(struct schema *s, const json_t *node, const json_t *value, bool negated,
                        struct value_set *out)
{
    return bound(s, node, "minimum", value, NUMBER_MORE | NUMBER_EQUAL, negated, out);
}

static enum err maximum(struct schema *s, const json_t *node, const json_t *value, bool negated,
                        struct value_set *out)
{
    return bound(s, node, "maximum", value, NUMBER_LESS | NUMBER_EQUAL, negated, out);
}

static enum err exclusive_minimum(struct schema *s, const json_t *node, const json_t *value,
                                  bool negated, struct value_set *out)
{
    return bound(s, node, "exclusiveMinimum", value, NUMBER_MORE, negated, out);
}

static enum err exclusive_maximum(struct schema *s, const json_t *node, const json_t *value,
                                  bool negated, struct value_set *out)
{
    return bound(s, node, "exclusiveMaximum", value, NUMBER_LESS, negated, out);
}

static enum err multiple_of(struct schema *s, const json_t *node, const json_t *value, bool negated,
                            struct value_set *out)
{
    struct decimal d;
    const struct dfa *n = NULL;
    enum err e = decimal_of(s, node, "multipleOf", value, &d);
    if (e) return e;
    if (json_number_value(value) <= 0)
        return eng_schema_need(s, node, "multipleOf", "a number > 0");
    e = eng_number_multiple(s->dfas, &d, &n);
    return of_numbers(s, node, "multipleOf", n, e, negated, out);
}

/* ---- enum and const ---- */

/* As generated: no superfluous zeros, but "2.0" where 2 is meant. */
static enum err number_words(struct schema *s, const json_t *v, const struct dfa **out)
{
    struct decimal d;
    char text[2][824];
    struct dfa_word w[2];
    enum err e = decimal_of(s, v, NULL, v, &d);
    if (e) return e;
    eng_decimal_print(&d, text[0], sizeof text[0]);
    snprintf(text[1], sizeof text[1], "%.820s%s", text[0], d.part[0] ? "" : ".0");
    for (int i = 0; i < 2; i++) w[i] = (struct dfa_word){text[i], strlen(text[i])};
    return eng_dfa_words(s->dfas, w, d.part[0] ? 1 : 2, out);
}

static enum err number_constant(struct schema *s, const json_t *v, bool negated,
                                const struct dfa **out)
{
    struct decimal d;
    const struct dfa *n;
    if (!negated) return number_words(s, v, out);
    enum err e = decimal_of(s, v, NULL, v, &d);
    if (!e) e = eng_number_compare(s->dfas, &d, NUMBER_EQUAL, &n);
    return e ? e : eng_dfa_op(s->dfas, DFA_MINUS, s->numbers, n, out);
}

enum err eng_constant_set(struct schema *s, const json_t *v, bool negated, struct value_set *out)
{
    enum err rc = OK;
    struct value_set x = negated ? eng_set_all(s) : eng_set_none(s);
    if (json_is_null(v))
        x.null = !negated;
    else if (json_is_true(v))
        x.yes = !negated;
    else if (json_is_false(v))
        x.no = !negated;
    else if (json_is_number(v))
        TRY(number_constant(s, v, negated, &x.number));
    else if (json_is_array(v))
        TRY(eng_array_constant(s, v, negated, &x.arrays));
    else if (json_is_object(v))
        TRY(eng_object_constant(s, v, negated, &x.objects));
    else {
        struct dfa_word w = {json_string_value(v), json_string_length(v)};
        TRY(eng_dfa_words(s->dfas, &w, 1, &x.string));
        if (negated) TRY(eng_dfa_op(s->dfas, DFA_MINUS, s->dfas->all, x.string, &x.string));
    }
    *out = x;
out:
    return rc;
}

static enum err constant_keyword(struct schema *s, const json_t *node, const json_t *value,
                                 bool negated, struct value_set *out)
{
    enum err e = eng_constant_set(s, value, negated, out);
    return e ? eng_schema_at(s, node, "const", e) : OK;
}

/* All strings of a list at once: a thousand of them are one automaton, not a thousand unions. */
static enum err strings_of(struct schema *s, const json_t *list, bool negated,
                           struct value_set *out)
{
    enum err rc;
    struct dfa_word *w = arena_alloc(s->a, (json_array_size(list) + 1) * sizeof *w);
    int32_t n = 0;
    size_t i;
    const json_t *v;
    json_array_foreach((json_t *)list, i, v) if (json_is_string(v)) w[n++] =
        (struct dfa_word){json_string_value(v), json_string_length(v)};
    *out = negated ? eng_set_all(s) : eng_set_none(s);
    TRY(eng_dfa_words(s->dfas, w, n, &out->string));
    if (negated) TRY(eng_dfa_op(s->dfas, DFA_MINUS, s->dfas->all, out->string, &out->string));
out:
    return rc;
}

static enum err enumeration(struct schema *s, const json_t *node, const json_t *value, bool negated,
                            struct value_set *out)
{
    enum err rc = OK;
    size_t i;
    const json_t *v;
    if (!json_is_array(value)) return eng_schema_need(s, node, "enum", "a list");
    TRY(strings_of(s, value, negated, out));
    json_array_foreach((json_t *)value, i, v)
    {
        struct value_set one;
        if (json_is_string(v)) continue;
        TRY(eng_constant_set(s, v, negated, &one));
        if (negated)
            TRY(eng_set_and(s, out, &one, out));
        else
            TRY(eng_set_or(s, out, &one, out));
    }
out:
    return rc ? eng_schema_at(s, node, "enum", rc) : OK;
}

const struct schema_keyword eng_scalar_keywords[] = {
    {"type", type},
    {"const", constant_keyword},
    {"enum", enumeration},
    {"minLength", min_length},
    {"maxLength", max_length},
    {"pattern", pattern},
    {"format", format},
    {"minimum", minimum},
    {"maximum", maximum},
    {"exclusiveMinimum", exclusive_minimum},
    {"exclusiveMaximum", exclusive_maximum},
    {"multipleOf", multiple_of},
    {NULL, NULL},
};
