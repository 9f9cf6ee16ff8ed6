/* schema_set.c: formulas, and the algebra of value sets. */
#include "engine/grammar/schema_set.h"

#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_SHAPES_AT_ONCE = 512, MOST_SHAPES = 60000, MOST_LITERALS = 64, DEEPEST_PROBE = 4 };
enum { UNKNOWN, YES, NO };

/* ---- formulas ---- */

static int compare(const struct literal *a, const struct literal *b)
{
    if (a->at != b->at) return a->at < b->at ? -1 : 1; /* never by address: all ranks must agree */
    if (a->constant != b->constant) return a->constant ? 1 : -1;
    return (int)a->negated - (int)b->negated;
}

static int32_t intern(struct schema *s, const struct literal *l, int32_t n)
{
    uint64_t h = (uint64_t)n;
    for (int32_t i = 0; i < n; i++)
        h = rng_mix(h ^ (uint64_t)(uint32_t)l[i].at ^ (uint64_t)l[i].negated << 62 ^
                    (uint64_t)l[i].constant << 63);
    for (int32_t i; (i = map64_get(&s->formula_of, h)) >= 0; h++) {
        const struct formula *f = &s->formulas[i];
        bool same = f->n == n && i != NONE;
        for (int32_t k = 0; same && k < n; k++) same = !compare(&f->l[k], &l[k]);
        if (same) return i;
    }
    if (s->n_formulas == s->cap_formulas) {
        s->cap_formulas = MAX(64, 2 * s->cap_formulas);
        s->formulas = xrealloc(s->formulas, (size_t)s->cap_formulas * sizeof *s->formulas);
    }
    struct formula *f = &s->formulas[s->n_formulas];
    *f = (struct formula){
        .l = arena_alloc(s->a, ((size_t)n + 1) * sizeof *f->l), .n = n, .rule = -1};
    if (n) memcpy(f->l, l, (size_t)n * sizeof *l);
    map64_put(&s->formula_of, h, s->n_formulas);
    return s->n_formulas++;
}

int32_t eng_formula_of(struct schema *s, struct literal l)
{
    while (s->n_formulas <= NONE)
        intern(s, &(struct literal){.node = NULL, .negated = s->n_formulas == NONE},
               s->n_formulas == NONE);
    if (!l.node) return ANY;
    bool always = !l.constant &&
                  (json_is_true(l.node) || (json_is_object(l.node) && !json_object_size(l.node)));
    bool never = !l.constant && json_is_false(l.node);
    if (always || never) return always != l.negated ? ANY : NONE;
    l.at = eng_schema_place(s, l.node);
    return intern(s, &l, 1);
}

int32_t eng_formula_and(struct schema *s, int32_t a, int32_t b)
{
    struct literal l[2 * MOST_LITERALS];
    int32_t n = 0, i = 0, k = 0;
    if (a == ANY || a == b || b == NONE) return b;
    if (b == ANY || a == NONE) return a;
    struct formula x = s->formulas[a], y = s->formulas[b];
    if (x.n + y.n > 2 * MOST_LITERALS) return x.n > y.n ? a : b; /* which eng_formula_set refuses */
    while (i < x.n || k < y.n) {
        int c = i == x.n ? 1 : k == y.n ? -1 : compare(&x.l[i], &y.l[k]);
        l[n++] = c <= 0 ? x.l[i] : y.l[k];
        i += c <= 0;
        k += c >= 0;
        if (n > 1 && l[n - 1].at == l[n - 2].at && l[n - 1].constant == l[n - 2].constant &&
            l[n - 1].negated != l[n - 2].negated)
            return NONE;
    }
    return intern(s, l, n);
}

enum err eng_formula_set(struct schema *s, int32_t f, struct value_set *out)
{
    enum err rc = OK;
    *out = f == NONE ? eng_set_none(s) : eng_set_all(s);
    if (s->formulas[f].n > MOST_LITERALS)
        return err_raise(ERR_UNSUPPORTED, "JSON Schema: more than %d schemas hold for one value",
                         MOST_LITERALS);
    for (int32_t i = 0; f != NONE && i < s->formulas[f].n; i++) {
        struct value_set v;
        TRY(eng_literal_set(s, s->formulas[f].l[i], &v));
        TRY(eng_set_and(s, out, &v, out));
    }
out:
    return rc;
}

/* Probing: a recursive schema met again is taken to have values, and nothing learnt that way is
 * remembered. */
enum err eng_formula_empty(struct schema *s, int32_t f, bool *out)
{
    struct value_set v;
    bool before = s->guessed;
    *out = f == NONE || s->formulas[f].empty == YES;
    if (f <= NONE || s->formulas[f].empty != UNKNOWN || s->probing >= DEEPEST_PROBE) return OK;
    s->probing++;
    s->guessed = false;
    enum err e = eng_formula_set(s, f, &v);
    s->probing--;
    if (!e && !s->guessed) {
        *out = eng_set_empty(s, &v);
        s->formulas[f].empty = *out ? YES : NO;
    }
    s->guessed = before;
    return e;
}

/* ---- shapes ---- */

enum err eng_shapes_add(struct schema *s, struct shapes *l, const void *shape)
{
    if (!shape) return OK;
    for (int32_t i = 0; i < l->n; i++)
        if (l->v[i] == shape) return OK;
    if (l->n >= MOST_SHAPES_AT_ONCE || ++s->n_shapes > MOST_SHAPES)
        return err_raise(ERR_UNSUPPORTED, "the alternatives of this schema are too many together");
    const void **v = arena_alloc(s->a, ((size_t)l->n + 1) * sizeof *v);
    if (l->n) memcpy(v, l->v, (size_t)l->n * sizeof *v);
    v[l->n++] = shape;
    l->v = v;
    return OK;
}

struct shapes eng_shapes_one(struct schema *s, const void *shape)
{
    struct shapes l = {arena_alloc(s->a, sizeof *l.v), 1};
    l.v[0] = shape;
    return l;
}

static bool is_only(const struct shapes *l, const void *shape)
{
    return l->n == 1 && l->v[0] == shape;
}

static enum err shapes_or(struct schema *s, const struct shapes *a, const struct shapes *b,
                          const void *any, struct shapes *out)
{
    enum err rc = OK;
    struct shapes l = *a;
    if (is_only(b, any))
        l = *b;
    else if (!is_only(a, any))
        for (int32_t i = 0; i < b->n; i++) TRY(eng_shapes_add(s, &l, b->v[i]));
    *out = l;
out:
    return rc;
}

static enum err arrays_and(struct schema *s, const struct shapes *a, const struct shapes *b,
                           struct shapes *out)
{
    enum err rc = OK;
    struct shapes l = {0};
    if (is_only(a, s->any_array) || is_only(b, s->any_array)) {
        *out = is_only(a, s->any_array) ? *b : *a;
        return OK;
    }
    for (int32_t i = 0; i < a->n; i++)
        for (int32_t k = 0; k < b->n; k++)
            TRY(eng_shapes_add(s, &l, eng_array_and(s, a->v[i], b->v[k])));
    *out = l;
out:
    return rc;
}

static enum err objects_and(struct schema *s, const struct shapes *a, const struct shapes *b,
                            struct shapes *out)
{
    enum err rc = OK;
    struct shapes l = {0};
    if (is_only(a, s->any_object) || is_only(b, s->any_object)) {
        *out = is_only(a, s->any_object) ? *b : *a;
        return OK;
    }
    for (int32_t i = 0; i < a->n; i++)
        for (int32_t k = 0; k < b->n; k++) {
            const struct object_shape *x;
            TRY(eng_object_and(s, a->v[i], b->v[k], &x));
            TRY(eng_shapes_add(s, &l, x));
        }
    *out = l;
out:
    return rc;
}

/* ---- sets ---- */

struct value_set eng_set_all(const struct schema *s)
{
    return (struct value_set){true,
                              true,
                              true,
                              s->numbers,
                              s->dfas->all,
                              eng_shapes_one((struct schema *)s, s->any_array),
                              eng_shapes_one((struct schema *)s, s->any_object)};
}

struct value_set eng_set_none(const struct schema *s)
{
    return (struct value_set){.number = s->dfas->none, .string = s->dfas->none};
}

struct value_set eng_set_about(const struct schema *s, bool negated)
{
    return negated ? eng_set_none(s) : eng_set_all(s);
}

/* s->numbers is everything there is among numbers, as dfas->all is among strings. */
static enum err numbers_op(struct schema *s, enum dfa_op op, const struct dfa *a,
                           const struct dfa *b, const struct dfa **out)
{
    const struct dfa *all = s->numbers;
    if (a == all || b == all) return *out = op == DFA_OR ? all : a == all ? b : a, OK;
    return eng_dfa_op(s->dfas, op, a, b, out);
}

enum err eng_set_and(struct schema *s, const struct value_set *a, const struct value_set *b,
                     struct value_set *out)
{
    enum err rc;
    struct value_set v = {
        .null = a->null && b->null, .yes = a->yes && b->yes, .no = a->no && b->no};
    TRY(numbers_op(s, DFA_AND, a->number, b->number, &v.number));
    TRY(eng_dfa_op(s->dfas, DFA_AND, a->string, b->string, &v.string));
    TRY(arrays_and(s, &a->arrays, &b->arrays, &v.arrays));
    TRY(objects_and(s, &a->objects, &b->objects, &v.objects));
    *out = v;
out:
    return rc;
}

enum err eng_set_or(struct schema *s, const struct value_set *a, const struct value_set *b,
                    struct value_set *out)
{
    enum err rc;
    struct value_set v = {
        .null = a->null || b->null, .yes = a->yes || b->yes, .no = a->no || b->no};
    TRY(numbers_op(s, DFA_OR, a->number, b->number, &v.number));
    TRY(eng_dfa_op(s->dfas, DFA_OR, a->string, b->string, &v.string));
    TRY(shapes_or(s, &a->arrays, &b->arrays, s->any_array, &v.arrays));
    TRY(shapes_or(s, &a->objects, &b->objects, s->any_object, &v.objects));
    *out = v;
out:
    return rc;
}

bool eng_set_empty(const struct schema *s, const struct value_set *a)
{
    return !a->null && !a->yes && !a->no && a->number == s->dfas->none &&
           a->string == s->dfas->none && !a->arrays.n && !a->objects.n;
}
