/* template_value.h: the values a chat template computes with, and the run that owns them. Private
 * to engine/text.
 *
 * Values are Python's, as far as templates see them: text is UTF-8 counted in characters, lists and
 * dicts are references. All memory of a run comes from its arena and is charged; so is every step.
 * A failure is recorded in the run (run->rc, err_text()) and whoever computes next returns at once.
 * Thr: one run, one thread. */
#ifndef ENGINE_TEXT_TEMPLATE_VALUE_H
#define ENGINE_TEXT_TEMPLATE_VALUE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct str {
    const char *p;
    size_t n;
};
#define STR(lit) ((struct str){lit, sizeof(lit) - 1})
struct str str_of(const char *s);
bool str_eq(struct str a, struct str b);
bool str_is(struct str a, const char *b);

enum value_kind {
    V_UNDEF, /* s: the name; owner: the kind of what lacked it (V_UNDEF: a plain variable) */
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STR,
    V_LIST,
    V_TUPLE,
    V_DICT,
    V_NAMESPACE,
    V_LOOP,
    V_MACRO,
    V_FUNCTION,
    V_METHOD,
};

struct run;
struct value;
struct args;
typedef struct value (*value_fn)(struct run *r, struct value self, const struct args *a);

struct value {
    enum value_kind kind;
    enum value_kind owner;
    bool safe; /* V_STR: went through the filter safe; adding other text to it escapes that text */
    union {
        bool b;
        int64_t i;
        double f;
        struct str s;
        struct list *list;   /* V_LIST, V_TUPLE */
        struct dict *dict;   /* V_DICT, V_NAMESPACE */
        struct loop *loop;   /* template_exec.c */
        struct macro *macro; /* template_exec.c */
        value_fn function;
        struct method *method;
    };
};
struct list {
    struct value *at;
    size_t n, cap;
};
struct dict {
    struct entry {
        struct value key, val;
    } * at;
    size_t n, cap;
};
struct method {
    struct value self;
    value_fn fn;
};

/* Arguments of a call: positional, then named. */
struct args {
    const struct value *at;
    const struct named {
        struct str name;
        struct value val;
    } * named;
    int32_t n, n_named;
};
/* Argument i, or the one called name; false when neither was given. */
bool args_get(const struct args *a, int32_t i, const char *name, struct value *out);

struct scope {
    struct scope *parent;
    struct named *at;
    size_t n, cap;
};

enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };

struct run {
    struct arena arena;
    json_t *kept; /* Own; a list of what from_json has parsed: values point into it. NULL: nothing */
    size_t memory; /* bytes charged */
    uint64_t steps;
    int32_t depth, line;
    enum err rc;
    enum flow flow;
    int64_t now_unix;
    struct scope *scope;
    struct buf *out; /* where output goes now */
};

enum {
    RUN_MAX_STEPS = 20 * 1000 * 1000,
    RUN_MAX_MEMORY = 128 << 20,
    RUN_MAX_OUTPUT = 32 << 20,
    RUN_MAX_DEPTH = 400,
    RUN_MAX_NESTING = 100, /* of data: lists in lists */
};

/* Record a failure (the first counts) and return V_NONE. run_fail: the request's fault, with the
 * line before it. run_stop: a bound was hit. */
struct value run_fail(struct run *r, const char *fmt, ...) PRINTF(2, 3);
struct value run_stop(struct run *r, const char *what);
/* Count work; false when the run has failed or hit the bound. */
bool run_work(struct run *r, size_t steps);
void *run_alloc(struct run *r, size_t n);
/* Append, within the bounds. */
void run_put(struct run *r, struct buf *b, const char *p, size_t n);
void run_puts(struct run *r, struct buf *b, const char *s);
/* The bytes of *b as a value of the run; *b is freed. */
struct value run_take(struct run *r, struct buf *b);

struct value v_none(void);
struct value v_bool(bool b);
struct value v_int(int64_t i);
struct value v_float(double f);
struct value v_str(struct str s);
struct value v_undef(struct str name, enum value_kind owner);
struct value v_list(struct run *r, enum value_kind kind); /* empty V_LIST or V_TUPLE */
struct value v_dict(struct run *r, enum value_kind kind); /* empty V_DICT or V_NAMESPACE */
struct value v_method(struct run *r, struct value self, value_fn fn);
void list_push(struct run *r, struct list *l, struct value v);
struct value *dict_find(struct run *r, const struct dict *d, struct value key); /* NULL: absent */
void dict_set(struct run *r, struct dict *d, struct value key, struct value val);
struct value v_from_json(struct run *r, json_t *j, int32_t nesting);

bool v_is_number(struct value v);  /* bool, int, float */
int64_t v_as_int(struct value v);  /* of a bool or an int */
double v_as_float(struct value v); /* of a number */
bool v_truth(struct value v);
bool v_equal(struct run *r, struct value a, struct value b);
int v_compare(struct run *r, struct value a, struct value b,
              const char *op); /* fails for unordered kinds */
bool v_contains(struct run *r, struct value box, struct value x);
const char *v_type(struct value v); /* "str", "int", ... as Python names them */
/* Fails with "'x' is undefined" and the like. */
struct value v_fail_undef(struct run *r, struct value undef);

/* What iterating gives, as a list (not a copy for lists): characters, keys, elements. Fails for the
 * rest. */
struct list *v_iterate(struct run *r, struct value v);
/* Python's len(); false and a failure where there is none. */
bool v_length(struct run *r, struct value v, int64_t *n);

/* template_text.c: values as text */
void v_put(struct run *r, struct buf *b, struct value v); /* str() */
struct str v_text(struct run *r, struct value v);         /* str() in the arena */
void v_put_repr(struct run *r, struct buf *b, struct value v, int32_t nesting);
struct json_style {
    int32_t indent;
    const char *item, *key;
    bool sort, ascii;
}; /* indent -1: one line */
void v_put_json(struct run *r, struct buf *b, struct value v, const struct json_style *style,
                int32_t nesting);

/* template_chars.c: characters */
bool ch_is_space(uint32_t cp); /* Python's str.isspace */
size_t str_chars(struct str s);
uint32_t str_next(struct str s, size_t *at); /* the character at *at, which moves on */
struct str str_slice(struct str s, size_t from, size_t to); /* by characters */
enum { STRIP_LEFT = 1, STRIP_RIGHT = 2 };
struct str str_strip(struct str s, unsigned sides, const struct str *chars);
size_t str_find(struct str s, struct str what, size_t from); /* byte offset, or SIZE_MAX */
struct value str_escape(struct run *r, struct str s);        /* for HTML; the result is safe */
enum case_op { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_CAPITALIZE, CASE_SWAP };
struct value str_case(struct run *r, struct str s, enum case_op op);
struct list *str_lines(struct run *r, struct str s, bool keep_ends); /* Python's splitlines */

/* template_access.c: a.b, a[b], a[b:c:d] and the tables behind them */
struct value v_attr(struct run *r, struct value v, struct str name);
struct value v_item(struct run *r, struct value v, struct value key);
struct value v_slice(struct run *r, struct value v, struct value from, struct value to,
                     struct value step);
value_fn method_find(struct value self, struct str name); /* template_methods.c; NULL: none */
value_fn method_find_str(struct str name);                /* template_methods_str.c */
value_fn method_find_str_form(struct str name);           /* template_methods_form.c */
value_fn filter_find(struct str name); /* template_filters.c, template_filters_seq.c */
value_fn filter_seq_find(struct str name);
value_fn test_find(struct str name);     /* template_tests.c; gives V_BOOL */
value_fn function_find(struct str name); /* template_functions.c: range, dict, namespace, ... */
/* Call anything callable: functions, methods, macros (template_exec.c). */
struct value v_call(struct run *r, struct value f, const struct args *a);
struct value loop_attr(struct run *r, struct value loop, struct str name); /* loop.index, ... */
struct str macro_name(struct value macro);
/* text % values and text.format() (template_format.c) */
struct value str_percent(struct run *r, struct str fmt, struct value values);
struct value str_format(struct run *r, struct value self, const struct args *a);
/* a + b, a * b, ... by the operator's spelling */
struct value v_binary(struct run *r, const char *op, struct value a, struct value b);

#endif
