/* imatrix.c: see imatrix.h. */
#include "engine/convert/imatrix.h"

#include "base/base.h"
#include "base/buf.h"
#include "engine/file/gguf_out.h"
#include "engine/file/model_file.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LARGEST_DAT = 1 << 30, MOST_ENTRIES = 1 << 20, LONGEST_NAME = 255 };

static const char SUMS[] = ".in_sum2", COUNTS[] = ".counts";

struct eng_imatrix *eng_imatrix_open(void) { return xcalloc(1, sizeof(struct eng_imatrix)); }

void eng_imatrix_close(struct eng_imatrix *m)
{
    if (!m) return;
    for (int64_t i = 0; i < m->n; i++) {
        free(m->at[i].name);
        free(m->at[i].sums);
        free(m->at[i].counts);
    }
    free(m->at);
    free(m->dataset);
    free(m);
}

const struct eng_imatrix_entry *eng_imatrix_find(const struct eng_imatrix *m, const char *name)
{
    for (int64_t i = 0; i < m->n; i++)
        if (!strcmp(m->at[i].name, name)) return &m->at[i];
    return NULL;
}

static struct eng_imatrix_entry *add(struct eng_imatrix *m, const char *name, int64_t cols, int64_t n_mat)
{
    if (m->n == m->cap) {
        m->cap = MAX(256, 2 * m->cap);
        m->at = xrealloc(m->at, (size_t)m->cap * sizeof *m->at);
    }
    struct eng_imatrix_entry *e = &m->at[m->n++];
    *e = (struct eng_imatrix_entry){.name = xstrdup(name), .cols = cols, .n_mat = n_mat};
    e->sums = xcalloc((size_t)(cols * n_mat), sizeof *e->sums);
    e->counts = xcalloc((size_t)n_mat, sizeof *e->counts);
    return e;
}

struct eng_imatrix_entry *eng_imatrix_entry(struct eng_imatrix *m, const char *name, int64_t cols, int64_t n_mat)
{
    struct eng_imatrix_entry *e = (struct eng_imatrix_entry *)(uintptr_t)eng_imatrix_find(m, name);
    return e ? e : add(m, name, cols, n_mat);
}

bool eng_imatrix_means(const struct eng_imatrix_entry *e, int64_t i, float *out)
{
    if (!(e->counts[i] > 0)) return false;
    for (int64_t k = 0; k < e->cols; k++) out[k] = e->sums[i * e->cols + k] / e->counts[i];
    return true;
}

static enum err check_numbers(const char *path, const struct eng_imatrix_entry *e)
{
    for (int64_t i = 0; i < e->cols * e->n_mat; i++)
        if (!(e->sums[i] >= 0 && isfinite(e->sums[i])))
            return err_raise(ERR_BAD_FILE, "%s: the importance of %s, column %lld, is %g: it must be a number, 0 or more", path, e->name,
                             (long long)(i % e->cols), (double)e->sums[i]);
    for (int64_t i = 0; i < e->n_mat; i++)
        if (!(e->counts[i] >= 0 && isfinite(e->counts[i]))) return err_raise(ERR_BAD_FILE, "%s: the count of %s is %g", path, e->name, (double)e->counts[i]);
    return OK;
}

/* ---- GGUF ---- */

static enum err read_floats(const struct eng_model_file *f, const struct model_tensor *t, float *out)
{
    if (t->type != DTYPE_F32)
        return err_raise(ERR_BAD_FILE, "%s: tensor %s is of type %s, it must be F32", eng_model_file_path(f), t->name, dtype_ggml_name(t->ggml_type));
    return eng_model_file_read(f, t, 0, t->bytes, out);
}

static enum err read_gguf(struct eng_imatrix *m, const struct eng_model_file *f)
{
    enum err rc = OK;
    const char *path = eng_model_file_path(f);
    for (int64_t i = 0; i < eng_model_file_n_tensors(f); i++) {
        const struct model_tensor *t = eng_model_file_tensor(f, i);
        size_t n = strlen(t->name), k = sizeof SUMS - 1;
        char name[LONGEST_NAME + 16];
        if (n <= k || n > LONGEST_NAME || strcmp(t->name + n - k, SUMS)) continue;
        snprintf(name, sizeof name, "%.*s%s", (int)(n - k), t->name, COUNTS);
        const struct model_tensor *c = eng_model_file_tensor_find(f, name);
        name[n - k] = 0;
        if (!c || c->dims[0] * c->dims[1] * c->dims[2] * c->dims[3] != t->dims[1] || t->dims[2] != 1 || t->dims[3] != 1)
            return err_raise(ERR_BAD_FILE, "%s: %s%s has no %s of its matrices beside it", path, name, SUMS, COUNTS);
        struct eng_imatrix_entry *e = add(m, name, t->dims[0], t->dims[1]);
        TRY(read_floats(f, t, e->sums));
        TRY(read_floats(f, c, e->counts));
        TRY(check_numbers(path, e));
    }
    int64_t chunks, size;
    TRY(eng_model_file_int(f, "imatrix.chunk_count", 0, 0, INT32_MAX, &chunks));
    TRY(eng_model_file_int(f, "imatrix.chunk_size", 0, 0, INT32_MAX, &size));
    m->chunks = (int32_t)chunks;
    m->chunk_size = (int32_t)size;
    if (!m->n) rc = err_raise(ERR_BAD_FILE, "%s: a GGUF file without any NAME%s: no importance matrix", path, SUMS);
out:
    return rc;
}

static enum err write_gguf(const struct eng_imatrix *m, const char *path)
{
    enum err rc;
    struct eng_gguf_out *w = eng_gguf_out_open();
    struct model_str set = {m->dataset ? m->dataset : "", m->dataset ? strlen(m->dataset) : 0};
    eng_gguf_out_str(w, "general.type", "imatrix", 7);
    eng_gguf_out_strs(w, "imatrix.datasets", &set, 1);
    eng_gguf_out_u32(w, "imatrix.chunk_count", (uint32_t)m->chunks);
    eng_gguf_out_u32(w, "imatrix.chunk_size", (uint32_t)m->chunk_size);
    for (int64_t i = 0; i < m->n; i++) {
        const struct eng_imatrix_entry *e = &m->at[i];
        char *sums = xasprintf("%s%s", e->name, SUMS), *counts = xasprintf("%s%s", e->name, COUNTS);
        eng_gguf_out_tensor(w, sums, DTYPE_F32, 2, (const int64_t[]){e->cols, e->n_mat});
        eng_gguf_out_tensor(w, counts, DTYPE_F32, 2, (const int64_t[]){1, e->n_mat});
        free(sums);
        free(counts);
    }
    TRY(eng_gguf_out_begin(w, path));
    for (int64_t i = 0; i < m->n; i++) {
        const struct eng_imatrix_entry *e = &m->at[i];
        TRY(eng_gguf_out_put(w, e->sums, e->cols * e->n_mat * (int64_t)sizeof(float)));
        TRY(eng_gguf_out_put(w, e->counts, e->n_mat * (int64_t)sizeof(float)));
    }
    TRY(eng_gguf_out_finish(w));
out:
    eng_gguf_out_close(w);
    return rc;
}

/* ---- .dat: i32 entries; each i32 length, name, i32 calls, i32 values, f32 values: means times calls; then i32 calls in all,
 * i32 length and the text's name. All of an expert tensor's matrices are one entry. ---- */

struct cursor {
    const char *path;
    const uint8_t *p;
    size_t at, n;
};

static enum err take(struct cursor *c, size_t n, const uint8_t **p)
{
    if (n > c->n - c->at)
        return err_raise(ERR_BAD_FILE, "%s: an importance matrix (.dat) that ends at byte %zu, where %zu more are needed", c->path, c->n, n - (c->n - c->at));
    *p = c->p + c->at;
    c->at += n;
    return OK;
}

static enum err take_i32(struct cursor *c, int64_t least, int64_t most, const char *what, int32_t *out)
{
    const uint8_t *p;
    enum err rc = take(c, 4, &p);
    if (rc) return rc;
    memcpy(out, p, 4);
    if (*out < least || *out > most)
        return err_raise(ERR_BAD_FILE, "%s: neither a GGUF nor a .dat importance matrix: %s at byte %zu is %d, it must be between %lld and %lld", c->path, what,
                         c->at - 4, *out, (long long)least, (long long)most);
    return OK;
}

static enum err take_entry(struct eng_imatrix *m, struct cursor *c)
{
    enum err rc;
    int32_t len, calls, values;
    const uint8_t *name, *v;
    char text[LONGEST_NAME + 1];
    TRY(take_i32(c, 1, LONGEST_NAME, "a name's length", &len));
    TRY(take(c, (size_t)len, &name));
    TRY(take_i32(c, 0, INT32_MAX, "a number of calls", &calls));
    TRY(take_i32(c, 1, LARGEST_DAT / 4, "a number of values", &values));
    TRY(take(c, (size_t)values * 4, &v));
    memcpy(text, name, (size_t)len);
    text[len] = 0;
    struct eng_imatrix_entry *e = add(m, text, values, 1);
    memcpy(e->sums, v, (size_t)values * 4);
    e->counts[0] = (float)calls;
    TRY(check_numbers(c->path, e));
out:
    return rc;
}

static enum err read_dat(struct eng_imatrix *m, const char *path, const struct buf *b)
{
    enum err rc;
    struct cursor c = {path, b->data, 0, b->len};
    int32_t n;
    TRY(take_i32(&c, 1, MOST_ENTRIES, "the number of entries", &n));
    for (int32_t i = 0; i < n; i++) TRY(take_entry(m, &c));
    if (c.n - c.at >= 4) TRY(take_i32(&c, 0, INT32_MAX, "the number of chunks", &m->chunks));
out:
    return rc;
}

static void put_i32(struct buf *b, int64_t v)
{
    int32_t x = (int32_t)v;
    buf_put(b, &x, sizeof x);
}

static enum err write_dat(const struct eng_imatrix *m, const char *path)
{
    struct buf b = {0};
    enum err rc = OK;
    const char *set = m->dataset ? m->dataset : "";
    put_i32(&b, m->n);
    for (int64_t i = 0; i < m->n; i++) {
        const struct eng_imatrix_entry *e = &m->at[i];
        int32_t calls = MAX(m->chunks, 1);
        put_i32(&b, (int64_t)strlen(e->name));
        buf_put(&b, e->name, strlen(e->name));
        put_i32(&b, calls);
        put_i32(&b, e->cols * e->n_mat);
        for (int64_t k = 0; k < e->cols * e->n_mat; k++) { /* an expert that was never chosen: all columns alike */
            float count = e->counts[k / e->cols], v = count > 0 ? e->sums[k] / count * (float)calls : (float)calls;
            buf_put(&b, &v, sizeof v);
        }
    }
    put_i32(&b, m->chunks);
    put_i32(&b, (int64_t)strlen(set));
    buf_put(&b, set, strlen(set));
    char *tmp = xasprintf("%s.%ld.part", path, (long)getpid());
    FILE *f = fopen(tmp, "wbx");
    if (!f) rc = err_raise(ERR_IO, "cannot create %s: %s", tmp, strerror(errno));
    else if ((fwrite(b.data, 1, b.len, f) != b.len) | fflush(f) | fsync(fileno(f)) | fclose(f))
        rc = err_raise(ERR_IO, "%s: cannot write: %s", tmp, strerror(errno));
    else if (rename(tmp, path)) rc = err_raise(ERR_IO, "cannot rename %s to %s: %s", tmp, path, strerror(errno));
    if (rc && f) (void)unlink(tmp);
    free(tmp);
    buf_free(&b);
    return rc;
}

/* ---- either ---- */

static enum err read_file(const char *path, struct buf *out)
{
    FILE *f = fopen(path, "rb");
    char piece[65536];
    if (!f) return err_raise(ERR_IO, "cannot read %s: %s", path, strerror(errno));
    for (size_t n; out->len <= LARGEST_DAT && (n = fread(piece, 1, sizeof piece, f)) > 0;) buf_put(out, piece, n);
    enum err rc = ferror(f) ? err_raise(ERR_IO, "cannot read %s: %s", path, strerror(errno)) : OK;
    fclose(f);
    return !rc && out->len > LARGEST_DAT ? err_raise(ERR_BAD_FILE, "%s has more than %d bytes", path, LARGEST_DAT) : rc;
}

enum err eng_imatrix_read(struct eng_imatrix **out, const char *path)
{
    enum err rc;
    struct eng_model_file *f = NULL;
    struct eng_imatrix *m = eng_imatrix_open();
    struct buf b = {0};
    FILE *head = fopen(path, "rb");
    char magic[4] = {0};
    size_t n = head ? fread(magic, 1, 4, head) : 0;
    if (head) fclose(head);
    if (n == 4 && !memcmp(magic, "GGUF", 4)) {
        TRY(eng_model_file_open(&f, path));
        TRY(read_gguf(m, f));
    } else {
        TRY(read_file(path, &b));
        TRY(read_dat(m, path, &b));
    }
    *out = m, m = NULL;
out:
    eng_model_file_close(f);
    eng_imatrix_close(m);
    buf_free(&b);
    return rc;
}

enum err eng_imatrix_write(const struct eng_imatrix *m, const char *path)
{
    size_t n = strlen(path);
    return n > 4 && !strcmp(path + n - 4, ".dat") ? write_dat(m, path) : write_gguf(m, path);
}
