/* schema_refs.c: where each schema stands, and what a $ref means: identifiers, anchors, JSON
 * pointers, relative references (RFC 3986). */
#include "engine/grammar/schema_set.h"

#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEEP = 200, MOST_PLACES = 1 << 18 };

static const struct place *place_of(const struct schema *s, const json_t *node)
{
    int32_t i = map64_get(&s->place_of, (uint64_t)(uintptr_t)node);
    return i < 0 ? NULL : &s->places[i];
}

int32_t eng_schema_place(const struct schema *s, const json_t *node)
{
    return map64_get(&s->place_of, (uint64_t)(uintptr_t)node);
}

enum err eng_schema_at(const struct schema *s, const json_t *node, const char *keyword, enum err e)
{
    const struct place *p = place_of(s, node);
    return err_prefix(e, "JSON Schema, #%s%s%s", p ? p->path : "", keyword ? "/" : "",
                      keyword ? keyword : "");
}

enum err eng_schema_refuse(const struct schema *s, const json_t *node, const char *keyword,
                           enum err e, const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    err_set_text("%s", text);
    return eng_schema_at(s, node, keyword, e);
}

enum err eng_schema_need(const struct schema *s, const json_t *node, const char *keyword,
                         const char *what)
{
    return eng_schema_refuse(s, node, keyword, ERR_BAD_REQUEST, "%s is needed here", what);
}

static char *text(struct schema *s, const char *a, const char *b, const char *c)
{
    size_t na = strlen(a), nb = strlen(b), nc = strlen(c);
    char *t = arena_alloc(s->a, na + nb + nc + 1);
    memcpy(t, a, na);
    memcpy(t + na, b, nb);
    memcpy(t + na + nb, c, nc);
    return t;
}

/* ---- URIs ---- */

/* Length of "scheme:", 0: none. */
static size_t scheme_length(const char *u)
{
    size_t i = strspn(u, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");
    return i && u[i] == ':' && !(u[0] >= '0' && u[0] <= '9') ? i + 1 : 0;
}

/* Where the path begins: behind scheme and authority. */
static size_t path_start(const char *u)
{
    size_t i = scheme_length(u);
    if (u[i] == '/' && u[i + 1] == '/') i += 2 + strcspn(u + i + 2, "/?#");
    return i;
}

static void drop_dots(char *path)
{
    char *out = path;
    for (const char *in = path; *in;) {
        if (!strncmp(in, "/../", 4) || !strcmp(in, "/..")) {
            while (out > path && *--out != '/') {
            }
            in += in[3] ? 3 : 2;
            if (in[0] == '.') *out++ = '/', in++;
        } else if (!strncmp(in, "/./", 3)) {
            in += 2;
        } else {
            *out++ = *in++;
        }
    }
    *out = 0;
}

/* ref against base; the fragment stays. */
static char *resolve(struct schema *s, const char *base, const char *ref)
{
    if (scheme_length(ref) || !*base) return text(s, ref, "", "");
    size_t root = path_start(base), cut = *ref == '/'            ? root
                                          : *ref == '#' || !*ref ? strlen(base)
                                                                 : root;
    if (*ref == '/' && ref[1] == '/') cut = scheme_length(base);
    if (*ref != '/' && *ref != '#' && *ref)
        for (size_t i = root; base[i] && base[i] != '?' && base[i] != '#'; i++)
            if (base[i] == '/') cut = i + 1;
    char *head = arena_strndup(s->a, base, cut),
         *out = text(s, head,
                     cut == root && cut && *ref != '/' && *ref != '#' && head[cut - 1] != ':' ? "/"
                                                                                              : "",
                     ref);
    drop_dots(out + path_start(out));
    return out;
}

/* ---- walk ---- */

static void add_id(struct schema *s, const char *uri, const json_t *node)
{
    if (s->n_ids == s->cap_ids) {
        s->cap_ids = MAX(16, 2 * s->cap_ids);
        s->ids = xrealloc(s->ids, (size_t)s->cap_ids * sizeof *s->ids);
    }
    s->ids[s->n_ids].uri = uri;
    s->ids[s->n_ids++].node = node;
}

static char *step(struct schema *s, const char *path, const char *name)
{
    struct buf b = {0};
    buf_puts(&b, path);
    buf_putc(&b, '/');
    for (; *name; name++) {
        if (*name == '~')
            buf_puts(&b, "~0");
        else if (*name == '/')
            buf_puts(&b, "~1");
        else
            buf_putc(&b, *name);
    }
    char *out = arena_strndup(s->a, (char *)b.data, b.len);
    buf_free(&b);
    return out;
}

static enum err walk(struct schema *s, const json_t *node, const char *path, const char *base,
                     int depth, bool schema)
{
    enum err rc = OK;
    const json_t *child;
    const char *key;
    size_t i;
    if (depth > DEEP)
        return err_raise(ERR_UNSUPPORTED, "JSON Schema, #%.200s...: nested more than %d deep", path,
                         DEEP);
    if (s->n_places >= MOST_PLACES)
        return err_raise(ERR_UNSUPPORTED, "JSON Schema: more than %d values", MOST_PLACES);
    const char *id = schema ? json_string_value(json_object_get(node, "$id")) : NULL;
    const char *anchor = schema ? json_string_value(json_object_get(node, "$anchor")) : NULL;
    const char *dynamic =
        schema ? json_string_value(json_object_get(node, "$dynamicAnchor")) : NULL;
    if (id) {
        base = resolve(s, base, id);
        size_t n = strcspn(base, "#");
        base = arena_strndup(s->a, base, n);
        add_id(s, base, node);
    }
    if (anchor) add_id(s, text(s, base, "#", anchor), node);
    if (dynamic) add_id(s, text(s, base, "#", dynamic), node);
    if (s->n_places == s->cap_places) {
        s->cap_places = MAX(64, 2 * s->cap_places);
        s->places = xrealloc(s->places, (size_t)s->cap_places * sizeof *s->places);
    }
    if (eng_schema_place(s, node) >= 0)
        return OK; /* true, false and null are one node each wherever they stand */
    map64_put(&s->place_of, (uint64_t)(uintptr_t)node, s->n_places);
    s->places[s->n_places++] = (struct place){node, path, base};
    json_object_foreach((json_t *)node, key, child)
    {
        bool data = schema && (!strcmp(key, "enum") || !strcmp(key, "const") ||
                               !strcmp(key, "default") || !strcmp(key, "examples"));
        TRY(walk(s, child, step(s, path, key), base, depth + 1, schema && !data));
    }
    json_array_foreach((json_t *)node, i, child)
    {
        char number[24];
        snprintf(number, sizeof number, "%zu", i);
        TRY(walk(s, child, step(s, path, number), base, depth + 1, schema));
    }
out:
    return rc;
}

enum err eng_schema_walk(struct schema *s, const json_t *document)
{
    add_id(s, "", document);
    return walk(s, document, "", "", 0, true);
}

/* ---- pointers ---- */

static int hex_value(char c)
{
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

/* One step of a pointer, decoded from %XX and ~0 ~1. */
static char *decode(struct schema *s, const char *p, size_t n)
{
    char *out = arena_alloc(s->a, n + 1), *to = out;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '%' && i + 2 < n && hex_value(p[i + 1]) >= 0 && hex_value(p[i + 2]) >= 0) {
            *to++ = (char)(hex_value(p[i + 1]) * 16 + hex_value(p[i + 2]));
            i += 2;
        } else {
            *to++ = p[i];
        }
    }
    *to = 0;
    char *in = out;
    for (to = out; *in; to++) {
        *to = *in++;
        if (*to == '~' && (*in == '0' || *in == '1')) *to = *in++ == '0' ? '~' : '/';
    }
    *to = 0;
    return out;
}

static const json_t *point(struct schema *s, const json_t *node, const char *p)
{
    while (node && *p == '/') {
        size_t n = strcspn(++p, "/");
        const char *name = decode(s, p, n);
        node = json_is_array(node) ? json_array_get(node, (size_t)strtoul(name, NULL, 10))
                                   : json_object_get(node, name);
        p += n;
    }
    return node;
}

static const json_t *find_id(const struct schema *s, const char *uri)
{
    for (int32_t i = 0; i < s->n_ids; i++)
        if (!strcmp(s->ids[i].uri, uri)) return s->ids[i].node;
    return NULL;
}

enum err eng_schema_resolve(const struct schema *s, const json_t *node, const char *ref,
                            const json_t **out)
{
    struct schema *m = (struct schema *)s; /* its arena */
    const struct place *p = place_of(s, node);
    const char *uri = resolve(m, p ? p->base : "", ref);
    size_t n = strcspn(uri, "#");
    const char *fragment = uri[n] ? uri + n + 1 : "";
    const json_t *root = find_id(s, arena_strndup(m->a, uri, n)), *found;
    if (*fragment && *fragment != '/')
        found = find_id(s, uri);
    else
        found = root ? point(m, root, fragment) : NULL;
    if (!found)
        return eng_schema_refuse(
            s, node, "$ref", root ? ERR_BAD_REQUEST : ERR_UNSUPPORTED,
            root ? "'%.200s' leads nowhere" : "'%.200s' is outside of this document", ref);
    *out = found;
    return OK;
}
