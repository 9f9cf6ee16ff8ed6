/* template_access.c: attributes, items, slices and operators. */
#include "engine/text/template_value.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct value v_attr(struct run *r, struct value v, struct str name)
{
    value_fn m = method_find(v, name);
    if (v.kind == V_UNDEF) return v_fail_undef(r, v);
    if (m) return v_method(r, v, m); /* like Python: a dict's methods come before its keys */
    if (v.kind == V_DICT || v.kind == V_NAMESPACE) {
        struct value *x = dict_find(r, v.dict, v_str(name));
        if (x) return *x;
    }
    if (v.kind == V_LOOP) return loop_attr(r, v, name);
    if (v.kind == V_MACRO && str_is(name, "name")) return v_str(macro_name(v));
    return v_undef(name, v.kind);
}

static bool index_of(struct value key, int64_t n, int64_t *i)
{
    if (key.kind != V_INT && key.kind != V_BOOL) return false;
    *i = v_as_int(key);
    if (*i < 0) *i += n;
    return *i >= 0 && *i < n;
}

struct value v_item(struct run *r, struct value v, struct value key)
{
    int64_t i, n;
    if (v.kind == V_UNDEF) return v_fail_undef(r, v);
    if (v.kind == V_DICT) {
        struct value *x = dict_find(r, v.dict, key);
        if (x) return *x;
    } else if (v.kind == V_LIST || v.kind == V_TUPLE) {
        if (index_of(key, (int64_t)v.list->n, &i)) return v.list->at[i];
    } else if (v.kind == V_STR && v_length(r, v, &n) && index_of(key, n, &i)) {
        return v_str(str_slice(v.s, (size_t)i, (size_t)i + 1));
    }
    if (key.kind == V_STR && v.kind != V_DICT) return v_attr(r, v, key.s);
    if (key.kind == V_STR && method_find(v, key.s)) return v_method(r, v, method_find(v, key.s));
    return v_undef(v_text(r, key), v.kind);
}

/* Python's rules for the ends of a slice; absent ends follow the step's direction. */
static bool slice_end(struct run *r, struct value v, int64_t n, bool back, bool is_end,
                      int64_t *out)
{
    if (v.kind == V_NONE) {
        *out = back ? (is_end ? -1 : n - 1) : (is_end ? n : 0);
        return true;
    }
    if (v.kind != V_INT && v.kind != V_BOOL) {
        run_fail(r, "slice indices must be integers or None, not %s", v_type(v));
        return false;
    }
    int64_t i = v_as_int(v);
    if (i < 0) i = i < -n ? (back ? -1 : 0) : i + n;
    *out = MIN(i, back ? n - 1 : n);
    return true;
}

struct value v_slice(struct run *r, struct value v, struct value from, struct value to,
                     struct value step)
{
    int64_t n, a, b, by = step.kind == V_NONE ? 1 : v_as_int(step);
    if (v.kind == V_UNDEF) return v_fail_undef(r, v);
    if (v.kind != V_STR && v.kind != V_LIST && v.kind != V_TUPLE)
        return run_fail(r, "'%s' object cannot be sliced", v_type(v));
    if ((step.kind != V_NONE && step.kind != V_INT) || !by)
        return run_fail(r, "slice step must be a whole number, not zero");
    if (!v_length(r, v, &n) || !slice_end(r, from, n, by < 0, false, &a) ||
        !slice_end(r, to, n, by < 0, true, &b))
        return v_none();
    if (v.kind == V_STR && by == 1) return v_str(str_slice(v.s, (size_t)a, (size_t)MAX(a, b)));
    struct list *all = v_iterate(r, v);
    struct value out = v_list(r, v.kind == V_TUPLE ? V_TUPLE : V_LIST);
    struct buf text = {0};
    for (int64_t i = a; (by > 0 ? i < b : i > b) && !r->rc; i += by) {
        if (v.kind == V_STR)
            v_put(r, &text, all->at[i]);
        else
            list_push(r, out.list, all->at[i]);
        if (by > n || by < -n) break; /* the next would be outside, and might overflow */
    }
    return v.kind == V_STR ? run_take(r, &text) : out;
}

static struct value fail_types(struct run *r, const char *op, struct value a, struct value b)
{
    if (a.kind == V_UNDEF) return v_fail_undef(r, a);
    if (b.kind == V_UNDEF) return v_fail_undef(r, b);
    if (*op == '+' && a.kind == V_STR)
        return run_fail(r, "can only concatenate str (not \"%s\") to str", v_type(b));
    return run_fail(r, "unsupported operand type(s) for %s: '%s' and '%s'", op, v_type(a),
                    v_type(b));
}

static struct value concat(struct run *r, struct value a, struct value b)
{
    struct buf text = {0};
    if (a.kind == V_STR) {
        bool safe = a.safe || b.safe;
        if (safe && !a.safe) a = str_escape(r, a.s);
        if (safe && !b.safe) b = str_escape(r, b.s);
        run_put(r, &text, a.s.p, a.s.n);
        run_put(r, &text, b.s.p, b.s.n);
        a = run_take(r, &text);
        a.safe = safe;
        return a;
    }
    struct value out = v_list(r, a.kind);
    for (size_t i = 0; i < a.list->n && !r->rc; i++) list_push(r, out.list, a.list->at[i]);
    for (size_t i = 0; i < b.list->n && !r->rc; i++) list_push(r, out.list, b.list->at[i]);
    return out;
}

static struct value repeat(struct run *r, struct value v, int64_t times)
{
    struct buf text = {0};
    if (v.kind == V_STR) {
        for (int64_t i = 0; i < times && v.s.n && run_work(r, 1); i++)
            run_put(r, &text, v.s.p, v.s.n);
        return run_take(r, &text);
    }
    struct value out = v_list(r, v.kind);
    for (int64_t i = 0; i < times && v.list->n && run_work(r, 1); i++)
        for (size_t k = 0; k < v.list->n && !r->rc; k++) list_push(r, out.list, v.list->at[k]);
    return out;
}

static struct value floats(struct run *r, const char *op, double x, double y)
{
    switch (*op) {
    case '+': return v_float(x + y);
    case '-': return v_float(x - y);
    case '*': return op[1] ? v_float(pow(x, y)) : v_float(x * y);
    }
    if (y == 0) return run_fail(r, *op == '%' ? "float modulo" : "division by zero");
    if (*op == '%') {
        double m = fmod(x, y);
        return v_float(m != 0 && (m < 0) != (y < 0) ? m + y : m);
    }
    return v_float(op[1] ? floor(x / y) : x / y);
}

static struct value int_power(struct run *r, int64_t x, int64_t y)
{
    int64_t out = 1;
    if (y < 0) return floats(r, "**", (double)x, (double)y);
    for (; y; y >>= 1) {
        if ((y & 1) && __builtin_mul_overflow(out, x, &out))
            return run_fail(r, "the number does not fit 64 bits");
        if (y > 1 && __builtin_mul_overflow(x, x, &x))
            return run_fail(r, "the number does not fit 64 bits");
    }
    return v_int(out);
}

static struct value ints(struct run *r, const char *op, int64_t x, int64_t y)
{
    int64_t out = 0;
    bool over = false;
    switch (*op) {
    case '+': over = __builtin_add_overflow(x, y, &out); break;
    case '-': over = __builtin_sub_overflow(x, y, &out); break;
    case '*':
        if (op[1]) return int_power(r, x, y);
        over = __builtin_mul_overflow(x, y, &out);
        break;
    default:
        if (!y) return run_fail(r, *op == '%' ? "integer modulo by zero" : "division by zero");
        if (*op == '/' && !op[1]) return v_float((double)x / (double)y);
        over = y == -1 && x == INT64_MIN;
        if (over) break;
        int64_t q = x / y, m = x % y;
        if (m && (m < 0) != (y < 0)) q--, m += y; /* Python rounds towards minus infinity */
        out = *op == '%' ? m : q;
    }
    return over ? run_fail(r, "the number does not fit 64 bits") : v_int(out);
}

struct value v_binary(struct run *r, const char *op, struct value a, struct value b)
{
    if (v_is_number(a) && v_is_number(b)) {
        if (a.kind == V_FLOAT || b.kind == V_FLOAT)
            return floats(r, op, v_as_float(a), v_as_float(b));
        return ints(r, op, v_as_int(a), v_as_int(b));
    }
    bool seq_a = a.kind == V_STR || a.kind == V_LIST || a.kind == V_TUPLE;
    bool seq_b = b.kind == V_STR || b.kind == V_LIST || b.kind == V_TUPLE;
    if (!strcmp(op, "+") && seq_a && a.kind == b.kind) return concat(r, a, b);
    if (!strcmp(op, "*") && seq_a && (b.kind == V_INT || b.kind == V_BOOL))
        return repeat(r, a, v_as_int(b));
    if (!strcmp(op, "*") && seq_b && (a.kind == V_INT || a.kind == V_BOOL))
        return repeat(r, b, v_as_int(a));
    if (!strcmp(op, "%") && a.kind == V_STR) return str_percent(r, a.s, b);
    return fail_types(r, op, a, b);
}
