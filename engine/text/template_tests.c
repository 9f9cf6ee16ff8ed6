/* template_tests.c: what may stand after "is". */
#include "engine/text/template_value.h"

#include <string.h>

static struct value arg0(const struct args *a)
{
    struct value v = v_none();
    args_get(a, 0, NULL, &v);
    return v;
}

#define KIND_TEST(name, expr)                                                                      \
    static struct value t_##name(struct run *r, struct value v, const struct args *a)              \
    {                                                                                              \
        (void)r, (void)a;                                                                          \
        return v_bool(expr);                                                                       \
    }
KIND_TEST(defined, v.kind != V_UNDEF)
KIND_TEST(undefined, v.kind == V_UNDEF)
KIND_TEST(none, v.kind == V_NONE)
KIND_TEST(boolean, v.kind == V_BOOL)
KIND_TEST(true, v.kind == V_BOOL && v.b)
KIND_TEST(false, v.kind == V_BOOL && !v.b)
KIND_TEST(integer, v.kind == V_INT)
KIND_TEST(float, v.kind == V_FLOAT)
KIND_TEST(number, v_is_number(v))
KIND_TEST(string, v.kind == V_STR)
KIND_TEST(mapping, v.kind == V_DICT)
KIND_TEST(iterable, v.kind == V_STR || v.kind == V_LIST || v.kind == V_TUPLE || v.kind == V_DICT ||
                        v.kind == V_UNDEF)
KIND_TEST(sequence, v.kind == V_STR || v.kind == V_LIST || v.kind == V_TUPLE || v.kind == V_DICT ||
                        v.kind == V_UNDEF)
KIND_TEST(callable, v.kind == V_MACRO || v.kind == V_FUNCTION || v.kind == V_METHOD)
KIND_TEST(eq, v_equal(r, v, arg0(a)))
KIND_TEST(ne, !v_equal(r, v, arg0(a)))
KIND_TEST(lt, v_compare(r, v, arg0(a), "<") < 0)
KIND_TEST(le, v_compare(r, v, arg0(a), "<=") <= 0)
KIND_TEST(gt, v_compare(r, v, arg0(a), ">") > 0)
KIND_TEST(ge, v_compare(r, v, arg0(a), ">=") >= 0)
KIND_TEST(in, v_contains(r, arg0(a), v))
KIND_TEST(sameas, v.kind == arg0(a).kind && v_equal(r, v, arg0(a)))
KIND_TEST(lower, str_eq(v_text(r, v), str_case(r, v_text(r, v), CASE_LOWER).s))
KIND_TEST(upper, str_eq(v_text(r, v), str_case(r, v_text(r, v), CASE_UPPER).s))
KIND_TEST(filter, v.kind == V_STR && filter_find(v.s))
KIND_TEST(test, v.kind == V_STR && test_find(v.s))

static bool divides(struct run *r, struct value v, int64_t by)
{
    if (v.kind == V_INT || v.kind == V_BOOL) return by && v_as_int(v) % (by == -1 ? 1 : by) == 0;
    if (v.kind == V_UNDEF)
        v_fail_undef(r, v);
    else
        run_fail(r, "a whole number is needed, not %s", v_type(v));
    return false;
}
KIND_TEST(even, divides(r, v, 2))
KIND_TEST(odd, !divides(r, v, 2))
KIND_TEST(divisibleby, divides(r, v, arg0(a).kind == V_INT ? arg0(a).i : 0))

value_fn test_find(struct str name)
{
    static const struct {
        const char *name;
        value_fn fn;
    } table[] = {{"defined", t_defined},
                 {"undefined", t_undefined},
                 {"none", t_none},
                 {"None", t_none},
                 {"boolean", t_boolean},
                 {"true", t_true},
                 {"True", t_true},
                 {"false", t_false},
                 {"False", t_false},
                 {"integer", t_integer},
                 {"float", t_float},
                 {"number", t_number},
                 {"string", t_string},
                 {"mapping", t_mapping},
                 {"iterable", t_iterable},
                 {"sequence", t_sequence},
                 {"callable", t_callable},
                 {"eq", t_eq},
                 {"equalto", t_eq},
                 {"==", t_eq},
                 {"ne", t_ne},
                 {"!=", t_ne},
                 {"lt", t_lt},
                 {"lessthan", t_lt},
                 {"<", t_lt},
                 {"le", t_le},
                 {"<=", t_le},
                 {"gt", t_gt},
                 {"greaterthan", t_gt},
                 {">", t_gt},
                 {"ge", t_ge},
                 {">=", t_ge},
                 {"in", t_in},
                 {"sameas", t_sameas},
                 {"lower", t_lower},
                 {"upper", t_upper},
                 {"filter", t_filter},
                 {"test", t_test},
                 {"even", t_even},
                 {"odd", t_odd},
                 {"divisibleby", t_divisibleby}};
    for (size_t i = 0; i < COUNT_OF(table); i++)
        if (str_is(name, table[i].name)) return table[i].fn;
    return NULL;
}
