/* model_file.c: opening, look-ups and reading, for every format.
 *
 * I1  after a successful open every tensor lies inside its part, and no two of known size share a
 *     byte.
 * I2  nothing is written after open but the bands of derived tensors, behind their lock, so any thread may look up and read. */
#include "engine/file/model_file.h"

#include "engine/file/derived.h"
#include "engine/file/derived_heads.h"
#include "engine/file/format.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct eng_format *const formats[] = {&eng_format_gguf, &eng_format_hf};

struct eng_shown eng_show(const char *p, uint64_t n)
{
    struct eng_shown out;
    size_t len = (size_t)MIN(n, sizeof out.s - 1);
    for (size_t i = 0; i < len; i++) out.s[i] = p[i] > ' ' && p[i] < 0x7f ? p[i] : '?';
    out.s[len] = 0;
    if (len < n) memcpy(out.s + len - 3, "...", 3);
    return out;
}

enum err eng_part_read(const struct eng_part *p, int64_t offset, int64_t n, void *dst)
{
    for (uint8_t *d = dst; n > 0;) {
        ssize_t got = pread(p->fd, d, (size_t)MIN(n, 1 << 30), offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return err_raise(ERR_IO, "%s: reading %" PRId64 " bytes at offset %" PRId64 ": %s",
                             p->path, n, offset, strerror(errno));
        if (got == 0)
            return err_raise(ERR_IO,
                             "%s: the file ends at offset %" PRId64 ", it had %" PRId64
                             " bytes when it was "
                             "opened: somebody is writing to it",
                             p->path, offset, p->bytes);
        d += got;
        offset += got;
        n -= got;
    }
    return OK;
}

void eng_part_ahead(const struct eng_part *p, int64_t offset, int64_t n) { (void)posix_fadvise(p->fd, offset, n, POSIX_FADV_WILLNEED); }

enum err eng_model_file_add_part(struct eng_model_file *f, const char *path)
{
    struct stat st;
    /* O_NONBLOCK: a FIFO must be refused, not waited for */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_raise(ERR_IO, "%s: cannot open the model file: %s", path, strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_raise(ERR_IO,
                         "%s: not a regular file; give the path of a .gguf file, or of a directory "
                         "with config.json and model.safetensors",
                         path);
    }
    f->parts = xrealloc(f->parts, (size_t)(f->n_parts + 1) * sizeof *f->parts);
    f->parts[f->n_parts++] =
        (struct eng_part){.fd = fd, .bytes = st.st_size, .path = xstrdup(path)};
    return OK;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end);
}

/* Files of other programs, by their names: they have no common beginning. */
static enum err check_foreign(const char *path)
{
    if (ends_with(path, ".onnx"))
        return err_raise(ERR_UNSUPPORTED, "%s: an ONNX model; give the directory of the checkpoint that it was made of", path);
    if (ends_with(path, ".bin") || ends_with(path, ".pt") || ends_with(path, ".pth"))
        return err_raise(ERR_UNSUPPORTED, "%s: weights as a pickle can run code; save the model as safetensors and give its directory", path);
    return OK;
}

static enum err pick_format(struct eng_model_file *f)
{
    struct stat st;
    if (!stat(f->path, &st) && S_ISDIR(st.st_mode)) {
        f->format = &eng_format_hf;
        return OK;
    }
    enum err rc = eng_model_file_add_part(f, f->path);
    if (rc) return rc;
    uint8_t head[16] = {0};
    struct eng_part *p = &f->parts[0];
    int64_t n = MIN(p->bytes, (int64_t)sizeof head);
    rc = eng_part_read(p, 0, n, head);
    if (rc) return rc;
    for (size_t i = 0; i < COUNT_OF(formats) && !f->format; i++)
        if (formats[i]->claims && formats[i]->claims(head, (size_t)n)) f->format = formats[i];
    if (f->format) return OK;
    rc = check_foreign(f->path);
    if (rc) return rc;
    if (n > 9 && head[8] == '{')
        return err_raise(ERR_UNSUPPORTED,
                         "%s: a safetensors file alone does not say what model it is; give its "
                         "directory, which has config.json",
                         p->path);
    if (n < 4)
        return err_raise(ERR_BAD_FILE,
                         "%s: only %" PRId64
                         " bytes long; a GGUF file begins with 'GGUF' and has at "
                         "least 24",
                         p->path, p->bytes);
    return err_raise(ERR_UNSUPPORTED,
                     "%s: not a model file: it begins with bytes %02x %02x %02x %02x at offset 0; "
                     "supported: GGUF v2 and v3 ('GGUF', 47 47 55 46), and the directory of a "
                     "safetensors checkpoint",
                     p->path, head[0], head[1], head[2], head[3]);
}

static enum err check_names(struct eng_model_file *f)
{
    eng_name_table_open(&f->tensor_names, &f->arena, f->n_tensors);
    for (int64_t i = 0; i < f->n_tensors; i++) {
        const char *name = f->tensors[i].name;
        int64_t first = eng_name_table_put(&f->tensor_names, name, strlen(name), i);
        if (first >= 0)
            return err_raise(ERR_BAD_FILE,
                             "%s: tensor '%s' is there twice (tensors %" PRId64 " and %" PRId64 ")",
                             f->parts[f->tensors[i].part].path, eng_show(name, strlen(name)).s,
                             first, i);
    }
    return OK;
}

static int by_place(const void *pa, const void *pb)
{
    const struct model_tensor *a = *(const struct model_tensor *const *)pa;
    const struct model_tensor *b = *(const struct model_tensor *const *)pb;
    if (a->part != b->part) return a->part < b->part ? -1 : 1;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    return (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

static enum err check_places(const struct eng_model_file *f)
{
    enum err rc = OK;
    /* derived tensors lie nowhere; the raw ones, which stand in for them, include those that are not */
    int64_t n = f->raw ? f->n_raw : f->n_tensors;
    const struct model_tensor *of = f->raw ? f->raw : f->tensors, **at = xmalloc(((size_t)n + 1) * sizeof *at);
    for (int64_t i = 0; i < n; i++) at[i] = &of[i];
    qsort(at, (size_t)n, sizeof *at, by_place);
    for (int64_t i = 0; i < n && !rc; i++) {
        const struct model_tensor *t = at[i];
        const struct eng_part *p = &f->parts[t->part];
        if (t->offset > p->bytes || t->bytes > p->bytes - t->offset)
            rc = err_raise(
                ERR_BAD_FILE,
                "%s: tensor '%s' needs %" PRId64 " bytes at offset %" PRId64 ", but the file "
                "ends at %" PRId64 ": it is truncated, fetch it again",
                p->path, eng_show(t->name, strlen(t->name)).s, t->bytes, t->offset, p->bytes);
        else if (i && at[i - 1]->part == t->part &&
                 t->offset - at[i - 1]->offset < at[i - 1]->bytes)
            rc = err_raise(ERR_BAD_FILE,
                           "%s: tensor '%s' at offset %" PRId64 " overlaps tensor '%s', %" PRId64
                           " bytes at offset %" PRId64,
                           p->path, eng_show(t->name, strlen(t->name)).s, t->offset,
                           eng_show(at[i - 1]->name, strlen(at[i - 1]->name)).s, at[i - 1]->bytes,
                           at[i - 1]->offset);
    }
    free(at);
    return rc;
}

enum err eng_model_file_open(struct eng_model_file **out, const char *path)
{
    enum err rc = OK;
    struct eng_model_file *f = xcalloc(1, sizeof *f);
    f->path = xstrdup(path);
    TRY(pick_format(f));
    TRY(f->format->read(f));
    eng_heads_split(f, !f->format->claims); /* of a directory all are given as newer GGUF files have them */
    TRY(check_names(f));
    TRY(check_places(f));
    *out = f;
    f = NULL;
out:
    eng_model_file_close(f);
    return rc;
}

void eng_model_file_close(struct eng_model_file *f)
{
    if (!f) return;
    for (int32_t i = 0; i < f->n_parts; i++) {
        close(f->parts[i].fd);
        free(f->parts[i].path);
        free(f->parts[i].header);
        arena_free(&f->parts[i].arena);
    }
    for (int32_t i = 0; i < f->n_beside; i++) {
        free(f->beside[i].name);
        free(f->beside[i].data);
    }
    free(f->beside);
    eng_bands_close(f->bands);
    free(f->parts);
    free(f->tensors);
    free(f->raw);
    free(f->path);
    arena_free(&f->arena);
    free(f);
}

const char *eng_model_file_format(const struct eng_model_file *f) { return f->version; }
const char *eng_model_file_path(const struct eng_model_file *f) { return f->path; }
int32_t eng_model_file_parts(const struct eng_model_file *f) { return f->n_parts; }

int64_t eng_model_file_bytes(const struct eng_model_file *f)
{
    int64_t sum = 0;
    for (int32_t i = 0; i < f->n_parts; i++) sum += f->parts[i].bytes;
    return sum;
}

int64_t eng_model_file_n_kv(const struct eng_model_file *f) { return f->n_kv; }

const struct model_kv *eng_model_file_kv(const struct eng_model_file *f, int64_t i)
{
    ASSERT(i >= 0 && i < f->n_kv);
    return &f->kv[i];
}

const struct model_kv *eng_model_file_find(const struct eng_model_file *f, const char *key)
{
    int64_t i = eng_name_table_get(&f->keys, key, strlen(key));
    return i < 0 ? NULL : &f->kv[i];
}

static const char *kind_name(enum model_kv_kind k)
{
    static const char *const names[] = {"an integer", "a float", "a boolean", "a string",
                                        "an array"};
    return names[k];
}

/* The value of key if it is there (else *kv is NULL) and of the kind asked for. */
static enum err typed(const struct eng_model_file *f, const char *key, enum model_kv_kind kind,
                      const struct model_kv **kv)
{
    *kv = eng_model_file_find(f, key);
    if (!*kv || (*kv)->kind == kind) return OK;
    return err_raise(ERR_BAD_FILE, "%s: key '%s' is %s, it must be %s", eng_model_file_path(f), key,
                     kind_name((*kv)->kind), kind_name(kind));
}

enum err eng_model_file_int(const struct eng_model_file *f, const char *key, int64_t def,
                            int64_t min, int64_t max, int64_t *out)
{
    const struct model_kv *kv;
    enum err rc = typed(f, key, KV_INT, &kv);
    if (rc) return rc;
    if (kv && (kv->i < min || kv->i > max))
        return err_raise(ERR_BAD_FILE,
                         "%s: key '%s' is %" PRId64 ", it must be between %" PRId64 " and %" PRId64,
                         eng_model_file_path(f), key, kv->i, min, max);
    *out = kv ? kv->i : def;
    return OK;
}

enum err eng_model_file_float(const struct eng_model_file *f, const char *key, double def,
                              double *out)
{
    const struct model_kv *kv;
    enum err rc = typed(f, key, KV_FLOAT, &kv);
    if (rc) return rc;
    if (kv && !isfinite(kv->f))
        return err_raise(ERR_BAD_FILE, "%s: key '%s' is %g, it must be a finite number",
                         eng_model_file_path(f), key, kv->f);
    *out = kv ? kv->f : def;
    return OK;
}

enum err eng_model_file_bool(const struct eng_model_file *f, const char *key, bool def, bool *out)
{
    const struct model_kv *kv;
    enum err rc = typed(f, key, KV_BOOL, &kv);
    if (rc) return rc;
    *out = kv ? kv->b : def;
    return OK;
}

enum err eng_model_file_string(const struct eng_model_file *f, const char *key, char **out)
{
    const struct model_kv *kv;
    enum err rc = typed(f, key, KV_STRING, &kv);
    if (rc) return rc;
    if (kv && memchr(kv->s.p, 0, kv->s.n))
        return err_raise(ERR_BAD_FILE, "%s: key '%s' is a text with a NUL byte inside",
                         eng_model_file_path(f), key);
    *out = kv ? xstrndup(kv->s.p, kv->s.n) : NULL;
    return OK;
}

int64_t eng_model_file_n_tensors(const struct eng_model_file *f) { return f->n_tensors; }

const struct model_tensor *eng_model_file_tensor(const struct eng_model_file *f, int64_t i)
{
    ASSERT(i >= 0 && i < f->n_tensors);
    return &f->tensors[i];
}

const char *eng_model_tensor_made_of(const struct model_tensor *t) { return t->derived ? t->derived->recipe->name : NULL; }

const struct model_tensor *eng_model_file_tensor_find(const struct eng_model_file *f,
                                                      const char *name)
{
    int64_t i = eng_name_table_get(&f->tensor_names, name, strlen(name));
    return i < 0 ? NULL : &f->tensors[i];
}

enum err eng_model_file_read(const struct eng_model_file *f, const struct model_tensor *t,
                             int64_t offset, int64_t bytes, void *dst)
{
    enum dtype type;
    enum err rc = dtype_of_ggml(t->ggml_type, &type);
    if (rc) return err_prefix(rc, "%s: tensor '%s'", f->parts[t->part].path, t->name);
    ASSERT(offset >= 0 && bytes >= 0 && offset <= t->bytes && bytes <= t->bytes - offset);
    if (t->derived) return eng_derived_read(f, t, offset, bytes, dst);
    rc = eng_part_read(&f->parts[t->part], t->offset + offset, bytes, dst);
    return rc ? err_prefix(rc, "tensor '%s'", t->name) : OK;
}
