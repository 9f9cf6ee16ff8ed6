/* template_methods_form.c: methods of text about its form: case, padding, kinds of characters. */
#include "engine/text/template_value.h"

#include <string.h>

static struct value change_case(struct run *r, struct value s, enum case_op op)
{
    return str_case(r, s.s, op);
}
static struct value s_upper(struct run *r, struct value s, const struct args *a)
{
    return (void)a, change_case(r, s, CASE_UPPER);
}
static struct value s_lower(struct run *r, struct value s, const struct args *a)
{
    return (void)a, change_case(r, s, CASE_LOWER);
}
static struct value s_title(struct run *r, struct value s, const struct args *a)
{
    return (void)a, change_case(r, s, CASE_TITLE);
}
static struct value s_swapcase(struct run *r, struct value s, const struct args *a)
{
    return (void)a, change_case(r, s, CASE_SWAP);
}
static struct value s_capitalize(struct run *r, struct value s, const struct args *a)
{
    return (void)a, change_case(r, s, CASE_CAPITALIZE);
}

static struct value pad(struct run *r, struct value self, const struct args *a, int where)
{
    struct value w = v_int(0), f = v_str(STR(" "));
    struct buf b = {0};
    args_get(a, 0, "width", &w);
    args_get(a, 1, "fillchar", &f);
    if (w.kind != V_INT || f.kind != V_STR) return run_fail(r, "padding takes a width and a text");
    int64_t width = w.i, n = (int64_t)str_chars(self.s), left, all = width > n ? width - n : 0;
    struct str fill = f.s;
    left = where < 0 ? all : where > 0 ? 0 : all / 2 + (all & width & 1);
    for (int64_t i = 0; i < left && run_work(r, 1); i++) run_put(r, &b, fill.p, fill.n);
    run_put(r, &b, self.s.p, self.s.n);
    for (int64_t i = left; i < all && run_work(r, 1); i++) run_put(r, &b, fill.p, fill.n);
    return run_take(r, &b);
}
static struct value s_ljust(struct run *r, struct value s, const struct args *a)
{
    return pad(r, s, a, 1);
}
static struct value s_rjust(struct run *r, struct value s, const struct args *a)
{
    return pad(r, s, a, -1);
}
static struct value s_center(struct run *r, struct value s, const struct args *a)
{
    return pad(r, s, a, 0);
}

static struct value s_is(struct str s, bool (*ok)(uint32_t cp))
{
    for (size_t at = 0; at < s.n;)
        if (!ok(str_next(s, &at))) return v_bool(false);
    return v_bool(s.n > 0);
}
static bool is_digit(uint32_t c) { return c >= '0' && c <= '9'; }
static bool is_alpha(uint32_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= 0xC0 && c != 0xD7 && c != 0xF7);
}
static bool is_alnum(uint32_t c) { return is_digit(c) || is_alpha(c); }
static struct value s_isdigit(struct run *r, struct value s, const struct args *a)
{
    return (void)r, (void)a, s_is(s.s, is_digit);
}
static struct value s_isalpha(struct run *r, struct value s, const struct args *a)
{
    return (void)r, (void)a, s_is(s.s, is_alpha);
}
static struct value s_isalnum(struct run *r, struct value s, const struct args *a)
{
    return (void)r, (void)a, s_is(s.s, is_alnum);
}
static struct value s_isspace(struct run *r, struct value s, const struct args *a)
{
    return (void)r, (void)a, s_is(s.s, ch_is_space);
}

static struct value is_case(struct run *r, struct value s, enum case_op op)
{
    struct str same = str_case(r, s.s, op).s,
               other = str_case(r, s.s, op == CASE_UPPER ? CASE_LOWER : CASE_UPPER).s;
    return v_bool(str_eq(s.s, same) && !str_eq(same, other));
}
static struct value s_isupper(struct run *r, struct value s, const struct args *a)
{
    return (void)a, is_case(r, s, CASE_UPPER);
}
static struct value s_islower(struct run *r, struct value s, const struct args *a)
{
    return (void)a, is_case(r, s, CASE_LOWER);
}

static const struct {
    const char *name;
    value_fn fn;
} rows[] = {{"upper", s_upper},           {"lower", s_lower},       {"title", s_title},
            {"capitalize", s_capitalize}, {"swapcase", s_swapcase}, {"casefold", s_lower},
            {"ljust", s_ljust},           {"rjust", s_rjust},       {"center", s_center},
            {"isdigit", s_isdigit},       {"isdecimal", s_isdigit}, {"isnumeric", s_isdigit},
            {"isalpha", s_isalpha},       {"isalnum", s_isalnum},   {"isspace", s_isspace},
            {"isupper", s_isupper},       {"islower", s_islower}};

value_fn method_find_str_form(struct str name)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (str_is(name, rows[i].name)) return rows[i].fn;
    return NULL;
}
