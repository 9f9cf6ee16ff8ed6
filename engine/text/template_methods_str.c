/* template_methods_str.c: the methods of text, by Python's names. */
#include "engine/text/template_value.h"

#include <string.h>

/* Text argument i, or fallback when it is absent or none; NULL p and a failure when it is something
 * else. */
static bool text_arg(struct run *r, const struct args *a, int32_t i, const char *name,
                     struct str fallback, struct str *out)
{
    struct value v;
    *out = fallback;
    if (!args_get(a, i, name, &v) || v.kind == V_NONE) return true;
    if (v.kind == V_UNDEF) return v_fail_undef(r, v), false;
    if (v.kind != V_STR)
        return run_fail(r, "argument %d must be str, not %s", i + 1, v_type(v)), false;
    *out = v.s;
    return true;
}

static int64_t int_arg(struct run *r, const struct args *a, int32_t i, const char *name,
                       int64_t fallback)
{
    struct value v;
    if (!args_get(a, i, name, &v) || v.kind == V_NONE) return fallback;
    if (v.kind != V_INT && v.kind != V_BOOL)
        run_fail(r, "argument %d must be int, not %s", i + 1, v_type(v));
    return v.kind == V_INT || v.kind == V_BOOL ? v_as_int(v) : fallback;
}

static struct value strip(struct run *r, struct value self, const struct args *a, unsigned sides)
{
    struct str none = {0}, chars;
    if (!text_arg(r, a, 0, "chars", none, &chars)) return v_none();
    return run_work(r, self.s.n / 64), v_str(str_strip(self.s, sides, chars.p ? &chars : NULL));
}
static struct value s_strip(struct run *r, struct value s, const struct args *a)
{
    return strip(r, s, a, 3);
}
static struct value s_lstrip(struct run *r, struct value s, const struct args *a)
{
    return strip(r, s, a, STRIP_LEFT);
}
static struct value s_rstrip(struct run *r, struct value s, const struct args *a)
{
    return strip(r, s, a, STRIP_RIGHT);
}

static struct str sub(struct str s, size_t from, size_t to)
{
    return (struct str){s.p + from, to - from};
}

static struct value split_blanks(struct run *r, struct str s, int64_t most)
{
    struct value out = v_list(r, V_LIST);
    for (s = str_strip(s, STRIP_LEFT, NULL); s.n && !r->rc; s = str_strip(s, STRIP_LEFT, NULL)) {
        size_t at = 0, end = 0;
        if (most == 0) {
            list_push(r, out.list, v_str(str_strip(s, STRIP_RIGHT, NULL)));
            break;
        }
        while (at < s.n && !ch_is_space(str_next(s, &at))) end = at;
        list_push(r, out.list, v_str(sub(s, 0, end)));
        s = sub(s, end, s.n);
        most--;
    }
    return out;
}

static struct value s_split(struct run *r, struct value self, const struct args *a)
{
    struct str none = {0}, sep, s = self.s;
    int64_t most = int_arg(r, a, 1, "maxsplit", -1);
    struct value out = v_list(r, V_LIST);
    if (!text_arg(r, a, 0, "sep", none, &sep) || !run_work(r, s.n / 64)) return v_none();
    if (!sep.p) return split_blanks(r, s, most);
    if (!sep.n) return run_fail(r, "empty separator");
    size_t from = 0;
    for (size_t hit; most && (hit = str_find(s, sep, from)) != SIZE_MAX && !r->rc;
         from = hit + sep.n, most--)
        list_push(r, out.list, v_str(sub(s, from, hit)));
    list_push(r, out.list, v_str(sub(s, from, s.n)));
    return out;
}

static size_t find_last(struct str s, struct str what, size_t end)
{
    for (size_t i = end >= what.n ? end - what.n + 1 : 0; i-- > 0;)
        if (!memcmp(s.p + i, what.p, what.n)) return i;
    return SIZE_MAX;
}

static struct value s_rsplit(struct run *r, struct value self, const struct args *a)
{
    struct str none = {0}, sep, s = self.s;
    int64_t most = int_arg(r, a, 1, "maxsplit", -1);
    struct value back = v_list(r, V_LIST), out = v_list(r, V_LIST);
    if (!text_arg(r, a, 0, "sep", none, &sep) || !run_work(r, s.n / 16)) return v_none();
    if (!sep.p && most < 0) return split_blanks(r, s, most);
    if (!sep.p) sep = STR(" ");
    if (!sep.n) return run_fail(r, "empty separator");
    size_t end = s.n;
    for (size_t hit; most && (hit = find_last(s, sep, end)) != SIZE_MAX && !r->rc;
         end = hit, most--)
        list_push(r, back.list, v_str(sub(s, hit + sep.n, end)));
    list_push(r, out.list, v_str(sub(s, 0, end)));
    for (size_t i = back.list->n; i-- > 0;) list_push(r, out.list, back.list->at[i]);
    return out;
}

static struct value s_splitlines(struct run *r, struct value self, const struct args *a)
{
    struct value keep = v_bool(false);
    args_get(a, 0, "keepends", &keep);
    return (struct value){.kind = V_LIST, .list = str_lines(r, self.s, v_truth(keep))};
}

static struct value partition(struct run *r, struct value self, const struct args *a, bool last)
{
    struct str sep;
    struct value out = v_list(r, V_TUPLE), empty = v_str(STR(""));
    if (!text_arg(r, a, 0, "sep", STR(""), &sep)) return v_none();
    if (!sep.n) return run_fail(r, "empty separator");
    size_t hit = last ? find_last(self.s, sep, self.s.n) : str_find(self.s, sep, 0);
    bool found = hit != SIZE_MAX;
    list_push(r, out.list, found ? v_str(sub(self.s, 0, hit)) : last ? empty : self);
    list_push(r, out.list, found ? v_str(sep) : empty);
    list_push(r, out.list, found ? v_str(sub(self.s, hit + sep.n, self.s.n)) : last ? self : empty);
    return out;
}
static struct value s_partition(struct run *r, struct value s, const struct args *a)
{
    return partition(r, s, a, false);
}
static struct value s_rpartition(struct run *r, struct value s, const struct args *a)
{
    return partition(r, s, a, true);
}

static bool has_affix(struct str s, struct value what, bool end)
{
    if (what.kind != V_STR || what.s.n > s.n) return false;
    return !what.s.n || !memcmp(end ? s.p + s.n - what.s.n : s.p, what.s.p, what.s.n);
}

static struct value affix(struct run *r, struct value self, const struct args *a, bool end)
{
    struct value what = v_none();
    args_get(a, 0, NULL, &what);
    if (what.kind == V_TUPLE) {
        for (size_t i = 0; i < what.list->n; i++)
            if (has_affix(self.s, what.list->at[i], end)) return v_bool(true);
        return v_bool(false);
    }
    if (what.kind == V_UNDEF) return v_fail_undef(r, what);
    if (what.kind != V_STR)
        return run_fail(r, "%s first arg must be str or a tuple of str, not %s",
                        end ? "endswith" : "startswith", v_type(what));
    return v_bool(has_affix(self.s, what, end));
}
static struct value s_startswith(struct run *r, struct value s, const struct args *a)
{
    return affix(r, s, a, false);
}
static struct value s_endswith(struct run *r, struct value s, const struct args *a)
{
    return affix(r, s, a, true);
}

static struct value remove_affix(struct run *r, struct value self, const struct args *a, bool end)
{
    struct str what;
    if (!text_arg(r, a, 0, NULL, STR(""), &what) || !has_affix(self.s, v_str(what), end))
        return self;
    return v_str(end ? sub(self.s, 0, self.s.n - what.n) : sub(self.s, what.n, self.s.n));
}
static struct value s_removeprefix(struct run *r, struct value s, const struct args *a)
{
    return remove_affix(r, s, a, false);
}
static struct value s_removesuffix(struct run *r, struct value s, const struct args *a)
{
    return remove_affix(r, s, a, true);
}

static struct value s_replace(struct run *r, struct value self, const struct args *a)
{
    struct str old, new, s = self.s;
    int64_t most = int_arg(r, a, 2, "count", -1);
    struct buf b = {0};
    size_t from = 0;
    if (!text_arg(r, a, 0, "old", STR(""), &old) || !text_arg(r, a, 1, "new", STR(""), &new))
        return v_none();
    if (!old.n) { /* between all characters */
        for (size_t at = 0; !r->rc && most; most--) {
            run_put(r, &b, new.p, new.n);
            from = at;
            if (at >= s.n) break;
            str_next(s, &at);
            run_put(r, &b, s.p + from, at - from);
            from = at;
        }
    }
    for (size_t hit; old.n && most && (hit = str_find(s, old, from)) != SIZE_MAX && !r->rc;
         from = hit + old.n, most--) {
        run_put(r, &b, s.p + from, hit - from);
        run_put(r, &b, new.p, new.n);
    }
    run_put(r, &b, s.p + from, s.n - from);
    return run_take(r, &b);
}

static struct value find(struct run *r, struct value self, const struct args *a, bool last)
{
    struct str what;
    if (!text_arg(r, a, 0, NULL, STR(""), &what) || !run_work(r, self.s.n / 32)) return v_none();
    size_t hit = last ? find_last(self.s, what, self.s.n) : str_find(self.s, what, 0);
    return v_int(hit == SIZE_MAX ? -1 : (int64_t)str_chars(sub(self.s, 0, hit)));
}
static struct value s_find(struct run *r, struct value s, const struct args *a)
{
    return find(r, s, a, false);
}
static struct value s_rfind(struct run *r, struct value s, const struct args *a)
{
    return find(r, s, a, true);
}
static struct value s_index(struct run *r, struct value s, const struct args *a)
{
    struct value v = find(r, s, a, false);
    return v.kind == V_INT && v.i < 0 ? run_fail(r, "substring not found") : v;
}

static struct value s_count(struct run *r, struct value self, const struct args *a)
{
    struct str what;
    int64_t n = 0;
    if (!text_arg(r, a, 0, NULL, STR(""), &what)) return v_none();
    if (!what.n) return v_int((int64_t)str_chars(self.s) + 1);
    for (size_t at = 0; (at = str_find(self.s, what, at)) != SIZE_MAX && run_work(r, 1);
         at += what.n)
        n++;
    return v_int(n);
}

static struct value s_join(struct run *r, struct value self, const struct args *a)
{
    struct value items = v_none();
    struct buf b = {0};
    args_get(a, 0, NULL, &items);
    struct list *l = v_iterate(r, items);
    for (size_t i = 0; i < l->n && !r->rc; i++) {
        if (l->at[i].kind != V_STR)
            run_fail(r, "sequence item %zu: expected str instance, %s found", i, v_type(l->at[i]));
        if (i) run_put(r, &b, self.s.p, self.s.n);
        v_put(r, &b, l->at[i]);
    }
    return run_take(r, &b);
}

static const struct {
    const char *name;
    value_fn fn;
} rows[] = {{"strip", s_strip},
            {"lstrip", s_lstrip},
            {"rstrip", s_rstrip},
            {"split", s_split},
            {"rsplit", s_rsplit},
            {"splitlines", s_splitlines},
            {"partition", s_partition},
            {"rpartition", s_rpartition},
            {"startswith", s_startswith},
            {"endswith", s_endswith},
            {"removeprefix", s_removeprefix},
            {"removesuffix", s_removesuffix},
            {"replace", s_replace},
            {"find", s_find},
            {"rfind", s_rfind},
            {"index", s_index},
            {"count", s_count},
            {"join", s_join},
            {"format", str_format}};

value_fn method_find_str(struct str name)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (str_is(name, rows[i].name)) return rows[i].fn;
    return method_find_str_form(name);
}
