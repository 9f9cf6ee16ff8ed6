/* schema_set.h: value sets, formulas and the context of one compilation; shared by schema*.c only.
 * Everything lives in its arena. */
#ifndef ENGINE_GRAMMAR_SCHEMA_SET_H
#define ENGINE_GRAMMAR_SCHEMA_SET_H

#include "engine/grammar/schema.h"

/* A schema (or, constant, a value that must be equalled) or its negation. */
struct literal {
    const json_t *node;
    bool negated, constant;
    int32_t at;
}; /* at: its place, by which conjunctions are ordered */

enum { ANY = 0, NONE = 1 }; /* formulas: the empty conjunction, and a contradiction */
struct formula {
    struct literal *l;
    int32_t n, rule;
    uint8_t empty;
}; /* empty: what probing found (schema_set.c) */

/* ---- arrays ---- */

struct counted {
    struct literal what;
    int64_t min, max;
    int32_t from;
}; /* so many items from this index on are of it; max -1: no end */
struct array_shape {
    int32_t *prefix, n_prefix, rest; /* formulas */
    int64_t min, max;
    struct counted *counted;
    int32_t n_counted;
};

/* ---- objects ---- */

enum presence { MAY, MUST, MUST_NOT };
struct property {
    const char *key;
    size_t n;
    int32_t f;
    enum presence presence;
};
struct key_class {
    const struct dfa *keys;
    int32_t f;
};
/* Names in their order; any other key is in at most one class and has its formula, or is not
 * allowed. witness: some key of the class is there with a value of the formula. */
struct object_shape {
    struct property *names;
    struct key_class *classes, *witness;
    int32_t n_names, n_classes, n_witness;
    int64_t min, max;
    const json_t *min_at; /* the schema that asks for min */
};

struct shapes {
    const void **v;
    int32_t n;
};
struct value_set {
    bool null, yes, no;
    const struct dfa *number, *string;
    struct shapes arrays, objects;
};

/* ---- the compilation ---- */

struct place {
    const json_t *node;
    const char *path;
    const char *base;
};

struct schema {
    struct encoder *e;
    struct eng_dfas *dfas;
    struct arena *a;
    uint32_t flags;
    const json_t *root; /* the document, where arguments are written */
    struct map64 place_of; /* node -> places */
    struct place *places;
    int32_t n_places, cap_places;
    struct {
        const char *uri;
        const json_t *node;
    } * ids; /* resources and anchors */
    int32_t n_ids, cap_ids;
    struct map64 memo; /* node, sign, constancy -> values */
    struct value_set *values;
    int32_t n_values, cap_values;
    struct formula *formulas;
    int32_t n_formulas, cap_formulas;
    struct map64 formula_of;
    int32_t *todo, n_todo, cap_todo; /* formulas whose rules have no bodies yet */
    int64_t n_shapes; /* made so far */
    int32_t depth;
    bool guessed; /* a set being evaluated was met again while probing for emptiness */
    int32_t probing;
    const struct dfa *numbers, *integers, *whole,
        *full; /* decimals; as generated; in value; with exponents */
    const struct array_shape *any_array;
    const struct object_shape *any_object;
    int32_t space; /* rule, or -1 */
    const struct schema_args *args; /* NULL: JSON */
    bool in_args;                   /* the object being written is that of the arguments itself */
    const struct dfa *marked;       /* texts without args->raw; NULL: all */
};

/* Say what is wrong with a keyword of a schema. */
enum err eng_schema_refuse(const struct schema *s, const json_t *node, const char *keyword,
                           enum err e, const char *fmt, ...) PRINTF(5, 6);
enum err eng_schema_need(const struct schema *s, const json_t *node, const char *keyword,
                         const char *what);
/* The order of a node in the document; -1: none. */
int32_t eng_schema_place(const struct schema *s, const json_t *node);
/* Put the place before the last sentence. */
enum err eng_schema_at(const struct schema *s, const json_t *node, const char *keyword, enum err e);

/* schema_refs.c */
MUST_USE enum err eng_schema_walk(struct schema *s, const json_t *document);
MUST_USE enum err eng_schema_resolve(const struct schema *s, const json_t *node, const char *ref,
                                     const json_t **out);

/* schema_set.c: formulas and the algebra of sets */
int32_t eng_formula_of(struct schema *s, struct literal l);
int32_t eng_formula_and(struct schema *s, int32_t a, int32_t b);
struct value_set eng_set_all(const struct schema *s);
struct value_set eng_set_none(const struct schema *s);
MUST_USE enum err eng_set_and(struct schema *s, const struct value_set *a,
                              const struct value_set *b, struct value_set *out);
MUST_USE enum err eng_set_or(struct schema *s, const struct value_set *a, const struct value_set *b,
                             struct value_set *out);
bool eng_set_empty(const struct schema *s, const struct value_set *a);
/* Is the formula known to hold for no value? */
MUST_USE enum err eng_formula_empty(struct schema *s, int32_t f, bool *out);
MUST_USE enum err eng_formula_set(struct schema *s, int32_t f, struct value_set *out);
/* Lists of shapes; NULL shapes (contradictions) are not added. Err UNSUPPORTED: too many. */
MUST_USE enum err eng_shapes_add(struct schema *s, struct shapes *l, const void *shape);
struct shapes eng_shapes_one(struct schema *s, const void *shape);

/* Everything but what a keyword says of its type: all the rest, or, negated, nothing of it. */
struct value_set eng_set_about(const struct schema *s, bool negated);

/* schema_scalar.c; a keyword of node as a set */
struct schema_keyword {
    const char *name; /* NULL: the end of a table */
    enum err (*set)(struct schema *s, const json_t *node, const json_t *value, bool negated,
                    struct value_set *out);
};
extern const struct schema_keyword eng_scalar_keywords[];
MUST_USE enum err eng_constant_set(struct schema *s, const json_t *v, bool negated,
                                   struct value_set *out);

/* schema_eval.c: one literal, one level deep */
MUST_USE enum err eng_literal_set(struct schema *s, struct literal l, struct value_set *out);
bool eng_schema_integer(const json_t *j, int64_t *out);

/* schema_array.c, schema_object.c, schema_object_emit.c: shapes, keywords, bodies of rules */
const struct array_shape *eng_array_and(struct schema *s, const struct array_shape *a,
                                        const struct array_shape *b);
MUST_USE enum err eng_array_keywords(struct schema *s, const json_t *node, bool negated,
                                     struct shapes *out);
MUST_USE enum err eng_array_constant(struct schema *s, const json_t *value, bool negated,
                                     struct shapes *out);
MUST_USE enum err eng_array_emit(struct schema *s, const struct array_shape *x, int32_t from,
                                 int32_t to);
MUST_USE enum err eng_object_and(struct schema *s, const struct object_shape *a,
                                 const struct object_shape *b, const struct object_shape **out);
MUST_USE enum err eng_object_keywords(struct schema *s, const json_t *node, bool negated,
                                      struct shapes *out);
MUST_USE enum err eng_object_constant(struct schema *s, const json_t *value, bool negated,
                                      struct shapes *out);
MUST_USE enum err eng_object_emit(struct schema *s, const struct object_shape *x, int32_t from,
                                  int32_t to);
/* Objects that have (or lack) one key. */
const struct object_shape *eng_object_having(struct schema *s, const char *key, size_t n, int32_t f,
                                             enum presence presence);

/* schema.c: for emit. The values of a formula as they may be written: its strings are without args->raw */
MUST_USE enum err eng_schema_values(struct schema *s, int32_t f, struct value_set *out);
int32_t eng_schema_rule(struct schema *s, int32_t f); /* the rule of a formula */
void eng_schema_space(struct schema *s, int32_t from, int32_t to);

#endif
