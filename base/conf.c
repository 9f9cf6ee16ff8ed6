/* conf.c: see conf.h. */
#include "base/conf.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum err conf_size(const char *s, int64_t *bytes)
{
    char *end;
    errno = 0;
    double v = strtod(s, &end);
    static const char units[] = "KMGT";
    if (end == s || errno || !(v >= 0)) return err_raise(ERR_BAD_CONFIG, "'%s' is not a size (try 512M or 8G)", s);
    const char *u = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (u) {
        for (const char *p = units; p <= u; p++) v *= 1024;
        end++;
        if (*end == 'i') end++;
        if (*end == 'B' || *end == 'b') end++;
    }
    if (*end || v > 9e18) return err_raise(ERR_BAD_CONFIG, "'%s' is not a size (try 512M or 8G)", s);
    *bytes = (int64_t)v;
    return OK;
}

static enum err set_number(const struct conf_opt *o, void *at, const char *v)
{
    char *end;
    errno = 0;
    double d = strtod(v, &end);
    if (o->type == CONF_SIZE) {
        int64_t b;
        enum err e = conf_size(v, &b);
        if (e) return err_prefix(e, "--%s", o->name);
        d = (double)b;
        *(int64_t *)at = b;
    } else if (end == v || *end || errno) {
        return err_raise(ERR_BAD_CONFIG, "--%s: '%s' is not a number", o->name, v);
    } else if (o->type == CONF_INT) {
        long long n = strtoll(v, &end, 10);
        if (*end || errno) return err_raise(ERR_BAD_CONFIG, "--%s: '%s' is not a whole number", o->name, v);
        *(int64_t *)at = n;
    } else {
        *(double *)at = d;
    }
    if ((o->min != 0 || o->max != 0) && !(d >= o->min && d <= o->max))
        return err_raise(ERR_BAD_CONFIG, "--%s: %s is outside %.10g..%.10g", o->name, v, o->min, o->max);
    return OK;
}

static enum err set_enum(const struct conf_opt *o, void *at, const char *v)
{
    int32_t i = 0;
    size_t n = strlen(v);
    for (const char *p = o->arg; p;) {
        size_t len = strcspn(p, "|=");
        if (len == n && !memcmp(p, v, n)) {
            *(int32_t *)at = i;
            return OK;
        }
        i += p[len] == '|';
        p = p[len] ? p + len + 1 : NULL;
    }
    return err_raise(ERR_BAD_CONFIG, "--%s: '%s' is not one of %s", o->name, v, o->arg);
}

static enum err set(const struct conf_opt *o, void *out, const char *v)
{
    void *at = (char *)out + o->offset;
    switch (o->type) {
    case CONF_FLAG:
        if (!strcmp(v, "on") || !strcmp(v, "1") || !strcmp(v, "true")) *(bool *)at = true;
        else if (!strcmp(v, "off") || !strcmp(v, "0") || !strcmp(v, "false")) *(bool *)at = false;
        else return err_raise(ERR_BAD_CONFIG, "--%s: '%s' is neither on nor off", o->name, v);
        return OK;
    case CONF_STR: *(const char **)at = v; return OK;
    case CONF_ENUM: return set_enum(o, at, v);
    case CONF_INT:
    case CONF_SIZE:
    case CONF_FLOAT: return set_number(o, at, v);
    }
    return OK;
}

static const struct conf_opt *find(const struct conf_table *t, const char *name, size_t n)
{
    for (const struct conf_opt *const *g = t->groups; *g; g++)
        for (const struct conf_opt *o = *g; o->name; o++)
            if (strlen(o->name) == n && !memcmp(o->name, name, n)) return o;
    return NULL;
}

static enum err set_defaults(const struct conf_table *t, void *out)
{
    for (const struct conf_opt *const *g = t->groups; *g; g++) {
        for (const struct conf_opt *o = *g; o->name; o++) {
            char env[96];
            int n = snprintf(env, sizeof env, "TESSERA_%s", o->name);
            for (int i = 0; i < n && i < (int)sizeof env; i++)
                env[i] = env[i] == '-' ? '_' : (char)toupper((unsigned char)env[i]);
            const char *v = getenv(env);
            enum err e = OK;
            if (v) e = set(o, out, v);
            else if (o->def) e = set(o, out, o->def);
            if (e) return v ? err_prefix(e, "environment %s", env) : e;
        }
    }
    return OK;
}

enum err conf_parse(const struct conf_table *t, int argc, char **argv, void *out, const char *args[],
                    int *n_args, bool *want_help)
{
    enum err rc = OK;
    *n_args = 0;
    *want_help = false;
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            *want_help = true;
            return OK;
        }
    TRY(set_defaults(t, out));
    bool only_args = false;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (only_args || strncmp(a, "--", 2)) {
            if (!only_args && a[0] == '-' && a[1])
                return err_raise(ERR_BAD_CONFIG, "unknown option %s (tessera %s --help lists them)", a, t->command);
            if (*n_args >= t->max_args)
                return err_raise(ERR_BAD_CONFIG, "'%s' is one argument too many: %s", a, t->synopsis);
            args[(*n_args)++] = a;
            continue;
        }
        if (!a[2]) {
            only_args = true;
            continue;
        }
        const char *eq = strchr(a, '=');
        size_t n = eq ? (size_t)(eq - a) - 2 : strlen(a) - 2;
        const struct conf_opt *o = find(t, a + 2, n);
        if (!o)
            return err_raise(ERR_BAD_CONFIG, "unknown option --%.*s (tessera %s --help lists them)", (int)n, a + 2,
                             t->command);
        const char *v = eq ? eq + 1 : NULL;
        if (!v && o->type == CONF_FLAG) {
            bool said = i + 1 < argc && (!strcmp(argv[i + 1], "on") || !strcmp(argv[i + 1], "off"));
            v = said ? argv[++i] : "on";
        }
        if (!v) {
            if (i + 1 >= argc) return err_raise(ERR_BAD_CONFIG, "--%s needs a value (%s)", o->name, o->arg);
            v = argv[++i];
        }
        TRY(set(o, out, v));
    }
    if (*n_args < t->min_args) return err_raise(ERR_BAD_CONFIG, "too few arguments: tessera %s", t->synopsis);
out:
    return rc;
}

void conf_help(const struct conf_table *t)
{
    printf("usage: tessera %s\n\n%s\n", t->synopsis, t->about);
    for (const struct conf_opt *const *g = t->groups; *g; g++) {
        if (g == t->groups) printf("\noptions:\n");
        for (const struct conf_opt *o = *g; o->name; o++) {
            char left[80];
            bool flag = o->type == CONF_FLAG;
            snprintf(left, sizeof left, flag ? "--%s [%s]" : "--%s %s", o->name, flag ? "on|off" : o->arg);
            printf("  %-34s %s", left, o->help);
            if (o->def && *o->def) printf(" [%s]", o->def);
            printf("\n");
        }
    }
    printf("  %-34s %s\n\nEvery option can also be set as TESSERA_NAME in the environment.\n", "--help", "this page");
}
