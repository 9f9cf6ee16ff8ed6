/* derived_nibbles.c: four-bit codes that are names of values: FP4 (E2M1) with an E4M3 scale for each 16 columns and a factor for all
 * (NVFP4, as ModelOpt and compressed-tensors write it), and bitsandbytes' NF4 and FP4 over a tensor laid out flat. The value is widened in
 * f32 and rounded once to the checkpoint's own type, as the formats' own code does it.
 *
 * bitsandbytes: a code's value (of the table in the file) times the largest magnitude of its block; where those are quantised too, one is
 * its code's value times that of its block of 256, and an offset more. Of a byte's two codes its high one comes first; of FP4's the low one. */
#include "engine/file/derived.h"

#include "engine/file/hf_json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { CODES = 16, MOST_STATE = 4096 };

static const float fp4[CODES] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

static enum err out_of_memory(void) { return err_raise(ERR_NO_MEMORY, "no memory to widen four-bit weights"); }

/* Codes [first, first + n) of the flat tensor; both even. Own: free(). */
static enum err read_codes(const struct eng_model_file *f, const struct model_tensor *codes, int64_t first, int64_t n, uint8_t **out)
{
    *out = malloc((size_t)(n / 2) + 1);
    return *out ? eng_part_read(&f->parts[codes->part], codes->offset + first / 2, n / 2, *out) : out_of_memory();
}

/* ---- NVFP4 ---- */

static enum err nvfp4_rows(const struct eng_model_file *f, const struct model_tensor *t, int64_t row0, int64_t n, uint8_t *out)
{
    enum err rc;
    const struct eng_derived *d = t->derived;
    int64_t cols = t->dims[0], groups = d->n_scale_cols, row = dtype_bytes(t->type, cols);
    float all, *x = malloc((size_t)cols * sizeof *x), *scales = malloc((size_t)(n * groups) * sizeof *scales);
    uint8_t *codes = NULL;
    if (!x || !scales) TRY(out_of_memory());
    TRY(read_codes(f, d->codes, row0 * cols, n * cols, &codes));
    TRY(eng_raw_floats(f, d->scales, row0 * groups, n * groups, scales));
    TRY(eng_raw_floats(f, d->factor, 0, 1, &all));
    for (int64_t i = 0; i < n * groups; i++) scales[i] = d->factor_divides ? scales[i] / all : scales[i] * all;
    for (int64_t r = 0; r < n; r++) {
        const uint8_t *c = codes + r * cols / 2;
        for (int64_t k = 0; k < cols; k++) x[k] = fp4[c[k / 2] >> k % 2 * 4 & 15] * scales[r * groups + k / d->scale_cols];
        eng_raw_put(t->type, x, cols, out + r * row);
    }
out:
    free(x);
    free(scales);
    free(codes);
    return rc;
}

/* ---- bitsandbytes ---- */

struct state {
    int64_t shape[2], block, nested_block;
    double offset;
};

static enum err read_state(const struct eng_model_file *f, const struct model_tensor *t, struct state *s)
{
    enum err rc;
    const struct model_tensor *raw = t->derived->state;
    char text[MOST_STATE];
    json_t *json = NULL;
    struct eng_hf_obj o = {.what = raw->name};
    if (raw->bytes > MOST_STATE) return err_raise(ERR_BAD_FILE, "%s has %" PRId64 " bytes, at most %d are accepted", raw->name, raw->bytes, MOST_STATE);
    TRY(eng_part_read(&f->parts[raw->part], raw->offset, raw->bytes, text));
    TRY(eng_hf_json_parse(&json, text, (size_t)raw->bytes, raw->name));
    o.json = json;
    for (size_t i = 0; i < 2; i++) s->shape[i] = json_integer_value(json_array_get(json_object_get(json, "shape"), i));
    TRY(eng_hf_int(o, "blocksize", 64, 1, 1 << 20, &s->block));
    TRY(eng_hf_int(o, "nested_blocksize", 256, 1, 1 << 20, &s->nested_block));
    TRY(eng_hf_real(o, "nested_offset", 0, &s->offset));
    if (s->shape[0] != t->dims[1] || s->shape[1] != t->dims[0])
        rc = err_raise(ERR_BAD_FILE, "%s says [%" PRId64 ", %" PRId64 "], config.json [%" PRId64 ", %" PRId64 "]", raw->name, s->shape[0], s->shape[1],
                       t->dims[1], t->dims[0]);
    else if (s->block != t->derived->scale_cols)
        rc = err_raise(ERR_BAD_FILE, "%s says blocks of %" PRId64 ", and there is a scale for each %" PRId64 " weights", raw->name, s->block,
                       t->derived->scale_cols);
out:
    json_decref(json);
    return rc;
}

/* The scales of blocks [first, first + n). */
static enum err read_scales(const struct eng_model_file *f, const struct eng_derived *d, const struct state *s, int64_t first, int64_t n, float *out)
{
    enum err rc;
    float table[256], *of_blocks = NULL;
    uint8_t *codes = NULL;
    if (!d->nested) return eng_raw_floats(f, d->scales, first, n, out);
    int64_t b0 = first / s->nested_block, many = (first + n - 1) / s->nested_block - b0 + 1;
    if (b0 + many > d->nested->dims[0])
        return err_raise(ERR_BAD_FILE, "%s has %" PRId64 " values, block %" PRId64 " is wanted", d->nested->name, d->nested->dims[0], b0 + many - 1);
    codes = malloc((size_t)n);
    of_blocks = malloc((size_t)many * sizeof *of_blocks);
    if (!codes || !of_blocks) TRY(out_of_memory());
    TRY(eng_part_read(&f->parts[d->scales->part], d->scales->offset + first, n, codes));
    TRY(eng_raw_floats(f, d->nested, b0, many, of_blocks));
    TRY(eng_raw_floats(f, d->nested_table, 0, 256, table));
    for (int64_t i = 0; i < n; i++) out[i] = table[codes[i]] * of_blocks[(first + i) / s->nested_block - b0] + (float)s->offset;
out:
    free(codes);
    free(of_blocks);
    return rc;
}

static enum err bnb_rows(const struct eng_model_file *f, const struct model_tensor *t, int64_t row0, int64_t n, uint8_t *out)
{
    enum err rc;
    const struct eng_derived *d = t->derived;
    int64_t cols = t->dims[0], first = row0 * cols, count = n * cols, row = dtype_bytes(t->type, cols);
    int64_t b0 = first / d->scale_cols, many = (first + count - 1) / d->scale_cols - b0 + 1;
    struct state s = {0};
    float table[CODES], *x = malloc((size_t)cols * sizeof *x), *scales = malloc((size_t)many * sizeof *scales);
    uint8_t *codes = NULL;
    if (!x || !scales) TRY(out_of_memory());
    TRY(read_state(f, t, &s));
    TRY(eng_raw_floats(f, d->table, 0, CODES, table));
    TRY(read_scales(f, d, &s, b0, many, scales));
    TRY(read_codes(f, d->codes, first, count, &codes));
    for (int64_t r = 0; r < n; r++) {
        for (int64_t k = 0; k < cols; k++) {
            int64_t i = r * cols + k;
            x[k] = table[codes[i / 2] >> (1 - i % 2) * 4 & 15] * scales[(first + i) / d->scale_cols - b0];
        }
        eng_raw_put(t->type, x, cols, out + r * row);
    }
out:
    free(x);
    free(scales);
    free(codes);
    return rc;
}

const struct eng_recipe eng_recipe_nvfp4 = {"NVFP4", nvfp4_rows}, eng_recipe_bnb = {"bitsandbytes", bnb_rows};
