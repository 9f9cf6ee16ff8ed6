/* derived_fp8.c: FP8 weights (E4M3, E5M2) with a scale for all, one for each row, or one for each block of rows and columns:
 * code times scale in f32, then rounded once to the tensor's type (of the checkpoint's own dtype: what those who publish such
 * checkpoints make of them when they widen them). Source: the OCP's 8-bit floating point specification for the codes. */
#include "engine/file/derived.h"

#include "engine/file/half.h"

#include <stdlib.h>
#include <string.h>

/* E5M2: as IEEE's halves, cut. */
float eng_fp8_value(bool e5m2, uint8_t c)
{
    return e5m2 ? half_f16_to_f32((uint16_t)(c << 8)) : half_e4m3_to_f32(c);
}

static enum err fp8_rows(const struct eng_model_file *f, const struct model_tensor *t, int64_t row0, int64_t n, uint8_t *out)
{
    enum err rc;
    const struct eng_derived *d = t->derived;
    int64_t cols = t->dims[0], row_bytes = dtype_bytes(t->type, cols);
    int64_t s0 = row0 / d->scale_rows, s1 = (row0 + n - 1) / d->scale_rows + 1, sc = d->n_scale_cols;
    float table[256], *x = malloc((size_t)cols * sizeof *x), *scales = malloc((size_t)((s1 - s0) * sc) * sizeof *scales);
    uint8_t *codes = malloc((size_t)(n * cols));
    bool e5m2 = !strcmp(dtype_ggml_name(d->codes->ggml_type), "F8_E5M2");
    for (int i = 0; i < 256; i++) table[i] = eng_fp8_value(e5m2, (uint8_t)i);
    if (!x || !scales || !codes) TRY(err_raise(ERR_NO_MEMORY, "no memory to widen FP8 weights"));
    TRY(eng_raw_read(f, d->codes, row0, n, 0, cols, codes));
    if (d->scales) TRY(eng_raw_floats(f, d->scales, s0 * sc, (s1 - s0) * sc, scales));
    for (int64_t r = 0; r < n; r++) {
        const float *s = scales + ((row0 + r) / d->scale_rows - s0) * sc;
        for (int64_t k = 0; k < cols; k++) x[k] = table[codes[r * cols + k]];
        for (int64_t c = 0; c < sc && d->scales; c++)
            for (int64_t k = c * d->scale_cols; k < MIN(cols, (c + 1) * d->scale_cols); k++) x[k] *= s[c];
        eng_raw_put(t->type, x, cols, out + r * row_bytes);
    }
out:
    free(x);
    free(scales);
    free(codes);
    return rc;
}

const struct eng_recipe eng_recipe_fp8 = {"FP8", fp8_rows};
