/* made.c: see made.h. */
#include "engine/model/made.h"

#include "base/rng.h"
#include "engine/file/dequant.h"
#include "engine/file/half.h"

#include <stdlib.h>
#include <string.h>

/* A file's block of random codes whose values lie around 0 with a deviation of about 0.02. */
static void make_block(uint64_t *key, enum dtype type, uint8_t *p)
{
    int32_t bytes = dtype_block_bytes(type);
    for (int32_t i = 0; i < bytes; i += 8) {
        uint64_t bits = rng_mix(++*key);
        memcpy(p + i, &bits, (size_t)MIN(8, bytes - i));
    }
    uint64_t bits = rng_mix(++*key);
    float value = ((float)(bits & 0xffff) / 32768.0f - 1.0f) * 0.035f;
    uint16_t half = half_f32_to_f16(value), brain = half_f32_to_bf16(value);
    if (type == DTYPE_F32) memcpy(p, &value, sizeof value);
    else if (type == DTYPE_F16) memcpy(p, &half, sizeof half);
    else if (type == DTYPE_BF16) memcpy(p, &brain, sizeof brain);
    else eng_block_put_size(type, p, 2 * value);
}

/* A tile of 16 random rows of the want's columns. Own: free(). */
static uint8_t *make_tile(const struct eng_want *w, uint64_t *key)
{
    enum dtype type = w->t->type;
    int32_t cols = (int32_t)(w->k1 - w->k0), phase = (int32_t)(w->k0 % dtype_block(type));
    int64_t row = dtype_bytes(type, ROUND_UP(phase + cols, dtype_block(type)));
    uint8_t *rows = xmalloc((size_t)row * KRN_TILE), *tile = xmalloc((size_t)w->tile_bytes);
    const uint8_t *src[KRN_TILE];
    for (int32_t i = 0; i < KRN_TILE; i++) {
        src[i] = rows + row * i;
        for (int64_t at = 0; at < row; at += dtype_block_bytes(type)) make_block(key, type, rows + row * i + at);
    }
    krn_pack_tile(type, tile, src, KRN_TILE, phase, cols);
    free(rows);
    return tile;
}

/* The first n bytes over all of `bytes`, by copies of what is there already. */
static enum err spread(struct eng_backend *be, uint8_t *p, int64_t n, int64_t bytes)
{
    enum err rc = OK;
    for (; n < bytes; n *= 2) TRY(eng_backend_copy(be, p + n, p, MIN(n, bytes - n)));
out:
    return rc;
}

static enum err fill_tiles(struct eng_backend *be, const struct eng_want *w, uint64_t *key)
{
    enum err rc;
    uint8_t *tile = make_tile(w, key);
    TRY(eng_backend_upload(be, w->tiles, tile, w->tile_bytes));
    TRY(spread(be, w->tiles, w->tile_bytes, DIV_UP(w->row1 - w->row0, KRN_TILE) * w->tile_bytes));
out:
    free(tile);
    return rc;
}

static enum err fill_floats(struct eng_backend *be, const struct eng_want *w)
{
    int64_t n = w->k1 - w->k0;
    bool norm = strstr(w->t->name, "norm") != NULL;
    float *x = xmalloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = norm ? 1.0f : 0.01f * (float)(i % 7 - 3);
    enum err e = eng_backend_upload(be, w->floats, x, n * (int64_t)sizeof *x);
    free(x);
    return e;
}

enum err eng_made_fill(struct eng_backend *be, const struct eng_want wants[], int32_t n, uint64_t seed)
{
    enum err rc = OK;
    for (int32_t i = 0; i < n; i++) {
        uint64_t key = rng_mix(seed ^ rng_mix((uint64_t)i + 1));
        TRY(wants[i].tiles ? fill_tiles(be, &wants[i], &key) : fill_floats(be, &wants[i]));
    }
    TRY(eng_backend_sync(be));
out:
    return rc;
}
