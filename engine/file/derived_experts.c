/* derived_experts.c: experts that lie all in one tensor, as gpt-oss has them: of each expert the rows of gate and up in turns (row 2i is gate's
 * row i, 2i + 1 is up's; Llama 4: first all of gate's, then all of up's), in MXFP4 (blocks of 32 codes and an exponent apart), or plain and turned
 * round ([experts][columns][rows]).
 *
 * MXFP4 stays what it is: codes and exponents are put together as GGUF's blocks have them, where code j shares a byte with j + 16; here it does
 * with its neighbour. Nothing is rounded. */
#include "engine/file/derived.h"

#include <stdlib.h>
#include <string.h>

enum { UNIT = 32, CODES = 16 };

static enum err out_of_memory(void) { return err_raise(ERR_NO_MEMORY, "no memory to take experts apart"); }

/* The rows of one expert among [row0, row0 + n): as many as lie in it. */
static int64_t within_expert(const struct eng_derived *d, int64_t row, int64_t n) { return MIN(n, d->rows_each - row % d->rows_each); }

/* Where row `row` lies in the tensor of all, counted through. */
static int64_t source_row(const struct eng_derived *d, int64_t row)
{
    return row / d->rows_each * (d->rows_each * d->stride) + row % d->rows_each * d->stride + d->turn;
}

/* ---- MXFP4 ---- */

static void put_block(const uint8_t codes[CODES], uint8_t exponent, uint8_t *out)
{
    *out++ = exponent;
    for (int j = 0; j < CODES; j++) {
        int low = codes[j / 2] >> 4 * (j % 2) & 15, high = codes[8 + j / 2] >> 4 * (j % 2) & 15;
        out[j] = (uint8_t)(low | high << 4);
    }
}

static enum err mxfp4_rows(const struct eng_model_file *f, const struct model_tensor *t, int64_t row0, int64_t n, uint8_t *out)
{
    enum err rc = OK;
    const struct eng_derived *d = t->derived;
    int64_t blocks = t->dims[0] / UNIT, step = d->stride;
    uint8_t *codes = malloc((size_t)(n * step * blocks * CODES)), *exponents = malloc((size_t)(n * step * blocks));
    if (!codes || !exponents) TRY(out_of_memory());
    for (int64_t k; n > 0; row0 += k, n -= k) {
        k = within_expert(d, row0, n);
        int64_t first = source_row(d, row0), many = (k - 1) * step + 1;
        TRY(eng_part_read(&f->parts[d->codes->part], d->codes->offset + first * blocks * CODES, many * blocks * CODES, codes));
        TRY(eng_part_read(&f->parts[d->scales->part], d->scales->offset + first * blocks, many * blocks, exponents));
        for (int64_t r = 0; r < k; r++)
            for (int64_t b = 0; b < blocks; b++, out += CODES + 1) {
                int64_t at = r * step * blocks + b;
                put_block(codes + at * CODES, exponents[at], out);
            }
    }
out:
    free(codes);
    free(exponents);
    return rc;
}

/* ---- plain ---- */

/* As many rows at once as make a piece of a column worth a call, and columns turned together: their pieces stay in the first-level cache, and a
 * row gets a cache line of them. */
enum { TURNED_ROWS = 1024, TURNED_COLS = 32 };

/* out[r][c] = in[c][r], r one of `rows` that lie `stride` values apart; in has n_in values a column, out a row of `line` values. */
static void turn(const uint8_t *in, int64_t n_in, int64_t stride, int64_t rows, int64_t cols, int64_t size, uint8_t *out, int64_t line)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            const uint8_t *from = in + (c * n_in + r * stride) * size;
            if (size == 2) memcpy(out + (r * line + c) * 2, from, 2);
            else memcpy(out + (r * line + c) * 4, from, 4);
        }
}

/* Columns of each row lie a row of the source apart. With an expert's first rows the system is told that all of it will be read: pieces of
 * columns alone it would fetch page by page. */
static enum err turned_rows(const struct eng_model_file *f, const struct model_tensor *t, int64_t row0, int64_t n, uint8_t *out)
{
    enum err rc = OK;
    const struct eng_derived *d = t->derived;
    const struct eng_part *part = &f->parts[d->codes->part];
    int64_t cols = t->dims[0], size = dtype_block_bytes(t->type), line = d->codes->dims[0];
    uint8_t *some = malloc((size_t)(n * d->stride * size * TURNED_COLS));
    if (!some) return out_of_memory();
    for (int64_t k; n > 0; row0 += k, n -= k, out += k * cols * size) {
        k = within_expert(d, row0, n);
        int64_t expert = row0 / d->rows_each, first = row0 % d->rows_each * d->stride + d->turn, many = (k - 1) * d->stride + 1;
        int64_t begin = d->codes->offset + expert * cols * line * size;
        if (row0 % d->rows_each == 0) eng_part_ahead(part, begin, cols * line * size);
        for (int64_t c = 0, m; c < cols; c += m) {
            m = MIN(TURNED_COLS, cols - c);
            for (int64_t i = 0; i < m; i++) TRY(eng_part_read(part, begin + ((c + i) * line + first) * size, many * size, some + i * many * size));
            turn(some, many, d->stride, k, m, size, out + c * size, cols);
        }
    }
out:
    free(some);
    return rc;
}

/* Each value of a row lies `stride` apart: biases of gate and up in turns. */
static enum err spaced_rows(const struct eng_model_file *f, const struct model_tensor *t, int64_t row0, int64_t n, uint8_t *out)
{
    enum err rc = OK;
    const struct eng_derived *d = t->derived;
    int64_t cols = t->dims[0], size = dtype_block_bytes(t->type), line = d->codes->dims[0];
    uint8_t *some = malloc((size_t)(line * size));
    if (!some) return out_of_memory();
    for (int64_t r = 0; r < n; r++) {
        TRY(eng_part_read(&f->parts[d->codes->part], d->codes->offset + (row0 + r) * line * size, line * size, some));
        for (int64_t c = 0; c < cols; c++, out += size) memcpy(out, some + (c * d->stride + d->turn) * size, (size_t)size);
    }
out:
    free(some);
    return rc;
}

const struct eng_recipe eng_recipe_mxfp4 = {"MXFP4", mxfp4_rows}, eng_recipe_turned = {"experts in one", turned_rows, TURNED_ROWS},
                        eng_recipe_spaced = {"gate and up in turns", spaced_rows};
