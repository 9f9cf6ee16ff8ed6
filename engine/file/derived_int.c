/* derived_int.c: integer codes with zero points and a scale for each group of columns (GPTQ, AWQ, compressed-tensors): the value is
 * scale * (code - zero).
 *
 * code - zero is a small integer, so where groups are whole units of 32 columns the value is held as it is meant, exactly: the
 * difference in the codes of Q4_0, Q5_0 or Q8_0, the scale beside it. Elsewhere (groups that columns are of in no order, odd
 * groups, differences beyond a byte) it is widened in the scale's own type, as the formats' own code does it: one product, rounded
 * once.
 * I1  a scale of F16 is kept bit for bit; one of BF16 becomes the same number in F16, unless it is below 2^-17, where F16 has not
 *     its bits: then the nearest. */
#include "engine/file/derived.h"

#include "engine/file/half.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { UNIT = 32, AWQ_LANES = 8 };

/* Some rows while they are made. */
struct rows {
    const struct eng_model_file *f;
    const struct model_tensor *t;
    const struct eng_derived *d;
    int64_t row0, n, cols, groups;
    int16_t *codes;  /* [n][cols] */
    int16_t *zeros;  /* [n][groups] */
    float *scales;   /* [n][groups] */
    int32_t *group;  /* [cols] */
};

static enum err out_of_memory(void) { return err_raise(ERR_NO_MEMORY, "no memory to unpack integer weights"); }

/* ---- words ---- */

/* Value i of a stream whose words stand `stride` apart. */
static inline uint32_t value_at(const uint32_t *words, int64_t stride, int64_t i, int32_t bits)
{
    int64_t bit = i * bits, w = bit / 32;
    int32_t at = (int32_t)(bit % 32);
    uint32_t v = words[w * stride] >> at;
    if (at + bits > 32) v |= words[(w + 1) * stride] << (32 - at);
    return v & ((1u << bits) - 1);
}

/* Where AWQ puts the value of row r within its word. */
static inline int32_t awq_shift(int64_t r)
{
    static const uint8_t place[AWQ_LANES] = {0, 4, 1, 5, 2, 6, 3, 7};
    return place[r % AWQ_LANES] * 4;
}

/* A rectangle of words of a raw tensor. Own: free(). */
static enum err read_words(const struct rows *x, const struct model_tensor *raw, int64_t r0, int64_t n, int64_t w0, int64_t words, uint32_t **out)
{
    *out = malloc((size_t)(n * words) * sizeof **out + 1);
    return *out ? eng_raw_read(x->f, raw, r0, n, w0 * 4, words * 4, *out) : out_of_memory();
}

/* ---- codes ---- */

static void unpack_across(const struct rows *x, const uint32_t *words)
{
    int32_t bits = x->d->bits;
    for (int64_t r = 0; r < x->n; r++)
        for (int64_t k = 0; k < x->cols; k++) x->codes[r * x->cols + k] = (int16_t)value_at(words + r, x->n, k, bits);
}

/* Eight values of four bits in each word: most files. A line of rows at a time, so that words are read by whole lines. */
static void unpack_across_4(const struct rows *x, const uint32_t *words)
{
    enum { LINE = 16 };
    for (int64_t r0 = 0; r0 < x->n; r0 += LINE)
        for (int64_t k = 0; k < x->cols; k += 8)
            for (int64_t r = r0; r < MIN(x->n, r0 + LINE); r++) {
                uint32_t w = words[k / 8 * x->n + r];
                int16_t *to = x->codes + r * x->cols + k;
                for (int32_t i = 0; i < 8; i++) to[i] = (int16_t)(w >> 4 * i & 15);
            }
}

/* Eight rows at a time: each is written from left to right. */
static void unpack_awq(const struct rows *x, const uint32_t *words)
{
    int64_t per = x->n / AWQ_LANES;
    for (int64_t r = 0; r < x->n; r += AWQ_LANES)
        for (int64_t k = 0; k < x->cols; k++) {
            uint32_t w = words[k * per + r / AWQ_LANES];
            for (int64_t i = 0; i < AWQ_LANES; i++) x->codes[(r + i) * x->cols + k] = (int16_t)(w >> awq_shift(i) & 15);
        }
}

static void unpack_rows(const struct rows *x, const uint32_t *words, int64_t per)
{
    int32_t bits = x->d->bits;
    for (int64_t r = 0; r < x->n; r++) {
        int16_t *to = x->codes + r * x->cols;
        const uint32_t *from = words + r * per;
        for (int64_t k = 0; k < x->cols && bits == 4; k += 8)
            for (int32_t i = 0; i < 8; i++) to[k + i] = (int16_t)(from[k / 8] >> 4 * i & 15);
        for (int64_t k = 0; k < x->cols && bits != 4; k++) to[k] = (int16_t)value_at(from, 1, k, bits);
    }
}

static enum err read_codes(struct rows *x)
{
    enum err rc = OK;
    const struct eng_derived *d = x->d;
    uint32_t *words = NULL;
    int64_t per = d->codes->dims[0];
    switch (d->code_layout) {
    case INT_ACROSS:
        TRY(read_words(x, d->codes, 0, d->codes->dims[1], x->row0, x->n, &words));
        if (d->bits == 4) unpack_across_4(x, words);
        else unpack_across(x, words);
        break;
    case INT_AWQ:
        TRY(read_words(x, d->codes, 0, x->cols, x->row0 / AWQ_LANES, x->n / AWQ_LANES, &words));
        unpack_awq(x, words);
        break;
    case INT_ALONG_ROWS:
        TRY(read_words(x, d->codes, x->row0, x->n, 0, per, &words));
        unpack_rows(x, words, per);
        break;
    case INT_BYTES: {
        int8_t *bytes = malloc((size_t)(x->n * x->cols));
        rc = bytes ? eng_raw_read(x->f, d->codes, x->row0, x->n, 0, x->cols, bytes) : out_of_memory();
        for (int64_t i = 0; i < x->n * x->cols && !rc; i++) x->codes[i] = bytes[i];
        free(bytes);
        break;
    }
    default: ASSERT(!"codes that lie somewhere");
    }
out:
    free(words);
    return rc;
}

/* ---- zero points ---- */

static enum err read_zeros(struct rows *x)
{
    enum err rc = OK;
    const struct eng_derived *d = x->d;
    uint32_t *words = NULL;
    int64_t G = x->groups, w0 = x->row0 * d->bits / 32, w = DIV_UP(x->n * d->bits, 32);
    for (int64_t i = 0; i < x->n * G; i++) x->zeros[i] = (int16_t)d->zero_add;
    switch (d->zero_layout) {
    case INT_ACROSS:
        TRY(read_words(x, d->zeros, 0, G, w0, w, &words));
        for (int64_t g = 0; g < G; g++)
            for (int64_t r = 0; r < x->n; r++) x->zeros[r * G + g] = (int16_t)(x->zeros[r * G + g] + (int16_t)value_at(words + g * w, 1, r, d->bits));
        break;
    case INT_AWQ:
        TRY(read_words(x, d->zeros, 0, G, x->row0 / AWQ_LANES, x->n / AWQ_LANES, &words));
        for (int64_t g = 0; g < G; g++)
            for (int64_t r = 0; r < x->n; r++)
                x->zeros[r * G + g] = (int16_t)(x->zeros[r * G + g] + (int16_t)(words[(g * x->n + r) / AWQ_LANES] >> awq_shift(r) & 15));
        break;
    case INT_DOWN:
        TRY(read_words(x, d->zeros, w0, w, 0, G, &words));
        for (int64_t g = 0; g < G; g++)
            for (int64_t r = 0; r < x->n; r++) x->zeros[r * G + g] = (int16_t)(x->zeros[r * G + g] + (int16_t)value_at(words + g, G, r, d->bits));
        break;
    case INT_BYTES: {
        int64_t first = x->row0 / d->scale_rows, n = (x->row0 + x->n - 1) / d->scale_rows - first + 1;
        int8_t *bytes = malloc((size_t)(n * G) + 1);
        rc = bytes ? eng_part_read(&x->f->parts[d->zeros->part], d->zeros->offset + first * G, n * G, bytes) : out_of_memory();
        for (int64_t i = 0; i < x->n * G && !rc; i++)
            x->zeros[i] = (int16_t)(x->zeros[i] + bytes[((x->row0 + i / G) / d->scale_rows - first) * G + i % G]);
        free(bytes);
        break;
    }
    default: break;
    }
out:
    free(words);
    return rc;
}

/* ---- scales, groups ---- */

static enum err read_scales(struct rows *x)
{
    enum err rc = OK;
    const struct eng_derived *d = x->d;
    int64_t G = x->groups, N = x->t->dims[1], first = x->row0 / d->scale_rows, n = (x->row0 + x->n - 1) / d->scale_rows - first + 1;
    float *line = malloc((size_t)MAX(n * G, x->n) * sizeof *line);
    if (!line) return out_of_memory();
    for (int64_t g = 0; g < G && d->scales_across; g++) {
        TRY(eng_raw_floats(x->f, d->scales, g * N + x->row0, x->n, line));
        for (int64_t r = 0; r < x->n; r++) x->scales[r * G + g] = line[r];
    }
    if (d->scales_across) goto out;
    TRY(eng_raw_floats(x->f, d->scales, first * G, n * G, line));
    for (int64_t i = 0; i < x->n * G; i++) x->scales[i] = line[((x->row0 + i / G) / d->scale_rows - first) * G + i % G];
out:
    free(line);
    return rc;
}

static enum err read_groups(struct rows *x)
{
    const struct eng_derived *d = x->d;
    enum err rc = d->order ? eng_raw_read(x->f, d->order, 0, 1, 0, x->cols * 4, x->group) : OK;
    for (int64_t k = 0; k < x->cols && !rc; k++) {
        int32_t usual = (int32_t)(k / d->scale_cols);
        if (!d->order) x->group[k] = usual;
        if (!d->by_column && x->group[k] != usual)
            rc = err_raise(ERR_BAD_FILE, "%s puts column %" PRId64 " into group %d, but config.json says that columns are in their order", d->order->name,
                           k, x->group[k]);
        else if (x->group[k] < 0 || x->group[k] >= x->groups)
            rc = err_raise(ERR_BAD_FILE, "%s puts column %" PRId64 " into group %d of %" PRId64, d->order->name, k, x->group[k], x->groups);
    }
    return rc;
}

/* compressed-tensors' own word on the shape, which the packed codes tell within a word only. */
static enum err check_shape(const struct rows *x)
{
    const struct model_tensor *s = x->d->shape;
    if (!s || x->row0) return OK;
    bool wide = !strcmp(dtype_ggml_name(s->ggml_type), "I64");
    int64_t shape[2] = {0, 0};
    int32_t narrow[2] = {0, 0};
    enum err rc = eng_raw_read(x->f, s, 0, 1, 0, wide ? 16 : 8, wide ? (void *)shape : narrow);
    if (!wide) shape[0] = narrow[0], shape[1] = narrow[1];
    if (rc || (shape[0] == x->t->dims[1] && shape[1] == x->cols)) return rc;
    return err_raise(ERR_BAD_FILE, "%s says [%" PRId64 ", %" PRId64 "], but codes and scales are of [%" PRId64 ", %" PRId64 "]", s->name, shape[0],
                     shape[1], x->t->dims[1], x->cols);
}

/* ---- out ---- */

static void dense(const struct rows *x, int64_t r, float *wide, uint8_t *out)
{
    const int16_t *q = x->codes + r * x->cols, *z = x->zeros + r * x->groups;
    const float *s = x->scales + r * x->groups;
    for (int64_t k = 0; k < x->cols; k++) wide[k] = s[x->group[k]] * (float)(q[k] - z[x->group[k]]);
    eng_raw_put(x->t->type, wide, x->cols, out);
}

static enum err bad_code(const struct rows *x, int64_t row, int64_t k, int32_t v)
{
    return err_raise(ERR_BAD_FILE, "the weight at row %" PRId64 ", column %" PRId64 " is %d steps from its zero point, which config.json's "
                     "quantization_config (symmetric, of so many bits) does not allow", x->row0 + row, k, v);
}

/* One unit of 32 columns as a block of the type. */
static void put_unit(enum dtype type, const int16_t v[UNIT], uint16_t scale, uint8_t *out)
{
    memcpy(out, &scale, sizeof scale);
    out += 2;
    if (type == DTYPE_Q8_0) {
        for (int i = 0; i < UNIT; i++) out[i] = (uint8_t)v[i];
        return;
    }
    int32_t middle = type == DTYPE_Q5_0 ? 16 : 8;
    if (type == DTYPE_Q5_0) {
        uint32_t fifth = 0;
        for (int i = 0; i < UNIT; i++) fifth |= (uint32_t)(v[i] + middle) >> 4 << i;
        for (int i = 0; i < 4; i++) *out++ = (uint8_t)(fifth >> 8 * i);
    }
    for (int i = 0; i < 16; i++) out[i] = (uint8_t)(((v[i] + middle) & 15) | ((v[i + 16] + middle) & 15) << 4);
}

static enum err units(const struct rows *x, int64_t r, uint8_t *out)
{
    enum dtype type = x->t->type;
    int32_t size = dtype_block_bytes(type), low = type == DTYPE_Q4_0 ? -8 : type == DTYPE_Q5_0 ? -16 : -128, high = -low - 1;
    for (int64_t k = 0; k < x->cols; k += UNIT, out += size) {
        int16_t v[UNIT], least = 0, most = 0;
        int64_t at = r * x->groups + x->group[k];
        float s = x->scales[at];
        uint16_t half = half_f32_to_f16(s);
        for (int64_t i = 0; i < UNIT; i++) {
            v[i] = (int16_t)(x->codes[r * x->cols + k + i] - x->zeros[at]);
            least = MIN(least, v[i]);
            most = MAX(most, v[i]);
        }
        for (int64_t i = 0; i < UNIT && (least < low || most > high); i++)
            if (v[i] < low || v[i] > high) return bad_code(x, r, k + i, v[i]);
        if ((half & 0x7fff) == 0x7c00 && s != half_f16_to_f32(half))
            return err_raise(ERR_BAD_FILE, "the scale of row %" PRId64 ", column %" PRId64 " is %g, which F16 cannot hold", x->row0 + r, k, (double)s);
        put_unit(type, v, half, out);
    }
    return OK;
}

static enum err int_rows(const struct eng_model_file *f, const struct model_tensor *t, int64_t row0, int64_t n, uint8_t *out)
{
    enum err rc;
    struct rows x = {.f = f, .t = t, .d = t->derived, .row0 = row0, .n = n, .cols = t->dims[0], .groups = t->derived->n_scale_cols};
    int64_t row = dtype_bytes(t->type, x.cols);
    x.codes = malloc((size_t)(n * x.cols) * sizeof *x.codes);
    x.zeros = malloc((size_t)(n * x.groups) * sizeof *x.zeros);
    x.scales = malloc((size_t)(n * x.groups) * sizeof *x.scales);
    x.group = malloc((size_t)x.cols * sizeof *x.group);
    float *wide = malloc((size_t)x.cols * sizeof *wide);
    if (!x.codes || !x.zeros || !x.scales || !x.group || !wide) TRY(out_of_memory());
    TRY(check_shape(&x));
    TRY(read_groups(&x));
    TRY(read_codes(&x));
    TRY(read_zeros(&x));
    TRY(read_scales(&x));
    for (int64_t r = 0; r < n; r++)
        if (dtype_block(t->type) == 1) dense(&x, r, wide, out + r * row);
        else TRY(units(&x, r, out + r * row));
out:
    free(x.codes);
    free(x.zeros);
    free(x.scales);
    free(x.group);
    free(wide);
    return rc;
}

const struct eng_recipe eng_recipe_gptq = {"GPTQ", int_rows}, eng_recipe_awq = {"AWQ", int_rows}, eng_recipe_int = {"integers", int_rows};
