/* gguf.c: headers of GGUF files, versions 2 and 3, little-endian, whole or split.
 *
 * The header is parsed from memory. Nobody knows its length beforehand, so a window from the start
 * of the file is parsed; when the header turns out to go on, the window grows and parsing starts
 * again.
 * I1  every count and length is checked against the bytes of the file that are left, and anything
 *     allocated for it against the bytes in the window: a lie costs a sentence, never memory.
 * I2  nothing but the header is read.
 * Source: the GGUF specification. Not here: values (gguf_value.c); whether tensors overlap or reach
 * outside their file (model_file.c). */
#include "engine/file/format.h"
#include "engine/file/gguf_value.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIRST_WINDOW = 1 << 20,
    LARGEST_HEADER = 1 << 28, /* twenty times the largest vocabulary seen */
    LARGEST_ALIGNMENT = 1 << 20,
    MOST_TENSORS = 1 << 20,
    MOST_KEYS = 1 << 20,
    LONGEST_KEY = 65535,
    LONGEST_TENSOR_NAME = 255,
    MOST_PARTS = 1024,
    LEAST_KV = 8 + 1 + 4 + 1,   /* key length, one letter, type, one byte */
    LEAST_TENSOR = 8 + 1 + 4 + 4 + 8, /* name length, one letter, no dimension, type, offset */
};

struct header {
    uint32_t version;
    int64_t n_kv, n_tensors;
    struct model_kv *kv;
    struct model_tensor *tensors;
    struct eng_name_table keys;
};

static enum err take_kvs(struct eng_gguf_cur *c, struct arena *a, struct header *h)
{
    enum err rc = OK;
    h->kv = arena_alloc(a, (size_t)h->n_kv * sizeof *h->kv);
    eng_name_table_open(&h->keys, a, h->n_kv);
    for (int64_t i = 0; i < h->n_kv; i++) {
        struct model_kv *kv = &h->kv[i];
        int64_t at = c->at;
        snprintf(c->what, sizeof c->what, "metadata entry %" PRId64, i);
        TRY(eng_gguf_take_name(c, LONGEST_KEY, &kv->key));
        struct eng_shown key = eng_show(kv->key.p, kv->key.n);
        if (eng_name_table_put(&h->keys, kv->key.p, kv->key.n, i) >= 0)
            return err_raise(ERR_BAD_FILE, "key '%s' is there twice, again at offset %" PRId64,
                             key.s, at);
        snprintf(c->what, sizeof c->what, "key '%s'", key.s);
        int64_t value = c->at;
        TRY(eng_gguf_take_value(c, a, kv));
        kv->raw = c->p + value;
        kv->raw_n = (uint64_t)(c->at - value);
    }
out:
    return rc;
}

/* An integer of this header that must be inside [min,max]; absent: def. */
static enum err header_int(const struct header *h, const char *key, int64_t def, int64_t min,
                           int64_t max, int64_t *out)
{
    int64_t i = eng_name_table_get(&h->keys, key, strlen(key));
    if (i >= 0 && h->kv[i].kind != KV_INT)
        return err_raise(ERR_BAD_FILE, "key '%s' is not an integer", key);
    int64_t v = i < 0 ? def : h->kv[i].i;
    if (v < min || v > max)
        return err_raise(ERR_BAD_FILE,
                         "key '%s' is %" PRId64 ", it must be between %" PRId64 " and %" PRId64,
                         key, v, min, max);
    *out = v;
    return OK;
}

static enum err take_shape(struct eng_gguf_cur *c, struct model_tensor *t, int64_t *n_values)
{
    enum err rc = OK;
    uint64_t n, d;
    int64_t at = c->at;
    TRY(eng_gguf_take_uint(c, 4, &n));
    if (n > MODEL_MAX_DIMS)
        return err_raise(ERR_BAD_FILE,
                         "%s has %" PRIu64 " dimensions at offset %" PRId64
                         ", at most %d are possible",
                         c->what, n, at, MODEL_MAX_DIMS);
    t->n_dims = (int32_t)n;
    *n_values = 1;
    for (int i = 0; i < MODEL_MAX_DIMS; i++) {
        t->dims[i] = 1;
        if (i >= t->n_dims) continue;
        at = c->at;
        TRY(eng_gguf_take_uint(c, 8, &d));
        t->dims[i] = (int64_t)d;
        if (d < 1 || d > INT64_MAX || __builtin_mul_overflow(*n_values, t->dims[i], n_values))
            return err_raise(ERR_BAD_FILE,
                             "%s has dimension %d = %" PRIu64 " at offset %" PRId64
                             ", each must be at least 1 and their product below 2^63",
                             c->what, i, d, at);
    }
out:
    return rc;
}

static enum err set_type(const struct eng_gguf_cur *c, struct model_tensor *t, int64_t n_values)
{
    int32_t block, bytes;
    t->type = DTYPE_COUNT;
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (dtype_ggml((enum dtype)i) == t->ggml_type) t->type = (enum dtype)i;
    if (!dtype_ggml_layout(t->ggml_type, &block, &bytes)) return OK;
    if (t->dims[0] % block)
        return err_raise(ERR_BAD_FILE,
                         "%s has rows of %" PRId64 " values, type %s needs a multiple of %d",
                         c->what, t->dims[0], dtype_ggml_name(t->ggml_type), block);
    if (__builtin_mul_overflow(n_values / block, (int64_t)bytes, &t->bytes))
        return err_raise(ERR_BAD_FILE, "%s of type %s has %" PRId64 " values: more bytes than 2^63",
                         c->what, dtype_ggml_name(t->ggml_type), n_values);
    return OK;
}

/* Offsets stay relative to the data until its beginning is known. */
static enum err take_tensor(struct eng_gguf_cur *c, struct arena *a, struct model_tensor *t,
                            int64_t alignment)
{
    enum err rc = OK;
    struct model_str name;
    int64_t n_values;
    uint64_t type, offset;
    TRY(eng_gguf_take_name(c, LONGEST_TENSOR_NAME, &name));
    t->name = arena_strndup(a, name.p, name.n);
    snprintf(c->what, sizeof c->what, "tensor '%s'", eng_show(name.p, name.n).s);
    TRY(take_shape(c, t, &n_values));
    TRY(eng_gguf_take_uint(c, 4, &type));
    t->ggml_type = (uint32_t)type;
    TRY(set_type(c, t, n_values));
    TRY(eng_gguf_take_uint(c, 8, &offset));
    if (offset > (uint64_t)c->size)
        return err_raise(ERR_BAD_FILE,
                         "%s begins %" PRIu64 " bytes into the data (value at offset %" PRId64
                         "), but the file ends at %" PRId64
                         ": it is truncated or damaged, fetch it again",
                         c->what, offset, c->at - 8, c->size);
    if (offset % (uint64_t)alignment)
        return err_raise(ERR_BAD_FILE,
                         "%s begins %" PRIu64 " bytes into the data (value at offset %" PRId64
                         "), it must be a multiple of the alignment %" PRId64,
                         c->what, offset, c->at - 8, alignment);
    t->offset = (int64_t)offset;
out:
    return rc;
}

static enum err take_tensors(struct eng_gguf_cur *c, struct arena *a, struct header *h)
{
    enum err rc = OK;
    int64_t alignment;
    TRY(header_int(h, "general.alignment", 32, 1, LARGEST_ALIGNMENT, &alignment));
    if (alignment & (alignment - 1))
        return err_raise(ERR_BAD_FILE,
                         "key 'general.alignment' is %" PRId64 ", it must be a power of two",
                         alignment);
    h->tensors = arena_alloc(a, (size_t)h->n_tensors * sizeof *h->tensors);
    for (int64_t i = 0; i < h->n_tensors; i++) {
        snprintf(c->what, sizeof c->what, "tensor %" PRId64, i);
        TRY(take_tensor(c, a, &h->tensors[i], alignment));
    }
    for (int64_t i = 0; i < h->n_tensors; i++) h->tensors[i].offset += ROUND_UP(c->at, alignment);
out:
    return rc;
}

static enum err check_version(uint32_t v)
{
    if (v == 2 || v == 3) return OK;
    if (v == 2u << 24 || v == 3u << 24)
        return err_raise(ERR_UNSUPPORTED,
                         "a big-endian GGUF file (version field 0x%08x at offset 4); only "
                         "little-endian files are supported",
                         v);
    return err_raise(
        ERR_UNSUPPORTED,
        "GGUF version %u at offset 4; versions 2 and 3 are supported, convert the model "
        "again",
        v);
}

static enum err parse(struct eng_gguf_cur *c, struct arena *a, struct header *h)
{
    enum err rc = OK;
    const void *magic;
    uint64_t version, n_tensors, n_kv;
    snprintf(c->what, sizeof c->what, "the GGUF header");
    TRY(eng_gguf_take(c, 4, &magic));
    if (memcmp(magic, "GGUF", 4)) return err_raise(ERR_BAD_FILE, "does not begin with 'GGUF'");
    TRY(eng_gguf_take_uint(c, 4, &version));
    TRY(check_version((uint32_t)version));
    TRY(eng_gguf_take_uint(c, 8, &n_tensors));
    TRY(eng_gguf_take_uint(c, 8, &n_kv));
    if (n_tensors > MOST_TENSORS || n_kv > MOST_KEYS)
        return err_raise(ERR_BAD_FILE,
                         "claims %" PRIu64 " tensors (value at offset 8) and %" PRIu64
                         " metadata entries "
                         "(value at offset 16); at most %d and %d are accepted",
                         n_tensors, n_kv, MOST_TENSORS, MOST_KEYS);
    *h = (struct header){
        .version = (uint32_t)version, .n_kv = (int64_t)n_kv, .n_tensors = (int64_t)n_tensors};
    TRY(eng_gguf_room_for(c, n_tensors, LEAST_TENSOR, "tensors"));
    TRY(eng_gguf_room_for(c, n_kv, LEAST_KV, "metadata entries"));
    TRY(take_kvs(c, a, h));
    TRY(eng_gguf_room_for(c, n_tensors, LEAST_TENSOR, "tensors"));
    TRY(take_tensors(c, a, h));
out:
    return rc;
}

/* Read and parse the header of a part, and append its tensors to the file's. */
static enum err read_header(struct eng_model_file *f, int32_t part, struct header *h)
{
    struct eng_part *p = &f->parts[part];
    int64_t had = 0, have = MIN(p->bytes, FIRST_WINDOW);
    for (;;) {
        p->header = xrealloc(p->header, (size_t)MAX(have, 1));
        enum err rc = eng_part_read(p, had, have - had, p->header + had);
        if (rc) return rc;
        struct eng_gguf_cur c = {.p = p->header, .have = have, .size = p->bytes};
        rc = parse(&c, &p->arena, h);
        if (!rc) break;
        if (!c.need) return err_prefix(rc, "%s", p->path);
        if (c.need > LARGEST_HEADER)
            return err_raise(ERR_BAD_FILE,
                             "%s: %s reaches to offset %" PRId64
                             ", the largest header accepted has %d bytes",
                             p->path, c.what, c.need, LARGEST_HEADER);
        arena_free(&p->arena);
        had = have;
        have = MIN(p->bytes, MAX(c.need, 4 * have));
    }
    int64_t n = f->n_tensors + h->n_tensors;
    f->tensors = xrealloc(f->tensors, (size_t)MAX(n, 1) * sizeof *f->tensors);
    for (int64_t i = 0; i < h->n_tensors; i++) {
        f->tensors[f->n_tensors + i] = h->tensors[i];
        f->tensors[f->n_tensors + i].part = part;
    }
    f->n_tensors = n;
    return OK;
}

/* STEM-00001-of-00003.gguf: the length of STEM, or -1 if the path does not end like that for this
 * part. */
static int stem_of(const char *path, int64_t no, int64_t count)
{
    char tail[64];
    int n = snprintf(tail, sizeof tail, "-%05" PRId64 "-of-%05" PRId64 ".gguf", no + 1, count);
    size_t len = strlen(path);
    return len > (size_t)n && !strcmp(path + len - (size_t)n, tail) ? (int)(len - (size_t)n) : -1;
}

static enum err read_part(struct eng_model_file *f, int64_t no, int64_t count, int stem)
{
    enum err rc = OK;
    struct header h;
    int64_t part_no, part_count;
    char *path = xasprintf("%.*s-%05" PRId64 "-of-%05" PRId64 ".gguf", stem, f->parts[0].path,
                           no + 1, count);
    TRY(eng_model_file_add_part(f, path));
    TRY(read_header(f, (int32_t)no, &h));
    TRY(header_int(&h, "split.no", -1, -1, MOST_PARTS, &part_no));
    TRY(header_int(&h, "split.count", -1, -1, MOST_PARTS, &part_count));
    if (part_no != no || part_count != count)
        rc = err_raise(ERR_BAD_FILE,
                       "%s: says split.no %" PRId64 " and split.count %" PRId64
                       ", its place in the model "
                       "needs %" PRId64 " and %" PRId64,
                       path, part_no, part_count, no, count);
out:
    free(path);
    return rc ? err_prefix(rc, "part %" PRId64 " of %" PRId64, no + 1, count) : OK;
}

static enum err read_other_parts(struct eng_model_file *f, const struct header *h)
{
    enum err rc = OK;
    int64_t no, count, n_tensors;
    const char *path = f->parts[0].path;
    TRY(header_int(h, "split.count", 0, 0, MOST_PARTS, &count));
    if (count < 2) return OK;
    TRY(header_int(h, "split.no", 0, 0, count - 1, &no));
    TRY(header_int(h, "split.tensors.count", -1, -1, INT64_MAX, &n_tensors));
    int stem = stem_of(path, no, count);
    if (stem < 0)
        return err_raise(ERR_BAD_FILE,
                         "%s: says it is part %" PRId64 " of %" PRId64
                         ", so its name must end in -%05" PRId64 "-of-%05" PRId64
                         ".gguf, or the other parts cannot be found",
                         path, no + 1, count, no + 1, count);
    if (no)
        return err_raise(ERR_BAD_FILE,
                         "%s: is part %" PRId64 " of %" PRId64
                         "; give the first one, %.*s-00001-of-%05" PRId64 ".gguf",
                         path, no + 1, count, stem, path, count);
    for (int64_t i = 1; i < count; i++) TRY(read_part(f, i, count, stem));
    if (n_tensors >= 0 && f->n_tensors != n_tensors)
        return err_raise(ERR_BAD_FILE,
                         "%s: key 'split.tensors.count' is %" PRId64 ", but the %" PRId64
                         " parts have %" PRId64 " tensors",
                         f->parts[0].path, n_tensors, count, f->n_tensors);
out:
    return rc;
}

static enum err gguf_read(struct eng_model_file *f)
{
    struct header h;
    enum err rc = read_header(f, 0, &h);
    if (rc) return rc;
    snprintf(f->version, sizeof f->version, "GGUF v%u", h.version);
    f->kv = h.kv;
    f->n_kv = h.n_kv;
    f->keys = h.keys;
    return read_other_parts(f, &h);
}

static bool gguf_claims(const uint8_t *head, size_t n)
{
    return n >= 4 && !memcmp(head, "GGUF", 4);
}

const struct eng_format eng_format_gguf = {"GGUF", gguf_claims, gguf_read};
