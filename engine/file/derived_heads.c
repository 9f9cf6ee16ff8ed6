/* derived_heads.c: attention over a latent needs, of each head, what takes its query to the latent (attn_k_b) and what takes values back
 * (attn_v_b). Newer GGUF files have them; older ones and checkpoints have one matrix instead, attn_kv_b, whose rows are of each head those of its
 * keys, then those of its values. Then both are made of it: values are its rows, keys its rows turned into columns.
 *
 * Nothing is rounded: a turned matrix stays F32, F16 or BF16; of any other type, whose blocks lie along the rows, it becomes F32. */
#include "engine/file/derived_heads.h"

#include "engine/file/dequant.h"
#include "engine/file/derived.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- rows ---- */

static enum err out_of_memory(const struct model_tensor *t) { return err_raise(ERR_NO_MEMORY, "no memory to take the heads of %s apart", t->name); }

/* Rows of the whole matrix, which may itself be made: then from a row on that its recipe can begin with. */
static enum err whole_rows(const struct eng_model_file *f, const struct model_tensor *t, int64_t row0, int64_t n, uint8_t *out)
{
    int64_t row = dtype_bytes(t->type, t->dims[0]), before = row0 % DERIVED_ROWS;
    if (!t->derived) return eng_model_file_read(f, t, row0 * row, n * row, out);
    uint8_t *more = malloc((size_t)((before + n) * row));
    if (!more) return out_of_memory(t);
    enum err e = t->derived->recipe->rows(f, t, row0 - before, before + n, more);
    if (!e) memcpy(out, more + before * row, (size_t)(n * row));
    free(more);
    return e;
}

static enum err value_rows(const struct eng_model_file *f, const struct model_tensor *t, int64_t row0, int64_t n, uint8_t *out)
{
    const struct eng_derived *d = t->derived;
    int64_t row = dtype_bytes(t->type, t->dims[0]);
    enum err e = OK;
    for (int64_t k; n > 0 && !e; row0 += k, n -= k, out += k * row) {
        k = MIN(n, d->rows_each - row0 % d->rows_each);
        e = whole_rows(f, d->codes, row0 / d->rows_each * d->stride + d->turn + row0 % d->rows_each, k, out);
    }
    return e;
}

/* Columns [c0, c0 + k) of `rows` rows as rows; values of so many bytes. */
static void turn(const uint8_t *from, int64_t row_bytes, int64_t rows, int64_t c0, int64_t k, int64_t size, uint8_t *out)
{
    for (int64_t c = c0; c < c0 + k; c++)
        for (int64_t r = 0; r < rows; r++, out += size) memcpy(out, from + r * row_bytes + c * size, (size_t)size);
}

static enum err key_rows(const struct eng_model_file *f, const struct model_tensor *t, int64_t row0, int64_t n, uint8_t *out)
{
    enum err rc = OK;
    const struct eng_derived *d = t->derived;
    const struct model_tensor *whole = d->codes;
    int64_t rows = t->dims[0], cols = whole->dims[0], row = dtype_bytes(whole->type, cols), size = dtype_block_bytes(t->type);
    bool widen = whole->type != t->type;
    uint8_t *raw = malloc((size_t)(rows * row));
    float *wide = widen ? malloc((size_t)(rows * cols) * sizeof *wide) : NULL;
    if (!raw || (widen && !wide)) TRY(out_of_memory(whole));
    for (int64_t k; n > 0; row0 += k, n -= k, out += k * rows * size) {
        k = MIN(n, d->rows_each - row0 % d->rows_each);
        TRY(whole_rows(f, whole, row0 / d->rows_each * d->stride + d->turn, rows, raw));
        for (int64_t r = 0; r < rows && widen; r++) eng_dequant_row(whole->type, raw + r * row, wide + r * cols, cols);
        turn(widen ? (const uint8_t *)wide : raw, widen ? cols * size : row, rows, row0 % d->rows_each, k, size, out);
    }
out:
    free(raw);
    free(wide);
    return rc;
}

static const struct eng_recipe recipe_keys = {"keys of heads, turned", key_rows}, recipe_values = {"values of heads", value_rows};

/* ---- tensors ---- */

/* What the header says of heads; 0 where it says nothing that makes sense: the model's own reading of it will say so. */
struct heads {
    int64_t n, keys, values, rank;
};

static int64_t said(const struct eng_model_file *f, const char *what, int64_t def)
{
    char key[96];
    int64_t v;
    snprintf(key, sizeof key, "deepseek2.%s", what);
    return eng_model_file_int(f, key, def, 1, 1 << 20, &v) ? 0 : v;
}

static struct heads heads_of(const struct eng_model_file *f)
{
    int64_t rope = said(f, "rope.dimension_count", 0), key = said(f, "attention.key_length_mla", said(f, "attention.key_length", 0));
    return (struct heads){.n = said(f, "attention.head_count", 0), .keys = key - rope, .rank = said(f, "attention.kv_lora_rank", 0),
                          .values = said(f, "attention.value_length_mla", said(f, "attention.value_length", 0))};
}

static bool is_whole(const struct model_tensor *t, int *layer)
{
    int n = 0;
    return sscanf(t->name, "blk.%6d.attn_kv_b.weight%n", layer, &n) == 1 && n && !t->name[n];
}

static bool fits(const struct model_tensor *t, const struct heads *h)
{
    return h->n > 0 && h->keys > 0 && h->values > 0 && t->type < DTYPE_COUNT && t->dims[0] == h->rank && t->dims[1] == h->n * (h->keys + h->values) &&
           t->dims[2] * t->dims[3] == 1;
}

static bool has(const struct eng_model_file *f, int layer, const char *what)
{
    char name[96];
    snprintf(name, sizeof name, "blk.%d.%s.weight", layer, what);
    for (int64_t i = 0; i < f->n_tensors; i++)
        if (!strcmp(f->tensors[i].name, name)) return true;
    return false;
}

static struct model_tensor made(struct eng_model_file *f, const struct model_tensor *whole, const struct heads *h, int layer, bool keys)
{
    char name[96];
    int n = snprintf(name, sizeof name, "blk.%d.%s.weight", layer, keys ? "attn_k_b" : "attn_v_b");
    enum dtype type = keys && dtype_block(whole->type) > 1 ? DTYPE_F32 : whole->type;
    int64_t cols = keys ? h->keys : h->rank, rows = keys ? h->rank : h->values;
    struct eng_derived *x = arena_alloc(&f->arena, sizeof *x);
    *x = (struct eng_derived){.recipe = keys ? &recipe_keys : &recipe_values, .codes = whole, .rows_each = rows, .stride = (int32_t)(h->keys + h->values),
                              .turn = keys ? 0 : (int32_t)h->keys};
    return (struct model_tensor){.name = arena_strndup(&f->arena, name, (size_t)n), .type = type, .ggml_type = dtype_ggml(type), .n_dims = 3,
                                 .dims = {cols, rows, h->n, 1}, .part = whole->part, .bytes = rows * h->n * dtype_bytes(type, cols), .derived = x};
}

void eng_heads_split(struct eng_model_file *f, bool hide)
{
    const struct model_kv *arch = eng_model_file_find(f, "general.architecture");
    int layer;
    int64_t n = 0;
    if (!arch || arch->kind != KV_STRING || arch->s.n != 9 || memcmp(arch->s.p, "deepseek2", 9)) return;
    struct heads h = heads_of(f);
    struct model_tensor *all = xmalloc((3 * (size_t)f->n_tensors + 1) * sizeof *all);
    for (int64_t i = 0; i < f->n_tensors; i++) {
        struct model_tensor *t = &f->tensors[i];
        bool split = is_whole(t, &layer) && fits(t, &h) && !has(f, layer, "attn_k_b") && !has(f, layer, "attn_v_b");
        if (!split || !hide) all[n++] = *t;
        if (!split) continue;
        struct model_tensor *whole = arena_alloc(&f->arena, sizeof *whole);
        *whole = *t;
        for (int k = 0; k < 2; k++) {
            all[n] = made(f, whole, &h, layer, !k);
            all[n++].part_of = !hide;
        }
    }
    if (n == f->n_tensors) { /* none */
        free(all);
        return;
    }
    if (!f->raw) f->raw = f->tensors, f->n_raw = f->n_tensors;
    else free(f->tensors);
    f->tensors = all;
    f->n_tensors = n;
    if (!f->bands) f->bands = eng_bands_open();
}
