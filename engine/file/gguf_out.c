/* gguf_out.c: see gguf_out.h. */
#include "engine/file/gguf_out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { ALIGNMENT = 32, T_U32 = 4, T_I32, T_F32, T_BOOL, T_STRING, T_ARRAY, T_I64 = 11 };

struct tensor {
    int64_t bytes, offset; /* from the data's begin */
};

struct eng_gguf_out {
    struct buf keys, entries;
    uint64_t n_keys;
    struct tensor *tensors; /* Own */
    int64_t n_tensors, cap, data; /* data: bytes of all tensors with what lies between them */
    char *path, *tmp; /* Own */
    int fd;
    int64_t at, left; /* the tensor that is being written, what it still lacks */
};

struct eng_gguf_out *eng_gguf_out_open(void)
{
    struct eng_gguf_out *w = xcalloc(1, sizeof *w);
    w->fd = -1;
    return w;
}

void eng_gguf_out_close(struct eng_gguf_out *w)
{
    if (!w) return;
    if (w->fd >= 0) close(w->fd);
    if (w->tmp) (void)unlink(w->tmp);
    buf_free(&w->keys);
    buf_free(&w->entries);
    free(w->tensors);
    free(w->path);
    free(w->tmp);
    free(w);
}

/* ---- keys ---- */

static void put_uint(struct buf *b, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++) buf_u8(b, (uint8_t)(v >> (8 * i)));
}
static void put_str(struct buf *b, const char *s, size_t n)
{
    put_uint(b, n, 8);
    buf_put(b, s, n);
}
static void put_float(struct buf *b, float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    put_uint(b, u, 4);
}

static struct buf *begin(struct eng_gguf_out *w, const char *key, size_t n, uint32_t type)
{
    put_str(&w->keys, key, n);
    put_uint(&w->keys, type, 4);
    w->n_keys++;
    return &w->keys;
}
static struct buf *begin_array(struct eng_gguf_out *w, const char *key, size_t len, uint32_t type, uint64_t n)
{
    struct buf *b = begin(w, key, len, T_ARRAY);
    put_uint(b, type, 4);
    put_uint(b, n, 8);
    return b;
}

void eng_gguf_out_u32(struct eng_gguf_out *w, const char *key, uint32_t v) { put_uint(begin(w, key, strlen(key), T_U32), v, 4); }
void eng_gguf_out_f32(struct eng_gguf_out *w, const char *key, float v) { put_float(begin(w, key, strlen(key), T_F32), v); }
void eng_gguf_out_bool(struct eng_gguf_out *w, const char *key, bool v) { put_uint(begin(w, key, strlen(key), T_BOOL), v, 1); }
void eng_gguf_out_str(struct eng_gguf_out *w, const char *key, const char *s, size_t n) { put_str(begin(w, key, strlen(key), T_STRING), s, n); }

void eng_gguf_out_strs(struct eng_gguf_out *w, const char *key, const struct model_str *s, uint64_t n)
{
    struct buf *b = begin_array(w, key, strlen(key), T_STRING, n);
    for (uint64_t i = 0; i < n; i++) put_str(b, s[i].p, s[i].n);
}
void eng_gguf_out_f32s(struct eng_gguf_out *w, const char *key, const float *v, uint64_t n)
{
    struct buf *b = begin_array(w, key, strlen(key), T_F32, n);
    for (uint64_t i = 0; i < n; i++) put_float(b, v[i]);
}
void eng_gguf_out_i32s(struct eng_gguf_out *w, const char *key, const int32_t *v, uint64_t n)
{
    struct buf *b = begin_array(w, key, strlen(key), T_I32, n);
    for (uint64_t i = 0; i < n; i++) put_uint(b, (uint32_t)v[i], 4);
}

static void copy_array(struct eng_gguf_out *w, const struct model_kv *kv)
{
    uint64_t n = kv->a.n;
    uint32_t type = kv->a.kind == KV_STRING ? T_STRING : kv->a.kind == KV_FLOAT ? T_F32 : kv->a.kind == KV_BOOL ? T_BOOL : T_I32;
    struct buf *b = begin_array(w, kv->key.p, kv->key.n, type, n);
    for (uint64_t i = 0; i < n; i++) {
        struct model_str s;
        switch (kv->a.kind) {
        case KV_STRING:
            s = eng_model_file_array_str(kv, i);
            put_str(b, s.p, s.n);
            break;
        case KV_FLOAT: put_float(b, (float)eng_model_file_array_float(kv, i)); break;
        case KV_BOOL: put_uint(b, (uint64_t)eng_model_file_array_int(kv, i), 1); break;
        default: put_uint(b, (uint64_t)eng_model_file_array_int(kv, i), 4);
        }
    }
}

void eng_gguf_out_kv(struct eng_gguf_out *w, const struct model_kv *kv)
{
    if (kv->raw) { /* type and value */
        put_str(&w->keys, kv->key.p, kv->key.n);
        buf_put(&w->keys, kv->raw, kv->raw_n);
        w->n_keys++;
        return;
    }
    switch (kv->kind) {
    case KV_INT:
        if (kv->i >= 0 && kv->i <= UINT32_MAX) put_uint(begin(w, kv->key.p, kv->key.n, T_U32), (uint64_t)kv->i, 4);
        else put_uint(begin(w, kv->key.p, kv->key.n, T_I64), (uint64_t)kv->i, 8);
        break;
    case KV_FLOAT: put_float(begin(w, kv->key.p, kv->key.n, T_F32), (float)kv->f); break;
    case KV_BOOL: put_uint(begin(w, kv->key.p, kv->key.n, T_BOOL), kv->b, 1); break;
    case KV_STRING: put_str(begin(w, kv->key.p, kv->key.n, T_STRING), kv->s.p, kv->s.n); break;
    case KV_ARRAY: copy_array(w, kv); break;
    }
}

/* ---- tensors ---- */

void eng_gguf_out_tensor(struct eng_gguf_out *w, const char *name, enum dtype t, int32_t n_dims, const int64_t dims[])
{
    int64_t n = 1;
    struct buf *b = &w->entries;
    put_str(b, name, strlen(name));
    put_uint(b, (uint64_t)n_dims, 4);
    for (int32_t i = 0; i < n_dims; i++) {
        put_uint(b, (uint64_t)dims[i], 8);
        n *= dims[i];
    }
    put_uint(b, dtype_ggml(t), 4);
    put_uint(b, (uint64_t)w->data, 8);
    if (w->n_tensors == w->cap) {
        w->cap = MAX(256, 2 * w->cap);
        w->tensors = xrealloc(w->tensors, (size_t)w->cap * sizeof *w->tensors);
    }
    w->tensors[w->n_tensors++] = (struct tensor){dtype_bytes(t, n), w->data};
    w->data += ROUND_UP(dtype_bytes(t, n), ALIGNMENT);
}

static int64_t head_bytes(const struct eng_gguf_out *w)
{
    return (int64_t)(4 + 4 + 8 + 8 + w->keys.len + w->entries.len);
}

int64_t eng_gguf_out_bytes(const struct eng_gguf_out *w) { return ROUND_UP(head_bytes(w), ALIGNMENT) + w->data; }

static enum err write_all(struct eng_gguf_out *w, const void *p, int64_t n)
{
    for (const uint8_t *s = p; n > 0;) {
        ssize_t k = write(w->fd, s, (size_t)MIN(n, 1 << 30));
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return err_raise(ERR_IO, "%s: cannot write: %s", w->tmp, strerror(errno));
        s += k;
        n -= k;
    }
    return OK;
}

static enum err pad(struct eng_gguf_out *w, int64_t n)
{
    static const uint8_t zeros[ALIGNMENT];
    return write_all(w, zeros, ROUND_UP(n, ALIGNMENT) - n);
}

static enum err check_room(const struct eng_gguf_out *w)
{
    struct statvfs s;
    if (fstatvfs(w->fd, &s)) return OK; /* then writing says it */
    double there = (double)s.f_bavail * (double)s.f_frsize, needed = (double)eng_gguf_out_bytes(w);
    return needed <= there ? OK : err_raise(ERR_IO, "%s needs %.1f MB, and its file system has %.1f MB left", w->path, needed / 1e6, there / 1e6);
}

enum err eng_gguf_out_begin(struct eng_gguf_out *w, const char *path)
{
    enum err rc;
    struct buf head = {0};
    w->path = xstrdup(path);
    char *tmp = xasprintf("%s.%ld.part", path, (long)getpid());
    w->fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (w->fd < 0) {
        rc = err_raise(ERR_IO, "cannot create %s: %s", tmp, strerror(errno));
        free(tmp);
        return rc;
    }
    w->tmp = tmp;
    TRY(check_room(w));
    buf_put(&head, "GGUF", 4);
    put_uint(&head, 3, 4);
    put_uint(&head, (uint64_t)w->n_tensors, 8);
    put_uint(&head, w->n_keys, 8);
    buf_put(&head, w->keys.data, w->keys.len);
    buf_put(&head, w->entries.data, w->entries.len);
    TRY(write_all(w, head.data, (int64_t)head.len));
    TRY(pad(w, (int64_t)head.len));
    w->left = w->n_tensors ? w->tensors[0].bytes : 0;
out:
    buf_free(&head);
    return rc;
}

enum err eng_gguf_out_put(struct eng_gguf_out *w, const void *p, int64_t n)
{
    enum err rc = OK;
    for (const uint8_t *s = p; n > 0;) {
        ASSERT(w->at < w->n_tensors);
        int64_t k = MIN(n, w->left);
        TRY(write_all(w, s, k));
        s += k;
        n -= k;
        w->left -= k;
        if (w->left) continue;
        TRY(pad(w, w->tensors[w->at].bytes));
        w->at++;
        w->left = w->at < w->n_tensors ? w->tensors[w->at].bytes : 0;
    }
out:
    return rc;
}

/* The name is durable once its directory is. */
static void sync_dir(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash ? xstrndup(path, (size_t)MAX(slash - path, 1)) : xstrdup(".");
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    free(dir);
}

enum err eng_gguf_out_finish(struct eng_gguf_out *w)
{
    ASSERT(w->at == w->n_tensors);
    int fd = w->fd;
    w->fd = -1;
    if (fsync(fd) | close(fd)) return err_raise(ERR_IO, "%s: cannot write: %s", w->tmp, strerror(errno));
    if (rename(w->tmp, w->path)) return err_raise(ERR_IO, "cannot rename %s to %s: %s", w->tmp, w->path, strerror(errno));
    free(w->tmp);
    w->tmp = NULL;
    sync_dir(w->path);
    return OK;
}
