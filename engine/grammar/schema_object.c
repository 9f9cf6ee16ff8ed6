/* schema_object.c: shapes of objects: conjunction and keywords. */
#include "engine/grammar/regex.h"
#include "engine/grammar/schema_set.h"

#include <string.h>

enum { MOST_CLASSES = 128 };

static struct object_shape *fresh(struct schema *s)
{
    struct object_shape *x = arena_alloc(s->a, sizeof *x);
    *x = (struct object_shape){.max = -1};
    return x;
}

static struct object_shape *open_shape(struct schema *s, int32_t f)
{
    struct object_shape *x = fresh(s);
    x->classes = arena_alloc(s->a, sizeof *x->classes);
    x->classes[x->n_classes++] = (struct key_class){s->dfas->all, f};
    return x;
}

static struct object_shape *one_name(struct schema *s, struct property p)
{
    struct object_shape *x = open_shape(s, ANY);
    x->names = arena_alloc(s->a, sizeof *x->names);
    x->names[x->n_names++] = p;
    return x;
}

const struct object_shape *eng_object_having(struct schema *s, const char *key, size_t n, int32_t f,
                                             enum presence presence)
{
    return one_name(s, (struct property){key, n, f, presence});
}

/* What the shape says of a key. */
static struct property lookup(const struct object_shape *x, const char *key, size_t n)
{
    for (int32_t i = 0; i < x->n_names; i++)
        if (x->names[i].n == n && !memcmp(x->names[i].key, key, n)) return x->names[i];
    for (int32_t i = 0; i < x->n_classes; i++)
        if (eng_dfa_holds(x->classes[i].keys, key, n))
            return (struct property){key, n, x->classes[i].f,
                                     x->classes[i].f == NONE ? MUST_NOT : MAY};
    return (struct property){key, n, NONE, MUST_NOT};
}

/* ---- conjunction ---- */

/* false: a contradiction. */
static enum err join(struct schema *s, struct property a, struct property b, struct property *out,
                     bool *ok)
{
    enum err rc = OK;
    bool must = a.presence == MUST || b.presence == MUST,
         never = a.presence == MUST_NOT || b.presence == MUST_NOT, empty = false;
    *out = (struct property){a.key, a.n, eng_formula_and(s, a.f, b.f), must ? MUST : MAY};
    if (out->f == NONE) never = true;
    if (must && !never && out->f != a.f && out->f != b.f) TRY(eng_formula_empty(s, out->f, &empty));
    if (never || empty) out->presence = MUST_NOT;
    *ok = !(must && (never || empty));
out:
    return rc;
}

static enum err join_classes(struct schema *s, const struct object_shape *a,
                             const struct object_shape *b, struct object_shape *x)
{
    enum err rc = OK;
    x->classes =
        arena_alloc(s->a, ((size_t)a->n_classes * (size_t)b->n_classes + 1) * sizeof *x->classes);
    for (int32_t i = 0; i < a->n_classes; i++)
        for (int32_t k = 0; k < b->n_classes; k++) {
            const struct dfa *keys;
            int32_t f = eng_formula_and(s, a->classes[i].f, b->classes[k].f);
            TRY(eng_dfa_op(s->dfas, DFA_AND, a->classes[i].keys, b->classes[k].keys, &keys));
            if (f != NONE && keys != s->dfas->none)
                x->classes[x->n_classes++] = (struct key_class){keys, f};
        }
    if (x->n_classes > MOST_CLASSES)
        rc = err_raise(ERR_UNSUPPORTED, "JSON Schema: more than %d kinds of keys in one object",
                       MOST_CLASSES);
out:
    return rc;
}

enum err eng_object_and(struct schema *s, const struct object_shape *a,
                        const struct object_shape *b, const struct object_shape **out)
{
    enum err rc;
    struct object_shape *x = fresh(s);
    bool ok = true;
    *out = NULL;
    x->names = arena_alloc(s->a, ((size_t)a->n_names + (size_t)b->n_names + 1) * sizeof *x->names);
    for (int32_t i = 0; i < a->n_names && ok; i++)
        TRY(join(s, a->names[i], lookup(b, a->names[i].key, a->names[i].n), &x->names[x->n_names++],
                 &ok));
    for (int32_t i = 0; i < b->n_names && ok; i++) {
        const struct property *p = &b->names[i];
        bool both = false;
        for (int32_t k = 0; k < a->n_names && !both; k++)
            both = a->names[k].n == p->n && !memcmp(a->names[k].key, p->key, p->n);
        if (!both) TRY(join(s, *p, lookup(a, p->key, p->n), &x->names[x->n_names++], &ok));
    }
    TRY(join_classes(s, a, b, x));
    x->n_witness = a->n_witness + b->n_witness;
    x->witness = arena_alloc(s->a, ((size_t)x->n_witness + 1) * sizeof *x->witness);
    if (a->n_witness) memcpy(x->witness, a->witness, (size_t)a->n_witness * sizeof *x->witness);
    if (b->n_witness)
        memcpy(x->witness + a->n_witness, b->witness, (size_t)b->n_witness * sizeof *x->witness);
    x->min = MAX(a->min, b->min);
    x->min_at = a->min >= b->min ? a->min_at : b->min_at;
    x->max = a->max < 0 ? b->max : b->max < 0 ? a->max : MIN(a->max, b->max);
    if (ok && !(x->max >= 0 && x->min > x->max)) *out = x;
out:
    return rc;
}

/* ---- keywords ---- */

struct asked {
    struct schema *s;
    const json_t *node;
    bool negated;
    struct shapes *all;
};

static enum err demand(struct asked *q, const struct object_shape *x)
{
    enum err rc = OK;
    struct shapes l = {0};
    if (q->negated) return eng_shapes_add(q->s, q->all, x);
    for (int32_t i = 0; x && i < q->all->n; i++) {
        const struct object_shape *both;
        TRY(eng_object_and(q->s, q->all->v[i], x, &both));
        TRY(eng_shapes_add(q->s, &l, both));
    }
    *q->all = l;
out:
    return rc;
}

static enum err malformed(const struct asked *q, const char *keyword, const char *need)
{
    return eng_schema_need(q->s, q->node, keyword, need);
}

static int32_t formula(const struct asked *q, const json_t *schema)
{
    return eng_formula_of(q->s, (struct literal){.node = schema, .negated = q->negated});
}

/* Keys of `from` are divided by a pattern: those in it have f besides. */
static enum err divide(struct schema *s, struct object_shape *x, const struct dfa *pattern,
                       int32_t f, bool *covered)
{
    enum err rc = OK;
    int32_t n = x->n_classes;
    struct key_class *c = arena_alloc(s->a, (2 * (size_t)n + 1) * sizeof *c);
    bool *in = arena_alloc(s->a, 2 * (size_t)n + 1);
    int32_t m = 0;
    if (2 * n > MOST_CLASSES)
        return err_raise(ERR_UNSUPPORTED, "patterns divide the keys into more than %d kinds",
                         MOST_CLASSES);
    for (int32_t i = 0; i < n; i++) {
        const struct dfa *yes, *no;
        TRY(eng_dfa_op(s->dfas, DFA_AND, x->classes[i].keys, pattern, &yes));
        TRY(eng_dfa_op(s->dfas, DFA_MINUS, x->classes[i].keys, pattern, &no));
        if (yes != s->dfas->none)
            in[m] = true, c[m++] = (struct key_class){yes, eng_formula_and(s, x->classes[i].f, f)};
        if (no != s->dfas->none)
            in[m] = covered[i], c[m++] = (struct key_class){no, x->classes[i].f};
    }
    x->classes = c;
    x->n_classes = m;
    memcpy(covered, in, (size_t)m);
out:
    return rc;
}

/* The negation of "keys of this set have values of the schema": some key has not. */
static enum err deny(struct asked *q, const struct dfa *keys, int32_t f)
{
    struct object_shape *x = open_shape(q->s, ANY);
    if (f == NONE || keys == q->s->dfas->none) return OK;
    x->witness = arena_alloc(q->s->a, sizeof *x->witness);
    x->witness[x->n_witness++] = (struct key_class){keys, f};
    return eng_shapes_add(q->s, q->all, x);
}

static enum err names_of(struct asked *q, const json_t *properties, struct object_shape *x,
                         struct dfa_word *words)
{
    enum err rc = OK;
    const char *key;
    size_t n;
    json_t *schema;
    x->names = arena_alloc(q->s->a, (json_object_size(properties) + 1) * sizeof *x->names);
    json_object_keylen_foreach((json_t *)properties, key, n, schema)
    {
        int32_t f = formula(q, schema);
        words[x->n_names] = (struct dfa_word){key, n};
        x->names[x->n_names++] = (struct property){key, n, f, f == NONE ? MUST_NOT : MAY};
        if (q->negated && f != NONE) TRY(demand(q, eng_object_having(q->s, key, n, f, MUST)));
    }
out:
    return rc;
}

static enum err patterns_of(struct asked *q, const json_t *patterns, struct object_shape *x,
                            bool *covered, const struct dfa **any)
{
    enum err rc = OK;
    const char *key;
    size_t n;
    json_t *schema;
    json_object_keylen_foreach((json_t *)patterns, key, n, schema)
    {
        const struct dfa *d;
        int32_t f = formula(q, schema);
        rc = eng_regex_compile(q->s->dfas, key, n, false, &d);
        if (rc) return eng_schema_at(q->s, q->node, "patternProperties", rc);
        TRY(eng_dfa_op(q->s->dfas, DFA_OR, *any, d, any));
        for (int32_t i = 0; i < x->n_names; i++)
            if (eng_dfa_holds(d, x->names[i].key, x->names[i].n)) {
                x->names[i].f = eng_formula_and(q->s, x->names[i].f, f);
                if (x->names[i].f == NONE) x->names[i].presence = MUST_NOT;
            }
        if (q->negated)
            TRY(deny(q, d, f));
        else
            TRY(divide(q->s, x, d, f, covered));
    }
out:
    return rc;
}

/* properties, patternProperties and additionalProperties belong together. */
static enum err members(struct asked *q)
{
    enum err rc = OK;
    struct schema *s = q->s;
    const json_t *properties = json_object_get(q->node, "properties"),
                 *patterns = json_object_get(q->node, "patternProperties");
    const json_t *rest = json_object_get(q->node, "additionalProperties");
    bool covered[2 * MOST_CLASSES + 2] = {false};
    const struct dfa *any = s->dfas->none, *named;
    if (!properties && !patterns && !rest) return OK;
    if (properties && !json_is_object(properties))
        return malformed(q, "properties", "an object of schemas");
    if (patterns && !json_is_object(patterns))
        return malformed(q, "patternProperties", "an object of schemas");
    struct object_shape *x = open_shape(s, ANY);
    struct dfa_word *words = arena_alloc(s->a, (json_object_size(properties) + 1) * sizeof *words);
    TRY(names_of(q, properties, x, words));
    TRY(patterns_of(q, patterns, x, covered, &any));
    int32_t f = rest ? formula(q, rest) : ANY;
    if (q->negated) {
        if (!rest) return OK;
        TRY(eng_dfa_words(s->dfas, words, x->n_names, &named));
        TRY(eng_dfa_op(s->dfas, DFA_OR, named, any, &any));
        TRY(eng_dfa_op(s->dfas, DFA_MINUS, s->dfas->all, any, &any));
        return deny(q, any, f);
    }
    for (int32_t i = 0; i < x->n_classes; i++)
        if (!covered[i]) x->classes[i].f = eng_formula_and(s, x->classes[i].f, f);
    rc = demand(q, x);
out:
    return rc;
}

static enum err required(struct asked *q)
{
    enum err rc = OK;
    size_t i;
    const json_t *list = json_object_get(q->node, "required"), *k;
    if (list && !json_is_array(list)) return malformed(q, "required", "a list of strings");
    json_array_foreach((json_t *)list, i, k)
    {
        if (!json_is_string(k)) return malformed(q, "required", "a list of strings");
        TRY(demand(q, eng_object_having(q->s, json_string_value(k), json_string_length(k), ANY,
                                        q->negated ? MUST_NOT : MUST)));
    }
out:
    return rc;
}

static enum err property_names(struct asked *q)
{
    enum err rc;
    struct value_set v;
    struct object_shape *x = open_shape(q->s, ANY);
    const json_t *schema = json_object_get(q->node, "propertyNames");
    if (!schema) return OK;
    TRY(eng_literal_set(q->s, (struct literal){.node = schema, .negated = q->negated}, &v));
    if (q->negated) return deny(q, v.string, ANY);
    x->classes[0].keys = v.string;
    x->n_classes = v.string != q->s->dfas->none;
    rc = demand(q, x);
out:
    return rc;
}

static const struct object_shape *sized(struct asked *q, int64_t min, int64_t max)
{
    struct object_shape *x = open_shape(q->s, ANY);
    x->min = min;
    x->max = max;
    x->min_at = q->node;
    return x;
}

static enum err sizes(struct asked *q)
{
    enum err rc = OK;
    int64_t min = 0, max = -1;
    const json_t *least = json_object_get(q->node, "minProperties"),
                 *most = json_object_get(q->node, "maxProperties");
    if (least && (!eng_schema_integer(least, &min) || min < 0))
        return malformed(q, "minProperties", "a whole number >= 0");
    if (most && (!eng_schema_integer(most, &max) || max < 0))
        return malformed(q, "maxProperties", "a whole number >= 0");
    if (min > 0) TRY(demand(q, q->negated ? sized(q, 0, min - 1) : sized(q, min, -1)));
    if (max >= 0) TRY(demand(q, q->negated ? sized(q, max + 1, -1) : sized(q, 0, max)));
out:
    return rc;
}

/* When `key` is there the others are, too: two alternatives, or, negated, one for each that is
 * missing. */
static enum err one_dependency(struct asked *q, const char *key, size_t n, const json_t *list)
{
    enum err rc = OK;
    struct schema *s = q->s;
    struct shapes l = {0}, before = *q->all;
    const struct object_shape *all = eng_object_having(s, key, n, ANY, MUST), *x;
    size_t i;
    const json_t *k;
    json_array_foreach((json_t *)list, i, k)
    {
        if (!json_is_string(k)) return malformed(q, "dependentRequired", "lists of strings");
        const struct object_shape *other = eng_object_having(
            s, json_string_value(k), json_string_length(k), ANY, q->negated ? MUST_NOT : MUST);
        TRY(eng_object_and(s, q->negated ? eng_object_having(s, key, n, ANY, MUST) : all, other,
                           &x));
        if (q->negated)
            TRY(eng_shapes_add(s, q->all, x));
        else if (x)
            all = x;
    }
    if (q->negated || !json_array_size(list)) return OK;
    for (int32_t m = 0; m < before.n; m++) {
        TRY(eng_object_and(s, before.v[m], all, &x));
        TRY(eng_shapes_add(s, &l, x));
        TRY(eng_object_and(s, before.v[m], eng_object_having(s, key, n, ANY, MUST_NOT), &x));
        TRY(eng_shapes_add(s, &l, x));
    }
    *q->all = l;
out:
    return rc;
}

static enum err dependent_required(struct asked *q, const char *keyword)
{
    enum err rc = OK;
    const json_t *map = json_object_get(q->node, keyword);
    const char *key;
    size_t n;
    json_t *list;
    if (map && !json_is_object(map)) return malformed(q, keyword, "an object of lists");
    json_object_keylen_foreach((json_t *)map, key, n, list) if (json_is_array(list))
        TRY(one_dependency(q, key, n, list));
out:
    return rc;
}

enum err eng_object_keywords(struct schema *s, const json_t *node, bool negated, struct shapes *out)
{
    enum err rc;
    struct shapes all = negated ? (struct shapes){0} : eng_shapes_one(s, s->any_object);
    struct asked q = {s, node, negated, &all};
    TRY(members(&q));
    TRY(required(&q));
    TRY(property_names(&q));
    TRY(sizes(&q));
    TRY(dependent_required(&q, "dependentRequired"));
    TRY(dependent_required(&q, "dependencies"));
    *out = all;
out:
    return rc;
}

enum err eng_object_constant(struct schema *s, const json_t *value, bool negated,
                             struct shapes *out)
{
    enum err rc = OK;
    struct shapes l = {0};
    struct asked q = {s, value, negated, &l};
    const char *key;
    size_t n;
    json_t *v;
    struct object_shape *x = fresh(s);
    struct dfa_word *words = arena_alloc(s->a, (json_object_size(value) + 1) * sizeof *words);
    const struct dfa *others;
    x->names = arena_alloc(s->a, (json_object_size(value) + 1) * sizeof *x->names);
    json_object_keylen_foreach((json_t *)value, key, n, v)
    {
        int32_t f =
            eng_formula_of(s, (struct literal){.node = v, .negated = negated, .constant = true});
        words[x->n_names] = (struct dfa_word){key, n};
        x->names[x->n_names++] = (struct property){key, n, f, MUST};
        if (negated) TRY(eng_shapes_add(s, &l, eng_object_having(s, key, n, f, MUST)));
        if (negated) TRY(eng_shapes_add(s, &l, eng_object_having(s, key, n, ANY, MUST_NOT)));
    }
    TRY(eng_dfa_words(s->dfas, words, x->n_names, &others));
    TRY(eng_dfa_op(s->dfas, DFA_MINUS, s->dfas->all, others, &others));
    if (negated)
        TRY(deny(&q, others, ANY));
    else
        TRY(eng_shapes_add(s, &l, x));
    *out = l;
out:
    return rc;
}
