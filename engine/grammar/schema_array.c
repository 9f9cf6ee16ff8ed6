/* schema_array.c: shapes of arrays: keywords, conjunction, and the automaton of one shape.
 *
 * The automaton's state is how many items there are (as far as that matters) and, for each count
 * that is asked for, how many items counted so far. Where a count has an end, an item that is not
 * counted must not be of that schema: its negation is asked. */
#include "engine/grammar/schema_set.h"

#include <string.h>

enum { MOST_COUNTS = 8, MOST_FREE = 3, MOST_COUNT = 4000, MOST_ITEMS = 1 << 20, KEY_BITS = 62, POSITION_BITS = 21 };

static struct array_shape *fresh(struct schema *s)
{
    struct array_shape *x = arena_alloc(s->a, sizeof *x);
    *x = (struct array_shape){.rest = ANY, .max = -1};
    return x;
}

static int32_t at(const struct array_shape *x, int32_t i)
{
    return i < x->n_prefix ? x->prefix[i] : x->rest;
}

const struct array_shape *eng_array_and(struct schema *s, const struct array_shape *a,
                                        const struct array_shape *b)
{
    struct array_shape *x = fresh(s);
    x->n_prefix = MAX(a->n_prefix, b->n_prefix);
    x->prefix = arena_alloc(s->a, ((size_t)x->n_prefix + 1) * sizeof *x->prefix);
    for (int32_t i = 0; i < x->n_prefix; i++) x->prefix[i] = eng_formula_and(s, at(a, i), at(b, i));
    x->rest = eng_formula_and(s, a->rest, b->rest);
    x->min = MAX(a->min, b->min);
    x->max = a->max < 0 ? b->max : b->max < 0 ? a->max : MIN(a->max, b->max);
    x->n_counted = a->n_counted + b->n_counted;
    x->counted = arena_alloc(s->a, ((size_t)x->n_counted + 1) * sizeof *x->counted);
    if (a->n_counted) memcpy(x->counted, a->counted, (size_t)a->n_counted * sizeof *x->counted);
    if (b->n_counted)
        memcpy(x->counted + a->n_counted, b->counted, (size_t)b->n_counted * sizeof *x->counted);
    for (int32_t i = 0; i < x->n_prefix; i++)
        if (x->prefix[i] == NONE) x->max = x->max < 0 ? i : MIN(x->max, i);
    if (x->rest == NONE) x->max = x->max < 0 ? x->n_prefix : MIN(x->max, x->n_prefix);
    return x->max >= 0 && x->min > x->max ? NULL : x;
}

/* ---- keywords ---- */

static struct literal schema_literal(const json_t *node, bool negated)
{
    return (struct literal){.node = node, .negated = negated};
}

static const struct array_shape *counting(struct schema *s, struct literal what, int64_t min,
                                          int64_t max, int32_t from)
{
    struct array_shape *x = fresh(s);
    x->counted = arena_alloc(s->a, sizeof *x->counted);
    x->counted[0] = (struct counted){what, min, max, from};
    x->n_counted = 1;
    return x;
}

/* Item i is there and has this formula. */
static const struct array_shape *with_item(struct schema *s, int32_t i, int32_t f)
{
    struct array_shape *x = fresh(s);
    if (f == NONE) return NULL;
    x->n_prefix = i + 1;
    x->prefix = arena_alloc(s->a, ((size_t)i + 1) * sizeof *x->prefix);
    x->prefix[i] = f;
    x->min = i + 1;
    return x;
}

static const struct array_shape *sized(struct schema *s, int64_t min, int64_t max)
{
    struct array_shape *x = fresh(s);
    x->min = min;
    x->max = max;
    return max >= 0 && min > max ? NULL : x;
}

/* One more demand: a shape that it allows, or several that it allows when negated. */
static enum err demand(struct schema *s, struct shapes *all, bool negated,
                       const struct array_shape *x)
{
    enum err rc = OK;
    struct shapes l = {0};
    if (negated) return eng_shapes_add(s, all, x);
    for (int32_t i = 0; x && i < all->n; i++)
        TRY(eng_shapes_add(s, &l, eng_array_and(s, all->v[i], x)));
    *all = l;
out:
    return rc;
}

static enum err items(struct schema *s, const json_t *node, bool negated, struct shapes *all)
{
    enum err rc = OK;
    const json_t *prefix = json_object_get(node, "prefixItems"),
                 *rest = json_object_get(node, "items");
    if (json_is_array(rest) && !prefix)
        prefix = rest, rest = json_object_get(node, "additionalItems"); /* as until draft 2019-09 */
    if (!prefix && !rest) return OK;
    if (prefix && !json_is_array(prefix))
        return eng_schema_refuse(s, node, "prefixItems", ERR_BAD_REQUEST,
                                 "a list of schemas is needed here");
    int32_t n = (int32_t)json_array_size(prefix);
    struct array_shape *x = fresh(s);
    x->n_prefix = n;
    x->prefix = arena_alloc(s->a, ((size_t)n + 1) * sizeof *x->prefix);
    for (int32_t i = 0; i < n; i++) {
        x->prefix[i] =
            eng_formula_of(s, schema_literal(json_array_get(prefix, (size_t)i), negated));
        if (negated) TRY(eng_shapes_add(s, all, with_item(s, i, x->prefix[i])));
    }
    if (rest) x->rest = eng_formula_of(s, schema_literal(rest, negated));
    if (!negated) return demand(s, all, false, eng_array_and(s, x, s->any_array));
    if (rest && x->rest != NONE)
        rc = eng_shapes_add(s, all, counting(s, schema_literal(rest, true), 1, -1, n));
out:
    return rc;
}

static enum err whole(struct schema *s, const json_t *node, const char *keyword, int64_t otherwise,
                      int64_t *out)
{
    const json_t *v = json_object_get(node, keyword);
    *out = otherwise;
    if (v && (!eng_schema_integer(v, out) || *out < 0))
        return eng_schema_refuse(s, node, keyword, ERR_BAD_REQUEST,
                                 "a whole number >= 0 is needed here");
    return OK;
}

static enum err contains(struct schema *s, const json_t *node, bool negated, struct shapes *all)
{
    enum err rc;
    int64_t min, max;
    const json_t *v = json_object_get(node, "contains");
    if (!v) return OK;
    TRY(whole(s, node, "minContains", 1, &min));
    TRY(whole(s, node, "maxContains", -1, &max));
    if (!negated)
        return demand(s, all, false,
                      max >= 0 && min > max ? NULL
                                            : counting(s, schema_literal(v, false), min, max, 0));
    if (min > 0) TRY(eng_shapes_add(s, all, counting(s, schema_literal(v, false), 0, min - 1, 0)));
    if (max >= 0)
        TRY(eng_shapes_add(s, all, counting(s, schema_literal(v, false), max + 1, -1, 0)));
out:
    return rc;
}

/* The values items may have, where they are few and listed. NULL: they are not. */
static const json_t *listed(struct schema *s, const json_t *items)
{
    const json_t *ref, *v;
    for (int hops = 0; hops < 8 && json_is_string(ref = json_object_get(items, "$ref")); hops++)
        if (eng_schema_resolve(s, items, json_string_value(ref), &items)) return NULL;
    v = json_object_get(items, "enum");
    return json_is_array(v) && json_array_size(v) <= MOST_COUNTS ? v : NULL;
}

/* Each of the listed values at most once; of values that are not listed two cannot be told from one another. */
static enum err unique(struct schema *s, const json_t *node, bool negated, struct shapes *all)
{
    const json_t *v = json_object_get(node, "uniqueItems"), *values;
    int64_t max;
    enum err rc = whole(s, node, "maxItems", -1, &max);
    if (rc || !v || !json_is_true(v) || (max >= 0 && max <= 1 && !negated)) return rc;
    values = negated || json_object_get(node, "prefixItems") ? NULL
                                                              : listed(s, json_object_get(node, "items"));
    if (!values)
        return eng_schema_refuse(s, node, "uniqueItems", ERR_UNSUPPORTED,
                                 "only items of an enum with at most %d values can be kept from "
                                 "being the same",
                                 MOST_COUNTS);
    for (size_t i = 0; i < json_array_size(values); i++) {
        struct literal one = {.node = json_array_get(values, i), .constant = true};
        TRY(demand(s, all, false, counting(s, one, 0, 1, 0)));
    }
out:
    return rc;
}

enum err eng_array_keywords(struct schema *s, const json_t *node, bool negated, struct shapes *out)
{
    enum err rc;
    int64_t min, max;
    struct shapes all = negated ? (struct shapes){0} : eng_shapes_one(s, s->any_array);
    TRY(whole(s, node, "minItems", 0, &min));
    TRY(whole(s, node, "maxItems", -1, &max));
    TRY(items(s, node, negated, &all));
    if (!negated && (min > 0 || max >= 0)) TRY(demand(s, &all, false, sized(s, min, max)));
    if (negated && min > 0) TRY(eng_shapes_add(s, &all, sized(s, 0, min - 1)));
    if (negated && max >= 0) TRY(eng_shapes_add(s, &all, sized(s, max + 1, -1)));
    TRY(contains(s, node, negated, &all));
    TRY(unique(s, node, negated, &all));
    *out = all;
out:
    return rc;
}

enum err eng_array_constant(struct schema *s, const json_t *value, bool negated, struct shapes *out)
{
    enum err rc = OK;
    int32_t n = (int32_t)json_array_size(value);
    struct array_shape *x = fresh(s);
    struct shapes l = {0};
    x->n_prefix = n;
    x->min = x->max = n;
    x->prefix = arena_alloc(s->a, ((size_t)n + 1) * sizeof *x->prefix);
    for (int32_t i = 0; i < n; i++) {
        x->prefix[i] = eng_formula_of(s, (struct literal){.node = json_array_get(value, (size_t)i),
                                                          .negated = negated,
                                                          .constant = true});
        if (negated) TRY(eng_shapes_add(s, &l, with_item(s, i, x->prefix[i])));
    }
    if (!negated) TRY(eng_shapes_add(s, &l, x));
    if (negated && n) TRY(eng_shapes_add(s, &l, sized(s, 0, n - 1)));
    if (negated) TRY(eng_shapes_add(s, &l, sized(s, n + 1, -1)));
    *out = l;
out:
    return rc;
}

/* ---- automaton ---- */

struct walk {
    struct schema *s;
    const struct array_shape *x;
    struct counted c[MOST_COUNTS];
    int32_t bits[MOST_COUNTS]; /* of a key that a count takes */
    int32_t n_c, last;         /* from item `last` on, positions are alike */
    struct map64 states; /* key -> draft state */
    uint64_t *keys;
    int32_t n, cap;
    int32_t close; /* behind the bracket */
};

static uint64_t key_of(const struct walk *w, int32_t i, const int64_t n[MOST_COUNTS])
{
    uint64_t k = (uint64_t)i;
    for (int32_t c = 0; c < w->n_c; c++) k = k << w->bits[c] | (uint64_t)n[c];
    return k;
}

static int32_t state(struct walk *w, int32_t i, const int64_t n[MOST_COUNTS])
{
    uint64_t key = key_of(w, i, n);
    int32_t st = map64_get(&w->states, key);
    if (st >= 0) return st;
    if (w->n == w->cap) {
        uint64_t *old = w->keys;
        w->cap = MAX(64, 2 * w->cap);
        w->keys = arena_alloc(w->s->a, (size_t)w->cap * sizeof *w->keys);
        if (w->n) memcpy(w->keys, old, (size_t)w->n * sizeof *old);
    }
    w->keys[w->n++] = key;
    st = eng_draft_state(w->s->e->d);
    map64_put(&w->states, key, st);
    return st;
}

/* One way for item i: chosen: which counts it is counted in. */
static void item(struct walk *w, int32_t from, int32_t i, const int64_t n[MOST_COUNTS],
                 unsigned chosen)
{
    struct schema *s = w->s;
    int64_t to[MOST_COUNTS] = {0};
    int32_t f = at(w->x, i), n_constants = 0;
    for (int32_t c = 0; c < w->n_c; c++) {
        struct counted k = w->c[c];
        bool in = chosen >> c & 1, open = i >= k.from;
        to[c] = n[c];
        if (in && (!open || (k.max < 0 && n[c] >= k.min) || (k.max >= 0 && n[c] >= k.max))) return;
        if (in && k.what.constant && !k.what.negated && n_constants++) return; /* no value is two */
        if (in) {
            f = eng_formula_and(s, f, eng_formula_of(s, k.what));
            to[c]++;
        } else if (open && k.max >= 0) {
            k.what.negated = !k.what.negated;
            f = eng_formula_and(s, f, eng_formula_of(s, k.what));
        }
    }
    if (f == NONE) return;
    int32_t value = eng_draft_state(s->e->d), next = state(w, MIN(i + 1, w->last), to);
    eng_draft_call(s->e->d, from, eng_schema_rule(s, f), value);
    eng_schema_space(s, value, next);
}

static void visit(struct walk *w, uint64_t key)
{
    struct draft *d = w->s->e->d;
    int64_t n[MOST_COUNTS] = {0};
    int32_t st = map64_get(&w->states, key), before = st;
    bool enough = true;
    for (int32_t c = w->n_c - 1; c >= 0; key >>= w->bits[c--]) {
        n[c] = (int64_t)(key & ((1ull << w->bits[c]) - 1));
        enough &= n[c] >= w->c[c].min;
    }
    int32_t i = (int32_t)key;
    if (enough && i >= w->x->min) eng_draft_bytes(d, st, ']', ']', w->close);
    if (w->x->max >= 0 && i >= w->x->max) return;
    if (i) {
        int32_t comma = eng_draft_state(d);
        before = eng_draft_state(d);
        eng_draft_bytes(d, st, ',', ',', comma);
        eng_schema_space(w->s, comma, before);
    }
    for (unsigned chosen = 0; chosen < 1u << w->n_c; chosen++) item(w, before, i, n, chosen);
}

static enum err prepare(struct walk *w)
{
    const struct array_shape *x = w->x;
    int32_t bits = POSITION_BITS, free_ones = 0;
    int64_t last = MAX(MAX((int64_t)x->n_prefix, x->min), MAX(x->max, (int64_t)1));
    for (int32_t i = 0; i < x->n_counted; i++) {
        struct counted c = x->counted[i];
        if (c.min <= 0 && c.max < 0) continue;
        free_ones += !c.what.constant;
        if (w->n_c == MOST_COUNTS || free_ones > MOST_FREE)
            return eng_schema_refuse(w->s, c.what.node, NULL, ERR_UNSUPPORTED,
                                     "more than %d counts of items in one array", MOST_FREE);
        if (MAX(c.min, c.max) > MOST_COUNT)
            return eng_schema_refuse(w->s, c.what.node, NULL, ERR_UNSUPPORTED,
                                     "counts above %d are not supported", MOST_COUNT);
        last = MAX(last, (int64_t)c.from);
        w->bits[w->n_c] = 64 - __builtin_clzll((uint64_t)MAX(MAX(c.min, c.max), (int64_t)1));
        bits += w->bits[w->n_c];
        w->c[w->n_c++] = c;
        if (bits > KEY_BITS)
            return eng_schema_refuse(w->s, c.what.node, NULL, ERR_UNSUPPORTED,
                                     "counts of items in one array are too many, or too large");
    }
    if (last > MOST_ITEMS)
        return err_raise(ERR_UNSUPPORTED,
                         "JSON Schema: arrays of more than %d items cannot be counted", MOST_ITEMS);
    w->last = (int32_t)last;
    return OK;
}

enum err eng_array_emit(struct schema *s, const struct array_shape *x, int32_t from, int32_t to)
{
    struct walk w = {.s = s, .x = x, .close = to};
    const int64_t none[MOST_COUNTS] = {0};
    enum err e = prepare(&w);
    if (e) return e;
    int32_t open = eng_draft_state(s->e->d);
    eng_draft_bytes(s->e->d, from, '[', '[', open);
    eng_schema_space(s, open, state(&w, 0, none));
    for (int32_t i = 0; i < w.n && !s->e->d->full; i++) visit(&w, w.keys[i]);
    map64_free(&w.states);
    return OK;
}
