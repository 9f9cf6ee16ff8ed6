/* cases.c: see cases.h. */
#include "cases.h"

#include "base/base.h"
#include "engine/file/dequant.h"
#include "engine/file/half.h"
#include "engine/kernels/pack.h"
#include "engine/kernels/panel.h"

#include <stdlib.h>
#include <string.h>

void *case_alloc(size_t n)
{
    void *p = aligned_alloc(64, ROUND_UP(MAX(n, (size_t)64), (size_t)64));
    ASSERT(p);
    return p;
}

float *case_floats(struct rnd *r, int64_t n, int32_t kind)
{
    float *x = case_alloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        x[i] = rnd_normal(r);
        if (kind == CASE_NORMAL) continue;
        switch (rnd_below(r, 6)) {
        case 0:
            x[i] = 0.0f;
            break;
        case 1:
            x[i] = -0.0f;
            break;
        case 2:
            x[i] *= kind == CASE_TINY ? 0x1p-140f : 0x1p+60f;
            break;
        case 3:
            x[i] *= kind == CASE_TINY ? 0x1p-126f : 0x1p-60f;
            break;
        default:
            break;
        }
    }
    return x;
}

/* ---- file rows ------------------------------------------------------------------------------- */

static void put_f16(struct rnd *r, uint8_t *p, float size)
{
    uint16_t h = half_f32_to_f16(rnd_normal(r) * size);
    memcpy(p, &h, 2);
}

static void make_block(struct rnd *r, enum dtype type, uint8_t *p)
{
    for (int32_t i = 0; i < dtype_block_bytes(type); i++) p[i] = (uint8_t)rnd_bits(r);
    float x = rnd_normal(r);
    uint16_t bf = half_f32_to_bf16(x);
    switch (type) {
    case DTYPE_F32:
        memcpy(p, &x, 4);
        break;
    case DTYPE_BF16:
        memcpy(p, &bf, 2);
        break;
    case DTYPE_F16:
        put_f16(r, p, rnd_below(r, 8) ? 1.0f : 0x1p-20f);
        break;
    case DTYPE_Q8_0:
    case DTYPE_Q4_0:
        put_f16(r, p, 0.01f);
        break;
    case DTYPE_Q4_K:
    case DTYPE_Q5_K:
        put_f16(r, p, 0.001f);
        put_f16(r, p + 2, 0.001f);
        break;
    case DTYPE_Q6_K:
        put_f16(r, p + 208, 0.0001f);
        break;
    default:
        eng_block_put_size(type, p, rnd_normal(r) * 1.2f);
        if (type == DTYPE_MXFP4 && !rnd_below(r, 16)) p[0] = (uint8_t)rnd_below(r, 3); /* below the normal numbers */
        break;
    }
}

struct case_file case_file_make(struct rnd *r, enum dtype type, int32_t rows, int32_t cols)
{
    struct case_file f = {
        .type = type, .rows = rows, .cols = cols, .row_bytes = dtype_bytes(type, cols)};
    f.bytes = xmalloc((size_t)(f.row_bytes * rows));
    for (int64_t i = 0; i < f.row_bytes * rows; i += dtype_block_bytes(type))
        make_block(r, type, f.bytes + i);
    return f;
}

void case_file_free(struct case_file *f)
{
    free(f->bytes);
}

struct krn_mat case_pack(const struct case_file *f, int32_t k0, int32_t cols)
{
    struct krn_mat m = {.type = krn_pack_layout(f->type), .rows = f->rows, .cols = cols};
    m.tile_bytes = krn_pack_tile_bytes(f->type, cols);
    uint8_t *data = case_alloc((size_t)(m.tile_bytes * DIV_UP(f->rows, KRN_TILE)));
    int64_t start = dtype_bytes(f->type, k0 / dtype_block(f->type) * dtype_block(f->type));
    for (int32_t row = 0; row < f->rows; row += KRN_TILE) {
        const uint8_t *src[KRN_TILE] = {NULL};
        int32_t n = MIN(KRN_TILE, f->rows - row);
        for (int32_t i = 0; i < n; i++) src[i] = f->bytes + (row + i) * f->row_bytes + start;
        krn_pack_tile(f->type, data + row / KRN_TILE * m.tile_bytes, src, n, k0, cols);
    }
    m.data = data;
    return m;
}

/* ---- leaves ---------------------------------------------------------------------------------- */

void case_bounds(struct rnd *r, int32_t n, int32_t cols, int32_t grain, int32_t bound[])
{
    int32_t units = cols / grain;
    ASSERT(n <= units);
    bool even = rnd_below(r, 2);
    bound[0] = 0;
    for (int32_t i = 1; i <= n; i++) {
        int32_t room = units - bound[i - 1] / grain - (n - i); /* leaves to come need a unit each */
        int32_t step = even ? (int32_t)((int64_t)units * i / n) - bound[i - 1] / grain
                            : rnd_between(r, 1, MIN(room, 3));
        bound[i] = i == n ? cols : bound[i - 1] + step * grain;
    }
}

void case_leaves(const int32_t bound[], int32_t n, int32_t lo, int32_t hi, struct krn_leaves *out)
{
    *out = (struct krn_leaves){.n_leaf = n, .lo = lo, .hi = hi};
    for (int32_t i = lo; i <= hi; i++) out->cols[i - lo] = bound[i] - bound[lo];
    out->n_nodes = tree_maximal(n, lo, hi, out->nodes);
}

/* ---- activations ----------------------------------------------------------------------------- */

/* Room for the panels of rows x. */
static struct krn_act act_of(float *x, int32_t n_tok, int32_t cols, bool quantise)
{
    struct krn_act a = {.n_tok = n_tok, .cols = cols, .x = x};
    a.xt = case_alloc((size_t)krn_act_xt_floats(n_tok, cols) * sizeof *a.xt);
    if (quantise) a.q = case_alloc((size_t)krn_act_q_bytes(n_tok, cols));
    return a;
}

static void fill(struct krn_act *a)
{
    krn_ref.interleave(a, 0, a->n_tok, 0, a->cols);
    if (a->q) krn_ref.quantize(a, 0, a->n_tok, 0, a->cols / KRN_UNIT);
}

struct krn_act case_act(struct rnd *r, int32_t n_tok, int32_t cols, bool quantise, int32_t kind)
{
    struct krn_act a = act_of(case_floats(r, (int64_t)n_tok * cols, kind), n_tok, cols, quantise);
    fill(&a);
    return a;
}

static float *rows_of(const struct krn_act *x, int32_t k0, int32_t cols)
{
    float *values = case_alloc((size_t)x->n_tok * (size_t)cols * sizeof *values);
    for (int32_t t = 0; t < x->n_tok; t++)
        memcpy(values + (int64_t)t * cols, x->x + (int64_t)t * x->cols + k0,
               (size_t)cols * sizeof *values);
    return values;
}

struct krn_act case_act_slice(const struct krn_act *x, int32_t k0, int32_t cols)
{
    struct krn_act y = act_of(rows_of(x, k0, cols), x->n_tok, cols, x->q != NULL);
    fill(&y);
    return y;
}

struct krn_act case_act_copy(const struct krn_act *x)
{
    return act_of(rows_of(x, 0, x->cols), x->n_tok, x->cols, x->q != NULL);
}

void case_act_free(struct krn_act *x)
{
    free((void *)x->x);
    free(x->q);
    free(x->xt);
}

struct case_unit case_unit_at(const struct krn_act *x, int32_t t, int32_t unit)
{
    struct krn_panel_lane l = krn_panel_lane(x, t, unit);
    struct case_unit u = {.d = krn_lane_f32(&l, KRN_UNIT_D),
                          .s = (int32_t)krn_lane_f32(&l, KRN_UNIT_S)};
    memcpy(u.q, krn_lane_q(&l), KRN_UNIT);
    return u;
}
