/* safetensors.c: see safetensors.h.
 *
 * I1  the header's length is checked against the file and against LARGEST_HEADER before it is read.
 * I2  a tensor's two offsets agree with its type and shape, and lie in the file. That no two
 *     tensors share a byte is the seal's to check (model_file.c). */
#include "engine/file/safetensors.h"

#include "engine/file/hf_json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    LARGEST_HEADER = 100000000, /* the format's own limit */
    MOST_TENSORS = 1 << 20,
    LONGEST_NAME = 255,
};

struct reader {
    struct eng_model_file *f;
    const struct eng_part *part;
    int64_t data; /* where the tensors' bytes begin */
    const char *name;
};

static struct eng_shown shown(const struct reader *r)
{
    return eng_show(r->name, strlen(r->name));
}

static enum err read_shape(const struct reader *r, const json_t *shape, struct model_tensor *t,
                           int64_t *n_values)
{
    size_t n = json_array_size(shape);
    if (!json_is_array(shape) || n > MODEL_MAX_DIMS)
        return err_raise(ERR_BAD_FILE,
                         "%s: tensor '%s': 'shape' must be an array of at most %d numbers",
                         r->part->path, shown(r).s, MODEL_MAX_DIMS);
    t->n_dims = (int32_t)n;
    *n_values = 1;
    for (size_t i = 0; i < MODEL_MAX_DIMS; i++) t->dims[i] = 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *d = json_array_get(shape, n - 1 - i);
        t->dims[i] = json_integer_value(d);
        if (!json_is_integer(d) || t->dims[i] < 1 ||
            __builtin_mul_overflow(*n_values, t->dims[i], n_values))
            return err_raise(ERR_BAD_FILE,
                             "%s: tensor '%s' has dimension %zu = %" PRId64
                             ", each must be an integer of at least 1 and their product below 2^63",
                             r->part->path, shown(r).s, n - 1 - i, t->dims[i]);
    }
    return OK;
}

static enum err read_type(const struct reader *r, const json_t *dtype, struct model_tensor *t,
                          int64_t n_values)
{
    int32_t block, bytes;
    const char *name = json_string_value(dtype);
    if (!name || !dtype_ggml_of_name(name, &t->ggml_type))
        return err_raise(
            ERR_BAD_FILE, "%s: tensor '%s' has dtype '%s', which is none of safetensors",
            r->part->path, shown(r).s, eng_show(name ? name : "?", name ? strlen(name) : 1).s);
    dtype_ggml_layout(t->ggml_type, &block, &bytes);
    if (block != 1)
        return err_raise(ERR_BAD_FILE, "%s: tensor '%s' has dtype %s, which is none of safetensors",
                         r->part->path, shown(r).s, name);
    t->type = DTYPE_COUNT;
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (dtype_ggml((enum dtype)i) == t->ggml_type) t->type = (enum dtype)i;
    if (__builtin_mul_overflow(n_values, (int64_t)bytes, &t->bytes))
        return err_raise(ERR_BAD_FILE, "%s: tensor '%s' has more bytes than 2^63", r->part->path,
                         shown(r).s);
    return OK;
}

static enum err read_offsets(const struct reader *r, const json_t *offsets, struct model_tensor *t)
{
    const json_t *b = json_array_get(offsets, 0), *e = json_array_get(offsets, 1);
    int64_t begin = json_integer_value(b), end = json_integer_value(e);
    if (json_array_size(offsets) != 2 || !json_is_integer(b) || !json_is_integer(e) || begin < 0 ||
        end < begin)
        return err_raise(ERR_BAD_FILE,
                         "%s: tensor '%s': 'data_offsets' must be two numbers, the second no "
                         "smaller than the first",
                         r->part->path, shown(r).s);
    if (end > r->part->bytes - r->data)
        return err_raise(ERR_BAD_FILE,
                         "%s: tensor '%s' ends %" PRId64 " bytes into the data, but the file has "
                         "%" PRId64 ": it is truncated, fetch it again",
                         r->part->path, shown(r).s, end, r->part->bytes - r->data);
    if (end - begin != t->bytes)
        return err_raise(ERR_BAD_FILE,
                         "%s: tensor '%s' has data_offsets %" PRId64 " to %" PRId64
                         ", but its type %s and shape need %" PRId64 " bytes",
                         r->part->path, shown(r).s, begin, end, dtype_ggml_name(t->ggml_type),
                         t->bytes);
    t->offset = r->data + begin;
    return OK;
}

static enum err read_tensor(struct reader *r, const json_t *info, struct model_tensor *t)
{
    enum err rc;
    int64_t n_values;
    size_t n = strlen(r->name);
    if (!n || n > LONGEST_NAME)
        return err_raise(ERR_BAD_FILE, "%s: tensor name '%s' has %zu bytes, 1 to %d are possible",
                         r->part->path, shown(r).s, n, LONGEST_NAME);
    if (!json_is_object(info))
        return err_raise(ERR_BAD_FILE, "%s: tensor '%s' is not a JSON object", r->part->path,
                         shown(r).s);
    TRY(read_shape(r, json_object_get(info, "shape"), t, &n_values));
    TRY(read_type(r, json_object_get(info, "dtype"), t, n_values));
    TRY(read_offsets(r, json_object_get(info, "data_offsets"), t));
    t->name = arena_strndup(&r->f->arena, r->name, n);
    t->part = (int32_t)(r->part - r->f->parts);
out:
    return rc;
}

static enum err read_header(struct reader *r, json_t **header)
{
    enum err rc;
    const struct eng_part *p = r->part;
    uint8_t len[8];
    uint64_t n = 0;
    char *text = NULL;
    if (p->bytes < 8)
        return err_raise(ERR_BAD_FILE,
                         "%s: only %" PRId64 " bytes long; a safetensors file has at least 10",
                         p->path, p->bytes);
    TRY(eng_part_read(p, 0, 8, len));
    for (int i = 7; i >= 0; i--) n = n << 8 | len[i];
    if (n > LARGEST_HEADER || (int64_t)n > p->bytes - 8) {
        rc = err_raise(ERR_BAD_FILE,
                       "%s: the header claims %" PRIu64 " bytes (value at offset 0), but the file "
                       "has %" PRId64
                       " and headers at most %d: not a safetensors file, or truncated",
                       p->path, n, p->bytes, LARGEST_HEADER);
        goto out;
    }
    text = xmalloc((size_t)n + 1);
    TRY(eng_part_read(p, 8, (int64_t)n, text));
    r->data = 8 + (int64_t)n;
    char *what = xasprintf("%s: the header", p->path);
    rc = eng_hf_json_parse(header, text, (size_t)n, what);
    free(what);
out:
    free(text);
    return rc;
}

enum err eng_safetensors_read(struct eng_model_file *f, int32_t part)
{
    enum err rc;
    struct reader r = {.f = f, .part = &f->parts[part]};
    json_t *header = NULL, *info;
    TRY(read_header(&r, &header));
    int64_t n = f->n_tensors + (int64_t)json_object_size(header);
    if (n > MOST_TENSORS) {
        rc = err_raise(ERR_BAD_FILE, "%s: %" PRId64 " tensors, at most %d are accepted",
                       r.part->path, n, MOST_TENSORS);
        goto out;
    }
    f->tensors = xrealloc(f->tensors, (size_t)MAX(n, 1) * sizeof *f->tensors);
    json_object_foreach(header, r.name, info)
    {
        if (!strcmp(r.name, "__metadata__")) continue;
        struct model_tensor t = {0};
        TRY(read_tensor(&r, info, &t));
        f->tensors[f->n_tensors++] = t;
    }
out:
    json_decref(header);
    return rc;
}
