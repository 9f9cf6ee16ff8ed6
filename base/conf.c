/* conf.c: see conf.h. */
#include "base/conf.h"

#include "base/near.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

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

/* What is said of a list again goes behind what was said before. The texts are kept: there are few, and options live as long as the process. */
static void append(const char **at, const char *v)
{
    enum { MOST = 64 };
    static char *kept[MOST];
    static int n;
    ASSERT(n < MOST);
    *at = kept[n++] = xasprintf("%s,%s", *at, v);
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
    case CONF_STR:
    case CONF_LIST: *(const char **)at = v; return OK;
    case CONF_ENUM: return set_enum(o, at, v);
    case CONF_INT:
    case CONF_SIZE:
    case CONF_FLOAT: return set_number(o, at, v);
    case CONF_TITLE: break;
    }
    return OK;
}

static const struct conf_opt *find(const struct conf_table *t, const char *name, size_t n)
{
    for (const struct conf_opt *const *g = t->groups; *g; g++)
        for (const struct conf_opt *o = *g; o->name; o++)
            if (o->type != CONF_TITLE && strlen(o->name) == n && !memcmp(o->name, name, n)) return o;
    return NULL;
}

/* Is this word among them, parted by spaces? */
static bool is_among(const char *words, const char *word, size_t n)
{
    for (const char *p = words; p && *p; p += strcspn(p, " "), p += strspn(p, " "))
        if (strcspn(p, " ") == n && !memcmp(p, word, n)) return true;
    return false;
}

static enum err unknown(const struct conf_table *t, const char *name, size_t n)
{
    struct near s = {.word = name, .n = n};
    for (const struct conf_opt *const *g = t->groups; *g; g++)
        for (const struct conf_opt *o = *g; o->name; o++) {
            if (is_among(o->elsewhere, name, n))
                return err_raise(ERR_BAD_CONFIG, "unknown option --%.*s: here it is --%s (tessera %s --help)", (int)n, name, o->name, t->command);
            if (o->type != CONF_TITLE) near_see(&s, o->name);
        }
    if (near_best(&s))
        return err_raise(ERR_BAD_CONFIG, "unknown option --%.*s: is --%s meant? (tessera %s --help lists them)", (int)n, name, near_best(&s), t->command);
    return err_raise(ERR_BAD_CONFIG, "unknown option --%.*s (tessera %s --help lists them)", (int)n, name, t->command);
}

static enum err set_defaults(const struct conf_table *t, void *out)
{
    for (const struct conf_opt *const *g = t->groups; *g; g++) {
        for (const struct conf_opt *o = *g; o->name; o++) {
            char env[96];
            if (o->type == CONF_TITLE) continue;
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
    const struct conf_opt *listed = NULL; /* the list that argv has begun: what the environment said of it is gone */
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
        if (!o) return unknown(t, a + 2, n);
        const char *v = eq ? eq + 1 : NULL;
        if (!v && o->type == CONF_FLAG) {
            bool said = i + 1 < argc && (!strcmp(argv[i + 1], "on") || !strcmp(argv[i + 1], "off"));
            v = said ? argv[++i] : "on";
        }
        if (!v) {
            if (i + 1 >= argc) return err_raise(ERR_BAD_CONFIG, "--%s needs a value (%s)", o->name, o->arg);
            v = argv[++i];
        }
        if (o->type == CONF_LIST && o == listed) append((const char **)(void *)((char *)out + o->offset), v);
        else TRY(set(o, out, v));
        if (o->type == CONF_LIST) listed = o;
    }
    if (*n_args < t->min_args) return err_raise(ERR_BAD_CONFIG, "too few arguments: tessera %s", t->synopsis);
out:
    return rc;
}

/* ---- --help ---- */

enum { HELP_LEFT = 34, HELP_WIDTH = 120, HELP_NARROWEST = 60 };

static size_t help_width(void)
{
    struct winsize w;
    if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) || !w.ws_col) return HELP_WIDTH;
    return MAX(MIN((size_t)w.ws_col, (size_t)HELP_WIDTH), (size_t)HELP_NARROWEST);
}

/* A text between column `left`, where the cursor stands, and `width`, folded at spaces. */
static void fold(const char *text, size_t left, size_t width)
{
    size_t at = left;
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, " "), space = at > left;
        if (space && at + 1 + n > width) {
            printf("\n%*s", (int)left, "");
            at = left;
            space = 0;
        }
        printf("%s%.*s", space ? " " : "", (int)n, p);
        at += n + space;
        p += n + strspn(p + n, " ");
    }
    putchar('\n');
}

/* Lines that begin with a space are examples, and stay as they are; others are a paragraph, folded anew. */
static void help_about(const char *text, size_t width)
{
    char *own = xstrdup(text);
    for (char *p = own, *next; *p; p = next) {
        char *end = strchrnul(p, '\n');
        while (*p != ' ' && *end && !strchr(" \n", end[1])) { /* strchr also finds the text's end */
            *end = ' ';
            end = strchrnul(end, '\n');
        }
        next = *end ? end + 1 : end;
        *end = 0;
        if (*p == ' ') puts(p);
        else fold(p, 0, width);
    }
    free(own);
}

static void help_option(const struct conf_opt *o, size_t width)
{
    bool flag = o->type == CONF_FLAG, def = o->def && *o->def;
    char *text = def ? xasprintf("%s [%s]", o->help, o->def) : xstrdup(o->help);
    int n = printf(flag ? "  --%s [%s]" : "  --%s %s", o->name, flag ? "on|off" : o->arg);
    if (n > HELP_LEFT + 2) n = printf("\n") - 1;
    printf("%*s", HELP_LEFT + 3 - n, "");
    fold(text, HELP_LEFT + 3, width);
    free(text);
}

void conf_help(const struct conf_table *t)
{
    size_t width = help_width();
    printf("usage: tessera %s\n\n", t->synopsis);
    help_about(t->about, width);
    for (const struct conf_opt *const *g = t->groups; *g; g++) {
        if (g == t->groups && g[0]->type != CONF_TITLE) printf("\noptions:\n");
        for (const struct conf_opt *o = *g; o->name; o++)
            if (o->type == CONF_TITLE)
                printf("\n%s:\n", o->help);
            else
                help_option(o, width);
    }
    printf("  %-34s %s\n\nEvery option can also be set as TESSERA_NAME in the environment.\n", "--help", "this page");
}
