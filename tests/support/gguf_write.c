/* gguf_write.c: keys are encoded when put; tensors are remembered and streamed, a few megabytes at
 * a time. */
#include "tests/support/gguf_write.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 4 << 20 };

struct tensor {
    int64_t row_bytes, n_rows, bytes;
    const void *data;
    gguf_fill *fill;
    void *ctx;
};

struct gguf_write {
    uint32_t version, alignment;
    uint64_t n_kv, n_tensors;
    struct buf kv, infos;
    struct tensor *tensors;
    uint64_t data_bytes; /* so far, padded */
};

struct gguf_write *gguf_write_open(void)
{
    struct gguf_write *w = xcalloc(1, sizeof *w);
    w->version = 3;
    w->alignment = 32;
    return w;
}

void gguf_write_close(struct gguf_write *w)
{
    if (!w) return;
    buf_free(&w->kv);
    buf_free(&w->infos);
    free(w->tensors);
    free(w);
}

void gguf_write_version(struct gguf_write *w, uint32_t version) { w->version = version; }

void gguf_write_alignment(struct gguf_write *w, uint32_t alignment)
{
    w->alignment = alignment;
    gguf_write_u32(w, "general.alignment", alignment);
}

static void put_str(struct buf *b, const char *s, uint64_t n)
{
    buf_u64(b, n);
    buf_put(b, s, n);
}

static struct buf *begin(struct gguf_write *w, const char *key, uint32_t type)
{
    put_str(&w->kv, key, strlen(key));
    buf_u32(&w->kv, type);
    w->n_kv++;
    return &w->kv;
}

static struct buf *begin_array(struct gguf_write *w, const char *key, uint32_t type, uint64_t n)
{
    struct buf *b = begin(w, key, GGUF_ARRAY);
    buf_u32(b, type);
    buf_u64(b, n);
    return b;
}

static void put_int(struct buf *b, enum gguf_type type, int64_t v)
{
    switch (type) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_BOOL: buf_u8(b, (uint8_t)v); break;
    case GGUF_U16:
    case GGUF_I16: buf_u16(b, (uint16_t)v); break;
    case GGUF_U32:
    case GGUF_I32: buf_u32(b, (uint32_t)v); break;
    case GGUF_U64:
    case GGUF_I64: buf_u64(b, (uint64_t)v); break;
    default: ASSERT(!"not an integer type");
    }
}

void gguf_write_int(struct gguf_write *w, const char *key, enum gguf_type type, int64_t v)
{
    put_int(begin(w, key, type), type, v);
}

void gguf_write_u32(struct gguf_write *w, const char *key, uint32_t v)
{
    gguf_write_int(w, key, GGUF_U32, v);
}
void gguf_write_bool(struct gguf_write *w, const char *key, bool v)
{
    gguf_write_int(w, key, GGUF_BOOL, v);
}
void gguf_write_f32(struct gguf_write *w, const char *key, float v)
{
    buf_f32(begin(w, key, GGUF_F32), v);
}

void gguf_write_f64(struct gguf_write *w, const char *key, double v)
{
    uint64_t u;
    memcpy(&u, &v, sizeof u);
    buf_u64(begin(w, key, GGUF_F64), u);
}

void gguf_write_str(struct gguf_write *w, const char *key, const char *s)
{
    put_str(begin(w, key, GGUF_STRING), s, strlen(s));
}

void gguf_write_ints(struct gguf_write *w, const char *key, enum gguf_type type, const int32_t *v,
                     uint64_t n)
{
    struct buf *b = begin_array(w, key, type, n);
    for (uint64_t i = 0; i < n; i++) put_int(b, type, v[i]);
}

void gguf_write_f32s(struct gguf_write *w, const char *key, const float *v, uint64_t n)
{
    struct buf *b = begin_array(w, key, GGUF_F32, n);
    for (uint64_t i = 0; i < n; i++) buf_f32(b, v[i]);
}

void gguf_write_strs(struct gguf_write *w, const char *key, const struct model_str *v, uint64_t n)
{
    struct buf *b = begin_array(w, key, GGUF_STRING, n);
    for (uint64_t i = 0; i < n; i++) put_str(b, v[i].p, v[i].n);
}

void gguf_write_raw(struct gguf_write *w, const char *key, uint32_t type, const void *value,
                    size_t n)
{
    buf_put(begin(w, key, type), value, n);
}

static void add_tensor(struct gguf_write *w, const struct tensor *t)
{
    w->tensors = xrealloc(w->tensors, (w->n_tensors + 1) * sizeof *w->tensors);
    w->tensors[w->n_tensors++] = *t;
    w->data_bytes += ROUND_UP((uint64_t)t->bytes, w->alignment);
}

static void put_info(struct gguf_write *w, const char *name, uint32_t type, int32_t n_dims,
                     const int64_t dims[], uint64_t offset)
{
    put_str(&w->infos, name, strlen(name));
    buf_u32(&w->infos, (uint32_t)n_dims);
    for (int32_t i = 0; i < n_dims; i++) buf_u64(&w->infos, (uint64_t)dims[i]);
    buf_u32(&w->infos, type);
    buf_u64(&w->infos, offset);
}

static void put_tensor(struct gguf_write *w, const char *name, enum dtype type, int32_t n_dims,
                       const int64_t dims[], struct tensor t)
{
    t.row_bytes = dtype_bytes(type, n_dims ? dims[0] : 1);
    t.n_rows = 1;
    for (int32_t i = 1; i < n_dims; i++) t.n_rows *= dims[i];
    t.bytes = t.row_bytes * t.n_rows;
    put_info(w, name, dtype_ggml(type), n_dims, dims, w->data_bytes);
    add_tensor(w, &t);
}

void gguf_write_tensor(struct gguf_write *w, const char *name, enum dtype t, int32_t n_dims,
                       const int64_t dims[], const void *data)
{
    put_tensor(w, name, t, n_dims, dims, (struct tensor){.data = data});
}

void gguf_write_tensor_by(struct gguf_write *w, const char *name, enum dtype t, int32_t n_dims,
                          const int64_t dims[], gguf_fill *fill, void *ctx)
{
    put_tensor(w, name, t, n_dims, dims, (struct tensor){.fill = fill, .ctx = ctx});
}

void gguf_write_tensor_entry(struct gguf_write *w, const char *name, uint32_t ggml_type,
                             int32_t n_dims, const int64_t dims[], uint64_t offset)
{
    put_info(w, name, ggml_type, n_dims, dims, offset);
    add_tensor(w, &(struct tensor){0});
}

/* Where bytes go: a file or a buffer. */
struct sink {
    FILE *file;
    struct buf *buf;
    uint64_t at;
    bool bad;
};

static void emit(struct sink *s, const void *p, size_t n)
{
    if (s->buf) buf_put(s->buf, p, n);
    else if (n && fwrite(p, 1, n, s->file) != n) s->bad = true;
    s->at += n;
}

static void emit_padding(struct sink *s, uint32_t alignment)
{
    static const uint8_t zeros[256];
    for (uint64_t n = ROUND_UP(s->at, alignment) - s->at; n > 0;) {
        size_t part = MIN(n, sizeof zeros);
        emit(s, zeros, part);
        n -= part;
    }
}

static void emit_tensor(struct sink *s, const struct tensor *t)
{
    if (t->data) {
        emit(s, t->data, (size_t)t->bytes);
        return;
    }
    if (!t->fill) return;
    int64_t per = CLAMP(CHUNK_BYTES / t->row_bytes, 1, t->n_rows);
    uint8_t *rows = xmalloc((size_t)(per * t->row_bytes));
    for (int64_t r = 0; r < t->n_rows && !s->bad; r += per) {
        int64_t n = MIN(per, t->n_rows - r);
        t->fill(t->ctx, r, n, rows);
        emit(s, rows, (size_t)(n * t->row_bytes));
    }
    free(rows);
}

static void emit_file(const struct gguf_write *w, struct sink *s)
{
    struct buf head = {0};
    buf_puts(&head, "GGUF");
    buf_u32(&head, w->version);
    buf_u64(&head, w->n_tensors);
    buf_u64(&head, w->n_kv);
    emit(s, head.data, head.len);
    emit(s, w->kv.data, w->kv.len);
    emit(s, w->infos.data, w->infos.len);
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        emit_padding(s, w->alignment);
        emit_tensor(s, &w->tensors[i]);
    }
    if (w->n_tensors) emit_padding(s, w->alignment);
    buf_free(&head);
}

enum err gguf_write_save(const struct gguf_write *w, const char *path)
{
    struct sink s = {.file = fopen(path, "wb")};
    if (!s.file) return err_raise(ERR_IO, "%s: cannot create: %s", path, strerror(errno));
    emit_file(w, &s);
    int failed = s.bad ? errno : 0;
    if (fclose(s.file) && !failed) failed = errno;
    if (!failed && !s.bad) return OK;
    remove(path);
    return err_raise(ERR_IO, "%s: writing failed after %llu bytes: %s", path,
                     (unsigned long long)s.at, strerror(failed));
}

void gguf_write_bytes(const struct gguf_write *w, struct buf *out)
{
    struct sink s = {.buf = out};
    emit_file(w, &s);
}
