/* gguf_value.c: GGUF's numbers, strings and arrays. Source: the GGUF specification. */
#include "engine/file/gguf_value.h"

#include "engine/file/format.h"

#include <inttypes.h>
#include <string.h>

enum {
    T_U8,
    T_I8,
    T_U16,
    T_I16,
    T_U32,
    T_I32,
    T_F32,
    T_BOOL,
    T_STRING,
    T_ARRAY,
    T_U64,
    T_I64,
    T_F64,
    T_COUNT
};

/* Bytes in the file; for strings and arrays the least possible. */
static const struct value_type {
    uint8_t size;
    enum model_kv_kind kind;
} types[T_COUNT] = {
    [T_U8] = {1, KV_INT},       [T_I8] = {1, KV_INT},    [T_U16] = {2, KV_INT},
    [T_I16] = {2, KV_INT},      [T_U32] = {4, KV_INT},   [T_I32] = {4, KV_INT},
    [T_F32] = {4, KV_FLOAT},    [T_BOOL] = {1, KV_BOOL}, [T_U64] = {8, KV_INT},
    [T_I64] = {8, KV_INT},      [T_F64] = {8, KV_FLOAT}, [T_STRING] = {8, KV_STRING},
    [T_ARRAY] = {12, KV_ARRAY},
};

static enum err ask_for_more(struct eng_gguf_cur *c, int64_t need)
{
    c->need = need;
    return ERR_BAD_FILE; /* without a sentence: only the reader of the window sees it */
}

enum err eng_gguf_take(struct eng_gguf_cur *c, uint64_t n, const void **p)
{
    if (n > (uint64_t)(c->size - c->at))
        return err_raise(ERR_BAD_FILE,
                         "%s needs %" PRIu64 " bytes at offset %" PRId64
                         ", but the file ends at %" PRId64
                         ": it is truncated or damaged, fetch it again",
                         c->what, n, c->at, c->size);
    if (n > (uint64_t)(c->have - c->at)) return ask_for_more(c, c->at + (int64_t)n);
    *p = c->p + c->at;
    c->at += (int64_t)n;
    return OK;
}

enum err eng_gguf_room_for(struct eng_gguf_cur *c, uint64_t n, int64_t least, const char *things)
{
    if (n > (uint64_t)((c->size - c->at) / least))
        return err_raise(ERR_BAD_FILE,
                         "%s claims %" PRIu64 " %s of at least %" PRId64
                         " bytes each at offset %" PRId64 ", but only %" PRId64
                         " bytes of the file are left",
                         c->what, n, things, least, c->at, c->size - c->at);
    if (n > (uint64_t)((c->have - c->at) / least))
        return ask_for_more(c, c->at + (int64_t)n * least);
    return OK;
}

static uint64_t load_le(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

enum err eng_gguf_take_uint(struct eng_gguf_cur *c, size_t n, uint64_t *v)
{
    const void *p;
    enum err rc = eng_gguf_take(c, n, &p);
    if (!rc) *v = load_le(p, n);
    return rc;
}

static enum err take_str(struct eng_gguf_cur *c, struct model_str *s)
{
    const void *p;
    enum err rc = OK;
    uint64_t n;
    TRY(eng_gguf_take_uint(c, 8, &n));
    TRY(eng_gguf_take(c, n, &p));
    *s = (struct model_str){p, n};
out:
    return rc;
}

enum err eng_gguf_take_name(struct eng_gguf_cur *c, uint64_t longest, struct model_str *s)
{
    enum err rc = OK;
    uint64_t n;
    int64_t at = c->at;
    const void *p;
    TRY(eng_gguf_take_uint(c, 8, &n));
    if (n < 1 || n > longest)
        return err_raise(ERR_BAD_FILE,
                         "%s has a name of %" PRIu64 " bytes at offset %" PRId64
                         ", it must have 1 to %" PRIu64,
                         c->what, n, at, longest);
    TRY(eng_gguf_take(c, n, &p));
    if (memchr(p, 0, n))
        return err_raise(ERR_BAD_FILE, "%s has a NUL byte in its name '%s' at offset %" PRId64,
                         c->what, eng_show(p, n).s, at);
    *s = (struct model_str){p, n};
out:
    return rc;
}

static int64_t load_int(uint32_t type, const uint8_t *p)
{
    uint64_t v = load_le(p, types[type].size);
    switch (type) {
    case T_I8: return (int8_t)v;
    case T_I16: return (int16_t)v;
    case T_I32: return (int32_t)v;
    default: return (int64_t)v;
    }
}

static double load_float(uint32_t type, const uint8_t *p)
{
    uint64_t v = load_le(p, types[type].size);
    if (type == T_F64) {
        double d;
        memcpy(&d, &v, sizeof d);
        return d;
    }
    uint32_t u = (uint32_t)v;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* The two kinds of number whose bytes can be wrong. */
static enum err check_number(const struct eng_gguf_cur *c, uint32_t type, const uint8_t *p)
{
    if (type == T_BOOL && *p > 1)
        return err_raise(ERR_BAD_FILE,
                         "%s is a boolean with value %d at offset %td, it must be 0 or 1", c->what,
                         *p, p - c->p);
    if (type == T_U64 && load_le(p, 8) > INT64_MAX)
        return err_raise(ERR_BAD_FILE,
                         "%s is %" PRIu64
                         " at offset %td, the largest integer accepted is %" PRId64,
                         c->what, load_le(p, 8), p - c->p, INT64_MAX);
    return OK;
}

static enum err take_type(struct eng_gguf_cur *c, uint32_t *type)
{
    uint64_t v;
    int64_t at = c->at;
    enum err rc = eng_gguf_take_uint(c, 4, &v);
    if (rc) return rc;
    if (v >= T_COUNT)
        return err_raise(ERR_BAD_FILE,
                         "%s has value type %" PRIu64 " at offset %" PRId64 ", GGUF knows 0 to %d",
                         c->what, v, at, T_COUNT - 1);
    *type = (uint32_t)v;
    return OK;
}

static enum err take_strings(struct eng_gguf_cur *c, struct arena *a, uint64_t n, const void **at)
{
    struct model_str *s = arena_alloc(a, n * sizeof *s);
    for (uint64_t i = 0; i < n; i++) {
        enum err rc = take_str(c, &s[i]);
        if (rc) return rc;
    }
    *at = s;
    return OK;
}

static enum err take_array(struct eng_gguf_cur *c, struct arena *a, struct model_kv *kv)
{
    enum err rc = OK;
    int64_t at = c->at;
    TRY(take_type(c, &kv->a.elem));
    if (kv->a.elem == T_ARRAY)
        return err_raise(ERR_BAD_FILE,
                         "%s is an array of arrays at offset %" PRId64
                         ", only flat arrays are supported",
                         c->what, at);
    TRY(eng_gguf_take_uint(c, 8, &kv->a.n));
    const struct value_type *t = &types[kv->a.elem];
    kv->a.kind = t->kind;
    TRY(eng_gguf_room_for(c, kv->a.n, t->size, "elements"));
    if (kv->a.elem == T_STRING) return take_strings(c, a, kv->a.n, &kv->a.at);
    TRY(eng_gguf_take(c, kv->a.n * t->size, &kv->a.at));
    for (uint64_t i = 0; i < kv->a.n && (kv->a.elem == T_BOOL || kv->a.elem == T_U64); i++)
        TRY(check_number(c, kv->a.elem, (const uint8_t *)kv->a.at + i * t->size));
out:
    return rc;
}

enum err eng_gguf_take_value(struct eng_gguf_cur *c, struct arena *a, struct model_kv *kv)
{
    enum err rc = OK;
    uint32_t type;
    const void *p;
    TRY(take_type(c, &type));
    kv->kind = types[type].kind;
    if (type == T_STRING) return take_str(c, &kv->s);
    if (type == T_ARRAY) return take_array(c, a, kv);
    TRY(eng_gguf_take(c, types[type].size, &p));
    TRY(check_number(c, type, p));
    if (type == T_BOOL) kv->b = *(const uint8_t *)p;
    else if (kv->kind == KV_FLOAT) kv->f = load_float(type, p);
    else kv->i = load_int(type, p);
out:
    return rc;
}

struct model_str eng_model_file_array_str(const struct model_kv *kv, uint64_t i)
{
    ASSERT(kv->kind == KV_ARRAY && kv->a.kind == KV_STRING && i < kv->a.n);
    return ((const struct model_str *)kv->a.at)[i];
}

int64_t eng_model_file_array_int(const struct model_kv *kv, uint64_t i)
{
    ASSERT(kv->kind == KV_ARRAY && (kv->a.kind == KV_INT || kv->a.kind == KV_BOOL) && i < kv->a.n);
    return load_int(kv->a.elem, (const uint8_t *)kv->a.at + i * types[kv->a.elem].size);
}

double eng_model_file_array_float(const struct model_kv *kv, uint64_t i)
{
    ASSERT(kv->kind == KV_ARRAY && kv->a.kind == KV_FLOAT && i < kv->a.n);
    return load_float(kv->a.elem, (const uint8_t *)kv->a.at + i * types[kv->a.elem].size);
}
